// Command gocalls makes every kind of Go call: nested functions, methods, method
// values, interfaces, generics, closures, deferred calls, panics through frames,
// runtime.Goexit. --rounds N
package main

import (
	"runtime"
	"sync"

	"github.com/sbxtrace/sbxtrace/internal/targets/src/gotruth"
)

// Generic functions have the names of their instances; those of one underlying
// type share one.
var (
	fRound      = gotruth.Function("main.round")
	fOuter      = gotruth.Function("main.outer")
	fInner      = gotruth.Function("main.inner")
	fLeaf       = gotruth.Function("main.leaf")
	fFib        = gotruth.Function("main.fib")
	fEven       = gotruth.Function("main.even")
	fOdd        = gotruth.Function("main.odd")
	fAdd        = gotruth.Function("main.(*counter).add")
	fValue      = gotruth.Function("main.counter.value")
	fSquareArea = gotruth.Function("main.square.area")
	fCircleArea = gotruth.Function("main.(*circle).area")
	fTotal      = gotruth.Function("main.total")
	fSumInt     = gotruth.Function("main.sum[go.shape.int]")
	fSumString  = gotruth.Function("main.sum[go.shape.string]")
	fPush       = gotruth.Function("main.(*stack[go.shape.int]).push")
	fApply      = gotruth.Function("main.apply")
	fClosure    = gotruth.Function("main.closures.func1")
	fNested     = gotruth.Function("main.scaler.func1")
	fClosures   = gotruth.Function("main.closures")
	fDeferrer   = gotruth.Function("main.deferrer")
	fDeferred   = gotruth.Function("main.deferred")
	fCatch      = gotruth.Function("main.catch")
	fRecover    = gotruth.Function("main.catch.func1")
	fThrow3     = gotruth.Function("main.throw3")
	fThrow2     = gotruth.Function("main.throw2")
	fThrow1     = gotruth.Function("main.throw1")
	fGoexit     = gotruth.Function("main.goexit")
	fGoexitIn   = gotruth.Function("main.goexitInner")
	fVariadic   = gotruth.Function("main.variadic")
	fMany       = gotruth.Function("main.many")
)

// id is passed along so that a function knows its caller.
type id = gotruth.ID

//go:noinline
func leaf(from id, n int) int {
	fLeaf.Enter(from)
	fLeaf.Leave()
	return n + 1
}

//go:noinline
func inner(from id, n int) int {
	fInner.Enter(from)
	sum := leaf(fInner, n) + leaf(fInner, n+1)
	fInner.Leave()
	return sum
}

//go:noinline
func outer(from id, n int) int {
	fOuter.Enter(from)
	sum := 0
	for i := range 3 {
		sum += inner(fOuter, n+i)
	}
	fOuter.Leave()
	return sum
}

//go:noinline
func fib(from id, n int) int {
	fFib.Enter(from)
	value := n
	if n > 1 {
		value = fib(fFib, n-1) + fib(fFib, n-2)
	}
	fFib.Leave()
	return value
}

//go:noinline
func even(from id, n int) bool {
	fEven.Enter(from)
	yes := n == 0 || odd(fEven, n-1)
	fEven.Leave()
	return yes
}

//go:noinline
func odd(from id, n int) bool {
	fOdd.Enter(from)
	yes := n != 0 && even(fOdd, n-1)
	fOdd.Leave()
	return yes
}

type counter struct{ n int }

//go:noinline
func (c *counter) add(from id, n int) {
	fAdd.Enter(from)
	c.n += n
	fAdd.Leave()
}

//go:noinline
func (c counter) value(from id) int {
	fValue.Enter(from)
	fValue.Leave()
	return c.n
}

type shape interface{ area(from id) int }

type square struct{ side int }
type circle struct{ radius int }

//go:noinline
func (s square) area(from id) int {
	fSquareArea.Enter(from)
	fSquareArea.Leave()
	return s.side * s.side
}

//go:noinline
func (c *circle) area(from id) int {
	fCircleArea.Enter(from)
	fCircleArea.Leave()
	return 3 * c.radius * c.radius
}

//go:noinline
func total(from id, shapes []shape) int {
	fTotal.Enter(from)
	sum := 0
	for _, s := range shapes {
		sum += s.area(fTotal)
	}
	fTotal.Leave()
	return sum
}

//go:noinline
func sum[T int | string](from id, self id, items []T) T {
	self.Enter(from)
	var all T
	for _, item := range items {
		all += item
	}
	self.Leave()
	return all
}

type stack[T any] struct{ items []T }

//go:noinline
func (s *stack[T]) push(from id, item T) {
	fPush.Enter(from)
	s.items = append(s.items, item)
	fPush.Leave()
}

//go:noinline
func apply(from id, times int, f func(id, int) int) int {
	fApply.Enter(from)
	sum := 0
	for i := range times {
		sum += f(fApply, i)
	}
	fApply.Leave()
	return sum
}

//go:noinline
func scaler(k int) func(id, int) int {
	return func(from id, x int) int {
		fNested.Enter(from)
		fNested.Leave()
		return x * k
	}
}

//go:noinline
func closures(from id, n int) int {
	fClosures.Enter(from)
	sum := apply(fClosures, 4, func(from id, x int) int {
		fClosure.Enter(from)
		fClosure.Leave()
		return x + n
	})
	sum += apply(fClosures, 2, scaler(n))
	fClosures.Leave()
	return sum
}

// A chain is what leads to one panic or Goexit. Deferred calls that run then are
// called from the function that panicked, not from the one that deferred them.
type chain struct{ ender id }

func (c *chain) caller(normally id) id {
	if c.ender != gotruth.Root {
		return c.ender
	}
	return normally
}

//go:noinline
func deferred(from id, c *chain, sum *int) {
	fDeferred.Enter(c.caller(from))
	*sum++
	fDeferred.Leave()
}

// deferrer runs three deferred calls on its way out.
//
//go:noinline
func deferrer(from id, n int) (sum int) {
	fDeferrer.Enter(from)
	defer fDeferrer.Leave()
	for range 3 {
		defer deferred(fDeferrer, &chain{}, &sum)
	}
	return n
}

//go:noinline
func throw1(from id, c *chain, n int) int {
	fThrow1.Enter(from)
	if n%2 == 1 {
		c.ender = fThrow1
		panic(n)
	}
	fThrow1.Leave()
	return n
}

// throw2 runs a deferred call on its way out, also when a panic passes through.
//
//go:noinline
func throw2(from id, c *chain, n int) (sum int) {
	fThrow2.Enter(from)
	defer deferred(fThrow2, c, &sum)
	sum += throw1(fThrow2, c, n)
	fThrow2.Leave()
	return sum
}

//go:noinline
func throw3(from id, c *chain, n int) int {
	fThrow3.Enter(from)
	n = throw2(fThrow3, c, n) + 1
	fThrow3.Leave()
	return n
}

// catch recovers: the panicking frames do not return, it does.
//
//go:noinline
func catch(from id, n int) (sum int) {
	fCatch.Enter(from)
	defer fCatch.Leave()
	var c chain
	defer func() {
		fRecover.Enter(c.caller(fCatch))
		if r := recover(); r != nil {
			sum = r.(int)
		}
		fRecover.Leave()
	}()
	sum = throw3(fCatch, &c, n)
	return sum
}

//go:noinline
func goexitInner(from id, c *chain, n int) int {
	fGoexitIn.Enter(from)
	if n >= 0 {
		c.ender = fGoexitIn
		runtime.Goexit()
	}
	fGoexitIn.Leave()
	return n
}

// goexit runs a deferred call while its goroutine ends.
//
//go:noinline
func goexit(from id, n int) (sum int) {
	fGoexit.Enter(from)
	var c chain
	defer deferred(fGoexit, &c, &sum)
	sum += goexitInner(fGoexit, &c, n)
	fGoexit.Leave()
	return sum
}

//go:noinline
func variadic(from id, numbers ...int) int {
	fVariadic.Enter(from)
	sum := 0
	for _, n := range numbers {
		sum += n
	}
	fVariadic.Leave()
	return sum
}

// many has more arguments and results than registers hold.
//
//lint:ignore ST1008 the error stands among other results on purpose
//go:noinline
func many(from id, a, b, c, d, e, f, g, h, i, j, k, l int) (int, string, error, []int, float64) {
	fMany.Enter(from)
	fMany.Leave()
	return a + b + c + d + e + f + g + h + i + j + k + l, "text", nil, []int{a}, 1.5
}

//go:noinline
func round(from id, n int) int {
	fRound.Enter(from)
	result := outer(fRound, n) + fib(fRound, 10)
	if even(fRound, 21) {
		result++
	}
	c := &counter{}
	c.add(fRound, n)
	add := c.add // a method value
	add(fRound, 1)
	expression := (*counter).add
	expression(c, fRound, 2)
	result += c.value(fRound)
	result += total(fRound, []shape{square{n}, &circle{n}, square{1}})
	result += sum(fRound, fSumInt, []int{1, 2, n})
	result += len(sum(fRound, fSumString, []string{"a", "b"}))
	var s stack[int]
	s.push(fRound, n)
	s.push(fRound, n)
	result += closures(fRound, n) + deferrer(fRound, n)
	result += catch(fRound, 1) + catch(fRound, 2)
	var ended sync.WaitGroup
	ended.Add(1)
	go func() {
		defer ended.Done()
		goexit(gotruth.Root, n)
	}()
	ended.Wait()
	result += variadic(fRound, 1, 2, 3)
	number, text, _, list, _ := many(fRound, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	fRound.Leave()
	return result + number + len(text) + len(list)
}

func main() {
	rounds := gotruth.Arg("--rounds", 100)
	gotruth.Begin()
	result := 0
	for i := range rounds {
		result += round(gotruth.Root, i)
	}
	gotruth.End(gotruth.Extra{Values: map[string]int64{"result": int64(result)}})
}
