package loader

import (
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/trace"
)

// manyFunctions is a file of n functions, mapped into this process, each of
// which begins at its own stride bytes, the first at stride.
func manyFunctions(t *testing.T, n, stride int) (path string, code []byte) {
	t.Helper()
	page := os.Getpagesize()
	text := make([]byte, ((n+1)*stride+page-1)/page*page)
	for i := range n {
		copy(text[(i+1)*stride:], provingCode[provingEmulated])
	}
	path = filepath.Join(t.TempDir(), "many")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if code, err = unix.Mmap(int(f.Fd()), 0, len(text), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(code) })
	return path, code
}

// One perf event per site, as on kernels without uprobe_multi: every hit of
// every site is counted for its own function. The log tells how long the kernel
// took, which docs/kernels.md quotes.
func TestPerfEvents(t *testing.T) {
	needRoot(t)
	if len(provingCode[provingEmulated]) == 0 {
		t.Skip("no machine code for this architecture")
	}
	const stride = 16
	for _, n := range []int{1, 8, 64} {
		path, code := manyFunctions(t, n, stride)
		s, err := New(Config{Mode: AttachPerf})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.AddProcess(Process{PID: uint32(os.Getpid())}); err != nil {
			t.Fatal(err)
		}
		m := Module{Path: path, PID: uint32(os.Getpid())}
		for i := range n {
			m.Functions = append(m.Functions, Function{ID: trace.FuncID(i + 1), Probes: []Probe{{Offset: uint64((i + 1) * stride)}}})
		}
		start := time.Now()
		if err := s.Attach(m); err != nil {
			t.Fatal(err)
		}
		attached := time.Since(start)
		onOtherThread(func() {
			for i := range n {
				callNative(unsafe.Pointer(&code[(i+1)*stride]), i+1)
			}
		})
		for i := range n {
			if hits := s.Hits(trace.FuncID(i + 1)); hits != uint64(i+1) {
				t.Errorf("function %d of %d has %d hits, want %d", i+1, n, hits, i+1)
			}
		}
		start = time.Now()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d sites: attached in %v, detached in %v", n, attached.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	}
}
