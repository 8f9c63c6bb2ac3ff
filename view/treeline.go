package view

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/trace"
)

// Marks of the gutter between lane label and call. They have the same number
// of bytes, so that one can replace the other in place.
const (
	gutterLine   = "│"
	gutterSwitch = "┌"
)

const (
	indentWidth = 2
	// maxIndent is the depth up to which calls are indented; deeper ones
	// say their depth as a number.
	maxIndent = 24
	// maxCallers bounds the callers named where a lane's output resumes.
	maxCallers = 4
	// callerName bounds their names, in columns.
	callerName = 40
	blanks     = "                                                                "
)

// treeName is a function's name as the tree prints it.
type treeName struct {
	call   string // "name", followed by args in parentheses
	plain  string // what stands for call and empty parentheses
	exit   string // after a closing brace
	module string // " [libc.so.6]", or empty for the main module
	short  string // among callers
}

// name returns how fn is printed, made on first use.
func (t *Tree) name(fn trace.FuncID) *treeName {
	n := t.names.Get(fn)
	if n == nil {
		n = t.newName(fn)
		t.names.Set(fn, n)
	}
	return n
}

func (t *Tree) newName(fn trace.FuncID) *treeName {
	f := funcOf(t.fns, fn)
	name := term.Clean(f.Name)
	if t.opt.Width > 0 {
		name = term.Elide(name, max(t.opt.Width-term.DurationWidth-t.labelWidth-16, 24))
	}
	n := &treeName{call: name, plain: name, exit: name, short: term.Elide(name, callerName)}
	if hasParameters(name) {
		n.call += " "
	} else {
		n.plain += "()"
	}
	if f.Module != "" {
		n.module = t.text.Dim + " [" + term.Clean(f.Module) + "]" + t.text.Reset
	}
	return n
}

// hasParameters reports whether a demangled name ends with its parameter list,
// as C++ names do: "ns::f(int) const".
func hasParameters(name string) bool {
	i := strings.LastIndexByte(name, ')')
	if i < 0 {
		return false
	}
	switch name[i+1:] {
	case "", " const", " volatile", " const volatile", " const&", " &", "&", " &&", "&&":
		return true
	}
	return strings.HasPrefix(name[i+1:], " [") // [clone .cold], [abi:cxx11]
}

// printEntry prints the held entry of ls with an opening brace.
func (t *Tree) printEntry(ls *treeLane) {
	h := &ls.call
	ls.held = false
	n := t.name(h.fn)
	from := h.depth
	plain := h.depth > maxIndent && h.nargs == 0 && len(h.stack) == 0
	if plain {
		from = t.join(ls, run{to: h.depth, fn: h.fn}, h.depth-1)
	}
	b := t.begin(ls, 0, 0, int(from), int(h.depth))
	b = t.appendCall(b, n, h)
	b = append(b, n.module...)
	b = append(b, t.text.Dim...)
	b = append(b, " {"...)
	b = append(b, t.text.Reset...)
	t.end(ls, b)
	ls.run.on = plain
	if len(h.stack) > 0 {
		t.printStack(ls, int(h.depth)+1)
	}
}

// printLeaf prints a call that came back to its held entry on one line.
func (t *Tree) printLeaf(ls *treeLane, c *trace.Call) {
	h := &ls.call
	n := t.name(h.fn)
	b := t.begin(ls, bound(c), c.Duration(), int(h.depth), int(h.depth))
	b = t.appendCall(b, n, h)
	b = t.appendEnd(b, n.module, c)
	t.end(ls, b)
	if len(h.stack) > 0 {
		t.printStack(ls, int(h.depth)+1)
	}
}

// printExit prints the end of a call whose entry has a line of its own.
func (t *Tree) printExit(ls *treeLane, c *trace.Call) {
	n := t.name(c.Func)
	from := c.Depth
	plain := c.Depth > maxIndent && !c.HasRet
	if plain {
		from = t.join(ls, run{to: c.Depth, fn: c.Func, exit: true, end: c.End, gap: c.Gap}, c.Depth+1)
	}
	b := t.begin(ls, bound(c), c.Duration(), int(from), int(c.Depth))
	b = append(b, t.text.Dim...)
	b = append(b, "} "...)
	b = append(b, t.text.Reset...)
	b = append(b, n.exit...)
	b = t.appendEnd(b, "", c)
	t.end(ls, b)
	ls.run.on = plain
}

// join begins a run with r or, where the last line is the same at depth next,
// takes that line back to say it again for both. It returns the depth that the
// line begins at.
func (t *Tree) join(ls *treeLane, r run, next int32) int32 {
	last := &ls.run
	if last.on && last.to == next && last.fn == r.fn && last.exit == r.exit && last.end == r.end && last.gap == r.gap {
		r.from, r.offset = last.from, last.offset
		t.bytes -= len(ls.lines) - r.offset
		t.lines--
		ls.lines = ls.lines[:r.offset]
	} else {
		r.from, r.offset = r.to, len(ls.lines)
	}
	ls.run = r
	return r.from
}

// appendCall appends name and arguments.
func (t *Tree) appendCall(b []byte, n *treeName, h *heldCall) []byte {
	if h.nargs == 0 {
		return append(b, n.plain...)
	}
	b = append(b, n.call...)
	return appendArgs(b, h.args[:min(int(h.nargs), len(h.args))])
}

// appendArgs appends raw registers in parentheses.
func appendArgs(b []byte, args []uint64) []byte {
	b = append(b, '(')
	for i, a := range args {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = appendHex(b, a)
	}
	return append(b, ')')
}

// appendStatic appends the arguments of a static probe in parentheses: those of
// unread's bits as unknown, strings, numbers, and what is rather an address.
func appendStatic(b []byte, e *trace.Event) []byte {
	b = append(b, '(')
	for i, a := range e.Args {
		if i > 0 {
			b = append(b, ", "...)
		}
		switch n := int64(a); {
		case e.Unread&(1<<i) != 0:
			b = append(b, '?')
		case i < len(e.Texts) && e.Texts[i] != "":
			b = appendQuoted(b, e.Texts[i])
		case n > -1<<31 && n < 1<<32:
			b = strconv.AppendInt(b, n, 10)
		default:
			b = appendHex(b, a)
		}
	}
	return append(b, ')')
}

// appendQuoted appends text in quotes, on one line: a statement of SQL may have
// been written on several.
func appendQuoted(b []byte, text string) []byte {
	b = append(b, '"')
	blank := false
	for _, r := range term.Clean(strings.NewReplacer("\n", " ", "\t", " ", "\r", " ").Replace(text)) {
		if r == ' ' && blank {
			continue
		}
		blank = r == ' '
		b = utf8.AppendRune(b, r)
	}
	return append(b, '"')
}

// appendEnd appends return value, module and how the call ended.
func (t *Tree) appendEnd(b []byte, module string, c *trace.Call) []byte {
	if c.HasRet {
		b = append(b, " = "...)
		b = appendHex(b, c.Ret)
	}
	b = append(b, module...)
	if c.End != trace.EndReturn {
		b = append(b, t.text.Magenta...)
		b = append(b, endMark(c.End)...)
		b = append(b, t.text.Reset...)
	}
	if c.Gap {
		b = append(b, t.text.Yellow...)
		b = append(b, "  (events lost inside)"...)
		b = append(b, t.text.Reset...)
	}
	return b
}

// endMark says how a call ended that did not return.
func endMark(k trace.EndKind) string {
	switch k {
	case trace.EndUnwound:
		return "  ↯ unwound"
	case trace.EndUnseen:
		return "  ? return not seen"
	case trace.EndTask:
		return "  ■ thread ended"
	case trace.EndGo:
		return "  ■ goroutine ended"
	case trace.EndExec:
		return "  ■ exec"
	case trace.EndOpen:
		return "  … still open"
	case trace.EndDetached:
		return "  ⏏ detached"
	}
	return "  ? " + k.String()
}

// bound returns the sign before a duration that is not exact, 0 for none.
func bound(c *trace.Call) rune {
	switch c.End {
	case trace.EndUnwound, trace.EndUnseen:
		return '≤'
	case trace.EndOpen, trace.EndDetached:
		return '≥'
	}
	return ' '
}

// begin starts a line of ls: duration column, lane label, gutter, indentation
// for what happened at depth to, after the same from depth from on. sign 0
// leaves the duration out.
func (t *Tree) begin(ls *treeLane, sign rune, ns uint64, from, to int) []byte {
	if ls.count == 0 {
		t.beginGroup(ls, to)
	}
	b := ls.lines
	if sign == 0 {
		b = append(b, blanks[:term.DurationWidth+1]...)
	} else {
		color := t.text.Duration(ns)
		b = append(b, color...)
		b = utf8.AppendRune(b, sign)
		b = term.AppendDuration(b, ns)
		if color != "" {
			b = append(b, t.text.Reset...)
		}
	}
	b = append(b, ls.label...)
	if len(ls.lines) == 0 {
		ls.gutter = len(b)
	}
	b = append(b, gutterLine...)
	b = append(b, t.text.Reset...)
	b = append(b, ' ')
	return t.indent(b, from, to)
}

func (t *Tree) indent(b []byte, from, to int) []byte {
	if to <= maxIndent {
		return append(b, blanks[:indentWidth*max(to, 0)]...)
	}
	b = append(b, blanks[:indentWidth*maxIndent]...)
	b = append(b, t.text.Dim...)
	b = append(b, "⋯ "...)
	if from != to {
		b = appendUint(b, uint64(from))
		b = append(b, "…"...)
	}
	b = appendUint(b, uint64(to))
	b = append(b, ' ')
	return append(b, t.text.Reset...)
}

// end finishes the line that begin started.
func (t *Tree) end(ls *treeLane, b []byte) {
	b = append(b, '\n')
	t.bytes += len(b) - len(ls.lines)
	t.lines++
	ls.lines = b
	ls.count++
	ls.run.on = false
}

// beginGroup prepares the first line of a group: the line that names thread and
// callers, in case another lane is printed before it.
func (t *Tree) beginGroup(ls *treeLane, depth int) {
	if n := len(t.bufs); n > 0 {
		ls.lines, t.bufs = t.bufs[n-1], t.bufs[:n-1]
		t.spare -= cap(ls.lines)
	}
	t.fitLabel(ls)
	ls.head = ls.head[:0]
	callers := ls.path[:min(max(depth, 0), len(ls.path))]
	comm := ls.comm != "" && !ls.named
	if len(callers) == 0 && !comm {
		return
	}
	b := append(ls.head, blanks[:term.DurationWidth+1]...)
	b = append(b, ls.label...)
	b = append(b, gutterSwitch...)
	b = append(b, t.text.Reset...)
	b = append(b, t.text.Dim...)
	if comm {
		ls.named, ls.rename = true, true
		b = append(b, ' ')
		b = append(b, term.Clean(ls.comm)...)
		if len(callers) > 0 {
			b = append(b, ':')
		}
	}
	if skip := len(callers) - maxCallers; skip > 0 {
		callers = callers[skip:]
		b = append(b, " ⋯ "...)
		b = appendUint(b, uint64(skip))
		b = append(b, " ›"...)
	}
	for i, fn := range callers {
		if i > 0 {
			b = append(b, " ›"...)
		}
		b = append(b, ' ')
		b = append(b, t.name(fn).short...)
	}
	b = append(b, t.text.Reset...)
	ls.head = append(b, '\n')
}

// fitLabel makes the lane's label as wide as the widest seen: a thread's id,
// or "g" and the goroutine's number, with the process where it is not the first.
func (t *Tree) fitLabel(ls *treeLane) {
	if ls.width == t.labelWidth {
		return
	}
	var b []byte
	if k := ls.key; k.goid == 0 {
		b = appendUint(b, uint64(k.tid))
	} else {
		if k.pid != t.pid {
			b = append(appendUint(b, uint64(k.pid)), '/')
		}
		b = appendUint(append(b, 'g'), k.goid)
	}
	t.labelWidth = max(t.labelWidth, len(b))
	ls.width = t.labelWidth
	id := ls.key.goid
	if id == 0 {
		id = uint64(ls.key.tid)
	}
	color := t.text.Lanes[id%uint64(len(t.text.Lanes))]
	l := append(ls.label[:0], "  "...)
	l = append(l, blanks[:t.labelWidth-len(b)]...)
	l = append(l, color...)
	l = append(l, b...)
	ls.label = append(l, ' ') // begin ends the colour after the gutter
}

// printStack prints the stack of the held call below its line.
func (t *Tree) printStack(ls *treeLane, depth int) {
	for _, addr := range ls.call.stack {
		b := t.begin(ls, 0, 0, depth, depth)
		b = append(b, t.text.Dim...)
		b = append(b, "↖ "...)
		b = t.appendFrame(b, ls.key.pid, addr)
		b = append(b, t.text.Reset...)
		t.end(ls, b)
	}
}

func (t *Tree) appendFrame(b []byte, pid uint32, addr uint64) []byte {
	if t.opt.Frame == nil {
		return appendHex(b, addr)
	}
	return t.opt.Frame(b, pid, addr)
}
