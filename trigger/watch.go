package trigger

import (
	"fmt"

	"github.com/sbxtrace/sbxtrace/trace"
)

// Watch is a trace.Sink that tells when conditions are met.
type Watch struct {
	fns   trace.Functions
	conds []watched
	fire  func(c *Condition, at uint64)
	funcs trace.ByFunc[interest]
}

type watched struct {
	*Condition
	match func(f *trace.Func) bool // nil: all
	count uint64                   // of calls in the present second
	since uint64                   // when it began, ns
}

// interest are the conditions that a function is of interest to, by index.
type interest struct {
	enter, leave []int
}

// NewWatch returns a Watch that calls fire whenever a condition is met, with the
// time in ns at which it was. match compiles a glob over functions.
func NewWatch(conds []*Condition, fns trace.Functions, match func(glob string) (func(*trace.Func) bool, error), fire func(*Condition, uint64)) (*Watch, error) {
	w := &Watch{fns: fns, fire: fire}
	for _, c := range conds {
		one := watched{Condition: c}
		if c.glob != "" {
			var err error
			if one.match, err = match(c.glob); err != nil {
				return nil, fmt.Errorf("%s: %w", c.Text, err)
			}
		}
		w.conds = append(w.conds, one)
	}
	return w, nil
}

// of returns which conditions are about a function.
func (w *Watch) of(id trace.FuncID) *interest {
	in := w.funcs.Get(id)
	if in != nil {
		return in
	}
	in = new(interest)
	for i := range w.conds {
		c := &w.conds[i]
		if c.match != nil && !c.match(w.fns.Func(id)) {
			continue
		}
		switch c.Kind {
		case Entry, Rate:
			in.enter = append(in.enter, i)
		case Call, Self, Ret:
			in.leave = append(in.leave, i)
		}
	}
	w.funcs.Set(id, in)
	return in
}

// Enter implements trace.Sink.
func (w *Watch) Enter(_ *trace.Lane, call *trace.Call) {
	for _, i := range w.of(call.Func).enter {
		c := &w.conds[i]
		if c.Kind == Entry {
			w.fire(c.Condition, call.Start)
			continue
		}
		c.called(call.Start, w.fire)
	}
}

const second = 1_000_000_000

// called counts a call towards a rate. It is met as soon as a second has seen
// enough of them, and again in the next.
func (c *watched) called(at uint64, fire func(*Condition, uint64)) {
	if c.since == 0 || at >= c.since+second {
		c.since, c.count = at, 0
	}
	before := c.compare(float64(c.count))
	c.count++
	if !before && c.compare(float64(c.count)) {
		fire(c.Condition, at)
	}
}

// Leave implements trace.Sink.
func (w *Watch) Leave(_ *trace.Lane, call *trace.Call) {
	for _, i := range w.of(call.Func).leave {
		if c := &w.conds[i]; c.leave(call) {
			w.fire(c.Condition, call.Last)
		}
	}
}

// Event implements trace.Sink.
func (w *Watch) Event(e *trace.Event) {
	for i := range w.conds {
		if w.conds[i].event(e) {
			w.fire(w.conds[i].Condition, e.Time)
		}
	}
}

// Tick implements trace.Sink.
func (w *Watch) Tick(uint64) {}
