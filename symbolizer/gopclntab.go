package symbolizer

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"unsafe"
)

// goTable is the function table of the Go runtime (.gopclntab), which survives
// stripping because tracebacks need it. The layout is that of runtime/symtab.go
// (pcHeader, _func, moduledata) of Go 1.18 and later.
type goTable struct {
	data []byte // the whole table
	text string // the same bytes, for names without copies
	addr uint64 // virtual address of the table

	order     binary.ByteOrder
	ptrSize   int
	quantum   uint64 // smallest instruction
	go120     bool   // Go 1.20 and later: smaller inline tree entries, start lines
	nfunc     int
	textStart uint64 // runtime.text: entry offsets count from here

	nstr  string // function names, zero-terminated
	cu    []byte // file numbers of compilation units → offsets into files
	files string
	pctab []byte
	funcs []byte // function table, then the functions' records

	inlineBase uint64 // address that funcdata offsets count from (go:func.*); 0 if unknown
	inline     []byte // bytes from inlineBase on
}

const (
	goMagic118 = 0xfffffff0
	goMagic120 = 0xfffffff1

	goFuncRecord = 44 // size of _func up to and with nfuncdata, in Go 1.20 and later
	maxGoFuncs   = 4 << 20
)

// goFunc is the record of one function (runtime._func).
type goFunc struct {
	entry     uint64
	end       uint64 // entry of the next function
	nameOff   uint32
	pcsp      uint32
	pcfile    uint32
	pcln      uint32
	npcdata   uint32
	cuOffset  uint32
	startLine uint32 // 0 before Go 1.20
	flag      uint8  // internal/abi.FuncFlag
	nfuncdata uint8
	tail      []byte // pcdata and funcdata offsets, uint32 each
}

// goSection is the section of the Go function table, nil if there is none.
func (b *Binary) goSection() *elf.Section {
	if b.file == nil {
		return nil
	}
	for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab"} {
		if s := b.section(name); s != nil {
			return s
		}
	}
	return nil
}

// gopclntab returns the parsed Go function table; nil without error for a file
// that has none.
func (b *Binary) gopclntab() (*goTable, error) {
	b.goOnce.Do(func() {
		b.goTable, b.goErr = b.readGoTable()
	})
	return b.goTable, b.goErr
}

func (b *Binary) readGoTable() (t *goTable, err error) {
	defer guard(&err, b.Path+": Go function table")
	s := b.goSection()
	if s == nil {
		if b.GoVersion == "" {
			return nil, nil
		}
		return b.searchGoTable()
	}
	data, err := b.sectionData(s, maxSymbolSection)
	if err != nil {
		return nil, err
	}
	return b.newGoTable(data, s.Addr)
}

func (b *Binary) newGoTable(data []byte, addr uint64) (*goTable, error) {
	t, err := parseGoTable(data, addr)
	if err == nil {
		err = b.locateGoText(t)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Path, err)
	}
	return t, nil
}

// searchGoTable looks for the table in all data. External linkers of
// position-independent executables merge its section into .data.rel.ro, and
// section headers may be stripped.
func (b *Binary) searchGoTable() (*goTable, error) {
	left := uint64(maxSymbolSection)
	for _, area := range b.dataAreas() {
		size := area.end - area.start
		if size > left {
			continue
		}
		left -= size
		data, err := b.segmentFrom(area.start, size)
		if err != nil {
			continue
		}
		for at := 0; ; {
			// The magic number without its first byte, which tells versions apart,
			// and two bytes of zeroes.
			next := bytes.Index(data[at:], []byte{0xff, 0xff, 0xff, 0, 0})
			if next < 0 {
				break
			}
			at += next
			if at >= 1 {
				if t, err := b.newGoTable(data[at-1:], area.start+uint64(at-1)); err == nil {
					return t, nil
				}
			}
			at++
		}
	}
	return nil, fmt.Errorf("%s: no Go function table: %w", b.Path, ErrMalformed)
}

// dataAreas are the address ranges of data that is in the file: sections, or
// segments where section headers are stripped.
func (b *Binary) dataAreas() []addrRange {
	var areas []addrRange
	for _, s := range b.file.Sections {
		if s.Type == elf.SHT_PROGBITS && s.Flags&elf.SHF_ALLOC != 0 && s.Flags&elf.SHF_EXECINSTR == 0 && s.Addr+s.Size > s.Addr {
			areas = append(areas, addrRange{s.Addr, s.Addr + s.Size})
		}
	}
	if len(b.file.Sections) == 0 {
		for _, p := range b.file.Progs {
			if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X == 0 && p.Vaddr+p.Filesz > p.Vaddr {
				areas = append(areas, addrRange{p.Vaddr, p.Vaddr + p.Filesz})
			}
		}
	}
	return areas
}

// parseGoTable checks the header and cuts the table into its parts.
func parseGoTable(data []byte, addr uint64) (*goTable, error) {
	bad := func(what string) (*goTable, error) {
		return nil, fmt.Errorf("function table of Go: %w: %s", ErrMalformed, what)
	}
	if len(data) < 8 {
		return bad("truncated header")
	}
	t := &goTable{data: data, addr: addr, quantum: uint64(data[6]), ptrSize: int(data[7])}
	switch {
	case isGoMagic(binary.LittleEndian.Uint32(data)):
		t.order = binary.LittleEndian
	case isGoMagic(binary.BigEndian.Uint32(data)):
		t.order = binary.BigEndian
	default:
		return nil, fmt.Errorf("function table of Go: %w: format %#x is not that of Go 1.18 or later", ErrMalformed, binary.LittleEndian.Uint32(data))
	}
	t.go120 = t.order.Uint32(data) == goMagic120
	if t.ptrSize != 4 && t.ptrSize != 8 {
		return bad("pointer size")
	}
	if t.quantum != 1 && t.quantum != 2 && t.quantum != 4 {
		return bad("instruction size")
	}
	if len(data) < 8+8*t.ptrSize {
		return bad("truncated header")
	}
	nfunc := t.header(0)
	if nfunc == 0 || nfunc > maxGoFuncs {
		return bad(fmt.Sprintf("%d functions", nfunc))
	}
	t.nfunc = int(nfunc)
	t.textStart = t.header(2)
	offsets := make([]uint64, 0, 6)
	for i := 3; i <= 7; i++ {
		offsets = append(offsets, t.header(i))
	}
	offsets = append(offsets, uint64(len(data)))
	for i := 1; i < len(offsets); i++ {
		if offsets[i] < offsets[i-1] || offsets[i] > uint64(len(data)) {
			return bad("parts out of order")
		}
	}
	t.text = unsafe.String(unsafe.SliceData(data), len(data))
	t.nstr = t.text[offsets[0]:offsets[1]]
	t.cu = data[offsets[1]:offsets[2]]
	t.files = t.text[offsets[2]:offsets[3]]
	t.pctab = data[offsets[3]:offsets[4]]
	t.funcs = data[offsets[4]:]
	if uint64(len(t.funcs)) < (2*nfunc+1)*4 {
		return bad("truncated function table")
	}
	return t, nil
}

func isGoMagic(m uint32) bool { return m == goMagic118 || m == goMagic120 }

// header returns a pointer-sized word after the first eight bytes.
func (t *goTable) header(i int) uint64 {
	p := t.data[8+i*t.ptrSize:]
	if t.ptrSize == 4 {
		return uint64(t.order.Uint32(p))
	}
	return t.order.Uint64(p)
}

// locateGoText finds runtime.text and the base of funcdata. The module data has
// both. Without it (nothing but the table is left) the text address comes from
// the table's header, up to Go 1.25, or is the start of .text, which holds for
// the internal linker.
func (b *Binary) locateGoText(t *goTable) error {
	if text, gofunc, ok := b.goModuleData(t); ok {
		t.textStart = text
		if gofunc != 0 {
			if data, err := b.segmentFrom(gofunc, maxSymbolSection); err == nil {
				t.inlineBase, t.inline = gofunc, data
			}
		}
	} else if text := b.section(".text"); text != nil && t.textStart == 0 {
		t.textStart = text.Addr
	}
	if _, ok := b.executable(t.textStart); !ok {
		return fmt.Errorf("function table of Go: %w: text at %#x is not executable", ErrMalformed, t.textStart)
	}
	return nil
}

// Words of runtime.moduledata, counted in pointers, stable from Go 1.18 on but
// for gofunc, before which Go 1.20 put two (covctrs, ecovctrs).
const (
	moduleFtabLen   = 17
	moduleMinPC     = 20
	moduleText      = 22
	moduleEtext     = 23
	moduleGofunc118 = 38
	moduleGofunc120 = 40
	moduleWords     = 41
)

// goModuleData finds runtime.firstmoduledata: in its own section from Go 1.26
// on, before that it is the place in writable data that points to the table and
// whose other words agree with the table.
func (b *Binary) goModuleData(t *goTable) (text, gofunc uint64, ok bool) {
	if t.ptrSize != int(b.pointerSize()) {
		return 0, 0, false
	}
	try := func(addr uint64) bool {
		w, err := b.words(addr, moduleWords)
		if err != nil || w[0] != t.addr {
			return false
		}
		if n := w[moduleFtabLen]; n != uint64(t.nfunc) && n != uint64(t.nfunc)+1 {
			return false
		}
		if _, exec := b.executable(w[moduleText]); !exec || w[moduleEtext] < w[moduleText] {
			return false
		}
		text, gofunc = w[moduleText], w[moduleGofunc118]
		if t.go120 {
			gofunc = w[moduleGofunc120]
		}
		return true
	}
	if s := b.section(".go.module"); s != nil && try(s.Addr) {
		return text, gofunc, true
	}
	if b.PIE {
		b.eachRelative(func(place, addend uint64) bool {
			ok = addend == t.addr && try(place)
			return !ok
		})
		if ok {
			return text, gofunc, true
		}
	}
	want := make([]byte, t.ptrSize)
	if t.ptrSize == 8 {
		t.order.PutUint64(want, t.addr)
	} else {
		t.order.PutUint32(want, uint32(t.addr))
	}
	for _, area := range b.dataAreas() {
		if !b.writable(area.start) {
			continue
		}
		data, err := b.segmentFrom(area.start, min(area.end-area.start, maxSymbolSection))
		if err != nil {
			continue
		}
		for at := 0; ; at++ {
			next := bytes.Index(data[at:], want)
			if next < 0 {
				break
			}
			at += next
			if try(area.start + uint64(at)) {
				return text, gofunc, true
			}
		}
	}
	return 0, 0, false
}

// function decodes the i-th record. ok is false for one out of bounds.
func (t *goTable) function(i int) (f goFunc, ok bool) {
	row := t.funcs[i*8:]
	f.entry = t.textStart + uint64(t.order.Uint32(row))
	f.end = t.textStart + uint64(t.order.Uint32(row[8:]))
	off := uint64(t.order.Uint32(row[4:]))
	size := uint64(goFuncRecord)
	if !t.go120 {
		size = goFuncRecord - 4 // no startLine
	}
	if off+size > uint64(len(t.funcs)) {
		return f, false
	}
	r := t.funcs[off:]
	f.nameOff = t.order.Uint32(r[4:])
	f.pcsp = t.order.Uint32(r[16:])
	f.pcfile = t.order.Uint32(r[20:])
	f.pcln = t.order.Uint32(r[24:])
	f.npcdata = t.order.Uint32(r[28:])
	f.cuOffset = t.order.Uint32(r[32:])
	if t.go120 {
		f.startLine = t.order.Uint32(r[36:])
	}
	f.flag = r[size-3]
	f.nfuncdata = r[size-1]
	tail := (uint64(f.npcdata) + uint64(f.nfuncdata)) * 4
	if off+size+tail > uint64(len(t.funcs)) {
		return f, false
	}
	f.tail = r[size:][:tail]
	return f, f.end >= f.entry
}

// find returns the function that has addr.
func (t *goTable) find(addr uint64) (f goFunc, ok bool) {
	if addr < t.textStart {
		return f, false
	}
	lo, hi := 0, t.nfunc
	for lo < hi { // first function beyond addr
		mid := int(uint(lo+hi) / 2)
		if t.textStart+uint64(t.order.Uint32(t.funcs[mid*8:])) > addr {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	if lo == 0 {
		return f, false
	}
	f, ok = t.function(lo - 1)
	return f, ok && addr < f.end
}

func (t *goTable) name(off uint32) string { return cString(t.nstr, uint64(off)) }

// file returns the path of a file number of the function's compilation unit.
func (t *goTable) file(cuOffset uint32, number int32) string {
	if number < 0 {
		return ""
	}
	at := (uint64(cuOffset) + uint64(number)) * 4
	if at+4 > uint64(len(t.cu)) {
		return ""
	}
	off := t.order.Uint32(t.cu[at:])
	if off == ^uint32(0) {
		return ""
	}
	return cString(t.files, uint64(off))
}

// pcValue is the value that the table at offset off of pctab has at addr, -1
// where there is none.
func (t *goTable) pcValue(off uint32, f *goFunc, addr uint64) int32 {
	value := int32(-1)
	t.eachPCValue(off, f, func(start, end uint64, v int32) bool {
		if addr >= start && addr < end {
			value = v
			return false
		}
		return true
	})
	return value
}

// eachPCValue calls visit for the runs of equal values of a pc table until it
// returns false. The table is a sequence of (value change, pc change) varints,
// the former zigzag-encoded; it starts with value -1 at the function's entry.
func (t *goTable) eachPCValue(off uint32, f *goFunc, visit func(start, end uint64, v int32) bool) {
	if off == 0 || uint64(off) >= uint64(len(t.pctab)) {
		return
	}
	p := t.pctab[off:]
	pc, value := f.entry, int32(-1)
	for first := true; pc < f.end; first = false {
		change, n := uvarint32(p)
		if n == 0 || change == 0 && !first {
			return
		}
		p = p[n:]
		step, n := uvarint32(p)
		if n == 0 || step == 0 {
			return
		}
		p = p[n:]
		value += int32(change>>1) ^ -int32(change&1)
		end := pc + uint64(step)*t.quantum
		if !visit(pc, end, value) {
			return
		}
		pc = end
	}
}

// uvarint32 decodes a varint of at most five bytes; n is 0 if there is none.
func uvarint32(p []byte) (v uint32, n int) {
	for shift := uint(0); shift < 35 && n < len(p); shift += 7 {
		c := p[n]
		n++
		v |= uint32(c&0x7f) << shift
		if c&0x80 == 0 {
			return v, n
		}
	}
	return 0, 0
}

// line returns file and line of the instruction at addr in f.
func (t *goTable) line(f *goFunc, addr uint64) (file string, line int) {
	n := t.pcValue(f.pcln, f, addr)
	if n < 0 {
		return "", 0
	}
	return t.file(f.cuOffset, t.pcValue(f.pcfile, f, addr)), int(n)
}

// entryFile returns the source file of the function's first instruction.
func (t *goTable) entryFile(f *goFunc) string {
	file := int32(-1)
	t.eachPCValue(f.pcfile, f, func(_, _ uint64, v int32) bool {
		file = v
		return false
	})
	return t.file(f.cuOffset, file)
}
