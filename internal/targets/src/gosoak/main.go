// Command gosoak is an endless load: goroutines that come and go, grow their
// stacks in counted functions, block, panic and recover, under constant garbage
// collection. It checks its own results and ends with status 1 if one is wrong.
// --workers N --rounds N (per worker, 0: until told to stop). Prints
// "RATE <calls per second>" once a second.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/targets/src/gotruth"
)

var (
	fJob     = gotruth.Function("main.job")
	fGrow    = gotruth.Function("main.grow")
	fAlloc   = gotruth.Function("main.allocate")
	fVerify  = gotruth.Function("main.verify")
	fPass    = gotruth.Function("main.pass")
	fRecover = gotruth.Function("main.recovers")
	fPanics  = gotruth.Function("main.panics")
	fGeneric = gotruth.Function("main.total[go.shape.int]")
	fMethod  = gotruth.Function("main.(*tree).insert")
	fWalk    = gotruth.Function("main.(*tree).sum")

	functions = []gotruth.ID{fJob, fGrow, fAlloc, fVerify, fPass, fRecover, fPanics, fGeneric, fMethod, fWalk}
)

var failures atomic.Int64

func check(ok bool, format string, args ...any) {
	if !ok {
		failures.Add(1)
		fmt.Fprintf(os.Stderr, "gosoak: "+format+"\n", args...)
	}
}

type tree struct {
	left, right *tree
	value       int
}

//go:noinline
func (t *tree) insert(from gotruth.ID, value int) *tree {
	fMethod.Enter(from)
	switch {
	case t == nil:
		t = &tree{value: value}
	case value < t.value:
		t.left = t.left.insert(fMethod, value)
	default:
		t.right = t.right.insert(fMethod, value)
	}
	fMethod.Leave()
	return t
}

//go:noinline
func (t *tree) sum(from gotruth.ID) int {
	fWalk.Enter(from)
	sum := 0
	if t != nil {
		sum = t.value + t.left.sum(fWalk) + t.right.sum(fWalk)
	}
	fWalk.Leave()
	return sum
}

// grow makes the stack grow while its frames hold pointers into themselves.
//
//go:noinline
func grow(from gotruth.ID, n int) int {
	fGrow.Enter(from)
	var frame [64]int
	pointer := &frame[n%64]
	*pointer = n
	sum := n
	if n > 0 {
		sum += grow(fGrow, n-1)
	} else {
		runtime.Gosched()
	}
	check(*pointer == n && frame[n%64] == n, "frame %d holds %d", n, *pointer)
	fGrow.Leave()
	return sum
}

//go:noinline
func allocate(from gotruth.ID, n int) []string {
	fAlloc.Enter(from)
	list := make([]string, n)
	for i := range list {
		list[i] = strings.Repeat("x", i)
	}
	fAlloc.Leave()
	return list
}

//go:noinline
func verify(from gotruth.ID, list []string) {
	fVerify.Enter(from)
	for i, text := range list {
		check(len(text) == i, "text %d has %d bytes", i, len(text))
	}
	fVerify.Leave()
}

// pass sends a number through a goroutine of its own.
//
//go:noinline
func pass(from gotruth.ID, n int) int {
	fPass.Enter(from)
	channel := make(chan int)
	go func() { channel <- grow(gotruth.Root, 40) + n }()
	got := <-channel
	fPass.Leave()
	return got
}

//go:noinline
func panics(from gotruth.ID, n int) {
	fPanics.Enter(from)
	if n >= 0 {
		panic(n)
	}
	fPanics.Leave()
}

//go:noinline
func recovers(from gotruth.ID, n int) (got int) {
	fRecover.Enter(from)
	defer fRecover.Leave()
	defer func() { got, _ = recover().(int) }()
	panics(fRecover, n)
	return -1
}

//go:noinline
func total[T int | float64](from gotruth.ID, items ...T) T {
	fGeneric.Enter(from)
	var sum T
	for _, item := range items {
		sum += item
	}
	fGeneric.Leave()
	return sum
}

//go:noinline
func job(from gotruth.ID, n int) {
	fJob.Enter(from)
	depth := 20 + n%200
	check(grow(fJob, depth) == depth*(depth+1)/2, "grow(%d)", depth)
	verify(fJob, allocate(fJob, 20+n%50))
	check(pass(fJob, n) == n+40*41/2, "pass(%d)", n)
	check(recovers(fJob, n) == n, "recovers(%d)", n)
	check(total(fJob, n, 1, 2) == n+3, "total(%d)", n)
	var root *tree
	want := 0
	for i := range 12 {
		value := (n*7 + i*5) % 13
		root = root.insert(fJob, value)
		want += value
	}
	check(root.sum(fJob) == want, "tree of %d", n)
	fJob.Leave()
}

func main() {
	workers := gotruth.Arg("--workers", 8)
	rounds := gotruth.Arg("--rounds", 0)
	debug.SetGCPercent(20)
	gotruth.Begin()
	stop := gotruth.Endless()

	var working sync.WaitGroup
	for worker := range workers {
		working.Go(func() {
			for i := 0; rounds == 0 || i < rounds; i++ {
				select {
				case <-stop:
					return
				default:
				}
				ended := make(chan struct{})
				go func() { // each job on a new, small stack
					defer close(ended)
					job(gotruth.Root, worker+i)
				}()
				<-ended
			}
		})
	}
	finished := make(chan struct{})
	go func() {
		working.Wait()
		close(finished)
	}()
	report(finished)
	gotruth.Print(gotruth.Extra{Values: map[string]int64{"failures": failures.Load()}})
	gotruth.Stay(stop)
	if failures.Load() != 0 {
		os.Exit(1)
	}
}

// report prints the rate until all is finished, and keeps collecting garbage.
func report(finished <-chan struct{}) {
	collect := time.NewTicker(20 * time.Millisecond)
	defer collect.Stop()
	last, before := time.Now(), uint64(0)
	for {
		select {
		case <-finished:
			return
		case <-collect.C:
			runtime.GC()
		}
		elapsed := time.Since(last)
		if elapsed < time.Second {
			continue
		}
		var calls uint64
		for _, function := range functions {
			calls += function.Calls()
		}
		fmt.Printf("RATE %.0f\n", float64(calls-before)/elapsed.Seconds())
		last, before = time.Now(), calls
	}
}
