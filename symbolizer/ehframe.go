package symbolizer

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
)

// CIE is a common information entry of .eh_frame: what several functions'
// unwind rules share. The format is that of the Linux Standard Base, "Exception
// Frames", and DWARF 5, section 6.4.
type CIE struct {
	Augmentation string
	CodeAlign    uint64 // factor of advances in the instructions
	DataAlign    int64  // factor of offsets in the instructions
	ReturnReg    uint64 // DWARF number of the return address's column
	Personality  uint64 // address of the personality routine or of its pointer; 0 for none
	SignalFrame  bool   // the frame of a signal handler's trampoline
	Instructions []byte // initial instructions; aliases the section

	order      binary.ByteOrder
	pointerEnc byte // encoding of the FDE's addresses
	lsdaEnc    byte // encoding of the LSDA pointer
	sized      bool // augmentation data has a length ('z')
}

// FDE is a frame description entry of .eh_frame: the address range of one piece
// of code and its unwind rules. Compilers write one for every function, named
// or not, and one more for each of its cold parts.
type FDE struct {
	Start        uint64 // virtual address of the first byte
	Size         uint64 // bytes
	LSDA         uint64 // address of the language-specific data (exception table); 0 for none
	CIE          *CIE
	Instructions []byte // unwind instructions; aliases the section
}

// Pointer encodings (DW_EH_PE_*).
const (
	peOmit     = 0xff
	peIndirect = 0x80

	peAbsptr  = 0x00
	peUleb    = 0x01
	peUdata2  = 0x02
	peUdata4  = 0x03
	peUdata8  = 0x04
	peSleb    = 0x09
	peSdata2  = 0x0a
	peSdata4  = 0x0b
	peSdata8  = 0x0c
	peFormat  = 0x0f
	pePcrel   = 0x10
	peTextrel = 0x20
	peDatarel = 0x30
	peFuncrel = 0x40
	peAligned = 0x50
	peBase    = 0x70
)

// EHFrameLayout says how the bytes of an .eh_frame section are to be read.
type EHFrameLayout struct {
	Addr        uint64 // virtual address of the section
	Order       binary.ByteOrder
	PointerSize int    // 4 or 8
	TextBase    uint64 // base of text-relative pointers (unused on x86-64 and arm64)
	DataBase    uint64 // base of data-relative pointers: the global offset table
}

// maxFDEs bounds the entries of one section; Chromium has 600,000.
const maxFDEs = 4 << 20

// ParseEHFrame decodes the entries of an .eh_frame section in file order. If
// the section is malformed it returns the entries before the fault and an error
// wrapping ErrMalformed. The result aliases data.
func ParseEHFrame(data []byte, layout EHFrameLayout) ([]FDE, error) {
	p := &ehParser{data: data, layout: layout}
	if err := p.parse(); err != nil {
		return p.fdes, fmt.Errorf("eh_frame %w", err)
	}
	return p.fdes, nil
}

// ParseDebugFrame is ParseEHFrame for a .debug_frame section, which debuggers
// read and programs do not: DWARF 5, section 6.4.1. Of the layout only the byte
// order and the size of pointers matter.
func ParseDebugFrame(data []byte, layout EHFrameLayout) ([]FDE, error) {
	p := &ehParser{data: data, layout: layout, debug: true}
	if err := p.parse(); err != nil {
		return p.fdes, fmt.Errorf("debug_frame %w", err)
	}
	return p.fdes, nil
}

// parse decodes all entries.
func (p *ehParser) parse() error {
	data := p.data
	if size := p.layout.PointerSize; size != 4 && size != 8 || p.layout.Order == nil {
		return fmt.Errorf("pointers of %d bytes: %w", size, ErrMalformed)
	}
	p.cies = make(map[int]*CIE)
	// A function's FDE takes 24 bytes at least.
	p.fdes = make([]FDE, 0, min(len(data)/40+1, maxFDEs))
	for at := 0; at < len(data); {
		next, err := p.entry(at)
		if err != nil {
			return fmt.Errorf("entry at %#x: %w", at, err)
		}
		if next == 0 {
			break
		}
		at = next
	}
	return nil
}

type ehParser struct {
	data   []byte
	layout EHFrameLayout
	debug  bool         // .debug_frame
	cies   map[int]*CIE // by offset of the entry
	fdes   []FDE
}

// ehEntry is the frame around a CIE or FDE.
type ehEntry struct {
	body int // offset of the bytes after the id field
	end  int
	id   int // 0 for a CIE; for an FDE the offset of its CIE's entry
	cie  bool
}

// header decodes length and id of the entry at offset at. A length of zero is
// the terminator: the end is 0 then.
func (p *ehParser) header(at int) (ehEntry, error) {
	order := p.layout.Order
	rest := p.data[at:]
	if len(rest) < 4 {
		return ehEntry{}, fmt.Errorf("%w: truncated length", ErrMalformed)
	}
	length, field := uint64(order.Uint32(rest)), 4
	if length == 0 {
		return ehEntry{}, nil
	}
	wide := length == 0xffffffff
	if wide {
		if len(rest) < 12 {
			return ehEntry{}, fmt.Errorf("%w: truncated length", ErrMalformed)
		}
		length, field = order.Uint64(rest[4:]), 12
	}
	if length < 4 || length > uint64(len(rest)-field) {
		return ehEntry{}, fmt.Errorf("%w: length %d", ErrMalformed, length)
	}
	idAt := at + field
	if p.debug {
		return p.debugHeader(idAt, idAt+int(length), wide)
	}
	e := ehEntry{body: idAt + 4, end: idAt + int(length)}
	id := order.Uint32(p.data[idAt:])
	if id == 0 {
		e.cie = true
		return e, nil
	}
	// An FDE's id is the distance from the id field back to its CIE.
	if uint64(id) > uint64(idAt) {
		return ehEntry{}, fmt.Errorf("%w: CIE before the section", ErrMalformed)
	}
	e.id = idAt - int(id)
	return e, nil
}

// debugHeader decodes the id of an entry of .debug_frame, the offset of a CIE or
// all ones. It is as wide as the length before it.
func (p *ehParser) debugHeader(idAt, end int, wide bool) (ehEntry, error) {
	e := ehEntry{body: idAt + 4, end: end}
	id, none := uint64(p.layout.Order.Uint32(p.data[idAt:])), uint64(0xffffffff)
	if wide {
		if end-idAt < 8 {
			return ehEntry{}, fmt.Errorf("%w: truncated id", ErrMalformed)
		}
		e.body = idAt + 8
		id, none = p.layout.Order.Uint64(p.data[idAt:]), ^uint64(0)
	}
	if id == none {
		e.cie = true
		return e, nil
	}
	if id >= uint64(len(p.data)) {
		return ehEntry{}, fmt.Errorf("%w: CIE beyond the section", ErrMalformed)
	}
	e.id = int(id)
	return e, nil
}

// entry decodes the entry at offset at and returns the offset of the next, 0 at
// the terminator.
func (p *ehParser) entry(at int) (next int, err error) {
	e, err := p.header(at)
	if err != nil || e.end == 0 {
		return 0, err
	}
	if e.cie {
		_, err := p.cie(at)
		return e.end, err
	}
	cie, err := p.cie(e.id)
	if err != nil {
		return 0, fmt.Errorf("CIE at %#x: %w", e.id, err)
	}
	if len(p.fdes) >= maxFDEs {
		return 0, ErrTooLarge
	}
	c := p.cursor(e.body, e.end)
	fde := FDE{CIE: cie}
	fde.Start = c.pointer(cie.pointerEnc, 0)
	fde.Size = c.pointer(cie.pointerEnc&peFormat, 0)
	if cie.sized {
		n := c.uleb()
		aug := c.take(n)
		if cie.lsdaEnc != peOmit && c.err == nil {
			fde.LSDA = aug.pointer(cie.lsdaEnc, fde.Start)
			c.err = aug.err
		}
	}
	fde.Instructions = c.rest()
	if c.err != nil {
		return 0, c.err
	}
	// Linkers leave entries of discarded functions behind, at address 0.
	if fde.Size != 0 && fde.Start != 0 && fde.Start+fde.Size > fde.Start {
		p.fdes = append(p.fdes, fde)
	}
	return e.end, nil
}

// cie decodes the CIE at offset at, once.
func (p *ehParser) cie(at int) (*CIE, error) {
	if cie := p.cies[at]; cie != nil {
		return cie, nil
	}
	e, err := p.header(at)
	if err != nil {
		return nil, err
	}
	if e.end == 0 || !e.cie {
		return nil, fmt.Errorf("%w: not a CIE", ErrMalformed)
	}
	c := p.cursor(e.body, e.end)
	version := c.u8()
	if c.err == nil && version != 1 && version != 3 && (version != 4 || !p.debug) {
		return nil, fmt.Errorf("%w: CIE version %d", ErrMalformed, version)
	}
	cie := &CIE{Augmentation: c.str(), lsdaEnc: peOmit, order: p.layout.Order}
	if version == 4 {
		if size, segment := c.u8(), c.u8(); c.err == nil && (int(size) != p.layout.PointerSize || segment != 0) {
			return nil, fmt.Errorf("%w: addresses of %d+%d bytes", ErrMalformed, segment, size)
		}
	}
	if cie.Augmentation == "eh" {
		c.take(uint64(p.layout.PointerSize)) // gcc 2's exception table
	}
	cie.CodeAlign = c.uleb()
	cie.DataAlign = c.sleb()
	if version == 1 {
		cie.ReturnReg = uint64(c.u8())
	} else {
		cie.ReturnReg = c.uleb()
	}
	if cie.Augmentation != "" && cie.Augmentation[0] == 'z' {
		cie.sized = true
		n := c.uleb()
		aug := c.take(n)
		p.augmentation(cie, &aug)
		if c.err == nil {
			c.err = aug.err
		}
	} else if cie.Augmentation != "" && cie.Augmentation != "eh" {
		return nil, fmt.Errorf("%w: augmentation %.20q", ErrMalformed, cie.Augmentation)
	}
	cie.Instructions = c.rest()
	if c.err != nil {
		return nil, c.err
	}
	p.cies[at] = cie
	return cie, nil
}

// augmentation decodes the augmentation data of a CIE. Letters after an unknown
// one cannot be located; as the data has a length, the rest is still usable.
func (p *ehParser) augmentation(cie *CIE, c *ehCursor) {
	for _, letter := range cie.Augmentation[1:] {
		switch letter {
		case 'R':
			cie.pointerEnc = c.u8()
		case 'L':
			cie.lsdaEnc = c.u8()
		case 'P':
			enc := c.u8()
			cie.Personality = c.pointer(enc, 0)
		case 'S':
			cie.SignalFrame = true
		case 'B', 'G': // arm64: return addresses signed with the B key; tagged frames
		default:
			return
		}
	}
}

// Frames returns the entries of the file's .eh_frame in file order. A malformed
// section yields the entries before the fault and an error wrapping
// ErrMalformed. Files without the section have none.
func (b *Binary) Frames() ([]FDE, error) {
	b.frameOnce.Do(func() { b.frames, b.framesErr = b.readFrames() })
	return b.frames, b.framesErr
}

func (b *Binary) readFrames() ([]FDE, error) {
	layout := EHFrameLayout{Order: b.byteOrder(), PointerSize: int(b.pointerSize())}
	if got := b.section(".got"); got != nil {
		layout.DataBase = got.Addr
	}
	if text := b.section(".text"); text != nil {
		layout.TextBase = text.Addr
	}
	var data []byte
	var err error
	if s := b.section(".eh_frame"); s != nil {
		layout.Addr = s.Addr
		data, err = b.sectionData(s, maxSymbolSection)
	} else {
		layout.Addr, data, err = b.framesByHeader()
	}
	if err != nil || len(data) == 0 {
		return nil, err
	}
	frames, err := ParseEHFrame(data, layout)
	if err != nil {
		err = fmt.Errorf("%s: %w", b.Path, err)
	}
	return frames, err
}

// framesByHeader finds .eh_frame through PT_GNU_EH_FRAME, for files whose
// section headers are stripped. The data may run past the section; the
// terminator ends it.
func (b *Binary) framesByHeader() (addr uint64, data []byte, err error) {
	if len(b.file.Sections) > 0 {
		return 0, nil, nil
	}
	for _, p := range b.file.Progs {
		if p.Type != elf.PT_GNU_EH_FRAME || p.Filesz < 4 {
			continue
		}
		head := make([]byte, min(p.Filesz, 32))
		if err := b.readAddr(head, p.Vaddr); err != nil {
			return 0, nil, err
		}
		// Version, then the encodings of eh_frame's pointer, of the count, of the table.
		if head[0] != 1 {
			return 0, nil, fmt.Errorf("%s: eh_frame_hdr version %d: %w", b.Path, head[0], ErrMalformed)
		}
		parser := &ehParser{data: head, layout: EHFrameLayout{
			Addr: p.Vaddr, Order: b.byteOrder(), PointerSize: int(b.pointerSize()), DataBase: p.Vaddr,
		}}
		c := parser.cursor(4, len(head))
		addr = c.pointer(head[1], 0)
		if c.err != nil {
			return 0, nil, fmt.Errorf("%s: eh_frame_hdr: %w", b.Path, c.err)
		}
		data, err = b.segmentFrom(addr, maxSymbolSection)
		return addr, data, err
	}
	return 0, nil, nil
}
