package symbolizer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"time"
)

// Location is what an address of a process means.
type Location struct {
	Module   string    // path of the mapped file as the target sees it; "[vdso]", "[vsyscall]"; empty for anonymous code
	Main     bool      // the module is the process's executable
	Binary   *Binary   // the module's file; nil if it could not be read. Valid until ProcessSymbols is closed
	Function *Function // nil if unknown
	Offset   uint64    // of the address from the start of Function
	Addr     uint64    // virtual address in the ELF file, 0 without Binary
	File     uint64    // offset in the mapped file
}

// String formats the location as in a stack trace: "function+0x12", or
// "module+0x1234" with the offset in the file where the function is unknown.
func (l Location) String() string {
	switch {
	case l.Function != nil && l.Offset == 0:
		return l.Function.Name
	case l.Function != nil:
		return fmt.Sprintf("%s+%#x", l.Function.Name, l.Offset)
	case l.Module != "":
		return fmt.Sprintf("%s+%#x", filepath.Base(l.Module), l.File)
	}
	return "unknown"
}

// ProcessSymbols resolves addresses of one live process. It reads the process's
// maps when an address is in none of those it knows, and keeps the files open,
// so that addresses can still be resolved after the process has ended. All
// methods are safe for concurrent use.
type ProcessSymbols struct {
	pid       int
	startTime uint64
	minReread time.Duration // between readings of the maps for unknown addresses

	mu       sync.Mutex
	maps     []Mapping // sorted by address
	exeDev   uint64
	exeInode uint64
	exePath  string
	binaries map[moduleKey]*Binary // nil for a module that cannot be read
	known    map[uint64]Location
	lastRead time.Time
}

type moduleKey struct {
	dev, inode uint64
	path       string
	start      uint64 // of a mapping without a file
}

// maxKnown bounds the resolved addresses kept: hot stacks repeat.
const maxKnown = 1 << 16

// NewProcessSymbols reads the maps of a process. It fails with ErrNoProcess if
// there is none with that id, or with the operating system's error if it may not
// be read.
func NewProcessSymbols(pid int) (*ProcessSymbols, error) {
	start, err := StartTime(pid)
	if err != nil {
		return nil, err
	}
	// Code that appears without a file (a JIT's) must not make every unknown
	// address cost a reading of the maps.
	p := &ProcessSymbols{pid: pid, startTime: start, minReread: 200 * time.Millisecond, binaries: make(map[moduleKey]*Binary)}
	if err := p.Refresh(); err != nil {
		return nil, err
	}
	return p, nil
}

// Refresh reads the maps again. Resolve does so itself for unknown addresses;
// call it after dlclose or exec, which give known addresses a new meaning. It
// fails with ErrNoProcess once the process is gone; what was known stays.
func (p *ProcessSymbols) Refresh() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refresh()
}

func (p *ProcessSymbols) refresh() error {
	p.lastRead = time.Now()
	maps, err := executableMaps(p.pid)
	if err != nil {
		return err
	}
	// After the reading: the maps are those of the process that has the id now.
	start, err := StartTime(p.pid)
	if err != nil {
		return err
	}
	if start != p.startTime {
		return fmt.Errorf("pid %d: %w: the id belongs to another process by now", p.pid, ErrNoProcess)
	}
	if len(maps) == 0 {
		return fmt.Errorf("pid %d: %w: it has ended", p.pid, ErrNoProcess)
	}
	p.maps = maps
	for key, b := range p.binaries {
		if b == nil {
			delete(p.binaries, key) // perhaps it can be opened now
		}
	}
	p.exeDev, p.exeInode = exeIdentity(p.pid)
	p.exePath, _ = Exe(p.pid)
	p.known = make(map[uint64]Location)
	return nil
}

// Pin opens all modules that are known, so that their addresses can be resolved
// after the process has ended. Without it a module is opened by the first
// address in it.
func (p *ProcessSymbols) Pin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.maps {
		p.binary(&p.maps[i])
	}
}

// Resolve tells what is at an address of the process. For a return address pass
// the address less one: the call may be a function's last instruction. It fails
// with ErrUnmapped if no executable mapping has the address, also when that is
// so because the process has ended before its maps were read again.
func (p *ProcessSymbols) Resolve(addr uint64) (Location, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l, ok := p.known[addr]; ok {
		return l, nil
	}
	m := p.mapping(addr)
	if m == nil && time.Since(p.lastRead) >= p.minReread {
		if err := p.refresh(); err != nil && !errors.Is(err, ErrNoProcess) {
			return Location{}, err
		}
		m = p.mapping(addr)
	}
	if m == nil {
		return Location{}, fmt.Errorf("pid %d: %#x: %w", p.pid, addr, ErrUnmapped)
	}
	l := p.locate(m, addr)
	if len(p.known) >= maxKnown {
		clear(p.known)
	}
	p.known[addr] = l
	return l, nil
}

// Close gives the files back. Locations must not be used any more.
func (p *ProcessSymbols) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, b := range p.binaries {
		if b != nil {
			errs = append(errs, b.Close())
		}
	}
	p.binaries, p.maps, p.known = nil, nil, nil
	return errors.Join(errs...)
}

func (p *ProcessSymbols) mapping(addr uint64) *Mapping {
	i := sort.Search(len(p.maps), func(i int) bool { return p.maps[i].End > addr })
	if i < len(p.maps) && addr >= p.maps[i].Start {
		return &p.maps[i]
	}
	return nil
}

func (p *ProcessSymbols) locate(m *Mapping, addr uint64) Location {
	l := Location{Module: m.Path, File: m.FileOffset(addr)}
	if m.IsFile() {
		l.Main = m.Inode == p.exeInode && m.Dev == p.exeDev || m.Path == p.exePath
	}
	l.Binary = p.binary(m)
	if l.Binary == nil {
		return l
	}
	if vaddr, ok := l.Binary.OffsetToAddr(l.File); ok {
		l.Addr = vaddr
		l.Function, l.Offset = l.Binary.Lookup(vaddr)
	}
	return l
}

// binary opens the file behind a mapping, once. nil: it cannot be read or is
// not ELF.
func (p *ProcessSymbols) binary(m *Mapping) *Binary {
	key := moduleKey{dev: m.Dev, inode: m.Inode, path: m.Path}
	if !m.IsFile() {
		if m.Path != vdsoName {
			return nil
		}
		key.start = m.Start
	}
	if b, ok := p.binaries[key]; ok {
		return b
	}
	if p.binaries == nil {
		return nil // closed
	}
	var b *Binary
	if m.IsFile() {
		if path, err := ModulePath(p.pid, *m); err == nil {
			b, _ = Options{Root: RootPath(p.pid), TargetPath: m.Path}.OpenCached(path)
		}
	} else {
		b, _ = readVDSO(p.pid, m)
	}
	p.binaries[key] = b
	return b
}

// vdsoName is the kernel's shared library in every process.
const vdsoName = "[vdso]"

// readVDSO copies the vdso out of the process's memory: there is no file.
func readVDSO(pid int, m *Mapping) (*Binary, error) {
	const maxVDSO = 1 << 20 // two or three pages in fact
	if m.End-m.Start > maxVDSO {
		return nil, fmt.Errorf("pid %d: vdso of %d bytes: %w", pid, m.End-m.Start, ErrTooLarge)
	}
	f, err := os.Open(filepath.Join(procRoot, strconv.Itoa(pid), "mem"))
	if err != nil {
		return nil, procError(pid, err)
	}
	defer f.Close()
	image := make([]byte, m.End-m.Start)
	if _, err := f.ReadAt(image, int64(m.Start)); err != nil {
		return nil, procError(pid, err)
	}
	return NewBinary(bytes.NewReader(image), int64(len(image)), vdsoName)
}
