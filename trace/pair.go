package trace

// maxGroup bounds a chain of tail calls at one stack pointer, and with it what
// an endless loop of them can hold in memory. The kernel's own limit of nested
// return probes is the same (MAX_URETPROBE_DEPTH, kernel/events/uprobes.c).
const maxGroup = 64

// maxHooked is how many return probes the kernel keeps per thread; the exits of
// calls nested deeper are never reported.
const maxHooked = 64

// recursionSearch bounds how far up a call looks for itself.
const recursionSearch = 64

type laneKey struct {
	pid, tid uint32
	goid     uint64
	goStack  bool
}

// region is a stack that a lane has used, numbered from 1; 0 stands for the
// stack of a lane whose memory layout is not known.
type region struct {
	lo, hi uint64
	serial uint32
	shared bool // lo and hi are what was seen of it: its mapping holds others too
}

func (r region) has(sp uint64) bool { return sp >= r.lo && sp < r.hi }

// Region is the memory mapping that holds a stack address.
type Region struct {
	Lo, Hi uint64
	Own    bool // it is one stack, and the thread's own
	Shared bool // it may hold several stacks: the heap
}

// Regions tells the mapping of a stack address of a process, so that signal
// stacks and coroutines are told from frames that were left. It returns false
// when it does not know.
type Regions func(pid uint32, sp uint64) (Region, bool)

// Pairer makes calls of events: it keeps one stack of open calls per lane and
// settles by stack pointer what exits do not tell. It is not safe for
// concurrent use. Memory is bounded by the number of calls that are open.
type Pairer struct {
	sink    Sink
	regions Regions
	lanes   map[laneKey]*Lane
	last    *Lane
	free    []*Lane
	left    Call              // the call that Leave is told of
	comms   map[uint32]string // names of threads
	// Orphans counts exits whose entry was not seen: calls that were
	// running when tracing began, or whose entry was lost or filtered.
	Orphans uint64
}

// NewPairer returns a Pairer that reports to sink. regions may be nil.
func NewPairer(sink Sink, regions Regions) *Pairer {
	return &Pairer{sink: sink, regions: regions, lanes: make(map[laneKey]*Lane), comms: make(map[uint32]string)}
}

// Event consumes the next event.
func (p *Pairer) Event(e *Event) {
	switch e.Kind {
	case KindEntry:
		p.enter(e)
		return
	case KindExit:
		p.exit(e)
		return
	case KindFork:
		p.name(e.ChildPID, e.Child, e.Comm)
		p.fork(e)
	case KindComm:
		p.name(e.PID, e.TID, e.Comm)
	case KindExec:
		p.closeProcess(e.PID, e.Time, EndExec)
		p.name(e.PID, e.PID, e.Comm)
	case KindTaskExit:
		delete(p.comms, e.TID)
		p.closeLane(laneKey{pid: e.PID, tid: e.TID}, e.Time, EndTask)
		p.closeLane(laneKey{pid: e.PID, tid: e.TID, goStack: true}, e.Time, EndTask)
	case KindProcessExit:
		delete(p.comms, e.TID)
		p.closeProcess(e.PID, e.Time, EndTask)
	case KindGoExit:
		p.closeLane(laneKey{pid: e.PID, goid: e.GoID, goStack: true}, e.Time, EndGo)
	case KindLost:
		p.gap()
	case KindDetached:
		p.detach(e.Func, e.Time)
	}
	p.sink.Event(e)
}

// Tick passes on that all events before now have been delivered.
func (p *Pairer) Tick(now uint64) { p.sink.Tick(now) }

// Finish closes every open call as still running at now (ns).
func (p *Pairer) Finish(now uint64) {
	for _, l := range p.sorted(func(*Lane) bool { return true }) {
		p.closeAll(l, now, EndOpen)
	}
	clear(p.lanes)
	p.last = nil
}

// detach closes the open calls of a function whose probes were removed at now
// (ns): their exits will not come. Calls nested in them stay open.
func (p *Pairer) detach(fn FuncID, now uint64) {
	for _, l := range p.sorted(func(l *Lane) bool { return l.holds(fn) }) {
		for i := len(l.Open) - 1; i >= 0; i-- {
			if l.Open[i].Func == fn {
				p.end(l, i, now, EndDetached)
			}
		}
	}
}

func (p *Pairer) enter(e *Event) {
	l := p.lane(e)
	p.switchStack(l, e.SP, e.Time)
	p.settle(l, e)

	l.Open = append(l.Open, Call{})
	n := len(l.Open)
	c := &l.Open[n-1]
	c.Start, c.Last, c.SP = e.Time, e.Time, e.SP
	c.Func, c.TID, c.flags = e.Func, e.TID, e.Flags
	c.stack = l.cur.serial
	c.Stack = e.Stack
	c.NArgs = uint8(copy(c.Args[:], e.Args))
	if n > 1 {
		parent := &l.Open[l.callerOf(n-1, c.stack)]
		c.Parent, c.Depth = parent.Func, parent.Depth+1
		if parent.SP == c.SP {
			c.group = parent.group + 1
		}
		c.Recursive = recursive(l.Open[:n-1], c.Func)
	}
	p.sink.Enter(l, c)
	c.Stack = nil
}

// settle closes the calls that an entry at e.SP proves gone. A frame lives only
// while the stack pointer is below it: whatever lies at or below the new frame
// on the same stack has been left, except a caller that tail-called and whose
// slot the new frame has taken over.
func (p *Pairer) settle(l *Lane, e *Event) {
	for i := len(l.Open) - 1; i >= 0; i-- {
		c := &l.Open[i]
		if c.stack != l.cur.serial {
			continue // suspended: a signal handler or a coroutine runs above it
		}
		if !below(c.SP, e.SP) && c.SP != e.SP {
			return
		}
		if c.SP == e.SP && c.flags&FlagTailJumps != 0 && c.group < maxGroup {
			return
		}
		p.end(l, i, e.Time, p.unreported(l, i))
	}
}

func (p *Pairer) exit(e *Event) {
	l := p.lane(e)
	p.switchStack(l, e.SP, e.Time)
	at := l.find(e)
	if at < 0 {
		p.Orphans++
		p.endTailCallers(l, e)
		p.release(l)
		return
	}
	for i := len(l.Open) - 1; i > at; i-- {
		c := &l.Open[i]
		if c.stack != l.cur.serial {
			continue
		}
		// A tail-called function's RET ends its callers at the same
		// stack pointer too; what lies deeper was left without an exit.
		end := EndReturn
		if c.SP != e.SP {
			end = p.unreported(l, i)
		}
		p.end(l, i, e.Time, end)
	}
	if e.Flags&FlagReturn != 0 {
		l.Open[at].Ret, l.Open[at].HasRet = e.Ret, true
	}
	p.end(l, at, e.Time, EndReturn)
	p.endTailCallers(l, e)
	p.release(l)
}

// endTailCallers ends the callers that jumped to the function whose exit e is:
// watched at RET instructions, they have no exit of their own.
func (p *Pairer) endTailCallers(l *Lane, e *Event) {
	for i := len(l.Open) - 1; i >= 0; i-- {
		c := &l.Open[i]
		if c.stack != l.cur.serial {
			continue
		}
		if c.SP != e.SP || c.flags&FlagHooked != 0 {
			return
		}
		p.end(l, i, e.Time, EndReturn)
	}
}

// find returns the index of the open call that an exit ends, or -1.
func (l *Lane) find(e *Event) int {
	for i := len(l.Open) - 1; i >= 0; i-- {
		c := &l.Open[i]
		if c.stack != l.cur.serial {
			continue
		}
		if c.SP == e.SP && c.Func == e.Func {
			return i
		}
		if below(e.SP, c.SP) {
			return -1
		}
	}
	return -1
}

// unreported tells why the call at index i of l has no exit.
func (p *Pairer) unreported(l *Lane, i int) EndKind {
	if i < maxHooked || l.Open[i].flags&FlagHooked == 0 {
		return EndUnwound
	}
	hooked := 0
	for j := range l.Open[:i] {
		if l.Open[j].flags&FlagHooked != 0 {
			hooked++
			if hooked == maxHooked {
				return EndUnseen
			}
		}
	}
	return EndUnwound
}

// end ends the open call at index i of l.
func (p *Pairer) end(l *Lane, i int, now uint64, end EndKind) {
	c := &p.left // not a local: the sink makes those escape, once per call
	*c = l.Open[i]
	l.Open = append(l.Open[:i], l.Open[i+1:]...)
	c.Last, c.End = max(now, c.Start), end
	if i > 0 {
		if parent := &l.Open[l.callerOf(i, c.stack)]; parent.Func == c.Parent && parent.Depth == c.Depth-1 {
			parent.Child += c.Duration()
		}
	}
	if !c.Inherited {
		p.sink.Leave(l, c)
	}
}

func recursive(callers []Call, fn FuncID) bool {
	for i := len(callers) - 1; i >= 0 && i >= len(callers)-recursionSearch; i-- {
		if callers[i].Func == fn {
			return true
		}
	}
	return false
}

// gap marks every open call: which lanes the lost events belonged to is not
// known.
func (p *Pairer) gap() {
	for _, l := range p.lanes {
		for i := range l.Open {
			l.Open[i].Gap = true
		}
	}
}
