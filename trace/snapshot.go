package trace

import (
	"cmp"
	"slices"
)

// Snapshot is all that a Pairer knows between two events. A Pairer that is
// given it goes on as the one that it was taken from.
type Snapshot struct {
	Lanes   []LaneState // in a fixed order
	Comms   []ThreadName
	Orphans uint64 // as Pairer.Orphans
}

// LaneState is a lane of a Snapshot.
type LaneState struct {
	PID     uint32
	KeyTID  uint32 // the thread that the lane is; 0 for a goroutine
	GoID    uint64
	GoStack bool   // stack pointers are relative to the stack's upper end
	TID     uint32 // of the thread last seen running it
	Comm    string

	Open    []CallState // outermost first
	Stacks  []StackState
	Current StackState // the stack in use
	Serial  uint32     // of the stack found last
}

// CallState is an open call of a Snapshot: Call without its Stack.
type CallState struct {
	Call
	Flags Flags  // of its entry
	Group uint16 // calls below it at the same stack pointer
	Stack uint32 // serial number of the stack that it is on
}

// StackState is a stack that a lane has used.
type StackState struct {
	Lo, Hi uint64
	Serial uint32
	Shared bool // Lo and Hi are what was seen of it
}

// ThreadName is what a thread is called.
type ThreadName struct {
	TID  uint32
	Comm string
}

// Snapshot copies the state into s, whose memory is reused.
func (p *Pairer) Snapshot(s *Snapshot) {
	s.Orphans = p.Orphans
	s.Comms = s.Comms[:0]
	for tid, comm := range p.comms {
		s.Comms = append(s.Comms, ThreadName{tid, comm})
	}
	slices.SortFunc(s.Comms, func(a, b ThreadName) int { return cmp.Compare(a.TID, b.TID) })
	lanes := p.sorted(func(l *Lane) bool { return len(l.Open) > 0 || l.serial > 0 })
	s.Lanes = slices.Grow(s.Lanes[:0], len(lanes))[:len(lanes)]
	for i, l := range lanes {
		l.save(&s.Lanes[i])
	}
}

func (l *Lane) save(s *LaneState) {
	open, stacks := s.Open[:0], s.Stacks[:0]
	for i := range l.Open {
		c := CallState{Call: l.Open[i]}
		c.Flags, c.Group, c.Stack = c.flags, c.group, c.Call.stack
		c.flags, c.group, c.Call.stack, c.Call.Stack = 0, 0, 0, nil
		open = append(open, c)
	}
	for _, r := range l.stacks {
		stacks = append(stacks, r.state())
	}
	*s = LaneState{
		PID: l.key.pid, KeyTID: l.key.tid, GoID: l.key.goid, GoStack: l.key.goStack, TID: l.TID, Comm: l.Comm,
		Open: open, Stacks: stacks, Current: l.cur.state(), Serial: l.serial,
	}
}

func (r region) state() StackState {
	return StackState{Lo: r.lo, Hi: r.hi, Serial: r.serial, Shared: r.shared}
}

func (s StackState) region() region {
	return region{lo: s.Lo, hi: s.Hi, serial: s.Serial, shared: s.Shared}
}

// Restore makes the state that of s, of which nothing is kept. The sink is not
// told; see Announce.
func (p *Pairer) Restore(s *Snapshot) {
	clear(p.lanes)
	clear(p.comms)
	p.last, p.Orphans = nil, s.Orphans
	for _, c := range s.Comms {
		p.comms[c.TID] = c.Comm
	}
	for i := range s.Lanes {
		from := &s.Lanes[i]
		l := p.newLane(laneKey{pid: from.PID, tid: from.KeyTID, goid: from.GoID, goStack: from.GoStack})
		l.TID, l.Comm = from.TID, from.Comm
		l.cur, l.serial = from.Current.region(), from.Serial
		for _, st := range from.Stacks {
			l.stacks = append(l.stacks, st.region())
		}
		for j := range from.Open {
			c := from.Open[j].Call
			c.Stack = nil
			c.flags, c.group, c.stack = from.Open[j].Flags, from.Open[j].Group, from.Open[j].Stack
			l.Open = append(l.Open, c)
		}
	}
}

// Announce tells the sink of every open call as if it was entered now, callers
// before callees and otherwise in the order of their starts: after Restore, so
// that the sink sees an Enter for every Leave.
func (p *Pairer) Announce() {
	type opened struct {
		lane  *Lane
		index int
		start uint64
	}
	var all []opened
	lanes := p.sorted(func(l *Lane) bool { return len(l.Open) > 0 })
	for _, l := range lanes {
		var latest uint64
		for i := range l.Open {
			latest = max(latest, l.Open[i].Start)
			if !l.Open[i].Inherited {
				all = append(all, opened{l, i, latest})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b opened) int { return cmp.Compare(a.start, b.start) })
	for _, o := range all {
		open := o.lane.Open
		o.lane.Open = open[:o.index+1]
		p.sink.Enter(o.lane, &open[o.index])
		o.lane.Open = open
	}
}

// Lanes returns the lanes with open calls in a fixed order. They are the
// Pairer's own and valid until the next event.
func (p *Pairer) Lanes() []*Lane {
	return p.sorted(func(l *Lane) bool { return len(l.Open) > 0 })
}
