package tracer

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// ListOptions say what to list.
type ListOptions struct {
	Path     string   // an ELF file, or
	PIDs     []uint32 // processes: everything they have mapped
	Selector uprobes.Selector
	USDT     []string // only static probes that match; nil: all, where Selector is zero
	Lines    bool     // look source lines up
}

// ListEntry is a function or static probe, with what would be done with it.
// The JSON names are those of docs/functions.md.
type ListEntry struct {
	Name      string   `json:"name"`
	Symbol    string   `json:"symbol,omitempty"`
	Module    string   `json:"module"`
	Address   uint64   `json:"address"`
	Size      uint64   `json:"size"`
	Lang      string   `json:"lang"`
	File      string   `json:"file,omitempty"`
	Line      int      `json:"line,omitempty"`
	Source    string   `json:"source,omitempty"`    // table that the name comes from
	Aliases   []string `json:"aliases,omitempty"`   // other symbols of the address
	Static    bool     `json:"static,omitempty"`    // a static probe
	Arguments string   `json:"arguments,omitempty"` // of a static probe, as in its note
	Entry     string   `json:"entry,omitempty"`     // entry site and reason
	Return    string   `json:"return,omitempty"`    // how its end is seen
	CostNS    uint32   `json:"cost_ns,omitempty"`   // of a traced call, estimated
	Warnings  []string `json:"warnings,omitempty"`
	Problem   string   `json:"problem,omitempty"` // why it cannot be probed
	Inlined   bool     `json:"inlined,omitempty"` // exists only inside other functions
}

// Where is the source place, empty if unknown.
func (e *ListEntry) Where() string {
	switch {
	case e.File == "":
		return ""
	case e.Line == 0:
		return e.File
	}
	return fmt.Sprintf("%s:%d", e.File, e.Line)
}

// Listing is what List found.
type Listing struct {
	Entries []ListEntry
	LeftOut int // functions that the default selection leaves out
}

// Count counts the entries that can be traced, that cannot, and those that
// only exist inlined.
func (l *Listing) Count() (probeable, problems, inlined int) {
	for i := range l.Entries {
		switch e := &l.Entries[i]; {
		case e.Inlined:
			inlined++
		case e.Problem != "":
			problems++
		default:
			probeable++
		}
	}
	return probeable, problems, inlined
}

// lister is the state of List.
type lister struct {
	o      ListOptions
	cost   uprobes.CostModel
	kernel loader.KernelVersion
	out    *Listing
	names  []string
}

// List tells what attach would trace with the same selectors. It fails with a
// *uprobes.NoMatchError when a pattern fits nothing, symbolizer.ErrNotELF or
// ErrMalformed for a bad file, symbolizer.ErrNoProcess for a missing process.
func List(o ListOptions) (*Listing, error) {
	kernel, _, err := loader.RunningKernel()
	if err != nil {
		return nil, err
	}
	l := &lister{o: o, cost: costModel(), kernel: kernel, out: new(Listing)}
	var matchers []*uprobes.Matcher
	if o.Path != "" {
		bin, err := symbolizer.Open(o.Path)
		if err != nil {
			return nil, err
		}
		defer bin.Close()
		m, err := l.matcher(bin, o.Path)
		if err != nil {
			return nil, err
		}
		matchers = append(matchers, m)
		self := &mapped{Module: symbolizer.Module{Path: o.Path, Main: true}}
		if err := l.module(bin, self, m, unwinds(self, bin)); err != nil {
			return nil, err
		}
	}
	for _, pid := range o.PIDs {
		m, err := l.process(pid)
		if err != nil {
			return nil, err
		}
		matchers = append(matchers, m)
	}
	if len(l.out.Entries) == 0 {
		for _, m := range matchers {
			for _, p := range m.Unmatched() {
				return nil, &uprobes.NoMatchError{Pattern: p.Text, Nearest: uprobes.Nearest(p.Text, l.names, 5)}
			}
		}
		return nil, ErrNoFunctions
	}
	return l.out, nil
}

func (l *lister) matcher(bin *symbolizer.Binary, path string) (*uprobes.Matcher, error) {
	m, err := l.o.Selector.Compile()
	if err != nil {
		return nil, err
	}
	if l.o.Selector.Empty() {
		m = m.WithDefault(uprobes.ModuleInfo{Name: path, Go: bin.IsGo(), GoModule: bin.GoModule, GoPackage: bin.GoPackage})
	}
	return m, nil
}

func (l *lister) process(pid uint32) (*uprobes.Matcher, error) {
	mods, err := targetFiles(pid)
	if err != nil {
		return nil, err
	}
	var m *uprobes.Matcher
	raises := false
	for i := range mods {
		bin, err := mods[i].open()
		if err != nil {
			continue // not an ELF file: nothing to list
		}
		raises = raises || unwinds(&mods[i], bin)
		if mods[i].Main {
			m, err = l.matcher(bin, mods[i].Path)
		}
		bin.Close()
		if err != nil {
			return nil, err
		}
	}
	if m == nil {
		return nil, fmt.Errorf("pid %d: %w: it has no program mapped", pid, ErrNoFunctions)
	}
	for i := range mods {
		bin, err := mods[i].open()
		if err != nil {
			continue
		}
		err = l.module(bin, &mods[i], m, raises)
		bin.Close()
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}

// module lists one file.
func (l *lister) module(bin *symbolizer.Binary, file *mapped, m *uprobes.Matcher, raises bool) error {
	name := filepath.Base(file.Path)
	onlyStatic := len(l.o.USDT) > 0 && l.o.Selector.Empty()
	if !onlyStatic && m.MatchModule(file.Path) {
		if err := l.functions(bin, file, name, m, raises); err != nil {
			return err
		}
	}
	return l.static(bin, file, name)
}

func (l *lister) functions(bin *symbolizer.Binary, file *mapped, name string, m *uprobes.Matcher, raises bool) error {
	found, err := Plan(bin, file.Path, m, PlanOptions{Unwinds: raises, Kernel: l.kernel})
	if err != nil {
		return err
	}
	all, err := bin.Functions()
	if err != nil {
		return err
	}
	if l.o.Selector.Empty() {
		l.out.LeftOut += len(all) - len(found)
	}
	outOfLine := make(map[string]bool, len(all))
	for i := range all {
		outOfLine[all[i].Name] = true
		l.names = append(l.names, all[i].Name)
	}
	for i := range found {
		l.out.Entries = append(l.out.Entries, l.entry(bin, name, &found[i]))
	}
	return l.inlined(bin, file, name, m, outOfLine)
}

func (l *lister) entry(bin *symbolizer.Binary, module string, c *Candidate) ListEntry {
	fn := &c.Function
	e := ListEntry{
		Name: fn.Name, Symbol: fn.Symbol, Module: module, Address: fn.Addr, Size: fn.Size,
		Lang: fn.Lang.String(), Source: fn.Source.String(), Aliases: fn.Aliases,
	}
	if l.o.Lines {
		e.File, e.Line = bin.Line(fn.Addr)
	}
	if c.Err != nil {
		e.Problem = c.Err.Error()
		return e
	}
	e.Entry, e.Return, e.Warnings = c.Plan.Entry.Reason, describeReturns(c.Plan), c.Plan.Warnings
	e.CostNS = l.cost.EstimateCall(c.Plan)
	return e
}

// describeReturns says how the end of calls is seen.
func describeReturns(p *uprobes.Plan) string {
	rets, tails := 0, 0
	for _, s := range p.Returns {
		switch s.Role {
		case uprobes.RoleReturn:
			return s.Reason
		case uprobes.RoleTail:
			tails++
		default:
			rets++
		}
	}
	switch {
	case rets+tails == 0:
		return "not seen"
	case tails == 0:
		return count(rets, "RET instruction")
	}
	return fmt.Sprintf("%s, %s", count(rets, "RET instruction"), count(tails, "tail jump"))
}

// inlined adds functions that match and have no code of their own.
func (l *lister) inlined(bin *symbolizer.Binary, file *mapped, module string, m *uprobes.Matcher, outOfLine map[string]bool) error {
	if l.o.Selector.Empty() {
		return nil
	}
	sites, err := bin.InlinedAt(func(name string) bool {
		return !outOfLine[name] && m.Match(&symbolizer.Function{Name: name, Symbol: name}, file.Path, nil)
	})
	if err != nil {
		return nil // no debug information: then nobody knows
	}
	at := make(map[string][]string)
	var order []string
	for _, s := range sites {
		if at[s.Function] == nil {
			order = append(order, s.Function)
		}
		at[s.Function] = append(at[s.Function], s.Caller)
	}
	for _, name := range order {
		const most = 3
		callers := uniq(at[name])
		more := ""
		if n := len(callers) - most; n > 0 {
			more = fmt.Sprintf(" and %d more", n)
			callers = callers[:most]
		}
		l.out.Entries = append(l.out.Entries, ListEntry{
			Name: name, Module: module, Inlined: true,
			Problem: "exists only inlined, into " + strings.Join(callers, ", ") + more,
		})
	}
	return nil
}

func uniq(names []string) []string {
	seen := make(map[string]bool)
	var out []string
	for _, n := range names {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}

// static adds the static probes of a file.
func (l *lister) static(bin *symbolizer.Binary, file *mapped, module string) error {
	patterns := l.o.USDT
	if len(patterns) == 0 {
		if !l.o.Selector.Empty() {
			return nil
		}
		patterns = []string{"*:*"}
	}
	m, err := uprobes.CompileUSDT(patterns)
	if err != nil {
		return err
	}
	probes, err := uprobes.StaticProbes(bin.File(), nil)
	if err != nil {
		return fmt.Errorf("read the static probes of %s: %w", module, err)
	}
	for i := range probes {
		p := &probes[i]
		if !m.Match(p, file.Path) {
			continue
		}
		e := ListEntry{Name: p.ID(), Module: module, Address: p.Addr, Lang: "usdt", Static: true, Arguments: p.RawArgs}
		if p.Err != nil {
			e.Problem = p.Err.Error()
		}
		l.out.Entries = append(l.out.Entries, e)
	}
	return nil
}
