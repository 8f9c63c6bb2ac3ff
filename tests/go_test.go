package tests

import (
	"syscall"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// goBuilds are how Go programs come.
var goBuilds = map[string][]targets.Option{
	"default": nil,
	"strip":   {targets.Strip()},
	"O0":      {targets.OptLevel("0")},
	"pie":     {targets.PIE()},
}

// Methods, generics, closures, deferred calls, panics, Goexit.
func TestGoCalls(t *testing.T) {
	situation{target: "gocalls", args: []string{"--rounds", "20"}}.inBuilds(t, goBuilds)
}

// Ten thousand goroutines at once that move between threads and grow their
// stacks inside traced functions.
func TestGoroutines(t *testing.T) {
	for label, options := range goBuilds {
		count := "1000"
		if label == "default" {
			count = "10000"
		}
		situation{
			target: "goroutines", args: []string{"--goroutines", count, "--rounds", "1"},
			build: options, attachOnly: label == "default",
		}.inBuild(t, label)
	}
}

func TestGoHTTP(t *testing.T) {
	situation{target: "gohttp", args: []string{"--clients", "4", "--requests", "30"}}.inBuilds(t, map[string][]targets.Option{"default": nil})
}

// Under garbage collection, growing stacks and panics for some seconds: the
// target checks its own results.
func TestGoSoak(t *testing.T) {
	for label, options := range goBuilds {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			p := start(t, targets.Build(t, "gosoak", options...), "--workers", "4")
			s := attach(t, p.PID(), "--summary")
			p.Go()
			for range 2 { // one a second
				p.Rate()
			}
			p.Signal(syscall.SIGTERM)
			truth := p.Truth()
			if err := p.Quit(); err != nil {
				t.Errorf("the target ended with %v", err)
			}
			if truth.Values["failures"] != 0 {
				t.Errorf("%d of the target's own checks failed", truth.Values["failures"])
			}
			r := s.wait()
			if r.totals.Lost != 0 {
				t.Errorf("%d events lost", r.totals.Lost)
			}
			report(t, "summary", differences("calls", truth.Counts, r.rowCounts()))
		})
	}
}

// Inlined functions have no calls; what is left of them counts.
func TestGoInlined(t *testing.T) {
	situation{target: "goinline", args: []string{"--rounds", "15"}, noTree: true}.inBuilds(t, goBuilds)
}

// Go and C call each other: C has return probes, Go none. What C calls back is in
// the goroutine's lane, C's own calls in the thread's.
func TestGoCgo(t *testing.T) {
	s := situation{
		target: "gocgo", args: []string{"--rounds", "30", "--goroutines", "6", "--threads", "3"},
		flags: []string{"main.*", "c_*"}, noTree: true,
	}
	s.inBuild(t, "default")
	s.build, s.unseen = []targets.Option{targets.Strip()}, []string{"c_work", "c_leaf", "c_thread", "c_start"} // only Go keeps names
	s.inBuild(t, "strip")
}
