package symbolizer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newSymbols(t testing.TB, pid int) *ProcessSymbols {
	t.Helper()
	p, err := NewProcessSymbols(pid)
	if err != nil {
		t.Fatal(err)
	}
	p.minReread = 0
	t.Cleanup(func() { p.Close() })
	return p
}

// checkResolve checks the function at addr and 3 bytes into it.
func checkResolve(t testing.TB, p *ProcessSymbols, addr uint64, function string, main bool) Location {
	t.Helper()
	var l Location
	for _, into := range []uint64{3, 0} {
		var err error
		if l, err = p.Resolve(addr + into); err != nil {
			t.Fatalf("%s+%d at %#x: %v", function, into, addr+into, err)
		}
		if l.Function == nil || l.Function.Name != function || l.Offset != into || l.Main != main {
			t.Fatalf("%s+%d at %#x is %s in %s (%+v)", function, into, addr+into, l, l.Module, l)
		}
	}
	return l
}

func TestResolve(t *testing.T) {
	path := targetProgram(t)
	p := startTarget(t, path)
	symbols := newSymbols(t, p.pid)
	l := checkResolve(t, symbols, p.addrs["marker"], "marker", true)
	if l.Module != path || l.Addr != l.Function.Addr || l.File != l.Function.Offset || l.String() != "marker" {
		t.Errorf("marker is %+v", l)
	}
	if file, line := l.Binary.Line(l.Addr); filepath.Base(file) != "target.c" || line == 0 {
		t.Errorf("marker is at %s:%d", file, line)
	}
	checkResolve(t, symbols, p.addrs["hidden_marker"], "hidden_marker", true)
	l = checkResolve(t, symbols, p.addrs["strtoul"], "strtoul", false)
	if !strings.Contains(l.Module, "libc") {
		t.Errorf("strtoul is in %s", l.Module)
	}
	// The stack and address 0 are no code.
	for _, addr := range []uint64{p.addrs["data"], 0, ^uint64(0)} {
		if l, err := symbols.Resolve(addr); !errors.Is(err, ErrUnmapped) || l != (Location{}) {
			t.Errorf("%#x is %v, %v", addr, l, err)
		}
	}
}

// TestResolveVDSO: the kernel's library has no file but has symbols.
func TestResolveVDSO(t *testing.T) {
	p := startTarget(t, targetProgram(t))
	if p.addrs["vdso"] == 0 {
		t.Skip("no vdso")
	}
	symbols := newSymbols(t, p.pid)
	l, err := symbols.Resolve(p.addrs["vdso"])
	if err != nil || l.Module != vdsoName || l.Binary == nil {
		t.Fatalf("%+v, %v", l, err)
	}
	f := byName(t, l.Binary, "clock_gettime")
	l = checkResolve(t, symbols, p.addrs["vdso"]+f.Addr-l.Binary.base(), "clock_gettime", false)
	if l.Module != vdsoName {
		t.Errorf("clock_gettime is in %s", l.Module)
	}
}

// TestResolveLateLibrary: an unknown address makes the maps be read again.
func TestResolveLateLibrary(t *testing.T) {
	p := startTarget(t, targetProgram(t))
	symbols := newSymbols(t, p.pid)
	lib := compile(t, "funcs.c", "-shared", "-fPIC")
	p.command("load %s plain", lib)
	if l := checkResolve(t, symbols, p.addrs["plain"], "plain", false); l.Module != lib {
		t.Errorf("plain is in %s, want %s", l.Module, lib)
	}
}

// TestResolveUnloaded: an address of a library that is gone keeps its meaning
// until something else is mapped there.
func TestResolveUnloaded(t *testing.T) {
	p := startTarget(t, targetProgram(t))
	symbols := newSymbols(t, p.pid)
	lib := compile(t, "funcs.c", "-shared", "-fPIC")
	p.command("load %s plain", lib)
	checkResolve(t, symbols, p.addrs["plain"], "plain", false)
	p.command("unload")
	maps, err := Maps(p.pid)
	if err != nil || findMapping(maps, p.addrs["plain"]) != nil {
		t.Fatalf("the library is still mapped, or %v", err)
	}
	if err := symbols.Refresh(); err != nil {
		t.Fatal(err)
	}
	checkResolve(t, symbols, p.addrs["plain"], "plain", false)
	// Another file in its place.
	now := Mapping{Start: p.addrs["plain"] &^ 4095, End: p.addrs["plain"]&^4095 + 4096, Inode: 1}
	symbols.keepGone([]Mapping{now}, false)
	if m := findMapping(symbols.gone, p.addrs["plain"]); m != nil {
		t.Errorf("%+v is remembered though %+v is there", m, now)
	}
	checkResolve(t, symbols, p.addrs["marker"], "marker", true)
}

// TestResolveFork: the child of a process that is known can be resolved even if
// nothing can be read of it any more.
func TestResolveFork(t *testing.T) {
	p := startTarget(t, targetProgram(t))
	symbols := newSymbols(t, p.pid)
	checkResolve(t, symbols, p.addrs["marker"], "marker", true)
	symbols.Pin()
	const noPID = 1 << 30
	child := symbols.Fork(noPID)
	symbols.Close()
	checkResolve(t, child, p.addrs["marker"], "marker", true)
	checkResolve(t, child, p.addrs["strtoul"], "strtoul", false)
	if p.addrs["vdso"] != 0 {
		if l, err := child.Resolve(p.addrs["vdso"]); err != nil || l.Module != vdsoName || l.Binary == nil {
			t.Errorf("the vdso is %+v, %v", l, err)
		}
	}
	if _, err := child.Resolve(1); !errors.Is(err, ErrUnmapped) {
		t.Errorf("address 1: %v", err)
	}
	if err := child.Close(); err != nil {
		t.Error(err)
	}
}

// TestResolveJIT: code that node has generated, by the names it writes.
func TestResolveJIT(t *testing.T) {
	script := filepath.Join(t.TempDir(), "app.js")
	if err := os.WriteFile(script, []byte("function burn(n) { let s = 0; for (let i = 0; i < n; i++) s = (s * 31 + i) | 0; return s }\nfor (;;) burn(100000)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	pid := startRuntime(t, nil, "node", "--perf-basic-prof", script)
	addr := jitStart(waitJIT(t, pid, "*burn "), "*burn ")
	symbols := newSymbols(t, pid)
	symbols.Pin()
	l, err := symbols.Resolve(addr + 2)
	if err != nil || l.JIT == nil || l.String() != "burn+0x2" {
		t.Fatalf("burn is %s (%+v), %v", l, l, err)
	}
	if f := l.Frames(); len(f) != 1 || f[0] != (Frame{Function: "burn", File: script, Line: 1}) {
		t.Errorf("burn has frames %+v", f)
	}
	if l.Mapping == nil || addr < l.Mapping.Start || addr >= l.Mapping.End || l.BuildID() != "" {
		t.Errorf("burn is in %+v", l.Mapping)
	}
	// Without a name: the end of the code's space.
	l, err = symbols.Resolve(l.Mapping.End - 1)
	if err != nil || !strings.HasPrefix(l.String(), "[anonymous]+0x") || l.Frames()[0].Function != l.String() {
		t.Errorf("the end of the code is %s, %v", l, err)
	}
	if err := symbols.JITError(); err != nil {
		t.Error(err)
	}
}

// TestUnnamed: what no table names is called by module and offset, as addr2line
// takes it, and no other function's name.
func TestUnnamed(t *testing.T) {
	p := startTarget(t, derive(t, targetProgram(t), "stripped", "strip", "-R", ".eh_frame", "-R", ".eh_frame_hdr", "-o", "OUT", "IN"))
	symbols := newSymbols(t, p.pid)
	l, err := symbols.Resolve(p.addrs["hidden_marker"])
	whole := open(t, targetProgram(t), Options{})
	want := fmt.Sprintf("prog+%#x", byName(t, whole, "hidden_marker").Addr)
	if err != nil || l.String() != want || l.Frames()[0] != (Frame{Function: want}) {
		t.Errorf("hidden_marker is %s, %+v, %v; want %s", l, l.Frames(), err, want)
	}
	if l.Mapping.Path != l.Module || l.BuildID() != whole.BuildID || l.BuildID() == "" {
		t.Errorf("it is in %+v with build id %s", l.Mapping, l.BuildID())
	}
}

func TestVsyscall(t *testing.T) {
	for off, want := range map[uint64]string{0: "gettimeofday", 0x402: "time", 0x800: "getcpu", 0xc00: ""} {
		m := &Mapping{Start: 0xffffffffff600000, End: 0xffffffffff601000, Path: vsyscallName}
		l := (&ProcessSymbols{}).locate(m, m.Start+off)
		name := ""
		if l.Function != nil {
			name = l.Function.Name
		}
		if name != want || want == "" && l.String() != "[vsyscall]+0xc00" {
			t.Errorf("%#x is %s", off, l)
		}
	}
}

// TestResolveExec: after exec a Refresh gives addresses their new meaning.
func TestResolveExec(t *testing.T) {
	first := targetProgram(t)
	p := startTarget(t, first)
	symbols := newSymbols(t, p.pid)
	checkResolve(t, symbols, p.addrs["marker"], "marker", true)
	second := filepath.Join(t.TempDir(), "second")
	copyFile(t, first, second)
	p.command("exec %s", second)
	if err := symbols.Refresh(); err != nil {
		t.Fatal(err)
	}
	if l := checkResolve(t, symbols, p.addrs["marker"], "marker", true); l.Module != second {
		t.Errorf("marker is in %s, want %s", l.Module, second)
	}
}

// TestResolveAfterExit: pinned modules can be resolved when the process is gone.
func TestResolveAfterExit(t *testing.T) {
	p := startTarget(t, targetProgram(t))
	symbols := newSymbols(t, p.pid)
	symbols.Pin()
	p.stdin.Close()
	waitUntil(t, "the target to end", func() bool {
		maps, err := executableMaps(p.pid)
		return err != nil || len(maps) == 0
	})
	checkResolve(t, symbols, p.addrs["marker"], "marker", true)
	checkResolve(t, symbols, p.addrs["strtoul"], "strtoul", false)
	if _, err := symbols.Resolve(1); !errors.Is(err, ErrUnmapped) {
		t.Errorf("address 1: %v", err)
	}
	if err := symbols.Refresh(); !errors.Is(err, ErrNoProcess) {
		t.Errorf("Refresh: %v", err)
	}
}

// TestPidReuse: another process with the same id is not taken for the first.
func TestPidReuse(t *testing.T) {
	p := startTarget(t, targetProgram(t))
	symbols := newSymbols(t, p.pid)
	symbols.startTime++ // as if it had been an earlier one
	if err := symbols.Refresh(); !errors.Is(err, ErrNoProcess) {
		t.Errorf("Refresh: %v", err)
	}
}

func TestOpenCached(t *testing.T) {
	path := compile(t, "funcs.c", "-g", "-pie", "-fPIE")
	a, err := OpenCached(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenCached(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), filepath.Base(path))
	copyFile(t, path, copied)
	c, err := OpenCached(copied)
	if err != nil {
		t.Fatal(err)
	}
	if a != b || a != c {
		t.Error("the same file and a copy of it are not shared")
	}
	stripped, err := OpenCached(derive(t, path, "stripped", "strip", "-o", "OUT", "IN"))
	if err != nil {
		t.Fatal(err)
	}
	if stripped == a {
		t.Error("a stripped copy shares the symbols of the whole file")
	}
	for _, bin := range []*Binary{a, b, c, stripped} {
		if err := bin.Close(); err != nil {
			t.Error(err)
		}
	}
	// Still usable by the next one, without being read again.
	d, err := OpenCached(path)
	if err != nil || d != a {
		t.Errorf("after the last Close: %v, another one: %v", err, d != a)
	}
	byName(t, d, "plain")
	d.Close()

	// A file that was overwritten is another one.
	copyFile(t, compile(t, "funcs.c", "-g", "-no-pie", "-fno-pie"), copied)
	e, err := OpenCached(copied)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e == a || e.PIE {
		t.Error("an overwritten file is served from the cache")
	}
}

// TestCacheEviction: idle files are closed once there are too many, used ones
// never.
func TestCacheEviction(t *testing.T) {
	path := compile(t, "funcs.c", "-g", "-pie", "-fPIE", "-Wl,--build-id=none")
	used, err := OpenCached(path)
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	dir := t.TempDir()
	before := openFiles(t)
	for i := range maxIdle + 20 {
		name := filepath.Join(dir, strings.Repeat("x", i+1))
		copyFile(t, path, name)
		b, err := OpenCached(name)
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
	}
	if n := openFiles(t) - before; n > maxIdle {
		t.Errorf("%d more files are open, at most %d are to be kept", n, maxIdle)
	}
	byName(t, used, "plain")
}

func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestNotELF(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{script, empty, dir, "/dev/null"} {
		b, err := Open(path)
		if b != nil || !errors.Is(err, ErrNotELF) || !strings.Contains(err.Error(), path) {
			t.Errorf("Open(%s) = %v, %v", path, b, err)
		}
		if b, err := OpenCached(path); b != nil || !errors.Is(err, ErrNotELF) {
			t.Errorf("OpenCached(%s) = %v, %v", path, b, err)
		}
	}
	if b, err := Open(filepath.Join(dir, "none")); b != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of a file that is not there = %v, %v", b, err)
	}
}
