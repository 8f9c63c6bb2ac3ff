package symbolizer

import (
	"cmp"
	"compress/zlib"
	"debug/dwarf"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
)

// Limits on DWARF: the sections are held in memory as long as the Binary is
// open, what is decoded from them only as long as these allow.
const (
	maxDWARF     = 768 << 20 // bytes of all sections, inflated
	maxUnits     = 1 << 20
	maxCURanges  = 8 << 20
	maxLineRows  = 4 << 20 // rows of decoded line tables kept, 24 bytes each
	maxTreeNodes = 1 << 20 // nodes of decoded inline trees kept
)

// dwarfIndex finds compilation units by address and decodes their tables when
// they are first needed.
type dwarfIndex struct {
	data  *dwarf.Data
	units []dwarfUnit
	spans []unitSpan // sorted by start

	// What several debug files share (DWARF 5 calls it supplementary, dwz wrote it
	// first); nil if nothing is shared. It has strings and names, no units.
	shared  *dwarfIndex
	strings string // .debug_str, set for the shared file only

	mu    sync.Mutex // guards what follows
	lines unitCache[*lineTable]
	trees unitCache[*inlineTree]
	names map[dwarf.Offset]string
}

// dwarfUnit is one compilation unit.
type dwarfUnit struct {
	root  dwarf.Offset // offset of its first entry
	entry *dwarf.Entry
}

// unitSpan is one address range of a unit.
type unitSpan struct {
	start, end uint64
	unit       int32
}

// dwarfInfo loads the DWARF data of the binary or of its separate debug file;
// nil without error if neither has any.
func (b *Binary) dwarfInfo() (*dwarfIndex, error) {
	b.dwarfOnce.Do(func() {
		b.dwarf, b.dwarfErr = b.loadDWARF()
		if b.dwarf == nil && b.dwarfErr == nil {
			if d := b.debugFile(); d != nil {
				b.dwarf, b.dwarfErr = d.loadDWARF()
			}
		}
	})
	return b.dwarf, b.dwarfErr
}

func (b *Binary) loadDWARF() (idx *dwarfIndex, err error) {
	defer guard(&err, b.Path+": DWARF")
	sections, err := b.dwarfSections()
	if err != nil || sections["info"] == nil || sections["abbrev"] == nil {
		return nil, err
	}
	idx, err = newDWARFIndex(sections)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Path, err)
	}
	idx.shared = b.loadSharedDWARF()
	for _, root := range unitRoots(sections["info"], b.byteOrder()) {
		if err := idx.addUnit(root); err != nil {
			return nil, fmt.Errorf("%s: DWARF unit at %#x: %w", b.Path, root, err)
		}
	}
	slices.SortFunc(idx.spans, func(a, b unitSpan) int { return cmp.Compare(a.start, b.start) })
	return idx, nil
}

func newDWARFIndex(sections map[string][]byte) (*dwarfIndex, error) {
	data, err := dwarf.New(sections["abbrev"], nil, nil, sections["info"], sections["line"], nil, sections["ranges"], sections["str"])
	if err != nil {
		return nil, fmt.Errorf("DWARF: %w: %w", ErrMalformed, err)
	}
	for _, name := range []string{"addr", "line_str", "rnglists", "str_offsets"} {
		if err := data.AddSection(".debug_"+name, sections[name]); err != nil {
			return nil, fmt.Errorf("DWARF: %w: %w", ErrMalformed, err)
		}
	}
	idx := &dwarfIndex{data: data, names: make(map[dwarf.Offset]string)}
	idx.lines.limit, idx.trees.limit = maxLineRows, maxTreeNodes
	return idx, nil
}

// loadSharedDWARF loads the file that .gnu_debugaltlink names: Debian's debug
// packages move there what their programs have in common. Without it some names
// of inlined functions are missing, nothing else.
func (b *Binary) loadSharedDWARF() *dwarfIndex {
	link := b.section(".gnu_debugaltlink")
	if link == nil {
		return nil
	}
	data, err := b.sectionData(link, 64<<10)
	if err != nil {
		return nil
	}
	name, id, ok := strings.Cut(string(data), "\x00")
	if !ok || name == "" || len(id) < 2 {
		return nil
	}
	want := hex.EncodeToString([]byte(id))
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(b.Path), name)
	}
	candidates := []string{name}
	dirs := b.debugDirs()
	if s := debugSearch.Load(); s != nil {
		dirs = append(slices.Clone(s.Dirs), dirs...)
	}
	for _, dir := range dirs {
		candidates = append(candidates, filepath.Join(dir, ".build-id", want[:2], want[2:]+".debug"))
	}
	for _, path := range candidates {
		f, err := Options{NoDebugFiles: true}.Open(path)
		if err != nil {
			continue
		}
		defer f.close()
		if f.BuildID != want {
			continue
		}
		sections, err := f.dwarfSections()
		if err != nil {
			continue
		}
		if idx, err := newDWARFIndex(sections); err == nil {
			idx.strings = string(sections["str"])
			return idx
		}
	}
	return nil
}

// str returns a string attribute, which may be in the shared file.
func (idx *dwarfIndex) str(e *dwarf.Entry, attr dwarf.Attr) string {
	field := e.AttrField(attr)
	if field == nil {
		return ""
	}
	switch v := field.Val.(type) {
	case string:
		return v
	case int64:
		if field.Class == dwarf.ClassStringAlt && idx.shared != nil {
			return cString(idx.shared.strings, uint64(v))
		}
	}
	return ""
}

// dwarfSections reads the sections that lines and inlining need, by the part of
// their name after ".debug_".
func (b *Binary) dwarfSections() (map[string][]byte, error) {
	out := make(map[string][]byte)
	left := uint64(maxDWARF)
	for _, s := range b.file.Sections {
		name, old := strings.CutPrefix(s.Name, ".zdebug_")
		if !old {
			var ok bool
			if name, ok = strings.CutPrefix(s.Name, ".debug_"); !ok {
				continue
			}
		}
		switch name {
		case "abbrev", "info", "line", "ranges", "str", "addr", "line_str", "rnglists", "str_offsets":
		default:
			continue
		}
		if out[name] != nil {
			continue
		}
		data, err := b.sectionData(s, left)
		if err == nil && old {
			data, err = inflateOld(data, left)
		}
		if err != nil {
			return nil, err
		}
		left -= uint64(len(data))
		out[name] = data
	}
	return out, nil
}

// inflateOld unpacks a .zdebug_ section: "ZLIB", the size as eight big-endian
// bytes, a zlib stream.
func inflateOld(data []byte, limit uint64) ([]byte, error) {
	if len(data) < 12 || string(data[:4]) != "ZLIB" {
		return nil, fmt.Errorf("compressed debug section: %w", ErrMalformed)
	}
	size := binary.BigEndian.Uint64(data[4:])
	if size > limit {
		return nil, fmt.Errorf("compressed debug section of %d bytes: %w", size, ErrTooLarge)
	}
	r, err := zlib.NewReader(strings.NewReader(string(data[12:])))
	if err != nil {
		return nil, fmt.Errorf("compressed debug section: %w: %w", ErrMalformed, err)
	}
	return readBounded(r, size, "compressed debug section")
}

// unitRoots walks the unit headers of .debug_info and returns the offsets of the
// first entry of each unit that can have code. Walking the entries themselves
// would decode all of the section.
func unitRoots(info []byte, order binary.ByteOrder) []dwarf.Offset {
	const typeUnit, splitType = 0x02, 0x06 // DW_UT_type, DW_UT_split_type
	const skeleton, splitCompile = 0x04, 0x05
	var roots []dwarf.Offset
	for at := 0; len(info)-at >= 12 && len(roots) < maxUnits; {
		length, offsetSize, body := uint64(order.Uint32(info[at:])), 4, at+4
		if length == 0xffffffff {
			length, offsetSize, body = order.Uint64(info[at+4:]), 8, at+12
		}
		if length > uint64(len(info)-body) || length < 4 {
			break
		}
		end := body + int(length)
		version, root := order.Uint16(info[body:]), 0
		kind := byte(0)
		if version >= 5 {
			kind = info[body+2]
			root = body + 4 + offsetSize // version, kind, address size, abbreviations
			switch kind {
			case skeleton, splitCompile:
				root += 8
			}
		} else {
			root = body + 2 + offsetSize + 1
		}
		if root < end && kind != typeUnit && kind != splitType {
			roots = append(roots, dwarf.Offset(root))
		}
		at = end
	}
	return roots
}

func (idx *dwarfIndex) addUnit(root dwarf.Offset) error {
	r := idx.data.Reader()
	r.Seek(root)
	e, err := r.Next()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if e == nil || e.Tag != dwarf.TagCompileUnit && e.Tag != dwarf.TagSkeletonUnit {
		return nil
	}
	ranges, err := idx.data.Ranges(e)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(idx.spans)+len(ranges) > maxCURanges {
		return fmt.Errorf("address ranges: %w", ErrTooLarge)
	}
	unit := int32(len(idx.units))
	idx.units = append(idx.units, dwarfUnit{root: root, entry: e})
	for _, span := range ranges {
		// Discarded functions are left at address 0.
		if span[0] != 0 && span[1] > span[0] {
			idx.spans = append(idx.spans, unitSpan{span[0], span[1], unit})
		}
	}
	return nil
}

// unitAt returns the unit that has addr.
func (idx *dwarfIndex) unitAt(addr uint64) (unit int32, ok bool) {
	i := sort.Search(len(idx.spans), func(i int) bool { return idx.spans[i].start > addr }) - 1
	for back := 0; i >= 0 && back < 4; i, back = i-1, back+1 {
		if addr < idx.spans[i].end {
			return idx.spans[i].unit, true
		}
	}
	return 0, false
}

// unitCache keeps decoded tables until their total cost passes the limit; then
// it starts over, which suits stacks: they come from few units at a time.
type unitCache[T any] struct {
	limit int
	cost  int
	items map[int32]T
}

func (c *unitCache[T]) get(unit int32, load func() (item T, cost int)) T {
	if item, ok := c.items[unit]; ok {
		return item
	}
	item, cost := load()
	if c.items == nil || c.cost+cost > c.limit {
		c.items, c.cost = make(map[int32]T), 0
	}
	c.items[unit] = item
	c.cost += cost
	return item
}

// lineTable is the decoded line program of a unit.
type lineTable struct {
	rows  []lineRow // sorted by address
	files []string
}

type lineRow struct {
	addr uint64
	file int32
	line int32
	end  bool // the address after a sequence
}

func (t *lineTable) lookup(addr uint64) (file string, line int) {
	i := sort.Search(len(t.rows), func(i int) bool { return t.rows[i].addr > addr }) - 1
	if i < 0 || t.rows[i].end {
		return "", 0
	}
	return t.files[t.rows[i].file], int(t.rows[i].line)
}

// line returns file and line of addr.
func (idx *dwarfIndex) line(addr uint64) (file string, line int) {
	unit, ok := idx.unitAt(addr)
	if !ok {
		return "", 0
	}
	idx.mu.Lock()
	defer idx.mu.Unlock()
	return idx.lineTable(unit).lookup(addr)
}

// lineTable decodes the line program of a unit. One that is malformed ends where
// the fault is.
func (idx *dwarfIndex) lineTable(unit int32) *lineTable {
	return idx.lines.get(unit, func() (*lineTable, int) {
		t := &lineTable{}
		t.decode(idx, idx.units[unit].entry)
		return t, len(t.rows) + len(t.files)
	})
}

func (t *lineTable) decode(idx *dwarfIndex, unit *dwarf.Entry) {
	var err error
	defer guard(&err, "line table")
	r, err := idx.data.LineReader(unit)
	if err != nil || r == nil {
		return
	}
	numbers := make(map[*dwarf.LineFile]int32)
	for {
		var row dwarf.LineEntry
		if err := r.Next(&row); err != nil {
			break // io.EOF, or the fault
		}
		number, ok := numbers[row.File]
		if !ok {
			name := ""
			if row.File != nil {
				name = idx.absolute(unit, row.File.Name)
			}
			number = int32(len(t.files))
			t.files = append(t.files, name)
			numbers[row.File] = number
		}
		if len(t.rows) >= maxLineRows {
			break
		}
		t.rows = append(t.rows, lineRow{row.Address, number, int32(row.Line), row.EndSequence})
	}
	slices.SortStableFunc(t.rows, func(a, b lineRow) int {
		if c := cmp.Compare(a.addr, b.addr); c != 0 {
			return c
		}
		// A sequence may start where another one ends.
		switch {
		case a.end && !b.end:
			return -1
		case b.end && !a.end:
			return 1
		}
		return 0
	})
}

// absolute joins a relative file name with the directory that the compiler ran
// in. DWARF 5 leaves that to the reader.
func (idx *dwarfIndex) absolute(unit *dwarf.Entry, name string) string {
	dir := idx.str(unit, dwarf.AttrCompDir)
	// Reproducible builds record a relative directory, which debug/dwarf has
	// joined or not, depending on the version.
	if name == "" || filepath.IsAbs(name) || !filepath.IsAbs(dir) {
		return name
	}
	return filepath.Join(dir, name)
}

// Line returns source file and line of the instruction at a virtual address, as
// far as the Go function table or DWARF have it; "" and 0 elsewhere.
func (b *Binary) Line(addr uint64) (file string, line int) {
	if t, _ := b.gopclntab(); t != nil {
		if f, ok := t.find(addr); ok {
			return t.line(&f, addr)
		}
	}
	idx, _ := b.dwarfInfo()
	if idx == nil {
		return "", 0
	}
	var err error
	defer guard(&err, "line")
	return idx.line(addr)
}

// LineInfo reports whether Line and Inlines have something to work with, and why
// not: an error wrapping ErrMalformed or ErrTooLarge, or ErrNoDebugInfo.
func (b *Binary) LineInfo() error {
	if t, err := b.gopclntab(); t != nil {
		return err
	}
	idx, err := b.dwarfInfo()
	if err == nil && idx == nil {
		err = fmt.Errorf("%s: %w", b.Path, ErrNoDebugInfo)
	}
	return err
}
