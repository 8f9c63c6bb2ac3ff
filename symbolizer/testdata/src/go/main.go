// Program app has one function of every kind that Go's linker names in its own
// way.
package main

import (
	"fmt"
	"os"

	"example.com/fix.ture/app/yaml.v3"
)

type number interface{ ~int | ~int64 | ~float64 }

//go:noinline
func sum[T number](values ...T) (total T) {
	for _, v := range values {
		total += v
	}
	return total
}

type stack[T any] struct{ items []T }

//go:noinline
func (s *stack[T]) push(item T) { s.items = append(s.items, item) }

type shape interface{ area() float64 }

type square struct{ side float64 }

//go:noinline
func (s square) area() float64 { return s.side * s.side }

type counter struct{ n int }

//go:noinline
func (c *counter) add(d int) int { c.n += d; return c.n }

//go:noinline
func adder(base int) func(int) int {
	return func(d int) int {
		if d < 0 {
			fmt.Fprintln(os.Stderr, "negative")
		}
		return base + d
	}
}

// inner and middle are small enough to be inlined everywhere.
func inner(x int) int { return x*3 + len(os.Args) }

func middle(x int) int {
	y := inner(x) + 1
	return y * 2
}

//go:noinline
func outer(x int) int {
	z := middle(x)
	return z - 1
}

//go:noinline
func recursive(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + recursive(n-1)
}

// double is written in assembly.
func double(x int64) int64

func init() { recursive(1) }

func main() {
	c := &counter{}
	method := c.add
	s := &stack[string]{}
	s.push("x")
	var sh shape = square{2}
	defer func() {
		fmt.Println(recover())
	}()
	fmt.Println(sum(1, 2), sum(1.5, 2.5), adder(1)(len(os.Args)), method(outer(3)), sh.area(), double(4), yaml.Parse("a"))
}
