// Command goshares uses CPU time in known shares, below what Go puts on a stack:
// interfaces, generics, closures, sorting, defers, deep recursion that grows
// stacks, goroutines that come and go, under garbage collection. Endless;
// "values" are the units of work done. --goroutines N --depth N
package main

import (
	"sort"
	"sync"
	"sync/atomic"

	"github.com/sbxtrace/sbxtrace/internal/targets/src/gotruth"
)

var (
	units [3]atomic.Int64
	sink  atomic.Int64
	kept  atomic.Pointer[[]int]
)

type task interface{ run() }

type heavy struct{}
type light struct{}

//go:noinline
func (heavy) run() { spin(0, 70) }

//go:noinline
func (light) run() { spin(1, 20) }

//go:noinline
func generic[T any](v T) T {
	spin(2, 10)
	return v
}

// spin is inlined: its time is that of its caller.
func spin(id int, n int64) {
	var s int64
	for i := range n * 20000 {
		s += i * i
	}
	sink.Store(s)
	units[id].Add(n)
}

//go:noinline
func round(tasks []task) {
	for _, t := range tasks {
		t.run()
	}
	func() {
		defer func() { generic(struct{ a, b int }{1, 2}) }()
		values := make([]int, 100)
		for i := range values {
			values[i] = (i * 7919) % 101
		}
		sort.Slice(values, func(i, j int) bool { return values[i] < values[j] })
		kept.Store(&values)
	}()
}

//go:noinline
func descend(levels int, tasks []task) int {
	var room [64]byte
	if levels == 0 {
		round(tasks)
		return int(room[0])
	}
	room[levels%64] = 1
	return descend(levels-1, tasks) + int(room[0])
}

func main() {
	goroutines, depth := gotruth.Arg("--goroutines", 4), gotruth.Arg("--depth", 10)
	gotruth.Begin()
	stop := gotruth.Endless()
	var workers sync.WaitGroup
	for range goroutines {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				var one sync.WaitGroup
				one.Add(1)
				go func() { // its stack has to grow each time
					defer one.Done()
					descend(depth, []task{heavy{}, light{}})
				}()
				one.Wait()
			}
		}()
	}
	workers.Wait()
	gotruth.Print(gotruth.Extra{Values: map[string]int64{
		"seventy": units[0].Load(), "twenty": units[1].Load(), "ten": units[2].Load(),
	}})
	gotruth.Stay(stop)
}
