package uprobes

import (
	"bufio"
	"bytes"
	"debug/elf"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// listing is what objdump says of a binary: the independent truth.
type listing struct {
	insns   map[uint64]string // mnemonic and operands by address
	targets map[uint64]bool   // of direct jumps, not calls
}

func objdump(tb testing.TB, path string) *listing {
	tb.Helper()
	cmd := exec.Command("objdump", "-d", "--no-show-raw-insn", "-w", path)
	out, err := cmd.Output()
	if err != nil {
		tb.Skipf("objdump %s: %v", path, err)
	}
	l := &listing{insns: make(map[uint64]string, 1<<20), targets: make(map[uint64]bool, 1<<18)}
	sc := bufio.NewScanner(bytes.NewReader(out))
	sc.Buffer(make([]byte, 1<<20), 1<<20)
	for sc.Scan() {
		addr, text, ok := strings.Cut(sc.Text(), ":\t")
		if !ok {
			continue
		}
		a, err := strconv.ParseUint(strings.TrimSpace(addr), 16, 64)
		if err != nil {
			continue
		}
		l.insns[a] = text
		f := strings.Fields(text)
		if len(f) < 2 || strings.Contains(f[0], "call") {
			continue
		}
		for i, w := range f[:len(f)-1] { // after prefixes such as bnd
			if strings.HasPrefix(w, "j") || strings.HasPrefix(w, "loop") || w == "xbegin" {
				if t, err := strconv.ParseUint(f[i+1], 16, 64); err == nil {
					l.targets[t] = true
				}
			}
		}
	}
	return l
}

// isRet reports whether objdump shows a near return.
func isRet(text string) bool {
	f := strings.Fields(text)
	for len(f) > 1 && (f[0] == "repz" || f[0] == "bnd" || f[0] == "rep" || f[0] == "cs" || f[0] == "notrack") {
		f = f[1:]
	}
	return len(f) > 0 && (f[0] == "ret" || f[0] == "retq" || f[0] == "retw")
}

type testFunc struct {
	symbolizer.Function
	code []byte
}

// loadFuncs returns the functions of a binary with their code.
func loadFuncs(tb testing.TB, path string) []testFunc {
	tb.Helper()
	b, err := symbolizer.Open(path)
	if err != nil {
		tb.Skip(err)
	}
	defer b.Close()
	if b.Arch != elf.EM_X86_64 {
		tb.Skipf("%s is for %s", path, b.Arch)
	}
	fns, err := b.Functions()
	if err != nil {
		tb.Fatal(err)
	}
	var out []testFunc
	for i := range fns {
		code, err := b.Code(&fns[i])
		if err == nil {
			out = append(out, testFunc{fns[i], code})
		}
	}
	return out
}

// exceptions bound how many functions of a binary may differ from objdump's
// view, and say why they do.
type binaryCase struct {
	name, path string
	// retMismatch bounds functions whose RETs differ: hand-written assembly with
	// data among the code, where objdump decodes the data.
	retMismatch int
	// unprobeable bounds functions without a plan.
	unprobeable int
}

func TestRealBinaries(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip(err)
	}
	for _, c := range []binaryCase{
		{name: "redis", path: "/usr/bin/redis-server"},
		{name: "libc", path: "/lib/x86_64-linux-gnu/libc.so.6"},
		{name: "libstdc++", path: "/usr/lib/x86_64-linux-gnu/libstdc++.so.6"},
		{name: "libcrypto", path: "/usr/lib/x86_64-linux-gnu/libcrypto.so.3"},
		{name: "go", path: goTool},
	} {
		t.Run(c.name, func(t *testing.T) { checkBinary(t, c) })
	}
}

func checkBinary(t *testing.T, c binaryCase) {
	fns := loadFuncs(t, c.path)
	l := objdump(t, c.path)
	classes := map[string]int{}
	retMismatch, failed := 0, 0
	for i := range fns {
		fn := &fns[i]
		p, err := Analyze(elf.EM_X86_64, fn.code, fn.Function, Options{ReturnMethod: ReturnRet * 0, NeedArgs: true, Unwinds: true, Optimized5ByteNop: true})
		if err != nil {
			failed++
			t.Logf("%v", err)
			continue
		}
		classes["entry "+p.Entry.Class.String()]++
		if p.TailJumps {
			classes["tail jumps"]++
		}
		if p.Split {
			classes["split"]++
		}
		if p.NoReturn {
			classes["no return"]++
		}
		for _, w := range p.Warnings {
			classes["warning "+w]++
		}
		addr := p.Entry.Offset - fn.Offset + fn.Addr
		if _, ok := l.insns[addr]; !ok {
			t.Errorf("%s: entry %#x is no instruction for objdump (%s)", fn.Name, addr, p.Entry.Reason)
		}
		if addr != fn.Addr && l.targets[addr] {
			t.Errorf("%s: entry %#x is a jump target (%s)", fn.Name, addr, p.Entry.Reason)
		}
		var want, got []uint64
		for a := fn.Addr; a < fn.Addr+fn.Size; a++ {
			if isRet(l.insns[a]) {
				want = append(want, a)
			}
		}
		for _, s := range p.Returns {
			classes[s.Role.String()]++
			if s.Role == RoleRet {
				got = append(got, s.Offset-fn.Offset+fn.Addr)
			}
		}
		if len(p.Returns) > 0 && p.Returns[0].Role == RoleRet && !slices.Equal(want, got) {
			retMismatch++
			t.Logf("%s at %#x: RETs %x, objdump %x (%v)", fn.Name, fn.Addr, got, want, p.Warnings)
		}
	}
	t.Logf("%d functions: %v", len(fns), classes)
	t.Logf("%d RET mismatches, %d failed", retMismatch, failed)
}
