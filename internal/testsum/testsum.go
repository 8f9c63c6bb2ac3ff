// Package testsum runs the repository's tests and checks and sums them up: it
// reads the JSON stream of `go test -json` (or of test2json fed from a virtual
// machine), shows failures where a person looks for them, and holds skips
// against an allow list, so that "everything passed" cannot mean "nothing ran".
package testsum

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Event is one line of the stream that `go help test2json` documents.
type Event struct {
	Action      string  // start, run, pause, cont, pass, bench, fail, output, skip, build-output or build-fail
	Package     string  // import path; empty for build events
	ImportPath  string  // of build events: the package that was built
	Test        string  // test, subtest, example or fuzz target; empty for events of the whole package
	Elapsed     float64 // seconds, of pass, fail and skip
	Output      string  // of output and build-output: a piece of text, usually one line
	FailedBuild string  // of a package's fail: the ImportPath whose build failed
}

// Counts is how many tests ended how. A test with subtests is not counted
// beside them, unless it failed and none of them did.
type Counts struct {
	Passed  int `json:"passed"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"` // skips that are no failure
}

func (c *Counts) add(o Counts) {
	c.Passed += o.Passed
	c.Failed += o.Failed
	c.Skipped += o.Skipped
}

// String gives the form in which every summary ends.
func (c Counts) String() string {
	s := fmt.Sprintf("%d passed, %d failed", c.Passed, c.Failed)
	if c.Skipped > 0 {
		s += fmt.Sprintf(", %d skipped", c.Skipped)
	}
	return s
}

// Package is the result of one package's tests.
type Package struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	Counts
}

// Timed is one test and how long it took.
type Timed struct {
	Name    string  `json:"name"` // package.Test
	Seconds float64 `json:"seconds"`
}

// Skip is one test that did not run, with the reason it gave.
type Skip struct {
	Name    string `json:"name"` // package.Test
	Reason  string `json:"reason"`
	Allowed bool   `json:"allowed"` // the allow list has it
}

// Group is the result of one run: the tests of some packages on one kernel, or
// a single check such as a linter, which counts as one test.
type Group struct {
	Name     string    `json:"name"`
	Kernel   string    `json:"kernel"` // release of the kernel it ran on, as uname -r prints it
	Seconds  float64   `json:"seconds"`
	Packages []Package `json:"packages,omitempty"`
	Failures []string  `json:"failures,omitempty"`
	Skips    []Skip    `json:"skips,omitempty"`
	Slowest  []Timed   `json:"slowest,omitempty"` // tests of two seconds and more, longest first
	Counts
}

// ErrNoResult is returned by ReadGroup when the group has left no result.
var ErrNoResult = errors.New("no result")

func groupFile(dir, name string) string {
	return filepath.Join(dir, strings.ReplaceAll(name, "/", "_")+".json")
}

// Save writes the group to a file of its own in dir, which it creates.
func (g *Group) Save(dir string) error {
	text, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return fmt.Errorf("encode result of %s: %w", g.Name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create results directory: %w", err)
	}
	if err := os.WriteFile(groupFile(dir, g.Name), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("save result of %s: %w", g.Name, err)
	}
	return nil
}

// Forget removes the result an earlier run of the group left in dir, so that a
// run that dies is not taken for one that passed.
func Forget(dir, name string) error {
	if err := os.Remove(groupFile(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old result of %s: %w", name, err)
	}
	return nil
}

// ReadGroup reads what Save wrote. It returns ErrNoResult when nothing was.
func ReadGroup(dir, name string) (*Group, error) {
	text, err := os.ReadFile(groupFile(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("group %s: %w", name, ErrNoResult)
	}
	if err != nil {
		return nil, fmt.Errorf("read result of %s: %w", name, err)
	}
	g := new(Group)
	if err := json.Unmarshal(text, g); err != nil {
		return nil, fmt.Errorf("decode result of %s: %w", name, err)
	}
	return g, nil
}

// KernelRelease is the running kernel's release, or "unknown".
func KernelRelease() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
