package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/replay"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/trigger"
)

// finder is a sink that ends a replay where a condition is met.
type finder struct {
	*trigger.Watch
	found bool
	at    uint64
	lane  string // of the call that met it, empty where it was none
	call  trace.Call
	names func(l *trace.Lane) string
}

func (f *finder) Enter(l *trace.Lane, c *trace.Call) {
	before := f.found
	f.Watch.Enter(l, c)
	f.note(before, l, c)
}

func (f *finder) Leave(l *trace.Lane, c *trace.Call) {
	before := f.found
	f.Watch.Leave(l, c)
	f.note(before, l, c)
}

// note keeps the call by which the condition was met.
func (f *finder) note(before bool, l *trace.Lane, c *trace.Call) {
	if f.found && !before {
		f.lane, f.call = f.names(l), *c
	}
}

// findNext prints the first moment from --from on at which the condition of --until
// is met, and what every thread is in then.
func (f *replayFlags) findNext(out *output, rec *recording.File, p *replay.Player) error {
	c, err := trigger.Parse(f.until)
	if err != nil {
		return usagef("--until: %w", err)
	}
	o, err := f.span(rec)
	if err != nil {
		return err
	}
	if o.From > 0 {
		if err := p.Seek(o.From); err != nil {
			return err
		}
	}
	s := &finder{names: func(l *trace.Lane) string { return laneName(p, l) }}
	s.Watch, err = trigger.NewWatch([]*trigger.Condition{c}, p.Names(), matchGlob, func(_ *trigger.Condition, at uint64) {
		if !s.found {
			s.found, s.at = true, at
		}
	})
	if err != nil {
		return usageError{err}
	}
	p.SetSink(s)
	for !s.found {
		item, err := p.Step()
		if err != nil {
			return err
		}
		if item == nil || o.To > 0 && p.Now() > o.To {
			return fmt.Errorf("nothing in that time meets %s", c.Text)
		}
	}
	p.SetSink(nil)
	if f.format == "json" {
		return momentJSON(out, p, s.at)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n", term.Clean(c.Text), moment(rec, s.at))
	if s.lane != "" {
		fn := p.Names().Func(s.call.Func)
		fmt.Fprintf(&b, "\n%s\n  %s%s took %s", s.lane, term.Clean(fn.Name), arguments(&s.call), brief(s.call.Duration()))
		if s.call.HasRet {
			fmt.Fprintf(&b, ", returned %#x", s.call.Ret)
		}
		if s.call.End != trace.EndReturn {
			fmt.Fprintf(&b, " (%s)", s.call.End)
		}
		b.WriteString("\n")
	}
	b.WriteString("\nopen then:\n")
	appendLanes(&b, out, p, s.at)
	_, err = io.WriteString(out, b.String())
	return err
}

// historyLength is how many ended calls of a thread --explain tells of.
const historyLength = 12

// history keeps the calls of each thread that ended last.
type history struct {
	ended map[replay.Thread][]trace.Call
}

func threadOf(l *trace.Lane) replay.Thread {
	t := replay.Thread{PID: l.PID, GoID: l.GoID}
	if l.GoID == 0 {
		t.TID = l.TID
	}
	return t
}

func (h *history) Enter(*trace.Lane, *trace.Call) {}
func (h *history) Leave(l *trace.Lane, c *trace.Call) {
	t := threadOf(l)
	calls := h.ended[t]
	if len(calls) == historyLength {
		calls = calls[:copy(calls, calls[1:])]
	}
	h.ended[t] = append(calls, *c)
}
func (h *history) Event(*trace.Event) {}
func (h *history) Tick(uint64)        {}

// explainMoment prints what led to the time of --explain: of every thread that is in
// a call, the chain of calls, and what ran before on it.
func (f *replayFlags) explainMoment(out *output, rec *recording.File, p *replay.Player) error {
	at, err := replay.ParseTime(rec, f.explain)
	if err != nil {
		return usagef("--explain: %w", err)
	}
	h := &history{ended: make(map[replay.Thread][]trace.Call)}
	p.SetSink(h)
	// The block before is enough to know what came before, also at the
	// beginning of one.
	if err := p.PlayTo(at, 1); err != nil {
		return err
	}
	p.SetSink(nil)
	var b strings.Builder
	text := term.NewPalette(out.color)
	fmt.Fprintf(&b, "%s\n", moment(rec, at))
	lanes := p.Lanes()
	if len(lanes) == 0 {
		b.WriteString("\n  no call is open\n")
	}
	for _, l := range lanes {
		fmt.Fprintf(&b, "\n%s%s%s\n", text.Bold, laneName(p, l), text.Reset)
		b.WriteString("  is in\n")
		appendOpen(&b, out, p, l, at, 4)
		calls := h.ended[threadOf(l)]
		if len(calls) == 0 {
			b.WriteString("  nothing ended on it shortly before\n")
			continue
		}
		b.WriteString("  before that, latest first\n")
		for i := len(calls) - 1; i >= 0; i-- {
			c := &calls[i]
			fmt.Fprintf(&b, "    %s%s took %s, ended %s before", term.Clean(p.Names().Func(c.Func).Name), arguments(c),
				brief(c.Duration()), brief(at-min(at, c.Last)))
			if c.Depth > 0 {
				fmt.Fprintf(&b, ", called by %s", term.Clean(p.Names().Func(c.Parent).Name))
			}
			b.WriteString("\n")
		}
	}
	_, err = io.WriteString(out, b.String())
	return err
}

// brief is a duration without the padding of columns.
func brief(ns uint64) string { return strings.Join(strings.Fields(term.Duration(ns)), " ") }
