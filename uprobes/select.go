package uprobes

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// Selector is what a user typed to pick functions. Criteria of different kinds
// all have to hold; of several patterns of one kind one is enough. The zero
// Selector picks nothing by itself: see Matcher.WithDefault.
type Selector struct {
	// Funcs are globs over function names (glob describes the language, and
	// appendNameForms which spellings of a name are tried). "module:glob"
	// restricts one pattern to the modules whose name matches: libc.so*:malloc.
	Funcs []string
	// Regex are RE2 expressions searched for in the same spellings; unlike
	// globs they need not match the whole name. A function matches when a
	// pattern of Funcs or one of Regex does.
	Regex []string
	// Modules are globs over the base name of the ELF file, or over its whole
	// path when the pattern contains a '/'.
	Modules []string
	// Packages are globs over the Go import path; Rust functions go by their
	// crate. "x/..." is x and everything below it.
	Packages []string
	// Files are globs over the source path; a pattern that does not start with
	// '/' matches from any path component on: "server/*.go", "conn.c".
	Files []string
	// Excludes has the form of Funcs and removes functions again.
	Excludes []string
}

// Empty reports whether s restricts nothing, apart from excludes.
func (s Selector) Empty() bool {
	return len(s.Funcs)+len(s.Regex)+len(s.Modules)+len(s.Packages)+len(s.Files) == 0
}

// PatternKind names a field of Selector, in the singular, as printed in errors.
type PatternKind string

// Kinds of patterns.
const (
	PatternFunc    PatternKind = "function"
	PatternRegex   PatternKind = "regex"
	PatternModule  PatternKind = "module"
	PatternPackage PatternKind = "package"
	PatternFile    PatternKind = "file"
	PatternExclude PatternKind = "exclude"
	PatternUSDT    PatternKind = "static probe"
)

// Pattern is one pattern of a Selector.
type Pattern struct {
	Kind PatternKind
	Text string // as typed
}

// Matcher decides which functions a Selector picks. It may be used by several
// goroutines at once.
type Matcher struct {
	funcs    []*namePattern // Funcs and Regex
	modules  []*patternRule
	packages []*patternRule
	files    []*patternRule
	excludes []*namePattern
	own      *ModuleInfo // only the target's own functions, see WithDefault
	// signatures: a pattern speaks of parameters, see appendNameForms.
	signatures bool
}

// patternRule is one pattern with its memory of whether it ever matched.
type patternRule struct {
	kind  PatternKind
	text  string
	globs []*glob // any of them
	whole bool    // modules: the pattern speaks of a path, not of a base name
	hit   atomic.Bool
}

func (r *patternRule) match(s string) bool {
	for _, g := range r.globs {
		if g.match(s) {
			return true
		}
	}
	return false
}

// namePattern is a rule over the spellings of a function's name.
type namePattern struct {
	patternRule
	module *patternRule   // nil: any module
	regex  *regexp.Regexp // nil: a glob
}

func (p *namePattern) matchForms(forms []string) bool {
	for _, form := range forms {
		if p.regex != nil && p.regex.MatchString(form) || p.regex == nil && p.match(form) {
			return true
		}
	}
	return false
}

// Compile checks and prepares the patterns. All broken ones are reported
// together, each as a *PatternError; errors.Is(err, ErrPattern) then holds.
func (s Selector) Compile() (*Matcher, error) {
	var (
		m    Matcher
		errs []error
	)
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	for _, text := range s.Funcs {
		p, err := compileNameGlob(PatternFunc, text)
		add(err)
		m.funcs = append(m.funcs, p)
	}
	for _, text := range s.Regex {
		p, err := compileRegex(text)
		add(err)
		m.funcs = append(m.funcs, p)
	}
	for _, text := range s.Excludes {
		p, err := compileNameGlob(PatternExclude, text)
		add(err)
		m.excludes = append(m.excludes, p)
	}
	for _, text := range s.Modules {
		r, err := compileModule(PatternModule, text, text, 0)
		add(err)
		m.modules = append(m.modules, r)
	}
	for _, text := range s.Packages {
		r, err := compilePackage(text)
		add(err)
		m.packages = append(m.packages, r)
	}
	for _, text := range s.Files {
		r, err := compileFile(text)
		add(err)
		m.files = append(m.files, r)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	m.signatures = slices.ContainsFunc(s.Funcs, hasParameters) || slices.ContainsFunc(s.Excludes, hasParameters) ||
		slices.ContainsFunc(s.Regex, func(text string) bool { return strings.Contains(text, `\(`) })
	return &m, nil
}

// compileNameGlob compiles "[module:]glob".
func compileNameGlob(kind PatternKind, text string) (*namePattern, error) {
	p := &namePattern{patternRule: patternRule{kind: kind, text: text}}
	start := 0
	if colon := moduleColon(text); colon >= 0 {
		var err error
		if p.module, err = compileModule(kind, text, text[:colon], 0); err != nil {
			return nil, err
		}
		start = colon + 1
	}
	g, err := compileGlobAt(kind, text, text[start:], start)
	if err != nil {
		return nil, err
	}
	p.globs = []*glob{g}
	return p, nil
}

// moduleColon returns the position of the ':' that separates a module from a
// function pattern, or -1. It is the first ':' that is not part of a "::",
// with text before it that can be a file name glob: names with a lone ':' of
// their own, f[abi:cxx11] and {lambda(auto:1)#1}, have brackets or "::" there.
func moduleColon(text string) int {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case ':':
			if strings.HasPrefix(text[i:], "::") || i == 0 {
				return -1
			}
			return i
		case '(', '<', '{', ' ':
			return -1
		case '[':
			end := classEnd(text, i)
			if end < 0 {
				return -1
			}
			i = end
		}
	}
	return -1
}

// compileGlobAt compiles part, which stands at offset in the text the user
// typed, so that errors point into that.
func compileGlobAt(kind PatternKind, text, part string, offset int) (*glob, error) {
	g, err := compileGlob(kind, part)
	if err != nil {
		var bad *PatternError
		if errors.As(err, &bad) {
			bad.Pattern, bad.Pos = text, bad.Pos+offset
		}
		return nil, err
	}
	return g, nil
}

func compileModule(kind PatternKind, text, part string, offset int) (*patternRule, error) {
	g, err := compileGlobAt(kind, text, part, offset)
	if err != nil {
		return nil, err
	}
	return &patternRule{kind: kind, text: text, globs: []*glob{g}, whole: strings.Contains(part, "/")}, nil
}

func compileRegex(text string) (*namePattern, error) {
	fail := func(pos int, reason string) error {
		return &PatternError{Kind: PatternRegex, Pattern: text, Pos: pos, Reason: reason}
	}
	if text == "" {
		return nil, fail(0, "the pattern is empty")
	}
	if len(text) > maxPattern {
		return nil, fail(maxPattern, fmt.Sprintf("longer than %d bytes", maxPattern))
	}
	re, err := regexp.Compile(text)
	if err != nil {
		var bad *syntax.Error
		if errors.As(err, &bad) {
			return nil, fail(max(strings.Index(text, bad.Expr), 0), bad.Code.String())
		}
		return nil, fail(0, err.Error())
	}
	return &namePattern{patternRule: patternRule{kind: PatternRegex, text: text}, regex: re}, nil
}

func compilePackage(text string) (*patternRule, error) {
	r := &patternRule{kind: PatternPackage, text: text}
	globs := []string{text}
	if base, ok := strings.CutSuffix(text, "/..."); ok && base != "" {
		globs = []string{base, base + "/*"}
	} else if text == "..." {
		globs = []string{"*"}
	}
	for _, src := range globs {
		g, err := compileGlobAt(PatternPackage, text, src, 0)
		if err != nil {
			return nil, err
		}
		r.globs = append(r.globs, g)
	}
	return r, nil
}

func compileFile(text string) (*patternRule, error) {
	g, err := compileGlob(PatternFile, text)
	if err != nil {
		return nil, err
	}
	r := &patternRule{kind: PatternFile, text: text, globs: []*glob{g}}
	if !strings.HasPrefix(text, "/") {
		if g, err = compileGlobAt(PatternFile, text, "*/"+text, -2); err != nil {
			return nil, err
		}
		r.globs = append(r.globs, g)
	}
	return r, nil
}

// Match reports whether fn of the given module is selected. module is the path
// or base name of the ELF file. file returns the function's source path, ""
// when unknown; it is called only when everything else matched and a file
// pattern has to be decided, because finding lines is slow. It may be nil, and
// then no function has a file.
func (m *Matcher) Match(fn *symbolizer.Function, module string, file func() string) bool {
	ok, _ := m.decide(fn, module, file)
	return ok
}

// Explain is Match that also says why a function is not selected, as half a
// sentence for a person; it is empty for a selected function.
func (m *Matcher) Explain(fn *symbolizer.Function, module string, file func() string) (bool, string) {
	ok, why := m.decide(fn, module, file)
	if ok {
		return true, ""
	}
	return false, why.String()
}

// MatchModule reports whether a function of the module can match at all, so
// that a caller need not read the symbols of one that cannot.
func (m *Matcher) MatchModule(module string) bool {
	if len(m.modules) > 0 && !anyModule(m.modules, module) {
		return false
	}
	if m.own != nil && !m.own.isMain(module) {
		return false
	}
	if len(m.funcs) == 0 {
		return true
	}
	for _, p := range m.funcs {
		if p.module == nil || matchModule(p.module, module) {
			return true
		}
	}
	return false
}

// Unmatched returns the patterns that no function fitted so far, excludes left
// out: what a typing mistake looks like after all functions were offered. A
// pattern that fitted a function which something else then rejected counts as
// matched.
func (m *Matcher) Unmatched() []Pattern {
	var out []Pattern
	for _, p := range m.funcs {
		if !p.hit.Load() {
			out = append(out, Pattern{p.kind, p.text})
		}
	}
	for _, rules := range [][]*patternRule{m.modules, m.packages, m.files} {
		for _, r := range rules {
			if !r.hit.Load() {
				out = append(out, Pattern{r.kind, r.text})
			}
		}
	}
	return out
}

// rejection is why a function is not selected; text is only put together when
// somebody asks, since most functions are not selected.
type rejection struct {
	format string
	args   [2]string
}

func (r rejection) String() string {
	n := strings.Count(r.format, "%")
	args := make([]any, n)
	for i := range args {
		args[i] = r.args[i]
	}
	return fmt.Sprintf(r.format, args...)
}

func (m *Matcher) decide(fn *symbolizer.Function, module string, file func() string) (bool, rejection) {
	if len(m.modules) > 0 && !anyModule(m.modules, module) {
		return false, rejection{"module %s is not selected", [2]string{path.Base(module)}}
	}
	if m.own != nil {
		if ok, why := m.own.isOwn(fn, module); !ok {
			return false, why
		}
	}
	if len(m.packages) > 0 {
		pkg := packageOf(fn)
		if !anyRule(m.packages, pkg) {
			if pkg == "" {
				return false, rejection{format: "its package is not known"}
			}
			return false, rejection{"package %s is not selected", [2]string{pkg}}
		}
	}
	if len(m.funcs) > 0 || len(m.excludes) > 0 {
		var space [8]string
		forms := appendNameForms(space[:0], fn, m.signatures)
		if len(m.funcs) > 0 && !anyName(m.funcs, forms, module) {
			return false, rejection{format: "its name matches no pattern"}
		}
		for _, p := range m.excludes {
			if (p.module == nil || matchModule(p.module, module)) && p.matchForms(forms) {
				return false, rejection{"excluded by %s", [2]string{p.text}}
			}
		}
	}
	if len(m.files) > 0 {
		name := ""
		if file != nil {
			name = file()
		}
		if name == "" {
			return false, rejection{format: "its source file is not known"}
		}
		if !anyRule(m.files, name) {
			return false, rejection{"source file %s is not selected", [2]string{name}}
		}
	}
	return true, rejection{}
}

// anyName reports whether a pattern matches. It goes on after the first match
// with the patterns that never matched yet, for Unmatched's sake.
func anyName(patterns []*namePattern, forms []string, module string) bool {
	found := false
	for _, p := range patterns {
		if found && p.hit.Load() {
			continue
		}
		if p.module != nil && !matchModule(p.module, module) {
			continue
		}
		if p.matchForms(forms) {
			p.hit.Store(true)
			found = true
		}
	}
	return found
}

// anyRule is anyName for plain values.
func anyRule(rules []*patternRule, value string) bool {
	found := false
	for _, r := range rules {
		if found && r.hit.Load() {
			continue
		}
		if r.match(value) {
			r.hit.Store(true)
			found = true
		}
	}
	return found
}

func anyModule(rules []*patternRule, module string) bool {
	found := false
	for _, r := range rules {
		if matchModule(r, module) {
			r.hit.Store(true)
			found = true
		}
	}
	return found
}

func matchModule(r *patternRule, module string) bool {
	if !r.whole {
		module = path.Base(module)
	}
	return r.match(module)
}

// packageOf returns the Go import path, or the crate of a Rust function.
func packageOf(fn *symbolizer.Function) string {
	if fn.Lang == symbolizer.LangRust && fn.Package == "" {
		return rustCrate(fn.Name)
	}
	// Symbols spell a dot in the last path element as %2e.
	if strings.Contains(fn.Package, "%2e") {
		return strings.ReplaceAll(fn.Package, "%2e", ".")
	}
	return fn.Package
}
