package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// provingGround is a file of a few machine instructions, mapped executable into
// this process, so that probes can be tried and timed on code that belongs to
// nobody else: no file of the system gets a probe, and no compiler is needed.
// The functions in it take no argument and change no register.
type provingGround struct {
	file *os.File
	path string // by which the kernel finds the file
	temp bool   // path is a file to remove
	code []byte // the mapping
}

// Functions of the proving ground; each begins at its own 64 bytes, and the
// instruction that a probe goes to is its first.
type provingFunction int

const (
	provingEmulated provingFunction = iota // an instruction that every kernel emulates
	provingReturn                          // the same: its return is probed too
	provingStepped                         // an instruction that no kernel emulates
	provingNop                             // a nop of four bytes: emulated by newer kernels
	provingNop5                            // a nop of five bytes: optimised by newer kernels
	provingFunctions
)

// provingStride is the distance between functions in the file.
const provingStride = 64

// offset is the file offset of the function. None is at 0, which interfaces
// take for "not given".
func (f provingFunction) offset() uint64 { return (uint64(f) + 1) * provingStride }

// newProvingGround makes the file and maps it. The file lives in memory; where
// that is not allowed to hold code it is a temporary file.
func newProvingGround() (*provingGround, error) {
	if len(provingCode[provingEmulated]) == 0 {
		return nil, fmt.Errorf("no code to try probes on for %s: %w", runtime.GOARCH, ErrNotSupported)
	}
	page := provingPage()
	g, memErr := memoryGround(page)
	if memErr == nil {
		return g, nil
	}
	g, err := fileGround(page)
	if err != nil {
		return nil, fmt.Errorf("map code to try probes on: %w", errors.Join(memErr, err))
	}
	return g, nil
}

// provingPage is the content of the file.
func provingPage() []byte {
	page := make([]byte, os.Getpagesize())
	for f, code := range provingCode {
		copy(page[provingFunction(f).offset():], code)
	}
	return page
}

func memoryGround(page []byte) (*provingGround, error) {
	fd, err := unix.MemfdCreate("sbxtrace-proving-ground", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // MFD_EXEC came with Linux 6.3
		fd, err = unix.MemfdCreate("sbxtrace-proving-ground", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("create file in memory: %w", err)
	}
	g := &provingGround{file: os.NewFile(uintptr(fd), "memfd"), path: fmt.Sprintf("/proc/self/fd/%d", fd)}
	return g, g.load(page)
}

func fileGround(page []byte) (*provingGround, error) {
	var errs []error
	for _, dir := range []string{"/run", os.TempDir()} {
		f, err := os.CreateTemp(dir, ".sbxtrace-proving-ground-*")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		path, err := filepath.EvalSymlinks(f.Name())
		if err != nil {
			path = f.Name()
		}
		g := &provingGround{file: f, path: path, temp: true}
		if err := g.load(page); err != nil { // mounted noexec
			errs = append(errs, err)
			continue
		}
		return g, nil
	}
	return nil, errors.Join(errs...)
}

// load fills the file and maps it as a program's code is mapped: the kernel
// puts probes only into private mappings that cannot be written. On error g is
// closed.
func (g *provingGround) load(page []byte) error {
	_, err := g.file.WriteAt(page, 0)
	if err == nil {
		g.code, err = unix.Mmap(int(g.file.Fd()), 0, len(page), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("map %s: %w", g.file.Name(), err), g.Close())
	}
	return nil
}

// call runs a function n times on this thread. It cannot be interrupted by the
// Go scheduler: keep n small.
func (g *provingGround) call(f provingFunction, n int) {
	callNative(unsafe.Pointer(&g.code[f.offset()]), n)
}

// Close removes the mapping and the file. Probes must be out of it.
func (g *provingGround) Close() error {
	var errs []error
	if g.code != nil {
		errs = append(errs, unix.Munmap(g.code))
		g.code = nil
	}
	if g.temp {
		errs = append(errs, os.Remove(g.path))
	}
	return errors.Join(append(errs, g.file.Close())...)
}

// callNative calls the code at addr n times, without moving the stack.
//
//go:noescape
func callNative(addr unsafe.Pointer, n int)

// threadID is the kernel's id of the thread that calls.
func threadID() int { return unix.Gettid() }

// onOtherThread runs f on a thread that is not the process's first one: a
// filter that takes a thread for a process shows there.
func onOtherThread(f func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if threadID() != os.Getpid() {
			f()
			return
		}
		// This goroutine has the first thread: while it waits, another
		// cannot have it.
		var other sync.WaitGroup
		other.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			f()
		})
		other.Wait()
	})
	wg.Wait()
}
