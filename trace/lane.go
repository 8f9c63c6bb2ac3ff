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
	maxStacks    = 64
)

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
func (p *Pairer) switchStack(l *Lane, sp uint64) {
	if l.key.goStack || p.regions == nil || l.cur.has(sp) {
		return
	}
	for _, r := range l.stacks {
		if r.has(sp) {
			l.cur = r
			return
		}
	}
	lo, hi, ok := p.regions(l.PID, sp)
	if !ok {
		return
	}
	// A stack that grew keeps its upper end.
	for i := range l.stacks {
		if r := &l.stacks[i]; r.hi == hi {
			r.lo = lo
			l.cur = *r
			return
		}
	}
	if len(l.stacks) == maxStacks {
		l.stacks = append(l.stacks[:0], l.stacks[1:]...)
	}
	l.serial++
	l.cur = region{lo: lo, hi: hi, serial: l.serial}
	l.stacks = append(l.stacks, l.cur)
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
