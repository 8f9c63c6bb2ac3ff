package view

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

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
	s := table{fns: fns, opt: opt, text: newANSI(opt.Color), rows: rows, totals: totals}
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
	text    ansi
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
			title: title, width: durationWidth, rank: rank,
			cell: func(r *trace.Row) string {
				if needsTimed && r.Timed == 0 {
					return "–"
				}
				return string(AppendDuration(nil, value(r)))
			},
			color: func(r *trace.Row) string {
				if needsTimed && r.Timed == 0 {
					return s.text.dim
				}
				return s.text.duration(value(r))
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
		s.barColumn(" SELF %", 7, func(r *trace.Row) float64 { return share(r.Self, all) }),
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
			cell: func(r *trace.Row) string { return Rate(r.Calls, elapsed) },
		})
	}
	columns = append(columns, s.barColumn("  SHARE", 2, func(r *trace.Row) float64 { return share(r.Calls, all) }))
	return s.fit(columns)
}

func (s *table) callsColumn() column {
	calls := func(r *trace.Row) string {
		if r.AtLeast {
			return "≥ " + Count(r.Calls)
		}
		return Count(r.Calls)
	}
	width := len("CALLS")
	for i := range s.rows {
		width = max(width, utf8.RuneCountInString(calls(&s.rows[i])))
	}
	return column{
		title: "CALLS", width: width, cell: calls,
		color: func(r *trace.Row) string {
			if r.AtLeast {
				return s.text.yellow
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
			b := bar(v, barWidth)
			return fmt.Sprintf("%5.1f %% %s%s", 100*v, b, strings.Repeat(" ", barWidth-utf8.RuneCountInString(b)))
		},
		color: func(r *trace.Row) string {
			if value(r) < 0.001 {
				return s.text.dim
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
		s.line(s.text.dim, fmt.Sprintf("  … %s more functions", Count(uint64(more))))
	}
	s.footer()
}

func (s *table) header() {
	s.buf = append(s.buf, s.text.bold...)
	for i := range s.columns {
		s.buf = appendPadded(append(s.buf, "  "...), s.columns[i].title, s.columns[i].width)
	}
	s.buf = append(s.buf, "  FUNCTION"...)
	s.buf = append(s.buf, s.text.reset...)
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
		s.buf = appendPadded(s.buf, c.cell(r), c.width)
		if color != "" {
			s.buf = append(s.buf, s.text.reset...)
		}
	}
	f := funcOf(s.fns, r.Func)
	name, module := clean(f.Name), clean(f.Module)
	if module != "" {
		module = " [" + module + "]"
	}
	if s.opt.Width > 0 {
		room := max(s.opt.Width-numbersWidth(s.columns), 8)
		if room-utf8.RuneCountInString(module) < 8 {
			module = ""
		}
		name = elide(name, room-utf8.RuneCountInString(module))
	}
	s.buf = append(append(s.buf, "  "...), name...)
	if module != "" {
		s.buf = append(append(append(s.buf, s.text.dim...), module...), s.text.reset...)
	}
	s.buf = append(s.buf, '\n')
}

// footer says how much was seen and what the table does not tell.
func (s *table) footer() {
	t := s.totals
	var calls uint64
	atLeast, over := 0, ""
	for i := range s.rows {
		calls += s.rows[i].Calls
		if s.rows[i].AtLeast {
			atLeast++
		}
	}
	if e := t.Elapsed(); e > 0 {
		over = " in " + Duration(e)
	}
	if len(s.rows) > 0 {
		s.buf = append(s.buf, '\n')
	}
	s.line("", fmt.Sprintf("  %s of %s%s", plural(calls, "call"), plural(uint64(len(s.rows)), "function"), over))
	for cause, n := range t.Lost {
		if n > 0 {
			s.line(s.text.bold+s.text.red, fmt.Sprintf("  ⚠ %s lost: %s", plural(n, "event"), trace.LostCause(cause)))
		}
	}
	if atLeast > 0 {
		s.line(s.text.yellow, fmt.Sprintf("  ≥ %s detached to bound the overhead: at least that many calls",
			plural(uint64(atLeast), "function")))
	}
	if n := t.Unreturned(); n > 0 {
		var how []string
		for k, n := range t.Ends {
			if kind := trace.EndKind(k); kind != trace.EndReturn && n > 0 {
				how = append(how, Count(n)+" "+kind.String())
			}
		}
		s.line(s.text.dim, fmt.Sprintf("  · %s without a return: %s", plural(n, "call"), strings.Join(how, ", ")))
	}
	if t.Gaps > 0 {
		s.line(s.text.dim, fmt.Sprintf("  · %s open while events were lost: their callees may be missing", plural(t.Gaps, "call")))
	}
	if t.Orphans > 0 {
		s.line(s.text.dim, fmt.Sprintf("  · %s without an entry: running when tracing began, or their entry was lost",
			plural(t.Orphans, "return")))
	}
}

func (s *table) line(color, text string) {
	s.buf = append(append(s.buf, color...), text...)
	if color != "" {
		s.buf = append(s.buf, s.text.reset...)
	}
	s.buf = append(s.buf, '\n')
}

func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return Count(n) + " " + what + "s"
}

func share(part, all uint64) float64 {
	if all == 0 {
		return 0
	}
	return float64(part) / float64(all)
}

// bar draws the share v (0 to 1) of width cells in eighths of a cell.
func bar(v float64, width int) string {
	eighths := int(v*float64(width)*8 + 0.5)
	eighths = min(max(eighths, 0), 8*width)
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return s
}

// appendPadded appends s right-aligned in width columns.
func appendPadded(dst []byte, s string, width int) []byte {
	for n := utf8.RuneCountInString(s); n < width; n++ {
		dst = append(dst, ' ')
	}
	return append(dst, s...)
}
