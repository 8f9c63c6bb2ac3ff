package tracer

import (
	"errors"
	"fmt"

	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// unmatched tells of the patterns that matched nothing in any process: the
// nearest names, or where what they name was inlined.
func (t *Tracer) unmatched() []error {
	misses := make(map[uprobes.Pattern]int)
	var out []error
	var names *catalog
	for _, m := range t.matchers {
		for _, p := range m.Unmatched() {
			if misses[p]++; misses[p] < len(t.matchers) {
				continue
			}
			if inlined := t.inlinedAs(p); inlined != nil {
				out = append(out, inlined)
				continue
			}
			if names == nil {
				names = t.catalog()
			}
			out = append(out, &uprobes.NoMatchError{Kind: p.Kind, Pattern: p.Text, Nearest: names.nearest(p, 5)})
		}
	}
	return out
}

// catalog is what the targets' modules have to select from.
func (t *Tracer) catalog() *catalog {
	c := new(catalog)
	for _, m := range t.modules {
		c.modules = append(c.modules, m.name)
		if m.bin == nil {
			continue
		}
		if fns, err := m.bin.Functions(); err == nil {
			c.functions = append(c.functions, fns)
		}
	}
	return c
}

// inlinedAs looks whether a pattern fits functions that exist only inlined in
// the program of a target; nil if not.
func (t *Tracer) inlinedAs(p uprobes.Pattern) error {
	for pid := range t.processes {
		l := lister{o: ListOptions{Path: symbolizer.ExePath(int(pid))}}
		if err := l.inlinedAs(p); err != nil {
			return err
		}
	}
	return nil
}

// noteUnmatched says which patterns matched nothing while others did: libraries
// that are loaded later may still have what they name.
func (t *Tracer) noteUnmatched() {
	for _, err := range t.unmatched() {
		t.note("%v", err)
	}
}

// nothing says why there is nothing to trace.
func (t *Tracer) nothing() error {
	if t.opt.Selector.Empty() && len(t.opt.USDT) == 0 {
		return fmt.Errorf("%w: the program has no symbols of its own; see `sbxtrace functions`, or name functions of its libraries", ErrNoFunctions)
	}
	if errs := t.unmatched(); len(errs) > 0 {
		return errors.Join(errs...)
	}
	return ErrNoFunctions
}
