package view

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/trace"
)

// SummaryOptions says how tables are printed.
type SummaryOptions struct {
	// Color adds terminal colours. The caller decides (terminal, NO_COLOR).
	Color bool
	// Width is the number of columns to fit into: less important columns
	// are left out and names are elided in the middle. 0: any.
	Width int
	// Sort is the column to order by.
	Sort trace.SortKey
	// Limit is how many functions to print; 0: all.
	Limit int
}

// Bounds of a table's last column, the names.
const (
	nameAtLeast = 22
	barWidth    = 8
)

// column is one column of numbers: right-aligned cells.
type column struct {
	title string
	width int
	cell  func(r *trace.Row) string
	color func(r *trace.Row) string // escape sequence for the cell, may be nil
	// rank orders the columns by importance: the highest go first when
	// the terminal is narrow.
	rank int
}

// Summary prints a table of functions and, below it, what the numbers leave
// out. Where no durations were measured (level count) it has calls and rates.
func Summary(w io.Writer, fns trace.Functions, rows []trace.Row, totals *trace.Totals, opt SummaryOptions) error {
	rows = append([]trace.Row(nil), rows...)
	timed := false
	for i := range rows {
		timed = timed || measured(&rows[i])
	}
	if !timed && opt.Sort != trace.SortName {
		opt.Sort = trace.SortCalls
	}
	trace.SortRows(rows, fns, opt.Sort)
	s := table{fns: fns, opt: opt, text: term.NewPalette(opt.Color), rows: rows, totals: totals}
	s.columns = s.countColumns()
	if timed {
		s.columns = s.timeColumns()
	}
	s.print()
	out := output{w: w, buf: s.buf}
	out.drain()
	return out.err
}

type table struct {
	buf     []byte
	fns     trace.Functions
	opt     SummaryOptions
	text    term.Palette
	rows    []trace.Row
	totals  *trace.Totals
	columns []column
}

func (s *table) timeColumns() []column {
	var all uint64
	for i := range s.rows {
		all += s.rows[i].Self
	}
	time := func(title string, rank int, needsTimed bool, value func(*trace.Row) uint64) column {
		return column{
			title: title, width: term.DurationWidth, rank: rank,
			cell: func(r *trace.Row) string {
				if needsTimed && r.Timed == 0 || !measured(r) {
					return "–"
				}
				return string(term.AppendDuration(nil, value(r)))
			},
			color: func(r *trace.Row) string {
				if needsTimed && r.Timed == 0 || !measured(r) {
					return s.text.Dim
				}
				return s.text.Duration(value(r))
			},
		}
	}
	quantile := func(q float64) func(*trace.Row) uint64 {
		return func(r *trace.Row) uint64 { return r.Quantile(q) }
	}
	return s.fit([]column{
		s.callsColumn(),
		time("TOTAL", 1, false, func(r *trace.Row) uint64 { return r.Total }),
		time("SELF", 2, false, func(r *trace.Row) uint64 { return r.Self }),
		time("MIN", 6, true, func(r *trace.Row) uint64 { return r.Min }),
		time("P50", 4, true, quantile(0.5)),
		time("P95", 8, true, quantile(0.95)),
		time("P99", 5, true, quantile(0.99)),
		time("MAX", 3, true, func(r *trace.Row) uint64 { return r.Max }),
		s.barColumn(" SELF %", 7, func(r *trace.Row) float64 { return term.Share(r.Self, all) }),
	})
}

func (s *table) countColumns() []column {
	var all uint64
	for i := range s.rows {
		all += s.rows[i].Calls
	}
	columns := []column{s.callsColumn()}
	if elapsed := s.totals.Elapsed(); elapsed > 0 {
		columns = append(columns, column{
			title: "RATE", width: 10, rank: 1,
			cell: func(r *trace.Row) string { return term.Rate(r.Calls, elapsed) },
		})
	}
	columns = append(columns, s.barColumn("  SHARE", 2, func(r *trace.Row) float64 { return term.Share(r.Calls, all) }))
	return s.fit(columns)
}

func (s *table) callsColumn() column {
	calls := func(r *trace.Row) string {
		if r.AtLeast {
			return "≥ " + term.Count(r.Calls)
		}
		return term.Count(r.Calls)
	}
	width := len("CALLS")
	for i := range s.rows {
		width = max(width, utf8.RuneCountInString(calls(&s.rows[i])))
	}
	return column{
		title: "CALLS", width: width, cell: calls,
		color: func(r *trace.Row) string {
			if r.AtLeast {
				return s.text.Yellow
			}
			return ""
		},
	}
}

func (s *table) barColumn(title string, rank int, value func(*trace.Row) float64) column {
	return column{
		title: fmt.Sprintf("%-*s", barWidth+8, title), width: barWidth + 8, rank: rank,
		cell: func(r *trace.Row) string {
			v := value(r)
			b := term.Bar(v, barWidth)
			return fmt.Sprintf("%5.1f %% %s%s", 100*v, b, strings.Repeat(" ", barWidth-utf8.RuneCountInString(b)))
		},
		color: func(r *trace.Row) string {
			if value(r) < 0.001 {
				return s.text.Dim
			}
			return ""
		},
	}
}

// fit leaves out the least important columns until names have room.
func (s *table) fit(columns []column) []column {
	for s.opt.Width > 0 && len(columns) > 1 && s.opt.Width-numbersWidth(columns) < nameAtLeast {
		worst := 0
		for i := range columns {
			if columns[i].rank > columns[worst].rank {
				worst = i
			}
		}
		columns = append(columns[:worst], columns[worst+1:]...)
	}
	return columns
}

// numbersWidth is how many columns of the terminal stand before the names.
func numbersWidth(columns []column) int {
	n := 2
	for i := range columns {
		n += columns[i].width + 2
	}
	return n
}

func (s *table) print() {
	if len(s.rows) > 0 {
		s.header()
	}
	n := len(s.rows)
	if s.opt.Limit > 0 {
		n = min(n, s.opt.Limit)
	}
	for i := range s.rows[:n] {
		s.row(&s.rows[i])
	}
	if more := len(s.rows) - n; more > 0 {
		s.line(s.text.Dim, fmt.Sprintf("  … %s more functions", term.Count(uint64(more))))
	}
	s.footer()
}

func (s *table) header() {
	s.buf = append(s.buf, s.text.Bold...)
	for i := range s.columns {
		s.buf = term.AppendPadded(append(s.buf, "  "...), s.columns[i].title, s.columns[i].width)
	}
	s.buf = append(s.buf, "  FUNCTION"...)
	s.buf = append(s.buf, s.text.Reset...)
	s.buf = append(s.buf, '\n')
}

func (s *table) row(r *trace.Row) {
	for i := range s.columns {
		c := &s.columns[i]
		s.buf = append(s.buf, "  "...)
		color := ""
		if c.color != nil {
			color = c.color(r)
		}
		s.buf = append(s.buf, color...)
		s.buf = term.AppendPadded(s.buf, c.cell(r), c.width)
		if color != "" {
			s.buf = append(s.buf, s.text.Reset...)
		}
	}
	f := funcOf(s.fns, r.Func)
	name, module := term.Clean(f.Name), term.Clean(f.Module)
	if module != "" {
		module = " [" + module + "]"
	}
	if s.opt.Width > 0 {
		room := max(s.opt.Width-numbersWidth(s.columns), 8)
		if room-utf8.RuneCountInString(module) < 8 {
			module = ""
		}
		name = term.Elide(name, room-utf8.RuneCountInString(module))
	}
	s.buf = append(append(s.buf, "  "...), name...)
	if module != "" {
		s.buf = append(append(append(s.buf, s.text.Dim...), module...), s.text.Reset...)
	}
	s.buf = append(s.buf, '\n')
}

// footer says how much was seen and what the table does not tell.
func (s *table) footer() {
	t := s.totals
	var calls, functions, hits, probes uint64
	atLeast, over := 0, ""
	for i := range s.rows {
		if funcOf(s.fns, s.rows[i].Func).Lang == trace.LangStatic {
			hits += s.rows[i].Calls
			probes++
		} else {
			calls += s.rows[i].Calls
			functions++
		}
		if s.rows[i].AtLeast {
			atLeast++
		}
	}
	if e := t.Elapsed(); e > 0 {
		over = " in " + term.Duration(e)
	}
	if len(s.rows) > 0 {
		s.buf = append(s.buf, '\n')
	}
	var seen []string
	if functions > 0 || probes == 0 {
		seen = append(seen, term.Plural(calls, "call")+" of "+term.Plural(functions, "function"))
	}
	if probes > 0 {
		seen = append(seen, term.Plural(hits, "hit")+" of "+term.Plural(probes, "static probe"))
	}
	s.line("", "  "+strings.Join(seen, " and ")+over)
	for cause, n := range t.Lost {
		if n > 0 {
			s.line(s.text.Bold+s.text.Red, fmt.Sprintf("  ⚠ %s lost: %s", term.Plural(n, "event"), lostBecause(trace.LostCause(cause))))
		}
	}
	if atLeast > 0 {
		s.line(s.text.Yellow, fmt.Sprintf("  ≥ %s detached to bound the overhead: at least that many calls",
			term.Plural(uint64(atLeast), "function")))
	}
	if n := t.Unreturned(); n > 0 {
		var how []string
		for k, n := range t.Ends {
			if kind := trace.EndKind(k); kind != trace.EndReturn && n > 0 {
				how = append(how, term.Count(n)+" "+kind.String())
			}
		}
		s.line(s.text.Dim, fmt.Sprintf("  · %s without a return: %s", term.Plural(n, "call"), strings.Join(how, ", ")))
		if t.Ends[trace.EndUnseen] > 0 {
			s.line(s.text.Dim, "  · unseen returns are nested deeper than the kernel's 64 return probes per thread; --returns ret sees them")
		}
	} else if n := s.untimed(); n > 0 {
		s.line(s.text.Dim, fmt.Sprintf("  · %s of %s not timed: left otherwise than by a return, running at the end, not drawn, or nested too deep",
			term.Count(n), term.Plural(calls, "call")))
	}
	if t.Cut > 0 {
		s.line(s.text.Dim, fmt.Sprintf("  · %s of %s may lack callers: they were walked by frame pointers, which not all code keeps",
			term.Count(t.Cut), term.Plural(t.Stacks, "stack")))
	}
	if t.Gaps > 0 {
		s.line(s.text.Dim, fmt.Sprintf("  · %s open while events were lost: their callees may be missing", term.Plural(t.Gaps, "call")))
	}
	if t.Orphans > 0 {
		s.line(s.text.Dim, fmt.Sprintf("  · %s without an entry: running when tracing began, or their entry was lost",
			term.Plural(t.Orphans, "return")))
	}
}

// lostBecause says what a cause of loss means where its name alone does not.
func lostBecause(cause trace.LostCause) string {
	if cause == trace.LostStack {
		return cause.String() + ", in calls nested deeper than the 128 that the kernel keeps"
	}
	return cause.String()
}

// untimed counts the calls without a duration where durations were measured in
// the kernel, which does not tell how each of them ended.
func (s *table) untimed() uint64 {
	var n, timed uint64
	for i := range s.rows {
		r := &s.rows[i]
		if r.Calls > r.Timed && funcOf(s.fns, r.Func).Lang != trace.LangStatic {
			n += r.Calls - r.Timed
		}
		timed += r.Timed
	}
	if timed == 0 {
		return 0 // level count
	}
	return n
}

func (s *table) line(color, text string) {
	s.buf = append(append(s.buf, color...), text...)
	if color != "" {
		s.buf = append(s.buf, s.text.Reset...)
	}
	s.buf = append(s.buf, '\n')
}
