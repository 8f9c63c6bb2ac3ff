package uprobes

import (
	"errors"
	"strings"
)

// USDTMatcher decides which static probes a user's patterns pick. It may be
// used by several goroutines at once.
type USDTMatcher struct {
	patterns []*usdtPattern
}

type usdtPattern struct {
	text     string
	module   *patternRule // nil: any
	provider *glob        // nil: any
	name     patternRule  // its hit is the pattern's
}

// CompileUSDT prepares patterns of the forms
//
//	provider:name          postgresql:query__*
//	module:provider:name   libpython*:python:function__entry
//	name                   query__start, of any provider
//
// whose parts are globs. The name may also be spelled as DTrace and most
// manuals do, query-start for query__start. All broken patterns are reported
// together, each as a *PatternError.
func CompileUSDT(patterns []string) (*USDTMatcher, error) {
	m := &USDTMatcher{}
	var errs []error
	for _, text := range patterns {
		p, err := compileUSDTPattern(text)
		if err != nil {
			errs = append(errs, err)
		}
		m.patterns = append(m.patterns, p)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return m, nil
}

func compileUSDTPattern(text string) (*usdtPattern, error) {
	p := &usdtPattern{text: text, name: patternRule{kind: PatternUSDT, text: text}}
	var parts []string
	var offsets []int
	for at := 0; ; {
		part, _, more := strings.Cut(text[at:], ":")
		parts, offsets = append(parts, part), append(offsets, at)
		if !more {
			break
		}
		at += len(part) + 1
	}
	n := len(parts)
	if n > 3 {
		return nil, &PatternError{PatternUSDT, text, offsets[3] - 1, "more than three parts; write [module:]provider:name"}
	}
	g, err := compileGlobAt(PatternUSDT, text, parts[n-1], offsets[n-1])
	if err != nil {
		return nil, err
	}
	p.name.globs = []*glob{g}
	if n > 1 {
		if p.provider, err = compileGlobAt(PatternUSDT, text, parts[n-2], offsets[n-2]); err != nil {
			return nil, err
		}
	}
	if n > 2 {
		if p.module, err = compileModule(PatternUSDT, text, parts[0], 0); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Match reports whether the probe, of the module with this path or base name,
// is picked.
func (m *USDTMatcher) Match(p *StaticProbe, module string) bool {
	dashed := strings.ReplaceAll(p.Name, "__", "-")
	found := false
	for _, pattern := range m.patterns {
		if pattern.module != nil && !matchModule(pattern.module, module) ||
			pattern.provider != nil && !pattern.provider.match(p.Provider) ||
			!pattern.name.match(p.Name) && !pattern.name.match(dashed) {
			continue
		}
		pattern.name.hit.Store(true)
		found = true
	}
	return found
}

// Unmatched returns the patterns that fitted no probe so far.
func (m *USDTMatcher) Unmatched() []Pattern {
	var out []Pattern
	for _, p := range m.patterns {
		if !p.name.hit.Load() {
			out = append(out, Pattern{PatternUSDT, p.text})
		}
	}
	return out
}

// NearestUSDT is Nearest for static probes: pattern in a form of CompileUSDT,
// the answer as "provider:name".
func NearestUSDT(pattern string, probes []StaticProbe, limit int) []string {
	parts := strings.Split(pattern, ":")
	name := parts[len(parts)-1]
	seen := map[string]bool{}
	var ids, names []string
	for i := range probes {
		p := &probes[i]
		if id := p.ID(); !seen[id] {
			seen[id] = true
			ids, names = append(ids, id), append(names, p.Name)
		}
	}
	near := Nearest(strings.ReplaceAll(name, "-", "__"), names, limit)
	var out []string
	for _, n := range near {
		for i, id := range ids {
			if names[i] == n && len(out) < limit {
				out = append(out, id)
			}
		}
	}
	return out
}
