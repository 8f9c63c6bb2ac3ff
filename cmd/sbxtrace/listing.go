package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/tracer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// tableColumns are the columns of a listing.
var tableColumns = [...]string{"FUNCTION", "SIZE", "LANG", "MODULE", "SOURCE"}

// Widths beyond which a column that is not elided lets its text stick out.
const (
	widestName   = 60
	widestModule = 24
)

// tableRow is a line of a listing.
type tableRow [len(tableColumns)]string

// listTable prints a line for each thing that can be traced. width is that of
// the terminal, to which lines are cut; 0: no terminal.
func listTable(w *bufio.Writer, list *tracer.Listing, p palette, width int) {
	rows := make([]tableRow, 0, len(list.Functions)+len(list.Static))
	for i := range list.Functions {
		f := &list.Functions[i]
		if f.Err != nil {
			continue
		}
		fn := &f.Function
		rows = append(rows, tableRow{
			printable(fn.Name), strconv.FormatUint(fn.Size, 10), fn.Lang.String(), printable(f.Module.Name), place(f.File, f.Line),
		})
	}
	for i := range list.Static {
		s := &list.Static[i]
		sites := ""
		if n := len(s.Sites); n > 1 {
			sites = fmt.Sprintf("%d sites", n)
		}
		rows = append(rows, tableRow{printable(s.Sites[0].ID()), "", "usdt", printable(s.Module.Name), sites})
	}
	if len(rows) == 0 {
		return
	}
	limits := tableLimits(rows, width)
	writeRow(w, tableColumns, limits, width > 0, p.bold, p.reset)
	for i := range rows {
		writeRow(w, rows[i], limits, width > 0, "", "")
	}
}

// tableLimits returns the columns' widths: those of their longest texts within
// reason, and on a terminal shares of its width.
func tableLimits(rows []tableRow, width int) (limits [len(tableColumns)]int) {
	for c, title := range tableColumns {
		limits[c] = len(title)
		for i := range rows {
			limits[c] = max(limits[c], utf8.RuneCountInString(rows[i][c]))
		}
	}
	const name, size, lang, module, source = 0, 1, 2, 3, 4
	limits[module] = min(limits[module], widestModule)
	if width == 0 {
		limits[name] = min(limits[name], widestName)
		return limits
	}
	const gaps, least = 8, 16
	rest := max(width-gaps-limits[size]-limits[lang]-limits[module], 2*least)
	if limits[name]+limits[source] > rest {
		// What one does not need is the other's; both are cut to their shares.
		limits[source] = min(limits[source], max(rest-limits[name], rest*2/5))
		limits[name] = min(limits[name], rest-limits[source])
	}
	return limits
}

// writeRow writes one line, without blanks at its end.
func writeRow(w *bufio.Writer, row tableRow, limits [len(tableColumns)]int, elide bool, on, off string) {
	const size, source = 1, 4
	last := len(row) - 1
	for last > 0 && row[last] == "" {
		last--
	}
	w.WriteString(on)
	for c, text := range row[:last+1] {
		n := utf8.RuneCountInString(text)
		if elide && n > limits[c] {
			if c == source {
				text = elideFront(text, limits[c])
			} else {
				text = elideBack(text, limits[c])
			}
			n = limits[c]
		}
		pad := max(limits[c]-n, 0)
		if c == size {
			writeBlanks(w, pad)
		}
		w.WriteString(text)
		if c != size && c < last {
			writeBlanks(w, pad)
		}
		if c < last {
			w.WriteString("  ")
		}
	}
	w.WriteString(off)
	w.WriteByte('\n')
}

func writeBlanks(w *bufio.Writer, n int) {
	const blanks = "                                                                "
	for ; n > len(blanks); n -= len(blanks) {
		w.WriteString(blanks)
	}
	w.WriteString(blanks[:n])
}

// elideBack cuts text to n columns.
func elideBack(text string, n int) string {
	r := []rune(text)
	return string(r[:n-1]) + "…"
}

// elideFront cuts the beginning: of a path the end says most.
func elideFront(text string, n int) string {
	r := []rune(text)
	return "…" + string(r[len(r)-n+1:])
}

// printable replaces what would disturb a terminal: names come from files that
// nobody vouches for.
func printable(s string) string {
	clean := true
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return '\ufffd'
		}
		return r
	}, s)
}

// place is file:line as far as known.
func place(file string, line int) string {
	switch {
	case file == "":
		return ""
	case line == 0:
		return printable(file)
	}
	return printable(file) + ":" + strconv.Itoa(line)
}

// listVerbose prints a paragraph for each function, static probe and function
// that exists only inlined.
func listVerbose(w *bufio.Writer, list *tracer.Listing, p palette) {
	separate := false
	paragraph := func(name string, m *tracer.ListedModule, where string) {
		if separate {
			w.WriteByte('\n')
		}
		separate = true
		fmt.Fprintf(w, "%s%s%s  %s", p.bold, printable(name), p.reset, printable(m.Name))
		if where != "" {
			fmt.Fprintf(w, "  %s", where)
		}
		w.WriteByte('\n')
	}
	for i := range list.Functions {
		f := &list.Functions[i]
		paragraph(f.Function.Name, f.Module, place(f.File, f.Line))
		verboseFunction(w, f, p)
	}
	for i := range list.Static {
		s := &list.Static[i]
		paragraph(s.Sites[0].ID(), s.Module, "")
		verboseStatic(w, s, p)
	}
	for i := range list.Inlined {
		f := &list.Inlined[i]
		paragraph(f.Name, f.Module, "")
		detail(w, "problem", p.yellow+"exists only inlined: there is nothing to put a probe on"+p.reset)
		for _, s := range f.Sites[:min(len(f.Sites), mostSites)] {
			detail(w, "inlined", fmt.Sprintf("into %s  %s", printable(s.Caller), place(s.File, s.Line)))
		}
		if n := len(f.Sites) - mostSites; n > 0 {
			detail(w, "", fmt.Sprintf("and at %s more", count(n, "place")))
		}
	}
}

// mostSites is how many places of one thing are printed.
const mostSites = 8

// detail prints one line of a paragraph.
func detail(w io.Writer, name, text string) { fmt.Fprintf(w, "  %-8s  %s\n", name, text) }

func verboseFunction(w io.Writer, f *tracer.Listed, p palette) {
	fn := &f.Function
	detail(w, "code", fmt.Sprintf("%s at %#x, %s, named by %s", count(int(fn.Size), "byte"), fn.Addr, fn.Lang, fn.Source))
	if fn.Symbol != "" && fn.Symbol != fn.Name {
		detail(w, "symbol", printable(fn.Symbol))
	}
	if len(fn.Aliases) > 0 {
		detail(w, "aliases", printable(strings.Join(fn.Aliases, ", ")))
	}
	if f.Err != nil {
		detail(w, "problem", p.yellow+printable(problem(f))+p.reset)
		return
	}
	detail(w, "entry", f.Plan.Entry.Reason)
	detail(w, "returns", returnsText(f))
	detail(w, "cost", fmt.Sprintf("about %s a call", term.Duration(uint64(f.CostNS))))
	for _, warning := range f.Plan.Warnings {
		detail(w, "note", p.yellow+warning+p.reset)
	}
}

// problem is why a function cannot be probed, without its name.
func problem(f *tracer.Listed) string {
	return strings.TrimPrefix(f.Err.Error(), f.Function.Name+": ")
}

// returnsText says how the ends of calls are seen, and why in this way.
func returnsText(f *tracer.Listed) string {
	sites := returnSites(f.Plan)
	switch sites.method {
	case "none":
		if f.Plan.NoReturn {
			return "not seen: it never returns"
		}
		return "not seen"
	case "uretprobe":
		return "a return probe at the entry"
	}
	text := count(sites.rets, "RET instruction")
	if sites.tails > 0 {
		text += ", " + count(sites.tails, "jump") + " to other functions"
	}
	text += ", " + f.Plan.Returns[0].Class.String()
	switch {
	case f.Function.Lang.String() == "go":
		text += "; no return probe, since Go moves stacks"
	case f.Unwinds:
		text += "; no return probe, since exceptions may pass"
	}
	return text
}

// returns sums up how the ends of calls are seen.
type returns struct {
	method      string // uretprobe, ret or none
	rets, tails int    // sites by role
}

func returnSites(p *uprobes.Plan) returns {
	r := returns{method: "none"}
	for _, s := range p.Returns {
		switch s.Role {
		case uprobes.RoleReturn:
			r.method = "uretprobe"
		case uprobes.RoleTail:
			r.method = "ret"
			r.tails++
		default:
			r.method = "ret"
			r.rets++
		}
	}
	return r
}

func verboseStatic(w io.Writer, s *tracer.ListedStatic, p palette) {
	for i := range s.Sites[:min(len(s.Sites), mostSites)] {
		site := &s.Sites[i]
		text := fmt.Sprintf("at %#x", site.Addr)
		if site.Derived {
			text += ", found in the code, without a note"
		}
		if len(site.Args) > 0 {
			text += ", arguments " + printable(site.RawArgs)
		}
		detail(w, "site", text)
		if site.Err != nil {
			detail(w, "problem", p.yellow+printable(site.Err.Error())+p.reset)
		}
		for _, a := range site.Args {
			if a.Err != nil {
				detail(w, "note", p.yellow+printable(a.Err.Error())+p.reset)
			}
		}
	}
	if n := len(s.Sites) - mostSites; n > 0 {
		detail(w, "", fmt.Sprintf("and %s more", count(n, "site")))
	}
	if sem := s.Sites[0].SemaphoreAddr; sem != 0 {
		detail(w, "enabled", fmt.Sprintf("by the semaphore at %#x, counted up while it is traced", sem))
	}
	detail(w, "cost", fmt.Sprintf("about %s a hit", term.Duration(uint64(s.CostNS))))
}

// The lines of --format json; docs/json.md describes them.
type (
	siteJSON struct {
		Offset string `json:"offset"`
		Class  string `json:"class"`
		Reason string `json:"reason"`
	}
	returnsJSON struct {
		Method string `json:"method"`
		Rets   int    `json:"rets"`
		Tails  int    `json:"tails"`
	}
	functionJSON struct {
		Type     string       `json:"type"`
		Name     string       `json:"name"`
		Module   string       `json:"module"`
		Path     string       `json:"path"`
		Addr     string       `json:"addr"`
		Offset   string       `json:"offset"`
		Size     uint64       `json:"size"`
		Lang     string       `json:"lang"`
		NamedBy  string       `json:"named_by"`
		Symbol   string       `json:"symbol,omitempty"`
		Aliases  []string     `json:"aliases,omitempty"`
		Package  string       `json:"package,omitempty"`
		File     string       `json:"file,omitempty"`
		Line     int          `json:"line,omitempty"`
		Entry    *siteJSON    `json:"entry,omitempty"`
		Returns  *returnsJSON `json:"returns,omitempty"`
		CostNS   uint32       `json:"cost_ns,omitempty"`
		Warnings []string     `json:"warnings,omitempty"`
		Problem  string       `json:"problem,omitempty"`
	}
	staticSiteJSON struct {
		Addr      string   `json:"addr"`
		Offset    string   `json:"offset"`
		Args      []string `json:"args"`
		Semaphore string   `json:"semaphore,omitempty"`
		Problem   string   `json:"problem,omitempty"`
	}
	staticJSON struct {
		Type   string           `json:"type"`
		Name   string           `json:"name"`
		Module string           `json:"module"`
		Path   string           `json:"path"`
		Sites  []staticSiteJSON `json:"sites"`
		CostNS uint32           `json:"cost_ns"`
	}
	inlineSiteJSON struct {
		Caller string `json:"caller"`
		Addr   string `json:"addr"`
		File   string `json:"file,omitempty"`
		Line   int    `json:"line,omitempty"`
	}
	inlinedJSON struct {
		Type   string           `json:"type"`
		Name   string           `json:"name"`
		Module string           `json:"module"`
		Path   string           `json:"path"`
		Sites  []inlineSiteJSON `json:"sites"`
	}
)

func hexText(n uint64) string { return "0x" + strconv.FormatUint(n, 16) }

// listJSON prints an object per line.
func listJSON(w io.Writer, list *tracer.Listing) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i := range list.Functions {
		if err := enc.Encode(functionLine(&list.Functions[i])); err != nil {
			return err
		}
	}
	for i := range list.Static {
		if err := enc.Encode(staticLine(&list.Static[i])); err != nil {
			return err
		}
	}
	for i := range list.Inlined {
		f := &list.Inlined[i]
		line := inlinedJSON{Type: "inlined", Name: f.Name, Module: f.Module.Name, Path: f.Module.Path}
		for _, s := range f.Sites {
			line.Sites = append(line.Sites, inlineSiteJSON{s.Caller, hexText(s.Addr), s.File, s.Line})
		}
		if err := enc.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

func functionLine(f *tracer.Listed) functionJSON {
	fn := &f.Function
	line := functionJSON{
		Type: "function", Name: fn.Name, Module: f.Module.Name, Path: f.Module.Path,
		Addr: hexText(fn.Addr), Offset: hexText(fn.Offset), Size: fn.Size, Lang: fn.Lang.String(), NamedBy: fn.Source.String(),
		Aliases: fn.Aliases, Package: fn.Package, File: f.File, Line: f.Line,
	}
	if fn.Symbol != fn.Name {
		line.Symbol = fn.Symbol
	}
	if f.Err != nil {
		line.Problem = problem(f)
		return line
	}
	r := returnSites(f.Plan)
	line.Entry = &siteJSON{hexText(f.Plan.Entry.Offset), f.Plan.Entry.Class.String(), f.Plan.Entry.Reason}
	line.Returns = &returnsJSON{r.method, r.rets, r.tails}
	line.CostNS, line.Warnings = f.CostNS, f.Plan.Warnings
	return line
}

func staticLine(s *tracer.ListedStatic) staticJSON {
	line := staticJSON{Type: "static", Name: s.Sites[0].ID(), Module: s.Module.Name, Path: s.Module.Path, CostNS: s.CostNS}
	for i := range s.Sites {
		site := &s.Sites[i]
		sj := staticSiteJSON{Addr: hexText(site.Addr), Offset: hexText(site.Offset), Args: []string{}}
		for _, a := range site.Args {
			sj.Args = append(sj.Args, a.Raw)
		}
		if site.SemaphoreAddr != 0 {
			sj.Semaphore = hexText(site.SemaphoreAddr)
		}
		if site.Err != nil {
			sj.Problem = site.Err.Error()
		}
		line.Sites = append(line.Sites, sj)
	}
	return line
}
