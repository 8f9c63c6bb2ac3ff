package tests

import (
	"maps"
	"slices"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// situation is a program and what is known of how its calls can be seen.
type situation struct {
	target string
	build  []targets.Option
	args   []string
	flags  []string // of sbxtrace
	// unseen functions have no place for a probe.
	unseen []string
	// only these functions are traced; the tree is that of others, too.
	only []string
	// uncounted functions do not count themselves: their callers count their calls,
	// and nothing else is known of them.
	uncounted []string
	// rounds are functions that begin with a loop, and the rounds of it: each counts
	// as a call, as `functions --verbose` says.
	rounds map[string]uint64
	// noTree: the truth's tree is not one that a tracer can see.
	noTree bool
	// asynchronous functions interrupt others anywhere: their caller is by chance.
	asynchronous []string
	// coroutines: calls do not end in the order of their nesting.
	coroutines bool
	// noDepth: calls that are not listed, or of a parent process, lie between.
	noDepth bool
	// noReturns: the truth about returns is not what a tracer can see.
	noReturns  bool
	attachOnly bool
	runOnly    bool
}

// check traces the program both ways, attached and started by sbxtrace, and
// compares with the truth.
func (s situation) check(t *testing.T) {
	t.Helper()
	needRoot(t)
	path := targets.Build(t, s.target, s.build...)
	if !s.runOnly {
		t.Run("attach", func(t *testing.T) {
			t.Parallel()
			r, truth := traceAttached(t, path, s.args, s.selected())
			s.compare(t, r, truth)
		})
	}
	if !s.attachOnly {
		t.Run("run", func(t *testing.T) {
			t.Parallel()
			r, truth := traceRun(t, path, s.args, s.selected())
			s.compare(t, r, truth)
		})
	}
}

// selected are the flags of the situation with those that select functions.
func (s situation) selected() []string { return append(slices.Clone(s.flags), s.only...) }

// compare checks everything that holds for every complete trace.
func (s situation) compare(t *testing.T, r *result, truth targets.Truth) {
	t.Helper()
	r.t = t
	if len(truth.Counts) == 0 {
		t.Fatal("the target did nothing")
	}
	want := truth
	want.Counts = without(truth.Counts, s.unseen)
	if s.only != nil {
		s.noTree, s.noDepth = true, true
		maps.DeleteFunc(want.Counts, func(name string, _ uint64) bool { return !slices.Contains(s.only, name) })
	}
	maps.Copy(want.Counts, s.rounds)
	r.complete(t)
	report(t, "calls", differences("calls", want.Counts, r.counts()))
	report(t, "summary", differences("calls", want.Counts, r.rowCounts()))
	want.Counts = without(want.Counts, s.uncounted)
	if truth.Returns != nil && !s.noReturns {
		returns := map[string]uint64{}
		for name := range want.Counts {
			returns[name] = truth.Returns[name]
		}
		if lines := differences("returns", returns, r.returned()); len(lines) > 0 {
			report(t, "returns", append(lines, r.unreturned()...))
		}
	}
	if truth.Tree != nil && !s.noTree {
		edges := r.namedEdges()
		if !s.coroutines {
			edges = r.edges(want.Counts)
		}
		for edge := range edges {
			if slices.Contains(s.asynchronous, edge[1]) {
				delete(edges, edge)
			}
		}
		want.Tree = slices.DeleteFunc(want.Tree, func(e targets.Edge) bool { return slices.Contains(s.asynchronous, e.Child) })
		report(t, "tree", want.CompareEdges(edges))
	}
	if truth.MaxDepth != nil && !s.noDepth && !s.coroutines {
		report(t, "depth", differences("deep", without(truth.MaxDepth, slices.Concat(s.unseen, s.uncounted)), r.maxDepth(want.Counts)))
	}
}

// complete checks that nothing was lost and that every call was closed.
func (r *result) complete(t testing.TB) {
	t.Helper()
	if r.totals.Lost != 0 || len(r.of("lost")) != 0 {
		t.Errorf("%d events lost: %v", r.totals.Lost, r.of("lost"))
	}
	if n := uint64(len(r.calls)); n != r.totals.Calls {
		t.Errorf("%d lines of calls, the totals say %d", n, r.totals.Calls)
	}
	if r.totals.Gaps != 0 {
		t.Errorf("%d calls are marked as incomplete", r.totals.Gaps)
	}
}

func without(counts map[string]uint64, names []string) map[string]uint64 {
	left := map[string]uint64{}
	for name, n := range counts {
		if !slices.Contains(names, name) {
			left[name] = n
		}
	}
	return left
}

// report fails the test with the first differences.
func report(t testing.TB, what string, lines []string) {
	t.Helper()
	const most = 12
	for i, line := range lines {
		if i == most {
			t.Errorf("%s: and %d more differences", what, len(lines)-most)
			return
		}
		t.Errorf("%s: %s", what, line)
	}
}
