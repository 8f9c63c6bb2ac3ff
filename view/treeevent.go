package view

import (
	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/trace"
)

// loss sums up losses that no other event lies between.
type loss struct {
	cause trace.LostCause
	count uint64
	cpu   int32
	cpus  bool // more than one CPU
}

// Event implements trace.Sink.
func (t *Tree) Event(e *trace.Event) {
	if e.Kind == trace.KindLost {
		t.lose(e)
		return
	}
	if e.Kind == trace.KindDetached && e.Time == t.detachedAt && t.detached >= maxDetached {
		t.detached++ // only counted
		return
	}
	t.advance(e.Time)
	switch e.Kind {
	case trace.KindFork:
		ls, b := t.note(e)
		if e.ChildPID == e.PID {
			b = appendUint(append(b, "+ thread "...), uint64(e.Child))
		} else {
			b = appendUint(append(b, "⑂ fork: process "...), uint64(e.ChildPID))
		}
		if e.Comm != "" {
			b = append(append(append(b, " ("...), term.Clean(e.Comm)...), ')')
		}
		t.endNote(ls, b)
	case trace.KindExec:
		// Everything the old program did comes before it.
		t.flush()
		ls, b := t.note(e)
		b = append(b, "⇒ exec"...)
		if e.Comm != "" {
			b = append(append(b, ": "...), term.Clean(e.Comm)...)
			ls.comm, ls.named = e.Comm, true
		}
		t.endNote(ls, b)
		ls.path = ls.path[:0]
	case trace.KindTaskExit:
		ls, b := t.note(e)
		t.endNote(ls, append(b, "■ thread ends"...))
		ls.path, ls.ended = ls.path[:0], true
	case trace.KindProcessExit:
		t.flush()
		ls, b := t.note(e)
		t.endNote(ls, appendUint(append(b, "■ exit: process "...), uint64(e.PID)))
		ls.path, ls.ended = ls.path[:0], true
	case trace.KindUSDT:
		t.printUSDT(e)
	case trace.KindDetached:
		t.printDetached(e)
	}
	t.limit()
}

// note starts a line about e in its lane, inside the innermost open call.
func (t *Tree) note(e *trace.Event) (*treeLane, []byte) {
	ls := t.last
	if k := keyOfEvent(e); ls == nil || ls.key != k {
		ls = t.find(k)
	}
	if ls.held {
		t.printEntry(ls)
	}
	t.list(ls)
	b := t.begin(ls, 0, 0, len(ls.path), len(ls.path))
	return ls, append(b, t.text.Dim...)
}

func (t *Tree) endNote(ls *treeLane, b []byte) {
	t.end(ls, append(b, t.text.Reset...))
}

func (t *Tree) printUSDT(e *trace.Event) {
	ls, b := t.note(e)
	n := t.name(e.Func)
	b = append(b, t.text.Reset...)
	b = append(append(b, "◆ "...), n.exit...)
	b = appendStatic(b, e)
	t.end(ls, append(b, n.module...))
}

// printDetached says, on a line of no lane, that a function is traced no more.
func (t *Tree) printDetached(e *trace.Event) {
	if e.Time != t.detachedAt {
		t.detached, t.detachedAt = 0, e.Time
	}
	t.detached++
	t.flush()
	n := t.name(e.Func)
	b := t.beginApart("⏏ ")
	b = append(append(b, n.exit...), ": "...)
	b = append(b, term.Rate(e.Count, sec)...)
	t.endApart(append(b, ", detached"...))
}

// printMoreDetached counts the functions that were not named.
func (t *Tree) printMoreDetached() {
	t.flush()
	b := t.beginApart("⏏ and ")
	b = term.AppendCount(b, uint64(t.detached-maxDetached))
	t.detached = 0
	t.endApart(append(b, " more detached"...))
}

// beginApart starts a line that belongs to no lane.
func (t *Tree) beginApart(mark string) []byte {
	b := append(t.out.buf, blanks[:term.DurationWidth+1+2]...)
	return append(append(b, t.text.Yellow...), mark...)
}

func (t *Tree) endApart(b []byte) {
	t.out.buf = append(append(b, t.text.Reset...), '\n')
	t.printed = laneKey{}
	t.out.spill()
}

// lose adds a loss to the one that is not printed yet, or begins one.
func (t *Tree) lose(e *trace.Event) {
	if e.Time >= t.windowEnd {
		t.nextWindow(e.Time)
	}
	if t.losing && t.lost.cause != e.Cause {
		t.printLost()
	}
	if !t.losing {
		t.losing = true
		t.lost = loss{cause: e.Cause, cpu: e.CPU}
	}
	t.lost.count += e.Count
	t.lost.cpus = t.lost.cpus || t.lost.cpu != e.CPU
}

// printLost prints the pending loss where it happened: after the entries that
// are open in any lane.
func (t *Tree) printLost() {
	t.losing = false
	t.releaseAll()
	t.flush()
	b := append(t.out.buf, blanks[:term.DurationWidth+1+2]...)
	b = append(b, t.text.Bold...)
	b = append(b, t.text.Red...)
	b = append(b, "⚠ "...)
	b = term.AppendCount(b, t.lost.count)
	if t.lost.count == 1 {
		b = append(b, " event lost"...)
	} else {
		b = append(b, " events lost"...)
	}
	if !t.lost.cpus && t.lost.cpu >= 0 {
		b = append(b, " on CPU "...)
		b = appendUint(b, uint64(t.lost.cpu))
	}
	b = append(b, ": "...)
	b = append(b, t.lost.cause.String()...)
	b = append(b, t.text.Reset...)
	t.out.buf = append(b, '\n')
	t.printed = laneKey{}
	t.out.spill()
}
