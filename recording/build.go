package recording

import (
	"encoding/binary"
	"math"

	"github.com/sbxtrace/sbxtrace/trace"
)

// fullBlock is how many items make a block full, and fullBytes how many bytes
// of columns: enough for zstd to find what repeats, little enough to be decoded
// in a few milliseconds.
const (
	fullBlock = 128 << 10
	fullBytes = 4 << 20
	// maxShapes is how many shapes a block may have before stack pointers
	// that make new ones are stored themselves.
	maxShapes = 16 << 10
)

// builder puts one block of events together after the other. Its memory is
// reused.
type builder struct {
	fns     trace.Functions
	process func(pid uint32) Process         // may be nil
	frame   func(pid uint32, a uint64) Frame // may be nil

	most  int    // bytes that make a block full
	block uint32 // number of the block being built, for what is per block
	items int
	count counts

	strings    stringTable
	functions  table
	processes  table
	frames     table
	tasks      table
	checkpoint []byte
	shapes     table
	ops        []byte
	runs       []byte
	low, high  []byte
	sp         []byte
	args       []byte
	nodes      table
	stacks     []byte
	misc       []byte

	time    uint64 // of the last event
	runTask uint32 // task of the last event
	run     uint64 // its events in a row

	byFunc   trace.ByFunc[funcState]
	byPID    map[uint32]bool
	byTask   map[taskKey]*taskState
	lanes    map[laneKey]*lane
	last     *taskState
	lastKey  taskKey
	spare    []*lane
	byShape  map[shape]uint32
	exit     shape // the last exit's, and its index
	exitID   uint32
	byNode   map[nodeKey]uint32
	byPlace  map[Place]bool
	nodeAddr uint64
}

// counts is what a block's header counts.
type counts struct {
	first, last   uint64
	events, calls uint32
	lost          uint64
	marks         uint32
}

// table is a section that begins with the number of its entries.
type table struct {
	n     uint64
	bytes []byte
}

func (t *table) reset() { t.n, t.bytes = 0, t.bytes[:0] }

func (t *table) section(dst []byte) []byte {
	if t.n == 0 {
		return dst
	}
	return append(binary.AppendUvarint(dst, t.n), t.bytes...)
}

// funcState is what is known of a function in the block with that number.
type funcState struct {
	block   uint32
	entry   shape // of its last entry, and its index
	entryID uint32
	ret     uint64 // the last return value
	args    []uint64
}

type taskKey struct {
	task
	goStack bool
}

type taskState struct {
	index uint32
	lane  *lane
}

type laneKey struct {
	pid     uint32
	id      uint64 // goroutine or thread
	goStack bool
}

func (k taskKey) lane() laneKey {
	if k.goStack && k.goid != 0 {
		return laneKey{k.pid, k.goid, true}
	}
	return laneKey{k.pid, uint64(k.tid), k.goStack}
}

type nodeKey struct {
	pid, parent uint32
	addr        uint64
}

// lane predicts the stack pointers of a thread or goroutine: its open calls as
// far as entries and exits in this block tell. Readers do the same.
type lane struct {
	open []predicted // outermost first
	base uint64      // where the outermost was entered last
}

type predicted struct {
	sp    uint64
	fn    uint32
	tails bool
}

// reference is the stack pointer that others are relative to.
func (l *lane) reference() uint64 {
	if n := len(l.open); n > 0 {
		return l.open[n-1].sp
	}
	return l.base
}

// enter takes a call in: calls at and below it have been left, but for one
// that it may be a tail call of.
func (l *lane) enter(sp uint64, fn uint32, tails bool) {
	n := len(l.open)
	for n > 0 && (int64(l.open[n-1].sp) < int64(sp) || l.open[n-1].sp == sp && !l.open[n-1].tails) {
		n--
	}
	if n >= maxPredicted {
		n = 0
	}
	if n == 0 {
		l.base = sp
	}
	l.open = append(l.open[:n], predicted{sp, fn, tails})
}

// find returns how many places up the open call is that an exit ends, or -1.
func (l *lane) find(sp uint64, fn uint32) int {
	for i := len(l.open) - 1; i >= 0 && int64(l.open[i].sp) <= int64(sp); i-- {
		if l.open[i].sp == sp && l.open[i].fn == fn {
			return len(l.open) - 1 - i
		}
	}
	return -1
}

// begin starts an empty block, before which the pairer's state is s.
func (b *builder) begin(s *trace.Snapshot) {
	b.block++
	b.items, b.count = 0, counts{first: math.MaxUint64}
	for _, t := range []*table{&b.functions, &b.processes, &b.frames, &b.tasks, &b.shapes, &b.nodes} {
		t.reset()
	}
	for _, c := range []*[]byte{&b.checkpoint, &b.ops, &b.runs, &b.low, &b.high, &b.sp, &b.args, &b.stacks, &b.misc} {
		*c = (*c)[:0]
	}
	b.strings.reset()
	if b.byPID == nil {
		b.byPID, b.byTask, b.lanes = make(map[uint32]bool), make(map[taskKey]*taskState), make(map[laneKey]*lane)
		b.byShape, b.byNode, b.byPlace = make(map[shape]uint32), make(map[nodeKey]uint32), make(map[Place]bool)
	}
	for _, l := range b.lanes {
		if len(b.spare) < maxItems/64 && cap(l.open) <= 1024 {
			l.open, l.base = l.open[:0], 0
			b.spare = append(b.spare, l)
		}
	}
	clear(b.byPID)
	clear(b.byTask)
	clear(b.lanes)
	clear(b.byShape)
	clear(b.byNode)
	clear(b.byPlace)
	b.last, b.exit, b.nodeAddr = nil, shape{}, 0
	b.time, b.run, b.runTask = 0, 0, 0

	b.checkpoint = appendCheckpoint(b.checkpoint, s, &b.strings)
	if len(b.checkpoint) > maxState {
		b.checkpoint = b.checkpoint[:0]
		b.strings.reset()
		return
	}
	for i := range s.Lanes {
		b.mention(s.Lanes[i].PID)
		for j := range s.Lanes[i].Open {
			b.function(s.Lanes[i].Open[j].Func)
			b.function(s.Lanes[i].Open[j].Parent)
		}
	}
}

// size is about how many bytes the block's items take.
func (b *builder) size() int {
	return len(b.ops) + len(b.low) + len(b.high) + len(b.sp) + len(b.args) + len(b.stacks) + len(b.misc) +
		len(b.nodes.bytes) + len(b.frames.bytes)
}

// full reports whether the block should end: when it has many items, and enough
// for the list of open calls at its beginning not to be most of it.
func (b *builder) full() bool {
	return b.items >= fullBlock && b.worthwhile() || b.items >= maxItems/2 || b.size() >= b.most ||
		max(b.tasks.n, b.nodes.n) >= maxTable/2
}

// worthwhile reports whether the items outweigh the checkpoint.
func (b *builder) worthwhile() bool { return b.size() >= len(b.checkpoint)/2 }

// at notes a time for the header.
func (b *builder) at(t uint64) {
	if t != 0 {
		b.count.first, b.count.last = min(b.count.first, t), max(b.count.last, t)
	}
}

// event adds an event.
func (b *builder) event(e *trace.Event) {
	t := b.task(e)
	if t.index != b.runTask && b.run > 0 {
		b.endRun()
	}
	b.runTask = t.index
	b.run++
	b.at(e.Time)
	b.count.events++
	d := zigzag(int64(e.Time - b.time))
	b.time = e.Time
	b.low = append(b.low, byte(d))
	b.high = binary.AppendUvarint(b.high, d>>8)

	s := shape{kind: uint8(e.Kind), flags: uint16(e.Flags)}
	switch e.Kind {
	case trace.KindEntry:
		b.count.calls++
		b.entry(e, t.lane, &s)
	case trace.KindExit:
		b.exitOf(e, t.lane, &s)
	default:
		b.other(e, &s)
	}
}

// entry adds the entry e: shape and columns.
func (b *builder) entry(e *trace.Event, l *lane, s *shape) {
	f := b.function(e.Func)
	sp := e.SP - l.reference()
	s.fn, s.sp, s.delta = uint32(e.Func), spBelow, int64(sp)
	if s.nargs = uint8(min(len(e.Args), maxArgs)); s.nargs > 0 {
		s.fields |= fieldArgs
	}
	if len(e.Stack) > 0 {
		s.fields |= fieldStack
	}
	if f.entry != *s {
		f.entryID = b.entryShape(s)
		f.entry = *s
	}
	b.op(f.entryID)
	if s.sp == spExplicit {
		b.sp = binary.AppendVarint(b.sp, int64(sp))
	}
	l.enter(e.SP, uint32(e.Func), e.Flags&trace.FlagTailJumps != 0)
	if s.fields != 0 {
		b.arguments(e, f)
		b.stack(e.PID, e.Stack, s.fields&fieldStack)
	}
}

// entryShape returns the index of an entry's shape, which is made one with an
// explicit stack pointer when there are too many.
func (b *builder) entryShape(s *shape) uint32 {
	if id, ok := b.byShape[*s]; ok || len(b.byShape) < maxShapes {
		if !ok {
			id = b.newShape(s)
		}
		return id
	}
	s.sp, s.delta = spExplicit, 0
	return b.shape(s)
}

// exitOf adds the exit e.
func (b *builder) exitOf(e *trace.Event, l *lane, s *shape) {
	if e.Flags&trace.FlagReturn != 0 {
		s.fields = fieldRet
	}
	up := l.find(e.SP, uint32(e.Func))
	if up >= 0 {
		s.sp, s.delta = spOpen, int64(up)
		l.open = l.open[:len(l.open)-1-up]
	} else {
		b.function(e.Func)
		s.sp, s.fn = spExplicit, uint32(e.Func)
		b.sp = binary.AppendVarint(b.sp, int64(e.SP-l.reference()))
	}
	if b.exit != *s {
		b.exit, b.exitID = *s, b.shape(s)
	}
	b.op(b.exitID)
	if s.fields&fieldRet != 0 {
		f := b.function(e.Func)
		b.args = binary.AppendVarint(b.args, int64(e.Ret-f.ret))
		f.ret = e.Ret
	}
}

// other adds an event that is no entry and no exit.
func (b *builder) other(e *trace.Event, s *shape) {
	var f *funcState
	switch e.Kind {
	case trace.KindUSDT:
		f = b.function(e.Func)
		s.fn = uint32(e.Func)
		if s.nargs = uint8(min(len(e.Args), maxArgs)); s.nargs > 0 {
			s.fields |= fieldArgs
		}
		if e.Unread != 0 {
			s.fields |= fieldUnread
		}
		if len(e.Texts) > 0 {
			s.fields |= fieldTexts
		}
	case trace.KindSample:
		s.fields = fieldComm | fieldSample
		if len(e.Stack) > 0 {
			s.fields |= fieldStack
		}
		if len(e.Kernel) > 0 {
			s.fields |= fieldKernel
		}
	case trace.KindDetached:
		b.function(e.Func)
		s.fn, s.fields = uint32(e.Func), fieldCount
	case trace.KindFork:
		s.fields = fieldChild | fieldComm
	case trace.KindExec, trace.KindComm:
		s.fields = fieldComm
	case trace.KindTaskExit, trace.KindProcessExit:
		if e.Status != 0 {
			s.fields = fieldStatus
		}
	case trace.KindLost:
		s.fields = fieldCount | fieldLoss
		b.count.lost += e.Count
	}
	b.op(b.shape(s))
	if f != nil {
		b.arguments(e, f)
	}
	b.stack(e.PID, e.Stack, s.fields&fieldStack)
	b.stack(kernelPID, e.Kernel, s.fields&fieldKernel)
	b.fields(e, s.fields)
}

// kernelPID is the process of the kernel's addresses in Place: no other has it.
const kernelPID = 0

// fields adds the fields that stand in the misc column.
func (b *builder) fields(e *trace.Event, fields uint16) {
	if fields&fieldUnread != 0 {
		b.misc = binary.AppendUvarint(b.misc, uint64(e.Unread))
	}
	if fields&fieldChild != 0 {
		b.misc = binary.AppendUvarint(b.misc, uint64(e.Child))
		b.misc = binary.AppendUvarint(b.misc, uint64(e.ChildPID))
	}
	if fields&fieldComm != 0 {
		b.misc = binary.AppendUvarint(b.misc, b.strings.add(e.Comm))
	}
	if fields&fieldCount != 0 {
		b.misc = binary.AppendUvarint(b.misc, e.Count)
	}
	if fields&fieldLoss != 0 {
		b.misc = binary.AppendVarint(b.misc, int64(e.CPU))
		b.misc = append(b.misc, byte(e.Cause))
	}
	if fields&fieldTexts != 0 {
		n := min(len(e.Texts), maxArgs)
		b.misc = binary.AppendUvarint(b.misc, uint64(n))
		for _, t := range e.Texts[:n] {
			b.misc = binary.AppendUvarint(b.misc, b.strings.add(t))
		}
	}
	if fields&fieldSample != 0 {
		for _, v := range []uint64{e.StackID, e.Waker, e.Weight} {
			b.misc = binary.AppendUvarint(b.misc, v)
		}
		b.misc = append(b.misc, byte(e.Cut))
		b.misc = binary.AppendUvarint(b.misc, e.Count)
		b.misc = binary.AppendVarint(b.misc, int64(e.CPU))
	}
	if fields&fieldStatus != 0 {
		b.misc = binary.AppendUvarint(b.misc, uint64(e.Status))
	}
}

// arguments adds the arguments of e, each relative to the one in its place at
// the function's last call.
func (b *builder) arguments(e *trace.Event, f *funcState) {
	n := min(len(e.Args), maxArgs)
	for len(f.args) < n {
		f.args = append(f.args, 0)
	}
	for i, v := range e.Args[:n] {
		b.args = binary.AppendVarint(b.args, int64(v-f.args[i]))
		f.args[i] = v
	}
}

// stack adds a stack of process pid: the node of its innermost address.
func (b *builder) stack(pid uint32, addrs []uint64, has uint16) {
	if has == 0 {
		return
	}
	var parent uint32 // index and 1
	for i := min(len(addrs), maxStack) - 1; i >= 0; i-- {
		k := nodeKey{pid, parent, addrs[i]}
		id, ok := b.byNode[k]
		if !ok {
			b.nodes.n++
			id = uint32(b.nodes.n)
			b.byNode[k] = id
			b.nodes.bytes = binary.AppendUvarint(b.nodes.bytes, uint64(parent))
			b.nodes.bytes = binary.AppendVarint(b.nodes.bytes, int64(k.addr-b.nodeAddr))
			b.nodeAddr = k.addr
			b.name(Place{pid, k.addr})
		}
		parent = id
	}
	b.stacks = binary.AppendUvarint(b.stacks, uint64(parent-1))
}

// name describes an address once.
func (b *builder) name(at Place) {
	if b.frame == nil || b.byPlace[at] {
		return
	}
	b.byPlace[at] = true
	f := b.frame(at.PID, at.Addr)
	b.frames.n++
	b.frames.bytes = appendFrame(b.frames.bytes, at, &f, &b.strings)
}

// task finds the task of e.
func (b *builder) task(e *trace.Event) *taskState {
	k := taskKey{task{e.PID, e.TID, e.GoID}, e.Flags&trace.FlagGo != 0}
	if b.last != nil && b.lastKey == k {
		return b.last
	}
	t := b.byTask[k]
	if t == nil {
		t = &taskState{index: uint32(b.tasks.n), lane: b.lane(k.lane())}
		b.byTask[k] = t
		b.tasks.n++
		b.tasks.bytes = binary.AppendUvarint(b.tasks.bytes, uint64(k.pid))
		b.tasks.bytes = binary.AppendUvarint(b.tasks.bytes, uint64(k.tid))
		b.tasks.bytes = binary.AppendUvarint(b.tasks.bytes, k.goid)
		b.mention(k.pid)
	}
	b.last, b.lastKey = t, k
	return t
}

func (b *builder) lane(k laneKey) *lane {
	l := b.lanes[k]
	if l == nil {
		if n := len(b.spare); n > 0 {
			l, b.spare = b.spare[n-1], b.spare[:n-1]
		} else {
			l = new(lane)
		}
		b.lanes[k] = l
	}
	return l
}

// mention describes a process once.
func (b *builder) mention(pid uint32) {
	if b.process == nil || pid == 0 || b.byPID[pid] {
		return
	}
	b.byPID[pid] = true
	p := b.process(pid)
	p.PID = pid
	b.processes.n++
	b.processes.bytes = appendProcess(b.processes.bytes, &p, &b.strings)
}

// function describes a function once.
func (b *builder) function(id trace.FuncID) *funcState {
	f := b.byFunc.Get(id)
	if f != nil && f.block == b.block {
		return f
	}
	if f == nil {
		f = new(funcState)
		b.byFunc.Set(id, f)
	}
	*f = funcState{block: b.block, args: f.args[:0]}
	if d := b.fns.Func(id); d != nil {
		fn := *d
		fn.ID = id
		b.functions.n++
		b.functions.bytes = appendFunc(b.functions.bytes, &fn, &b.strings)
	}
	return f
}

func (b *builder) op(id uint32) {
	b.items++
	b.ops = binary.AppendUvarint(b.ops, uint64(id))
}

func (b *builder) shape(s *shape) uint32 {
	if id, ok := b.byShape[*s]; ok {
		return id
	}
	return b.newShape(s)
}

func (b *builder) newShape(s *shape) uint32 {
	id := uint32(len(b.byShape))
	b.byShape[*s] = id
	b.shapes.n++
	b.shapes.bytes = s.append(b.shapes.bytes)
	return id
}

func (b *builder) endRun() {
	b.runs = binary.AppendUvarint(b.runs, uint64(b.runTask))
	b.runs = binary.AppendUvarint(b.runs, b.run)
	b.run = 0
}

// tick adds that all events before now have been delivered; end that the
// session ended.
func (b *builder) tick(kind uint8, now uint64) {
	b.op(b.shape(&shape{kind: kind}))
	b.misc = binary.AppendVarint(b.misc, int64(now-b.time))
}

func (b *builder) region(pid uint32, r trace.Region) {
	b.op(b.shape(&shape{kind: itemRegion}))
	b.misc = binary.AppendUvarint(b.misc, uint64(pid))
	b.misc = binary.AppendUvarint(b.misc, r.Lo)
	b.misc = binary.AppendUvarint(b.misc, r.Hi-r.Lo)
	b.misc = append(b.misc, bit(r.Own, 1)|bit(r.Shared, 2))
}

func (b *builder) mark(m *Mark) {
	b.count.marks++
	b.at(m.Time)
	b.op(b.shape(&shape{kind: itemMark}))
	b.misc = binary.AppendVarint(b.misc, int64(m.Time-b.time))
	b.misc = append(b.misc, byte(m.Kind))
	b.misc = binary.AppendUvarint(b.misc, b.strings.add(m.Text))
}

// finish appends the block's payload to dst.
func (b *builder) finish(dst []byte) []byte {
	if b.run > 0 {
		b.endRun()
	}
	var buf []byte
	section := func(id uint64, content []byte) {
		if len(content) > 0 {
			dst = appendSection(dst, id, content)
		}
	}
	section(secStrings, b.strings.section(nil))
	for _, t := range []struct {
		id    uint64
		table *table
	}{{secFunctions, &b.functions}, {secProcesses, &b.processes}, {secFrames, &b.frames}, {secTasks, &b.tasks}} {
		buf = t.table.section(buf[:0])
		section(t.id, buf)
	}
	section(secCheckpoint, b.checkpoint)
	section(secShapes, b.shapes.section(nil))
	section(secOps, b.ops)
	section(secRuns, b.runs)
	section(secTimeLow, b.low)
	section(secTimeHigh, b.high)
	section(secSP, b.sp)
	section(secArgs, b.args)
	section(secNodes, b.nodes.section(nil))
	section(secStacks, b.stacks)
	section(secMisc, b.misc)
	return dst
}

func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }
