package recording

import (
	"fmt"

	"github.com/sbxtrace/sbxtrace/trace"
)

// Block is a decoded block of events: its tables, and the items to go through.
type Block struct {
	Header     Header
	Functions  []trace.Func    // those that the block mentions
	Processes  []Process       // those that it mentions
	Frames     map[Place]Frame // what the addresses of its stacks mean
	Checkpoint *trace.Snapshot // state of the pairer before the block; nil: too large to be kept

	strings []string
	tasks   []task
	shapes  []shape
	nodes   []node
	columns sections
}

// parseBlock decodes the tables of a payload.
func parseBlock(h Header, raw []byte) (*Block, error) {
	s, err := parseSections(raw)
	if err != nil {
		return nil, err
	}
	b := &Block{Header: h, columns: *s}
	if b.strings, err = parseStrings(s[secStrings]); err != nil {
		return nil, err
	}
	if b.Functions, err = parseFunctions(s[secFunctions], b.strings); err != nil {
		return nil, err
	}
	if b.Processes, err = parseProcesses(s[secProcesses], b.strings); err != nil {
		return nil, err
	}
	if b.Frames, err = parseFrames(s[secFrames], b.strings); err != nil {
		return nil, err
	}
	if b.Checkpoint, err = parseCheckpoint(s[secCheckpoint], b.strings); err != nil {
		return nil, err
	}
	if b.tasks, err = parseTasks(s[secTasks]); err != nil {
		return nil, err
	}
	if b.shapes, err = parseShapes(s[secShapes]); err != nil {
		return nil, err
	}
	if b.nodes, err = parseNodes(s[secNodes]); err != nil {
		return nil, err
	}
	return b, nil
}

// ItemKind says what an Item is.
type ItemKind uint8

// Kinds of items.
const (
	ItemEvent  ItemKind = iota // an event
	ItemTick                   // all events before Time have been delivered
	ItemRegion                 // the Pairer needs Region for the event that follows
	ItemEnd                    // the session ended at Time
	ItemMark                   // a mark
	ItemOther                  // of a kind that a newer version added
)

// Item is one thing of the stream.
type Item struct {
	Kind  ItemKind
	Event trace.Event // ItemEvent
	Time  uint64      // ItemTick, ItemEnd
	// Region and RegionPID are the mapping of an ItemRegion and its process.
	Region    trace.Region
	RegionPID uint32
	Mark      Mark
}

// Items goes through the items of a block, in the order in which they were
// recorded:
//
//	for items := block.Items(); items.Next(); {
//		use(&items.Item)
//	}
//	return items.Err()
type Items struct {
	// Item is the present one. It and its slices are valid until Next.
	Item Item

	b     *Block
	n     int // items so far
	ops   cursor
	runs  cursor
	low   cursor
	high  cursor
	sp    cursor
	args  cursor
	stack cursor
	misc  cursor

	time  uint64
	run   uint64 // events left of the present run
	task  uint32
	lanes map[laneKey]*lane
	// cached lane of the present task, for both kinds of stacks
	cached [2]*lane
	funcs  map[uint32]*lastValues

	argBuf    [maxArgs]uint64
	stackBuf  []uint64
	kernelBuf []uint64
	textBuf   []string
}

// lastValues are a function's last return value and arguments.
type lastValues struct {
	ret  uint64
	args []uint64
}

// Items returns the items from the first one on.
func (b *Block) Items() *Items {
	column := func(id int, what string) cursor { return cursor{b: b.columns[id], what: what} }
	return &Items{
		b:   b,
		ops: column(secOps, "items"), runs: column(secRuns, "runs"), low: column(secTimeLow, "times"),
		high: column(secTimeHigh, "times"), sp: column(secSP, "stack pointers"), args: column(secArgs, "arguments"),
		stack: column(secStacks, "stacks"), misc: column(secMisc, "fields"),
		lanes: make(map[laneKey]*lane), funcs: make(map[uint32]*lastValues),
	}
}

// Block is the block that the items are of.
func (it *Items) Block() *Block { return it.b }

// Err returns what ended the items before their end; it wraps ErrCorrupt.
func (it *Items) Err() error {
	for _, c := range []*cursor{&it.ops, &it.runs, &it.low, &it.high, &it.sp, &it.args, &it.stack, &it.misc} {
		if c.err != nil {
			return fmt.Errorf("block %d: item %d: %w", it.b.Header.Seq, it.n, c.err)
		}
	}
	return nil
}

// Next goes on to the next item and reports whether there is one.
func (it *Items) Next() bool {
	if len(it.ops.b) == 0 {
		return false
	}
	if it.n++; it.n > maxItems {
		it.ops.fail("more than %d", maxItems)
		return false
	}
	i := it.ops.uint()
	if i >= uint64(len(it.b.shapes)) {
		it.ops.fail("shape %d of %d", i, len(it.b.shapes))
		return false
	}
	s := &it.b.shapes[i]
	if s.kind >= kindPseudo {
		it.pseudo(s)
	} else {
		it.event(s)
	}
	if it.failed() {
		it.ops.b = nil
		return false
	}
	return true
}

func (it *Items) failed() bool {
	return it.ops.err != nil || it.runs.err != nil || it.low.err != nil || it.high.err != nil || it.sp.err != nil ||
		it.args.err != nil || it.stack.err != nil || it.misc.err != nil
}

func (it *Items) pseudo(s *shape) {
	switch s.kind {
	case itemTick, itemEnd:
		it.Item.Kind = ItemTick
		if s.kind == itemEnd {
			it.Item.Kind = ItemEnd
		}
		it.Item.Time = it.time + uint64(it.misc.int())
	case itemRegion:
		it.Item.Kind = ItemRegion
		it.Item.RegionPID = it.misc.uint32()
		r := trace.Region{Lo: it.misc.uint()}
		r.Hi = r.Lo + it.misc.uint()
		bits := it.misc.byte()
		r.Own, r.Shared = bits&1 != 0, bits&2 != 0
		it.Item.Region = r
	case itemMark:
		it.Item.Kind = ItemMark
		it.Item.Mark = Mark{Time: it.time + uint64(it.misc.int())}
		it.Item.Mark.Kind = MarkKind(it.misc.byte())
		it.Item.Mark.Text = it.misc.string(it.b.strings)
	default:
		// It cannot be told how much of the columns is its.
		it.ops.fail("item of kind %#x", s.kind)
	}
}

func (it *Items) event(s *shape) {
	if it.run == 0 {
		it.nextRun()
		if it.runs.err != nil {
			return
		}
	}
	it.run--
	d := uint64(it.low.byte()) | it.high.uint()<<8
	it.time += uint64(int64(d>>1) ^ -int64(d&1))

	t := &it.b.tasks[it.task]
	it.Item.Kind = ItemEvent
	e := &it.Item.Event
	*e = trace.Event{
		Time: it.time, PID: t.pid, TID: t.tid, GoID: t.goid,
		Kind: trace.Kind(s.kind), Flags: trace.Flags(s.flags), Func: trace.FuncID(s.fn),
	}
	if s.sp != spNone {
		it.stackPointer(s, e)
	}
	if s.fields != 0 {
		it.fields(s, e)
	}
}

func (it *Items) nextRun() {
	it.task, it.run = it.runs.uint32(), it.runs.uint()
	if uint64(it.task) >= uint64(len(it.b.tasks)) || it.run == 0 {
		it.runs.fail("%d of task %d of %d", it.run, it.task, len(it.b.tasks))
	}
	it.cached = [2]*lane{}
}

// lane returns the lane of e.
func (it *Items) lane(e *trace.Event) *lane {
	goStack := e.Flags&trace.FlagGo != 0
	c := &it.cached[bit(goStack, 1)]
	if *c == nil {
		k := taskKey{task{e.PID, e.TID, e.GoID}, goStack}.lane()
		l := it.lanes[k]
		if l == nil {
			l = new(lane)
			it.lanes[k] = l
		}
		*c = l
	}
	return *c
}

// stackPointer sets the stack pointer of e, and its function where the shape
// leaves that to the predicted call.
func (it *Items) stackPointer(s *shape, e *trace.Event) {
	l := it.lane(e)
	switch s.sp {
	case spBelow:
		e.SP = l.reference() + uint64(s.delta)
	case spExplicit:
		e.SP = l.reference() + uint64(it.sp.int())
	case spOpen:
		i := len(l.open) - 1 - int(s.delta)
		if i < 0 {
			it.ops.fail("exit of call %d of %d", s.delta, len(l.open))
			return
		}
		e.SP, e.Func = l.open[i].sp, trace.FuncID(l.open[i].fn)
		l.open = l.open[:i]
		return
	}
	if e.Kind == trace.KindEntry {
		l.enter(e.SP, uint32(e.Func), e.Flags&trace.FlagTailJumps != 0)
	}
}

func (it *Items) fields(s *shape, e *trace.Event) {
	if s.fields&(fieldRet|fieldArgs) != 0 {
		it.values(s, e)
	}
	if s.fields&fieldStack != 0 {
		e.Stack = it.stackOf(&it.stackBuf)
	}
	if s.fields&fieldKernel != 0 {
		e.Kernel = it.stackOf(&it.kernelBuf)
	}
	if s.fields&fieldUnread != 0 {
		e.Unread = it.misc.uint32()
	}
	if s.fields&fieldChild != 0 {
		e.Child, e.ChildPID = it.misc.uint32(), it.misc.uint32()
	}
	if s.fields&fieldComm != 0 {
		e.Comm = it.misc.string(it.b.strings)
	}
	if s.fields&fieldCount != 0 {
		e.Count = it.misc.uint()
	}
	if s.fields&fieldLoss != 0 {
		e.CPU, e.Cause = int32(it.misc.int()), trace.LostCause(it.misc.byte())
	}
	if s.fields&fieldTexts != 0 {
		it.textBuf = it.textBuf[:0]
		for range it.misc.count(maxArgs, 1) {
			it.textBuf = append(it.textBuf, it.misc.string(it.b.strings))
		}
		e.Texts = it.textBuf
	}
	if s.fields&fieldSample != 0 {
		e.StackID, e.Waker, e.Weight = it.misc.uint(), it.misc.uint(), it.misc.uint()
		e.Cut, e.Count, e.CPU = trace.Cut(it.misc.byte()), it.misc.uint(), int32(it.misc.int())
	}
	if s.fields&fieldStatus != 0 {
		e.Status = it.misc.uint32()
	}
}

func (it *Items) values(s *shape, e *trace.Event) {
	f := it.funcs[uint32(e.Func)]
	if f == nil {
		f = new(lastValues)
		it.funcs[uint32(e.Func)] = f
	}
	if s.fields&fieldRet != 0 {
		f.ret += uint64(it.args.int())
		e.Ret = f.ret
	}
	if s.fields&fieldArgs != 0 {
		for len(f.args) < int(s.nargs) {
			f.args = append(f.args, 0)
		}
		for i := range s.nargs {
			f.args[i] += uint64(it.args.int())
			it.argBuf[i] = f.args[i]
		}
		e.Args = it.argBuf[:s.nargs]
	}
}

// stackOf reads a stack into a buffer.
func (it *Items) stackOf(buf *[]uint64) []uint64 {
	*buf = (*buf)[:0]
	i := it.stack.uint()
	if i >= uint64(len(it.b.nodes)) {
		it.stack.fail("node %d of %d", i, len(it.b.nodes))
		return nil
	}
	for n := uint32(i) + 1; n != 0; n = it.b.nodes[n-1].parent {
		if len(*buf) == maxStack {
			it.stack.fail("more than %d addresses", maxStack)
			return nil
		}
		*buf = append(*buf, it.b.nodes[n-1].addr)
	}
	return *buf
}

// maxStack bounds the depth of a stack.
const maxStack = 4096
