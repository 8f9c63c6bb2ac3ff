// Package synth makes streams of events up, for tests and benchmarks of what
// consumes them: threads and goroutines that call each other's functions, with
// everything that can come between. The same seed gives the same stream.
package synth

import (
	"fmt"
	"math/rand/v2"

	"github.com/sbxtrace/sbxtrace/trace"
)

// Options say what a Stream is made of. The zero value is calls of two threads.
type Options struct {
	Seed       uint64
	Threads    int // 0: 2
	Goroutines int
	Functions  int  // 0: 40
	Args       bool // arguments and return values
	Stacks     bool
	// Trouble: exits are missing, events are lost, processes fork, execute
	// and end, functions are detached, stacks change.
	Trouble bool
}

// Stream makes events.
type Stream struct {
	o     Options
	r     *rand.Rand
	now   uint64
	tasks []*task
	left  int // events left of the burst of the present task
	at    *task
	e     trace.Event
	args  [6]uint64
	stack []uint64
	// Funcs are the functions that events mention.
	Funcs []trace.Func
}

type task struct {
	pid, tid uint32
	goid     uint64
	top      uint64 // stack pointer of the outermost call
	open     []call
}

type call struct {
	fn uint32
	sp uint64
}

// New returns a stream at its beginning.
func New(o Options) *Stream {
	if o.Threads == 0 && o.Goroutines == 0 {
		o.Threads = 2
	}
	if o.Functions == 0 {
		o.Functions = 40
	}
	s := &Stream{o: o, r: rand.New(rand.NewPCG(o.Seed, 1)), now: 1_000_000_000_000}
	for i := range o.Functions {
		f := trace.Func{
			ID: trace.FuncID(i), Name: fmt.Sprintf("function_%d", i), Path: "/usr/bin/service", BuildID: "0123456789abcdef",
			Offset: uint64(0x1000 + 64*i), Size: 64, Lang: "c",
		}
		if i%8 == 7 {
			f.Module, f.Path, f.BuildID = "libservice.so.1", "/usr/lib/libservice.so.1", "fedcba9876543210"
		}
		s.Funcs = append(s.Funcs, f)
	}
	for i := range o.Threads {
		s.tasks = append(s.tasks, &task{pid: 100, tid: uint32(100 + i), top: 0x7ffe_0000_0000 - uint64(i)<<23})
	}
	for i := range o.Goroutines {
		s.tasks = append(s.tasks, &task{pid: 100, tid: uint32(100 + i%4), goid: uint64(i + 1), top: ^uint64(0) - 100})
	}
	return s
}

// Func implements trace.Functions.
func (s *Stream) Func(id trace.FuncID) *trace.Func {
	if int(id) >= len(s.Funcs) {
		return nil
	}
	return &s.Funcs[id]
}

// Now is the time of the last event.
func (s *Stream) Now() uint64 { return s.now }

// Next returns the next event, valid until the call after.
func (s *Stream) Next() *trace.Event {
	s.now += 200 + uint64(s.r.ExpFloat64()*600)
	if s.left--; s.left < 0 || s.at == nil {
		s.left = s.r.IntN(60)
		s.at = s.tasks[s.r.IntN(len(s.tasks))]
		if s.at.goid != 0 {
			s.at.tid = uint32(100 + s.r.IntN(4))
		}
	}
	t := s.at
	s.e = trace.Event{Time: s.now, PID: t.pid, TID: t.tid, GoID: t.goid}
	if s.o.Trouble && s.r.IntN(200) == 0 {
		return s.trouble(t)
	}
	if n := len(t.open); n > 0 && (n >= 12 || s.r.IntN(100) < 55) {
		return s.exit(t)
	}
	return s.entry(t)
}

// entry calls a function: each function calls a few, in their order.
func (s *Stream) entry(t *task) *trace.Event {
	sp, caller := t.top, uint32(0)
	if n := len(t.open); n > 0 {
		sp, caller = t.open[n-1].sp, t.open[n-1].fn
	}
	fn := (caller*3 + 1 + uint32(s.r.IntN(3))) % uint32(s.o.Functions)
	sp -= uint64(48 + 16*(caller%8))
	t.open = append(t.open, call{fn, sp})
	e := &s.e
	e.Kind, e.Func, e.SP, e.Flags = trace.KindEntry, trace.FuncID(fn), sp, trace.FlagHooked
	if t.goid != 0 {
		e.Flags = trace.FlagGo
	}
	if s.o.Args {
		for i := range s.args {
			s.args[i] = 0x5555_0000_0000 + uint64(s.r.IntN(1<<12))*16
		}
		e.Args = s.args[:]
	}
	if s.o.Stacks {
		s.stack = s.stack[:0]
		for i := len(t.open) - 1; i >= 0; i-- {
			s.stack = append(s.stack, 0x40_0000+uint64(t.open[i].fn)*64+12)
		}
		e.Stack = s.stack
	}
	return e
}

func (s *Stream) exit(t *task) *trace.Event {
	n := len(t.open) - 1
	if s.o.Trouble && n > 0 && s.r.IntN(300) == 0 {
		n-- // a longjmp past the innermost
	}
	c := t.open[n]
	t.open = t.open[:n]
	e := &s.e
	e.Kind, e.Func, e.SP, e.Flags = trace.KindExit, trace.FuncID(c.fn), c.sp, trace.FlagHooked
	if t.goid != 0 {
		e.Flags = trace.FlagGo
	}
	if s.o.Args {
		e.Flags |= trace.FlagReturn
		e.Ret = uint64(s.r.IntN(3)) - 1
	}
	return e
}

// trouble is something else than a call.
func (s *Stream) trouble(t *task) *trace.Event {
	e := &s.e
	switch s.r.IntN(10) {
	case 0:
		*e = trace.Event{Time: s.now, Kind: trace.KindLost, Count: uint64(s.r.IntN(1000)), CPU: int32(s.r.IntN(4)), Cause: trace.LostRing}
	case 1:
		e.Kind, e.Child, e.ChildPID, e.Comm = trace.KindFork, uint32(200+s.r.IntN(50)), e.PID, "worker"
	case 2:
		child := uint32(200 + s.r.IntN(50))
		e.Kind, e.Child, e.ChildPID, e.Comm = trace.KindFork, child, child, "child"
	case 3:
		e.Kind, e.Comm = trace.KindComm, fmt.Sprintf("named-%d", s.r.IntN(5))
	case 4:
		e.Kind, e.Func = trace.KindUSDT, trace.FuncID(s.r.IntN(s.o.Functions))
		e.Args, e.Unread, e.Texts = s.args[:3], uint32(s.r.IntN(4)), []string{"", "text", "other"}[:1+s.r.IntN(3)]
	case 5:
		e.Kind, e.Func, e.Count = trace.KindDetached, trace.FuncID(s.r.IntN(s.o.Functions)), 12345
	case 6:
		// An exit of which the entry was not seen.
		e.Kind, e.Func, e.SP = trace.KindExit, trace.FuncID(s.r.IntN(s.o.Functions)), t.top-uint64(s.r.IntN(1<<12))
	case 9:
		e.Kind, e.TID, e.GoID, e.Status = trace.KindTaskExit, uint32(200+s.r.IntN(50)), 0, uint32(s.r.IntN(2))*11
	case 8:
		e.Kind, e.Comm, e.Weight, e.Cut, e.CPU, e.Count = trace.KindSample, "service", 1_000_000, trace.CutTooDeep, 1, 1
		e.Stack, e.Kernel = []uint64{0x40_0010, 0x40_0400, 0x40_1000}, []uint64{0xffffffff81000010, 0xffffffff81000400}
		e.StackID, e.Waker = uint64(s.r.IntN(10)), uint64(s.r.IntN(2))
	case 7:
		// The task's other stack; an older frame returns later.
		e.Kind, e.Func, e.SP = trace.KindEntry, trace.FuncID(s.r.IntN(s.o.Functions)), t.top-1<<20-uint64(s.r.IntN(64))*16
	}
	return e
}

// Region tells two stacks of every thread apart: it is a trace.Regions.
func Region(_ uint32, sp uint64) (trace.Region, bool) {
	return trace.Region{Lo: sp &^ (1<<20 - 1), Hi: sp | (1<<20 - 1) + 1, Own: true}, true
}
