package view

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/trace"
)

// histBar is the width of a histogram's bars where the terminal does not say.
const histBar = 40

// Histogram prints the durations of one function's calls: a bar per power of
// two from the shortest to the longest, and where the percentiles lie.
func Histogram(w io.Writer, fns trace.Functions, r *trace.Row, opt SummaryOptions) error {
	h := histogram{text: term.NewPalette(opt.Color), bars: histBar}
	if opt.Width > 0 {
		h.bars = min(max(opt.Width-46, 8), 80)
	}
	f := funcOf(fns, r.Func)
	name := term.Clean(f.Name)
	if opt.Width > 0 {
		name = term.Elide(name, max(opt.Width-40, 20))
	}
	if f.Module != "" {
		name += " [" + term.Clean(f.Module) + "]"
	}
	h.print(name, r)
	out := output{w: w, buf: h.buf}
	out.drain()
	return out.err
}

type histogram struct {
	buf  []byte
	text term.Palette
	bars int
}

func (h *histogram) print(name string, r *trace.Row) {
	n := r.Hist.Count()
	h.buf = fmt.Appendf(h.buf, "  %s%s%s: ", h.text.Bold, name, h.text.Reset)
	if r.AtLeast {
		h.buf = append(h.buf, "≥ "...)
	}
	h.buf = append(h.buf, term.Plural(r.Calls, "call")...)
	if n == 0 {
		h.buf = append(h.buf, ", no durations\n"...)
		return
	}
	if n < r.Calls {
		h.buf = fmt.Appendf(h.buf, ", %s of them timed", term.Count(n))
	}
	h.buf = fmt.Appendf(h.buf, ", p50 %s, p95 %s, p99 %s\n", term.Duration(r.Quantile(0.5)),
		term.Duration(r.Quantile(0.95)), term.Duration(r.Quantile(0.99)))

	counts := r.Hist.Log2()
	first, last, most := len(counts), 0, uint64(0)
	for i, c := range counts {
		if c > 0 {
			first, last = min(first, i), i
			most = max(most, c)
		}
	}
	width := len("CALLS")
	for _, c := range counts {
		width = max(width, utf8.RuneCountInString(term.Count(c)))
	}
	h.buf = append(h.buf, h.text.Bold...)
	h.buf = append(h.buf, "       FROM           TO  "...)
	h.buf = term.AppendPadded(h.buf, "CALLS", width)
	h.buf = append(append(h.buf, h.text.Reset...), '\n')
	for i := first; i <= last; i++ {
		h.line(r, i, counts[i], most, n, width)
	}
}

// line prints the calls whose durations have bits significant bits.
func (h *histogram) line(r *trace.Row, bits int, count, most, all uint64, width int) {
	lo, hi := uint64(0), uint64(0)
	if bits > 0 {
		lo = 1 << (bits - 1)
		hi = lo + (lo - 1)
	}
	b := append(h.buf, "  "...)
	b = term.AppendDuration(b, lo)
	b = append(b, "  … "...)
	b = term.AppendDuration(b, hi)
	b = term.AppendPadded(append(b, "  "...), term.Count(count), width)
	b = append(b, "  "...)
	if count > 0 {
		cells := term.Bar(term.Share(count, most), h.bars)
		b = append(append(b, h.text.Duration(lo)...), cells...)
		b = append(b, h.text.Reset...)
		b = fmt.Appendf(b, " %.1f %%", 100*term.Share(count, all))
	}
	var marks []string
	for _, q := range [...]struct {
		name string
		v    float64
	}{{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}} {
		if v := r.Quantile(q.v); v >= lo && v <= hi {
			marks = append(marks, q.name)
		}
	}
	if len(marks) > 0 {
		b = append(append(b, h.text.Dim...), "  ← "...)
		b = append(append(b, strings.Join(marks, " ")...), h.text.Reset...)
	}
	h.buf = append(b, '\n')
}
