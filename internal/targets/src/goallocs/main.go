// Command goallocs allocates memory in known sizes: small objects without and with
// pointers, a large one. "values" are the bytes of each function. --rounds N
package main

import "github.com/sbxtrace/sbxtrace/internal/targets/src/gotruth"

type node struct {
	next *node
	data [40]byte
}

var (
	kept   *node
	slice  []byte
	number *[4]int64
)

//go:noinline
func small() { number = new([4]int64) }

//go:noinline
func pointers() { kept = &node{} }

//go:noinline
func large() { slice = make([]byte, 100_000) }

func main() {
	rounds := gotruth.Arg("--rounds", 1000)
	gotruth.Begin()
	for range rounds {
		small()
		pointers()
		large()
	}
	n := int64(rounds)
	gotruth.End(gotruth.Extra{Values: map[string]int64{"main.small": 32 * n, "main.pointers": 48 * n, "main.large": 100_000 * n}})
}
