package symbolizer

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits on what is read into memory, whatever a file claims. They are far
// above real files (Chromium's symbol table is below 300 MiB) and are there for
// hostile ones; compressed data is the only place where a small file can ask
// for them.
const (
	maxSymbolSection = 1 << 30  // .symtab, .strtab, .dynsym, .gopclntab, .eh_frame
	maxSymbolName    = 32 << 10 // a single linkage name
	maxSymbols       = 8 << 20  // entries of one symbol table
)

// section returns the first section of that name with contents, or nil.
func (b *Binary) section(name string) *elf.Section {
	for _, s := range b.file.Sections {
		if s.Name == name && s.Type != elf.SHT_NOBITS && s.Size > 0 {
			return s
		}
	}
	return nil
}

// sectionData reads a section, inflating it if it is compressed. It never
// returns more than limit bytes: a longer section is ErrTooLarge.
func (b *Binary) sectionData(s *elf.Section, limit uint64) (data []byte, err error) {
	defer guard(&err, s.Name)
	if s.Type == elf.SHT_NOBITS {
		return nil, nil
	}
	if s.Size > limit {
		return nil, fmt.Errorf("%s: section %s of %d bytes: %w", b.Path, s.Name, s.Size, ErrTooLarge)
	}
	if s.Flags&elf.SHF_COMPRESSED == 0 {
		if s.Offset > uint64(b.size) || s.Size > uint64(b.size)-s.Offset {
			return nil, fmt.Errorf("%s: section %s ends beyond the file: %w", b.Path, s.Name, ErrMalformed)
		}
		data = make([]byte, s.Size)
		if _, err := b.r.ReadAt(data, int64(s.Offset)); err != nil {
			return nil, fmt.Errorf("%s: read section %s: %w", b.Path, s.Name, err)
		}
		return data, nil
	}
	return readBounded(s.Open(), s.Size, fmt.Sprintf("%s: section %s", b.Path, s.Name))
}

// readBounded reads what r yields up to size bytes, growing with what really
// comes instead of trusting size.
func readBounded(r io.Reader, size uint64, what string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", what, ErrMalformed, err)
	}
	return data, nil
}

// readAddr fills buf from the file's bytes at the virtual address.
func (b *Binary) readAddr(buf []byte, addr uint64) error {
	for _, p := range b.file.Progs {
		if p.Type != elf.PT_LOAD || addr < p.Vaddr || addr-p.Vaddr >= p.Filesz {
			continue
		}
		if uint64(len(buf)) > p.Filesz-(addr-p.Vaddr) {
			return fmt.Errorf("%w: %d bytes at %#x pass the segment's end", ErrNoCode, len(buf), addr)
		}
		off := p.Off + (addr - p.Vaddr)
		if off > uint64(b.size) || uint64(len(buf)) > uint64(b.size)-off {
			return fmt.Errorf("%w: %d bytes at %#x pass the file's end", ErrNoCode, len(buf), addr)
		}
		if _, err := b.r.ReadAt(buf, int64(off)); err != nil {
			return fmt.Errorf("read %d bytes at %#x: %w", len(buf), addr, err)
		}
		return nil
	}
	return fmt.Errorf("%w: nothing at %#x", ErrNoCode, addr)
}

// segmentFrom returns the file's bytes from a virtual address to the end of its
// segment, at most limit.
func (b *Binary) segmentFrom(addr, limit uint64) ([]byte, error) {
	for _, p := range b.file.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			off := p.Off + (addr - p.Vaddr)
			n := min(p.Filesz-(addr-p.Vaddr), limit)
			if off > uint64(b.size) {
				break
			}
			buf := make([]byte, min(n, uint64(b.size)-off))
			return buf, b.readAddr(buf, addr)
		}
	}
	return nil, fmt.Errorf("%w: nothing at %#x", ErrNoCode, addr)
}

// pointerSize is 8 for 64-bit files and 4 for others.
func (b *Binary) pointerSize() uint64 {
	if b.file.Class == elf.ELFCLASS64 {
		return 8
	}
	return 4
}

// pointerAt decodes a pointer-sized word; p must be long enough.
func (b *Binary) pointerAt(p []byte) uint64 {
	if b.file.Class == elf.ELFCLASS64 {
		return b.file.ByteOrder.Uint64(p)
	}
	return uint64(b.file.ByteOrder.Uint32(p))
}

// dynamicTable is what the package needs of PT_DYNAMIC. It is read through the
// program headers, which are there even where section headers are stripped.
type dynamicTable struct {
	needed  []uint64 // offsets into strtab
	strtab  string
	symtab  uint64 // address of .dynsym
	hash    uint64 // address of DT_HASH
	gnuHash uint64 // address of DT_GNU_HASH
	rela    uint64
	relasz  uint64
}

// dynamic reads the dynamic section; nil if there is none or it is unusable.
func (b *Binary) dynamic() *dynamicTable {
	const maxDynamic, maxDynStr = 1 << 20, 256 << 20
	var data []byte
	for _, p := range b.file.Progs {
		if p.Type == elf.PT_DYNAMIC && p.Filesz <= maxDynamic {
			data = make([]byte, p.Filesz)
			n, err := p.ReadAt(data, 0)
			if err != nil && !errors.Is(err, io.EOF) {
				return nil
			}
			data = data[:n]
			break
		}
	}
	d := &dynamicTable{}
	var strAddr, strSize uint64
	word := int(b.pointerSize())
	for ; len(data) >= 2*word; data = data[2*word:] {
		tag, value := elf.DynTag(b.pointerAt(data)), b.pointerAt(data[word:])
		if tag == elf.DT_NULL {
			break
		}
		switch tag {
		case elf.DT_NEEDED:
			d.needed = append(d.needed, value)
		case elf.DT_STRTAB:
			strAddr = value
		case elf.DT_STRSZ:
			strSize = value
		case elf.DT_SYMTAB:
			d.symtab = value
		case elf.DT_HASH:
			d.hash = value
		case elf.DT_GNU_HASH:
			d.gnuHash = value
		case elf.DT_RELA:
			d.rela = value
		case elf.DT_RELASZ:
			d.relasz = value
		}
	}
	if strAddr == 0 || strSize == 0 || strSize > maxDynStr || strSize > uint64(b.size) {
		return nil
	}
	buf := make([]byte, strSize)
	if err := b.readAddr(buf, strAddr); err != nil {
		return nil
	}
	d.strtab = string(buf)
	return d
}

// cString returns the zero-terminated string at off, at most maxSymbolName long.
// Anything out of bounds or unterminated is empty.
func cString(table string, off uint64) string {
	if off >= uint64(len(table)) {
		return ""
	}
	s := table[off:]
	if len(s) > maxSymbolName {
		s = s[:maxSymbolName]
	}
	end := strings.IndexByte(s, 0)
	if end < 0 {
		return ""
	}
	return s[:end]
}

// relocated returns the addends of the R_*_RELATIVE relocations whose place is
// in [start, end): the values that the loader writes into position-independent
// data, which the file itself may have as zeroes.
func (b *Binary) relocated(start, end uint64) map[uint64]uint64 {
	found := make(map[uint64]uint64)
	b.eachRelative(func(place, addend uint64) bool {
		if place >= start && place < end {
			found[place] = addend
		}
		return true
	})
	return found
}

// eachRelative calls f for every R_*_RELATIVE relocation with an addend until
// it returns false.
func (b *Binary) eachRelative(f func(place, addend uint64) bool) {
	if b.file.Class != elf.ELFCLASS64 {
		return
	}
	d := b.dynamic()
	if d == nil || d.rela == 0 || d.relasz > min(maxSymbolSection, uint64(b.size)) {
		return
	}
	data := make([]byte, d.relasz)
	if err := b.readAddr(data, d.rela); err != nil {
		return
	}
	for ; len(data) >= 24; data = data[24:] {
		kind := uint32(b.file.ByteOrder.Uint64(data[8:]))
		if !isRelative(b.Arch, kind) {
			continue
		}
		if !f(b.file.ByteOrder.Uint64(data), b.file.ByteOrder.Uint64(data[16:])) {
			return
		}
	}
}

func isRelative(arch elf.Machine, kind uint32) bool {
	switch arch {
	case elf.EM_X86_64:
		return elf.R_X86_64(kind) == elf.R_X86_64_RELATIVE
	case elf.EM_AARCH64:
		return elf.R_AARCH64(kind) == elf.R_AARCH64_RELATIVE
	}
	return false
}

// words reads n pointer-sized words at addr as the loader would leave them.
func (b *Binary) words(addr uint64, n int) ([]uint64, error) {
	size := b.pointerSize()
	buf := make([]byte, uint64(n)*size)
	if err := b.readAddr(buf, addr); err != nil {
		return nil, err
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = b.pointerAt(buf[uint64(i)*size:])
	}
	if b.PIE {
		for place, value := range b.relocated(addr, addr+uint64(len(buf))) {
			if (place-addr)%size == 0 {
				out[(place-addr)/size] = value
			}
		}
	}
	return out, nil
}

// byteOrder is the file's byte order.
func (b *Binary) byteOrder() binary.ByteOrder { return b.file.ByteOrder }
