package tracer

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/sbxtrace/sbxtrace/trace"
)

// The overhead governor. Probes cost the target time: hits × cost of a hit. The
// governor looks at the hit counters many times a second and takes out the
// hottest functions as soon as the cost has been above the limit for longer
// than a burst, so that attaching to a busy server does not make it crawl.
const (
	// governorPeriod is the time between two looks: short enough to react
	// within 100 ms with the look after and detaching included.
	governorPeriod = 20 * time.Millisecond
	// governorBurst is the cost that may run up over the limit before a
	// function goes: a target that does everything in short spells is not
	// judged by one of them.
	governorBurst = 4 * time.Millisecond
	// governorCredit is what a target that stays below the limit may save up
	// for a longer burst: a server that is idle most of the time and then reads
	// its configuration anew.
	governorCredit = 16 * time.Millisecond
	// governorFloor is the share of one CPU that an idle target is taken to
	// use at least: 10 % of next to nothing would forbid every probe.
	governorFloor = 0.1
	// governorAim is how far below the limit to come when functions go, so
	// that one step is enough.
	governorAim = 0.7
	// governorError is how much dearer probes may be than is known: caches
	// suffer that the measurement of costs has for itself.
	governorError = 1.1
	// governorLeast is the share of its CPU time that a target is taken to
	// work, however much of it probes seem to cost.
	governorLeast = 0.05
)

// hot is a function that costs more than it may.
type hot struct {
	id   trace.FuncID
	rate uint64 // calls per second
}

// governor decides which functions to take out. It is pure: times, hits and
// CPU time come in, functions come out.
type governor struct {
	limit float64       // share of the target's CPU time: 0.1 for 10 %
	cost  []float64     // ns per call by function; 0: not watched
	size  []uint64      // bytes of code by function
	last  []uint64      // hits at the last look, by function
	debt  time.Duration // cost above the limit so far; below 0: credit
}

func newGovernor(percent float64) *governor {
	return &governor{limit: percent / 100}
}

// watch adds a function of size bytes whose call costs the target ns, entry and
// exit together.
func (g *governor) watch(id trace.FuncID, size uint64, ns float64) {
	if n := int(id) + 1 - len(g.cost); n > 0 {
		g.cost = append(g.cost, make([]float64, n)...)
		g.size = append(g.size, make([]uint64, n)...)
		g.last = append(g.last, make([]uint64, n)...)
	}
	g.cost[id], g.size[id] = ns, size
}

// forget removes a function.
func (g *governor) forget(id trace.FuncID) {
	if int(id) < len(g.cost) {
		g.cost[id] = 0
	}
}

// spent is what the calls of a function have cost since the last look.
type spent struct {
	id    trace.FuncID
	calls uint64
	ns    float64
}

// tally adds up what has been spent since the last look.
func (g *governor) tally(hits func(trace.FuncID) uint64) (all []spent, total float64) {
	for i, cost := range g.cost {
		if cost == 0 {
			continue
		}
		id := trace.FuncID(i)
		n := hits(id)
		calls := n - g.last[i]
		if calls == 0 {
			continue
		}
		g.last[i] = n
		ns := float64(calls) * cost
		total += ns
		all = append(all, spent{id, calls, ns})
	}
	return all, total
}

// skip leaves what has happened since the last look out of the next one.
func (g *governor) skip(hits func(trace.FuncID) uint64) {
	g.tally(hits)
	g.debt = 0
}

// look judges the time since the last look: elapsed by the clock, in which the
// target used cpu. hits tells a function's calls so far. It returns the
// functions to take out, costliest first, usually none.
func (g *governor) look(elapsed, cpu time.Duration, hits func(trace.FuncID) uint64) []hot {
	all, total := g.tally(hits)
	base := max(float64(cpu), governorFloor*float64(elapsed))
	g.debt = max(-governorCredit, g.debt+time.Duration(total-g.limit*base))
	if g.debt <= governorBurst {
		return nil
	}
	g.debt = 0
	g.sort(all)
	work := g.work(elapsed, cpu, total)
	var out []hot
	rest := total
	for _, s := range all {
		if rest <= governorAim*g.limit*(work+rest) {
			break
		}
		rest -= s.ns
		out = append(out, hot{s.id, uint64(float64(s.calls) / elapsed.Seconds())})
	}
	return out
}

// work is the CPU time in ns that the target itself needs for what it did. A
// target that probes keep from its work does more of it as soon as they are
// gone, and calls what is left the more often: the calls that were seen are to
// be judged by the work that they belong to. The floor is for what a target
// leaves unused; one that uses a CPU up has none.
func (g *governor) work(elapsed, cpu time.Duration, total float64) float64 {
	work := max(float64(cpu)-governorError*total, governorLeast*float64(cpu))
	return max(work, governorFloor*float64(elapsed-cpu))
}

// sort orders by what calls cost, the dearest first. Of functions that cost
// about the same those with the least code come first: the larger one tells
// more.
func (g *governor) sort(all []spent) {
	slices.SortFunc(all, func(a, b spent) int {
		return cmp.Or(
			cmp.Compare(math.Ilogb(b.ns), math.Ilogb(a.ns)),
			cmp.Compare(g.size[a.id], g.size[b.id]),
			cmp.Compare(a.id, b.id))
	})
}
