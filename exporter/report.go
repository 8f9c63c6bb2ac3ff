package exporter

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/google/pprof/profile"

	"github.com/sbxtrace/sbxtrace/internal/term"
)

// Bounds of a report where the options do not say.
const (
	reportFunctions = 20
	reportModules   = 8
	reportThreads   = 8
	reportWidth     = 100 // of bars and lines where no terminal tells
	nameAtLeast     = 24
	barCells        = 10
)

// writeText writes a report for a terminal: where the time goes in one bar, the
// top functions, the hottest paths, threads; of a comparison what changed.
func writeText(w io.Writer, p *profile.Profile, opt Options) error {
	typ, err := sampleType(p, opt.SampleType)
	if err != nil {
		return err
	}
	r := report{p: p, opt: opt, typ: typ, unit: p.SampleType[typ].Unit, text: term.NewPalette(opt.Color), width: opt.Width}
	if r.width <= 0 {
		r.width = reportWidth
	}
	r.limit = opt.Limit
	if r.limit <= 0 {
		r.limit = reportFunctions
	}
	r.tree = newTree(p, opt.ByThread)
	r.main = mainModule(p)
	if r.tree.base != nil {
		r.comparison()
	} else {
		r.profile()
	}
	if _, err := io.WriteString(w, r.out.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// report is one report in the making.
type report struct {
	out   strings.Builder
	p     *profile.Profile
	tree  *tree
	opt   Options
	typ   int
	unit  string
	text  term.Palette
	width int
	limit int
	main  string // module that need not be named
}

// profile reports one profile.
func (r *report) profile() {
	r.headline(title(r.p, r.typ, r.opt))
	r.facts()
	total := r.tree.total[r.typ]
	if total == 0 {
		r.line("")
		r.line(r.paint(r.text.Yellow, "  no samples"))
		r.notes()
		return
	}
	modules := r.tree.modules(r.typ)
	parts := modules
	if modules[0].flat > total-total/50 {
		// One module says little: packages, namespaces and crates do.
		parts = r.tree.namespaces(r.typ)
	}
	r.overview(parts, total)
	r.functions(r.tree.functions(r.typ), total)
	r.paths(total)
	r.modules(modules, total)
	r.threads(threadRows(r.p, r.typ), total)
	r.notes()
}

func (r *report) line(s string) {
	r.out.WriteString(strings.TrimRight(s, " "))
	r.out.WriteByte('\n')
}

// paint puts text into a colour.
func (r *report) paint(color, text string) string {
	if color == "" || text == "" {
		return text
	}
	return color + text + r.text.Reset
}

func (r *report) headline(title string) {
	r.line(r.paint(r.text.Bold, term.Elide("  "+title, r.width)))
}

func (r *report) section(title string) {
	r.line("")
	r.line(r.paint(r.text.Bold, "  "+title))
}

// facts says below the headline how long, how many, how much.
func (r *report) facts() {
	r.wrapped(r.tree.facts(r.p, r.typ), " · ", "")
}

// wrapped prints parts with a separator, on as many lines as they take.
func (r *report) wrapped(parts []string, sep, color string) {
	line := "  "
	for i, part := range parts {
		if i > 0 {
			if utf8.RuneCountInString(line+sep+part) > r.width {
				r.line(r.paint(color, line))
				line = "  "
			} else {
				line += sep
			}
		}
		line += part
	}
	r.line(r.paint(color, line))
}

// shades tell neighbours in the overview apart where colours do not.
var shades = []string{"█", "▓", "▒", "░"}

// overview shows in one bar how the whole is divided, where it is.
func (r *report) overview(rows []row, total int64) {
	if len(rows) < 2 {
		return
	}
	colors := []string{r.text.Blue, r.text.Yellow, r.text.Green, r.text.Magenta, r.text.Cyan, r.text.Red}
	const most = 6
	width := r.width - 4
	var bar strings.Builder
	var legend []string
	used, sum := 0, int64(0)
	for i := range rows {
		if i == most || rows[i].flat <= 0 {
			break
		}
		sum += rows[i].flat
		cells := int(ratio(sum, total)*float64(width)+0.5) - used
		used += cells
		color, shade := colors[i%len(colors)], "█"
		if color == "" {
			shade = shades[i%len(shades)]
		}
		bar.WriteString(r.paint(color, strings.Repeat(shade, max(cells, 0))))
		name := moduleText(rows[i].name)
		if n := utf8.RuneCountInString(name); n > 32 {
			// The end of a package's path says most.
			name = "…" + string([]rune(name)[n-31:])
		}
		legend = append(legend, r.paint(color, shade)+" "+name+" "+percent(ratio(rows[i].flat, total)))
	}
	if rest := total - sum; rest > 0 && ratio(rest, total) > 0.0005 {
		bar.WriteString(r.paint(r.text.Dim, strings.Repeat("·", max(width-used, 0))))
		legend = append(legend, r.paint(r.text.Dim, "·")+" others "+percent(ratio(rest, total)))
	}
	r.line("")
	r.line("  " + bar.String())
	// What a colour adds takes no room on the line.
	line, columns := " ", 1
	for _, l := range legend {
		n := utf8.RuneCountInString(term.Uncolor(l)) + 3
		if columns+n > r.width && columns > 1 {
			r.line(line)
			line, columns = " ", 1
		}
		line, columns = line+" "+l+"  ", columns+n
	}
	r.line(line)
}

func moduleText(name string) string {
	if name == "" {
		return "unknown"
	}
	return term.Clean(name)
}

// functions prints the table of the top functions.
func (r *report) functions(rows []row, total int64) {
	r.section("Top functions")
	width := r.valueWidth(rows)
	head := fmt.Sprintf("  %s  %s  %s  %s", right("FLAT", width), left("        %", 8+1+barCells), right("CUM", width), right("%", 7))
	columns := utf8.RuneCountInString(head) + 2
	bars := r.width-columns >= nameAtLeast+8
	if !bars {
		head = fmt.Sprintf("  %s  %s  %s  %s", right("FLAT", width), right("%", 7), right("CUM", width), right("%", 7))
		columns = utf8.RuneCountInString(head) + 2
	}
	r.line(r.paint(r.text.Bold, head+"  FUNCTION"))
	shown := 0
	for i := range rows {
		if shown == r.limit || rows[i].flat <= 0 && shown > 0 {
			break
		}
		shown++
		at := &rows[i]
		share := ratio(at.flat, total)
		cells := right(percent(share), 7)
		if bars {
			bar := term.Bar(share, barCells)
			cells = right(percent(share), 8) + " " + left(bar, barCells)
		}
		r.line(fmt.Sprintf("  %s  %s  %s  %s  %s", right(value(at.flat, r.unit), width), r.paint(r.heat(share), cells),
			right(value(at.cum, r.unit), width), right(percent(ratio(at.cum, total)), 7), r.functionText(at.frame, at.line, r.width-columns)))
	}
	if more := len(rows) - shown; more > 0 {
		rest := int64(0)
		for i := range rows[shown:] {
			rest += rows[shown+i].flat
		}
		with := ""
		if rest > 0 {
			with = " with " + percent(ratio(rest, total))
		}
		r.line(r.paint(r.text.Dim, "  … "+term.Plural(uint64(more), "more function")+with))
	}
}

// heat is the colour of a share: the larger the warmer.
func (r *report) heat(share float64) string {
	switch {
	case share >= 0.2:
		return r.text.Red
	case share >= 0.05:
		return r.text.Yellow
	case share < 0.01:
		return r.text.Dim
	}
	return ""
}

// valueWidth is the width of the columns of values.
func (r *report) valueWidth(rows []row) int {
	width := 8
	for i := range rows {
		if i == r.limit {
			break
		}
		width = max(width, utf8.RuneCountInString(value(rows[i].flat, r.unit)), utf8.RuneCountInString(value(rows[i].cum, r.unit)))
	}
	return width
}

// functionText names a function, with its module and its source line as far as
// there is room.
func (r *report) functionText(frame, line int32, room int) string {
	f := &r.tree.frames[frame]
	name, module, source := term.Clean(f.Name), "", ""
	if f.Module != "" && f.Module != r.main && !strings.HasPrefix(f.Name, f.Module+"+0x") {
		module = " [" + strings.Trim(term.Clean(f.Module), "[]") + "]"
	}
	if f.File != "" {
		source = " " + sourceText(f.File, line)
	}
	if r.opt.Width <= 0 {
		return name + r.paint(r.text.Dim, module+source)
	}
	n := utf8.RuneCountInString
	if f.Lang == "go" || n(name)+n(module)+n(source) > room {
		name = shortName(name, f.Lang)
	}
	if n(name)+n(module)+n(source) > room {
		source = ""
	}
	if n(name)+n(module) > room {
		module = ""
	}
	return term.Elide(name, max(room-n(module)-n(source), 8)) + r.paint(r.text.Dim, module+source)
}

// sourceText is a file's base name with the line.
func sourceText(file string, line int32) string {
	file = term.Clean(file[strings.LastIndexAny(file, `/\`)+1:])
	if line > 0 {
		return fmt.Sprintf("%s:%d", file, line)
	}
	return file
}

// modules prints the table of modules, where there are several.
func (r *report) modules(rows []row, total int64) {
	if len(rows) < 2 {
		return
	}
	r.section("Modules")
	width := r.valueWidth(rows)
	r.line(r.paint(r.text.Bold, fmt.Sprintf("  %s  %s  %s  %s  MODULE", right("FLAT", width), right("%", 8), right("CUM", width), right("%", 7))))
	for i := range rows {
		if i == reportModules {
			r.line(r.paint(r.text.Dim, fmt.Sprintf("  … %s", term.Plural(uint64(len(rows)-i), "more module"))))
			break
		}
		at := &rows[i]
		share := ratio(at.flat, total)
		r.line(fmt.Sprintf("  %s  %s  %s  %s  %s", right(value(at.flat, r.unit), width), r.paint(r.heat(share), right(percent(share), 8)),
			right(value(at.cum, r.unit), width), right(percent(ratio(at.cum, total)), 7), term.Elide(moduleText(at.name), max(r.width-2*width-25, 12))))
	}
}

// threads prints the table of threads, where there are several.
func (r *report) threads(rows []row, total int64) {
	if len(rows) < 2 {
		return
	}
	r.section("Threads")
	width := r.valueWidth(rows)
	r.line(r.paint(r.text.Bold, fmt.Sprintf("  %s  %s  %s  THREAD", right("TOTAL", width), left("       %", 8+1+barCells), right("SAMPLES", 9))))
	for i := range rows {
		if i == reportThreads {
			r.line(r.paint(r.text.Dim, fmt.Sprintf("  … %s", term.Plural(uint64(len(rows)-i), "more thread"))))
			break
		}
		at := &rows[i]
		share := ratio(at.flat, total)
		r.line(fmt.Sprintf("  %s  %s %s  %s  %s", right(value(at.flat, r.unit), width), r.paint(r.heat(share), right(percent(share), 8)),
			r.paint(r.heat(share), left(term.Bar(share, barCells), barCells)), right(term.Count(uint64(at.samples)), 9),
			term.Elide(term.Clean(at.name), max(r.width-width-36, 12))))
	}
}

// notes says what the numbers leave out.
func (r *report) notes() {
	notes := r.tree.notes(r.typ)
	if len(notes)+len(r.p.Comments) > 0 {
		r.line("")
	}
	color := r.text.Dim
	if 100*r.tree.cut > r.tree.counted || r.tree.crowded > 0 {
		color = r.text.Yellow
	}
	for _, n := range notes {
		r.wrapped(strings.Fields("· "+n), " ", color)
	}
	for i, c := range r.p.Comments {
		if i == 10 {
			break
		}
		r.line(r.paint(r.text.Dim, "  # "+term.Elide(term.Clean(c), r.width-4)))
	}
}

func right(s string, width int) string {
	return strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 0)) + s
}

func left(s string, width int) string {
	return s + strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 0))
}
