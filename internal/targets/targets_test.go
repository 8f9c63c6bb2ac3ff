package targets

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"
)

// nativeVariants are how every C target must build and tell the same truth.
var nativeVariants = map[string][]Option{
	"default":   nil,
	"O0":        {OptLevel("0")},
	"no-pie":    {NoPIE()},
	"static":    {Static()},
	"static-O0": {Static(), OptLevel("0"), NoPIE()},
	"strip":     {Strip()},
	"clang":     {Clang()},
	"clang-O0":  {Clang(), OptLevel("0")},
	"musl":      {Musl(), Static()},
}

// checkTruth runs the target in each variant under the protocol and compares
// its truth with the expectation.
func checkTruth(t *testing.T, name string, variants map[string][]Option, want Truth, args ...string) {
	t.Helper()
	for label, options := range variants {
		t.Run(label, func(t *testing.T) {
			p := Start(t, Build(t, name, options...), args...)
			if pid := p.Ready(); pid != p.PID() {
				t.Errorf("READY %d, pid is %d", pid, p.PID())
			}
			p.Go()
			got := p.Truth()
			if !p.Alive() {
				t.Error("target ended before it was told to")
			}
			if err := p.Quit(); err != nil {
				t.Errorf("quit: %v", err)
			}
			equalTruth(t, got, want)
		})
	}
}

// equalTruth compares the fields that the expectation sets.
func equalTruth(t *testing.T, got, want Truth) {
	t.Helper()
	if !reflect.DeepEqual(got.Counts, want.Counts) {
		t.Errorf("counts:\n got %v\nwant %v", got.Counts, want.Counts)
	}
	if want.Returns != nil && !reflect.DeepEqual(got.Returns, want.Returns) {
		t.Errorf("returns:\n got %v\nwant %v", got.Returns, want.Returns)
	}
	if want.MaxDepth != nil && !reflect.DeepEqual(got.MaxDepth, want.MaxDepth) {
		t.Errorf("maxdepth:\n got %v\nwant %v", got.MaxDepth, want.MaxDepth)
	}
	if want.Tree != nil && !reflect.DeepEqual(got.Edges(), want.Edges()) {
		t.Errorf("tree:\n got %v\nwant %v", got.Edges(), want.Edges())
	}
	if want.Values != nil && !reflect.DeepEqual(got.Values, want.Values) {
		t.Errorf("values:\n got %v\nwant %v", got.Values, want.Values)
	}
}

// counts is short for a map of calls per function.
type counts = map[string]uint64

func TestCalls(t *testing.T) {
	const rounds = 70
	n := counts{
		"outer":   rounds,
		"middle":  3 * rounds,
		"leaf":    (1 + 2 + 3 + 1) * rounds, // loops of middle(0..2), one branchy(1)
		"branchy": 3 * rounds,
		"tiny":    rounds,
	}
	checkTruth(t, "calls", nativeVariants, Truth{
		Counts: n, Returns: n,
		MaxDepth: counts{"outer": 1, "middle": 2, "tiny": 2, "branchy": 3, "leaf": 4},
		Tree: []Edge{
			{"", "outer", rounds}, {"outer", "middle", 3 * rounds}, {"outer", "tiny", rounds},
			{"middle", "leaf", 6 * rounds}, {"middle", "branchy", 3 * rounds}, {"branchy", "leaf", rounds},
		},
	}, "--rounds", "70")
}

func TestRecurse(t *testing.T) {
	// calls of fib(n) are 2·F(n+1)−1, with F(16) = 987
	n := counts{"descend": 1500, "is_even": 500, "is_odd": 500, "fib": 2*987 - 1}
	checkTruth(t, "recurse", nativeVariants, Truth{
		Counts: n, Returns: n,
		MaxDepth: counts{"descend": 1500, "is_even": 999, "is_odd": 1000, "fib": 15},
		Tree: []Edge{
			{"", "descend", 1}, {"descend", "descend", 1499},
			{"", "is_even", 1}, {"is_even", "is_odd", 500}, {"is_odd", "is_even", 499},
			{"", "fib", 1}, {"fib", "fib", 2*987 - 2},
		},
		Values: map[string]int64{"descend": 1500, "is_even": 0, "fib": 610},
	})
}

func TestThreads(t *testing.T) {
	const threads, items = 64, 5
	n := counts{"work": threads, "work_item": items * threads * (threads + 1) / 2}
	n["work_leaf"] = 2 * n["work_item"]
	checkTruth(t, "threads", nativeVariants, Truth{
		Counts: n, Returns: n,
		MaxDepth: counts{"work": 1, "work_item": 2, "work_leaf": 3},
	}, "--threads", "64", "--items", "5")

	var sum uint64
	truth := Run(t, Build(t, "threads"))
	for _, calls := range truth.Threads {
		sum += calls
	}
	if all := truth.Counts["work"] + truth.Counts["work_item"] + truth.Counts["work_leaf"]; sum != all || len(truth.Threads) != threads {
		t.Errorf("%d threads made %d calls, the functions count %d", len(truth.Threads), sum, all)
	}
}

func TestLongjmp(t *testing.T) {
	const rounds = 30
	checkTruth(t, "longjmp", nativeVariants, Truth{
		Counts: counts{
			"jump_base": rounds, "jump_loop": rounds,
			"hop1": 6 * rounds, "hop2": 6 * rounds, "hop3": 6 * rounds,
			"settle": 2 * rounds, "settle_leaf": 4 * rounds,
		},
		Returns: counts{
			"jump_base": rounds, "jump_loop": rounds,
			"hop1": rounds, "hop2": rounds, "hop3": rounds,
			"settle": 2 * rounds, "settle_leaf": 4 * rounds,
		},
		MaxDepth: counts{
			"jump_base": 1, "jump_loop": 1, "hop1": 2, "hop2": 3, "hop3": 4, "settle": 2, "settle_leaf": 3,
		},
	}, "--rounds", "30")
}

func TestHot(t *testing.T) {
	const calls = 200_000
	checkTruth(t, "hot", nativeVariants, Truth{
		Counts: counts{"hot_step": calls, "rare_step": calls / 1000},
	}, "--calls", "200000")
}

func TestHotEndless(t *testing.T) {
	p := Start(t, Build(t, "hot"))
	p.Ready()
	p.Go()
	if rate := p.Rate(); rate <= 0 {
		t.Errorf("rate %v", rate)
	}
	if truth := p.Stop(); truth.Counts["hot_step"] != 1000*truth.Counts["rare_step"] {
		t.Errorf("counts %v", truth.Counts)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

// TestListed checks that the list of programs names all of them.
func TestListed(t *testing.T) {
	root, err := sourceRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		if !regexp.MustCompile(`(?m)^\| ([a-z]+, )?` + name + `(, [a-z]+)? \|`).Match(text) {
			t.Errorf("src/README.md does not list %s", name)
		}
	}
}
