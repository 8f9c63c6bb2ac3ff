// Package gotruth lets the Go targets count their calls inside the traced
// functions themselves; the protocol and the meaning of what is printed are
// those of truth.h.
//
// A program names its counted functions once and marks each of them:
//
//	var outer = gotruth.Function("main.outer")
//
//	//go:noinline
//	func outer() { outer.Enter(parent); ...; outer.Leave() }
//
// Goroutines have no variables of their own, so the caller's identity is passed
// along where the tree is wanted.
package gotruth

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
)

// max bounds the number of functions of a program.
const max = 64

// ID is a counted function. The zero value, Root, stands for callers that are
// not counted.
type ID int

// Root is the caller of what nobody counted called.
const Root ID = 0

var (
	names   = []string{""}
	calls   [max]atomic.Uint64
	returns [max]atomic.Uint64
	edges   [max][max]atomic.Uint64
	auto    bool
)

// Function registers a counted function under the name that a tracer prints. It
// is for package variables.
func Function(name string) ID {
	names = append(names, name)
	return ID(len(names) - 1)
}

// Enter counts a call by parent. It is small enough to be inlined.
func (id ID) Enter(parent ID) {
	calls[id].Add(1)
	edges[parent][id].Add(1)
}

// Leave counts a return.
func (id ID) Leave() { returns[id].Add(1) }

// Add counts n calls that nobody else counted, and their returns.
func (id ID) Add(n uint64) {
	calls[id].Add(n)
	returns[id].Add(n)
}

// Name returns the name that a tracer prints.
func (id ID) Name() string { return names[id] }

// Calls returns the number of calls so far.
func (id ID) Calls() uint64 { return calls[id].Load() }

// Arg returns the number after name on the command line, or fallback.
func Arg(name string, fallback int) int {
	for i, argument := range os.Args {
		if argument == name && i+1 < len(os.Args) {
			if n, err := strconv.Atoi(os.Args[i+1]); err == nil {
				return n
			}
		}
	}
	return fallback
}

// Has says whether the flag name is on the command line.
func Has(name string) bool {
	for _, argument := range os.Args[1:] {
		if argument == name {
			return true
		}
	}
	return false
}

var stdin = bufio.NewScanner(os.Stdin)

// Auto makes the program behave as if --auto had been given.
func Auto() { auto = true }

// Begin says READY and waits for "go"; with --auto it returns at once.
func Begin() {
	if auto = auto || Has("--auto"); auto {
		return
	}
	fmt.Printf("READY %d\n", os.Getpid())
	if !stdin.Scan() || stdin.Text() != "go" {
		fmt.Fprintf(os.Stderr, "%s: expected \"go\" on stdin\n", os.Args[0])
		os.Exit(3)
	}
}

// Endless returns a channel that is closed by "quit", end of file or SIGTERM,
// for programs that work until they are told to stop.
func Endless() <-chan struct{} {
	stop := make(chan struct{})
	end := sync.OnceFunc(func() { close(stop) })
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		<-terminated
		end()
	}()
	if !auto {
		go func() {
			wait()
			end()
		}()
	}
	return stop
}

// Extra is what a program adds to its truth.
type Extra struct {
	Inlined map[string]uint64 `json:"inlined,omitempty"`
	Values  map[string]int64  `json:"values,omitempty"`
}

type edge struct {
	Parent string `json:"parent"`
	Child  string `json:"child"`
	Count  uint64 `json:"count"`
}

// Print prints the truth.
func Print(extra Extra) {
	truth := struct {
		Counts  map[string]uint64 `json:"counts"`
		Returns map[string]uint64 `json:"returns"`
		Tree    []edge            `json:"tree"`
		Extra
	}{Counts: map[string]uint64{}, Returns: map[string]uint64{}, Extra: extra}
	for child, name := range names {
		if n := calls[child].Load(); n > 0 {
			truth.Counts[name] = n
		}
		if n := returns[child].Load(); n > 0 {
			truth.Returns[name] = n
		}
		for parent := range names {
			if n := edges[parent][child].Load(); n > 0 {
				truth.Tree = append(truth.Tree, edge{names[parent], name, n})
			}
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(truth); err != nil {
		os.Exit(4)
	}
}

// End prints the truth and waits for "quit" or end of file.
func End(extra Extra) {
	Print(extra)
	if !auto {
		wait()
	}
}

// Stay waits for stop, unless nobody is there to send it.
func Stay(stop <-chan struct{}) {
	if !auto {
		<-stop
	}
}

func wait() {
	for stdin.Scan() {
		if stdin.Text() == "quit" {
			return
		}
	}
}
