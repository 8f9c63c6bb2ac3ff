package tests

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// levelTargets are programs whose every call each level has to count.
var levelTargets = []situation{
	{target: "calls", args: []string{"--rounds", "50"}},
	{target: "recurse", args: []string{"--depth", "1100", "--pair", "1001", "--fib", "8"}},
	{target: "exceptions", args: []string{"--rounds", "3", "--threads", "3"}},
	{target: "tailcalls", args: []string{"--rounds", "20"}},
	{target: "forker", args: []string{"--children", "3"}},
	{target: "gocalls", args: []string{"--rounds", "10"}},
	{target: "goroutines", args: []string{"--goroutines", "300", "--rounds", "1"}},
	{target: "rustpanics", args: []string{"--rounds", "3", "--threads", "3"}},
}

// aggregated compares the summary of a level that sends no calls.
func aggregated(t *testing.T, r *result, truth targets.Truth) {
	t.Helper()
	if len(r.calls) != 0 {
		t.Errorf("%d lines of calls", len(r.calls))
	}
	if r.totals.Lost != 0 {
		t.Errorf("%d events lost: %v", r.totals.Lost, r.of("lost"))
	}
	report(t, "summary", differences("calls", truth.Counts, r.rowCounts()))
}

func TestLevelCount(t *testing.T) {
	for _, s := range levelTargets {
		t.Run(s.target, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			r, truth := traceAttached(t, targets.Build(t, s.target), s.args, []string{"--level", "count"})
			aggregated(t, r, truth)
			for name, row := range r.rows {
				if row.Timed != 0 || row.Total != 0 {
					t.Errorf("%s has durations at level count: %+v", name, row)
				}
			}
		})
	}
}

func TestLevelLatency(t *testing.T) {
	for _, s := range levelTargets {
		t.Run(s.target, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			if s.target == "recurse" { // the kernel keeps 128 frames
				s.args = []string{"--depth", "60", "--pair", "55", "--fib", "8"}
			}
			r, truth := traceAttached(t, targets.Build(t, s.target), s.args, []string{"--level", "latency"})
			aggregated(t, r, truth)
			for name, row := range r.rows {
				if row.Timed > row.Calls || row.Min > row.Max || row.P50 > row.P99 || row.Total > row.Timed*row.Max || row.Self > row.Timed*row.Max {
					t.Errorf("%s: %+v", name, row)
				}
			}
			if truth.Returns == nil {
				return
			}
			for name, returned := range truth.Returns {
				if row := r.rows[name]; row.Timed != returned {
					t.Errorf("%s: %d calls measured, %d returned", name, row.Timed, returned)
				}
			}
		})
	}
}

// Calls are measured as long as they slept, and callers include their callees.
func TestLatencyOrder(t *testing.T) {
	for _, level := range []string{"latency", "calls"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			r, truth := traceAttached(t, targets.Build(t, "slow"), []string{"--rounds", "5", "--unit", "400"}, []string{"--level", level})
			report(t, "summary", differences("calls", truth.Counts, r.rowCounts()))
			for name, slept := range truth.SleptNS {
				if row := r.rows[name]; row.Total < slept {
					t.Errorf("%s took %d ns, it slept %d ns", name, row.Total, slept)
				}
			}
			outer, middle, leaf := r.rows["slow_outer"], r.rows["slow_middle"], r.rows["slow_leaf"]
			if outer.Total < middle.Total || middle.Total < leaf.Total+r.rows["quick"].Total {
				t.Errorf("totals of callers are below those of callees: %v", r.rows)
			}
			if outer.Self > outer.Total-middle.Total || leaf.Self != leaf.Total {
				t.Errorf("own times do not leave out callees: %v", r.rows)
			}
			if truth.SleptNS["slow_leaf"]/leaf.Calls > leaf.Min || leaf.Min > leaf.P50 || leaf.P50 > leaf.Max {
				t.Errorf("slow_leaf: %+v", leaf)
			}
		})
	}
}

// What is nested too deep for the kernel's stacks, or for its return probes, is
// counted and said to be without a duration.
func TestLatencyDeep(t *testing.T) {
	for name, s := range map[string]struct {
		depth, timed, lost uint64
		returns            string
	}{
		"return probes":            {depth: 100, timed: 64, returns: "auto"},
		"RET sites":                {depth: 100, timed: 100, returns: "ret"},
		"return probes and stacks": {depth: 1100, timed: 64, lost: 1100 - 128, returns: "auto"},
		"RET sites and stacks":     {depth: 1100, timed: 128, lost: 1100 - 128, returns: "ret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			r, _ := traceAttached(t, targets.Build(t, "recurse"), []string{"--depth", fmt.Sprint(s.depth), "--pair", "3", "--fib", "3"},
				[]string{"--level", "latency", "--returns", s.returns, "descend"})
			if row := r.rows["descend"]; row.Calls != s.depth || row.Timed != s.timed {
				t.Errorf("%d calls, %d of them timed, want %d and %d", row.Calls, row.Timed, s.depth, s.timed)
			}
			var lost uint64
			for _, e := range r.of("lost") {
				if e.Cause != "stack-too-deep" {
					t.Errorf("lost: %+v", e)
				}
				lost += e.Count
			}
			if lost != s.lost || r.totals.Lost != s.lost {
				t.Errorf("%d lost, the totals say %d, want %d", lost, r.totals.Lost, s.lost)
			}
		})
	}
}

// Every return is seen where RET instructions are watched, however deep.
func TestRecursionByRets(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r, truth := traceAttached(t, targets.Build(t, "recurse"), []string{"--depth", "1500", "--pair", "1201", "--fib", "12"}, []string{"--returns", "ret"})
	situation{}.compare(t, r, truth)
	for _, c := range r.calls {
		if c.End != "" {
			t.Fatalf("%s at depth %d ended by %q", c.Func, c.Depth, c.End)
		}
	}
}

// sums adds up the first arguments and the results of each function.
func sums(t *testing.T, r *result) (args, rets map[string]int64) {
	t.Helper()
	args, rets = map[string]int64{}, map[string]int64{}
	for _, c := range r.calls {
		if len(c.Args) != 6 {
			t.Fatalf("%s has %d argument registers", c.Func, len(c.Args))
		}
		args[c.Func] += number(t, c.Args[0])
		if c.Ret != "" {
			rets[c.Func] += number(t, c.Ret)
		}
	}
	return args, rets
}

// number reads a raw value.
func number(t *testing.T, text string) int64 {
	t.Helper()
	digits, ok := strings.CutPrefix(text, "0x")
	n, err := strconv.ParseUint(digits, 16, 64)
	if !ok || err != nil {
		t.Fatalf("raw value %q: %v", text, err)
	}
	return int64(n)
}

func TestLevelArgs(t *testing.T) {
	for label, options := range nativeBuilds {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			const rounds = 40
			r, truth := traceAttached(t, targets.Build(t, "prologues", options...),
				[]string{"--rounds", strconv.Itoa(rounds)}, []string{"--level", "args"})
			s := situation{rounds: map[string]uint64{"loop_to_start": rounds * (rounds + 1) / 2}}
			s.compare(t, r, truth)
			args, rets := sums(t, r)
			for name, calls := range truth.Counts {
				want, known := truth.Values["arg0 "+name]
				// c_struct has a hidden first argument, ret_only and endbr_ret no
				// result, loop_to_start changes the argument in each round, fall_into
				// goes on in another function, which returns.
				if known && name != "c_struct" && name != "loop_to_start" && args[name] != want {
					t.Errorf("%s: the first arguments add up to %d, want %d", name, args[name], want)
				}
				if !known || slices.Contains([]string{"c_struct", "ret_only", "endbr_ret", "loop_to_start", "fall_into"}, name) {
					continue
				}
				returned := uint64(0)
				for _, c := range r.calls {
					if c.Func == name && c.Ret != "" {
						returned++
					}
				}
				if returned != calls {
					t.Errorf("%s: %d of %d calls have a result", name, returned, calls)
				} else if want := truth.Values["ret "+name]; rets[name] != want {
					t.Errorf("%s: the results add up to %d, want %d", name, rets[name], want)
				}
			}
		})
	}
}

// Go passes arguments in registers of its own.
func TestLevelArgsGo(t *testing.T) {
	for label, options := range goBuilds {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			r, truth := traceAttached(t, targets.Build(t, "gocalls", options...), []string{"--rounds", "10"}, []string{"--level", "args"})
			situation{}.compare(t, r, truth)
			fib := func(n int64) int64 {
				a, b := int64(0), int64(1)
				for range n {
					a, b = b, a+b
				}
				return a
			}
			seen := 0
			for _, c := range r.calls {
				switch c.Func {
				case "main.leaf": // leaf(from, n) is n + 1
					if n, ret := number(t, c.Args[1]), number(t, c.Ret); ret != n+1 {
						t.Errorf("leaf(%d) returned %d", n, ret)
					}
					seen++
				case "main.fib":
					if n, ret := number(t, c.Args[1]), number(t, c.Ret); ret != fib(n) {
						t.Errorf("fib(%d) returned %d", n, ret)
					}
					seen++
				case "main.throw1": // throw1(from, c, n) panics if n is odd
					if n := number(t, c.Args[2]); (n%2 == 1) != (c.Ret == "") {
						t.Errorf("throw1(%d) has result %q and end %q", n, c.Ret, c.End)
					}
					seen++
				}
			}
			if want := truth.Counts["main.leaf"] + truth.Counts["main.fib"] + truth.Counts["main.throw1"]; uint64(seen) != want {
				t.Errorf("%d calls compared, want %d", seen, want)
			}
		})
	}
}

// The stack at entry begins in the function itself, and its callers follow.
func TestLevelStacks(t *testing.T) {
	for _, s := range []situation{
		// Frame pointers, since it is by them that the kernel walks.
		{target: "calls", args: []string{"--rounds", "5"}, build: []targets.Option{targets.OptLevel("0")}},
		{target: "gocalls", args: []string{"--rounds", "3"}},
	} {
		t.Run(s.target, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			r, truth := traceAttached(t, targets.Build(t, s.target, s.build...), s.args, []string{"--level", "stacks"})
			situation{}.compare(t, r, truth)
			r.nest()
			for _, c := range r.calls {
				wantStack(t, c)
			}
		})
	}
}

// wantStack checks that a call's stack begins in its function and has its callers.
func wantStack(t *testing.T, c *call) {
	t.Helper()
	if len(c.Stack) < 2 {
		t.Fatalf("%s has the stack %q", c.Func, c.Stack)
	}
	if !strings.HasPrefix(c.Stack[0], c.Func+"+") && c.Stack[0] != c.Func {
		t.Errorf("%s: the stack begins with %q", c.Func, c.Stack[0])
	}
	if strings.Contains(c.Func, ".deferwrap") {
		return // runs where a panic was recovered, deeper than the frames that it left
	}
	for caller, i := c.caller, 1; caller != nil; caller, i = caller.caller, i+1 {
		// Inlined and untraced functions may lie between.
		for i < len(c.Stack) && !strings.HasPrefix(c.Stack[i], caller.Func) {
			i++
		}
		if i == len(c.Stack) {
			t.Errorf("%s: its caller %s is not on its stack %q", c.Func, caller.Func, c.Stack)
			return
		}
	}
}

// Long calls come with the stacks of their entries, and so do their callers.
func TestLevelStacksFiltered(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const unit, least = 500_000, 2_000_000
	r, truth := traceAttached(t, targets.Build(t, "slow", targets.OptLevel("0")), []string{"--rounds", "4", "--unit", strconv.Itoa(unit / 1000)},
		[]string{"--level", "stacks", "--min-duration", strconv.Itoa(least) + "ns"})
	closed(t, r)
	for _, c := range r.calls {
		if c.Dur < least {
			t.Errorf("%s took %d ns, which is less than asked for", c.Func, c.Dur)
		}
		wantStack(t, c)
	}
	got := r.counts()
	for _, name := range []string{"slow_outer", "slow_middle", "slow_leaf"} {
		if got[name] != truth.Counts[name] {
			t.Errorf("%s: %d calls, want %d: each slept longer", name, got[name], truth.Counts[name])
		}
	}
	if r.totals.Stacks != r.totals.Calls {
		t.Errorf("%d stacks of %d calls", r.totals.Stacks, r.totals.Calls)
	}
}

// Stacks that are deeper than what is kept of them, and those that end where a
// function keeps no frame pointer, are said to be cut; whole ones are not.
func TestStacksCut(t *testing.T) {
	for label, options := range map[string][]targets.Option{"O0": {targets.OptLevel("0")}, "no-frame-pointer": nil} {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			const kept = 127 // addresses
			r, _ := traceAttached(t, targets.Build(t, "recurse", options...), []string{"--depth", "300", "--pair", "100", "--fib", "5"},
				[]string{"--level", "stacks"})
			var cut uint64
			for _, c := range r.calls {
				if c.StackCut {
					cut++
				}
				if label == "O0" && c.StackCut && len(c.Stack) != kept {
					t.Fatalf("%s with %d addresses: cut is %v", c.Func, len(c.Stack), c.StackCut)
				}
			}
			if cut == 0 || cut != r.totals.StacksCut || r.totals.Stacks != r.totals.Calls {
				t.Errorf("%d stacks cut, the totals say %d of %d, in %d calls", cut, r.totals.StacksCut, r.totals.Stacks, r.totals.Calls)
			}
		})
	}
}

// Entries come as lines of their own when asked for.
func TestEntries(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r, truth := traceAttached(t, targets.Build(t, "calls"), []string{"--rounds", "20"}, []string{"--entries"})
	situation{}.compare(t, r, truth)
	if r.entries != r.totals.Calls {
		t.Errorf("%d lines of entries, %d calls", r.entries, r.totals.Calls)
	}
}
