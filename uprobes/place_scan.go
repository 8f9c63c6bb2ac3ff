package uprobes

import (
	"slices"
	"sync"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// body is what one pass over a function's code tells.
type body struct {
	// rets are the offsets of the RET instructions, ascending. They are those
	// of a linear pass when that is consistent, else only those that flow of
	// control reaches from the entry.
	rets []int32
	// minTarget is the lowest offset above 0 that a branch of the function jumps
	// to; the function's size if there is none. A probe at or behind it may be
	// hit more than once per call.
	minTarget int32
	// jumpsToStart says that a branch goes back to the first byte: the retry
	// after a Go function grew its stack, or a loop.
	jumpsToStart bool

	// tails are the jumps to other functions with the stack as at entry, by
	// which a call ends as by a RET; tailsUnseen says that there may be more.
	tails       []tailJump
	tailsUnseen bool

	calls         bool
	selfRecursive bool
	tailJumps     bool      // a jump leaves the function with the stack as at entry
	retClass      InsnClass // what the kernel does with the RETs
	retGuarded    bool      // a RET that the kernel refuses to probe (arm64 retaa)

	// parts are where jumps to other parts of the same function lead.
	parts []uint64

	readsReturnAddr bool // loads the slot of its return address
	switchesStack   bool // continues on a stack it was given

	// problem says why the code could not be followed entirely; empty if it
	// could. Then RETs may be missing.
	problem string
	// mixed says that the linear pass did not fit the flow of control: there is
	// data between the instructions.
	mixed bool
}

// maxParts bounds the parts of a function that are followed. Compilers make
// one; each part may be entered at several places.
const maxParts = 64

func (b *body) part(addr uint64) {
	if len(b.parts) < maxParts && !slices.Contains(b.parts, addr) {
		b.parts = append(b.parts, addr)
	}
}

// target notes a branch within the function.
func (b *body) target(t int32) {
	if t == 0 {
		b.jumpsToStart = true
	} else {
		b.minTarget = min(b.minTarget, t)
	}
}

// tailJump is a jump out of a function by which the call ends.
type tailJump struct {
	off   int32
	cond  Condition
	class InsnClass
}

// tail notes a jump by which a call ends.
func (b *body) tail(off int32, cond Condition, class InsnClass) {
	b.tails = append(b.tails, tailJump{off, cond, class})
}

// leave judges a jump out of the function at the given stack depth: with a
// frame still on the stack the target cannot be another function. Without one
// it may be either, even by name: f.part.0 is a function. It reports whether
// the call surely ends here.
func (b *body) leave(fn *symbolizer.Function, target uint64, depth int32, opt *Options) bool {
	if target == fn.Addr+fn.Size && opt.OtherEntry != nil && !opt.OtherEntry(target) {
		return false // behind a call that never returns: clang jumps to the padding
	}
	same := opt.SameFunction != nil && opt.SameFunction(target)
	if depth > 0 || same {
		b.part(target)
	}
	ends := depth == 0 && !same
	if depth == 0 || depth == depthUnknown && !same {
		b.tailJumps = true
		b.tailsUnseen = b.tailsUnseen || !ends
	}
	return ends
}

// complete reports whether all RET instructions are known.
func (b *body) complete() bool { return b.problem == "" }

// scratch is the working memory of one analysis, reused between calls.
type scratch struct {
	marks []int32
	rets  []int32
	work  []int32
}

// Marks of an offset in a function. The stack depth known at a branch's target
// is kept above markShift.
const (
	markInsn   = 1 << iota // an instruction begins here
	markTarget             // a branch leads here
	markDepth              // the stack depth at the branch is known
	markShift  = 8
)

var scratchPool = sync.Pool{New: func() any { return new(scratch) }}

// maxPooled bounds the memory that an idle scratch keeps, in marks.
const maxPooled = 1 << 18

func (s *scratch) reset(n int) {
	if cap(s.marks) < n || cap(s.marks) > maxPooled && n <= maxPooled {
		s.marks = make([]int32, n)
	} else {
		s.marks = s.marks[:n]
		clear(s.marks)
	}
	s.rets, s.work = s.rets[:0], s.work[:0]
}

// depthUnknown is a stack depth that could not be followed.
const depthUnknown = -1 << 20

// depthNone is that of which there was none yet.
const depthNone = depthUnknown - 1

// maxDepth bounds stack depths so that they fit beside the marks: larger
// frames are treated as unknown.
const maxDepth = 1 << 20

func markOf(depth int32) int32 {
	if depth < 0 || depth > maxDepth {
		return markTarget
	}
	return markTarget | markDepth | depth<<markShift
}
