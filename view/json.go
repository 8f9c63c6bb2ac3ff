package view

import (
	"io"
	"path"
	"strconv"
	"unicode/utf8"

	"github.com/sbxtrace/sbxtrace/trace"
)

// JSONOptions says what a JSON prints.
type JSONOptions struct {
	// Entries adds a line for every entry.
	Entries bool
	// Frame names the addresses of stacks; nil: hexadecimal.
	Frame Frame
}

// JSON prints one JSON object per line, as docs/json.md describes: calls when
// they end, other events as they come. It is not safe for concurrent use.
type JSON struct {
	out   output
	opt   JSONOptions
	fns   trace.Functions
	names trace.ByFunc[jsonName]

	// The text of the task fields and what it was made for.
	task     taskKey
	taskText []byte

	stacks  map[laneKey]*jsonStacks // lanes with open calls that have a stack
	spare   *jsonStacks
	scratch []byte
}

type taskKey struct {
	pid, tid uint32
	goid     uint64
}

// jsonName is a function as the lines contain it.
type jsonName struct {
	fields []byte // `"func":"…","module":"…"`
	quoted []byte // `"…"`: the name
}

// jsonStacks keeps the stacks of a lane's open calls until the calls end.
type jsonStacks struct {
	calls []jsonStack // outermost first
	addrs []uint64
}

type jsonStack struct {
	depth int32
	start uint64
	from  int // first of its addresses; they end where the next call's begin
}

// NewJSON returns a JSON that writes to w and takes names from fns.
func NewJSON(w io.Writer, fns trace.Functions, opt JSONOptions) *JSON {
	return &JSON{out: output{w: w}, opt: opt, fns: fns, stacks: make(map[laneKey]*jsonStacks)}
}

// Err returns the first error of the writer. After one, nothing more is
// written.
func (j *JSON) Err() error { return j.out.err }

// Close writes what is still buffered and returns Err.
func (j *JSON) Close() error {
	j.out.drain()
	return j.out.err
}

// Tick writes what is buffered, so that a reader sees it soon.
func (j *JSON) Tick(uint64) { j.out.drain() }

// Enter implements trace.Sink.
func (j *JSON) Enter(l *trace.Lane, c *trace.Call) {
	if len(c.Stack) > 0 {
		j.keepStack(l, c)
	}
	if !j.opt.Entries {
		return
	}
	b := append(j.out.buf, `{"type":"entry","ts":`...)
	b = appendUint(b, c.Start)
	b = j.appendWhere(b, l, c)
	b = appendJSONArgs(b, c)
	b = j.appendStack(b, l.PID, c.Stack)
	if c.StackCut() {
		b = append(b, `,"stack_cut":true`...)
	}
	j.end(b)
}

// Leave implements trace.Sink.
func (j *JSON) Leave(l *trace.Lane, c *trace.Call) {
	dur := c.Duration()
	b := append(j.out.buf, `{"type":"call","ts":`...)
	b = appendUint(b, c.Start)
	b = append(b, `,"dur":`...)
	b = appendUint(b, dur)
	b = append(b, `,"self":`...)
	b = appendUint(b, c.Self())
	b = j.appendWhere(b, l, c)
	b = appendJSONArgs(b, c)
	if c.HasRet {
		b = append(b, `,"ret":"`...)
		b = append(appendHex(b, c.Ret), '"')
	}
	if len(j.stacks) > 0 {
		b = j.appendKept(b, l, c)
	}
	if c.StackCut() {
		b = append(b, `,"stack_cut":true`...)
	}
	if c.End != trace.EndReturn {
		b = append(b, `,"end":"`...)
		b = append(append(b, c.End.String()...), '"')
	}
	if c.Gap {
		b = append(b, `,"gap":true`...)
	}
	if c.Recursive {
		b = append(b, `,"recursive":true`...)
	}
	j.end(b)
}

// end finishes the line that b ends with.
func (j *JSON) end(b []byte) {
	j.out.buf = append(b, '}', '\n')
	j.out.spill()
}

// appendWhere appends the fields that say which call it is: pid, tid, goid,
// depth, func, module, parent.
func (j *JSON) appendWhere(b []byte, l *trace.Lane, c *trace.Call) []byte {
	b = j.appendTask(b, l.PID, c.TID, l.GoID)
	b = append(b, `,"depth":`...)
	b = strconv.AppendInt(b, int64(c.Depth), 10)
	b = append(b, ',')
	b = append(b, j.name(c.Func).fields...)
	if c.Depth > 0 {
		b = append(b, `,"parent":`...)
		return append(b, j.name(c.Parent).quoted...)
	}
	return append(b, `,"parent":""`...)
}

func (j *JSON) appendTask(b []byte, pid, tid uint32, goid uint64) []byte {
	k := taskKey{pid, tid, goid}
	if j.task != k || len(j.taskText) == 0 {
		t := append(j.taskText[:0], `,"pid":`...)
		t = appendUint(t, uint64(pid))
		t = append(t, `,"tid":`...)
		t = appendUint(t, uint64(tid))
		t = append(t, `,"goid":`...)
		j.task, j.taskText = k, appendUint(t, goid)
	}
	return append(b, j.taskText...)
}

func appendJSONArgs(b []byte, c *trace.Call) []byte {
	if c.NArgs == 0 {
		return b
	}
	return appendHexArray(append(b, `,"args":`...), c.Args[:min(int(c.NArgs), len(c.Args))], 0)
}

// appendHexArray appends values as an array of strings, since JSON numbers lose
// bits beyond 2^53 in many readers; those of unread's bits are null.
func appendHexArray(b []byte, values []uint64, unread uint32) []byte {
	b = append(b, '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		if unread&(1<<i) != 0 {
			b = append(b, "null"...)
			continue
		}
		b = append(b, '"')
		b = append(appendHex(b, v), '"')
	}
	return append(b, ']')
}

func (j *JSON) appendStack(b []byte, pid uint32, stack []uint64) []byte {
	if len(stack) == 0 {
		return b
	}
	b = append(b, `,"stack":`...)
	if j.opt.Frame == nil {
		return appendHexArray(b, stack, 0)
	}
	b = append(b, '[')
	for i, addr := range stack {
		if i > 0 {
			b = append(b, ',')
		}
		j.scratch = j.opt.Frame(j.scratch[:0], pid, addr)
		b = appendString(b, j.scratch)
	}
	return append(b, ']')
}

// keepStack copies the stack of c, which is gone after its entry.
func (j *JSON) keepStack(l *trace.Lane, c *trace.Call) {
	k := keyOf(l)
	s := j.stacks[k]
	if s == nil {
		if s, j.spare = j.spare, nil; s == nil {
			s = new(jsonStacks)
		}
		j.stacks[k] = s
	}
	s.calls = append(s.calls, jsonStack{c.Depth, c.Start, len(s.addrs)})
	s.addrs = append(s.addrs, c.Stack...)
}

// appendKept appends the stack of c if it was kept.
func (j *JSON) appendKept(b []byte, l *trace.Lane, c *trace.Call) []byte {
	k := keyOf(l)
	s := j.stacks[k]
	if s == nil {
		return b
	}
	i := len(s.calls) - 1
	for i >= 0 && (s.calls[i].depth != c.Depth || s.calls[i].start != c.Start) {
		i--
	}
	if i < 0 {
		return b
	}
	b = j.appendStack(b, l.PID, s.stack(i))
	s.remove(i)
	if len(s.calls) == 0 {
		delete(j.stacks, k)
		j.spare = s
	}
	return b
}

func (s *jsonStacks) stack(i int) []uint64 {
	to := len(s.addrs)
	if i+1 < len(s.calls) {
		to = s.calls[i+1].from
	}
	return s.addrs[s.calls[i].from:to]
}

// remove forgets a call: the last one, but for coroutines and detached
// functions.
func (s *jsonStacks) remove(i int) {
	from, n := s.calls[i].from, len(s.stack(i))
	s.addrs = append(s.addrs[:from], s.addrs[from+n:]...)
	s.calls = append(s.calls[:i], s.calls[i+1:]...)
	for k := range s.calls[i:] {
		s.calls[i+k].from -= n
	}
}

// Event implements trace.Sink.
func (j *JSON) Event(e *trace.Event) {
	b := j.out.buf
	switch e.Kind {
	case trace.KindFork:
		b = j.appendEvent(b, "fork", e)
		b = append(b, `,"child_pid":`...)
		b = appendUint(b, uint64(e.ChildPID))
		b = append(b, `,"child_tid":`...)
		b = appendUint(b, uint64(e.Child))
		b = appendString(append(b, `,"comm":`...), e.Comm)
	case trace.KindExec:
		b = j.appendEvent(b, "exec", e)
		b = appendString(append(b, `,"comm":`...), e.Comm)
	case trace.KindTaskExit:
		b = append(j.appendEvent(b, "exit", e), `,"process":false`...)
	case trace.KindProcessExit:
		b = append(j.appendEvent(b, "exit", e), `,"process":true`...)
	case trace.KindUSDT:
		b = j.appendEvent(b, "usdt", e)
		b = append(append(b, ','), j.name(e.Func).fields...)
		b = appendHexArray(append(b, `,"args":`...), e.Args, e.Unread)
		b = appendTexts(b, e.Texts)
	case trace.KindDetached:
		b = append(b, `{"type":"detached","ts":`...)
		b = appendUint(b, e.Time)
		b = append(append(b, ','), j.name(e.Func).fields...)
		b = append(b, `,"rate":`...)
		b = appendUint(b, e.Count)
	case trace.KindLost:
		b = append(b, `{"type":"lost","cause":"`...)
		b = append(b, e.Cause.String()...)
		b = append(b, `","cpu":`...)
		b = strconv.AppendInt(b, int64(e.CPU), 10)
		b = append(b, `,"count":`...)
		b = appendUint(b, e.Count)
		b = append(b, `,"ts":`...)
		b = appendUint(b, e.Time)
	default:
		return
	}
	j.end(b)
}

// appendTexts appends the strings that arguments point to, null for those that
// point to none, if there is one.
func appendTexts(b []byte, texts []string) []byte {
	if len(texts) == 0 {
		return b
	}
	b = append(b, `,"texts":[`...)
	for i, s := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		if s == "" {
			b = append(b, "null"...)
		} else {
			b = appendString(b, s)
		}
	}
	return append(b, ']')
}

func (j *JSON) appendEvent(b []byte, kind string, e *trace.Event) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, kind...)
	b = append(b, `","ts":`...)
	b = appendUint(b, e.Time)
	return j.appendTask(b, e.PID, e.TID, e.GoID)
}

// name returns the text of fn, made on first use.
func (j *JSON) name(fn trace.FuncID) *jsonName {
	n := j.names.Get(fn)
	if n == nil {
		f := funcOf(j.fns, fn)
		n = &jsonName{quoted: appendString(nil, f.Name)}
		n.fields = append(append(n.fields, `"func":`...), n.quoted...)
		n.fields = appendString(append(n.fields, `,"module":`...), moduleOf(&f))
		j.names.Set(fn, n)
	}
	return n
}

// moduleOf names the module of f, also the main executable.
func moduleOf(f *trace.Func) string {
	if f.Module == "" && f.Path != "" {
		return path.Base(f.Path)
	}
	return f.Module
}

// appendString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD.
func appendString[T string | []byte](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range string(s) {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || r == 0x7f:
			b = append(b, `\u00`...)
			b = append(b, hex[r>>4], hex[r&15])
		case r == '\u2028' || r == '\u2029': // line ends in JavaScript
			b = append(b, `\u202`...)
			b = append(b, hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
