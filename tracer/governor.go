package tracer

import (
	"cmp"
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
	// governorFloor is the share of one CPU that an idle target is taken to
	// use at least: 10 % of next to nothing would forbid every probe.
	governorFloor = 0.1
	// governorAim is how far below the limit to come when functions go, so
	// that one step is enough.
	governorAim = 0.7
)

// hot is a function that costs more than it may.
type hot struct {
	id   trace.FuncID
	rate uint64 // calls per second
}

// governor decides which functions to take out. It is pure: times, hits and
// CPU time come in, functions come out.
type governor struct {
	limit float64   // share of the target's CPU time: 0.1 for 10 %
	cost  []float64 // ns per call by function; 0: not watched
	last  []uint64  // hits at the last look, by function
	debt  time.Duration
}

func newGovernor(percent float64) *governor {
	return &governor{limit: percent / 100}
}

// watch adds a function whose call costs the target ns, entry and exit together.
func (g *governor) watch(id trace.FuncID, ns float64) {
	if n := int(id) + 1 - len(g.cost); n > 0 {
		g.cost = append(g.cost, make([]float64, n)...)
		g.last = append(g.last, make([]uint64, n)...)
	}
	g.cost[id] = ns
}

// forget removes a function.
func (g *governor) forget(id trace.FuncID) {
	if int(id) < len(g.cost) {
		g.cost[id] = 0
	}
}

// look judges the time since the last look: elapsed by the clock, in which the
// target used cpu. hits tells a function's calls so far. It returns the
// functions to take out, hottest first, usually none.
func (g *governor) look(elapsed, cpu time.Duration, hits func(trace.FuncID) uint64) []hot {
	type spent struct {
		id    trace.FuncID
		calls uint64
		ns    float64
	}
	var all []spent
	var total float64
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
	base := max(float64(cpu), governorFloor*float64(elapsed))
	g.debt = max(0, g.debt+time.Duration(total-g.limit*base))
	if g.debt <= governorBurst {
		return nil
	}
	slices.SortFunc(all, func(a, b spent) int {
		return cmp.Or(cmp.Compare(b.ns, a.ns), cmp.Compare(a.id, b.id))
	})
	// What the target does without its costliest probes is judged by the
	// CPU time that it would then need.
	var out []hot
	rest := total
	for _, s := range all {
		left := max(base-(total-rest), governorFloor*float64(elapsed))
		if rest <= governorAim*g.limit*left {
			break
		}
		rest -= s.ns
		out = append(out, hot{s.id, uint64(float64(s.calls) / elapsed.Seconds())})
	}
	g.debt = 0
	return out
}
