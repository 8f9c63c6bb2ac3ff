package view

import (
	"io"
	"testing"

	"github.com/sbxtrace/sbxtrace/trace"
)

// callsIn makes the calls of n iterations of a program of three levels, half
// of them leaves, and gives them to s without a Pairer: what is measured is the
// view. It returns how many calls were made.
func callsIn(s trace.Sink, n int, lanes []*trace.Lane) int {
	now := uint64(start)
	left := new(trace.Call)
	enter := func(l *trace.Lane, fn trace.FuncID) {
		now += 130
		l.Open = append(l.Open, trace.Call{})
		depth := len(l.Open) - 1
		c := &l.Open[depth]
		c.Start, c.Last, c.Func, c.Depth, c.TID = now, now, fn, int32(depth), l.TID
		if depth > 0 {
			c.Parent = l.Open[depth-1].Func
		}
		s.Enter(l, c)
	}
	leave := func(l *trace.Lane) {
		now += 170
		*left = l.Open[len(l.Open)-1]
		l.Open = l.Open[:len(l.Open)-1]
		left.Last = now
		s.Leave(l, left)
	}
	for i := range n {
		l := lanes[i/8%len(lanes)]
		enter(l, fnMain)
		enter(l, fnParse)
		for range 2 {
			enter(l, fnMalloc)
			leave(l)
		}
		leave(l)
		leave(l)
	}
	return 4 * n
}

func benchLanes(n int) []*trace.Lane {
	lanes := make([]*trace.Lane, n)
	for i := range lanes {
		lanes[i] = &trace.Lane{PID: 4711, TID: uint32(4711 + i)}
		if i%2 == 1 {
			lanes[i].GoID = uint64(i)
		}
	}
	return lanes
}

// closer is a view under measurement.
type closer interface {
	trace.Sink
	Close() error
}

func benchCalls(b *testing.B, s closer, lanes int) {
	l := benchLanes(lanes)
	callsIn(s, 100_000, l)
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for b.Loop() {
		n += callsIn(s, 1000, l)
	}
	b.StopTimer()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/call")
}

func BenchmarkTree(b *testing.B) {
	benchCalls(b, NewTree(io.Discard, program, TreeOptions{}), 1)
}

func BenchmarkTreeColor(b *testing.B) {
	benchCalls(b, NewTree(io.Discard, program, TreeOptions{Color: true}), 1)
}

func BenchmarkTreeLanes(b *testing.B) {
	benchCalls(b, NewTree(io.Discard, program, TreeOptions{}), 1000)
}

func BenchmarkJSON(b *testing.B) {
	benchCalls(b, NewJSON(io.Discard, program, JSONOptions{}), 1)
}

func BenchmarkJSONLanes(b *testing.B) {
	benchCalls(b, NewJSON(io.Discard, program, JSONOptions{}), 1000)
}

func BenchmarkSummaryStats(b *testing.B) {
	s := trace.NewStats()
	l := benchLanes(1)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n += callsIn(s, 1000, l)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/call")
}
