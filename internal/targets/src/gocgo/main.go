// Command gocgo calls C and is called back, on goroutines that grow their stacks
// and on threads that C made. --rounds N --goroutines N --threads N
package main

// #include "work.h"
import "C"

import (
	"runtime"
	"sync"

	"github.com/sbxtrace/sbxtrace/internal/targets/src/gotruth"
)

var (
	fWorker = gotruth.Function("main.worker")
	fRound  = gotruth.Function("main.round")
	fGrow   = gotruth.Function("main.grow")
	fBack   = gotruth.Function("main.back")
	fFrom   = gotruth.Function("main.fromThread")

	cWork   = gotruth.Function("c_work")
	cLeaf   = gotruth.Function("c_leaf")
	cThread = gotruth.Function("c_thread")
	cStart  = gotruth.Function("c_start")
)

// grow takes n frames of stack, so that it moves, and yields in the deepest.
//
//go:noinline
func grow(n int) int {
	fGrow.Enter(gotruth.Root)
	var room [256]byte
	room[n%len(room)] = byte(n)
	sum := int(room[n%len(room)])
	if n > 0 {
		sum += grow(n - 1)
	} else {
		runtime.Gosched()
	}
	fGrow.Leave()
	return sum
}

// back is called by C on a thread of Go's, inside the call of round.
//
//go:noinline
func back(n int) int {
	fBack.Enter(gotruth.Root)
	n += grow(n % 40)
	fBack.Leave()
	return n
}

// fromThread is called by C on a thread that C made.
//
//go:noinline
func fromThread(n int) int {
	fFrom.Enter(gotruth.Root)
	n += grow(n % 40)
	fFrom.Leave()
	return n
}

//export goBack
func goBack(n C.int) C.int { return C.int(back(int(n))) }

//export goFromThread
func goFromThread(n C.int) C.int { return C.int(fromThread(int(n))) }

//go:noinline
func round(n int) int {
	fRound.Enter(gotruth.Root)
	sum := int(C.c_work(C.int(n)))
	if n%8 == 0 {
		runtime.GC()
	}
	fRound.Leave()
	return sum
}

//go:noinline
func worker(rounds int) (sum int) {
	fWorker.Enter(gotruth.Root)
	for i := range rounds {
		sum += round(i)
	}
	fWorker.Leave()
	return sum
}

func main() {
	rounds, goroutines, threads := gotruth.Arg("--rounds", 50), gotruth.Arg("--goroutines", 8), gotruth.Arg("--threads", 4)
	gotruth.Begin()
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() { worker(rounds) })
	}
	C.c_start(C.int(threads), C.int(rounds))
	all.Wait()
	cWork.Add(uint64(C.c_calls(C.C_WORK)))
	cLeaf.Add(uint64(C.c_calls(C.C_LEAF)))
	cThread.Add(uint64(C.c_calls(C.C_THREAD)))
	cStart.Add(uint64(C.c_calls(C.C_START)))
	gotruth.End(gotruth.Extra{})
}
