package recording

import (
	"encoding/binary"

	"github.com/sbxtrace/sbxtrace/trace"
)

// Process is what a recording knows of a process that it mentions.
type Process struct {
	PID     uint32   `json:"pid"`
	Parent  uint32   `json:"parent,omitempty"` // 0: unknown
	Exe     string   `json:"exe,omitempty"`    // path of its program
	BuildID string   `json:"build_id,omitempty"`
	Args    []string `json:"args,omitempty"` // command line
}

// Frame is what an address of a stack means.
type Frame struct {
	Text    string // as it is printed
	Func    string // function, empty if unknown
	Module  string // path of the mapped file, empty if there is none
	BuildID string
	Offset  uint64 // of the address in the file
	File    string // source
	Line    int
}

// Place is an address of a process.
type Place struct {
	PID  uint32
	Addr uint64
}

func appendFunc(dst []byte, f *trace.Func, s *stringTable) []byte {
	dst = binary.AppendUvarint(dst, uint64(f.ID))
	dst = binary.AppendUvarint(dst, s.add(f.Name))
	dst = binary.AppendUvarint(dst, s.add(f.Module))
	dst = binary.AppendUvarint(dst, s.add(f.Path))
	dst = binary.AppendUvarint(dst, s.add(f.BuildID))
	dst = binary.AppendUvarint(dst, f.Offset)
	dst = binary.AppendUvarint(dst, f.Size)
	dst = binary.AppendUvarint(dst, s.add(f.File))
	dst = binary.AppendUvarint(dst, uint64(max(f.Line, 0)))
	return binary.AppendUvarint(dst, s.add(f.Lang))
}

func parseFunctions(b []byte, strings []string) ([]trace.Func, error) {
	if len(b) == 0 {
		return nil, nil
	}
	c := cursor{b: b, what: "functions"}
	out := make([]trace.Func, c.count(maxFuncs, 10))
	for i := range out {
		f := &out[i]
		f.ID = trace.FuncID(c.uint32())
		f.Name, f.Module, f.Path, f.BuildID = c.string(strings), c.string(strings), c.string(strings), c.string(strings)
		f.Offset, f.Size = c.uint(), c.uint()
		f.File, f.Line, f.Lang = c.string(strings), int(c.upTo(1<<31)), c.string(strings)
	}
	return out, c.done()
}

func appendProcess(dst []byte, p *Process, s *stringTable) []byte {
	dst = binary.AppendUvarint(dst, uint64(p.PID))
	dst = binary.AppendUvarint(dst, uint64(p.Parent))
	dst = binary.AppendUvarint(dst, s.add(p.Exe))
	dst = binary.AppendUvarint(dst, s.add(p.BuildID))
	dst = binary.AppendUvarint(dst, uint64(len(p.Args)))
	for _, a := range p.Args {
		dst = binary.AppendUvarint(dst, s.add(a))
	}
	return dst
}

func parseProcesses(b []byte, strings []string) ([]Process, error) {
	if len(b) == 0 {
		return nil, nil
	}
	c := cursor{b: b, what: "processes"}
	out := make([]Process, c.count(maxTable, 5))
	for i := range out {
		p := &out[i]
		p.PID, p.Parent = c.uint32(), c.uint32()
		p.Exe, p.BuildID = c.string(strings), c.string(strings)
		if n := c.count(1<<16, 1); n > 0 {
			p.Args = make([]string, n)
		}
		for j := range p.Args {
			p.Args[j] = c.string(strings)
		}
	}
	return out, c.done()
}

func appendFrame(dst []byte, at Place, f *Frame, s *stringTable) []byte {
	dst = binary.AppendUvarint(dst, uint64(at.PID))
	dst = binary.AppendUvarint(dst, at.Addr)
	dst = binary.AppendUvarint(dst, s.add(f.Text))
	dst = binary.AppendUvarint(dst, s.add(f.Func))
	dst = binary.AppendUvarint(dst, s.add(f.Module))
	dst = binary.AppendUvarint(dst, s.add(f.BuildID))
	dst = binary.AppendUvarint(dst, f.Offset)
	dst = binary.AppendUvarint(dst, s.add(f.File))
	return binary.AppendUvarint(dst, uint64(max(f.Line, 0)))
}

func parseFrames(b []byte, strings []string) (map[Place]Frame, error) {
	if len(b) == 0 {
		return nil, nil
	}
	c := cursor{b: b, what: "frames"}
	n := c.count(maxTable, 9)
	out := make(map[Place]Frame, n)
	for range n {
		at := Place{PID: c.uint32(), Addr: c.uint()}
		f := Frame{Text: c.string(strings), Func: c.string(strings), Module: c.string(strings), BuildID: c.string(strings)}
		f.Offset, f.File, f.Line = c.uint(), c.string(strings), int(c.upTo(1<<31))
		out[at] = f
	}
	return out, c.done()
}

// task is a thread or goroutine as events name it.
type task struct {
	pid, tid uint32
	goid     uint64
}

func parseTasks(b []byte) ([]task, error) {
	if len(b) == 0 {
		return nil, nil
	}
	c := cursor{b: b, what: "tasks"}
	out := make([]task, c.count(maxTable, 3))
	for i := range out {
		out[i] = task{c.uint32(), c.uint32(), c.uint()}
	}
	return out, c.done()
}

// shape is what events of one kind at one place have in common. A block lists
// the shapes that occur in it and gives each item's by its index.
type shape struct {
	kind   uint8
	sp     uint8 // spNone …
	nargs  uint8
	flags  uint16
	fields uint16
	fn     uint32
	delta  int64 // of the stack pointer for spBelow, places for spOpen
}

func (s *shape) append(dst []byte) []byte {
	dst = append(dst, s.kind)
	dst = binary.AppendUvarint(dst, uint64(s.flags))
	dst = binary.AppendUvarint(dst, uint64(s.fn))
	dst = append(dst, s.sp)
	dst = binary.AppendVarint(dst, s.delta)
	dst = binary.AppendUvarint(dst, uint64(s.fields))
	return append(dst, s.nargs)
}

func parseShapes(b []byte) ([]shape, error) {
	if len(b) == 0 {
		return nil, nil
	}
	c := cursor{b: b, what: "shapes"}
	out := make([]shape, c.count(maxTable, 7))
	for i := range out {
		s := &out[i]
		s.kind = c.byte()
		s.flags, s.fn = uint16(c.upTo(1<<16-1)), c.uint32()
		s.sp, s.delta = c.byte(), c.int()
		s.fields, s.nargs = uint16(c.upTo(fieldsAll)), c.byte()
		if s.sp > spExplicit || s.sp == spOpen && (s.delta < 0 || s.delta >= maxPredicted) {
			c.fail("stack pointer by %d %d", s.sp, s.delta)
		}
		if s.nargs > maxArgs {
			c.fail("%d arguments", s.nargs)
		}
	}
	return out, c.done()
}

// maxArgs is how many arguments an event can have.
const maxArgs = 32

// node is an address in a stack: the return address in the function that
// called the one of its child.
type node struct {
	parent uint32 // index and 1 of the caller's node; 0: outermost
	addr   uint64
}

func parseNodes(b []byte) ([]node, error) {
	if len(b) == 0 {
		return nil, nil
	}
	c := cursor{b: b, what: "stacks"}
	out := make([]node, c.count(maxTable, 2))
	var last uint64
	for i := range out {
		out[i].parent = uint32(c.upTo(uint64(i)))
		last += uint64(c.int())
		out[i].addr = last
	}
	return out, c.done()
}
