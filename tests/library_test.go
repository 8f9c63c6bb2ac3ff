package tests

import (
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

var appFunctions = []string{"app_run", "app_step", "app_compare"}

// A library alone, its hidden functions too.
func TestModule(t *testing.T) {
	situation{
		target: "libcaller", args: []string{"--rounds", "25"},
		flags: []string{"--module", "libcallee.so"}, unseen: appFunctions, noTree: true, noDepth: true,
	}.inBuilds(t, twoBuilds)
}

// A library and the program that calls it and is called back.
func TestModules(t *testing.T) {
	situation{
		target: "libcaller", args: []string{"--rounds", "25"},
		flags: []string{"--module", "libcallee.so", "--module", "libcaller", "--func", "*"},
	}.inBuilds(t, twoBuilds)
}

func TestModuleNames(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r, _ := traceAttached(t, targets.Build(t, "libcaller"), []string{"--rounds", "2"},
		[]string{"--module", "lib*", "--func", "lib_*", "--func", "app_*"})
	for _, c := range r.calls {
		want := "libcaller"
		if strings.HasPrefix(c.Func, "lib_") {
			want = "libcallee.so"
		}
		if c.Module != want {
			t.Errorf("%s is said to be in %s, it is in %s", c.Func, c.Module, want)
		}
	}
}

// An indirect function is not a function; several names of one address are one.
func TestIfunc(t *testing.T) {
	situation{target: "ifunc", args: []string{"--rounds", "25"}}.inBuilds(t, map[string][]targets.Option{
		"default": nil, "O0": {targets.OptLevel("0")}, "static": {targets.Static(), targets.NoPIE()},
	})
}

// Libraries that are loaded, unloaded and loaded again while sbxtrace watches.
func TestDlopen(t *testing.T) {
	for label, options := range twoBuilds {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			p := start(t, targets.Build(t, "dlopen", options...), "--rounds", "3", "--step")
			s := attach(t, p.PID(), "plug_*", "other_*", "host_*")
			p.Go()
			loaded := map[string]bool{}
			for _, file := range []string{"libplug.so", "libother.so", "libplug.so", "libplug.so", "libother.so"} {
				if got := p.Line("LOADED "); got != file {
					t.Fatalf("the target loaded %s, want %s", got, file)
				}
				if loaded[file] = true; len(loaded) > 0 {
					s.waitFor("probes in "+file, func() bool {
						return strings.Count(s.stderr.String(), "loaded since") >= len(loaded)
					})
				}
				p.Go()
			}
			truth := p.Truth()
			if err := p.Quit(); err != nil {
				t.Error(err)
			}
			situation{}.compare(t, s.wait(), truth)
		})
	}
}

// Functions that begin with instructions that the kernel would execute wrongly
// under a probe compute what they should, wherever the probe has to be.
func TestVectors(t *testing.T) {
	for label, flags := range map[string][]string{
		"calls": nil, "args": {"--level", "args"}, "ret": {"--returns", "ret"}, "count": {"--level", "count"},
	} {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			r, truth := traceAttached(t, targets.Build(t, "vectors"), []string{"--rounds", "50"}, flags)
			if truth.Values["failures"] != 0 {
				t.Errorf("%d results of the target are wrong", truth.Values["failures"])
			}
			report(t, "summary", differences("calls", truth.Counts, r.rowCounts()))
		})
	}
}

// Functions with odd beginnings, each probed where it is possible.
func TestPrologues(t *testing.T) {
	situation{
		target: "prologues", args: []string{"--rounds", "40"},
		rounds: map[string]uint64{"loop_to_start": 40 * 41 / 2},
	}.inBuilds(t, nativeBuilds)
}

// Functions that cannot be probed are named and left out; the others are traced.
func TestSkipped(t *testing.T) {
	t.Parallel()
	p := start(t, targets.Build(t, "ifunc"), "--rounds", "10")
	s := attach(t, p.PID(), "dispatch*", "aliased", "use")
	s.waitNote("1 function cannot be probed: dispatch (")
	traced(t, p, s)
}
