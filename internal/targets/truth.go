package targets

import (
	"fmt"
	"sort"
)

// Truth is what a target says it did since it was told to go. Functions carry
// the names that sbxtrace prints; only those that were called are listed.
type Truth struct {
	// Counts is the number of calls (entries) per function.
	Counts map[string]uint64 `json:"counts"`
	// Returns is the number of calls that came back to their caller. The others
	// were left by a jump, an exception, or the end of the thread or process.
	// Absent in targets where it has no meaning.
	Returns map[string]uint64 `json:"returns"`
	// MaxDepth is the greatest depth at which the function was entered, counted
	// in listed functions of one thread: 1 is outermost.
	MaxDepth map[string]uint64 `json:"maxdepth"`
	// Tree is the number of calls per pair of caller and callee.
	Tree []Edge `json:"tree"`
	// Threads is the number of calls of listed functions per thread id.
	Threads map[string]uint64 `json:"threads"`
	// SleptNS is the least time in nanoseconds that all calls of a function took
	// together, callees included, because they slept that long.
	SleptNS map[string]uint64 `json:"slept_ns"`
	// Inlined is the number of calls of functions that the compiler inlined
	// everywhere, so that there is nothing to probe.
	Inlined map[string]uint64 `json:"inlined"`
	// Values are results of the computation itself, by name.
	Values map[string]int64 `json:"values"`
}

// Edge counts the calls of Child made by Parent, which is empty when the caller
// is not a listed function (main, the start of a thread).
type Edge struct {
	Parent string `json:"parent"`
	Child  string `json:"child"`
	Count  uint64 `json:"count"`
}

// Functions returns the names of the functions that were called, sorted.
func (t Truth) Functions() []string {
	names := make([]string, 0, len(t.Counts))
	for name := range t.Counts {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Edges returns Tree as a map.
func (t Truth) Edges() map[[2]string]uint64 {
	edges := make(map[[2]string]uint64, len(t.Tree))
	for _, edge := range t.Tree {
		edges[[2]string{edge.Parent, edge.Child}] += edge.Count
	}
	return edges
}

// Unfinished returns, per function, the calls that did not return.
func (t Truth) Unfinished() map[string]uint64 {
	open := map[string]uint64{}
	for name, calls := range t.Counts {
		if returned := t.Returns[name]; returned != calls {
			open[name] = calls - returned
		}
	}
	return open
}

// Compare returns one line per function of the truth whose count in got is
// another, nil if all agree. Functions that the truth does not list are ignored.
func (t Truth) Compare(got map[string]uint64) []string {
	return compare("calls", t.Counts, got)
}

// CompareReturns is Compare for the calls that returned.
func (t Truth) CompareReturns(got map[string]uint64) []string {
	want := map[string]uint64{}
	for name := range t.Counts {
		want[name] = t.Returns[name]
	}
	return compare("returns", want, got)
}

// CompareEdges returns one line per pair of caller and callee in which got and
// Tree differ, nil if they agree. Pairs are ignored in which neither side, or a
// callee, is not a listed function.
func (t Truth) CompareEdges(got map[[2]string]uint64) []string {
	edges := t.Edges()
	want, have := map[string]uint64{}, map[string]uint64{}
	label := func(edge [2]string) string { return edge[0] + " → " + edge[1] }
	for edge, count := range edges {
		want[label(edge)] = count
	}
	for edge, count := range got {
		if _, listed := t.Counts[edge[1]]; !listed {
			continue
		}
		if _, listed := t.Counts[edge[0]]; !listed {
			edge[0] = ""
		}
		have[label(edge)] += count
		if _, known := want[label(edge)]; !known {
			want[label(edge)] = 0
		}
	}
	return compare("calls", want, have)
}

func compare(what string, want, got map[string]uint64) []string {
	var differences []string
	for name, count := range want {
		if got[name] != count {
			differences = append(differences, fmt.Sprintf("%s: %d %s, want %d", name, got[name], what, count))
		}
	}
	sort.Strings(differences)
	return differences
}
