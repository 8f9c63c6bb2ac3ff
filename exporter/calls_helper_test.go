package exporter

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/sbxtrace/sbxtrace/trace"
)

// funcs is a Functions of a slice: ids are indices.
type funcs []trace.Func

func (f funcs) Func(id trace.FuncID) *trace.Func {
	if int(id) < len(f) {
		return &f[id]
	}
	return nil
}

var shop = funcs{
	{ID: 0, Name: "main", Path: "/srv/shop", File: "/src/main.c", Line: 10, Lang: "c", Offset: 0x1000},
	{ID: 1, Name: "handle(request const&)", Path: "/srv/shop", File: "/src/shop.cc", Line: 44, Lang: "c++", Offset: 0x1100},
	{ID: 2, Name: "malloc", Module: "libc.so.6", Path: "/usr/lib/libc.so.6", Offset: 0x98000, BuildID: "c0ffee"},
	{ID: 3, Name: "fib", Path: "/srv/shop", Offset: 0x1200},
	{ID: 4, Name: "net/http.(*conn).serve", Path: "/srv/shop", Offset: 0x1300},
	{ID: 5, Name: "a \"quoted\", name;\nwith <b>&\xff", Path: "/srv/shop", Offset: 0x1400},
}

const shopWall = 1_700_000_000_000_000_000

func shopOptions() CallOptions {
	return CallOptions{Wall: shopWall, Seed: 7, Process: func(pid uint32) string {
		if pid == 100 {
			return "shop"
		}
		return ""
	}}
}

// stream makes the events of some threads and goroutines that call at random,
// the same for the same seed, with detached functions if that is odd: returns, longjmps, recursion, arguments, and
// events that are no calls.
func stream(seed uint64, n int, sink trace.Sink) {
	r := rand.New(rand.NewPCG(seed, 1))
	p := trace.NewPairer(sink, nil)
	now := uint64(1_800_000_000_000)
	send := func(e trace.Event) {
		now += 100 + r.Uint64N(5000)
		e.Time = now
		p.Event(&e)
	}
	type lane struct {
		pid, tid uint32
		goid     uint64
		open     []trace.FuncID
	}
	lanes := []*lane{{pid: 100, tid: 100}, {pid: 100, tid: 101}, {pid: 100, tid: 102, goid: 17}, {pid: 100, tid: 102, goid: 18}, {pid: 200, tid: 200}}
	send(trace.Event{Kind: trace.KindComm, PID: 100, TID: 101, Comm: "worker"})
	for i := range n {
		l := lanes[r.IntN(len(lanes))]
		e := trace.Event{PID: l.pid, TID: l.tid, GoID: l.goid, Flags: trace.FlagHooked}
		if l.goid != 0 {
			e.Flags |= trace.FlagGo
		}
		sp := func(depth int) uint64 {
			at := uint64(0x7ffd_0000_0000 - 0x100*depth)
			if l.goid != 0 {
				at -= 2 * 0x7ffd_0000_0000
			}
			return at
		}
		switch op := r.IntN(100); {
		case op < 52 && len(l.open) < 30 || len(l.open) == 0:
			fn := trace.FuncID(r.IntN(len(shop)))
			e.Kind, e.Func, e.SP = trace.KindEntry, fn, sp(len(l.open))
			if fn == 2 {
				e.Args = []uint64{r.Uint64N(4096), 1 << 63}
			}
			l.open = append(l.open, fn)
			send(e)
		case op < 97:
			at := len(l.open) - 1
			if op == 96 && at > 0 {
				at-- // the innermost is left without an exit
			}
			e.Kind, e.Func, e.SP = trace.KindExit, l.open[at], sp(at)
			if l.open[at] == 2 {
				e.Flags |= trace.FlagReturn
				e.Ret = 0xffff_8000_0000_0001
			}
			l.open = l.open[:at]
			send(e)
		case op == 99 && seed%2 == 1:
			send(trace.Event{Kind: trace.KindDetached, Func: 3, Count: 1_000_000})
		case op == 97:
			send(trace.Event{Kind: trace.KindLost, CPU: 1, Count: 3, Cause: trace.LostRing})
		default:
			send(trace.Event{Kind: trace.KindFork, PID: 100, TID: 100, ChildPID: 100, Child: uint32(300 + i), Comm: "child"})
		}
	}
	p.Finish(now + 1000)
}

// counted is what a stream comes to, as the formats are held against.
type counted struct {
	calls, total, self uint64
	entered            int
	perFunc            map[string]uint64
	timePerFunc        map[string]uint64
	ends               map[string]int
}

// reference counts a stream.
type reference struct{ counted }

func newReference() *reference {
	return &reference{counted{perFunc: map[string]uint64{}, timePerFunc: map[string]uint64{}, ends: map[string]int{}}}
}

func (r *reference) Enter(*trace.Lane, *trace.Call) { r.entered++ }
func (r *reference) Event(*trace.Event)             {}
func (r *reference) Tick(uint64)                    {}
func (r *reference) Leave(_ *trace.Lane, c *trace.Call) {
	r.calls++
	r.total += c.Duration()
	r.self += c.Self()
	r.perFunc[shop[c.Func].Name]++
	r.timePerFunc[toUTF8(shop[c.Func].Name)] += c.Duration()
	r.ends[c.End.String()]++
}

// export returns a stream in a format.
func export(t testing.TB, format Format, seed uint64, n int, opt CallOptions) []byte {
	t.Helper()
	var out bytes.Buffer
	c, err := NewCalls(&out, shop, format, opt)
	if err != nil {
		t.Fatal(err)
	}
	stream(seed, n, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// expected is what the stream of export comes to.
func expected(seed uint64, n int) *counted {
	r := newReference()
	stream(seed, n, r)
	return &r.counted
}
