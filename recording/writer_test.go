package recording

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/synth"
	"github.com/sbxtrace/sbxtrace/trace"
)

// memory is a store that keeps a recording in memory.
type memory struct {
	bytes.Buffer
	blocks int
}

func (m *memory) Append(_ *Header, b []byte) error {
	m.blocks++
	_, err := m.Write(b)
	return err
}
func (m *memory) Close() error { return nil }

func (m *memory) file(t testing.TB) *File {
	t.Helper()
	f, err := NewFile(bytes.NewReader(m.Bytes()), int64(m.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// ignore is a sink for pairers that are needed for their state alone.
type ignore struct{}

func (ignore) Enter(*trace.Lane, *trace.Call) {}
func (ignore) Leave(*trace.Lane, *trace.Call) {}
func (ignore) Event(*trace.Event)             {}
func (ignore) Tick(uint64)                    {}

// record writes n events of a stream as a session does, and returns them.
func record(t testing.TB, store Store, s *synth.Stream, n int, opt Options) []trace.Event {
	t.Helper()
	opt.Functions = s
	w, err := NewWriter(store, opt)
	if err != nil {
		t.Fatal(err)
	}
	p := trace.NewPairer(ignore{}, func(pid uint32, sp uint64) (trace.Region, bool) {
		r, ok := synth.Region(pid, sp)
		w.Region(pid, r)
		return r, ok
	})
	w.Begin(p)
	events := make([]trace.Event, 0, n)
	for i := range n {
		e := s.Next()
		p.Event(e)
		w.Event(e)
		events = append(events, clone(e))
		if i%1000 == 999 {
			p.Tick(s.Now())
			w.Tick(s.Now())
		}
	}
	p.Finish(s.Now())
	w.Finish(s.Now())
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return events
}

func clone(e *trace.Event) trace.Event {
	c := *e
	c.Args, c.Stack, c.Kernel, c.Texts = slices.Clone(e.Args), slices.Clone(e.Stack), slices.Clone(e.Kernel), slices.Clone(e.Texts)
	return c
}

// events are all events of a recording.
func events(t testing.TB, f *File) []trace.Event {
	t.Helper()
	var out []trace.Event
	for i := range f.Blocks {
		b, err := f.Block(i)
		if err != nil {
			t.Fatal(err)
		}
		items := b.Items()
		for items.Next() {
			if items.Item.Kind == ItemEvent {
				out = append(out, clone(&items.Item.Event))
			}
		}
		if err := items.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

var streams = map[string]synth.Options{
	"threads":    {Seed: 1},
	"goroutines": {Seed: 2, Goroutines: 500},
	"args":       {Seed: 3, Args: true},
	"stacks":     {Seed: 4, Args: true, Stacks: true},
	"trouble":    {Seed: 5, Threads: 3, Goroutines: 20, Args: true, Stacks: true, Trouble: true},
}

func TestRoundTrip(t *testing.T) {
	for name, o := range streams {
		t.Run(name, func(t *testing.T) {
			var m memory
			s := synth.New(o)
			want := record(t, &m, s, 150_000, Options{})
			f := m.file(t)
			got := events(t, f)
			if len(got) != len(want) {
				t.Fatalf("%d events of %d", len(got), len(want))
			}
			for i := range got {
				if !reflect.DeepEqual(got[i], want[i]) {
					t.Fatalf("event %d\n got %+v\nwant %+v", i, got[i], want[i])
				}
			}
			if f.Damage.Any() {
				t.Errorf("damage: %+v", f.Damage)
			}
			checkHeaders(t, f, want)
			checkFunctions(t, f, s)
		})
	}
}

// checkHeaders compares what headers count with the events.
func checkHeaders(t *testing.T, f *File, want []trace.Event) {
	t.Helper()
	var got, sum counts
	got.first = ^uint64(0)
	sum.first = ^uint64(0)
	for i := range f.Blocks {
		h := &f.Blocks[i].Header
		got.first, got.last = min(got.first, h.First), max(got.last, h.Last)
		got.events += h.Events
		got.calls += h.Calls
		got.lost += h.Lost
	}
	for i := range want {
		e := &want[i]
		sum.first, sum.last = min(sum.first, e.Time), max(sum.last, e.Time)
		sum.events++
		switch e.Kind {
		case trace.KindEntry:
			sum.calls++
		case trace.KindLost:
			sum.lost += e.Count
		}
	}
	if got != sum {
		t.Errorf("headers say %+v, the events %+v", got, sum)
	}
}

func checkFunctions(t *testing.T, f *File, s *synth.Stream) {
	t.Helper()
	for i := range f.Blocks {
		b, err := f.Block(i)
		if err != nil {
			t.Fatal(err)
		}
		known := map[trace.FuncID]bool{}
		for _, fn := range b.Functions {
			known[fn.ID] = true
			if want := *s.Func(fn.ID); fn != want {
				t.Fatalf("function %+v, want %+v", fn, want)
			}
		}
		for items := b.Items(); items.Next(); {
			if e := &items.Item.Event; items.Item.Kind == ItemEvent && e.Kind == trace.KindEntry && !known[e.Func] {
				t.Fatalf("block %d does not describe function %d", i, e.Func)
			}
		}
	}
}

// A call of which entry and exit are recorded takes little: the goal of real
// programs, with the entropy of time stamps as it is.
func TestSize(t *testing.T) {
	var m memory
	record(t, &m, synth.New(synth.Options{Seed: 7, Threads: 4}), 300_000, Options{})
	f := m.file(t)
	var calls uint64
	for i := range f.Blocks {
		calls += uint64(f.Blocks[i].Header.Calls)
	}
	if per := float64(m.Len()) / float64(calls); per > 5 {
		t.Errorf("%.2f bytes per call, want 5 at most", per)
	}
}

// What is not yet a full block is written when a second has gone by.
func TestWriterSeals(t *testing.T) {
	var m memory
	s := synth.New(synth.Options{Seed: 1})
	w, err := NewWriter(&m, Options{Functions: s})
	if err != nil {
		t.Fatal(err)
	}
	w.Begin(trace.NewPairer(ignore{}, nil))
	w.Event(s.Next())
	start := s.Now()
	w.Tick(start + uint64(900*time.Millisecond))
	if err := w.wait(); err != nil {
		t.Fatal(err)
	}
	if m.blocks != 1 { // the session
		t.Errorf("%d blocks after 0.9 s", m.blocks)
	}
	w.Tick(start + uint64(1100*time.Millisecond))
	if err := w.wait(); err != nil {
		t.Fatal(err)
	}
	if m.blocks != 2 {
		t.Errorf("%d blocks after 1.1 s", m.blocks)
	}
	if got := events(t, m.file(t)); len(got) != 1 {
		t.Errorf("%d events", len(got))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkWriter(b *testing.B) {
	for _, name := range []string{"threads", "args"} {
		b.Run(name, func(b *testing.B) {
			s := synth.New(streams[name])
			stream := make([]trace.Event, 1<<20)
			for i := range stream {
				stream[i] = clone(s.Next())
			}
			b.ResetTimer()
			var size int
			for range b.N {
				var m memory
				w, err := NewWriter(&m, Options{Functions: s})
				if err != nil {
					b.Fatal(err)
				}
				w.Begin(trace.NewPairer(ignore{}, nil))
				for i := range stream {
					w.Event(&stream[i])
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
				size = m.Len()
			}
			b.ReportMetric(float64(b.N)*float64(len(stream))/b.Elapsed().Seconds()/1e6, "Mevents/s")
			b.ReportMetric(float64(size)/float64(len(stream)/2), "bytes/call")
		})
	}
}

func BenchmarkReader(b *testing.B) {
	var m memory
	record(b, &m, synth.New(streams["threads"]), 1<<20, Options{})
	f := m.file(b)
	b.ResetTimer()
	for range b.N {
		for i := range f.Blocks {
			block, err := f.Block(i)
			if err != nil {
				b.Fatal(err)
			}
			items := block.Items()
			for items.Next() {
			}
		}
	}
	b.ReportMetric(float64(b.N)*(1<<20)/b.Elapsed().Seconds()/1e6, "Mevents/s")
}
