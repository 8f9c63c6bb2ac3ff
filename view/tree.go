package view

import (
	"io"
	"slices"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/trace"
)

// Times (ns of event time) and bounds of the live tree. Output is a function
// of the events because all of them are decided by event times and counts,
// never by the moments at which Tick comes.
const (
	// treeWindow is the span within which lines are grouped by lane.
	treeWindow = 20 * ms
	// treeHold is how long after its window an entry waits for its exit.
	treeHold = 100 * ms
	// A group is printed early when so much of it has come.
	maxGroupLines = 16 << 10
	maxGroupBytes = 2 << 20
	// Line buffers, lanes and threads kept for reuse.
	maxPooledBytes = 16 << 20
	maxIdleLanes   = 1024
	// Functions detached at once that are named.
	maxDetached   = 5
	maxKnownLanes = 64 << 10
	// maxTime keeps window arithmetic from overflowing.
	maxTime = 1 << 62
)

// TreeOptions says how a Tree prints.
type TreeOptions struct {
	// Color adds terminal colours. The caller decides (terminal, NO_COLOR).
	Color bool
	// Width is the number of columns to fit function names into; they are
	// elided in the middle. 0: as long as they are.
	Width int
	// Frame names the addresses of stacks; nil: hexadecimal.
	Frame Frame
}

// Tree prints calls as an indented tree per thread or goroutine. Lines of one
// lane within 20 ms of event time stand together; an entry is held back to
// become one line with its exit until a callee, an event or 100 ms come
// between. It is not safe for concurrent use.
type Tree struct {
	out  output
	opt  TreeOptions
	text term.Palette
	fns  trace.Functions

	names trace.ByFunc[treeName]
	lanes map[laneKey]*treeLane
	last  *treeLane // most recently looked up
	free  []*treeLane
	bufs  [][]byte // spare line buffers
	spare int      // their capacity

	windowEnd  uint64      // ns; 0 before the first event
	group      []*treeLane // lanes with something new since the last flush, in order
	lines      int         // lines in the group
	bytes      int
	waiting    []held  // entries held back since an earlier window, oldest first
	printed    laneKey // lane of the last printed line, zero for none
	pid        uint32  // first process seen: its goroutines go without a pid
	labelWidth int
	losing     bool
	detached   int    // functions detached at once
	detachedAt uint64 // when
	lost       loss   // not printed yet, summed up while losing
}

// held is an entry that waits; it is stale when its lane has moved on.
type held struct {
	lane     *treeLane
	seq      uint64
	deadline uint64 // window boundary at which it is printed
}

// treeLane is what the tree keeps of one lane.
type treeLane struct {
	key    laneKey
	label  []byte // what stands between the duration and the gutter
	width  int    // t.labelWidth it was made for
	comm   string
	named  bool           // comm has been shown, or will be by head
	rename bool           // head shows it: print head also without a switch
	path   []trace.FuncID // open calls, outermost first
	lines  []byte         // rendered lines of the group
	count  int
	head   []byte // line to precede them when another lane was printed last
	gutter int    // offset of the first line's gutter mark in lines
	run    run    // what the last line says, where it may take in the next
	open   int    // calls entered and not left
	listed bool   // in group
	ended  bool   // its thread has ended

	held   bool
	seq    uint64 // number of the last held entry, never reset
	queued uint64 // seq of the last entry put into waiting
	call   heldCall
}

// run is a line for several steps of a recursion that is too deep to indent:
// entries of one function, or its exits, from one depth to another.
type run struct {
	offset   int // of the line in lines; it is the last one
	from, to int32
	fn       trace.FuncID
	exit     bool
	end      trace.EndKind
	gap      bool
	on       bool
}

type heldCall struct {
	start uint64
	fn    trace.FuncID
	depth int32
	nargs uint8
	args  [6]uint64
	stack []uint64
}

// NewTree returns a Tree that writes to w and takes names from fns.
func NewTree(w io.Writer, fns trace.Functions, opt TreeOptions) *Tree {
	return &Tree{
		out: output{w: w}, opt: opt, text: term.NewPalette(opt.Color), fns: fns,
		lanes: make(map[laneKey]*treeLane), labelWidth: 7,
	}
}

// Err returns the first error of the writer. After one, nothing more is
// written.
func (t *Tree) Err() error { return t.out.err }

// Close prints what is still grouped and returns Err. It comes after the
// Pairer's Finish; calls that are held back then are printed as entries.
func (t *Tree) Close() error {
	if t.losing {
		t.printLost()
	}
	if t.detached > maxDetached {
		t.printMoreDetached()
	}
	t.releaseAll()
	t.flush()
	t.out.drain()
	return t.out.err
}

// Enter implements trace.Sink.
func (t *Tree) Enter(l *trace.Lane, c *trace.Call) {
	t.advance(c.Start)
	ls := t.lane(l)
	if ls.held {
		t.printEntry(ls)
	}
	ls.open++
	depth := int(c.Depth)
	if len(ls.path) != depth {
		ls.fitPath(l, depth)
	}
	ls.path = append(ls.path, c.Func)
	ls.hold(c)
	t.list(ls)
}

// Leave implements trace.Sink.
func (t *Tree) Leave(l *trace.Lane, c *trace.Call) {
	t.advance(c.Last)
	ls := t.lane(l)
	ls.open--
	h := &ls.call
	switch {
	case ls.held && h.depth == c.Depth && h.fn == c.Func && h.start == c.Start:
		ls.held = false
		t.printLeaf(ls, c)
	case ls.held:
		t.printEntry(ls)
		fallthrough
	default:
		t.printExit(ls, c)
	}
	ls.leavePath(c)
	t.list(ls)
	t.limit()
}

// Tick prints the windows that ended before now.
func (t *Tree) Tick(now uint64) {
	if t.windowEnd != 0 && now >= t.windowEnd {
		t.nextWindow(now)
	}
	t.out.drain()
}

// hold keeps what is needed to print c's entry later.
func (ls *treeLane) hold(c *trace.Call) {
	h := &ls.call
	h.start, h.fn, h.depth, h.nargs = c.Start, c.Func, c.Depth, c.NArgs
	if c.NArgs > 0 {
		h.args = c.Args
	}
	h.stack = append(h.stack[:0], c.Stack...)
	ls.held = true
	ls.seq++
}

// fitPath makes the path that of the depth calls open in l: calls that a forked
// process inherited were never entered here.
func (ls *treeLane) fitPath(l *trace.Lane, depth int) {
	ls.path = ls.path[:0]
	for i := range l.Open[:min(depth, len(l.Open))] {
		ls.path = append(ls.path, l.Open[i].Func)
	}
}

// leavePath takes an ended call off the path: the last one, but for coroutines
// and detached functions.
func (ls *treeLane) leavePath(c *trace.Call) {
	i := len(ls.path) - 1
	for i >= 0 && ls.path[i] != c.Func {
		i--
	}
	if i >= 0 {
		ls.path = append(ls.path[:i], ls.path[i+1:]...)
	}
}

// advance moves event time on to now and prints the windows that ended.
func (t *Tree) advance(now uint64) {
	if t.losing {
		t.printLost()
	}
	if t.detached > maxDetached {
		t.printMoreDetached()
	}
	if now >= t.windowEnd {
		t.nextWindow(now)
	}
}

func (t *Tree) nextWindow(now uint64) {
	if t.losing {
		t.printLost()
	}
	now = min(now, maxTime)
	end := (now/treeWindow + 1) * treeWindow
	if t.windowEnd == 0 {
		t.windowEnd = end
		return
	}
	for now >= t.windowEnd {
		t.release(t.windowEnd)
		t.flush()
		// Windows without events matter only where a held entry falls due.
		next := end
		if len(t.waiting) > 0 {
			next = min(end, max(t.waiting[0].deadline, t.windowEnd+treeWindow))
		}
		t.windowEnd = next
	}
}

// release prints the entries that are due at a window boundary.
func (t *Tree) release(boundary uint64) {
	n := 0
	for ; n < len(t.waiting) && t.waiting[n].deadline <= boundary; n++ {
		t.releaseHeld(t.waiting[n])
	}
	if n > 0 {
		t.waiting = t.waiting[:copy(t.waiting, t.waiting[n:])]
	}
}

func (t *Tree) releaseHeld(w held) {
	if !w.stale() {
		t.printEntry(w.lane)
		t.list(w.lane)
		t.limit()
	}
}

func (w held) stale() bool { return !w.lane.held || w.lane.seq != w.seq }

// releaseAll prints every entry that is held back.
func (t *Tree) releaseAll() {
	for i := 0; i < len(t.waiting); i++ { // a full group adds to it
		t.releaseHeld(t.waiting[i])
	}
	t.waiting = t.waiting[:0]
	for i := 0; i < len(t.group); i++ {
		if ls := t.group[i]; ls.held {
			t.printEntry(ls)
		}
	}
}

// lane finds what is kept of l.
func (t *Tree) lane(l *trace.Lane) *treeLane {
	k := keyOf(l)
	ls := t.last
	if ls == nil || ls.key != k {
		ls = t.find(k)
	}
	if ls.comm != l.Comm && l.Comm != "" {
		ls.comm, ls.named = l.Comm, false
	}
	return ls
}

func (t *Tree) find(k laneKey) *treeLane {
	ls := t.lanes[k]
	if ls == nil {
		if n := len(t.free); n > 0 {
			ls, t.free = t.free[n-1], t.free[:n-1]
		} else {
			ls = new(treeLane)
		}
		ls.key, ls.width = k, 0
		t.lanes[k] = ls
		if t.pid == 0 {
			t.pid = k.pid
		}
	}
	t.last = ls
	return ls
}

// list notes that ls has something new.
func (t *Tree) list(ls *treeLane) {
	if !ls.listed {
		ls.listed = true
		t.group = append(t.group, ls)
	}
}

// limit prints the group early when it is large.
func (t *Tree) limit() {
	if t.lines >= maxGroupLines || t.bytes >= maxGroupBytes {
		t.flush()
	}
}

// flush prints the group, lane by lane. The lane that was printed last goes
// first: that saves a switch.
func (t *Tree) flush() {
	if ls := t.lanes[t.printed]; ls != nil {
		t.printLane(ls)
	}
	for _, ls := range t.group {
		t.printLane(ls)
		ls.listed = false
		if ls.held {
			if ls.queued != ls.seq {
				ls.queued = ls.seq
				t.waiting = append(t.waiting, held{ls, ls.seq, t.windowEnd + treeHold})
			}
			continue
		}
		if ls.open <= 0 && (ls.key.goid != 0 || ls.ended || len(t.lanes) > maxKnownLanes) {
			t.forget(ls)
		}
	}
	if len(t.waiting) > 2*len(t.lanes)+maxIdleLanes {
		t.waiting = slices.DeleteFunc(t.waiting, held.stale)
	}
	clear(t.group)
	t.group, t.lines, t.bytes = t.group[:0], 0, 0
}

// printLane moves the lines of a lane to the output.
func (t *Tree) printLane(ls *treeLane) {
	if ls.count == 0 {
		return
	}
	if t.printed != ls.key || ls.rename {
		if len(ls.head) > 0 {
			t.out.buf = append(t.out.buf, ls.head...)
		} else {
			copy(ls.lines[ls.gutter:], gutterSwitch)
		}
		t.printed = ls.key
	}
	t.out.buf = append(t.out.buf, ls.lines...)
	t.out.spill()
	if t.spare+cap(ls.lines) <= maxPooledBytes {
		t.spare += cap(ls.lines)
		t.bufs = append(t.bufs, ls.lines[:0])
	}
	ls.lines, ls.count, ls.head, ls.rename, ls.run = nil, 0, ls.head[:0], false, run{}
}

// forget drops a lane that may never be seen again: there can be millions of
// goroutines.
func (t *Tree) forget(ls *treeLane) {
	delete(t.lanes, ls.key)
	if t.last == ls {
		t.last = nil
	}
	if len(t.free) >= maxIdleLanes {
		return
	}
	// seq stays: stale entries in waiting must not match.
	*ls = treeLane{label: ls.label[:0], head: ls.head[:0], path: ls.path[:0],
		seq: ls.seq, queued: ls.queued, call: heldCall{stack: ls.call.stack[:0]}}
	t.free = append(t.free, ls)
}
