package exporter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sbxtrace/sbxtrace/internal/term"
)

// comparison reports what changed from the base to the other profile. Shares are
// of each profile's own total.
func (r *report) comparison() {
	r.headline(title(r.p, r.typ, r.opt) + ": what changed from the base")
	now, was := r.tree.total[r.typ], r.tree.was[r.typ]
	t := r.tree.types[r.typ]
	change := ""
	if was > 0 {
		change = fmt.Sprintf(" (%+.1f %%)", 100*(float64(now)/float64(was)-1))
	}
	r.wrapped([]string{
		"base " + typePhrase(was, t), "new " + typePhrase(now, t) + change,
	}, " · ", "")
	r.wrapped([]string{"shares are of each profile's own total", "+ is more in the new one"}, "; ", r.text.Dim)
	r.changes("Functions", r.tree.functions(r.typ), func(at *row, room int) string { return r.functionText(at.frame, at.line, room) })
	r.changes("Modules", r.tree.modules(r.typ), func(at *row, room int) string { return term.Elide(moduleText(at.name), room) })
	r.changes("Threads", threadRows(r.p, r.typ), func(at *row, room int) string { return term.Elide(term.Clean(at.name), room) })
	r.notes()
}

// changes prints the rows whose share of the whole changed most.
func (r *report) changes(what string, rows []row, name func(at *row, room int) string) {
	now, was := r.tree.total[r.typ], r.tree.was[r.typ]
	type change struct {
		*row
		flat, cum float64
	}
	var all []change
	for i := range rows {
		at := &rows[i]
		c := change{at, ratio(at.flat, now) - ratio(at.baseFlat, was), ratio(at.cum, now) - ratio(at.baseCum, was)}
		if size(c.flat) >= 0.0005 || size(c.cum) >= 0.0005 {
			all = append(all, c)
		}
	}
	if len(rows) < 2 {
		return
	}
	r.section(what)
	if len(all) == 0 {
		r.line(r.paint(r.text.Dim, "  no changes of 0.1 % or more"))
		return
	}
	slices.SortStableFunc(all, func(a, b change) int {
		return cmp.Or(cmp.Compare(size(b.flat), size(a.flat)), cmp.Compare(size(b.cum), size(a.cum)))
	})
	cum := what != "Threads"
	head := "      BASE      NEW   CHANGE"
	if cum {
		head += "      CUM"
	}
	r.line(r.paint(r.text.Bold, head+"  "+strings.ToUpper(what[:len(what)-1])))
	for i, c := range all {
		if i == r.limit {
			r.line(r.paint(r.text.Dim, "  … "+term.Plural(uint64(len(all)-i), "more change")))
			break
		}
		line := fmt.Sprintf("  %8s %8s %s", share(c.baseFlat, was), share(c.row.flat, now), r.points(c.flat))
		if cum {
			line += " " + r.points(c.cum)
		}
		r.line(line + "  " + name(c.row, max(r.width-len(head)-2, 8)))
	}
}

// share writes part of all; a dash for nothing.
func share(part, all int64) string {
	if part == 0 {
		return "–"
	}
	return percent(ratio(part, all))
}

// points writes a change of a share in percentage points.
func (r *report) points(change float64) string {
	s := right(strings.Replace(fmt.Sprintf("%+.1f", 100*change), "-", "−", 1), 8)
	switch {
	case size(change) < 0.0005:
		return r.paint(r.text.Dim, right("·", 8))
	case change > 0:
		return r.paint(r.text.Red, s)
	}
	return r.paint(r.text.Blue, s)
}

// size is v without its sign.
func size(v float64) float64 { return max(v, -v) }
