package exporter

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/sbxtrace/sbxtrace/internal/term"
)

// value writes a value of a unit for people: times as durations, sizes with
// binary units, anything else as a count.
func value(v int64, unit string) string {
	sign := ""
	size := uint64(v)
	if v < 0 {
		sign, size = "−", -size
	}
	if ns := unitNanoseconds(unit); ns > 0 {
		if size > 1<<63/ns {
			return sign + term.Count(size) + " " + unit
		}
		return sign + term.Duration(size*ns)
	}
	switch unit {
	case "bytes", "byte":
		return term.Bytes(v)
	case "count", "", "samples", "objects":
		return sign + term.Count(size)
	}
	return sign + term.Count(size) + " " + term.Clean(unit)
}

// unitNanoseconds returns how many ns a unit of time has; 0 for other units.
func unitNanoseconds(unit string) uint64 {
	switch unit {
	case "nanoseconds", "ns":
		return 1
	case "microseconds", "us", "µs":
		return 1e3
	case "milliseconds", "ms":
		return 1e6
	case "seconds", "s":
		return 1e9
	}
	return 0
}

// typeTitle names what is measured, to begin a title with.
func typeTitle(t *profile.ValueType) string {
	switch t.Type {
	case "cpu":
		return "CPU time"
	case "wall":
		return "Wall-clock time"
	case "off-cpu", "off_cpu", "offcpu":
		return "Off-CPU time"
	case "lock", "delay":
		return "Time waiting for locks"
	case "samples":
		return "Samples"
	case "self":
		return "Time in traced functions"
	case "total":
		return "Time from entry to end"
	case "alloc_space":
		return "Allocated memory"
	case "inuse_space":
		return "Memory in use"
	case "alloc_objects":
		return "Allocations"
	case "inuse_objects":
		return "Objects in use"
	case "":
		return "Values"
	}
	name := term.Clean(t.Type)
	return strings.ToUpper(name[:1]) + name[1:]
}

// typePhrase names a total of a type within a line: "29.7 s of CPU time".
func typePhrase(v int64, t *profile.ValueType) string {
	title := typeTitle(t)
	if title == "Samples" {
		return value(v, t.Unit) + " samples"
	}
	if !strings.HasPrefix(title, "CPU") {
		title = strings.ToLower(title[:1]) + title[1:]
	}
	return value(v, t.Unit) + " of " + title
}

// title describes what a profile is of: the options' title, or what it measures
// and the program that most of it is of.
func title(p *profile.Profile, typ int, opt Options) string {
	if opt.Title != "" {
		return term.Clean(opt.Title)
	}
	t := typeTitle(p.SampleType[typ])
	if name := program(p); name != "" {
		t += " of " + name
	}
	return t
}

// program names the program that p is of, by the label of its processes, else
// by the first mapping, which is the main executable.
func program(p *profile.Profile) string {
	names := make(map[string]int)
	for _, s := range p.Sample {
		if name := label(s, commLabels); name != "" {
			names[name]++
		}
	}
	best, sum := "", 0
	for name, n := range names {
		sum += n
		if n > names[best] || n == names[best] && name < best {
			best = name
		}
	}
	switch {
	case best != "" && len(names) > 1 && names[best]*10 < 9*sum:
		return fmt.Sprintf("%s and %s", term.Clean(best), term.Plural(uint64(len(names)-1), "other program"))
	case best != "":
		return term.Clean(best)
	}
	return term.Clean(mainModule(p))
}

// mainModule names the main executable, which is the first mapping if it is
// known at all.
func mainModule(p *profile.Profile) string {
	if len(p.Mapping) == 0 {
		return ""
	}
	if name := moduleName(p.Mapping[0]); !strings.HasPrefix(name, "[") {
		return name
	}
	return ""
}

// facts are what a line below the title says: for how long, how many samples,
// how much in all, in how many threads.
func (t *tree) facts(p *profile.Profile, typ int) []string {
	var facts []string
	if p.DurationNanos > 0 {
		facts = append(facts, term.Duration(uint64(p.DurationNanos)))
	}
	vt := t.types[typ]
	samples := int64(t.stacks)
	for i, st := range t.types {
		if st.Type == "samples" && st.Unit == "count" {
			samples = t.total[i]
		}
	}
	if vt.Type != "samples" {
		facts = append(facts, term.Plural(uint64(max(samples, 0)), "sample"))
	}
	total := typePhrase(t.total[typ], vt)
	if ns := unitNanoseconds(vt.Unit); ns > 0 && vt.Type == "cpu" && p.DurationNanos > 0 {
		total += fmt.Sprintf(" (%.2f cores)", float64(t.total[typ])*float64(ns)/float64(p.DurationNanos))
	}
	facts = append(facts, total)
	if n := len(threadRows(p, typ)); n > 1 {
		facts = append(facts, term.Plural(uint64(n), "thread"))
	}
	return facts
}

// notes say what the numbers leave out, one sentence each.
func (t *tree) notes(typ int) []string {
	var notes []string
	if t.stacks > 0 {
		switch {
		case t.cut == 0 && t.marks:
			notes = append(notes, "all stacks are complete")
		case t.cut > 0:
			reasons := slices.SortedFunc(maps.Keys(t.reasons), func(a, b string) int {
				return cmp.Or(cmp.Compare(t.reasons[b], t.reasons[a]), cmp.Compare(a, b))
			})
			var why []string
			for _, reason := range reasons {
				if len(why) == 5 {
					why = append(why, "…")
					break
				}
				why = append(why, term.Count(uint64(t.reasons[reason]))+" × "+term.Clean(reason))
			}
			notes = append(notes, fmt.Sprintf("%s of the stacks incomplete: %s", percent(ratio(t.cut, t.counted)), strings.Join(why, ", ")))
		}
	}
	if t.crowded > 0 {
		notes = append(notes, fmt.Sprintf("%s cut short: more than %s different stacks", term.Plural(uint64(t.crowded), "stack"), term.Count(maxNodes)))
	}
	return notes
}

// percent writes a share: "12.3 %".
func percent(share float64) string {
	switch {
	case share > 0 && share < 0.0005:
		return "< 0.1 %"
	case share < 1 && share >= 0.9995:
		return "> 99.9 %"
	}
	return fmt.Sprintf("%.1f %%", 100*share)
}

// ratio returns part of all; 0 of nothing.
func ratio(part, all int64) float64 {
	if all == 0 {
		return 0
	}
	return float64(part) / float64(all)
}
