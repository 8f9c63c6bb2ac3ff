package trace

import (
	"fmt"
	"strings"
	"testing"
)

// log is a Sink that writes what it gets as short lines.
type log struct{ strings.Builder }

func (g *log) Enter(l *Lane, c *Call) {
	fmt.Fprintf(g, "%s%d>%c ", strings.Repeat(".", int(c.Depth)), lane(l), 'a'+rune(c.Func))
}

func (g *log) Leave(l *Lane, c *Call) {
	fmt.Fprintf(g, "%s%d<%c", strings.Repeat(".", int(c.Depth)), lane(l), 'a'+rune(c.Func))
	if c.End != EndReturn {
		fmt.Fprintf(g, "!%s", c.End)
	}
	fmt.Fprintf(g, ":%d/%d ", c.Duration(), c.Self())
}

func (g *log) Event(e *Event) {}
func (g *log) Tick(uint64)    {}

func lane(l *Lane) uint64 {
	if l.GoID != 0 {
		return l.GoID
	}
	return uint64(l.TID)
}

// feed makes one event per word, a time unit apart. A word is
//
//	1>a@90     thread 1 enters a at stack address 90
//	1<a@90     it returns (h: by return probe, t: may tail-call)
//	g7>a@-20   goroutine 7 on thread 1
//	1x 1X      thread, process 1 ends;  g7x  goroutine 7 ends
//	1e         process 1 executes;      1f2  process 1 forks 2
//	L          events were lost
func feed(t *testing.T, p *Pairer, script string) uint64 {
	t.Helper()
	now := uint64(0)
	for _, word := range strings.Fields(script) {
		now++
		e := Event{Time: now, PID: 1, TID: 1}
		w := word
		if rest, ok := strings.CutPrefix(w, "g"); ok {
			e.Flags |= FlagGo
			e.GoID = uint64(rest[0] - '0')
			w = rest[1:]
		} else if w[0] >= '0' && w[0] <= '9' {
			e.TID = uint32(w[0] - '0')
			w = w[1:]
		}
		switch w[0] {
		case '>', '<':
			e.Kind = KindEntry
			if w[0] == '<' {
				e.Kind = KindExit
			}
			e.Func = FuncID(w[1] - 'a')
			var sp int64
			at, flags, _ := strings.Cut(w[3:], ":")
			if _, err := fmt.Sscan(at, &sp); err != nil {
				t.Fatalf("%q: %v", word, err)
			}
			e.SP = uint64(sp)
			if strings.Contains(flags, "h") {
				e.Flags |= FlagHooked
			}
			if strings.Contains(flags, "t") {
				e.Flags |= FlagTailJumps
			}
		case 'x':
			e.Kind = KindTaskExit
			if e.GoID != 0 {
				e.Kind = KindGoExit
			}
		case 'X':
			e.Kind, e.PID = KindProcessExit, 1
		case 'e':
			e.Kind = KindExec
		case 'f':
			e.Kind, e.ChildPID, e.Child = KindFork, uint32(w[1]-'0'), uint32(w[1]-'0')
		case 'L':
			e.Kind = KindLost
		default:
			t.Fatalf("bad word %q", word)
		}
		p.Event(&e)
	}
	return now
}

func TestPairer(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"nested", "1>a@90 1>b@80 1<b@80 1<a@90",
			"1>a .1>b .1<b:1/1 1<a:3/2 "},
		{"threads interleave", "1>a@90 2>a@90 1<a@90 2<a@90",
			"1>a 2>a 1<a:2/2 2<a:2/2 "},
		{"longjmp out of two frames", "1>a@90 1>b@80 1>c@70 1<a@90",
			"1>a .1>b ..1>c ..1<c!unwound:1/1 .1<b!unwound:2/1 1<a:3/1 "},
		{"longjmp, then a call at the same place", "1>a@90 1>b@80 1>b@80 1<b@80 1<a@90",
			"1>a .1>b .1<b!unwound:1/1 .1>b .1<b:1/1 1<a:4/2 "},
		{"tail call with return probes", "1>a@90:ht 1>b@90:h 1<b@90:h 1<a@90:h",
			"1>a .1>b .1<b:1/1 1<a:3/2 "},
		{"tail call with RET sites", "1>a@90:t 1>b@90 1<b@90",
			"1>a .1>b .1<b:1/1 1<a:2/1 "},
		{"tail call from one with RET sites to one with a return probe", "1>a@90:t 1>b@90:h 1<b@90:h 1>c@90 1<c@90",
			"1>a .1>b .1<b:1/1 1<a:2/1 1>c 1<c:1/1 "},
		{"tail call whose entry was not seen", "1>a@90:t 1<b@90 1>c@90 1<c@90", "1>a 1<a:1/1 1>c 1<c:1/1 "},
		{"recursion", "1>a@90 1>a@80 1>a@70 1<a@70 1<a@80 1<a@90",
			"1>a .1>a ..1>a ..1<a:1/1 .1<a:3/2 1<a:5/2 "},
		{"goroutine moves between threads", "g7>a@-20 g7>b@-40 g7<b@-40 g7<a@-20",
			"7>a .7>b .7<b:1/1 7<a:3/2 "},
		{"Goexit inside a call", "g7>a@-20 g7>b@-40 g7x",
			"7>a .7>b .7<b!goroutine-exit:1/1 7<a!goroutine-exit:2/1 "},
		{"thread ends inside a call", "2>a@90 2x", "2>a 2<a!thread-exit:1/1 "},
		{"process ends", "1>a@90 2>a@90 1X", "1>a 2>a 1<a!thread-exit:2/2 2<a!thread-exit:1/1 "},
		{"exec", "1>a@90 1e 1>b@90 1<b@90", "1>a 1<a!exec:1/1 1>b 1<b:1/1 "},
		{"exit without entry", "1<a@90 1>b@80 1<b@80", "1>b 1<b:1/1 "},
		{"still open", "1>a@90", "1>a 1<a!open:0/0 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var g log
			p := NewPairer(&g, nil)
			p.Finish(feed(t, p, tt.script))
			if g.String() != tt.want {
				t.Errorf("%s\n got %s\nwant %s", tt.script, g.String(), tt.want)
			}
		})
	}
}

// A child process returns through frames that its parent entered: they are the
// parent's calls, and the child's own nest in them.
func TestPairerFork(t *testing.T) {
	var g log
	p := NewPairer(&g, nil)
	feed(t, p, "1>a@90 1f2")
	p.Event(&Event{Kind: KindEntry, Time: 3, PID: 2, TID: 2, SP: 80, Func: 1})
	p.Event(&Event{Kind: KindExit, Time: 4, PID: 2, TID: 2, SP: 80, Func: 1})
	p.Event(&Event{Kind: KindExit, Time: 5, PID: 2, TID: 2, SP: 90, Func: 0})
	p.Event(&Event{Kind: KindExit, Time: 6, PID: 1, TID: 1, SP: 90, Func: 0})
	if want := "1>a .2>b .2<b:1/1 1<a:5/5 "; g.String() != want {
		t.Errorf("got %s want %s", g.String(), want)
	}
}

// stacks of a hundred bytes each, by their hundreds.
func hundreds(_ uint32, sp uint64) (Region, bool) {
	return Region{Lo: sp / 100 * 100, Hi: sp/100*100 + 100, Own: true}, true
}

// heap is a stack above a million and a heap below, with whatever stacks are in
// it.
func heap(_ uint32, sp uint64) (Region, bool) {
	if sp >= 1<<20 {
		return Region{Lo: 1 << 20, Hi: 1 << 30, Own: true}, true
	}
	return Region{Hi: 1 << 20, Shared: true}, true
}

func TestPairerStacks(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"signal handler on a higher stack", "1>a@90 1>s@950 1>t@940 1<t@940 1<s@950 1<a@90",
			"1>a .1>s ..1>t ..1<t:1/1 .1<s:3/2 1<a:5/2 "},
		{"handler left by siglongjmp", "1>a@90 1>b@80 1>s@950 1>c@80 1<c@80 1<a@90",
			"1>a .1>b ..1>s .1<b!unwound:2/2 .1>c .1<c:1/1 1<a:5/2 ..1<s!open:3/3 "},
		{"coroutines take turns", "1>a@190 1>b@290 1>c@180 1<c@180 1>d@280 1<d@280 1<a@190 1<b@290",
			"1>a .1>b .1>c .1<c:1/1 ..1>d ..1<d:1/1 1<a:6/5 .1<b:6/5 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var g log
			p := NewPairer(&g, hundreds)
			p.Finish(feed(t, p, tt.script))
			if g.String() != tt.want {
				t.Errorf("%s\n got %s\nwant %s", tt.script, g.String(), tt.want)
			}
		})
	}
}

// Stacks that share a mapping are told apart by their distance.
func TestPairerHeapStacks(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"coroutines in one heap, the second below the first",
			"1>a@2000000 1>b@500000 1>c@499000 1>d@400000 1<c@499000 1<d@400000 1<b@500000 1<a@2000000",
			"1>a .1>b ..1>c ...1>d ..1<c:2/2 ...1<d:2/2 .1<b:5/3 1<a:7/2 "},
		{"and above it",
			"1>a@2000000 1>b@500000 1>c@499000 1>d@600000 1<c@499000 1<d@600000 1<b@500000 1<a@2000000",
			"1>a .1>b ..1>c ...1>d ..1<c:2/2 ...1<d:2/2 .1<b:5/3 1<a:7/2 "},
		{"a scheduler between them",
			"1>a@2000000 1>s@1999000 1>b@500000 1<s@1999000 1>s@1999000 1>c@400000 1<s@1999000 1<b@500000 1<c@400000 1<a@2000000",
			"1>a .1>s ..1>b .1<s:2/2 .1>s ..1>c .1<s:2/2 ..1<b:5/5 ..1<c:3/3 1<a:9/5 "},
		{"one that grows, and leaves frames by a jump",
			"1>b@500000 1>c@490000 1>d@480000 1>c@490000 1<c@490000 1<b@500000",
			"1>b .1>c ..1>d ..1<d!unwound:1/1 .1<c!unwound:2/1 .1>c .1<c:1/1 1<b:5/2 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var g log
			p := NewPairer(&g, heap)
			p.Finish(feed(t, p, tt.script))
			if g.String() != tt.want {
				t.Errorf("%s\n got %s\nwant %s", tt.script, g.String(), tt.want)
			}
		})
	}
}

// More stacks than are kept: the oldest are closed, and nothing grows.
func TestPairerManyStacks(t *testing.T) {
	s := &counting{ends: make(map[EndKind]int)}
	p := NewPairer(s, func(_ uint32, sp uint64) (Region, bool) { return Region{Shared: true}, true })
	for i := range uint64(4 * maxStacks) {
		p.Event(&Event{Kind: KindEntry, Time: i, PID: 1, TID: 1, SP: 1<<40 + i<<20})
		if l := p.lanes[laneKey{pid: 1, tid: 1}]; len(l.stacks) > maxStacks || len(l.Open) > maxStacks {
			t.Fatalf("%d stacks and %d open calls after %d", len(l.stacks), len(l.Open), i+1)
		}
	}
	p.Finish(1 << 20)
	if s.enters != 4*maxStacks || s.leaves != s.enters {
		t.Errorf("%d entered, %d left", s.enters, s.leaves)
	}
}

// The kernel keeps 64 return probes per thread: deeper calls have no exit.
func TestPairerDeepRecursion(t *testing.T) {
	ends := make(map[EndKind]int)
	s := &counting{ends: ends}
	p := NewPairer(s, nil)
	const depth = 1000
	for i := range uint64(depth) {
		p.Event(&Event{Kind: KindEntry, Time: i, PID: 1, TID: 1, SP: 1<<20 - i*16, Flags: FlagHooked})
	}
	for i := range uint64(maxHooked) {
		p.Event(&Event{Kind: KindExit, Time: depth + i, PID: 1, TID: 1, SP: 1<<20 - (maxHooked-1-i)*16, Flags: FlagHooked})
	}
	if ends[EndReturn] != maxHooked || ends[EndUnseen] != depth-maxHooked || len(ends) != 2 {
		t.Errorf("ends: %v", ends)
	}
	if s.deepest != depth-1 {
		t.Errorf("deepest call at %d, want %d", s.deepest, depth-1)
	}
}

// A loop of tail calls at one stack pointer must not grow without bound.
func TestPairerTailCallLoop(t *testing.T) {
	s := &counting{ends: make(map[EndKind]int)}
	p := NewPairer(s, nil)
	for i := range uint64(10_000) {
		p.Event(&Event{Kind: KindEntry, Time: i, PID: 1, TID: 1, SP: 90, Func: FuncID(i % 2), Flags: FlagTailJumps})
	}
	if s.deepest > maxGroup+1 {
		t.Errorf("%d calls open", s.deepest)
	}
	p.Event(&Event{Kind: KindExit, Time: 10_000, PID: 1, TID: 1, SP: 90, Func: 1})
	if s.enters != 10_000 || s.leaves != s.enters {
		t.Errorf("%d entered, %d left", s.enters, s.leaves)
	}
}

type counting struct {
	ends           map[EndKind]int
	deepest        int32
	enters, leaves int
}

func (s *counting) Enter(_ *Lane, c *Call) {
	s.enters++
	s.deepest = max(s.deepest, c.Depth)
}

func (s *counting) Leave(_ *Lane, c *Call) {
	s.leaves++
	s.ends[c.End]++
}
func (*counting) Event(*Event) {}
func (*counting) Tick(uint64)  {}

func TestPairerDetach(t *testing.T) {
	var g log
	p := NewPairer(&g, nil)
	feed(t, p, "1>a@90 1>b@80 1>c@70")
	p.Event(&Event{Kind: KindDetached, Time: 9, Func: 1})
	feed(t, p, "")
	p.Event(&Event{Kind: KindExit, Time: 10, PID: 1, TID: 1, SP: 70, Func: 2})
	p.Event(&Event{Kind: KindExit, Time: 11, PID: 1, TID: 1, SP: 90, Func: 0})
	if want := "1>a .1>b ..1>c .1<b!detached:7/7 ..1<c:7/7 1<a:10/3 "; g.String() != want {
		t.Errorf("got %s\nwant %s", g.String(), want)
	}
}

// Whatever comes, every call that is entered is left once, callees first, and
// nothing stays behind.
func FuzzPairer(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &counting{ends: make(map[EndKind]int)}
		p := NewPairer(s, hundreds)
		for i := 0; i+3 < len(data); i += 4 {
			e := Event{
				Time: uint64(i), PID: uint32(data[i]>>6) + 1, TID: uint32(data[i]>>5) + 1,
				Kind: Kind(data[i] % 11), Flags: Flags(data[i+1] % 16), Func: FuncID(data[i+2] % 4),
				SP: uint64(data[i+3]) * 8, GoID: uint64(data[i+1] >> 6), ChildPID: uint32(data[i+2]%5) + 1, Child: uint32(data[i+3]%9) + 1,
			}
			p.Event(&e)
		}
		p.Finish(uint64(len(data)))
		if s.enters != s.leaves {
			t.Errorf("%d entered, %d left", s.enters, s.leaves)
		}
		if len(p.lanes) != 0 {
			t.Errorf("%d lanes left behind", len(p.lanes))
		}
	})
}

func BenchmarkPairer(b *testing.B) {
	s := &counting{ends: make(map[EndKind]int)}
	p := NewPairer(s, nil)
	e := Event{PID: 1, TID: 1}
	for b.Loop() {
		for d := range uint64(4) {
			e.Kind, e.SP, e.Func = KindEntry, 1000-d*16, FuncID(d)
			e.Time++
			p.Event(&e)
		}
		for d := range uint64(4) {
			e.Kind, e.SP, e.Func = KindExit, 1000-(3-d)*16, FuncID(3-d)
			e.Time++
			p.Event(&e)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/4, "ns/call")
}
