package targets

import (
	"maps"
	"syscall"
	"testing"
)

// goVariants are how every Go target must build and tell the same truth.
var goVariants = map[string][]Option{
	"default": nil,
	"strip":   {Strip()},
	"O0":      {OptLevel("0")},
	"pie":     {PIE()},
}

func TestGocalls(t *testing.T) {
	const r = 15
	n := counts{
		"main.round": r, "main.outer": r, "main.inner": 3 * r, "main.leaf": 6 * r,
		"main.fib":  (2*89 - 1) * r, // 2·F(11)−1 calls for fib(10)
		"main.even": 11 * r, "main.odd": 11 * r,
		"main.(*counter).add": 3 * r, "main.counter.value": r,
		"main.total": r, "main.square.area": 2 * r, "main.(*circle).area": r,
		"main.sum[go.shape.int]": r, "main.sum[go.shape.string]": r, "main.(*stack[go.shape.int]).push": 2 * r,
		"main.closures": r, "main.apply": 2 * r, "main.closures.func1": 4 * r, "main.scaler.func1": 2 * r,
		"main.deferrer": r, "main.deferred": (3 + 2 + 1) * r,
		"main.catch": 2 * r, "main.catch.func1": 2 * r,
		"main.throw1": 2 * r, "main.throw2": 2 * r, "main.throw3": 2 * r,
		"main.goexit": r, "main.goexitInner": r,
		"main.variadic": r, "main.many": r,
	}
	returns := maps.Clone(n)
	for _, name := range []string{"main.throw1", "main.throw2", "main.throw3"} {
		returns[name] = r
	}
	delete(returns, "main.goexit")
	delete(returns, "main.goexitInner")
	checkTruth(t, "gocalls", goVariants, Truth{Counts: n, Returns: returns}, "--rounds", "15")
}

func TestGoroutines(t *testing.T) {
	const goroutines, rounds, steps = 1000, 3, 1000 * 3
	// a fifth of the pairs each goes 10, 20, 30, 40 and 50 deep
	const deep = steps / 5 * (11 + 21 + 31 + 41 + 51)
	n := counts{"main.work": goroutines, "main.step": steps, "main.meet": steps, "main.deep": deep, "main.touch": deep}
	checkTruth(t, "goroutines", goVariants, Truth{
		Counts: n, Returns: n,
		Values: map[string]int64{"wrong": 0, "goroutines": goroutines},
	}, "--goroutines", "1000", "--rounds", "3")
}

// gosoakRound is what follows from the number of jobs alone.
func gosoakRound(t *testing.T, truth Truth) {
	t.Helper()
	jobs := truth.Counts["main.job"]
	if jobs == 0 {
		t.Fatal("no job was done")
	}
	for _, name := range []string{"main.allocate", "main.verify", "main.pass", "main.recovers", "main.panics", "main.total[go.shape.int]"} {
		if truth.Counts[name] != jobs {
			t.Errorf("%s: %d calls in %d jobs", name, truth.Counts[name], jobs)
		}
	}
	if sums := truth.Counts["main.(*tree).sum"]; sums != 25*jobs { // 12 nodes, 13 empty ends
		t.Errorf("main.(*tree).sum: %d calls in %d jobs", sums, jobs)
	}
	if open := truth.Unfinished(); len(open) != 1 || open["main.panics"] != jobs {
		t.Errorf("unfinished calls %v", open)
	}
	if truth.Values["failures"] != 0 {
		t.Errorf("%d failures", truth.Values["failures"])
	}
}

func TestGosoak(t *testing.T) {
	const workers, rounds = 4, 10
	var grow uint64 // a job's own recursion and that of its helper
	for worker := range uint64(workers) {
		for i := range uint64(rounds) {
			grow += 20 + (worker+i)%200 + 1 + 41
		}
	}
	for label, options := range goVariants {
		t.Run(label, func(t *testing.T) {
			truth := Run(t, Build(t, "gosoak", options...), "--workers", "4", "--rounds", "10")
			gosoakRound(t, truth)
			if truth.Counts["main.job"] != workers*rounds || truth.Counts["main.grow"] != grow {
				t.Errorf("counts %v", truth.Counts)
			}
		})
	}
}

func TestGosoakEndless(t *testing.T) {
	p := Start(t, Build(t, "gosoak"))
	p.Ready()
	p.Go()
	if rate := p.Rate(); rate <= 0 {
		t.Errorf("rate %v", rate)
	}
	p.Signal(syscall.SIGTERM)
	gosoakRound(t, p.Truth())
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

func TestGoinline(t *testing.T) {
	const r = 15
	kept := counts{"main.kept": r, "main.rest": r}
	inlined := counts{"main.twice": 2 * r, "main.square": r, "main.clamp": 2 * r, "main.(*list).length": r}
	for label, options := range goVariants {
		t.Run(label, func(t *testing.T) {
			truth := Run(t, Build(t, "goinline", options...), "--rounds", "15")
			want := kept
			if label == "O0" {
				want = maps.Clone(kept)
				maps.Copy(want, inlined)
			} else if !maps.Equal(truth.Inlined, inlined) {
				t.Errorf("inlined %v, want %v", truth.Inlined, inlined)
			}
			if !maps.Equal(truth.Counts, want) {
				t.Errorf("counts %v, want %v", truth.Counts, want)
			}
		})
	}
}

func TestGohttp(t *testing.T) {
	const clients, requests, all = 4, 30, 4 * 30
	n := counts{
		"main.client": clients, "main.request": all, "main.(*server).log": all, "main.parse": all,
		"main.(*server).user": 2 * all / 3, "main.(*users).get": 2 * all / 3,
		"main.(*server).store": all / 3, "main.(*users).put": all / 3,
		"main.reply": 2 * all / 3, "main.notFound": all / 3,
	}
	checkTruth(t, "gohttp", goVariants, Truth{
		Counts: n, Returns: n, Values: map[string]int64{"failures": 0},
	}, "--clients", "4", "--requests", "30")
}

func TestGoCgo(t *testing.T) {
	const rounds, goroutines, threads = 30, 4, 3
	grown := uint64(0) // frames of one caller's rounds: 1 + (leaf's n + 1) % 40 each
	for n := range rounds {
		grown += 1 + uint64(n+1)%40
	}
	n := counts{
		"main.worker": goroutines, "main.round": goroutines * rounds, "main.back": goroutines * rounds,
		"main.fromThread": threads * rounds, "main.grow": (goroutines + threads) * grown,
		"c_work": goroutines * rounds, "c_leaf": (2*goroutines + threads) * rounds, "c_thread": threads, "c_start": 1,
	}
	checkTruth(t, "gocgo", map[string][]Option{"default": nil}, Truth{Counts: n, Returns: n}, "--rounds", "30", "--goroutines", "4", "--threads", "3")
}
