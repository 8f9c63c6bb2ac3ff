package view

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/trace"
)

// events turns bytes into a stream of events in the order of their times:
// mostly plausible ones, nested by stack pointer, and some that make no sense.
func events(data []byte) []trace.Event {
	var out []trace.Event
	now := uint64(start)
	depth := map[[2]byte]uint64{}
	steps := [...]uint64{0, 50, 1 * µs, 700 * µs, 9 * ms, 19 * ms, 120 * ms, 3 * sec}
	for len(data) >= 4 {
		op, who, what, step := data[0], data[1], data[2], data[3]
		data = data[4:]
		now += steps[step&7] * uint64(step>>3&3+1)
		e := trace.Event{Time: now, PID: 100 + uint32(who>>4&1), TID: 100 + uint32(who&3), Func: trace.FuncID(what & 15)}
		if who&8 != 0 {
			e.Flags, e.GoID = trace.FlagGo, uint64(who>>2)
		}
		lane := [2]byte{byte(e.PID), who & 0x3f}
		sp := func() uint64 { return top - 0x40*depth[lane] }
		switch op & 15 {
		case 0, 1, 2, 3, 4, 5:
			e.Kind, e.SP = trace.KindEntry, sp()
			depth[lane]++
			if what&0x20 != 0 {
				e.Args = []uint64{uint64(what), now, 0}
			}
			if what&0x40 != 0 {
				e.Stack = []uint64{now, uint64(op)}
			}
			if what&0x80 != 0 {
				e.Flags |= trace.FlagHooked
			}
		case 6, 7, 8, 9, 10:
			if depth[lane] > 0 {
				depth[lane]--
			}
			e.Kind, e.SP = trace.KindExit, sp()
			if i := lastEntry(out, &e); i >= 0 {
				e.Func, e.Flags = out[i].Func, out[i].Flags
			}
			if what&0x20 != 0 {
				e.Flags, e.Ret = e.Flags|trace.FlagReturn, now
			}
		case 11:
			depth[lane] /= 2 // frames left by an exception
			continue
		case 12:
			e.Kind, e.Count, e.Cause, e.CPU = trace.KindLost, uint64(what), trace.LostCause(step&7), int32(who&3)-1
		case 13:
			e.Kind, e.Args, e.Unread = trace.KindUSDT, []uint64{1, now, 3}[:what%4%3], uint32(what)
		case 14:
			e.Kind, e.Child, e.ChildPID, e.Comm = trace.KindFork, uint32(what&3)+100, 100+uint32(what>>7), "a\xff\x1b[31m\"b"
		case 15:
			e.Kind = trace.Kind(what)
			e.SP, e.Comm = now, "new"
			if what&0x10 != 0 {
				e.Kind, e.Func, e.SP = trace.KindEntry, trace.FuncID(what)<<24, now<<op
			}
		}
		out = append(out, e)
	}
	return out
}

// lastEntry finds the entry that an exit belongs to.
func lastEntry(out []trace.Event, e *trace.Event) int {
	for i := len(out) - 1; i >= 0; i-- {
		o := &out[i]
		if o.Kind == trace.KindEntry && o.PID == e.PID && o.GoID == e.GoID && o.SP == e.SP &&
			(e.GoID != 0 || o.TID == e.TID) {
			return i
		}
	}
	return -1
}

// hostile is the program of random events: names that try to break the output.
var hostile = append(append(funcs{}, program...),
	trace.Func{Name: "bad\xff\xfe\x1b[2J\nname\u202e\"\\", Module: "li\nb\x00.so"},
	trace.Func{Name: ""},
	trace.Func{Name: strings.Repeat("x", 2*term.MaxName), Lang: "c++"},
)

// balance checks the promises of a Pairer to its sinks.
type balance struct{ entered, left int }

func (b *balance) Enter(*trace.Lane, *trace.Call) { b.entered++ }
func (b *balance) Leave(*trace.Lane, *trace.Call) { b.left++ }
func (b *balance) Event(*trace.Event)             {}
func (b *balance) Tick(uint64)                    {}

// play sends events to s; before each one tick may let ticks come, at any time
// between it and the one before.
func play(s trace.Sink, evs []trace.Event, tick func(from, to uint64)) {
	p := trace.NewPairer(s, nil)
	last := uint64(start)
	for i := range evs {
		e := evs[i]
		if tick != nil {
			tick(last, e.Time)
		}
		last = e.Time
		p.Event(&e)
	}
	p.Finish(last + ms)
}

// treeOf renders evs with up to n ticks before each event.
func treeOf(t testing.TB, evs []trace.Event, n int, seed uint64) []byte {
	t.Helper()
	var out bytes.Buffer
	tree := NewTree(&out, hostile, TreeOptions{Color: seed&1 != 0})
	r := rand.New(rand.NewPCG(seed, 1))
	play(tree, evs, func(from, to uint64) {
		for range n {
			if from += r.Uint64N(to - from + 1); r.IntN(3) > 0 {
				tree.Tick(from)
			}
		}
	})
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func randomBytes(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Ticks come at moments of real time; what they change must not be the output.
func TestTreeDoesNotDependOnTicks(t *testing.T) {
	for seed := range uint64(60) {
		evs := events(randomBytes(seed, 4000))
		want := treeOf(t, evs, 0, seed&1)
		for n := 1; n < 4; n++ {
			if got := treeOf(t, evs, n, seed&1+uint64(2*n)); !bytes.Equal(got, want) {
				t.Fatalf("seed %d: up to %d ticks per event change the output\n%s", seed, n, firstDifference(got, want))
			}
		}
	}
}

func firstDifference(got, want []byte) string {
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// checkViews sends evs through all views and checks what must hold of any
// stream.
func checkViews(t *testing.T, evs []trace.Event) {
	t.Helper()
	var treeOut, jsonOut, sumOut bytes.Buffer
	tree := NewTree(&treeOut, hostile, TreeOptions{Width: 100})
	js := NewJSON(&jsonOut, hostile, JSONOptions{Entries: true})
	stats, bal := trace.NewStats(), new(balance)
	play(tee{tree, js, stats, bal}, evs, nil)
	if bal.entered != bal.left {
		t.Errorf("%d entries, %d ends", bal.entered, bal.left)
	}
	totals := stats.Totals()
	if totals.Calls != uint64(bal.left) {
		t.Errorf("statistics count %d calls, want %d", totals.Calls, bal.left)
	}
	rows := stats.Rows(hostile)
	js.Summary(rows, &totals)
	if err := errors.Join(tree.Close(), js.Close()); err != nil {
		t.Fatal(err)
	}
	if len(js.stacks) != 0 {
		t.Errorf("JSON keeps the stacks of %d lanes after the end", len(js.stacks))
	}
	if held := heldLanes(tree); held != 0 {
		t.Errorf("the tree holds entries of %d lanes after the end", held)
	}
	checkText(t, treeOut.String())
	checkJSONLines(t, jsonOut.Bytes(), bal.left)

	if err := Summary(&sumOut, hostile, rows, &totals, SummaryOptions{Width: 90}); err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if err := Histogram(&sumOut, hostile, &rows[i], SummaryOptions{Width: 90}); err != nil {
			t.Fatal(err)
		}
	}
	checkText(t, sumOut.String())
}

func heldLanes(t *Tree) int {
	n := 0
	for _, ls := range t.lanes {
		if ls.held || ls.count > 0 || ls.open != 0 {
			n++
		}
	}
	return n
}

// checkText checks that text cannot command a terminal.
func checkText(t *testing.T, text string) {
	t.Helper()
	if !strings.HasSuffix(text, "\n") && text != "" {
		t.Errorf("the last line has no end: %q", text[max(0, len(text)-80):])
	}
	for _, r := range text {
		if r != '\n' && r < ' ' || r == 0x7f || term.Bidi(r) {
			t.Fatalf("output has control character %q", r)
		}
	}
	if strings.ToValidUTF8(text, "") != text {
		t.Fatal("output is not UTF-8")
	}
}

func checkJSONLines(t *testing.T, out []byte, calls int) {
	t.Helper()
	n := 0
	for line := range bytes.Lines(out) {
		var o map[string]any
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if o["type"] == "call" {
			n++
		}
	}
	if n != calls {
		t.Errorf("%d call lines, want %d", n, calls)
	}
}

func FuzzViews(f *testing.F) {
	f.Add([]byte{})
	for seed := range uint64(4) {
		f.Add(randomBytes(seed, 400))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		evs := events(data[:min(len(data), 8000)])
		checkViews(t, evs)
		if got, want := treeOf(t, evs, 2, 2), treeOf(t, evs, 0, 0); !bytes.Equal(got, want) {
			t.Errorf("ticks change the output\n%s", firstDifference(got, want))
		}
	})
}

// failing is a writer that fails after some bytes, as a full disk or a closed
// pipe do.
type failing struct {
	room, writes int
}

var errFull = errors.New("full")

func (f *failing) Write(p []byte) (int, error) {
	f.writes++
	if len(p) > f.room {
		n := f.room
		f.room = 0
		return n, errFull
	}
	f.room -= len(p)
	return len(p), nil
}

func TestWriteErrors(t *testing.T) {
	l := benchLanes(1)
	for name, open := range map[string]func(io.Writer) closer{
		"tree": func(w io.Writer) closer { return NewTree(w, program, TreeOptions{}) },
		"json": func(w io.Writer) closer { return NewJSON(w, program, JSONOptions{}) },
	} {
		w := &failing{room: 200_000}
		s := open(w)
		callsIn(s, 5000, l)
		s.Tick(start + 60*sec)
		if err := s.(interface{ Err() error }).Err(); !errors.Is(err, errFull) {
			t.Errorf("%s: Err is %v", name, err)
		}
		writes := w.writes
		callsIn(s, 5000, l)
		if err := s.Close(); !errors.Is(err, errFull) {
			t.Errorf("%s: Close returns %v", name, err)
		}
		if w.writes != writes || writes > 10 {
			t.Errorf("%s: %d writes, then %d more after the error", name, writes, w.writes-writes)
		}
	}
	rows, totals := summarize(busy)
	if err := Summary(&failing{}, program, rows, totals, SummaryOptions{}); !errors.Is(err, errFull) {
		t.Errorf("Summary returns %v", err)
	}
	if err := Histogram(&failing{}, program, &rows[0], SummaryOptions{}); !errors.Is(err, errFull) {
		t.Errorf("Histogram returns %v", err)
	}
}

// A burst of calls without a step of time must not pile up.
func TestTreeBurstIsBounded(t *testing.T) {
	var lines int
	w := writerFunc(func(p []byte) (int, error) { lines += bytes.Count(p, []byte("\n")); return len(p), nil })
	tree := NewTree(w, program, TreeOptions{})
	l := &trace.Lane{PID: 1, TID: 1}
	most := 0
	const calls = 1_000_000
	for range calls {
		c := trace.Call{Start: start, Last: start, Func: fnMalloc}
		tree.Enter(l, &c)
		tree.Leave(l, &c)
		most = max(most, tree.bytes+len(tree.out.buf))
	}
	if most > maxGroupBytes+2*writeSize {
		t.Errorf("%d bytes were kept", most)
	}
	if err := tree.Close(); err != nil || lines != calls {
		t.Errorf("%d lines, %v", lines, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A burst over many lanes must not pile up entries that wait no more.
func TestTreeForgetsStaleEntries(t *testing.T) {
	tree := NewTree(io.Discard, program, TreeOptions{})
	lanes := benchLanes(3000)
	enter := func(l *trace.Lane) {
		c := trace.Call{Start: start, Last: start, Func: fnMalloc}
		tree.Enter(l, &c)
	}
	for range 200 {
		for _, l := range lanes {
			enter(l)
		}
		for _, l := range lanes {
			c := trace.Call{Start: start, Last: start, Func: fnMalloc}
			tree.Leave(l, &c)
			enter(l)
			tree.Leave(l, &c)
		}
	}
	if n := len(tree.waiting); n > 4*len(lanes) {
		t.Errorf("%d entries wait", n)
	}
}

// Millions of goroutines come and go: none of them may stay.
func TestTreeForgetsGoroutines(t *testing.T) {
	tree := NewTree(io.Discard, program, TreeOptions{})
	s := newStage(tree)
	for i := range uint64(20_000) {
		s.goroutine(1, 1, i+1).leaf(fnWorker, 10*µs)
	}
	s.wait(sec)
	tree.Tick(s.now)
	if len(tree.lanes) != 0 || len(tree.group) != 0 || len(tree.waiting) != 0 {
		t.Errorf("%d lanes, %d in the group, %d waiting", len(tree.lanes), len(tree.group), len(tree.waiting))
	}
	if len(tree.free) > maxIdleLanes {
		t.Errorf("%d spare lanes", len(tree.free))
	}
}

func TestNoAllocationPerCall(t *testing.T) {
	for name, s := range map[string]closer{
		"tree": NewTree(io.Discard, program, TreeOptions{Color: true}),
		"json": NewJSON(io.Discard, program, JSONOptions{Entries: true}),
	} {
		for _, lanes := range []int{1, 100} {
			l := benchLanes(lanes)
			callsIn(s, 100_000, l)
			calls := 0
			allocs := testing.AllocsPerRun(20, func() { calls = callsIn(s, 5000, l) })
			// callsIn itself allocates once; a flush may, now and then.
			if allocs/float64(calls) > 0.002 {
				t.Errorf("%s: %v allocations for %d calls", name, allocs, calls)
			}
		}
	}
}
