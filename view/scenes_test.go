package view

import "github.com/sbxtrace/sbxtrace/trace"

// scenes are what the golden files show.
var scenes = []struct {
	name string
	act  func(s *stage)
}{
	{"nested", func(s *stage) {
		a := s.thread(4711, 4711)
		a.enter(fnMain)
		a.enter(fnParse)
		a.leaf(fnMalloc, 210)
		a.leaf(fnMalloc, 12_300)
		a.leave(fnParse, 1_230_000)
		a.leaf(fnParse, 20_000)
		a.leave(fnMain, 1_500_000_000)
	}},
	{"threads", func(s *stage) {
		a, b, c := s.thread(4711, 4711), s.thread(4711, 4712), s.thread(4711, 4713)
		a.enter(fnMain)
		for range 3 {
			b.enter(fnWorker)
			a.enter(fnParse)
			b.enter(fnMalloc)
			a.leaf(fnMalloc, 300)
			b.leave(fnMalloc, 200)
			c.leaf(fnFib, 40)
			a.leave(fnParse, 900)
			b.leave(fnWorker, 1000)
			s.wait(15 * ms)
		}
		a.leave(fnMain, 500)
	}},
	{"goroutines", func(s *stage) {
		a, b := s.goroutine(812, 813, 17), s.goroutine(812, 814, 1234567)
		other := s.goroutine(900, 900, 17)
		a.enter(fnServe)
		b.enter(fnServe)
		a.leaf(fnWorker, 1000)
		a.tid = 815 // it moves to another thread
		b.leaf(fnWorker, 2000)
		other.leaf(fnWorker, 5)
		a.leave(fnServe, 30*ms)
		b.enter(fnWorker)
		s.send(b.event(trace.Event{Kind: trace.KindGoExit}))
	}},
	{"recursion", func(s *stage) {
		a := s.thread(4711, 4711)
		a.enter(fnMain)
		for range 40 {
			a.enter(fnFib)
		}
		for range 40 {
			a.leave(fnFib, 50)
		}
		a.leave(fnMain, 50)
	}},
	{"exceptions", func(s *stage) {
		a := s.thread(4711, 4711)
		a.enter(fnMain)
		a.enter(fnParse)
		a.enter(fnThrow)
		a.drop(2)
		s.wait(5000)
		a.leaf(fnMalloc, 100) // in main's handler: proves both gone
		a.enter(fnThrow)
		a.drop(1)
		a.leave(fnMain, 2000)
	}},
	{"lost", func(s *stage) {
		a, b := s.thread(4711, 4711), s.thread(4711, 4712)
		a.enter(fnMain)
		b.enter(fnWorker)
		a.enter(fnParse)
		s.send(trace.Event{Kind: trace.KindLost, Count: 12345, CPU: 0, Cause: trace.LostRing})
		s.send(trace.Event{Kind: trace.KindLost, Count: 5, CPU: 1, Cause: trace.LostRing})
		s.send(trace.Event{Kind: trace.KindLost, Count: 1, CPU: 1, Cause: trace.LostMissed})
		a.leave(fnParse, 100)
		b.leave(fnWorker, 100)
		a.leaf(fnMalloc, 100)
		a.leave(fnMain, 100)
	}},
	{"processes", func(s *stage) {
		a := s.thread(4711, 4711)
		a.enter(fnMain)
		a.enter(fnFork)
		s.send(a.event(trace.Event{Kind: trace.KindFork, Child: 4720, ChildPID: 4720, Comm: "demo"}))
		child := s.thread(4720, 4720)
		child.sp = append(child.sp, a.sp...)
		a.leave(fnFork, 1000)
		child.leave(fnFork, 100)
		child.leaf(fnMalloc, 50)
		child.enter(fnWorker)
		s.send(child.event(trace.Event{Kind: trace.KindExec, Comm: "ls"}))
		child.sp = nil
		child.leaf(fnMain, 3000)
		s.send(child.event(trace.Event{Kind: trace.KindTaskExit}))
		s.send(child.event(trace.Event{Kind: trace.KindProcessExit}))
		s.send(a.event(trace.Event{Kind: trace.KindFork, Child: 4721, ChildPID: 4711, Comm: "helper"}))
		thread := s.thread(4711, 4721)
		thread.enter(fnWorker)
		s.send(thread.event(trace.Event{Kind: trace.KindTaskExit}))
	}},
	{"detached", func(s *stage) {
		a := s.thread(1, 1)
		a.enter(fnMain)
		for i := range 7 {
			s.send(trace.Event{Kind: trace.KindDetached, Func: trace.FuncID(i % 4), Count: 1_200_000 >> i})
		}
		s.wait(ms)
		a.leave(fnMain, ms)
	}},
	{"args", func(s *stage) {
		a := s.thread(4711, 4711)
		a.enter(fnMain, 1, 0x7ffd12345678)
		a.enter(fnParse, 0x55d0c0ffee00)
		a.enter(fnMalloc, 0x20)
		a.leave(fnMalloc, 90, 0x55d0deadbee0)
		a.leave(fnParse, 300, 0)
		a.leave(fnMain, 300, 0xffffffffffffffff)
	}},
	{"stacks", func(s *stage) {
		a := s.thread(4711, 4711)
		a.enterAt(fnMain, []uint64{0x7f12a0001234, 0x12})
		a.enterAt(fnMalloc, []uint64{0x401136, 0x40125c, 0x7f12a0001234}, 0x20)
		a.leave(fnMalloc, 90, 0x55d0deadbee0)
		a.enterCut(fnParse, []uint64{0x401136, 0x40125c}, 0x20)
		a.leave(fnParse, 80, 0)
		a.leave(fnMain, 300)
	}},
	{"usdt", func(s *stage) {
		a := s.thread(4711, 4711)
		a.enter(fnMain)
		s.wait(1000)
		s.send(a.event(trace.Event{Kind: trace.KindUSDT, Func: fnProbe, Args: []uint64{0x55d0c0ffee00, 3, 0}, Unread: 1 << 2}))
		a.leave(fnMain, 1000)
		s.send(a.event(trace.Event{Kind: trace.KindUSDT, Func: fnProbe, Args: []uint64{0x55d0c0ffee00, ^uint64(0)},
			Texts: []string{"SELECT 1,\n\t'\x1b[2J\u00e9'", ""}}))
		s.send(a.event(trace.Event{Kind: trace.KindUSDT, Func: fnProbe}))
	}},
	{"held", func(s *stage) {
		a, b := s.thread(4711, 4711), s.thread(4711, 4712)
		a.enter(fnServe) // waits for seconds
		for range 30 {
			b.leaf(fnMalloc, 500)
			s.wait(9 * ms)
		}
		a.leave(fnServe, sec)
		a.enter(fnFib)
		a.leave(fnFib, 70*ms) // held for less: still one line
	}},
	{"open", func(s *stage) {
		a := s.thread(4711, 4711)
		a.enter(fnMain)
		a.enter(fnServe)
		a.enter(fnFib)
		s.p.Event(&trace.Event{Kind: trace.KindDetached, Time: s.now + 1000, Func: fnFib, Count: 100_000})
		s.wait(3 * sec)
	}},
	{"coroutines", func(s *stage) {
		// Two coroutines take turns on one thread: calls do not nest.
		p := trace.NewPairer(s.sink, func(_ uint32, sp uint64) (trace.Region, bool) {
			return trace.Region{Lo: sp &^ 0xffff, Hi: sp | 0xffff + 1, Own: true}, true
		})
		step := func(kind trace.Kind, fn trace.FuncID, sp uint64) {
			s.wait(1000)
			p.Event(&trace.Event{Time: s.now, Kind: kind, Func: fn, SP: sp, PID: 4711, TID: 4711,
				Stack: []uint64{sp}[:kind&1]})
		}
		const one, two = 0x7f0000018000, 0x7f0000038000
		step(trace.KindEntry, fnMain, top)
		step(trace.KindEntry, fnServe, one)
		step(trace.KindEntry, fnWorker, two)
		step(trace.KindEntry, fnParse, two-64)
		step(trace.KindEntry, fnMalloc, one-64)
		step(trace.KindExit, fnMalloc, one-64)
		step(trace.KindExit, fnServe, one)
		step(trace.KindExit, fnParse, two-64)
		step(trace.KindExit, fnWorker, two)
		step(trace.KindExit, fnMain, top)
	}},
	{"cycle", func(s *stage) {
		// Mutual recursion has no runs to collapse; a chain of one function does.
		a := s.thread(4711, 4711)
		for range 16 {
			a.enter(fnServe)
			a.enter(fnParse)
		}
		for range 1000 {
			a.enter(fnFib)
		}
		a.leaf(fnMalloc, 40)
		for i := range uint64(1000) {
			a.leave(fnFib, 50)
			if i == 500 {
				a.leaf(fnMalloc, 40)
			}
		}
		a.drop(32)
		a.leaf(fnMain, 60)
	}},
	{"long", func(s *stage) {
		a := s.thread(4711, 4711)
		a.enter(fnMain)
		a.leaf(fnLong, 100)
		a.enter(fnLong, 1, 2)
		a.leaf(fnMalloc, 100)
		a.leave(fnLong, 100)
		a.leave(fnMain, 100)
	}},
}
