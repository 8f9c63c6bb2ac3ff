package trace

import (
	"cmp"
	"slices"
)

// Bounds of what is kept for reuse, and of how many stacks a thread may hop
// between before the oldest is forgotten.
const (
	maxFreeLanes = 1024
	maxKeptOpen  = 4096
	maxStacks    = 1024
)

// stackReach is how far apart, in bytes, two stack pointers of one coroutine
// may be when the memory between them was not used yet. Stacks of coroutines
// are several times larger, frames hardly ever as large.
const stackReach = 16 << 10

// holds reports whether a call of fn is open.
func (l *Lane) holds(fn FuncID) bool {
	for i := range l.Open {
		if l.Open[i].Func == fn {
			return true
		}
	}
	return false
}

// below reports whether stack address a is deeper than b. Go stack pointers are
// offsets from the upper end of the stack, negative, so that a moved stack
// keeps them; both compare as signed numbers.
func below(a, b uint64) bool { return int64(a) < int64(b) }

// switchStack makes the stack that sp lies on the lane's present one. Where
// the memory layout is not known, all is taken for one stack.
func (p *Pairer) switchStack(l *Lane, sp, now uint64) {
	if l.key.goStack || p.regions == nil || l.cur.has(sp) {
		return
	}
	if r := l.stackOf(sp); r != nil {
		l.cur = *r
		return
	}
	r, ok := p.regions(l.PID, sp)
	switch {
	case !ok && l.serial == 0:
		return
	case ok && (r.Own || !r.Shared && l.key.tid != l.PID && l.serial == 0):
		// A stack that grew keeps its upper end.
		for i := range l.stacks {
			if s := &l.stacks[i]; !s.shared && s.hi == r.Hi {
				s.lo = r.Lo
				l.cur = *s
				return
			}
		}
		p.addStack(l, region{lo: r.Lo, hi: r.Hi}, now)
	default:
		p.addStack(l, region{lo: sp, hi: sp + 1, shared: true}, now)
	}
}

// stackOf returns the stack of those used so far that sp lies on, nil for none.
// One that shares its mapping with others is taken to reach a little farther
// than it was seen to, and grows.
func (l *Lane) stackOf(sp uint64) *region {
	var nearest *region
	distance := uint64(stackReach) + 1
	for i := range l.stacks {
		r := &l.stacks[i]
		switch {
		case r.has(sp):
			return r
		case !r.shared:
		case sp < r.lo && r.lo-sp < distance:
			nearest, distance = r, r.lo-sp
		case sp >= r.hi && sp-r.hi < distance:
			nearest, distance = r, sp-r.hi
		}
	}
	if nearest != nil {
		nearest.lo, nearest.hi = min(nearest.lo, sp), max(nearest.hi, sp+1)
	}
	return nearest
}

// addStack makes a stack known and the lane's present one. Beyond maxStacks the
// oldest is forgotten: its calls are closed.
func (p *Pairer) addStack(l *Lane, r region, now uint64) {
	if len(l.stacks) == maxStacks {
		oldest := l.stacks[0].serial
		l.stacks = append(l.stacks[:0], l.stacks[1:]...)
		for i := len(l.Open) - 1; i >= 0; i-- {
			if l.Open[i].stack == oldest {
				p.end(l, i, now, EndUnwound)
			}
		}
	}
	l.serial++
	r.serial = l.serial
	l.cur = r
	l.stacks = append(l.stacks, r)
}

// callerOf returns the index of the innermost of the first n open calls on a
// stack: the caller of the next one there. Where there is none, on the stack of
// a signal handler or of a new coroutine, it is the call that was interrupted.
func (l *Lane) callerOf(n int, stack uint32) int {
	for i := n - 1; i >= 0; i-- {
		if l.Open[i].stack == stack {
			return i
		}
	}
	return n - 1
}

// lane returns the lane that e ran on, made on first use.
func (p *Pairer) lane(e *Event) *Lane {
	k := laneKey{pid: e.PID, tid: e.TID}
	if e.Flags&FlagGo != 0 {
		k.goStack = true
		if e.GoID != 0 {
			k.tid, k.goid = 0, e.GoID
		}
	}
	if l := p.last; l != nil && l.key == k {
		l.TID = e.TID
		return l
	}
	l := p.lanes[k]
	if l == nil {
		l = p.newLane(k)
	}
	l.TID = e.TID
	p.last = l
	return l
}

func (p *Pairer) newLane(k laneKey) *Lane {
	var l *Lane
	if n := len(p.free); n > 0 {
		l, p.free = p.free[n-1], p.free[:n-1]
		*l = Lane{Open: l.Open[:0], stacks: l.stacks[:0]}
	} else {
		l = new(Lane)
	}
	l.PID, l.GoID, l.key = k.pid, k.goid, k
	if k.goid == 0 {
		l.Comm = p.comms[k.tid]
	}
	p.lanes[k] = l
	return l
}

// name notes what a thread is called. What is known of threads is bounded by
// how many there can be at once (kernel.pid_max).
func (p *Pairer) name(pid, tid uint32, comm string) {
	if comm == "" {
		return
	}
	p.comms[tid] = comm
	for _, goStack := range []bool{false, true} {
		if l := p.lanes[laneKey{pid: pid, tid: tid, goStack: goStack}]; l != nil {
			l.Comm = comm
		}
	}
}

// release forgets a goroutine without open calls: there can be millions.
func (p *Pairer) release(l *Lane) {
	if l.key.goid != 0 && len(l.Open) == 0 {
		p.drop(l)
	}
}

func (p *Pairer) drop(l *Lane) {
	delete(p.lanes, l.key)
	if p.last == l {
		p.last = nil
	}
	if len(p.free) < maxFreeLanes && cap(l.Open) <= maxKeptOpen {
		p.free = append(p.free, l)
	}
}

func (p *Pairer) closeLane(k laneKey, now uint64, end EndKind) {
	if l := p.lanes[k]; l != nil {
		p.closeAll(l, now, end)
		p.drop(l)
	}
}

func (p *Pairer) closeProcess(pid uint32, now uint64, end EndKind) {
	for _, l := range p.sorted(func(l *Lane) bool { return l.PID == pid }) {
		p.closeAll(l, now, end)
		p.drop(l)
	}
}

func (p *Pairer) closeAll(l *Lane, now uint64, end EndKind) {
	for i := len(l.Open) - 1; i >= 0; i-- {
		p.end(l, i, now, end)
	}
}

// sorted returns the lanes that keep accepts in a fixed order, so that the
// same events always give the same output.
func (p *Pairer) sorted(keep func(*Lane) bool) []*Lane {
	var out []*Lane
	for _, l := range p.lanes {
		if keep(l) {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *Lane) int {
		return cmp.Or(cmp.Compare(a.key.pid, b.key.pid), cmp.Compare(a.key.tid, b.key.tid),
			cmp.Compare(a.key.goid, b.key.goid))
	})
	return out
}

// fork gives the child process the frames that its stack is a copy of, so that
// its returns through them are understood. They were counted in the parent.
func (p *Pairer) fork(e *Event) {
	if e.ChildPID == e.PID {
		return
	}
	for _, goStack := range []bool{false, true} {
		from := p.lanes[laneKey{pid: e.PID, tid: e.TID, goStack: goStack}]
		if from == nil || len(from.Open) == 0 {
			continue
		}
		k := laneKey{pid: e.ChildPID, tid: e.Child, goStack: goStack}
		to := p.lanes[k]
		if to == nil {
			to = p.newLane(k)
		}
		if len(to.Open) > 0 {
			continue
		}
		to.TID = e.Child
		to.stacks, to.cur, to.serial = append(to.stacks[:0], from.stacks...), from.cur, from.serial
		for _, c := range from.Open {
			c.Inherited = true
			to.Open = append(to.Open, c)
		}
	}
}
