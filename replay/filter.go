package replay

import (
	"maps"

	"github.com/sbxtrace/sbxtrace/trace"
)

// Thread is a thread or a goroutine as filters see it.
type Thread struct {
	PID, TID uint32
	GoID     uint64
	Comm     string // of the thread, if known
}

// Filter says which calls are played. Calls that are left out are as if they had
// not been traced: those that they made are calls of their callers.
type Filter struct {
	Func   func(f *trace.Func) bool // nil: all
	Thread func(t Thread) bool      // nil: all
}

// filtering is what a player with a Filter keeps.
type filtering struct {
	Filter
	funcs   map[trace.FuncID]bool
	comms   map[uint32]string
	regions map[uint32][]trace.Region // latest last
}

// maxRegions bounds how many answers are kept for one process.
const maxRegions = 4096

// SetFilter makes the player leave calls out. It comes before anything is
// played.
func (p *Player) SetFilter(f Filter) {
	if f.Func == nil && f.Thread == nil {
		p.filter = nil
		return
	}
	p.filter = &filtering{
		Filter: f, funcs: make(map[trace.FuncID]bool), comms: make(map[uint32]string), regions: make(map[uint32][]trace.Region),
	}
}

// function reports whether calls of id are played.
func (f *filtering) function(id trace.FuncID, names *Names) bool {
	if f.Func == nil {
		return true
	}
	yes, ok := f.funcs[id]
	if !ok {
		yes = f.Func(names.Func(id))
		if len(f.funcs) < maxNames {
			f.funcs[id] = yes
		}
	}
	return yes
}

func (f *filtering) thread(pid, tid uint32, goid uint64) bool {
	return f.Thread == nil || f.Thread(Thread{pid, tid, goid, f.comms[tid]})
}

// event reports whether e is played.
func (f *filtering) event(e *trace.Event, names *Names) bool {
	f.name(e)
	switch e.Kind {
	case trace.KindEntry, trace.KindExit, trace.KindUSDT:
		return f.function(e.Func, names) && f.thread(e.PID, e.TID, e.GoID)
	case trace.KindDetached:
		return f.function(e.Func, names)
	case trace.KindLost, trace.KindComm:
		return true
	}
	return f.thread(e.PID, e.TID, e.GoID)
}

// name notes what threads are called.
func (f *filtering) name(e *trace.Event) {
	tid := e.TID
	switch e.Kind {
	case trace.KindFork:
		tid = e.Child
	case trace.KindExec:
		tid = e.PID
	case trace.KindComm:
	default:
		return
	}
	if e.Comm != "" && len(f.comms) < maxNames {
		f.comms[tid] = e.Comm
	}
}

// learn keeps an answer: the event that asked for it may be left out, and a
// later one needs it.
func (f *filtering) learn(pid uint32, r trace.Region) {
	if known := f.regions[pid]; len(known) < maxRegions {
		f.regions[pid] = append(known, r)
	}
}

func (f *filtering) region(pid uint32, sp uint64) (trace.Region, bool) {
	known := f.regions[pid]
	for i := len(known) - 1; i >= 0; i-- {
		if known[i].Lo <= sp && sp < known[i].Hi {
			return known[i], true
		}
	}
	return trace.Region{}, false
}

// snapshot leaves calls out of a state.
func (f *filtering) snapshot(s *trace.Snapshot, names *Names) *trace.Snapshot {
	out := &trace.Snapshot{Comms: s.Comms, Orphans: s.Orphans}
	comms := maps.Clone(f.comms)
	for _, c := range s.Comms {
		comms[c.TID] = c.Comm
	}
	f.comms = comms
	for i := range s.Lanes {
		l := s.Lanes[i]
		if !f.thread(l.PID, l.TID, l.GoID) {
			continue
		}
		l.Open = f.calls(l.Open, names)
		out.Lanes = append(out.Lanes, l)
	}
	return out
}

// calls are the open calls that are played, nested in each other.
func (f *filtering) calls(open []trace.CallState, names *Names) []trace.CallState {
	var out []trace.CallState
	for _, c := range open {
		if !f.function(c.Func, names) {
			continue
		}
		c.Depth, c.Parent, c.Group = 0, 0, 0
		for i := len(out) - 1; i >= 0; i-- {
			if parent := &out[i]; parent.Stack == c.Stack || i == 0 {
				if parent.Stack != c.Stack {
					parent = &out[len(out)-1] // the call that was interrupted
				}
				c.Depth, c.Parent = parent.Depth+1, parent.Func
				if parent.SP == c.SP {
					c.Group = parent.Group + 1
				}
				break
			}
		}
		out = append(out, c)
	}
	return out
}
