package exporter

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/trace"
)

// goroutineTIDs is added to a goroutine's number to make an id of it where a
// format knows threads alone: thread ids of Linux stay below it.
const goroutineTIDs = 1 << 32

// chrome writes the trace event format of Chrome's tracing, which Perfetto's UI
// and others open: a complete event per call, when it ends. Times are in µs with
// three decimals.
type chrome struct {
	callOutput
	names
	opt    CallOptions
	known  trace.ByFunc[chromeName]
	seen   map[laneKey]bool
	pids   map[uint32]bool
	events int
}

// chromeName is a function as events contain it.
type chromeName struct{ fields, args []byte }

func newChrome(w io.Writer, fns trace.Functions, opt CallOptions) *chrome {
	c := &chrome{callOutput: callOutput{w: w}, names: names{fns}, opt: opt, seen: make(map[laneKey]bool), pids: make(map[uint32]bool)}
	c.buf = append(c.buf, `{"displayTimeUnit":"ns","otherData":{"producer":"sbxtrace","clock":"CLOCK_MONOTONIC"`...)
	if opt.Wall != 0 {
		c.buf = fmt.Appendf(c.buf, `,"unix_time_less_clock_ns":"%d"`, opt.Wall)
	}
	c.buf = append(c.buf, "},\"traceEvents\":["...)
	return c
}

// Close ends the list of events.
func (c *chrome) Close() error {
	c.buf = append(c.buf, "\n]}\n"...)
	c.drain()
	return c.err
}

// Tick implements trace.Sink.
func (c *chrome) Tick(uint64) {}

// Enter implements trace.Sink: calls are written when they end.
func (c *chrome) Enter(*trace.Lane, *trace.Call) {}

// Leave implements trace.Sink.
func (c *chrome) Leave(l *trace.Lane, call *trace.Call) {
	if call.Inherited {
		return
	}
	k := keyOf(l)
	c.meet(k, l.Comm)
	n := c.name(call.Func)
	b := append(c.begin(), `{"ph":"X",`...)
	b = append(b, n.fields...)
	b = append(b, `,"ts":`...)
	b = appendMicros(b, call.Start)
	b = append(b, `,"dur":`...)
	b = appendMicros(b, call.Duration())
	b = appendTask(b, k)
	b = append(b, `,"args":{`...)
	b = append(b, n.args...)
	b = append(b, `"self_ns":`...)
	b = strconv.AppendUint(b, call.Self(), 10)
	for i := range int(call.NArgs) {
		b = fmt.Appendf(b, `,"arg%d":"%#x"`, i, call.Args[i])
	}
	if call.HasRet {
		b = fmt.Appendf(b, `,"ret":"%#x"`, call.Ret)
	}
	if call.End != trace.EndReturn {
		b = append(append(append(b, `,"end":"`...), call.End.String()...), '"')
	}
	if call.Gap {
		b = append(b, `,"gap":true`...)
	}
	c.end(append(b, "}}"...))
}

// Event implements trace.Sink: instant events.
func (c *chrome) Event(e *trace.Event) {
	name, args := eventText(c.names, e)
	if name == "" {
		return
	}
	b := append(c.begin(), `{"ph":"i","s":"`...)
	switch e.Kind {
	case trace.KindLost, trace.KindDetached:
		b = append(b, `g","name":`...)
	default:
		b = append(b, `t","name":`...)
	}
	b = append(appendJSONString(b, name), `,"cat":"sbxtrace","ts":`...)
	b = appendMicros(b, e.Time)
	b = appendTask(b, keyOfEvent(e))
	b = append(b, `,"args":{`...)
	for i, a := range args {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSONString(b, a[0]), ':')
		b = appendJSONString(b, a[1])
	}
	c.end(append(b, "}}"...))
}

// begin separates an event from the one before.
func (c *chrome) begin() []byte {
	if c.events++; c.events > 1 {
		c.buf = append(c.buf, ',')
	}
	c.buf = append(c.buf, '\n')
	return c.buf
}

func (c *chrome) end(b []byte) {
	c.buf = b
	c.spill()
}

// meet names a process and a thread or goroutine when they first appear.
func (c *chrome) meet(k laneKey, comm string) {
	if c.seen[k] {
		return
	}
	if len(c.seen) >= maxLanes {
		clear(c.seen)
	}
	c.seen[k] = true
	if !c.pids[k.pid] {
		c.pids[k.pid] = true
		if name := processName(&c.opt, k.pid); name != "" {
			c.metadata("process_name", laneKey{pid: k.pid, tid: k.pid}, name)
		}
	}
	if name := laneName(k, comm); name != "" {
		c.metadata("thread_name", k, name)
	}
}

func (c *chrome) metadata(kind string, k laneKey, name string) {
	b := append(c.begin(), `{"ph":"M","name":"`...)
	b = append(append(b, kind...), '"')
	b = append(appendTask(b, k), `,"args":{"name":`...)
	c.end(append(appendJSONString(b, name), "}}"...))
}

// name returns a function as events contain it.
func (c *chrome) name(id trace.FuncID) *chromeName {
	n := c.known.Get(id)
	if n == nil {
		f := c.of(id)
		n = new(chromeName)
		n.fields = append(appendJSONString([]byte(`"name":`), f.Name), `,"cat":`...)
		n.fields = appendJSONString(n.fields, module(&f))
		if f.File != "" {
			n.args = appendJSONString([]byte(`"source":`), fmt.Sprintf("%s:%d", f.File, f.Line))
			n.args = append(n.args, ',')
		}
		c.known.Set(id, n)
	}
	return n
}

func appendTask(b []byte, k laneKey) []byte {
	b = append(b, `,"pid":`...)
	b = strconv.AppendUint(b, uint64(k.pid), 10)
	b = append(b, `,"tid":`...)
	return strconv.AppendUint(b, tidOf(k), 10)
}

// tidOf numbers a thread or goroutine.
func tidOf(k laneKey) uint64 {
	if k.goid != 0 {
		return goroutineTIDs + k.goid
	}
	return uint64(k.tid)
}

// laneName names a thread or goroutine; empty if nothing is known of it.
func laneName(k laneKey, comm string) string {
	if k.goid != 0 {
		return fmt.Sprintf("goroutine %d", k.goid)
	}
	return term.Clean(comm)
}

func processName(opt *CallOptions, pid uint32) string {
	if opt.Process == nil {
		return ""
	}
	return term.Clean(opt.Process(pid))
}

// appendMicros appends ns as µs with three decimals.
func appendMicros(b []byte, ns uint64) []byte {
	b = strconv.AppendUint(b, ns/1000, 10)
	r := ns % 1000
	return append(b, '.', byte('0'+r/100), byte('0'+r/10%10), byte('0'+r%10))
}

func appendJSONString(b []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		return append(b, `""`...)
	}
	return append(b, text...)
}

// eventText describes an event that is no call: a name, and what more is known
// of it as pairs. The name is empty for events that are not written.
func eventText(n names, e *trace.Event) (name string, args [][2]string) {
	switch e.Kind {
	case trace.KindFork:
		return "fork", [][2]string{{"child_pid", strconv.Itoa(int(e.ChildPID))}, {"child_tid", strconv.Itoa(int(e.Child))}, {"comm", term.Clean(e.Comm)}}
	case trace.KindExec:
		return "exec", [][2]string{{"comm", term.Clean(e.Comm)}}
	case trace.KindTaskExit:
		return "thread exit", nil
	case trace.KindProcessExit:
		return "process exit", nil
	case trace.KindUSDT:
		f := n.of(e.Func)
		for i, v := range e.Args {
			if e.Unread&(1<<i) == 0 {
				args = append(args, [2]string{fmt.Sprintf("arg%d", i), fmt.Sprintf("%#x", v)})
			}
		}
		return f.Name, args
	case trace.KindLost:
		return "events lost", [][2]string{{"count", strconv.FormatUint(e.Count, 10)}, {"cause", e.Cause.String()}}
	case trace.KindDetached:
		f := n.of(e.Func)
		return "function detached", [][2]string{{"func", f.Name}, {"calls_per_second", strconv.FormatUint(e.Count, 10)}}
	}
	return "", nil
}
