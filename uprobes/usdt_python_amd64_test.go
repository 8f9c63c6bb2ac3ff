package uprobes

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pythonCallTree is what calls.py does: indentation is nesting. Each line is
// one stay in the function, until it returns, yields or raises.
const pythonCallTree = `
<module>:1
	Thing:35
	main:55
		leaf:2
		leaf:2
		leaf:2
		rec:5
			rec:5
				rec:5
		gen:8
		gen:8
		gen:8
		catching:12
		catching:14
		catching:16
		delegating:18
			gen:8
		delegating:18
			gen:8
		delegating:18
			gen:8
		rescuing:24
			failing:21
			leaf:2
		closure:30
		inner:31
			leaf:2
		__init__:36
			leaf:2
		prop:39
		__add__:43
		leaf:2
		leaf:2
		leaf:2
		leaf:2
		<listcomp>:73
			leaf:2
			leaf:2
		<lambda>:74
			leaf:2
		coro:49
			sub:46
		keywords:52
		keywords:52
`

// pythons are the CPython 3.11 binaries of this machine: program and the file
// that has the interpreter.
func pythons(t *testing.T) map[string][2]string {
	t.Helper()
	found := map[string][2]string{}
	for _, name := range []string{"python3.11", "python3.11d"} {
		path := filepath.Join("/usr/bin", name)
		if _, err := os.Stat(path); err == nil {
			found[name] = [2]string{path, path}
		}
	}
	// A program that embeds the library: position-independent code.
	libs, _ := filepath.Glob("/usr/lib/*/libpython3.11.so.1.0")
	cc, err := exec.LookPath("gcc")
	if _, noHeader := os.Stat("/usr/include/python3.11/Python.h"); err == nil && noHeader == nil && len(libs) > 0 {
		exe := filepath.Join(t.TempDir(), "embedded")
		cmd := exec.Command(cc, "-x", "c", "-", "-o", exe, "-I/usr/include/python3.11", "-lpython3.11")
		cmd.Stdin = strings.NewReader("#include <Python.h>\nint main(int argc, char **argv) { return Py_BytesMain(argc, argv); }\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		found["libpython3.11"] = [2]string{exe, libs[0]}
	}
	if len(found) == 0 {
		t.Skip("no CPython 3.11 here")
	}
	return found
}

// TestCPythonCallTree runs a script with known calls and puts the tree together
// from the probes.
func TestCPythonCallTree(t *testing.T) {
	for name, files := range pythons(t) {
		t.Run(name, func(t *testing.T) { checkCallTree(t, files[0], files[1]) })
	}
}

func checkCallTree(t *testing.T, exe, module string) {
	var probes []StaticProbe
	derived := 0
	for _, p := range readProbes(t, module) {
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		if p.Derived {
			derived++
		}
		if CPythonFunctions.IsEntry(&p) || CPythonFunctions.IsReturn(&p) {
			probes = append(probes, p)
		}
	}
	if derived == 0 {
		t.Skip("built without function__return")
	}
	script, err := filepath.Abs("testdata/python/calls.py")
	if err != nil {
		t.Fatal(err)
	}
	tr := startTracee(t, exe, "-I", "-S", script)
	tr.runToEntry(exe)
	for i := range probes {
		if probes[i].SemaphoreOffset != 0 {
			tr.listen(module, &probes[i])
		}
	}
	arg := func(p *StaticProbe, regs []byte, i int) uint64 {
		value, ok := evalArg(p.Args[i].Spec, regs, tr.peek)
		if !ok {
			t.Errorf("%s: argument %s is unread", p.ID(), p.Args[i].Raw)
		}
		return value
	}
	var tree strings.Builder
	tree.WriteByte('\n')
	var open []string
	c := &CPythonFunctions
	tr.firings(module, probes, func(p *StaticProbe, regs []byte) {
		if tr.cString(arg(p, regs, c.FileArg)) != script {
			return
		}
		function := tr.cString(arg(p, regs, c.NameArg))
		if c.IsEntry(p) {
			tree.WriteString(strings.Repeat("\t", len(open)) + function)
			tree.WriteByte(':')
			tree.WriteString(strconv.FormatInt(int64(arg(p, regs, c.LineArg)), 10))
			tree.WriteByte('\n')
			open = append(open, function)
			return
		}
		if len(open) == 0 || open[len(open)-1] != function {
			t.Errorf("%s returns while %q are open", function, open)
			return
		}
		open = open[:len(open)-1]
	})
	if len(open) != 0 {
		t.Errorf("%q never returned", open)
	}
	if tree.String() != pythonCallTree {
		t.Errorf("got %s\nwant %s", tree.String(), pythonCallTree)
	}
}

// TestCPythonOnly makes sure that no other file is taken for a CPython 3.11,
// and that one whose code is not understood is told apart from that.
func TestCPythonOnly(t *testing.T) {
	ret := []StaticProbe{{Provider: "python", Name: "function__return"}}
	self, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	if got := cpython311Entries(self, ret); got != nil {
		t.Errorf("the test itself has %+v", got)
	}
	python, err := elf.Open("/usr/bin/python3.11")
	if err != nil {
		t.Skip("no CPython 3.11 here")
	}
	defer python.Close()
	noCode := func(p *elf.Prog) bool { return p.Flags&elf.PF_X != 0 }
	for want, change := range map[string]func(f *elf.File){
		"not known for EM_AARCH64":             func(f *elf.File) { f.Machine = elf.EM_AARCH64 },
		"the file has more than 64 segments":   func(f *elf.File) { f.Progs = slices.Repeat(f.Progs, 65) },
		"its table of bytecodes was not found": func(f *elf.File) { f.Progs = slices.DeleteFunc(slices.Clone(f.Progs), noCode) },
	} {
		f := *python
		change(&f)
		got := cpython311Entries(&f, ret)
		if len(got) != 1 || got[0].Err == nil || !got[0].Derived || !strings.Contains(got[0].Err.Error(), want) {
			t.Errorf("got %+v, want one probe with the error %q", got, want)
		}
	}
}
