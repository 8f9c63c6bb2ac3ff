package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// pythonProgram does the same work in each of ten rounds, and speaks the
// protocol of the other targets.
const pythonProgram = `import os, sys, threading

def leaf(n):
    return n + 1

def middle(n):
    return leaf(n) + leaf(n + 1)

def outer(n):
    return sum(middle(i) for i in range(n))

class Thing:
    def method(self, n):
        return leaf(n)

def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

def throws(n):
    if n == 0:
        raise ValueError(n)
    return throws(n - 1)

def catches():
    try:
        throws(3)
    except ValueError:
        return leaf(0)

def work():
    for i in range(10):
        outer(3)
        Thing().method(1)
        fib(8)
        catches()

def main():
    if "--auto" not in sys.argv:
        print("READY", os.getpid(), flush=True)
        assert sys.stdin.readline() == "go\n"
    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    print("{}", flush=True)
    sys.stdin.readline()

main()
`

const rounds = 2 * 10 // of two threads

var pythonTruth = targets.Truth{
	Counts: map[string]uint64{
		"work": 2, "outer": rounds, "middle": 3 * rounds, "method": rounds,
		"<genexpr>": 4 * rounds, // once more for the end of it
		"leaf":      8 * rounds,
		"fib":       67 * rounds,
		"catches":   rounds, "throws": 4 * rounds,
	},
	MaxDepth: map[string]uint64{
		"work": 1, "outer": 2, "<genexpr>": 3, "middle": 4, "leaf": 5, "method": 2, "fib": 9, "catches": 2, "throws": 6,
	},
	Tree: []targets.Edge{
		{Parent: "", Child: "work", Count: 2},
		{Parent: "work", Child: "outer", Count: rounds}, {Parent: "outer", Child: "<genexpr>", Count: 4 * rounds},
		{Parent: "<genexpr>", Child: "middle", Count: 3 * rounds}, {Parent: "middle", Child: "leaf", Count: 6 * rounds},
		{Parent: "work", Child: "method", Count: rounds}, {Parent: "method", Child: "leaf", Count: rounds},
		{Parent: "work", Child: "fib", Count: rounds}, {Parent: "fib", Child: "fib", Count: 66 * rounds},
		{Parent: "work", Child: "catches", Count: rounds}, {Parent: "catches", Child: "throws", Count: rounds},
		{Parent: "throws", Child: "throws", Count: 3 * rounds}, {Parent: "catches", Child: "leaf", Count: rounds},
	},
}

// pythonLines are where the functions are defined in pythonProgram.
func pythonLines() map[string]int {
	lines := map[string]int{"<genexpr>": 0}
	for i, line := range strings.Split(pythonProgram, "\n") {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "def "); ok {
			name, _, _ := strings.Cut(rest, "(")
			lines[name] = i + 1
		}
		if strings.Contains(line, " for i in range(n))") {
			lines["<genexpr>"] = i + 1
		}
	}
	return lines
}

// The call tree of Python functions, from CPython's own static probes.
func TestPython(t *testing.T) {
	const interpreter = "/usr/bin/python3.11"
	needRoot(t)
	if _, err := os.Stat(interpreter); err != nil {
		t.Skipf("needs %s, which has static probes", interpreter)
	}
	path := filepath.Join(t.TempDir(), "program.py")
	if err := os.WriteFile(path, []byte(pythonProgram), 0o644); err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, r *result) {
		t.Helper()
		r.complete(t)
		lines := pythonLines()
		seen := map[string]bool{}
		named := r.only(func(*call) bool { return true })
		for i, c := range named.calls {
			name, at, _ := strings.Cut(c.Func, " (")
			parent, _, _ := strings.Cut(c.Parent, " (")
			if own := strings.Contains(at, "program.py:"); own && !seen[name] && lines[name] > 0 {
				seen[name] = true
				if want := "program.py:" + strconv.Itoa(lines[name]) + ")"; at != want && !strings.HasSuffix(at, "/"+want) {
					t.Errorf("%s is said to be at %s, it is at %s", name, at, want)
				}
			} else if !own && pythonTruth.Counts[name] > 0 {
				name = c.Func // of the same name elsewhere
			}
			renamed := *c
			renamed.Func, renamed.Parent = name, parent
			named.calls[i] = &renamed
		}
		report(t, "calls", differences("calls", pythonTruth.Counts, named.counts()))
		report(t, "tree", pythonTruth.CompareEdges(named.edges(pythonTruth.Counts)))
		report(t, "depth", differences("deep", pythonTruth.MaxDepth, named.maxDepth(pythonTruth.Counts)))
		for name := range pythonTruth.Counts {
			if !seen[name] {
				t.Errorf("%s was not seen in the program's file", name)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		flags []string
	}{
		{"attach", []string{"--usdt", "python:function__*"}},
		{"bare", nil}, // they are the target's own functions
		// The interpreter announces a call twice while its lines are traced.
		{"lines", []string{"--usdt", "python:function__*", "--usdt", "python:line"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := targets.StartCmd(t, exec.Command(interpreter, path))
			s := attach(t, p.Ready(), tt.flags...)
			p.Go()
			p.Truth()
			if err := p.Quit(); err != nil {
				t.Error(err)
			}
			r := s.wait()
			check(t, r)
			lines := 0
			for _, e := range r.of("usdt") {
				if e.Func == "python:line" && len(e.Texts) > 1 && strings.HasSuffix(e.Texts[0], "program.py") && e.Texts[1] == "middle" {
					lines++
				}
			}
			if want := 3 * rounds; tt.name == "lines" && lines != want {
				t.Errorf("%d lines of middle, want %d", lines, want)
			}
		})
	}
	t.Run("run", func(t *testing.T) {
		t.Parallel()
		s := sbxtrace(t, "run", "--usdt", "python:function__*", "--", interpreter, path, "--auto")
		check(t, s.wait())
	})
}
