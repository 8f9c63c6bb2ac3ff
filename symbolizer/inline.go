package symbolizer

import (
	"debug/dwarf"
	"fmt"
	"slices"
	"sort"
	"sync"
)

// Frame is one source-level function at an instruction.
type Frame struct {
	Function string // readable name; empty if unknown
	File     string // source file, empty if unknown
	Line     int    // the line executing in this frame, 0 if unknown
	Inlined  bool   // compiled into the frame that follows
}

// InlineSite is one place where a function was compiled into another one.
type InlineSite struct {
	Function string // readable name of the inlined function
	Caller   string // the function it was inlined into, by source (itself perhaps inlined)
	File     string // where the call stands in the source; empty if unknown
	Line     int    // 0 if unknown
	Addr     uint64 // virtual address of an instruction of the inlined code, the first where DWARF says it
}

// maxInlineSites bounds what InlinedAt returns.
const maxInlineSites = 1 << 16

// Inlines returns the source-level frames at a virtual address, innermost first:
// the functions inlined there and last the function whose code it is. It is
// empty where no function has the address. Answers are kept for the addresses
// that come again; the slice is shared: do not change it.
func (b *Binary) Inlines(addr uint64) []Frame {
	return b.frameCache.get(addr, b.inlines)
}

func (b *Binary) inlines(addr uint64) []Frame {
	if t, _ := b.gopclntab(); t != nil {
		if f, ok := t.find(addr); ok {
			return t.frames(&f, addr)
		}
	}
	var frames []Frame
	file, line := b.Line(addr)
	if idx, _ := b.dwarfInfo(); idx != nil {
		frames, file, line = idx.inlined(addr, file, line)
	}
	fn, _ := b.Lookup(addr)
	switch {
	case fn != nil:
		frames = append(frames, Frame{Function: fn.Name, File: file, Line: line})
	case file != "" || len(frames) > 0:
		frames = append(frames, Frame{File: file, Line: line})
	}
	return frames
}

// maxFrameCache bounds the addresses of one file whose frames are kept.
const maxFrameCache = 1 << 17

// frameCache keeps the frames of addresses.
type frameCache struct {
	mu    sync.Mutex
	known map[uint64][]Frame
}

func (c *frameCache) get(addr uint64, find func(uint64) []Frame) []Frame {
	c.mu.Lock()
	frames, ok := c.known[addr]
	c.mu.Unlock()
	if ok {
		return frames
	}
	frames = find(addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxFrameCache {
		c.known = make(map[uint64][]Frame)
	}
	c.known[addr] = frames
	return frames
}

// InlinedAt returns where functions whose readable name match accepts were
// inlined, in address order, at most 65,536 places. It decodes all debug
// information once, which takes seconds for very large programs. A function that
// is found here and not by Functions exists only inlined.
func (b *Binary) InlinedAt(match func(name string) bool) ([]InlineSite, error) {
	var sites []InlineSite
	t, goErr := b.gopclntab()
	if t != nil {
		sites = t.inlinedAt(match)
	}
	// With cgo there is C code beside the Go code; a program of Go alone has
	// nothing more in DWARF.
	if t == nil || b.section(".eh_frame") != nil {
		idx, err := b.dwarfInfo()
		if err != nil {
			return sites, err
		}
		if idx != nil {
			more, err := idx.inlinedAt(match, t)
			sites = append(sites, more...)
			if err != nil {
				return sites, fmt.Errorf("%s: %w", b.Path, err)
			}
		}
	}
	slices.SortStableFunc(sites, func(a, b InlineSite) int {
		if a.Addr < b.Addr {
			return -1
		} else if a.Addr > b.Addr {
			return 1
		}
		return 0
	})
	return sites, goErr
}

// inlineTree holds the functions of a unit and what was inlined into them.
type inlineTree struct {
	nodes []inlineNode // functions and inlined calls, parents before children
	roots []rootSpan   // sorted by start
	files []string     // what call sites refer to by number
}

// inlineNode is a function or an inlined call.
type inlineNode struct {
	origin   dwarf.Offset // the entry that has the name
	parent   int32        // index of the enclosing node, -1 for a function
	next     int32        // index after the last node below this one
	callFile int32        // number in the unit's file table, 0 unknown
	callLine int32
	ranges   [][2]uint64
}

type rootSpan struct {
	start, end uint64
	node       int32
}

// inlined returns the frames inlined at addr, innermost first, and the place in
// the enclosing function from which the outermost of them is called. file and
// line are those of the instruction.
func (idx *dwarfIndex) inlined(addr uint64, file string, line int) (frames []Frame, callFile string, callLine int) {
	var err error
	defer guard(&err, "inlined functions")
	unit, ok := idx.unitAt(addr)
	if !ok {
		return nil, file, line
	}
	idx.mu.Lock()
	defer idx.mu.Unlock()
	tree := idx.tree(unit)
	chain := tree.chain(addr)
	for i := len(chain) - 1; i >= 0; i-- {
		n := &tree.nodes[chain[i]]
		frames = append(frames, Frame{Function: idx.name(n.origin, 0), File: file, Line: line, Inlined: true})
		file, line = fileName(tree.files, n.callFile), int(n.callLine)
	}
	return frames, file, line
}

// chain returns the inlined calls that enclose addr, outermost first.
func (t *inlineTree) chain(addr uint64) []int32 {
	i := sort.Search(len(t.roots), func(i int) bool { return t.roots[i].start > addr }) - 1
	if i < 0 || addr >= t.roots[i].end {
		return nil
	}
	var chain []int32
	root := t.roots[i].node
	for at, end := root+1, t.nodes[root].next; at < end; {
		if t.nodes[at].has(addr) {
			chain = append(chain, at)
			end = t.nodes[at].next
			at++
			continue
		}
		at = t.nodes[at].next
	}
	return chain
}

func (n *inlineNode) has(addr uint64) bool {
	for _, r := range n.ranges {
		if addr >= r[0] && addr < r[1] {
			return true
		}
	}
	return false
}

func (idx *dwarfIndex) tree(unit int32) *inlineTree {
	return idx.trees.get(unit, func() (*inlineTree, int) {
		t := &inlineTree{files: idx.unitFiles(unit)}
		// A malformed unit keeps what comes before the fault.
		_ = idx.walk(unit, func(nodes []inlineNode) {
			base := int32(len(t.nodes))
			if len(t.nodes)+len(nodes) > maxTreeNodes {
				return
			}
			for i, n := range nodes {
				n.next += base
				if n.parent >= 0 {
					n.parent += base
				}
				if i == 0 {
					for _, r := range n.ranges {
						t.roots = append(t.roots, rootSpan{r[0], r[1], base})
					}
				}
				t.nodes = append(t.nodes, n)
			}
		})
		slices.SortFunc(t.roots, func(a, b rootSpan) int {
			if a.start < b.start {
				return -1
			} else if a.start > b.start {
				return 1
			}
			return 0
		})
		return t, len(t.nodes) + len(t.files)
	})
}

// walk decodes a unit and hands over every function with code: its node and
// those of the calls inlined into it. The slice is reused.
func (idx *dwarfIndex) walk(unit int32, visit func(nodes []inlineNode)) error {
	r := idx.data.Reader()
	r.Seek(idx.units[unit].root)
	root, err := r.Next()
	if err != nil || root == nil || !root.Children {
		return err
	}
	var nodes []inlineNode
	var open []int32 // for each level of entries, the node around it, or -1
	open = append(open, -1)
	for len(open) > 0 {
		e, err := r.Next()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if e == nil {
			break
		}
		if e.Tag == 0 { // end of a list of children
			open = open[:len(open)-1]
			if len(nodes) > 0 && len(open) > 0 && open[len(open)-1] == -1 {
				closeNodes(nodes)
				visit(nodes)
				nodes = nodes[:0]
			}
			continue
		}
		around := open[len(open)-1]
		node := around
		switch e.Tag {
		case dwarf.TagSubprogram:
			// A nested function (a lambda's body, GNU C) inside another one is its
			// own: it is visited when it stands at the outside, which compilers do.
			if around == -1 {
				if ranges, err := idx.data.Ranges(e); err == nil && len(ranges) > 0 {
					nodes = append(nodes, inlineNode{origin: e.Offset, parent: -1, ranges: ranges})
					node = int32(len(nodes) - 1)
				}
			}
		case dwarf.TagInlinedSubroutine:
			if around >= 0 && len(nodes) < maxTreeNodes {
				nodes = append(nodes, idx.inlinedNode(e, around))
				node = int32(len(nodes) - 1)
			}
		case dwarf.TagLexDwarfBlock, dwarf.TagNamespace, dwarf.TagClassType, dwarf.TagStructType, dwarf.TagModule:
			// May contain functions or inlined calls.
		default:
			if e.Children && around == -1 {
				r.SkipChildren()
				continue
			}
		}
		switch {
		case e.Children:
			open = append(open, node)
		case around == -1 && len(nodes) > 0: // a function without children
			closeNodes(nodes)
			visit(nodes)
			nodes = nodes[:0]
		}
	}
	return nil
}

// closeNodes fills next: children follow their parents directly.
func closeNodes(nodes []inlineNode) {
	for i := range nodes {
		nodes[i].next = int32(i) + 1
	}
	for i := len(nodes) - 1; i > 0; i-- {
		p := nodes[i].parent
		nodes[p].next = max(nodes[p].next, nodes[i].next)
	}
}

func (idx *dwarfIndex) inlinedNode(e *dwarf.Entry, parent int32) inlineNode {
	n := inlineNode{parent: parent, origin: e.Offset}
	n.ranges, _ = idx.data.Ranges(e)
	if v, ok := e.Val(dwarf.AttrCallFile).(int64); ok {
		n.callFile = int32(v)
	}
	if v, ok := e.Val(dwarf.AttrCallLine).(int64); ok {
		n.callLine = int32(v)
	}
	return n
}

// unitFiles returns the file table that call sites of a unit refer to.
func (idx *dwarfIndex) unitFiles(unit int32) []string {
	entry := idx.units[unit].entry
	r, err := idx.data.LineReader(entry)
	if err != nil || r == nil {
		return nil
	}
	files := make([]string, len(r.Files()))
	for i, f := range r.Files() {
		if f != nil {
			files[i] = idx.absolute(entry, f.Name)
		}
	}
	return files
}

func fileName(files []string, number int32) string {
	if number < 0 || int(number) >= len(files) {
		return ""
	}
	return files[number]
}

// maxNames bounds the cache of names by entry.
const maxNames = 1 << 18

// name returns the readable name of the function that the entry at off stands
// for, following its origins. idx.mu is held.
func (idx *dwarfIndex) name(off dwarf.Offset, depth int) string {
	const maxOrigins = 8
	if name, ok := idx.names[off]; ok || depth > maxOrigins {
		return name
	}
	r := idx.data.Reader()
	r.Seek(off)
	e, err := r.Next()
	if err != nil || e == nil {
		return ""
	}
	name := ""
	if linkage := idx.str(e, dwarf.AttrLinkageName); linkage != "" {
		name = Demangle(linkage)
	}
	for _, attr := range []dwarf.Attr{dwarf.AttrAbstractOrigin, dwarf.AttrSpecification} {
		origin := e.AttrField(attr)
		if origin == nil || name != "" {
			continue
		}
		switch at := origin.Val.(type) {
		case dwarf.Offset:
			name = idx.name(at, depth+1)
		case int64:
			if origin.Class == dwarf.ClassReferenceAlt && idx.shared != nil {
				name = idx.shared.name(dwarf.Offset(at), depth+1)
			}
		}
	}
	if name == "" {
		name = idx.str(e, dwarf.AttrName)
	}
	if len(idx.names) >= maxNames {
		clear(idx.names)
	}
	idx.names[off] = name
	return name
}

// inlinedAt searches all units for inlined calls of functions that match
// accepts, leaving out Go text, which t covers.
func (idx *dwarfIndex) inlinedAt(match func(string) bool, t *goTable) (sites []InlineSite, err error) {
	defer guard(&err, "inlined functions")
	idx.mu.Lock()
	defer idx.mu.Unlock()
	for unit := range idx.units {
		var files []string
		err := idx.walk(int32(unit), func(nodes []inlineNode) {
			if t != nil && len(nodes[0].ranges) > 0 {
				if _, isGo := t.find(nodes[0].ranges[0][0]); isGo {
					return
				}
			}
			for i := 1; i < len(nodes) && len(sites) < maxInlineSites; i++ {
				n := &nodes[i]
				name := idx.name(n.origin, 0)
				if name == "" || len(n.ranges) == 0 || !match(name) {
					continue
				}
				if files == nil {
					files = idx.unitFiles(int32(unit))
				}
				sites = append(sites, InlineSite{
					Function: name,
					Caller:   idx.name(nodes[n.parent].origin, 0),
					File:     fileName(files, n.callFile),
					Line:     int(n.callLine),
					Addr:     n.ranges[0][0],
				})
			}
		})
		if err != nil {
			return sites, fmt.Errorf("DWARF unit at %#x: %w", idx.units[unit].root, err)
		}
	}
	return sites, nil
}
