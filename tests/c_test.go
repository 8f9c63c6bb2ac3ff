package tests

import (
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// nativeBuilds are how C programs come: optimised or not, at a fixed address or
// not, linked in every way.
var nativeBuilds = map[string][]targets.Option{
	"default":       nil,
	"O0":            {targets.OptLevel("0")},
	"no-pie":        {targets.NoPIE()},
	"static-pie":    {targets.Static()},
	"static":        {targets.Static(), targets.NoPIE()},
	"clang":         {targets.Clang()},
	"clang-O0":      {targets.Clang(), targets.OptLevel("0")},
	"split-debug":   {targets.SplitDebug()},
	"gnu-debugdata": {targets.MiniDebug()},
}

// twoBuilds are enough where the code matters and not the file.
var twoBuilds = map[string][]targets.Option{
	"default": nil,
	"O0":      {targets.OptLevel("0")},
}

// inBuilds checks a situation in several builds of its program.
func (s situation) inBuilds(t *testing.T, builds map[string][]targets.Option) {
	for label, options := range builds {
		s.build = options
		s.inBuild(t, label)
	}
}

// inBuild checks a situation in its own build.
func (s situation) inBuild(t *testing.T, label string) { t.Run(label, s.check) }

func TestCalls(t *testing.T) {
	situation{target: "calls", args: []string{"--rounds", "100"}}.inBuilds(t, nativeBuilds)
}

func TestRecursion(t *testing.T) {
	situation{target: "recurse", args: []string{"--depth", "1500", "--pair", "1201", "--fib", "12"}}.inBuilds(t, twoBuilds)
}

func TestThreads(t *testing.T) {
	situation{target: "threads", args: []string{"--threads", "64", "--items", "5"}}.inBuilds(t, twoBuilds)
}

func TestLongjmp(t *testing.T) {
	situation{target: "longjmp", args: []string{"--rounds", "50"}}.inBuilds(t, twoBuilds)
}

func TestTailCalls(t *testing.T) {
	situation{target: "tailcalls", args: []string{"--rounds", "40"}}.inBuilds(t, map[string][]targets.Option{
		"gcc": nil, "clang": {targets.Clang()},
	})
}

func TestSignals(t *testing.T) {
	situation{
		target: "signals", args: []string{"--rounds", "30", "--ticks", "60"},
		asynchronous: []string{"on_tick", "on_alt_tick"},
	}.inBuilds(t, twoBuilds)
}

func TestForks(t *testing.T) {
	situation{target: "forker", args: []string{"--children", "6"}, noDepth: true}.inBuilds(t, twoBuilds)
}

func TestUcontext(t *testing.T) {
	situation{
		target: "ucontext", args: []string{"--coroutines", "8", "--steps", "30"},
		coroutines: true, asynchronous: []string{"co_body"}, // it is nobody's callee
	}.inBuilds(t, twoBuilds)
}

func TestExceptions(t *testing.T) {
	situation{target: "exceptions", args: []string{"--rounds", "5", "--threads", "3"}}.inBuilds(t, nativeBuilds)
}

func TestCxx(t *testing.T) {
	situation{
		target: "cxx", args: []string{"--rounds", "15"},
		// By default the stubs that compilers add, such as thunks, are left out.
		flags:     []string{"--module", "cxx", "--func", "*"},
		uncounted: []string{"non-virtual thunk to Both::second(int)"},
	}.inBuilds(t, nativeBuilds)
}
