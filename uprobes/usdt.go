package uprobes

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
)

// ErrStapNote is wrapped by the errors of StaticProbes for a .note.stapsdt
// section that does not have the documented form.
var ErrStapNote = errors.New("malformed .note.stapsdt")

// Limits for hostile files. PostgreSQL has 71 probes in 6 KiB of notes, the
// largest collections known (QEMU, Node.js, libvirt) a few thousand.
const (
	maxStapSection = 16 << 20 // bytes of notes
	maxStapProbes  = 1 << 16
	maxStapArgs    = 64 // <sys/sdt.h> ends at 12
	maxSegments    = 4096
)

// StaticProbe is one USDT probe site: a nop that <sys/sdt.h> or a compatible
// header left in the code, with a note about its arguments. One probe may have
// several sites, each with argument locations of its own; every site is a
// StaticProbe.
type StaticProbe struct {
	Provider string
	Name     string // as in the note: "query__start", which DTrace users spell query-start
	Addr     uint64 // virtual address of the nop in the ELF file (not relocated)
	Offset   uint64 // file offset of the nop, what a uprobe takes

	// SemaphoreAddr is the virtual address of the probe's 16-bit counter of
	// listeners, 0 when it has none. Code around the nop may skip the probe, or
	// the computation of its arguments, while the counter is 0.
	SemaphoreAddr uint64
	// SemaphoreOffset is the counter's file offset: ref_ctr_offset of the
	// kernel's uprobe interfaces, with which the kernel counts it up and down
	// in every process that maps the file. 0 when there is no semaphore.
	SemaphoreOffset uint64

	Args    []USDTArg
	RawArgs string // the note's argument string

	// Derived says that no note tells of this site: it was found in the code to
	// make up for one that is missing, see cpython311Entries.
	Derived bool

	// Err says why the site cannot be probed (it is not in the file's code, or
	// its semaphore is not in its data); nil for a good one.
	Err error
}

// ID is "provider:name".
func (p *StaticProbe) ID() string { return p.Provider + ":" + p.Name }

// SymbolLookup finds the virtual address of a symbol of one ELF file.
type SymbolLookup func(name string) (addr uint64, ok bool)

// StaticProbes reads the USDT probes of an ELF file, in the order of its notes,
// and after them those it derives from the code (StaticProbe.Derived).
// It is nil, nil for a file without any. A section that is not as documented
// gives an error wrapping ErrStapNote; probes and arguments that are well
// formed but cannot be used carry their own Err.
//
// Some argument locations name a symbol. lookup finds it; nil means the file's
// own symbol tables, which are read only if one is needed.
//
// The note format is that of
// https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation: location,
// link-time address of .stapsdt.base and semaphore as target addresses, then
// provider, name and arguments as strings. Where a prelinker moved the file,
// location and semaphore move by as much as .stapsdt.base did.
func StaticProbes(f *elf.File, lookup SymbolLookup) ([]StaticProbe, error) {
	var notes []stapNote
	for _, s := range f.Sections {
		if s.Name != ".note.stapsdt" || s.Type != elf.SHT_NOTE {
			continue
		}
		if s.FileSize > maxStapSection {
			return nil, fmt.Errorf("%w: section of %d bytes", ErrStapNote, s.FileSize)
		}
		data, err := s.Data()
		if err != nil {
			return nil, fmt.Errorf("read .note.stapsdt: %w", err)
		}
		more, err := parseStapNotes(data, f.ByteOrder, f.Class == elf.ELFCLASS64)
		if err != nil {
			return nil, err
		}
		notes = append(notes, more...)
	}
	if len(notes) == 0 {
		return nil, nil
	}
	if len(f.Progs) > maxSegments {
		return nil, fmt.Errorf("%w: file of %d segments", ErrStapNote, len(f.Progs))
	}
	var base uint64
	if s := f.Section(".stapsdt.base"); s != nil {
		base = s.Addr
	}
	if lookup == nil {
		lookup = fileSymbols(f)
	}
	probes := make([]StaticProbe, len(notes))
	for i, n := range notes {
		probes[i] = n.probe(f, base, lookup)
	}
	return append(probes, cpython311Entries(f, probes)...), nil
}

// stapNote is one NT_STAPSDT note as written.
type stapNote struct {
	location, base, semaphore uint64
	provider, name, args      string
}

// parseStapNotes splits the content of a note section, skipping notes of other
// owners and types. Notes are aligned to four bytes in 64-bit files too.
func parseStapNotes(data []byte, order binary.ByteOrder, is64 bool) ([]stapNote, error) {
	var notes []stapNote
	for pos := 0; pos < len(data); {
		bad := func(what string) error { return fmt.Errorf("%w: note at 0x%x: %s", ErrStapNote, pos, what) }
		rest := data[pos:]
		if len(rest) < 12 {
			if len(bytes.Trim(rest, "\x00")) == 0 {
				break // the section's own padding
			}
			return nil, bad("header is cut off")
		}
		nameSize, descSize := uint64(order.Uint32(rest)), uint64(order.Uint32(rest[4:]))
		kind := order.Uint32(rest[8:])
		descStart := 12 + align4(nameSize)
		descEnd := descStart + descSize
		if descEnd > uint64(len(rest)) {
			return nil, bad(fmt.Sprintf("%d bytes of name and %d of content do not fit", nameSize, descSize))
		}
		if kind == 3 && string(rest[12:12+nameSize]) == "stapsdt\x00" {
			n, err := parseStapDesc(rest[descStart:descEnd], order, is64)
			if err != nil {
				return nil, bad(err.Error())
			}
			if len(notes) == maxStapProbes {
				return nil, bad(fmt.Sprintf("more than %d probes", maxStapProbes))
			}
			notes = append(notes, n)
		}
		pos += int(min(align4(descEnd), uint64(len(rest))))
	}
	return notes, nil
}

func align4(n uint64) uint64 { return (n + 3) &^ 3 }

func parseStapDesc(desc []byte, order binary.ByteOrder, is64 bool) (stapNote, error) {
	var n stapNote
	width := 4
	if is64 {
		width = 8
	}
	if len(desc) < 3*width {
		return n, fmt.Errorf("%d bytes are too few for three addresses", len(desc))
	}
	for i, field := range []*uint64{&n.location, &n.base, &n.semaphore} {
		if is64 {
			*field = order.Uint64(desc[i*width:])
		} else {
			*field = uint64(order.Uint32(desc[i*width:]))
		}
	}
	desc = desc[3*width:]
	for _, field := range []struct {
		name string
		to   *string
	}{{"provider", &n.provider}, {"name", &n.name}, {"arguments", &n.args}} {
		end := bytes.IndexByte(desc, 0)
		if end < 0 {
			return stapNote{}, fmt.Errorf("the string of the %s does not end", field.name)
		}
		*field.to = string(desc[:end])
		desc = desc[end+1:]
	}
	if n.provider == "" || n.name == "" {
		return stapNote{}, errors.New("provider or name is empty")
	}
	return n, nil
}

// probe turns a note into a StaticProbe; base is where .stapsdt.base is now.
func (n *stapNote) probe(f *elf.File, base uint64, lookup SymbolLookup) StaticProbe {
	p := StaticProbe{Provider: n.provider, Name: n.name, Addr: n.location, SemaphoreAddr: n.semaphore, RawArgs: n.args}
	if base != 0 && n.base != 0 {
		p.Addr += base - n.base
		if p.SemaphoreAddr != 0 {
			p.SemaphoreAddr += base - n.base
		}
	}
	var ok bool
	if p.Offset, ok = fileOffset(f, p.Addr, 1, elf.PF_X); !ok {
		p.Err = fmt.Errorf("static probe %s: address 0x%x is not in the file's code", p.ID(), p.Addr)
	}
	if p.SemaphoreAddr != 0 {
		if p.SemaphoreOffset, ok = fileOffset(f, p.SemaphoreAddr, 2, elf.PF_W); !ok && p.Err == nil {
			p.Err = fmt.Errorf("static probe %s: semaphore 0x%x is not in the file's writable data", p.ID(), p.SemaphoreAddr)
		}
	}
	p.Args = parseUSDTArgs(p.RawArgs, argContext{
		machine: f.Machine, class: f.Class, fixed: f.Type == elf.ET_EXEC, addr: p.Addr, lookup: lookup,
	})
	return p
}

// fileOffset translates the address of size bytes to a file offset, if a
// loaded segment with the given permission has them in the file.
func fileOffset(f *elf.File, addr, size uint64, perm elf.ProgFlag) (uint64, bool) {
	for _, s := range f.Progs {
		if s.Type != elf.PT_LOAD || s.Flags&perm == 0 || addr < s.Vaddr {
			continue
		}
		if at := addr - s.Vaddr; at < s.Filesz && s.Filesz-at >= size {
			return s.Off + at, true
		}
	}
	return 0, false
}

// fileSymbols looks symbols up in the file's own tables, which it reads on
// first use and keeps as long as the returned function lives.
func fileSymbols(f *elf.File) SymbolLookup {
	var (
		names []elf.Symbol
		read  bool
	)
	return func(name string) (uint64, bool) {
		if !read {
			read = true
			// A file may lack either table; then the other has to do.
			full, _ := f.Symbols()
			dynamic, _ := f.DynamicSymbols()
			for _, s := range append(full, dynamic...) {
				if s.Section != elf.SHN_UNDEF && s.Name != "" {
					names = append(names, s)
				}
			}
			sort.SliceStable(names, func(i, j int) bool { return names[i].Name < names[j].Name })
		}
		i := sort.Search(len(names), func(i int) bool { return names[i].Name >= name })
		if i == len(names) || names[i].Name != name {
			return 0, false
		}
		return names[i].Value, true
	}
}
