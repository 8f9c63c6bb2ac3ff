// Command goinline calls functions that the compiler inlines: they cannot be
// probed, and their calls are listed under "inlined" instead of "counts". Built
// without inlining they are functions like others. --rounds N
package main

import (
	"runtime"

	"github.com/sbxtrace/sbxtrace/internal/targets/src/gotruth"
)

var (
	fKept = gotruth.Function("main.kept")
	fRest = gotruth.Function("main.rest")

	fTwice  = gotruth.Function("main.twice")
	fSquare = gotruth.Function("main.square")
	fClamp  = gotruth.Function("main.clamp")
	fLength = gotruth.Function("main.(*list).length")

	// the compiler's decision is the same for all of these
	inlinable = []gotruth.ID{fTwice, fSquare, fClamp, fLength}
	inlined   bool
)

var tally [8]uint64

// twice is inlined into square, and with it into kept.
func twice(n int) int {
	tally[0]++
	return 2 * n
}

func square(n int) int {
	tally[1]++
	return twice(n) * n
}

func clamp(n, limit int) int {
	tally[2]++
	if n > limit {
		return limit
	}
	return n
}

type list struct{ items []int }

func (l *list) length() int {
	tally[3]++
	return len(l.items)
}

//go:noinline
func rest(from gotruth.ID, n int) int {
	fRest.Enter(from)
	value := clamp(n, 50)
	fRest.Leave()
	return value
}

//go:noinline
func kept(from gotruth.ID, l *list, n int) int {
	fKept.Enter(from)
	value := square(n) + twice(n) + clamp(n, 10) + l.length() + rest(fKept, n)
	fKept.Leave()
	return value
}

// where has the shape of the functions above, so that it tells what the compiler
// does with them: a frame without a function of its own is inlined.
func where(pcs []uintptr) int { return runtime.Callers(1, pcs) }

func wasInlined() bool {
	pcs := make([]uintptr, 4)
	frame, _ := runtime.CallersFrames(pcs[:where(pcs)]).Next()
	return frame.Func == nil
}

func main() {
	rounds := gotruth.Arg("--rounds", 100)
	inlined = wasInlined()
	gotruth.Begin()
	l := &list{items: []int{1, 2, 3}}
	result := 0
	for i := range rounds {
		result += kept(gotruth.Root, l, i)
	}
	extra := gotruth.Extra{Values: map[string]int64{"result": int64(result)}}
	if inlined {
		extra.Inlined = map[string]uint64{}
		for i, function := range inlinable {
			extra.Inlined[function.Name()] = tally[i]
		}
	} else {
		for i, function := range inlinable {
			function.Add(tally[i])
		}
	}
	gotruth.End(extra)
}
