package view

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/sbxtrace/sbxtrace/trace"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares got with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test ./view -update writes it)\n--- got\n%s--- want\n%s", file, got, want)
	}
}

// funcs is a Functions of a slice: ids are indices.
type funcs []trace.Func

func (f funcs) Func(id trace.FuncID) *trace.Func {
	if int(id) < len(f) {
		return &f[id]
	}
	return nil
}

// Functions of the programs that the tests act out.
const (
	fnMain trace.FuncID = iota
	fnServe
	fnParse
	fnMalloc
	fnFib
	fnWorker
	fnThrow
	fnProbe
	fnLong
	fnFork
)

var program = funcs{
	fnMain:   {Name: "main", Path: "/usr/bin/demo", Lang: "c"},
	fnServe:  {Name: "net/http.(*conn).serve", Path: "/usr/bin/demo", Lang: "go"},
	fnParse:  {Name: "json::parse(std::string const&)", Path: "/usr/bin/demo", Lang: "c++"},
	fnMalloc: {Name: "malloc", Module: "libc.so.6", Path: "/usr/lib/libc.so.6", Lang: "c"},
	fnFib:    {Name: "fib", Path: "/usr/bin/demo"},
	fnWorker: {Name: "main.worker", Path: "/usr/bin/demo", Lang: "go"},
	fnThrow:  {Name: "ns::Thrower::check(int) const", Path: "/usr/bin/demo", Lang: "c++"},
	fnProbe:  {Name: "postgresql:query__start", Module: "postgres"},
	fnLong: {Name: "std::map<std::string, std::vector<std::pair<int, double>>, std::less<std::string>>::" +
		"_M_emplace_hint_unique<std::piecewise_construct_t const&>(std::piecewise_construct_t const&)", Lang: "c++"},
	fnFork: {Name: "fork", Module: "libc.so.6", Path: "/usr/lib/libc.so.6", Lang: "c"},
}

// actor acts out what one thread or goroutine does.
type actor struct {
	*stage
	pid, tid uint32
	goid     uint64
	sp       []uint64
}

// stage sends the events of actors to a Pairer at a time that it steps on.
type stage struct {
	p    *trace.Pairer
	sink trace.Sink
	now  uint64
}

// start is when stages begin: half an hour after boot.
const start = 1_800_000_000_000

func newStage(s trace.Sink) *stage { return &stage{p: trace.NewPairer(s, nil), sink: s, now: start} }

func (s *stage) thread(pid, tid uint32) *actor { return &actor{stage: s, pid: pid, tid: tid} }

func (s *stage) goroutine(pid, tid uint32, goid uint64) *actor {
	return &actor{stage: s, pid: pid, tid: tid, goid: goid}
}

// wait lets ns pass.
func (s *stage) wait(ns uint64) { s.now += ns }

func (s *stage) send(e trace.Event) {
	e.Time = s.now
	s.p.Event(&e)
}

func (s *stage) finish() { s.p.Finish(s.now) }

func (a *actor) event(e trace.Event) trace.Event {
	e.PID, e.TID, e.GoID = a.pid, a.tid, a.goid
	if a.goid != 0 {
		e.Flags |= trace.FlagGo
	}
	return e
}

const top = 0x7ffd_0000_0000

func (a *actor) stackPointer() uint64 {
	sp := uint64(top - 0x100*uint64(len(a.sp)))
	if a.goid != 0 {
		sp -= 2 * top // relative to the stack's upper end: negative
	}
	return sp
}

// enter enters fn, 100 ns after what was before.
func (a *actor) enter(fn trace.FuncID, args ...uint64) { a.enterAt(fn, nil, args...) }

func (a *actor) enterAt(fn trace.FuncID, stack []uint64, args ...uint64) {
	a.enterWith(0, fn, stack, args)
}

// enterCut is enterAt for a stack that is not whole.
func (a *actor) enterCut(fn trace.FuncID, stack []uint64, args ...uint64) {
	a.enterWith(trace.FlagCutStack, fn, stack, args)
}

func (a *actor) enterWith(flags trace.Flags, fn trace.FuncID, stack, args []uint64) {
	a.now += 100
	sp := a.stackPointer()
	a.sp = append(a.sp, sp)
	a.send(a.event(trace.Event{Kind: trace.KindEntry, Func: fn, SP: sp, Args: args, Stack: stack, Flags: trace.FlagHooked | flags}))
}

// leave returns from the innermost function, which is fn, after ns.
func (a *actor) leave(fn trace.FuncID, ns uint64, ret ...uint64) {
	a.now += ns
	sp := a.sp[len(a.sp)-1]
	a.sp = a.sp[:len(a.sp)-1]
	e := trace.Event{Kind: trace.KindExit, Func: fn, SP: sp, Flags: trace.FlagHooked}
	if len(ret) > 0 {
		e.Ret = ret[0]
		e.Flags |= trace.FlagReturn
	}
	a.send(a.event(e))
}

// leaf calls fn for ns.
func (a *actor) leaf(fn trace.FuncID, ns uint64) {
	a.enter(fn)
	a.leave(fn, ns)
}

// drop leaves n functions without an exit, as longjmp and exceptions do.
func (a *actor) drop(n int) { a.sp = a.sp[:len(a.sp)-n] }

// frame names addresses as a symbolizer would.
func frame(dst []byte, _ uint32, addr uint64) []byte {
	if addr < 0x1000 {
		return appendHex(dst, addr)
	}
	return append(appendHex(append(dst, "main+"...), addr&0xfff), " demo.c:12"...)
}
