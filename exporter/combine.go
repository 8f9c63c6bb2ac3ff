package exporter

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// ErrIncompatible is matched by the error for profiles that cannot stand in one:
// they measure different things.
var ErrIncompatible = errors.New("the profiles do not measure the same")

// baseLabel marks the samples of the base of a comparison, as `go tool pprof
// -diff_base` does.
const baseLabel = "pprof::base"

// Merge puts profiles together: equal stacks with equal labels are one sample,
// durations add up. Their types of values have to be the same in kind and unit,
// in any order; types that not all of them have are left out. The profiles are
// not changed.
func Merge(profiles ...*profile.Profile) (*profile.Profile, error) {
	switch len(profiles) {
	case 0:
		return nil, errors.New("no profiles to merge")
	case 1:
		return profiles[0].Copy(), nil
	}
	copies := make([]*profile.Profile, len(profiles))
	for i, p := range profiles {
		if err := p.CheckValid(); err != nil {
			return nil, fmt.Errorf("profile %d: %w", i+1, err)
		}
		copies[i] = p.Copy()
		if copies[i].PeriodType == nil {
			copies[i].PeriodType = &profile.ValueType{}
		}
	}
	if err := compatibilize(copies); err != nil {
		return nil, err
	}
	merged, err := profile.Merge(copies)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIncompatible, err)
	}
	if err := merged.CheckValid(); err != nil {
		return nil, fmt.Errorf("merged profile: %w", err)
	}
	return merged, nil
}

// compatibilize reduces profiles to the types that all of them have.
func compatibilize(profiles []*profile.Profile) error {
	for _, p := range profiles[1:] {
		for _, t := range p.SampleType {
			for _, first := range profiles[0].SampleType {
				if t.Type == first.Type && t.Unit != first.Unit {
					return fmt.Errorf("%w: %s in %s and in %s", ErrIncompatible, t.Type, first.Unit, t.Unit)
				}
			}
		}
	}
	if err := profile.CompatibilizeSampleTypes(profiles); err != nil {
		return fmt.Errorf("%w: %s and %s", ErrIncompatible, typeNames(profiles[0]), typeNames(profiles[1]))
	}
	for _, p := range profiles {
		// Google's Merge refuses periods of different kinds, which say
		// nothing about the values.
		if first := profiles[0].PeriodType; p.PeriodType.Type != first.Type || p.PeriodType.Unit != first.Unit {
			for _, p := range profiles {
				p.PeriodType, p.Period = &profile.ValueType{}, 0
			}
			break
		}
	}
	return nil
}

func typeNames(p *profile.Profile) string {
	var names []string
	for _, t := range p.SampleType {
		names = append(names, t.Type+"/"+t.Unit)
	}
	return strings.Join(names, ", ")
}

// Diff puts p and a base together so that all formats show what changed from
// base to p: the samples of base count negative and have the label that
// google/pprof gives them for -diff_base. Shares are of each profile's own
// total, so profiles of different lengths compare. Neither is changed.
func Diff(p, base *profile.Profile) (*profile.Profile, error) {
	if compares(p) || compares(base) {
		return nil, errors.New("a profile that is a comparison cannot be compared again")
	}
	negative := base.Copy()
	Scale(negative, -1)
	negative.SetLabel(baseLabel, []string{"true"})
	d, err := Merge(p, negative)
	if err != nil {
		return nil, err
	}
	d.DurationNanos, d.TimeNanos = p.DurationNanos, p.TimeNanos
	return d, nil
}

// Scale multiplies all values of p, in place.
func Scale(p *profile.Profile, factor float64) {
	for _, s := range p.Sample {
		for i, v := range s.Value {
			s.Value[i] = int64(math.Round(float64(v) * factor))
		}
	}
	if factor > 0 && factor != 1 && p.Period != 0 {
		p.Period = max(int64(math.Round(float64(p.Period)*factor)), 1)
	}
}

// Filter says which samples are kept. Patterns are globs: `*` stands for any
// text, `?` for one character. Empty fields keep all.
type Filter struct {
	PIDs    []string // process ids
	Threads []string // thread ids, or patterns of threads' names
	Modules []string // patterns of modules: one frame has to be in one
	Funcs   []string // patterns of functions: one frame has to be of one
}

// Empty reports whether all samples are kept.
func (f *Filter) Empty() bool {
	return len(f.PIDs)+len(f.Threads)+len(f.Modules)+len(f.Funcs) == 0
}

// Apply returns p with the samples that f keeps. p is not changed.
func (f *Filter) Apply(p *profile.Profile) *profile.Profile {
	if f.Empty() {
		return p
	}
	frames := newFrameTable()
	modules, funcs := globs(f.Modules), globs(f.Funcs)
	threads := globs(f.Threads)
	verdicts := make(map[*profile.Location][2]bool) // of modules and funcs
	for _, l := range p.Location {
		var v [2]bool
		for _, pl := range frames.at(l) {
			at := &frames.frames[pl.frame]
			v[0] = v[0] || matches(modules, at.Module)
			v[1] = v[1] || matches(funcs, at.Name)
		}
		verdicts[l] = v
	}
	passes := func(s *profile.Sample, which int, patterns []glob) bool {
		return len(patterns) == 0 || slices.ContainsFunc(s.Location, func(l *profile.Location) bool { return verdicts[l][which] })
	}
	out := p.Copy()
	// Copies have locations of their own, in the same order.
	kept := out.Sample[:0]
	for i, s := range p.Sample {
		t := threadOf(s)
		if (len(f.PIDs) == 0 || slices.Contains(f.PIDs, t.pid)) &&
			(len(threads) == 0 || matches(threads, t.name) || matches(threads, t.tid) || t.name == "" && matches(threads, t.comm)) &&
			passes(s, 0, modules) && passes(s, 1, funcs) {
			kept = append(kept, out.Sample[i])
		}
	}
	out.Sample = kept
	return out.Compact()
}

// glob is a pattern cut at its stars.
type glob []string

func globs(patterns []string) []glob {
	var out []glob
	for _, p := range patterns {
		out = append(out, strings.Split(p, "*"))
	}
	return out
}

func matches(patterns []glob, s string) bool {
	return slices.ContainsFunc(patterns, func(g glob) bool { return g.match(s) })
}

// match reports whether the whole of s fits, in time linear in s per part: the
// leftmost place is always good enough for a part between stars.
func (g glob) match(s string) bool {
	if len(g) == 1 {
		return len(s) == len(g[0]) && fits(g[0], s)
	}
	first, last := g[0], g[len(g)-1]
	if len(s) < len(first)+len(last) || !fits(first, s) || !fits(last, s[len(s)-len(last):]) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, part := range g[1 : len(g)-1] {
		at := 0
		for ; at+len(part) <= len(s) && !fits(part, s[at:]); at++ {
		}
		if at+len(part) > len(s) {
			return false
		}
		s = s[at+len(part):]
	}
	return true
}

// fits reports whether s begins with part, whose question marks stand for any
// byte.
func fits(part, s string) bool {
	if len(s) < len(part) {
		return false
	}
	for i := range len(part) {
		if part[i] != s[i] && part[i] != '?' {
			return false
		}
	}
	return true
}
