package symbolizer

// Indices of Go's pcdata and funcdata tables (internal/abi/symtab.go).
const (
	pcdataInlTreeIndex = 2
	funcdataInlTree    = 3
)

// goInlined is one entry of a function's inline tree (runtime.inlinedCall).
type goInlined struct {
	nameOff  uint32
	parentPC uint32 // offset of an instruction that stands for the call in the caller
}

// inlineTree returns the entries of the function's inline tree. Its length is
// not stored: it is the largest index in the pcdata table plus one.
func (t *goTable) inlineEntry(f *goFunc, index int32) (e goInlined, ok bool) {
	if index < 0 || f.nfuncdata <= funcdataInlTree || t.inline == nil {
		return e, false
	}
	off := t.order.Uint32(f.tail[(int(f.npcdata)+funcdataInlTree)*4:])
	if off == ^uint32(0) {
		return e, false
	}
	// Go 1.20: function id and padding, name, parent's pc, start line. Before:
	// parent (2 bytes), function id, padding, file, line, name, parent's pc.
	size, nameAt, parentAt := uint64(16), uint64(4), uint64(8)
	if !t.go120 {
		size, nameAt, parentAt = 20, 12, 16
	}
	at := uint64(off) + uint64(index)*size
	if at+size > uint64(len(t.inline)) {
		return e, false
	}
	row := t.inline[at:]
	return goInlined{t.order.Uint32(row[nameAt:]), t.order.Uint32(row[parentAt:])}, true
}

// inlineTable is the offset of the function's table of inline tree indices.
func (t *goTable) inlineTable(f *goFunc) uint32 {
	if f.npcdata <= pcdataInlTreeIndex {
		return 0
	}
	return t.order.Uint32(f.tail[pcdataInlTreeIndex*4:])
}

// maxInlineDepth bounds the frames at one instruction.
const maxInlineDepth = 64

// frames returns the frames at addr in f, innermost first.
func (t *goTable) frames(f *goFunc, addr uint64) []Frame {
	var frames []Frame
	table := t.inlineTable(f)
	for range maxInlineDepth {
		e, ok := t.inlineEntry(f, t.pcValue(table, f, addr))
		if !ok {
			break
		}
		file, line := t.line(f, addr)
		frames = append(frames, Frame{Function: goName(t.name(e.nameOff)), File: file, Line: line, Inlined: true})
		addr = f.entry + uint64(e.parentPC)
		if addr >= f.end {
			break
		}
	}
	file, line := t.line(f, addr)
	return append(frames, Frame{Function: goName(t.name(f.nameOff)), File: file, Line: line})
}

// inlinedAt lists the inlined calls of functions that match accepts.
func (t *goTable) inlinedAt(match func(string) bool) []InlineSite {
	var sites []InlineSite
	wanted := make(map[uint32]bool) // by name offset
	for i := range t.nfunc {
		f, ok := t.function(i)
		if !ok {
			continue
		}
		seen := make(map[int32]bool)
		t.eachPCValue(t.inlineTable(&f), &f, func(start, _ uint64, index int32) bool {
			// The runs name the innermost calls; their callers follow from them.
			at := start
			for depth := 0; index >= 0 && !seen[index] && depth < maxInlineDepth; depth++ {
				seen[index] = true
				e, ok := t.inlineEntry(&f, index)
				if !ok {
					break
				}
				parent := f.entry + uint64(e.parentPC)
				want, known := wanted[e.nameOff]
				if !known {
					name := goName(t.name(e.nameOff))
					want = name != "" && match(name)
					wanted[e.nameOff] = want
				}
				if want && parent < f.end {
					outer := t.frames(&f, parent)
					sites = append(sites, InlineSite{
						Function: goName(t.name(e.nameOff)),
						Caller:   outer[0].Function,
						File:     outer[0].File,
						Line:     outer[0].Line,
						Addr:     at,
					})
				}
				if parent >= f.end {
					break
				}
				at, index = parent, t.pcValue(t.inlineTable(&f), &f, parent)
			}
			return len(sites) < maxInlineSites
		})
		if len(sites) >= maxInlineSites {
			break
		}
	}
	return sites
}
