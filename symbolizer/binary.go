package symbolizer

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Binary is one ELF file (executable, shared library or vdso image) opened for
// symbol lookups. Tables are read when first asked for and kept. All methods
// are safe for concurrent use; none may be called after Close.
type Binary struct {
	Path      string      // as given to Open, or the name given to NewBinary
	BuildID   string      // GNU build id (NT_GNU_BUILD_ID) in hex; empty if the file has none
	Arch      elf.Machine // machine of the code
	PIE       bool        // position independent (ET_DYN): executable or library
	Interp    string      // dynamic loader (PT_INTERP); empty for libraries and static executables
	GoVersion string      // Go toolchain that built it ("go1.26.0"); empty if not Go
	GoModule  string      // Go main module path from the build information; empty if none
	GoPackage string      // Go import path of the main package from the build information

	opts   Options
	file   *elf.File
	r      io.ReaderAt
	size   int64
	closer io.Closer
	cached bool         // owned by the process-wide cache
	refs   atomic.Int32 // users of a cached Binary

	needed []string // DT_NEEDED in file order

	funcsOnce sync.Once
	funcs     []Function
	funcsErr  error

	goOnce  sync.Once
	goTable *goTable // nil when the file has no readable Go function table
	goErr   error

	frameOnce sync.Once
	frames    []FDE
	framesErr error

	targetsOnce sync.Once
	targets     []uint64 // see callTargets

	debugOnce sync.Once
	debug     *Binary // separate debug file, nil if none was found

	dwarfOnce sync.Once
	dwarf     *dwarfIndex
	dwarfErr  error

	frameCache frameCache
}

// Options say where separate debug files are looked for. The zero value looks
// under /usr/lib/debug and beside the binary.
type Options struct {
	// Root is put before the paths of debug files, so that a process in
	// another mount namespace finds its own: "/proc/PID/root". Empty: "/". A build
	// id that is not found there is looked up in the global directories of ours.
	Root string
	// TargetPath is the binary's path as seen under Root, when it was opened by
	// another name (/proc/PID/exe, map_files). Empty: the path it was opened by,
	// without Root. Debug links are resolved relative to it.
	TargetPath string
	// DebugDirs are the global debug directories. Nil: /usr/lib/debug.
	DebugDirs []string
	// NoDebugFiles leaves separate debug files alone.
	NoDebugFiles bool
}

// Open opens the ELF file at path with default Options. It fails with an error
// wrapping ErrNotELF for anything but an ELF file, ErrMalformed for a corrupt
// one, or the operating system's error.
func Open(path string) (*Binary, error) { return Options{}.Open(path) }

// Open opens the ELF file at path. See the function Open for errors.
func (o Options) Open(path string) (*Binary, error) {
	f, info, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	b, err := o.NewBinary(f, info.Size(), path)
	if err != nil {
		f.Close()
		return nil, err
	}
	b.closer = f
	return b, nil
}

// openRegular opens path for reading and makes sure that it is a regular file.
// Opening a FIFO or a device must not block or have side effects, hence
// O_NONBLOCK.
func openRegular(path string) (*os.File, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open binary: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w: it is a %s", path, ErrNotELF, fileKind(info.Mode()))
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func fileKind(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&os.ModeNamedPipe != 0:
		return "pipe"
	case m&os.ModeSocket != 0:
		return "socket"
	case m&os.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

// NewBinary reads the ELF file of size bytes behind r with default Options.
// The name stands for the path in errors and in names of unnamed functions. r
// is used until Close, which does not close it.
func NewBinary(r io.ReaderAt, size int64, name string) (*Binary, error) {
	return Options{}.NewBinary(r, size, name)
}

// NewBinary reads an ELF file behind r. See the function NewBinary.
func (o Options) NewBinary(r io.ReaderAt, size int64, name string) (b *Binary, err error) {
	defer guard(&err, name)
	var magic [4]byte
	if n, err := r.ReadAt(magic[:], 0); n < len(magic) {
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		return nil, fmt.Errorf("%s: %w: too short", name, ErrNotELF)
	}
	if string(magic[:]) != elf.ELFMAG {
		if string(magic[:2]) == "#!" {
			return nil, fmt.Errorf("%s: %w: it is a script", name, ErrNotELF)
		}
		return nil, fmt.Errorf("%s: %w", name, ErrNotELF)
	}
	f, err := elf.NewFile(io.NewSectionReader(r, 0, size))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrMalformed, err)
	}
	b = &Binary{
		Path: name, Arch: f.Machine, PIE: f.Type == elf.ET_DYN,
		opts: o, file: f, r: r, size: size,
	}
	b.Interp = b.readInterp()
	b.BuildID = b.readBuildID()
	b.needed = b.readNeeded()
	b.readGoBuildInfo()
	return b, nil
}

// Close releases the file. A Binary from OpenCached is only given back: the
// cache closes it when nobody uses it and its place is needed.
func (b *Binary) Close() error {
	if b.cached {
		cache.release(b)
		return nil
	}
	return b.close()
}

func (b *Binary) close() error {
	var errs []error
	// Whoever has not asked for a debug file yet will not get one any more.
	b.debugOnce.Do(func() {})
	if b.debug != nil {
		errs = append(errs, b.debug.close())
	}
	if b.closer != nil {
		errs = append(errs, b.closer.Close())
	}
	return errors.Join(errs...)
}

// Needed returns the file names of the shared libraries that the dynamic
// section asks for (DT_NEEDED), in the order of the file.
func (b *Binary) Needed() []string { return slices.Clone(b.needed) }

// IsGo reports whether the Go toolchain linked the file. Its Go text must never
// get return probes: Go moves stacks.
func (b *Binary) IsGo() bool {
	return b.GoVersion != "" || b.goSection() != nil
}

// unwinderLibraries are the libraries that raise exceptions or panics through
// their callers' frames.
var unwinderLibraries = []string{"libgcc_s.so", "libstdc++.so", "libc++.so", "libc++abi.so", "libunwind.so", "libgnat", "libobjc.so", "libgo.so"}

// HasUnwinder reports whether exceptions or panics may pass through frames of
// this module: it carries language-specific unwind data (.gcc_except_table),
// links an unwinder statically (.eh_frame registration, personality routines)
// or needs one. A return probe hides the real return address from an unwinder,
// so such frames need RET sites or care. A module without may still lie between
// two modules with one (a callback passed to C): ask every module of a process.
func (b *Binary) HasUnwinder() bool {
	for _, lib := range b.needed {
		for _, u := range unwinderLibraries {
			if strings.HasPrefix(lib, u) {
				return true
			}
		}
	}
	for _, s := range b.file.Sections {
		if strings.HasPrefix(s.Name, ".gcc_except_table") && s.Size > 0 {
			return true
		}
	}
	// Stripped of section headers: a CIE that names a personality routine.
	frames, _ := b.Frames()
	for i := range frames {
		if frames[i].CIE.Personality != 0 {
			return true
		}
	}
	return false
}

func (b *Binary) readInterp() string {
	const maxPath = 4096
	for _, p := range b.file.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		buf := make([]byte, min(p.Filesz, maxPath))
		n, _ := p.ReadAt(buf, 0)
		name, _, _ := bytes.Cut(buf[:n], []byte{0})
		return string(name)
	}
	return ""
}

// readBuildID looks through the note segments, which stripping leaves, and then
// the note sections, which separate debug files have with their contents.
func (b *Binary) readBuildID() string {
	const maxNotes = 1 << 20
	for _, p := range b.file.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > maxNotes {
			continue
		}
		buf := make([]byte, p.Filesz)
		n, _ := p.ReadAt(buf, 0)
		if id := buildIDNote(buf[:n], b.file, p.Align); id != "" {
			return id
		}
	}
	for _, s := range b.file.Sections {
		if s.Type != elf.SHT_NOTE || s.Size > maxNotes {
			continue
		}
		data, err := b.sectionData(s, maxNotes)
		if err != nil {
			continue
		}
		if id := buildIDNote(data, b.file, s.Addralign); id != "" {
			return id
		}
	}
	return ""
}

// buildIDNote finds the NT_GNU_BUILD_ID note in a block of ELF notes.
func buildIDNote(notes []byte, f *elf.File, align uint64) string {
	const ntGNUBuildID = 3
	if align != 8 {
		align = 4
	}
	pad := func(n uint64) uint64 { return (n + align - 1) &^ (align - 1) }
	for len(notes) >= 12 {
		nameSize := uint64(f.ByteOrder.Uint32(notes))
		descSize := uint64(f.ByteOrder.Uint32(notes[4:]))
		kind := f.ByteOrder.Uint32(notes[8:])
		desc := pad(12 + nameSize)
		next := pad(desc + descSize)
		if desc+descSize > uint64(len(notes)) {
			return ""
		}
		if kind == ntGNUBuildID && string(notes[12:12+nameSize]) == "GNU\x00" {
			return hex.EncodeToString(notes[desc : desc+descSize])
		}
		if next >= uint64(len(notes)) {
			return ""
		}
		notes = notes[next:]
	}
	return ""
}

func (b *Binary) readNeeded() []string {
	d := b.dynamic()
	if d == nil {
		return nil
	}
	var libs []string
	for _, off := range d.needed {
		if name := cString(d.strtab, off); name != "" {
			libs = append(libs, name)
		}
	}
	return libs
}

func (b *Binary) readGoBuildInfo() {
	// For a file that is not Go, buildinfo would scan all of its data.
	if b.goSection() == nil && b.section(".go.buildinfo") == nil && len(b.file.Sections) > 0 {
		return
	}
	info, err := readBuildInfo(b.r)
	if err != nil {
		return
	}
	b.GoVersion = info.GoVersion
	b.GoModule = info.Main.Path
	b.GoPackage = info.Path
}

func readBuildInfo(r io.ReaderAt) (info *buildinfo.BuildInfo, err error) {
	defer guard(&err, "Go build information")
	return buildinfo.Read(r)
}

// base is the virtual address at which the first loaded segment begins, rounded
// down as the loader maps it: 0 for most position-independent files.
func (b *Binary) base() uint64 {
	for _, p := range b.file.Progs {
		if p.Type == elf.PT_LOAD {
			return p.Vaddr &^ 4095
		}
	}
	return 0
}

// AddrToOffset translates a virtual address of the file (not relocated) to the
// offset of the byte in the file. ok is false where no PT_LOAD segment has the
// address, or only as zero-filled memory.
func (b *Binary) AddrToOffset(addr uint64) (off uint64, ok bool) {
	for _, p := range b.file.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			return p.Off + (addr - p.Vaddr), true
		}
	}
	return 0, false
}

// OffsetToAddr translates a file offset to the virtual address that the loader
// gives it (before relocation). Where several PT_LOAD segments map the same
// bytes the executable one wins: offsets of probes are meant.
func (b *Binary) OffsetToAddr(off uint64) (addr uint64, ok bool) {
	for _, p := range b.file.Progs {
		if p.Type != elf.PT_LOAD || off < p.Off || off-p.Off >= p.Filesz {
			continue
		}
		if p.Flags&elf.PF_X != 0 {
			return p.Vaddr + (off - p.Off), true
		}
		if !ok {
			addr, ok = p.Vaddr+(off-p.Off), true
		}
	}
	return addr, ok
}

// executable reports whether addr lies in an executable PT_LOAD segment, and
// how many bytes of the segment follow.
func (b *Binary) executable(addr uint64) (rest uint64, ok bool) {
	for _, p := range b.file.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && addr >= p.Vaddr && addr-p.Vaddr < p.Memsz {
			return p.Memsz - (addr - p.Vaddr), true
		}
	}
	return 0, false
}

// writable reports whether addr lies in a writable PT_LOAD segment. Data that is
// made read-only after relocation counts as writable.
func (b *Binary) writable(addr uint64) bool {
	for _, p := range b.file.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_W != 0 && addr >= p.Vaddr && addr-p.Vaddr < p.Memsz {
			return true
		}
	}
	return false
}

// maxCode bounds what Code reads. The largest functions seen in the wild
// (generated parsers, interpreters) are below 2 MiB.
const maxCode = 16 << 20

// Code returns the bytes of a function. It fails with ErrNoCode if the size is
// unknown or the bytes are not in the file, and with ErrTooLarge beyond 16 MiB:
// half a function would hide return instructions.
func (b *Binary) Code(fn *Function) ([]byte, error) {
	switch {
	case fn.Size == 0:
		return nil, fmt.Errorf("%s: %s: %w: unknown size", b.Path, fn.Name, ErrNoCode)
	case fn.Size > maxCode:
		return nil, fmt.Errorf("%s: %s: function of %d bytes: %w", b.Path, fn.Name, fn.Size, ErrTooLarge)
	}
	buf := make([]byte, fn.Size)
	if err := b.readAddr(buf, fn.Addr); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", b.Path, fn.Name, err)
	}
	return buf, nil
}

// moduleName is the name of the file as people call the module.
func (b *Binary) moduleName() string {
	if b.opts.TargetPath != "" {
		return filepath.Base(b.opts.TargetPath)
	}
	return filepath.Base(b.Path)
}
