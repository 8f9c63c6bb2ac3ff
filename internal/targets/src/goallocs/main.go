// Command goallocs allocates memory in known sizes: small objects without and with
// pointers, a large one. "values" are the bytes of each function. --rounds N
package main

import "github.com/sbxtrace/sbxtrace/internal/targets/src/gotruth"

type node struct {
	Next *node
	Data [40]byte
}

// Exported, so that what is allocated escapes and nobody calls it unused.
var (
	Kept   *node
	Slice  []byte
	Number *[4]int64
)

//go:noinline
func small() { Number = new([4]int64) }

//go:noinline
func pointers() { Kept = &node{} }

//go:noinline
func large() { Slice = make([]byte, 100_000) }

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
