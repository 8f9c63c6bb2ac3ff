package main

import (
	"fmt"
	"math"
	"strings"
)

// shapes are the functions of shapes.c and what their first instructions are.
var shapes = []struct{ fn, what string }{
	{"push_first", "push first"},
	{"endbr_push", "endbr64, then push"},
	{"mov_push", "mov, then push"},
	{"leaf", "nothing emulated"},
}

// cost measures what a traced call costs the target: the time per call with a
// tool attached less the time without, the least of several rounds.
func (b *bench) cost() error {
	bin, err := buildShapes(b.dir)
	if err != nil {
		return err
	}
	floor, floorEntry := emptyProgram(true), emptyProgram(false)
	tools := []tool{floorEntry, floor, sbxtrace(b.exe, b.dir, "count"), sbxtrace(b.exe, b.dir, "latency"),
		sbxtrace(b.exe, b.dir, "calls"), bpftrace("count"), bpftrace("time"), bpftrace("print"), perfProbe(b.dir)}
	results := make([]map[string]float64, len(shapes))
	for i, s := range shapes {
		if results[i], err = b.costOf(bin, s.fn, tools); err != nil {
			return err
		}
	}
	b.printCost(tools, results)
	return nil
}

// costOf measures every tool on one function, in turns, so that what else the
// machine does falls on all of them.
func (b *bench) costOf(bin, fn string, tools []tool) (map[string]float64, error) {
	const calls = 20_000
	least := make(map[string]float64)
	for range b.rounds {
		for _, tool := range tools {
			t, err := startTarget(bin, fn)
			if err != nil {
				return nil, err
			}
			base, err := t.nsPerCall(100 * calls)
			if err != nil {
				return nil, err
			}
			p, err := tool.attach(bin, t.pid(), fn)
			if err != nil {
				fmt.Fprintf(b.out, "\n%s is left out: %v\n", tool.name, err)
				least[tool.name] = math.NaN()
				t.stop()
				continue
			}
			for range 3 {
				ns, err := t.nsPerCall(calls)
				if err != nil {
					return nil, err
				}
				if old, ok := least[tool.name]; !ok || ns-base < old {
					least[tool.name] = ns - base
				}
			}
			p.detach()
			t.stop()
		}
	}
	return least, nil
}

func (b *bench) printCost(tools []tool, results []map[string]float64) {
	fmt.Fprintf(b.out, "\n## What a traced call costs the target\n\nns per call on top of the call itself, entry and exit; least of %d rounds.\n\n| function begins with |", b.rounds*3)
	for _, t := range tools {
		fmt.Fprintf(b.out, " %s |", t.name)
	}
	fmt.Fprint(b.out, "\n| --- |")
	for range tools {
		fmt.Fprint(b.out, " ---: |")
	}
	for i, s := range shapes {
		fmt.Fprintf(b.out, "\n| %s |", s.what)
		for _, t := range tools {
			fmt.Fprintf(b.out, " %.0f |", results[i][t.name])
		}
	}
	columns := []struct{ a, b string }{
		{"sbxtrace calls", "bpftrace print"}, {"sbxtrace calls", "bpftrace time"}, {"sbxtrace latency", "bpftrace time"},
		{"sbxtrace calls", "bpftrace count"}, {"sbxtrace calls", "perf probe"},
		{"sbxtrace calls", "empty program, entry and exit"}, {"sbxtrace count", "empty program, entry"},
	}
	fmt.Fprint(b.out, "\n\nAs ratios:\n\n| function begins with |")
	for _, c := range columns {
		fmt.Fprintf(b.out, " %s ÷ %s |", c.a, c.b)
	}
	fmt.Fprint(b.out, "\n| --- |"+strings.Repeat(" ---: |", len(columns))+"\n")
	for i, s := range shapes {
		fmt.Fprintf(b.out, "| %s |", s.what)
		for _, c := range columns {
			fmt.Fprintf(b.out, " %.2f |", results[i][c.a]/results[i][c.b])
		}
		fmt.Fprintln(b.out)
	}
}
