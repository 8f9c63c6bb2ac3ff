package tests

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// closed checks that every call's caller is there too.
func closed(t *testing.T, r *result) {
	t.Helper()
	r.t = t
	r.complete(t)
	r.nest()
	for _, c := range r.calls {
		if c.Depth > 0 && c.caller == nil {
			t.Errorf("%s at depth %d is there without its caller %s", c.Func, c.Depth, c.Parent)
		}
	}
}

func TestMinDuration(t *testing.T) {
	for _, level := range []string{"calls", "args"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			// slow_leaf sleeps for 5 units, slow_middle and slow_outer longer.
			const unit, least = 500_000, 2_000_000
			r, truth := traceAttached(t, targets.Build(t, "slow"), []string{"--rounds", "4", "--unit", strconv.Itoa(unit / 1000)},
				[]string{"--level", level, "--min-duration", fmt.Sprint(least, "ns")})
			closed(t, r)
			for _, c := range r.calls {
				if c.Dur < least {
					t.Errorf("%s took %d ns, which is less than asked for", c.Func, c.Dur)
				}
				if c.Func == "slow_leaf" && level == "args" && c.Ret != c.Args[0] { // it returns its argument
					t.Errorf("slow_leaf(%s) returned %s", c.Args[0], c.Ret)
				}
			}
			got := r.counts()
			for _, name := range []string{"slow_outer", "slow_middle", "slow_leaf"} {
				if got[name] != truth.Counts[name] {
					t.Errorf("%s: %d calls, want %d: each slept longer", name, got[name], truth.Counts[name])
				}
			}
		})
	}
}

// Calls that are left out because they are short, all of them.
func TestMinDurationNone(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r, _ := traceAttached(t, targets.Build(t, "calls"), []string{"--rounds", "50"}, []string{"outer", "middle", "leaf", "--min-duration", "1h"})
	if len(r.calls) != 0 {
		t.Errorf("%d calls of an hour or more", len(r.calls))
	}
}

func TestDepth(t *testing.T) {
	for _, s := range []struct {
		target string
		args   []string
	}{
		{"calls", []string{"--rounds", "30"}},
		{"exceptions", []string{"--rounds", "3", "--threads", "2"}},
		{"gocalls", []string{"--rounds", "5"}},
	} {
		for _, depth := range []int{1, 2, 4} {
			t.Run(fmt.Sprint(s.target, "/", depth), func(t *testing.T) {
				t.Parallel()
				needRoot(t)
				path := targets.Build(t, s.target)
				all, _ := traceAttached(t, path, s.args, nil)
				r, _ := traceAttached(t, path, s.args, []string{"--depth", strconv.Itoa(depth)})
				closed(t, r)
				want := all.only(func(c *call) bool { return c.Depth < depth }).counts()
				// Waiting for the test takes a call that depends on when sbxtrace came.
				report(t, "depth", differences("calls", want, r.counts()))
				for _, c := range r.calls {
					if c.Depth >= depth {
						t.Errorf("%s at depth %d", c.Func, c.Depth)
					}
				}
			})
		}
	}
}

// Of the outermost calls about one in N is there, and with it all that it calls.
func TestSample(t *testing.T) {
	const n, rounds = 5, 4000
	for _, level := range []string{"calls", "args", "latency"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			r, _ := traceAttached(t, targets.Build(t, "calls"), []string{"--rounds", strconv.Itoa(rounds)},
				[]string{"outer", "middle", "leaf", "branchy", "tiny", "--level", level, "--sample", fmt.Sprint("1/", n)})
			got := r.counts()
			if level == "latency" {
				if got = map[string]uint64{}; true {
					for name, row := range r.rows {
						got[name] = row.Timed
					}
				}
			} else {
				closed(t, r)
			}
			// Six standard deviations: one run in a billion is farther off.
			p := 1.0 / n
			mean, wide := rounds*p, 6*math.Sqrt(rounds*p*(1-p))
			roots := got["outer"]
			if math.Abs(float64(roots)-mean) > wide {
				t.Errorf("%d of %d outermost calls, want %.0f ± %.0f", roots, rounds, mean, wide)
			}
			report(t, "whole calls", differences("calls", map[string]uint64{
				"middle": 3 * roots, "leaf": 7 * roots, "branchy": 3 * roots, "tiny": roots,
			}, got))
		})
	}
}

// Only the threads that are asked for, here one of several.
func TestTID(t *testing.T) {
	for _, level := range []string{"calls", "count"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			p := start(t, targets.Build(t, "busy"), "--threads", "3")
			p.Go()
			p.Rate() // the threads run
			dir, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.PID()))
			if err != nil {
				t.Fatal(err)
			}
			var tids []int
			for _, d := range dir {
				tid, err := strconv.Atoi(d.Name())
				if err != nil {
					t.Fatal(err)
				}
				tids = append(tids, tid)
			}
			slices.Sort(tids)
			wanted := tids[len(tids)-1] // a worker, not main or the one that waits for the end
			s := attach(t, p.PID(), "handle", "parse", "--level", level, "--tid", strconv.Itoa(wanted))
			p.Rate()
			p.Rate()
			r := s.stop()
			if r.totals.Calls == 0 {
				t.Error("no calls of the thread")
			}
			for _, c := range r.calls {
				if c.TID != wanted {
					t.Fatalf("%s in thread %d, want %d alone", c.Func, c.TID, wanted)
				}
			}
			if truth := p.Stop(); truth.Values["failures"] != 0 || r.rows["handle"].Calls >= truth.Counts["handle"] {
				t.Errorf("%d failures, %d calls seen of %d", truth.Values["failures"], r.rows["handle"].Calls, truth.Counts["handle"])
			}
		})
	}
}

// Threads by name: exec changes it.
func TestComm(t *testing.T) {
	const children = 4
	for name, want := range map[string]map[string]uint64{
		"forker": {"spawn_child": children, "before_exec": children, "exec_work": 0},
		"exe":    {"spawn_child": 0, "before_exec": 0, "exec_work": 2 * children, "exec_leaf": 6 * children},
		"fork":   {"spawn_child": 0, "exec_work": 0},
	} {
		for _, level := range []string{"calls", "count"} {
			t.Run(name+"/"+level, func(t *testing.T) {
				t.Parallel()
				needRoot(t)
				r, _ := traceAttached(t, targets.Build(t, "forker"), []string{"--children", strconv.Itoa(children)},
					[]string{"--comm", name, "--level", level})
				report(t, "calls", differences("calls", want, r.rowCounts()))
			})
		}
	}
}
