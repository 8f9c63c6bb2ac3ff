package symbolizer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestJITFunctionNames(t *testing.T) {
	for raw, want := range map[string]JITFunction{
		"JS:*fib /srv/app.js:12:14":                  {Name: "fib", File: "/srv/app.js", Line: 12},
		"JS:~ /srv/app.js:1:1":                       {Name: "(anonymous)", File: "/srv/app.js", Line: 1},
		"JS:^get node:internal/util:598:30":          {Name: "get", File: "node:internal/util", Line: 598},
		"JS:*run file:///srv/mod.mjs:7:3":            {Name: "run", File: "/srv/mod.mjs", Line: 7},
		"LazyCompile:*old /srv/app.js:3":             {Name: "old", File: "/srv/app.js", Line: 3},
		"JS:*native":                                 {Name: "native"},
		"JS:":                                        {Name: "JS:"},
		"Builtin:ArrayMap":                           {Name: "Builtin:ArrayMap"},
		"$burn:loop/1":                               {Name: "burn:loop/1"},
		"$burn:loop/1-CodeInfoPrologue":              {Name: "burn:loop/1"},
		"Elixir.Enum:map/2":                          {Name: "Elixir.Enum:map/2"},
		"$global::apply_fun_shared":                  {Name: "global::apply_fun_shared"},
		"$lambda":                                    {Name: "$lambda"},
		"py::Worker.run:/srv/app.py":                 {Name: "Worker.run", File: "/srv/app.py"},
		"java.util.HashMap::get":                     {Name: "java.util.HashMap::get"},
		"int32 [lib] Program::Main(string[])[Tier1]": {Name: "int32 [lib] Program::Main(string[])[Tier1]"},
	} {
		want.Raw = raw
		if got := jitFunction(raw); got != want {
			t.Errorf("%q is %+v", raw, got)
		}
	}
}

// TestJITOverlap: of overlapping ranges the later has the addresses, and what is
// left of the earlier one keeps its name.
func TestJITOverlap(t *testing.T) {
	var c jitCode
	c.add(0x1000, 0x100, "first", nil)
	c.add(0x1040, 0x20, "inner", nil)
	check := func(addr uint64, want string, base uint64) {
		t.Helper()
		r, ok := c.find(addr)
		if r.name != want || ok != (want != "") || r.base != base {
			t.Errorf("%#x is %+v, %v; want %s", addr, r, ok, want)
		}
	}
	check(0xfff, "", 0)
	check(0x1000, "first", 0x1000)
	check(0x1040, "inner", 0x1040)
	check(0x105f, "inner", 0x1040)
	check(0x1060, "first", 0x1000)
	check(0x1100, "", 0)
	c.add(0x0f00, 0x150, "over", nil) // takes the beginning and a part of inner
	check(0x1000, "over", 0x0f00)
	check(0x1050, "inner", 0x1040)
	check(0x1070, "first", 0x1000)
	c.add(0, 0x2000, "all", nil)
	check(0x1050, "all", 0)
	if len(c.ranges) != 1 {
		t.Errorf("%d ranges are kept of what one covers", len(c.ranges))
	}
	c.add(^uint64(0)-1, 10, "wraps", nil)
	c.add(0x5000, 0, "empty", nil)
	check(^uint64(0), "", 0)
	check(0x5000, "", 0)

	// Against the plain rule, on many ranges.
	c = jitCode{}
	owner := make([]int, 4096)
	x := uint32(1)
	for i := 1; i <= 2000; i++ {
		x = x*1664525 + 1013904223
		start, size := x>>20, x>>8%64+1
		c.add(uint64(start), uint64(size), fmt.Sprint(i), nil)
		for a := start; a < start+size && int(a) < len(owner); a++ {
			owner[a] = i
		}
		if i%500 != 0 {
			continue
		}
		for a, o := range owner {
			r, ok := c.find(uint64(a))
			if ok != (o != 0) || ok && r.name != fmt.Sprint(o) {
				t.Fatalf("after %d ranges %#x is %q, %v; want %d", i, a, r.name, ok, o)
			}
		}
	}
}

func TestJITLimits(t *testing.T) {
	var c jitCode
	for i := range uint64(maxJITRanges + 2*maxJITPending) {
		c.add(i*16, 16, "f", nil)
	}
	c.settle()
	if len(c.ranges) > maxJITRanges || c.dropped == 0 {
		t.Errorf("%d ranges, %d dropped", len(c.ranges), c.dropped)
	}
	if _, ok := c.find((maxJITRanges + 2*maxJITPending - 1) * 16); !ok {
		t.Error("the newest was forgotten")
	}
}

// TestPerfMapGrows reads a file in pieces that end within lines.
func TestPerfMapGrows(t *testing.T) {
	text := "1000 10 a\n0x2000 0x10 b c d\nnonsense\n3000 10 " + strings.Repeat("n", 2*maxPerfMapLine) + "\n4000 10 e\n5000 10\n6000 10 cut"
	var whole jitCode
	next, err := readPerfMap(strings.NewReader(text), 0, int64(len(text)), &whole)
	if err != nil || int(next) != strings.LastIndexByte(text, '\n')+1 {
		t.Fatalf("read up to %d, %v", next, err)
	}
	for addr, want := range map[uint64]string{0x1000: "a", 0x200f: "b c d", 0x3000: "", 0x4000: "e", 0x5000: "", 0x6000: ""} {
		if r, _ := whole.find(addr); r.name != want {
			t.Errorf("%#x is %.20q, want %q", addr, r.name, want)
		}
	}
	var pieces jitCode
	text = "1000 10 a\n2000 10 b\n1008 10 c\n"
	next = 0
	for size := range len(text) + 1 {
		if next, err = readPerfMap(strings.NewReader(text), next, int64(size), &pieces); err != nil {
			t.Fatal(err)
		}
	}
	for addr, want := range map[uint64]string{0x1007: "a", 0x1008: "c", 0x1017: "c", 0x2000: "b"} {
		if r, _ := pieces.find(addr); r.name != want {
			t.Errorf("%#x is %q, want %q", addr, r.name, want)
		}
	}
}

// jitdumpFile makes a file of two functions, the second moved, with lines.
func jitdumpFile(order binary.ByteOrder) []byte {
	var b bytes.Buffer
	put := func(v ...any) {
		for _, v := range v {
			binary.Write(&b, order, v)
		}
	}
	put(uint32(jitdumpMagic), uint32(1), uint32(jitdumpHeader), uint32(62), uint32(0), uint32(7), uint64(1), uint64(0))
	debug := "a.c\x00"
	put(uint32(jitdumpDebugInfo), uint32(16+16+2*16+len(debug)+2), uint64(1), uint64(0x9000), uint64(2))
	put(uint64(0x1000), uint32(10), uint32(0), []byte(debug), uint64(0x1008), uint32(11), uint32(0), []byte("\xff\x00"))
	put(uint32(jitdumpLoad), uint32(16+40+4+16), uint64(2), uint32(7), uint32(7), uint64(0x1000), uint64(0x9000), uint64(16), uint64(1), []byte("one\x00"), [16]byte{})
	put(uint32(jitdumpLoad), uint32(16+40+4+16), uint64(3), uint32(7), uint32(7), uint64(0x2000), uint64(0x9100), uint64(16), uint64(2), []byte("two\x00"), [16]byte{})
	put(uint32(jitdumpMove), uint32(16+48), uint64(4), uint32(7), uint32(7), uint64(0x3000), uint64(0x2000), uint64(0x9100), uint64(16), uint64(2))
	return b.Bytes()
}

func TestJITDump(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		data := jitdumpFile(order)
		var code jitCode
		d := &jitdump{}
		next := int64(0)
		for size := range len(data) + 1 { // as it is written
			var err error
			if next, err = d.read(bytes.NewReader(data), next, int64(size), &code); err != nil {
				t.Fatalf("%s: the first %d bytes: %v", order, size, err)
			}
		}
		for addr, want := range map[uint64]string{0x1000: "one", 0x100f: "one", 0x1010: "", 0x2008: "two", 0x3000: "two"} {
			if r, _ := code.find(addr); r.name != want {
				t.Errorf("%s: %#x is %q, want %q", order, addr, r.name, want)
			}
		}
		r, _ := code.find(0x100a)
		if r.lines == nil {
			t.Fatalf("%s: no lines", order)
		}
		if file, line := r.lines.at(0x100a); file != "a.c" || line != 11 {
			t.Errorf("%s: 0x100a is at %s:%d", order, file, line)
		}
	}
	for _, bad := range []string{strings.Repeat("x", 40), string(jitdumpFile(binary.LittleEndian)[:40]) + "\x00\x00\x00\x00\x05\x00\x00\x00" + strings.Repeat("\x00", 8)} {
		if _, err := (&jitdump{}).read(strings.NewReader(bad), 0, int64(len(bad)), &jitCode{}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestPerfMapTrust: only a regular file of the process's user is read.
func TestPerfMapTrust(t *testing.T) {
	p := startTarget(t, targetProgram(t))
	name := perfMapPath(p.pid)
	t.Cleanup(func() { os.Remove(name) })
	if _, err := OpenJITSymbols(p.pid); !errors.Is(err, ErrNoJITNames) || !strings.Contains(err.Error(), name) {
		t.Errorf("without a file: %v", err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("1000 10 secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for kind, make := range map[string]func() error{
		"symbolic link": func() error { return os.Symlink(secret, name) },
		"pipe":          func() error { return unix.Mkfifo(name, 0o666) },
		"directory":     func() error { return os.Mkdir(name, 0o755) },
	} {
		os.Remove(name)
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenJITSymbols(p.pid); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), kind) {
			t.Errorf("a %s: %v", kind, err)
		}
	}
	os.Remove(name)
	if err := os.WriteFile(name, []byte("1000 10 mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	j, err := OpenJITSymbols(p.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if fn, off, ok := j.Lookup(0x1004); !ok || fn.Name != "mine" || off != 4 || j.Path() != name {
		t.Errorf("0x1004 is %+v+%d, %v in %s", fn, off, ok, j.Path())
	}
	if os.Geteuid() != 0 {
		return // cannot give files away
	}
	if err := os.Chown(name, 12345, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJITSymbols(p.pid); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "user 12345") {
		t.Errorf("another user's file: %v", err)
	}
}

// TestPerfMapNamespaces: a process in another pid namespace, below another root,
// is looked for by its own id and where its own /tmp leads.
func TestPerfMapNamespaces(t *testing.T) {
	need(t, "unshare", "chroot")
	root := t.TempDir()
	copyFile(t, compile(t, "target.c", "-g", "-static", "-pthread", "-Wno-all", "-w"), filepath.Join(root, "prog"))
	if err := os.Mkdir(filepath.Join(root, "inside"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "inside/perf-1.map"), []byte("2000 10 inside\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/inside", filepath.Join(root, "tmp")); err != nil {
		t.Fatal(err)
	}
	outer := startTarget(t, "unshare", "-p", "-f", "--kill-child", "chroot", root, "/prog")
	children, err := Children(outer.pid)
	if err != nil || len(children) != 1 {
		t.Fatalf("children of unshare: %v, %v", children, err)
	}
	j, err := OpenJITSymbols(children[0])
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if fn, _, ok := j.Lookup(0x2000); !ok || fn.Name != "inside" {
		t.Errorf("0x2000 is %+v, %v", fn, ok)
	}
}

// waitJIT waits until a runtime has named a function.
func waitJIT(t testing.TB, pid int, contains string) *JITSymbols {
	t.Helper()
	var j *JITSymbols
	t.Cleanup(func() {
		if j != nil {
			j.Close()
		}
	})
	waitUntil(t, contains+" among the names of generated code", func() bool {
		if j == nil {
			var err error
			if j, err = OpenJITSymbols(pid); err != nil {
				return false
			}
		}
		if err := j.Refresh(); err != nil {
			t.Fatal(err)
		}
		return jitStart(j, contains) != 0
	})
	return j
}

// jitStart is the start of the newest function whose raw name has a part.
func jitStart(j *JITSymbols, contains string) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.code.settle()
	var best jitRange
	for _, r := range j.code.ranges {
		if strings.Contains(r.name, contains) && r.seq >= best.seq {
			best = r
		}
	}
	return best.base
}

// startRuntime runs a program until the test ends, and removes what it wrote.
func startRuntime(t testing.TB, env []string, command ...string) int {
	t.Helper()
	need(t, command[0])
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = t.TempDir() // node leaves a log there
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.Remove(perfMapPath(pid))
		os.Remove(fmt.Sprintf("/tmp/jit-%d.dump", pid))
		if t.Failed() && out.Len() > 0 {
			t.Logf("%s: %s", cmd, out.Bytes())
		}
	})
	return pid
}

// TestNodePerfMap: V8's names, with the place of the definition.
func TestNodePerfMap(t *testing.T) {
	script := filepath.Join(t.TempDir(), "app.js")
	if err := os.WriteFile(script, []byte("'use strict'\nfunction burn(n) { let s = 0; for (let i = 0; i < n; i++) s = (s * 31 + i) | 0; return s }\nfor (;;) burn(100000)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	pid := startRuntime(t, nil, "node", "--perf-basic-prof", script)
	j := waitJIT(t, pid, "*burn ")
	fn, off, ok := j.Lookup(jitStart(j, "*burn ") + 2)
	if !ok || fn.Name != "burn" || fn.File != script || fn.Line != 2 || off != 2 {
		t.Errorf("burn is %+v+%d, %v", fn, off, ok)
	}
}

// TestNodeHint: without the option the error says which one is missing.
func TestNodeHint(t *testing.T) {
	pid := startRuntime(t, nil, "node", "-e", "setInterval(() => {}, 1000)")
	var err error
	waitUntil(t, "node to run", func() bool {
		exe, _ := Exe(pid)
		return filepath.Base(exe) == "node"
	})
	if _, err = OpenJITSymbols(pid); !errors.Is(err, ErrNoJITNames) || !strings.Contains(err.Error(), "--perf-basic-prof") {
		t.Errorf("%v", err)
	}
}

// TestBEAMNames: Erlang functions as Module:function/arity, with source lines
// from the jitdump file that BEAM writes too.
func TestBEAMNames(t *testing.T) {
	need(t, "erlc", "erl")
	dir := t.TempDir()
	source := "-module(burn).\n-export([main/0]).\nmain() -> work(100000), main().\nwork(0) ->\n  ok;\nwork(N) ->\n  erlang:phash2(N),\n  work(N - 1).\n"
	if err := os.WriteFile(filepath.Join(dir, "burn.erl"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "erlc", "-o", dir, filepath.Join(dir, "burn.erl"))
	pid := startRuntime(t, nil, "erl", "+JPperf", "true", "-noshell", "-pa", dir, "-s", "burn", "main")
	j := waitJIT(t, pid, "burn:work/1")
	if !strings.HasSuffix(j.Path(), ".dump") {
		t.Errorf("names are from %s", j.Path())
	}
	start := jitStart(j, "burn:work/1")
	fn, _, ok := j.Lookup(start + 1)
	if !ok || fn.Name != "burn:work/1" {
		t.Errorf("%#x is %+v, %v", start, fn, ok)
	}
	// Some instruction of the function stands at one of its lines.
	found := false
	for off := range uint64(256) {
		if fn, _, ok := j.Lookup(start + off); ok && fn.Name == "burn:work/1" && filepath.Base(fn.File) == "burn.erl" && fn.Line >= 4 && fn.Line <= 8 {
			found = true
		}
	}
	if !found {
		t.Error("no instruction of burn:work/1 has a line")
	}
	// The perf map alone says the same.
	if err := os.Remove(j.Path()); err != nil {
		t.Fatal(err)
	}
	m, err := OpenJITSymbols(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Path() != perfMapPath(pid) {
		t.Errorf("names are from %s", m.Path())
	}
	if fn, _, ok := m.Lookup(start + 1); !ok || fn.Name != "burn:work/1" {
		t.Errorf("in the perf map %#x is %+v, %v", start, fn, ok)
	}
}

func FuzzPerfMap(f *testing.F) {
	f.Add([]byte("1000 10 JS:*a /x.js:1:2\n0x1008 0x10 $burn:a/1\nff"), uint16(7))
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		first := min(int64(cut), int64(len(data)))
		var code jitCode
		next, err := readPerfMap(bytes.NewReader(data), 0, first, &code)
		if err != nil || next > first {
			t.Fatalf("%d of %d, %v", next, first, err)
		}
		if next, err = readPerfMap(bytes.NewReader(data), next, int64(len(data)), &code); err != nil || next > int64(len(data)) {
			t.Fatalf("%d of %d, %v", next, len(data), err)
		}
		checkJITCode(t, &code)
	})
}

func FuzzJITDump(f *testing.F) {
	f.Add(jitdumpFile(binary.LittleEndian), uint16(200))
	f.Add(jitdumpFile(binary.BigEndian), uint16(60))
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		var code jitCode
		d := &jitdump{}
		next := int64(0)
		for _, size := range []int64{min(int64(cut), int64(len(data))), int64(len(data))} {
			var err error
			next, err = d.read(bytes.NewReader(data), next, size, &code)
			if next > size || err != nil && !errors.Is(err, ErrMalformed) {
				t.Fatalf("%d of %d, %v", next, size, err)
			}
			if err != nil {
				break
			}
		}
		checkJITCode(t, &code)
	})
}

// checkJITCode checks that ranges are in order and disjoint, and all names
// readable.
func checkJITCode(t *testing.T, code *jitCode) {
	code.settle()
	for i, r := range code.ranges {
		if r.end <= r.start || r.base > r.start || i > 0 && code.ranges[i-1].end > r.start {
			t.Fatalf("range %d: %+v", i, r)
		}
		if jitFunction(r.name).Name == "" {
			t.Fatalf("%q has no name", r.name)
		}
		if r.lines != nil {
			r.lines.at(r.start)
		}
	}
}
