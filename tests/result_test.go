package tests

//lint:file-ignore U1000 helpers that the tests of the package share, each of which uses some

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// call is a line of type call, as docs/json.md describes it.
type call struct {
	TS       uint64   `json:"ts"`
	Dur      uint64   `json:"dur"`
	Self     uint64   `json:"self"`
	PID      int      `json:"pid"`
	TID      int      `json:"tid"`
	GoID     uint64   `json:"goid"`
	Depth    int      `json:"depth"`
	Func     string   `json:"func"`
	Module   string   `json:"module"`
	Parent   string   `json:"parent"`
	End      string   `json:"end"`
	Gap      bool     `json:"gap"`
	Args     []string `json:"args"`
	Ret      string   `json:"ret"`
	Stack    []string `json:"stack"`
	StackCut bool     `json:"stack_cut"`

	program int   // how many programs its process has executed before, as far as traced
	caller  *call // that it is nested in; nil for none, or one of a parent process
}

// summary is a line of type summary.
type summary struct {
	Func    string            `json:"func"`
	Module  string            `json:"module"`
	Calls   uint64            `json:"calls"`
	AtLeast bool              `json:"at_least"`
	Total   uint64            `json:"total"`
	Self    uint64            `json:"self"`
	Timed   uint64            `json:"timed"`
	Min     uint64            `json:"min"`
	P50     uint64            `json:"p50"`
	P99     uint64            `json:"p99"`
	Max     uint64            `json:"max"`
	Ends    map[string]uint64 `json:"ends"`
}

// totals is the last line.
type totals struct {
	Calls     uint64            `json:"calls"`
	Lost      uint64            `json:"lost"`
	Orphans   uint64            `json:"orphans"`
	Gaps      uint64            `json:"gaps"`
	Stacks    uint64            `json:"stacks"`
	StacksCut uint64            `json:"stacks_cut"`
	Ends      map[string]uint64 `json:"ends"`
}

// event is a line of another type.
type event struct {
	Type     string   `json:"type"`
	PID      int      `json:"pid"`
	TID      int      `json:"tid"`
	ChildPID int      `json:"child_pid"`
	ChildTID int      `json:"child_tid"`
	Func     string   `json:"func"`
	Args     []string `json:"args"`
	Texts    []string `json:"texts"`
	Process  bool     `json:"process"`
	Cause    string   `json:"cause"`
	Count    uint64   `json:"count"`
}

// result is what sbxtrace printed.
type result struct {
	t       testing.TB
	calls   []*call // in the order of their ends
	rows    map[string]summary
	totals  totals
	events  []event // of other types
	entries uint64
	execs   map[int]int // by process
	nested  bool        // callers are known
}

// readResult reads a file of JSON lines. It fails the test if the last line is
// not the one with the totals.
func readResult(t testing.TB, path string) *result {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := &result{t: t, rows: map[string]summary{}, execs: map[int]int{}}
	whole := false
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if whole {
			t.Fatalf("a line after the totals: %s", lines.Text())
		}
		if whole, err = r.line(lines.Bytes()); err != nil {
			t.Fatalf("line %s: %v", lines.Text(), err)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if !whole {
		t.Fatalf("the output has no totals")
	}
	return r
}

// line reads one line and reports whether it is the one with the totals.
func (r *result) line(text []byte) (last bool, err error) {
	rest, ok := bytes.CutPrefix(text, []byte(`{"type":"`))
	if !ok {
		rest = nil
	}
	kind, _, _ := bytes.Cut(rest, []byte(`"`))
	switch string(kind) {
	case "call":
		c := new(call)
		r.calls = append(r.calls, c)
		err := json.Unmarshal(text, c)
		c.program = r.execs[c.PID]
		return false, err
	case "entry":
		r.entries++
		return false, json.Unmarshal(text, new(call))
	case "summary":
		var s summary
		err := json.Unmarshal(text, &s)
		if old, twice := r.rows[s.Func]; twice { // in several modules
			s.Calls += old.Calls
		}
		r.rows[s.Func] = s
		return false, err
	case "totals":
		return true, json.Unmarshal(text, &r.totals)
	}
	var e event
	err = json.Unmarshal(text, &e)
	r.events = append(r.events, e)
	if e.Type == "exec" {
		r.execs[e.PID]++
	}
	return false, err
}

// of returns the events of a type.
func (r *result) of(kind string) []event {
	var found []event
	for _, e := range r.events {
		if e.Type == kind {
			found = append(found, e)
		}
	}
	return found
}

// only keeps the calls that a condition holds for.
func (r *result) only(keep func(*call) bool) *result {
	kept := *r
	kept.calls = nil
	kept.nested = false
	for _, c := range r.calls {
		if keep(c) {
			kept.calls = append(kept.calls, c)
		}
	}
	return &kept
}

// counts returns the number of calls per function.
func (r *result) counts() map[string]uint64 {
	n := map[string]uint64{}
	for _, c := range r.calls {
		n[c.Func]++
	}
	return n
}

// returned returns the number of calls per function that came back: those whose
// exit the kernel does not report, nested too deep, did too as far as the
// programs of these tests are concerned.
func (r *result) returned() map[string]uint64 {
	n := map[string]uint64{}
	for _, c := range r.calls {
		if c.End == "" || c.End == "unseen" {
			n[c.Func]++
		}
	}
	return n
}

// unreturned describes the calls that did not come back.
func (r *result) unreturned() []string {
	var lines []string
	for _, c := range r.calls {
		if c.End != "" && c.End != "unseen" {
			lines = append(lines, fmt.Sprintf("%s of process %d, called by %q at %d for %d ns, ended by %q", c.Func, c.PID, c.Parent, c.TS, c.Dur, c.End))
		}
	}
	return lines
}

// rowCounts returns the number of calls per function according to the summary.
func (r *result) rowCounts() map[string]uint64 {
	n := map[string]uint64{}
	for name, row := range r.rows {
		n[name] = row.Calls
	}
	return n
}

// lane is a line of execution.
type lane struct {
	pid, tid int
	goid     uint64
	program  int
}

func (c *call) lane() lane {
	l := lane{pid: c.PID, tid: c.TID, program: c.program}
	if c.GoID != 0 {
		l.tid, l.goid = 0, c.GoID
	}
	return l
}

func (c *call) end() uint64 { return c.TS + c.Dur }

// nest finds each call's caller from the order of ends and the depths alone,
// and checks on the way that depth, times and named parents agree. Calls come
// when they end, so those one level deeper that came since a call began are
// its callees.
func (r *result) nest() {
	r.t.Helper()
	if r.nested {
		return
	}
	r.nested = true
	open := map[lane][]*call{} // ended calls without a known caller
	for _, c := range r.calls {
		k := c.lane()
		waiting := open[k]
		at := len(waiting)
		for at > 0 && waiting[at-1].Depth > c.Depth {
			at--
		}
		for _, callee := range waiting[at:] {
			switch {
			case callee.Depth != c.Depth+1:
				r.t.Errorf("%s (depth %d) ended before its caller, next is %s (depth %d)", callee.Func, callee.Depth, c.Func, c.Depth)
			case callee.Parent != c.Func:
				r.t.Errorf("%s names %s as its caller, it ran inside %s", callee.Func, callee.Parent, c.Func)
			case callee.TS < c.TS || callee.end() > c.end():
				r.t.Errorf("%s [%d, %d] is not within its caller %s [%d, %d]", callee.Func, callee.TS, callee.end(), c.Func, c.TS, c.end())
			}
			callee.caller = c
		}
		open[k] = append(waiting[:at], c)
	}
	for _, waiting := range open {
		for _, c := range waiting {
			if c.Depth == 0 && c.Parent != "" || c.Depth > 0 && c.Parent == "" {
				r.t.Errorf("%s has depth %d and the caller %q", c.Func, c.Depth, c.Parent)
			}
		}
	}
}

// within returns the nearest of a call's callers that is listed, "" for none.
func (c *call) within(listed map[string]uint64) string {
	for ; c.caller != nil; c = c.caller {
		if _, ok := listed[c.caller.Func]; ok {
			return c.caller.Func
		}
	}
	if _, ok := listed[c.Parent]; ok {
		return c.Parent // a call of the process that this one was forked from
	}
	return ""
}

// edges returns the number of calls per pair of caller and callee, where
// functions that are not listed count as part of their caller.
func (r *result) edges(listed map[string]uint64) map[[2]string]uint64 {
	r.t.Helper()
	r.nest()
	n := map[[2]string]uint64{}
	for _, c := range r.calls {
		n[[2]string{c.within(listed), c.Func}]++
	}
	return n
}

// namedEdges returns the number of calls per pair of caller and callee as the
// lines name them.
func (r *result) namedEdges() map[[2]string]uint64 {
	n := map[[2]string]uint64{}
	for _, c := range r.calls {
		n[[2]string{c.Parent, c.Func}]++
	}
	return n
}

// maxDepth returns the greatest depth of each function, counted in listed
// functions from 1.
func (r *result) maxDepth(listed map[string]uint64) map[string]uint64 {
	r.t.Helper()
	r.nest()
	// Callers end after their callees, so backwards a caller comes first.
	depth := make(map[*call]uint64, len(r.calls))
	deepest := map[string]uint64{}
	for _, c := range slices.Backward(r.calls) {
		var d uint64
		switch {
		case c.caller != nil:
			d = depth[c.caller]
		default:
			d = uint64(c.Depth) // calls of the process that this one was forked from
		}
		if _, ok := listed[c.Func]; ok {
			d++
			deepest[c.Func] = max(deepest[c.Func], d)
		}
		depth[c] = d
	}
	return deepest
}

// differences lists how got differs from want in what want lists.
func differences(what string, want, got map[string]uint64) []string {
	var lines []string
	for name, n := range want {
		if got[name] != n {
			lines = append(lines, fmt.Sprintf("%s: %d %s, want %d", name, got[name], what, n))
		}
	}
	slices.Sort(lines)
	return lines
}

// sortByStart orders calls by their beginning.
func sortByStart(calls []*call) {
	slices.SortStableFunc(calls, func(a, b *call) int { return cmp.Compare(a.TS, b.TS) })
}

// truthOf reads the truth from what a target printed.
func truthOf(t testing.TB, output string) targets.Truth {
	t.Helper()
	for line := range strings.Lines(output) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var truth targets.Truth
		if err := json.Unmarshal([]byte(line), &truth); err != nil {
			t.Fatalf("truth: %v", err)
		}
		return truth
	}
	t.Fatalf("the target printed no truth:\n%s", output)
	return targets.Truth{}
}
