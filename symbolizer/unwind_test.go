package symbolizer

import (
	"bufio"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// amd64Names are the names that readelf has for DWARF registers.
var amd64Names = []string{"rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}

// readelfName is what follows the number of a register that holds another one.
var readelfName = regexp.MustCompile(` \(\w+\)`)

var readelfRow = regexp.MustCompile(`^([0-9a-f]{16}) (\S+)\s+(.*?)\s*$`)

// readelfRows returns the rows of .eh_frame as readelf interprets them: for each
// address the rules of the columns by name.
func readelfRows(t *testing.T, path string) map[uint64]map[string]string {
	t.Helper()
	rows := make(map[uint64]map[string]string)
	var columns []string
	inEHFrame, fde := false, false
	lines := bufio.NewScanner(strings.NewReader(mustRun(t, "readelf", "-wFN", "-W", path)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "Contents of the "):
			inEHFrame = strings.Contains(line, ".eh_frame ")
		case strings.Contains(line, " CIE "), strings.Contains(line, " FDE "):
			fde = strings.Contains(line, " FDE ")
		case strings.HasPrefix(strings.TrimSpace(line), "LOC "):
			columns = strings.Fields(line)[1:]
		default:
			m := readelfRow.FindStringSubmatch(line)
			if m == nil || !inEHFrame || !fde {
				continue
			}
			addr, _ := strconv.ParseUint(m[1], 16, 64)
			row := map[string]string{}
			for i, v := range append([]string{m[2]}, strings.Fields(readelfName.ReplaceAllString(m[3], ""))...) {
				row[columns[i]] = v
			}
			rows[addr] = row
		}
	}
	return rows
}

// inReadelfWords renders a rule in the columns of readelf.
func inReadelfWords(r UnwindRule) map[string]string {
	row := map[string]string{"CFA": "exp", "ra": "c-8"}
	switch r.Kind {
	case UnwindCFA:
		row["CFA"] = fmt.Sprintf("%s%+d", amd64Names[r.Reg], r.Offset)
		row["ra"] = fmt.Sprintf("c%+d", r.Second)
	case UnwindEnd:
		row["ra"] = "u"
	}
	if r.RAReg != 0 {
		row["ra"] = "r" + strconv.Itoa(int(r.RAReg-1))
	}
	regs, _ := UnwindRegs(elf.EM_X86_64)
	for i, reg := range regs {
		switch s := r.Saved[i]; {
		case s == SavedLost:
		case s == 0:
			row[amd64Names[reg]] = "u"
		case s&1 == 0:
			row[amd64Names[reg]] = fmt.Sprintf("c%+d", int(s)*4)
		default:
			row[amd64Names[reg]] = "exp"
		}
	}
	return row
}

// TestUnwindTableAgreesWithReadelf compares every row of the tables of what
// every process maps with readelf's interpretation of the same bytes.
func TestUnwindTableAgreesWithReadelf(t *testing.T) {
	need(t, "readelf")
	for _, pattern := range []string{
		"/usr/lib/*-linux-gnu/libc.so.6", "/usr/lib/*-linux-gnu/libstdc++.so.6", "/lib*/ld-linux-x86-64.so.2", "/usr/bin/redis-server",
	} {
		path := needFile(t, pattern)
		b := open(t, path, Options{NoDebugFiles: true})
		if b.Arch != elf.EM_X86_64 {
			t.Skip("the registers' names are those of x86-64")
		}
		table, err := b.UnwindTable()
		if err != nil {
			t.Fatal(err)
		}
		rows := readelfRows(t, path)
		wrong := 0
		for addr, want := range rows {
			got := inReadelfWords(table.Lookup(addr))
			if want["rsp"] != "" && want["rsp"] != "u" && table.Lookup(addr).Kind == UnwindNone {
				continue // longjmp: the stack pointer comes from elsewhere than the CFA
			}
			if got["ra"] == "u" {
				want = map[string]string{"ra": want["ra"]}
			}
			if table.Lookup(addr).Kind == UnwindSignal {
				want = map[string]string{"CFA": want["CFA"]}
			}
			for column, value := range want {
				if value == "s" {
					value = "u"
				}
				if _, known := got[column]; known && got[column] != value {
					if wrong++; wrong < 5 {
						t.Errorf("%s: %#x: %s is %s, readelf has %s", path, addr, column, got[column], value)
					}
				}
			}
		}
		if len(rows) < 500 || table.Unsupported > 0 {
			t.Errorf("%s: %d rows compared, %d entries not understood", path, len(rows), table.Unsupported)
		}
	}
}

// frameRules returns the rules of the rows that unwind instructions make, after
// the usual initial ones of x86-64.
func frameRules(t *testing.T, augmentation string, code ...byte) []UnwindRule {
	t.Helper()
	cie := &CIE{Augmentation: augmentation, CodeAlign: 1, DataAlign: -8, ReturnReg: 16, SignalFrame: strings.Contains(augmentation, "S"),
		Instructions: []byte{cfaDefCFA, 7, 8, cfaOffset | 16, 1}, order: binary.LittleEndian}
	u, err := newUnwindBuilder(elf.EM_X86_64)
	if err != nil {
		t.Fatal(err)
	}
	u.addFrames([]FDE{{Start: 0x1000, Size: 0x100, CIE: cie, Instructions: code}})
	u.finish()
	var rules []UnwindRule
	for _, row := range u.table.Rows {
		if row.Addr < 0x1100 {
			rules = append(rules, u.table.Rules[row.Rule])
		}
	}
	return rules
}

func TestUnwindRules(t *testing.T) {
	entry := UnwindRule{Kind: UnwindCFA, Reg: 7, Offset: 8, Second: -8}
	saved := func(r UnwindRule, reg int, n int16) UnwindRule {
		r.Saved[reg] = n
		return r
	}
	cfa := func(reg uint8, offset int32) UnwindRule {
		return UnwindRule{Kind: UnwindCFA, Reg: reg, Offset: offset, Second: -8}
	}
	for name, c := range map[string]struct {
		augmentation string
		code         []byte
		want         []UnwindRule
	}{
		"nothing": {code: nil, want: []UnwindRule{entry}},
		"frame pointer": {
			code: []byte{cfaAdvanceLoc | 1, cfaDefCFAOffset, 16, cfaOffset | 6, 2, cfaAdvanceLoc | 3, cfaDefCFARegister, 6,
				cfaAdvanceLoc1, 90, cfaDefCFA, 7, 8},
			want: []UnwindRule{entry, saved(cfa(7, 16), 1, -4), saved(cfa(6, 16), 1, -4), saved(cfa(7, 8), 1, -4)},
		},
		"remember and restore": {
			code: []byte{cfaAdvanceLoc | 1, cfaDefCFAOffset, 32, cfaOffset | 3, 2, cfaAdvanceLoc | 1, cfaRememberState,
				cfaDefCFAOffset, 8, cfaRestore | 3, cfaAdvanceLoc | 1, cfaRestoreState},
			want: []UnwindRule{entry, saved(cfa(7, 32), 0, -4), entry, saved(cfa(7, 32), 0, -4)},
		},
		"outermost": {code: []byte{cfaUndefined, 16}, want: []UnwindRule{{Kind: UnwindEnd}}},
		"return address in a register": { // vfork of glibc
			code: []byte{cfaAdvanceLoc | 1, cfaDefCFAOffset, 0, cfaRegister, 16, 5},
			want: []UnwindRule{entry, {Kind: UnwindCFA, Reg: 7, RAReg: 6}},
		},
		"procedure linkage table": {
			code: []byte{cfaDefCFAExpression, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22},
			want: []UnwindRule{{Kind: UnwindPLT, Reg: 7, Offset: 8, Second: 11}},
		},
		"realigned stack": { // gcc, -mstackrealign: lea 8(%rsp),%r10; and $-32,%rsp; …
			code: []byte{cfaAdvanceLoc | 5, cfaDefCFA, 10, 0, cfaAdvanceLoc | 13, cfaExpression, 6, 2, 0x76, 0,
				cfaAdvanceLoc | 2, cfaDefCFAExpression, 3, 0x76, 0x78, 0x06},
			want: []UnwindRule{entry, cfa(10, 0), saved(cfa(10, 0), 1, 1),
				saved(UnwindRule{Kind: UnwindDeref, Reg: 6, Offset: -8}, 1, 1)},
		},
		"saved stack pointer": { // OpenSSL: .cfi_cfa_expression %rsp+16,deref,+8
			code: []byte{cfaDefCFAExpression, 5, 0x77, 16, 0x06, 0x23, 8},
			want: []UnwindRule{{Kind: UnwindDeref, Reg: 7, Offset: 16, Second: 8}},
		},
		"signal trampoline": { // glibc, __restore_rt
			augmentation: "zRS", code: []byte{cfaDefCFAExpression, 4, 0x77, 0xa0, 0x01, 0x06},
			want: []UnwindRule{{Kind: UnwindSignal, Reg: 7, Flags: UnwindExact}},
		},
		"register saved too far away": {
			code: []byte{cfaOffset | 3, 0x80, 0x80, 0x04},
			want: []UnwindRule{saved(entry, 0, SavedLost)},
		},
		"expression of the future": {code: []byte{cfaDefCFAExpression, 1, 0xff}, want: []UnwindRule{{}}},
		"instruction of the future": {
			code: []byte{cfaAdvanceLoc | 1, cfaDefCFAOffset, 16, cfaAdvanceLoc | 1, 0x3d},
			want: []UnwindRule{entry, cfa(7, 16), {}},
		},
		"state that was never remembered": {code: []byte{cfaRestoreState}, want: []UnwindRule{{}}},
	} {
		t.Run(name, func(t *testing.T) {
			got := frameRules(t, c.augmentation, c.code...)
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, c.want)
			}
		})
	}
}

// Where entries overlap the one that starts later has the code.
func TestUnwindTableOverlaps(t *testing.T) {
	cie := &CIE{CodeAlign: 1, DataAlign: -8, ReturnReg: 16, Instructions: []byte{cfaDefCFA, 7, 8, cfaOffset | 16, 1}, order: binary.LittleEndian}
	fde := func(start, size uint64, offset byte) FDE {
		return FDE{Start: start, Size: size, CIE: cie, Instructions: []byte{cfaDefCFAOffset, offset}}
	}
	u, _ := newUnwindBuilder(elf.EM_X86_64)
	u.addFrames([]FDE{fde(0x300, 0x10, 64), fde(0x100, 0x100, 16), fde(0x180, 0x10, 32), fde(0x100, 0x50, 48)})
	u.finish()
	for addr, offset := range map[uint64]int32{0x50: 0, 0x100: 16, 0x17f: 16, 0x180: 32, 0x18f: 32, 0x190: 0, 0x2ff: 0, 0x300: 64, 0x310: 0} {
		if got := u.table.Lookup(addr); got.Offset != offset {
			t.Errorf("%#x: %+v, want offset %d", addr, got, offset)
		}
	}
}

// Code compiled without .eh_frame has its rules in .debug_frame, which may be in
// the separate debug file.
func TestUnwindTableDebugFrame(t *testing.T) {
	flags := []string{"-O2", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"}
	with := open(t, compile(t, "funcs.c", append(flags, "-g")...), Options{NoDebugFiles: true})
	without := open(t, compile(t, "funcs.c", flags...), Options{NoDebugFiles: true})
	usual := open(t, compile(t, "funcs.c", "-O2"), Options{NoDebugFiles: true})
	main := byName(t, usual, "main")
	rules := func(b *Binary) (rules []UnwindRule) {
		table, err := b.UnwindTable()
		if err != nil {
			t.Fatal(err)
		}
		fn := byName(t, b, "main")
		for i := range main.Size {
			rules = append(rules, table.Lookup(fn.Addr+i))
		}
		return rules
	}
	if got, want := fmt.Sprint(rules(with)), fmt.Sprint(rules(usual)); got != want {
		t.Errorf("by .debug_frame\n%s\nby .eh_frame\n%s", got, want)
	}
	// Without either, what the instructions prove is the same.
	for i, r := range rules(without) {
		if r.Kind != UnwindCFA || r.Reg != amd64SP || r.Offset != rules(usual)[i].Offset {
			t.Fatalf("main+%d: %+v, by .eh_frame %+v", i, r, rules(usual)[i])
		}
	}
}

func TestUnwindTableGo(t *testing.T) {
	b := open(t, goBuild(t, "plain"), Options{})
	table, err := b.UnwindTable()
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) UnwindRule { return table.Lookup(byName(t, b, name).Addr) }
	if r := at("main.main"); r != (UnwindRule{Kind: UnwindCFA, Reg: 7, Offset: 8, Second: -8}) && b.Arch == elf.EM_X86_64 {
		t.Errorf("entry of main.main: %+v", r)
	}
	for name, kind := range map[string]UnwindKind{"runtime.goexit": UnwindEnd, "runtime.mstart": UnwindEnd, "runtime.sigtramp": UnwindCFA,
		"runtime.morestack": UnwindGoStack, "runtime.sigreturn__sigaction": UnwindSignal} {
		if r := at(name); r.Kind != kind {
			t.Errorf("%s: %v, want %v", name, r.Kind, kind)
		}
	}
	// Inside of systemstack SP is that of another stack, the frame pointer is not.
	fn := byName(t, b, "runtime.systemstack")
	byFP := uint64(0)
	for i := range fn.Size {
		if table.Lookup(fn.Addr+i) == fpRule(b.Arch) {
			byFP++
		}
	}
	if byFP < fn.Size/2 {
		t.Errorf("runtime.systemstack: %d of %d bytes by frame pointer", byFP, fn.Size)
	}
}

func FuzzUnwindTable(f *testing.F) {
	f.Add([]byte{cfaDefCFAExpression, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22}, "zRS", true)
	f.Add([]byte{cfaAdvanceLoc | 1, cfaDefCFAOffset, 32, cfaRememberState, cfaRestoreState, cfaUndefined, 16}, "", false)
	f.Fuzz(func(t *testing.T, code []byte, augmentation string, debug bool) {
		order := binary.LittleEndian
		cie := append([]byte{0, 0, 0, 0, 1}, augmentation...)
		cie = append(cie, 0, 1, 0x78, 16, 0, cfaDefCFA, 7, 8, cfaOffset|16, 1)
		fde := order.AppendUint64(order.AppendUint64([]byte{0, 0, 0, 0}, 0x1000), 0x200)
		if debug {
			copy(cie, "\xff\xff\xff\xff")
		} else {
			order.PutUint32(fde, uint32(len(cie)+8))
			fde = append(fde, 0)
		}
		fde = append(fde, code...)
		layout := EHFrameLayout{Addr: 0x10000, Order: order, PointerSize: 8}
		parse := ParseEHFrame
		if debug {
			parse = ParseDebugFrame
		}
		for _, data := range [][]byte{ehEntries(cie, fde), code} {
			frames, _ := parse(data, layout)
			for _, arch := range []elf.Machine{elf.EM_X86_64, elf.EM_AARCH64} {
				u, err := newUnwindBuilder(arch)
				if err != nil {
					t.Fatal(err)
				}
				u.addFrames(frames)
				u.finish()
				for i, row := range u.table.Rows {
					if int(row.Rule) >= len(u.table.Rules) || i > 0 && row.Addr <= u.table.Rows[i-1].Addr {
						t.Fatalf("row %d: %+v", i, row)
					}
					if r := u.table.Rules[row.Rule]; r.Reg > 31 || r.RAReg > 32 {
						t.Fatalf("rule %+v", r)
					}
				}
			}
		}
	})
}
