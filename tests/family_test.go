package tests

import (
	"fmt"

	"strconv"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// several starts processes of one program, each with a number of rounds of its
// own, and waits until they are ready.
func several(t testing.TB, path string, rounds ...int) []*targets.Process {
	t.Helper()
	needRoot(t)
	started := make([]*targets.Process, len(rounds))
	for i, n := range rounds {
		started[i] = targets.Start(t, path, "--rounds", strconv.Itoa(n))
	}
	for _, p := range started {
		p.Ready()
	}
	return started
}

// letWork lets targets work and end, and returns what happened in each.
func letWork(t testing.TB, started []*targets.Process) map[int]targets.Truth {
	t.Helper()
	happened := map[int]targets.Truth{}
	for _, p := range started {
		p.Go()
	}
	for _, p := range started {
		happened[p.PID()] = p.Truth()
	}
	for _, p := range started {
		if err := p.Quit(); err != nil {
			t.Error(err)
		}
	}
	return happened
}

// pidFlags are the flags for processes, each given on its own.
func pidFlags(started []*targets.Process) []string {
	var flags []string
	for _, p := range started {
		flags = append(flags, "--pid", strconv.Itoa(p.PID()))
	}
	return flags
}

// sum is what happened in all processes together, as far as it can be added up.
func sum(all map[int]targets.Truth) targets.Truth {
	total := targets.Truth{Counts: map[string]uint64{}}
	for _, truth := range all {
		for name, n := range truth.Counts {
			total.Counts[name] += n
		}
	}
	return total
}

// compareEach compares the calls of each process with what happened in it, and
// the summary with what happened in all.
func compareEach(t *testing.T, r *result, happened map[int]targets.Truth) {
	t.Helper()
	r.complete(t)
	for pid, truth := range happened {
		own := r.only(func(c *call) bool { return c.PID == pid })
		report(t, fmt.Sprintf("process %d", pid), differences("calls", truth.Counts, own.counts()))
		report(t, fmt.Sprintf("process %d", pid), truth.CompareEdges(own.edges(truth.Counts)))
	}
	for _, c := range r.calls {
		if _, ok := happened[c.PID]; !ok {
			t.Fatalf("%s is a call of process %d, which is no target", c.Func, c.PID)
		}
	}
	report(t, "summary", differences("calls", sum(happened).Counts, r.rowCounts()))
}

// Processes of one program, when all that run it are targets and when one is
// not: each call is counted once, in its own process.
func TestSeveralPIDs(t *testing.T) {
	for _, target := range []string{"calls", "exceptions", "gocalls"} {
		for _, bystander := range []bool{false, true} {
			for _, follow := range []string{"--follow", "--no-follow"} {
				t.Run(fmt.Sprintf("%s/bystander=%v/%s", target, bystander, follow), func(t *testing.T) {
					t.Parallel()
					needRoot(t)
					path := own(t, targets.Build(t, target))
					started := several(t, path, 10, 25, 7)
					var other []*targets.Process
					if bystander {
						other = several(t, path, 40)
					}
					s := sbxtrace(t, "attach", append(pidFlags(started), follow)...)
					s.waitReady()
					letWork(t, other)
					happened := letWork(t, started)
					compareEach(t, s.wait(), happened)
				})
			}
		}
	}
}

// The levels that count in the kernel count each call once too.
func TestSeveralPIDsCounted(t *testing.T) {
	for _, level := range []string{"count", "latency"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			path := own(t, targets.Build(t, "calls"))
			started := several(t, path, 10, 25)
			other := several(t, path, 40)
			s := sbxtrace(t, "attach", append(pidFlags(started), "--level", level)...)
			s.waitReady()
			letWork(t, other)
			want := sum(letWork(t, started)).Counts
			report(t, level, differences("calls", want, s.wait().rowCounts()))
		})
	}
}
