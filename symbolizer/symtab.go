package symbolizer

import (
	"debug/elf"
	"errors"
	"fmt"
	"strings"
)

// symbol is one candidate name of an address, before candidates are merged.
type symbol struct {
	addr   uint64
	size   uint64
	name   string // linkage name without symbol version
	source FuncSource
	bind   elf.SymBind
	ifunc  bool
	untyp  bool // STT_NOTYPE: only a label
}

// addrRange is a half-open range of virtual addresses.
type addrRange struct{ start, end uint64 }

// codeRanges are the address ranges where functions may be, sorted: executable
// sections but those of the procedure linkage table, or executable segments
// where section headers are stripped.
func (b *Binary) codeRanges() (code, plt []addrRange) {
	for _, s := range b.file.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 || s.Flags&elf.SHF_EXECINSTR == 0 || s.Size == 0 || s.Addr+s.Size < s.Addr {
			continue
		}
		r := addrRange{s.Addr, s.Addr + s.Size}
		if s.Name == ".plt" || strings.HasPrefix(s.Name, ".plt.") || s.Name == ".iplt" {
			plt = append(plt, r)
			continue
		}
		code = append(code, r)
	}
	if len(code) == 0 {
		for _, p := range b.file.Progs {
			if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && p.Vaddr+p.Filesz > p.Vaddr {
				code = append(code, addrRange{p.Vaddr, p.Vaddr + p.Filesz})
			}
		}
	}
	sortRanges(code)
	return code, plt
}

// symbolTable reads the function symbols of the first section of the given
// type. A file without such a section has no symbols and no error.
func (b *Binary) symbolTable(kind elf.SectionType, source FuncSource, code []addrRange) ([]symbol, error) {
	var table *elf.Section
	for _, s := range b.file.Sections {
		if s.Type == kind && s.Size > 0 {
			table = s
			break
		}
	}
	if table == nil {
		if kind == elf.SHT_DYNSYM && len(b.file.Sections) == 0 {
			return b.dynamicSymbols(code)
		}
		return nil, nil
	}
	if int(table.Link) >= len(b.file.Sections) {
		return nil, fmt.Errorf("%s: %s has no string table: %w", b.Path, table.Name, ErrMalformed)
	}
	entries, err := b.sectionData(table, maxSymbolSection)
	if err != nil {
		return nil, err
	}
	strtab, err := b.sectionData(b.file.Sections[table.Link], maxSymbolSection)
	if err != nil {
		return nil, err
	}
	return b.parseSymbols(entries, string(strtab), source, code)
}

// parseSymbols decodes symbol table entries and keeps those that are functions
// in code ranges. Names are substrings of strtab.
func (b *Binary) parseSymbols(entries []byte, strtab string, source FuncSource, code []addrRange) ([]symbol, error) {
	is64 := b.file.Class == elf.ELFCLASS64
	order := b.byteOrder()
	entrySize := elf.Sym32Size
	if is64 {
		entrySize = elf.Sym64Size
	}
	n := len(entries) / entrySize
	if n > maxSymbols {
		return nil, fmt.Errorf("%s: %d symbols: %w", b.Path, n, ErrTooLarge)
	}
	out := make([]symbol, 0, n/2)
	for i := 0; i < n; i++ {
		e := entries[i*entrySize:][:entrySize]
		var s symbol
		var info byte
		var shndx elf.SectionIndex
		if is64 {
			info, shndx = e[4], elf.SectionIndex(order.Uint16(e[6:]))
			s.addr, s.size = order.Uint64(e[8:]), order.Uint64(e[16:])
		} else {
			info, shndx = e[12], elf.SectionIndex(order.Uint16(e[14:]))
			s.addr, s.size = uint64(order.Uint32(e[4:])), uint64(order.Uint32(e[8:]))
		}
		s.bind = elf.ST_BIND(info)
		switch elf.ST_TYPE(info) {
		case elf.STT_FUNC:
		case elf.STT_GNU_IFUNC:
			s.ifunc = true
		case elf.STT_NOTYPE:
			// Assembly without .type directives. Local labels are no functions.
			s.untyp = true
			if s.bind == elf.STB_LOCAL {
				continue
			}
		default:
			continue
		}
		if shndx == elf.SHN_UNDEF || shndx == elf.SHN_ABS || shndx == elf.SHN_COMMON {
			continue
		}
		if !inRanges(code, s.addr) {
			continue
		}
		s.name = cString(strtab, uint64(order.Uint32(e)))
		// "memcpy@@GLIBC_2.14": the version is not part of the name.
		if at := strings.IndexByte(s.name, '@'); at > 0 {
			s.name = s.name[:at]
		}
		if s.name == "" || s.untyp && (s.name[0] == '$' || s.name[0] == '.') {
			continue
		}
		s.source = source
		out = append(out, s)
	}
	return out, nil
}

// dynamicSymbols reads .dynsym through PT_DYNAMIC, for files whose section
// headers are stripped. The table's length follows from the hash tables.
func (b *Binary) dynamicSymbols(code []addrRange) ([]symbol, error) {
	d := b.dynamic()
	if d == nil || d.symtab == 0 {
		return nil, nil
	}
	n, err := b.dynamicSymbolCount(d)
	if err != nil || n == 0 {
		return nil, err
	}
	size := uint64(elf.Sym32Size)
	if b.file.Class == elf.ELFCLASS64 {
		size = elf.Sym64Size
	}
	entries, err := b.segmentFrom(d.symtab, n*size)
	if err != nil {
		return nil, fmt.Errorf("%s: dynamic symbols: %w", b.Path, err)
	}
	return b.parseSymbols(entries, d.strtab, SourceDynsym, code)
}

// dynamicSymbolCount finds how many entries .dynsym has: DT_HASH says it, with
// DT_GNU_HASH it is the end of the last chain.
func (b *Binary) dynamicSymbolCount(d *dynamicTable) (uint64, error) {
	order := b.byteOrder()
	if d.hash != 0 {
		var head [8]byte
		if err := b.readAddr(head[:], d.hash); err != nil {
			return 0, fmt.Errorf("%s: symbol hash table: %w", b.Path, err)
		}
		return min(uint64(order.Uint32(head[4:])), maxSymbols), nil
	}
	if d.gnuHash == 0 {
		return 0, nil
	}
	table, err := b.segmentFrom(d.gnuHash, maxSymbolSection)
	if err != nil {
		return 0, fmt.Errorf("%s: GNU symbol hash table: %w", b.Path, err)
	}
	bad := fmt.Errorf("%s: GNU symbol hash table: %w", b.Path, ErrMalformed)
	if len(table) < 16 {
		return 0, bad
	}
	buckets, symOffset := uint64(order.Uint32(table)), uint64(order.Uint32(table[4:]))
	bloom := uint64(order.Uint32(table[8:]))
	bucketAt := 16 + bloom*b.pointerSize()
	chainAt := bucketAt + buckets*4
	if chainAt > uint64(len(table)) {
		return 0, bad
	}
	last := uint64(0)
	for i := uint64(0); i < buckets; i++ {
		last = max(last, uint64(order.Uint32(table[bucketAt+i*4:])))
	}
	if last < symOffset {
		return symOffset, nil
	}
	for ; last < maxSymbols; last++ {
		at := chainAt + (last-symOffset)*4
		if at+4 > uint64(len(table)) {
			return 0, bad
		}
		if order.Uint32(table[at:])&1 != 0 {
			return last + 1, nil
		}
	}
	return 0, bad
}

// namedSymbols collects the candidates of all symbol tables, its own and those
// of a separate debug file. Tables that cannot be read are left out; their
// errors are joined and come with whatever could be read.
func (b *Binary) namedSymbols(code []addrRange) ([]symbol, error) {
	var errs []error
	own, err := b.symbolTable(elf.SHT_SYMTAB, SourceSymtab, code)
	if err != nil {
		errs = append(errs, err)
	}
	all := own
	if len(own) == 0 {
		if d := b.debugFile(); d != nil {
			more, err := d.symbolTable(elf.SHT_SYMTAB, SourceDebugFile, code)
			if err != nil {
				errs = append(errs, err)
			}
			all = append(all, more...)
		}
	}
	if len(all) == 0 {
		mini, err := b.miniDebugSymbols(code)
		if err != nil {
			errs = append(errs, err)
		}
		all = append(all, mini...)
	}
	// With a full symbol table .dynsym has nothing to add.
	if len(all) == 0 || all[0].source == SourceMiniDebug {
		dyn, err := b.symbolTable(elf.SHT_DYNSYM, SourceDynsym, code)
		if err != nil {
			errs = append(errs, err)
		}
		all = append(all, dyn...)
	}
	return all, errors.Join(errs...)
}
