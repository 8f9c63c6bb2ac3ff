package testsum

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Options is what all runs of a group have in common.
type Options struct {
	Out     io.Writer // what a person reads
	Name    string    // the group's name
	Results string    // directory to leave the result in
	Skips   SkipList  // skips that are no failure
	Strict  bool      // see NewCollector
	Min     int       // fewer passed tests than this are a failure
}

// GoTest runs `go test -json` with the arguments and returns the group, saved.
// The error is about the run itself, not about tests that fail.
func GoTest(ctx context.Context, o Options, args []string) (*Group, error) {
	if err := Forget(o.Results, o.Name); err != nil {
		return nil, err
	}
	// Two write at once: the collector, and the go command's standard error.
	out := &lockedWriter{w: o.Out}
	c := NewCollector(out, o.Name, o.Skips, o.Strict)
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("run go test: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("run go test: %w", err)
	}
	readErr := c.AddAll(stdout)
	waitErr := cmd.Wait()
	if readErr != nil {
		c.Fail("test events", readErr.Error())
	}
	if waitErr != nil && c.Failed() == 0 && len(c.packages) == 0 {
		c.Fail("go test "+strings.Join(args, " "), waitErr.Error())
	}
	g := c.closeWithMin(o.Min)
	return g, g.Save(o.Results)
}

func (c *Collector) closeWithMin(least int) *Group {
	if c.Passed() < least {
		c.Fail("number of tests", fmt.Sprintf("%d passed, expected %d or more", c.Passed(), least))
	}
	return c.Close()
}

// Check runs a command as a group of one test, which passes when the command
// exits with 0. Its output is shown when it fails.
func Check(ctx context.Context, o Options, command []string) (*Group, error) {
	if err := Forget(o.Results, o.Name); err != nil {
		return nil, err
	}
	began := time.Now()
	g := &Group{Name: o.Name, Kernel: KernelRelease()}
	var output text
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout = writerFunc(output.add)
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	g.Seconds = seconds(time.Since(began))
	if err == nil {
		g.Passed = 1
		fmt.Fprintf(o.Out, "ok   %s (%.1f s)\n", g.Name, g.Seconds)
	} else {
		g.Failed = 1
		g.Failures = []string{fmt.Sprintf("%s: %s: %v", g.Name, strings.Join(command, " "), err)}
		fmt.Fprintf(o.Out, "\n--- FAIL %s\n%s\n", g.Failures[0], strings.TrimRight(output.String(), "\n"))
	}
	return g, g.Save(o.Results)
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

type writerFunc func(string)

func (f writerFunc) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

// Total prints a line for each of the named groups and, as the last line, the
// sum of all. A group without a result counts as one failure.
func Total(out io.Writer, dir string, names []string) Counts {
	var sum Counts
	var failures []string
	var took float64
	fmt.Fprintln(out)
	for _, name := range names {
		g, err := ReadGroup(dir, name)
		if err != nil {
			g = &Group{Name: name, Counts: Counts{Failed: 1}, Failures: []string{err.Error()}}
		}
		fmt.Fprintf(out, "%-16s %8.1f s  %s\n", g.Name, g.Seconds, g.Counts)
		failures = append(failures, g.Failures...)
		took += g.Seconds
		sum.add(g.Counts)
	}
	for _, f := range failures {
		fmt.Fprintf(out, "failed: %s\n", f)
	}
	if sum.Passed == 0 && sum.Failed == 0 {
		fmt.Fprintln(out, "failed: nothing ran")
		sum.Failed = 1
	}
	fmt.Fprintf(out, "%.0f s, %d skipped for an allowed reason\n", took, sum.Skipped)
	fmt.Fprintf(out, "%d passed, %d failed\n", sum.Passed, sum.Failed)
	return sum
}
