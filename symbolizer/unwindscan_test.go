package symbolizer

import (
	"debug/elf"
	"encoding/hex"
	"strconv"
	"strings"
	"testing"
)

// TestScanAgreesWithEHFrame reads code that has unwind information as if it had
// none: what the instructions prove must be what the compiler says.
func TestScanAgreesWithEHFrame(t *testing.T) {
	paths := []string{
		needFile(t, "/usr/lib/*-linux-gnu/libc.so.6"), needFile(t, "/usr/bin/redis-server"), compile(t, "funcs.c", "-O0"), compile(t, "names.cc", "-O2"),
	}
	for _, path := range paths {
		b := open(t, path, Options{NoDebugFiles: true})
		if b.Arch != elf.EM_X86_64 {
			t.Skip("only x86-64 code is read")
		}
		table, err := b.UnwindTable()
		if err != nil {
			t.Fatal(err)
		}
		frames, _ := b.Frames()
		u, _ := newUnwindBuilder(b.Arch)
		functions := 0
		for i := range frames {
			f := &frames[i]
			if table.Lookup(f.Start).Reg != amd64SP || table.Lookup(f.Start).Offset != 8 || f.startsInside() {
				continue // cold parts begin with a frame
			}
			code := make([]byte, f.Size)
			if b.readAddr(code, f.Start) != nil || len(f.Instructions) == 0 || f.Instructions[0] == cfaNop {
				continue // assembly that says nothing of what it pushes
			}
			functions++
			scanFunction(u, code, functionStart{addr: f.Start}, false)
		}
		proven := len(u.spans)
		u.finish()
		compared, wrong := 0, 0
		for _, row := range u.table.Rows {
			got, want := u.table.Rules[row.Rule], table.Lookup(row.Addr)
			if got.Kind != UnwindCFA || want.Kind != UnwindCFA || got.Reg != want.Reg {
				continue // by the stack pointer here, by the frame pointer there
			}
			compared++
			if got.Offset != want.Offset {
				if wrong++; wrong < 5 {
					t.Errorf("%s: %#x: CFA is sp%+d, .eh_frame has sp%+d", path, row.Addr, got.Offset, want.Offset)
				}
			}
			// A register that was restored is as good in its old place on the stack.
			if s, w := got.Saved[1], want.Saved[1]; s != 0 && s != SavedLost && w != 0 && s != w {
				t.Errorf("%s: %#x: rbp at CFA%+d, .eh_frame has CFA%+d", path, row.Addr, int(s)*4, int(w)*4)
			}
		}
		t.Logf("%s: %d of %d functions proven, %d rows compared", path, proven, functions, compared)
		if proven*2 < functions || compared < proven {
			t.Errorf("%s: only %d of %d functions proven, %d rows compared", path, proven, functions, compared)
		}
	}
}

func TestScanFunction(t *testing.T) {
	for name, c := range map[string]struct {
		code string
		want string // of the first rows: CFA offsets, "end", "none"
	}{
		"leaf":             {"48ffc0 c3", "8"},
		"push and pop":     {"53 4883ec10 31c0 4883c410 5b c3", "8 16 32 16 8"},
		"frame pointer":    {"55 4889e5 4883e4e0 31c0 c9 c3", "8 16 fp16 8"},
		"branches agree":   {"53 85ff 7402 31c0 5b c3", "8 16 8"},
		"branches differ":  {"85ff 7401 53 31c0 c3", "none"},
		"pops the return":  {"58 c3", "none"},
		"unbalanced":       {"53 c3", "none"},
		"outermost":        {"4831ed ff d0 f4", "8 end"},
		"stack switched":   {"4889fc c3", "none"},
		"tail call":        {"4883ec08 31c0 4883c408 e900010000", "8 16 8"},
		"jump table":       {"53 ff24c500104000 31c0 5b c3", "8 16 8"},
		"vector code":      {"53 c5f877 c5fd6f00 62f17c4828c1 5b c3", "8 16 8"},
		"rbp clobbered":    {"31ed 55 5d c3", "none"},
		"rbx clobbered":    {"31db c3", "none"},
		"signal":           {"48c7c00f000000 0f05", "signal"},
		"not decodable":    {"06 c3", "none"},
		"saved by a store": {"4883ec18 48895c2408 31db 488b5c2408 4883c418 c3", "8 32 8"},
	} {
		t.Run(name, func(t *testing.T) {
			code, err := hex.DecodeString(strings.ReplaceAll(c.code, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			u, _ := newUnwindBuilder(elf.EM_X86_64)
			scanFunction(u, code, functionStart{addr: 0x1000}, false)
			u.finish()
			var got []string
			for _, row := range u.table.Rows {
				word := ruleWord(u.table.Rules[row.Rule])
				if row.Addr < 0x1000+uint64(len(code)) && (len(got) == 0 || got[len(got)-1] != word) {
					got = append(got, word)
				}
			}
			if len(got) == 0 {
				got = []string{"none"}
			}
			if text := strings.Join(got, " "); text != c.want {
				t.Errorf("got %s, want %s", text, c.want)
			}
		})
	}
}

// ruleWord is a rule as TestScanFunction has it.
func ruleWord(r UnwindRule) string {
	switch {
	case r.Kind == UnwindCFA && r.Reg == amd64FP:
		return "fp" + strconv.Itoa(int(r.Offset))
	case r.Kind == UnwindCFA:
		return strconv.Itoa(int(r.Offset))
	}
	return r.Kind.String()
}

func FuzzScan(f *testing.F) {
	for _, seed := range []string{"5353c9c35b5bc3", "554889e54883e4e031c0c9c3", "53ff24c50010400031c05bc3", "85ff7402ebfc31c05bc3"} {
		code, _ := hex.DecodeString(seed)
		f.Add(code)
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		u, _ := newUnwindBuilder(elf.EM_X86_64)
		scanFunction(u, code, functionStart{addr: 0x1000, named: true}, false)
		u.finish()
		for i, row := range u.table.Rows {
			r := u.table.Rules[row.Rule]
			if i > 0 && row.Addr <= u.table.Rows[i-1].Addr || row.Addr > 0x1000+uint64(len(code)) {
				t.Fatalf("row %d: %+v", i, row)
			}
			if r.Kind == UnwindCFA && r.Reg == amd64SP && r.Offset < 8 {
				t.Fatalf("no return address on the stack: %+v", r)
			}
		}
	})
}
