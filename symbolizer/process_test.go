package symbolizer

import (
	"errors"
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
