package symbolizer

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"
)

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
	gone     []Mapping // sorted by address: unmapped by now, and nothing is there since
	jit      *JITSymbols
	jitErr   error     // why there is none
	jitNext  time.Time // when to look for one again
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
	p := &ProcessSymbols{
		pid: pid, startTime: start, minReread: 200 * time.Millisecond,
		binaries: make(map[moduleKey]*Binary), known: make(map[uint64]Location),
	}
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
	dev, inode := exeIdentity(p.pid)
	path, _ := Exe(p.pid)
	exec := dev != p.exeDev || inode != p.exeInode || path != p.exePath
	if !exec && slices.Equal(maps, p.maps) {
		return nil
	}
	p.keepGone(maps, exec)
	p.maps = maps
	for key, b := range p.binaries {
		if b == nil {
			delete(p.binaries, key) // perhaps it can be opened now
		}
	}
	p.exeDev, p.exeInode, p.exePath = dev, inode, path
	p.known = make(map[uint64]Location)
	if exec {
		p.closeJIT()
	}
	return nil
}

// maxGone bounds the mappings remembered that are no more.
const maxGone = 4096

// keepGone remembers mappings that are not there any more, as long as nothing
// else takes their place: a stack of just before dlclose may still come.
func (p *ProcessSymbols) keepGone(now []Mapping, exec bool) {
	if exec {
		p.gone = nil
		return
	}
	old := append(slices.Clone(p.gone), p.maps...)
	slices.SortFunc(old, func(a, b Mapping) int { return cmp.Compare(a.Start, b.Start) })
	kept := old[:0]
	i := 0
	for _, m := range old {
		for i < len(now) && now[i].End <= m.Start {
			i++
		}
		if (i == len(now) || now[i].Start >= m.End) && (len(kept) == 0 || kept[len(kept)-1].End <= m.Start) && len(kept) < maxGone {
			kept = append(kept, m)
		}
	}
	p.gone = kept
}

// Pin opens all modules that are known and what belongs to them (separate debug
// files, names of generated code), so that their addresses can be resolved after
// the process has ended. Without it a module is opened by the first address in it.
func (p *ProcessSymbols) Pin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	generated := false
	for i := range p.maps {
		m := &p.maps[i]
		if b := p.binary(m); b != nil {
			b.debugFile()
		} else if m.Path != vsyscallName {
			generated = true
		}
	}
	if generated {
		p.openJIT()
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
		if m = findMapping(p.gone, addr); m == nil {
			return Location{}, fmt.Errorf("pid %d: %#x: %w", p.pid, addr, ErrUnmapped)
		}
	}
	l := p.locate(m, addr)
	if l.Binary == nil && m.Path != vsyscallName {
		l.JIT, l.Offset = p.generated(addr)
		return l, nil // the code there may be another one soon
	}
	if len(p.known) >= maxKnown {
		clear(p.known)
	}
	p.known[addr] = l
	return l, nil
}

// generated looks up code that the process has made itself.
func (p *ProcessSymbols) generated(addr uint64) (*JITFunction, uint64) {
	if p.openJIT(); p.jit == nil {
		return nil, 0
	}
	fn, off, ok := p.jit.Lookup(addr)
	if !ok {
		return nil, 0
	}
	return &fn, off
}

// openJIT looks for the names of generated code, which may come late.
func (p *ProcessSymbols) openJIT() {
	if p.jit != nil || p.binaries == nil || time.Now().Before(p.jitNext) {
		return
	}
	p.jitNext = time.Now().Add(max(p.minReread, 0))
	j, err := openJITSymbols(p.pid, p.maps)
	if err != nil && errors.Is(err, ErrNoProcess) && p.jitErr != nil {
		return // what was said while it lived says more
	}
	if j != nil {
		j.minReread = p.minReread
	}
	p.jit, p.jitErr = j, err
}

func (p *ProcessSymbols) closeJIT() error {
	if p.jit == nil {
		return nil
	}
	err := p.jit.Close()
	p.jit, p.jitErr, p.jitNext = nil, nil, time.Time{}
	return err
}

// JITError tells why generated code has no names: an error that wraps
// ErrNoJITNames or ErrUntrusted and says what can be done. It is nil if there are
// names, and as long as none were asked for.
func (p *ProcessSymbols) JITError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.jitErr
}

// RefreshJIT reads what the process has newly written about its generated code.
// Resolve does so itself, but not more than five times a second.
func (p *ProcessSymbols) RefreshJIT() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.jit != nil {
		_ = p.jit.Refresh() // what is known stays
	}
}

// Fork returns the symbols of a process that p's process has just forked: it has
// the same memory, and may end before its own maps can be read.
func (p *ProcessSymbols) Fork(pid int) *ProcessSymbols {
	p.mu.Lock()
	defer p.mu.Unlock()
	child := &ProcessSymbols{
		pid: pid, minReread: p.minReread, lastRead: time.Now(),
		maps: slices.Clone(p.maps), gone: slices.Clone(p.gone),
		exeDev: p.exeDev, exeInode: p.exeInode, exePath: p.exePath,
		binaries: make(map[moduleKey]*Binary), known: make(map[uint64]Location),
	}
	child.startTime, _ = StartTime(pid) // 0 once it has ended: nothing is read any more then
	for key, b := range p.binaries {
		if b != nil {
			child.binaries[key] = b.share()
		}
	}
	return child
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
	errs = append(errs, p.closeJIT())
	p.binaries, p.maps, p.gone, p.known = nil, nil, nil, nil
	return errors.Join(errs...)
}

func (p *ProcessSymbols) mapping(addr uint64) *Mapping { return findMapping(p.maps, addr) }

func findMapping(maps []Mapping, addr uint64) *Mapping {
	i := sort.Search(len(maps), func(i int) bool { return maps[i].End > addr })
	if i < len(maps) && addr >= maps[i].Start {
		return &maps[i]
	}
	return nil
}

func (p *ProcessSymbols) locate(m *Mapping, addr uint64) Location {
	l := Location{Module: m.Path, File: m.FileOffset(addr), Mapping: m}
	if m.Path == vsyscallName {
		l.Function, l.Offset = vsyscall(l.File)
		return l
	}
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
