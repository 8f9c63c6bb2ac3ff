// Command goroutines runs thousands of goroutines at once that call counted
// functions, block on channels inside them so that they move between threads,
// and grow their stacks there by deep recursion, while the garbage collector
// runs. --goroutines N --rounds N
package main

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/sbxtrace/sbxtrace/internal/targets/src/gotruth"
)

var (
	fWork  = gotruth.Function("main.work")
	fStep  = gotruth.Function("main.step")
	fMeet  = gotruth.Function("main.meet")
	fDeep  = gotruth.Function("main.deep")
	fTouch = gotruth.Function("main.touch")
)

var wrong atomic.Int64

//go:noinline
func touch(from gotruth.ID, frame *[256]byte, n int) byte {
	fTouch.Enter(from)
	frame[n%256] = byte(n)
	value := frame[n%256]
	fTouch.Leave()
	return value
}

// deep uses a quarter of a kilobyte per level: the stack grows, and moves, while
// many activations of it run. It yields at the bottom.
//
//go:noinline
func deep(from gotruth.ID, n int) int {
	fDeep.Enter(from)
	var frame [256]byte
	sum := int(touch(fDeep, &frame, n))
	if n > 0 {
		sum += deep(fDeep, n-1)
	} else {
		runtime.Gosched()
	}
	if frame[n%256] != byte(n) { // the frame was moved with the stack
		wrong.Add(1)
	}
	fDeep.Leave()
	return sum
}

// meet blocks until the partner is there too.
//
//go:noinline
func meet(from gotruth.ID, self int, channel chan int) int {
	fMeet.Enter(from)
	var got int
	if self%2 == 0 {
		channel <- self
		got = <-channel
	} else {
		got = <-channel
		channel <- self
	}
	fMeet.Leave()
	return got
}

//go:noinline
func step(from gotruth.ID, self, depth int, channel chan int) {
	fStep.Enter(from)
	if meet(fStep, self, channel) != self^1 {
		wrong.Add(1)
	}
	if deep(fStep, depth) != depth*(depth+1)/2 {
		wrong.Add(1)
	}
	fStep.Leave()
}

// work makes one step per round; the depth is 10, 20, … 50, by goroutine.
//
//go:noinline
func work(from gotruth.ID, self, rounds int, channel chan int) {
	fWork.Enter(from)
	for range rounds {
		step(fWork, self, 10+10*(self/2%5), channel)
	}
	fWork.Leave()
}

func main() {
	count := gotruth.Arg("--goroutines", 10_000) / 2 * 2 // they meet in pairs
	rounds := gotruth.Arg("--rounds", 2)
	gotruth.Begin()

	done := make(chan struct{})
	var collector sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				runtime.GC()
			}
		}
	})
	var workers sync.WaitGroup
	var channel chan int
	for self := range count {
		if self%2 == 0 {
			channel = make(chan int)
		}
		workers.Add(1)
		go func(channel chan int) {
			defer workers.Done()
			work(gotruth.Root, self, rounds, channel)
		}(channel)
	}
	workers.Wait()
	close(done)
	collector.Wait()
	gotruth.End(gotruth.Extra{Values: map[string]int64{"wrong": wrong.Load(), "goroutines": int64(count)}})
}
