// Command bench measures sbxtrace side by side with its peers in one run and
// prints ratios: absolute times depend on the machine, ratios hardly do. It is
// run by `make bench`, as root, from the top of the repository.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

type bench struct {
	exe     string // the sbxtrace to measure
	dir     string // scratch
	out     io.Writer
	rounds  int
	seconds int // of the throughput test
}

func main() {
	exe := flag.String("sbxtrace", "bin/sbxtrace", "program to measure")
	report := flag.String("report", "", "write the tables to this Markdown file too")
	rounds := flag.Int("rounds", 5, "repetitions of each measurement; the least counts")
	seconds := flag.Int("seconds", 60, "length of the throughput test")
	only := flag.String("only", "", "cost, attach, throughput or governor")
	flag.Parse()
	if err := run(*exe, *report, *rounds, *seconds, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(exe, report string, rounds, seconds int, only string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("attaching takes root")
	}
	dir, err := os.MkdirTemp("", "sbxtrace-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{exe: exe, dir: dir, out: os.Stdout, rounds: rounds, seconds: seconds}
	if report != "" {
		f, err := os.Create(report)
		if err != nil {
			return err
		}
		defer f.Close()
		b.out = io.MultiWriter(os.Stdout, f)
	}
	fmt.Fprintf(b.out, "# Benchmarks\n\nMade by `make bench` on %s. %s\n", time.Now().UTC().Format("2006-01-02"), machine())
	for _, part := range []struct {
		name string
		run  func() error
	}{{"cost", b.cost}, {"attach", b.attachTimes}, {"throughput", b.throughput}, {"governor", b.governor}} {
		if only != "" && only != part.name {
			continue
		}
		if err := part.run(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}
