package tracer

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// onlyInlined finds the functions that match and have no code of their own, by
// name. all are the functions of the file. Without debug information nobody
// knows of any.
func onlyInlined(bin *symbolizer.Binary, mod *ListedModule, m *uprobes.Matcher, all []symbolizer.Function) []ListedInline {
	outOfLine := make(map[string]bool, len(all))
	for i := range all {
		outOfLine[all[i].Name] = true
		if all[i].Lang == symbolizer.LangCPP { // overloads have their parameters in their names
			outOfLine[symbolizer.Demangle(all[i].Symbol)] = true
		}
	}
	lang := mainLanguage(bin, all)
	sites, err := bin.InlinedAt(func(name string) bool {
		fn := inlinedFunction(name, lang)
		return !outOfLine[name] && m.Match(&fn, mod.Path, nil)
	})
	if err != nil && len(sites) == 0 {
		return nil
	}
	byName := make(map[string]int)
	var out []ListedInline
	for _, s := range sites {
		at, ok := byName[s.Function]
		if !ok {
			at = len(out)
			byName[s.Function] = at
			out = append(out, ListedInline{Name: s.Function, Module: mod})
		}
		out[at].Sites = append(out[at].Sites, s)
	}
	slices.SortFunc(out, func(a, b ListedInline) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// mainLanguage is the language that most functions of a file are in.
func mainLanguage(bin *symbolizer.Binary, all []symbolizer.Function) symbolizer.Lang {
	if bin.IsGo() {
		return symbolizer.LangGo
	}
	var n [symbolizer.LangGo + 1]int
	for i := range all {
		n[all[i].Lang]++
	}
	if n[symbolizer.LangRust] > n[symbolizer.LangCPP] {
		return symbolizer.LangRust
	}
	if n[symbolizer.LangCPP] > 0 {
		return symbolizer.LangCPP
	}
	return symbolizer.LangC
}

// inlinedFunction is what a selector sees of a function of which only the name
// is known: enough to tell packages and standard libraries apart.
func inlinedFunction(name string, lang symbolizer.Lang) symbolizer.Function {
	fn := symbolizer.Function{Name: name, Symbol: name, Lang: lang}
	switch {
	case lang == symbolizer.LangGo:
		fn.Package = goPackage(name)
	case lang == symbolizer.LangCPP && strings.Contains(name, "::"):
		fn.Symbol = "_Z" // how the standard library's names are known
	}
	return fn
}

// goPackage is the import path at the beginning of a Go function's name.
func goPackage(name string) string {
	base := strings.LastIndexByte(name, '/') + 1
	if i := strings.IndexByte(name, '['); i >= 0 && i < base { // type arguments have paths too
		base = strings.LastIndexByte(name[:i], '/') + 1
	}
	dot := strings.IndexByte(name[base:], '.')
	if dot < 0 {
		return ""
	}
	return name[:base+dot]
}

// catalog is what patterns could have matched.
type catalog struct {
	functions [][]symbolizer.Function // by module
	modules   []string
	static    []uprobes.StaticProbe
}

// nearest are the names that a pattern was likely meant for.
func (c *catalog) nearest(p uprobes.Pattern, limit int) []string {
	switch p.Kind {
	case uprobes.PatternUSDT:
		return uprobes.NearestUSDT(p.Text, c.static, limit)
	case uprobes.PatternModule:
		return uprobes.Nearest(p.Text, c.modules, limit)
	case uprobes.PatternPackage:
		seen := make(map[string]bool)
		var names []string
		for _, fns := range c.functions {
			for i := range fns {
				if pkg := fns[i].Package; pkg != "" && !seen[pkg] {
					seen[pkg] = true
					names = append(names, pkg)
				}
			}
		}
		return uprobes.Nearest(p.Text, names, limit)
	case uprobes.PatternFile:
		return nil
	}
	var names []string
	for _, fns := range c.functions {
		for i := range fns {
			names = append(names, fns[i].Name)
		}
	}
	return uprobes.Nearest(p.Text, names, limit)
}

// unmatched fails if nothing was found, and else notes the patterns that
// matched nothing.
func (l *lister) unmatched() error {
	var errs []error
	for _, p := range l.unmatchedPatterns() {
		if at := l.inlinedAs(p); at != nil {
			errs = append(errs, at)
			continue
		}
		errs = append(errs, &uprobes.NoMatchError{Kind: p.Kind, Pattern: p.Text, Nearest: l.names.nearest(p, 5)})
	}
	if len(l.out.Functions)+len(l.out.Static)+len(l.out.Inlined) > 0 {
		l.out.Notes = append(l.out.Notes, errs...)
		return nil
	}
	switch {
	case len(errs) > 0:
		return errs[0]
	case l.o.Selector.Empty() && len(l.o.USDT) == 0 && l.out.LeftOut > 0:
		return fmt.Errorf("%w: the program has none of its own; '*' lists the %s that it has", ErrNoFunctions, count(l.out.LeftOut, "function"))
	case l.o.Selector.Empty() && len(l.o.USDT) == 0:
		return fmt.Errorf("%w: there is neither a symbol nor an unwind table", ErrNoFunctions)
	}
	return fmt.Errorf("%w: each pattern matches something, but nothing matches all that was asked for", ErrNoFunctions)
}

// unmatchedPatterns are the patterns that matched for no program.
func (l *lister) unmatchedPatterns() []uprobes.Pattern {
	var out []uprobes.Pattern
	programs := make(map[uprobes.Pattern]int)
	for _, m := range l.match {
		for _, p := range m.Unmatched() {
			if programs[p]++; programs[p] == len(l.match) {
				out = append(out, p)
			}
		}
	}
	if l.usdt != nil && len(l.o.USDT) > 0 {
		out = append(out, l.usdt.Unmatched()...)
	}
	// Where no module or package fits, no function had a chance.
	slices.SortStableFunc(out, func(a, b uprobes.Pattern) int {
		return cmp.Compare(slices.Index(widestFirst, a.Kind), slices.Index(widestFirst, b.Kind))
	})
	return out
}

// widestFirst are the kinds of patterns by how much a mistake in one rules out.
var widestFirst = []uprobes.PatternKind{uprobes.PatternModule, uprobes.PatternPackage, uprobes.PatternFile,
	uprobes.PatternUSDT, uprobes.PatternFunc, uprobes.PatternRegex}

// InlinedError says that a pattern fits functions that exist only inlined.
type InlinedError struct {
	Pattern string
	Inlined []ListedInline // at least one
}

// Error names the first function and where it was inlined.
func (e *InlinedError) Error() string {
	f := &e.Inlined[0]
	var b strings.Builder
	if n := len(e.Inlined); n > 1 {
		fmt.Fprintf(&b, "'%s' matches %d functions that exist only inlined, such as %s", e.Pattern, n, f.Name)
	} else {
		fmt.Fprintf(&b, "%s exists only inlined", f.Name)
	}
	fmt.Fprintf(&b, ": into %s", f.Sites[0].Caller)
	if s := &f.Sites[0]; s.File != "" {
		fmt.Fprintf(&b, " (%s:%d)", filepath.Base(s.File), s.Line)
	}
	if n := len(f.Sites) - 1; n > 0 {
		fmt.Fprintf(&b, " and at %s more", count(n, "place"))
	}
	return b.String()
}

// Is makes an InlinedError an uprobes.ErrNoMatch.
func (e *InlinedError) Is(target error) bool { return target == uprobes.ErrNoMatch }

// inlinedAs looks whether a function pattern that matched nothing fits
// functions that exist only inlined; nil if not.
func (l *lister) inlinedAs(p uprobes.Pattern) error {
	if p.Kind != uprobes.PatternFunc && p.Kind != uprobes.PatternRegex || l.o.Path == "" {
		return nil // the debug information of all libraries takes too long
	}
	s := uprobes.Selector{Funcs: []string{p.Text}}
	if p.Kind == uprobes.PatternRegex {
		s = uprobes.Selector{Regex: []string{p.Text}}
	}
	m, err := s.Compile()
	if err != nil {
		return nil
	}
	bin, err := symbolizer.OpenCached(l.o.Path)
	if err != nil {
		return nil
	}
	defer bin.Close()
	all, _ := bin.Functions()
	mod := &ListedModule{Name: filepath.Base(l.o.Path), Path: l.o.Path, Main: true}
	if found := onlyInlined(bin, mod, m, all); len(found) > 0 {
		return &InlinedError{Pattern: p.Text, Inlined: found}
	}
	return nil
}
