package replay

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/synth"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/view"
)

// printed is everything that the views print of a stream.
type printed struct {
	tree, json bytes.Buffer
	t          *view.Tree
	j          *view.JSON
	stats      *trace.Stats
	fns        trace.Functions
	enters     map[string]int // of calls that were not left
	wrong      string
}

func newPrinted(fns trace.Functions, frame view.Frame) *printed {
	p := &printed{stats: trace.NewStats(), fns: fns, enters: map[string]int{}}
	p.t = view.NewTree(&p.tree, fns, view.TreeOptions{Frame: frame})
	p.j = view.NewJSON(&p.json, fns, view.JSONOptions{Entries: true, Frame: frame})
	return p
}

func (p *printed) key(l *trace.Lane, c *trace.Call) string {
	return fmt.Sprint(l.PID, l.GoID, c.TID, c.Func, c.Start, c.Depth)
}

func (p *printed) Enter(l *trace.Lane, c *trace.Call) {
	p.enters[p.key(l, c)]++
	p.stats.Enter(l, c)
	p.t.Enter(l, c)
	p.j.Enter(l, c)
}

func (p *printed) Leave(l *trace.Lane, c *trace.Call) {
	k := p.key(l, c)
	if p.enters[k]--; p.enters[k] < 0 {
		p.wrong = "left and not entered: " + k
	} else if p.enters[k] == 0 {
		delete(p.enters, k)
	}
	p.stats.Leave(l, c)
	p.t.Leave(l, c)
	p.j.Leave(l, c)
}

func (p *printed) Event(e *trace.Event) {
	p.stats.Event(e)
	p.t.Event(e)
	p.j.Event(e)
}

func (p *printed) Tick(now uint64) {
	p.t.Tick(now)
	p.j.Tick(now)
}

// end prints the summary and checks that every call was left.
func (p *printed) end(t testing.TB, orphans uint64) {
	t.Helper()
	if p.wrong != "" {
		t.Error(p.wrong)
	}
	for k := range p.enters {
		t.Errorf("entered and not left: %s", k)
		break
	}
	if err := p.t.Close(); err != nil {
		t.Fatal(err)
	}
	totals := p.stats.Totals()
	totals.Orphans = orphans
	p.j.Summary(p.stats.Rows(p.fns), &totals)
	if err := p.j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := view.Summary(&p.tree, p.fns, p.stats.Rows(p.fns), &totals, view.SummaryOptions{}); err != nil {
		t.Fatal(err)
	}
}

func frame(pid uint32, addr uint64) string { return fmt.Sprintf("f%d+%#x", addr/64, addr%64) }

// live runs a stream through the views and records it on the way.
func live(t testing.TB, o synth.Options, n int) (*printed, *recording.File) {
	t.Helper()
	s := synth.New(o)
	path := filepath.Join(t.TempDir(), "test.sbx")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := recording.NewWriter(recording.NewFileStore(out), recording.Options{
		Functions: s, SealAfter: 3 * time.Millisecond,
		Frame:   func(pid uint32, a uint64) recording.Frame { return recording.Frame{Text: frame(pid, a)} },
		Process: func(pid uint32) recording.Process { return recording.Process{Exe: "/usr/bin/service"} },
	})
	if err != nil {
		t.Fatal(err)
	}
	view := newPrinted(s, func(dst []byte, pid uint32, a uint64) []byte { return append(dst, frame(pid, a)...) })
	p := trace.NewPairer(view, func(pid uint32, sp uint64) (trace.Region, bool) {
		r, ok := synth.Region(pid, sp)
		w.Region(pid, r)
		return r, ok
	})
	w.Begin(p)
	for i := range n {
		e := s.Next()
		p.Event(e)
		w.Event(e)
		if i%700 == 699 {
			p.Tick(s.Now())
			w.Tick(s.Now())
		}
	}
	p.Tick(s.Now() + 1000)
	w.Tick(s.Now() + 1000)
	p.Finish(s.Now() + 1000)
	w.Finish(s.Now() + 1000)
	view.end(t, p.Orphans)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := recording.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return view, f
}

var streams = map[string]synth.Options{
	"threads":    {Seed: 1},
	"goroutines": {Seed: 2, Goroutines: 200},
	"stacks":     {Seed: 4, Args: true, Stacks: true},
	"trouble":    {Seed: 5, Threads: 3, Goroutines: 20, Args: true, Stacks: true, Trouble: true},
}

// replayed plays a recording into the views.
func replayed(t testing.TB, f *recording.File, o Options) *printed {
	t.Helper()
	p := NewPlayer(f, nil)
	out := newPrinted(p.Names(), p.Names().Frame)
	p.SetSink(out)
	if err := p.Run(o); err != nil {
		t.Fatal(err)
	}
	out.end(t, p.Orphans())
	return out
}

// What was printed live is printed again, to the byte.
func TestReplayPrintsTheSame(t *testing.T) {
	for name, o := range streams {
		t.Run(name, func(t *testing.T) {
			want, f := live(t, o, 50_000)
			got := replayed(t, f, Options{})
			same(t, "tree", got.tree.Bytes(), want.tree.Bytes())
			same(t, "JSON", got.json.Bytes(), want.json.Bytes())
		})
	}
}

func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range min(len(g), len(w)) {
		if !bytes.Equal(g[i], w[i]) {
			t.Fatalf("%s: line %d\n got %s\nwant %s", what, i+1, g[i], w[i])
		}
	}
	t.Fatalf("%s: %d lines, want %d", what, len(g), len(w))
}

// A part that is played is what the whole says of that time: the calls that end
// in it are the same, however they began.
func TestReplayPart(t *testing.T) {
	for name, o := range streams {
		t.Run(name, func(t *testing.T) {
			_, f := live(t, o, 50_000)
			first, last := f.Span()
			from, to := first+(last-first)/3, first+(last-first)*2/3
			got := replayed(t, f, Options{From: from, To: to})
			whole := leaves{from: from, to: to}
			if _, err := Run(f, &whole, Options{}); err != nil {
				t.Fatal(err)
			}
			part := leaves{from: from, to: to}
			if _, err := Run(f, &part, Options{From: from, To: to}); err != nil {
				t.Fatal(err)
			}
			if len(whole.calls) == 0 || len(part.calls) != len(whole.calls) {
				t.Fatalf("%d calls end in the part, want %d", len(part.calls), len(whole.calls))
			}
			for i := range whole.calls {
				if part.calls[i] != whole.calls[i] {
					t.Fatalf("call %d\n got %s\nwant %s", i, part.calls[i], whole.calls[i])
				}
			}
			if got.tree.Len() == 0 {
				t.Error("nothing printed")
			}
		})
	}
}

// leaves lists the calls that end in a part of the time.
type leaves struct {
	from, to uint64
	calls    []string
}

func (s *leaves) Enter(*trace.Lane, *trace.Call) {}
func (s *leaves) Leave(l *trace.Lane, c *trace.Call) {
	if c.Last > s.from && c.Last <= s.to && c.End != trace.EndOpen {
		s.calls = append(s.calls, fmt.Sprint(l.PID, l.GoID, c.TID, c.Func, c.Start, c.Last, c.Child, c.Depth, c.End, c.Gap, c.Args, c.Ret))
	}
}
func (s *leaves) Event(*trace.Event) {}
func (s *leaves) Tick(uint64)        {}

// The state at a time is the one that playing from the beginning leads to.
func TestSeek(t *testing.T) {
	for name, o := range streams {
		t.Run(name, func(t *testing.T) {
			_, f := live(t, o, 60_000)
			first, last := f.Span()
			p := NewPlayer(f, nil)
			jumper := NewPlayer(f, nil)
			for i := range uint64(20) {
				at := first + (last-first)*i/19
				if err := p.playTo(at, nil); err != nil {
					t.Fatal(err)
				}
				// From elsewhere, forward and back.
				if err := jumper.Seek(first + (last-first)*(i*7%20)/19); err != nil {
					t.Fatal(err)
				}
				if err := jumper.Seek(at); err != nil {
					t.Fatal(err)
				}
				if got, want := state(jumper), state(p); got != want {
					t.Fatalf("at %d\n got %s\nwant %s", at-first, got, want)
				}
			}
		})
	}
}

func state(p *Player) string {
	var b bytes.Buffer
	for _, l := range p.Lanes() {
		fmt.Fprintf(&b, "%d/%d/%d %q:", l.PID, l.TID, l.GoID, l.Comm)
		for i := range l.Open {
			c := &l.Open[i]
			fmt.Fprintf(&b, " %d@%d sp %x child %d depth %d gap %v args %v", c.Func, c.Start, c.SP, c.Child, c.Depth, c.Gap, c.Args)
		}
		b.WriteString("\n")
	}
	return b.String()
}
