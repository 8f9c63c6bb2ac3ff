package uprobes

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// listing is what objdump says of a binary: the independent truth.
type listing struct {
	// sharedEntries are entry sites behind the first byte that other functions
	// jump to: hand-written assembly where one function goes on in another.
	sharedEntries map[uint64]bool

	insns   map[uint64]string   // mnemonic and operands by address
	targets map[uint64][]uint64 // of direct jumps, not calls, with the addresses of the jumps
}

func objdump(tb testing.TB, path string) *listing {
	tb.Helper()
	cmd := exec.Command("objdump", "-d", "--no-show-raw-insn", "-w", path)
	out, err := cmd.Output()
	if err != nil {
		tb.Skipf("objdump %s: %v", path, err)
	}
	l := &listing{sharedEntries: map[uint64]bool{}, insns: make(map[uint64]string, 1<<20), targets: make(map[uint64][]uint64, 1<<18)}
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
					l.targets[t] = append(l.targets[t], a)
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
func loadFuncs(tb testing.TB, path string, arch elf.Machine) []testFunc {
	tb.Helper()
	b, err := symbolizer.Open(path)
	if err != nil {
		tb.Skip(err)
	}
	defer b.Close()
	if b.Arch != arch {
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

// binaryCase is one binary of the machine. Its bounds are for functions where
// objdump, which knows no functions in stripped code, decodes data as code and
// loses its way into the next function.
type binaryCase struct {
	name, path string
	desynced   int
	// sharedEntries bounds listing.sharedEntries.
	sharedEntries int
	// refused bounds functions that cannot be probed, other than fragments.
	refused int
}

func TestRealBinaries(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip(err)
	}
	for _, c := range []binaryCase{
		{name: "redis", path: "/usr/bin/redis-server"},
		{name: "libc", path: "/lib/x86_64-linux-gnu/libc.so.6", refused: 3},
		{name: "libstdc++", path: "/usr/lib/x86_64-linux-gnu/libstdc++.so.6"},
		{name: "libcrypto", path: "/usr/lib/x86_64-linux-gnu/libcrypto.so.3", desynced: 3, sharedEntries: 8, refused: 3},
		{name: "go", path: goTool, desynced: 3, refused: 6},
	} {
		t.Run(c.name, func(t *testing.T) { checkBinary(t, c) })
	}
}

func checkBinary(t *testing.T, c binaryCase) {
	fns := loadFuncs(t, c.path, elf.EM_X86_64)
	if len(fns) < 1000 {
		t.Fatalf("only %d functions with code", len(fns))
	}
	l := objdump(t, c.path)
	desynced, refused := 0, 0
	modes := []struct {
		name string
		opt  Options
		dist map[string]int
	}{
		{"latency", Options{Optimized5ByteNop: true}, map[string]int{}},
		{"args", Options{Optimized5ByteNop: true, NeedArgs: true}, map[string]int{}},
		{"unwinds", Options{Optimized5ByteNop: true, Unwinds: true}, map[string]int{}},
		{"ret, old kernel", Options{ReturnMethod: ReturnRet, NeedArgs: true}, map[string]int{}},
	}
	for i := range fns {
		fn := &fns[i]
		if fn.Fragment {
			if _, err := Analyze(elf.EM_X86_64, fn.code, fn.Function, Options{}); !errors.Is(err, ErrNotProbeable) {
				t.Errorf("fragment %s: %v, want ErrNotProbeable", fn.Name, err)
			}
			continue
		}
		if !l.agrees(fn) {
			desynced++
			t.Logf("%s: objdump decodes its code differently", fn.Name)
			continue
		}
		for j := range modes {
			p, err := Analyze(elf.EM_X86_64, fn.code, fn.Function, modes[j].opt)
			if err != nil {
				if !errors.Is(err, ErrNotProbeable) {
					t.Errorf("%s: %v", fn.Name, err)
				}
				if j == 0 {
					refused++
					t.Log(err)
				}
				continue
			}
			checkPlan(t, l, fn, p, modes[j].opt)
			countPlan(modes[j].dist, p)
		}
	}
	for _, m := range modes {
		t.Logf("%d functions, %s: %v", len(fns), m.name, m.dist)
	}
	if n := len(l.sharedEntries); n > c.sharedEntries {
		t.Errorf("other functions jump to %d entry sites, want at most %d", n, c.sharedEntries)
	}
	if desynced > c.desynced {
		t.Errorf("%d functions are decoded differently by objdump, at most %d have data in their code", desynced, c.desynced)
	}
	if refused > c.refused {
		t.Errorf("%d functions cannot be probed, want at most %d", refused, c.refused)
	}
}

// agrees reports whether objdump sees the instructions of fn where a linear
// pass from its start does. It is also a test of all instruction lengths.
func (l *listing) agrees(fn *testFunc) bool {
	var in insnAMD64
	for off := 0; off < len(fn.code); off += int(in.length) {
		if _, ok := l.insns[fn.Addr+uint64(off)]; !ok || !decodeAMD64(fn.code[off:], &in) {
			return false
		}
	}
	return true
}

// checkPlan holds a plan against objdump's listing.
func checkPlan(t *testing.T, l *listing, fn *testFunc, p *Plan, opt Options) {
	t.Helper()
	entry := p.Entry.Offset - fn.Offset + fn.Addr
	text, ok := l.insns[entry]
	if !ok {
		t.Errorf("%s: entry at %#x is not at an instruction (%s)", fn.Name, entry, p.Entry.Reason)
	}
	for _, from := range l.targets[entry] {
		if entry == fn.Addr {
			break
		}
		if from-fn.Addr < fn.Size {
			t.Errorf("%s: entry at %#x is a jump target (%s)", fn.Name, entry, p.Entry.Reason)
		} else {
			l.sharedEntries[entry] = true
		}
	}
	if got := objdumpClass(text, opt); got != p.Entry.Class && !(got == Nop5Optimized && p.Entry.Class == Emulated) {
		t.Errorf("%s: entry at %#x is %s, objdump shows %q", fn.Name, entry, p.Entry.Class, text)
	}
	if p.Entry.SPAdjust < 0 || p.Entry.SPAdjust > MaxSPAdjust || p.Entry.SPAdjust%8 != 0 {
		t.Errorf("%s: entry with stack adjustment %d", fn.Name, p.Entry.SPAdjust)
	}
	if len(p.Returns) == 0 {
		return
	}
	if r := p.Returns[0]; r.Role == RoleReturn {
		if fn.Lang == symbolizer.LangGo {
			t.Errorf("%s: return probe on a Go function", fn.Name)
		}
		if len(p.Returns) != 1 || r.Offset != p.Entry.Offset || r.SPAdjust != 0 || p.Entry.SPAdjust != 0 {
			t.Errorf("%s: return probe %+v with entry %+v", fn.Name, p.Returns, p.Entry)
		}
		return
	}
	var want, got []uint64
	for a := fn.Addr; a < fn.Addr+fn.Size; a++ {
		if isRet(l.insns[a]) {
			want = append(want, a)
		}
	}
	for _, s := range p.Returns {
		addr := s.Offset - fn.Offset + fn.Addr
		if s.Role == RoleTail {
			checkTail(t, l, fn, s, addr)
			continue
		}
		got = append(got, addr)
	}
	if !slices.Equal(want, got) {
		t.Errorf("%s: RETs at %#x, objdump shows %#x (%v)", fn.Name, got, want, p.Warnings)
	}
}

// checkTail makes sure that a tail site is a jump out of the function under the
// condition that the site tells.
func checkTail(t *testing.T, l *listing, fn *testFunc, s Site, addr uint64) {
	t.Helper()
	text := l.insns[addr]
	f := strings.Fields(text)
	for len(f) > 1 && (f[0] == "bnd" || f[0] == "notrack" || strings.HasPrefix(f[0], "rex")) {
		f = f[1:]
	}
	if len(f) < 2 || f[0][0] != 'j' {
		t.Errorf("%s: tail site at %#x is %q", fn.Name, addr, text)
		return
	}
	if conditional := f[0] != "jmp"; conditional != (s.Condition != Always) {
		t.Errorf("%s: tail site at %#x with condition %#x is %q", fn.Name, addr, s.Condition, text)
	}
	if class := objdumpClass(strings.Join(f, " "), Options{}); class != s.Class {
		t.Errorf("%s: tail site at %#x is %s, objdump shows %q", fn.Name, addr, s.Class, text)
	}
	var target uint64
	if _, err := fmt.Sscanf(f[1], "%x", &target); err == nil && target >= fn.Addr && target < fn.Addr+fn.Size {
		t.Errorf("%s: tail site at %#x stays in the function: %q", fn.Name, addr, text)
	}
}

// objdumpClass classifies an instruction by its text.
func objdumpClass(text string, opt Options) InsnClass {
	f := strings.Fields(text)
	if len(f) == 0 {
		return SingleStepped
	}
	op := f[0]
	if op == "bnd" && len(f) > 1 {
		op = f[1]
	}
	switch {
	case op == "nop":
		return Emulated
	case op == "xchg" && text == "xchg   %ax,%ax":
		return Emulated
	case op == "nopl" || op == "nopw":
		if text == "nopl   0x0(%rax,%rax,1)" && opt.Optimized5ByteNop {
			return Nop5Optimized
		}
		if opt.Optimized5ByteNop {
			return Emulated
		}
	case op == "push":
		if strings.HasPrefix(f[1], "%r") {
			return Emulated
		}
	case op == "call" || op[0] == 'j':
		if !strings.HasPrefix(f[1], "*") && !strings.HasPrefix(op, "jrcxz") && !strings.HasPrefix(op, "jecxz") {
			return Emulated
		}
	}
	return SingleStepped
}

func countPlan(dist map[string]int, p *Plan) {
	dist["entry "+p.Entry.Class.String()]++
	for what, is := range map[string]bool{
		"tail jumps": p.TailJumps, "split": p.Split, "leaf": !p.Calls, "never returns": p.NoReturn,
		"recursive": p.SelfRecursive, "warned": len(p.Warnings) > 0,
	} {
		if is {
			dist[what]++
		}
	}
	for _, s := range p.Returns {
		dist[s.Role.String()+" sites"]++
	}
}
