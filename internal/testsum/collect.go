package testsum

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// maxOutput bounds what is kept of one test's output, in bytes: the first
	// and the last half of it, since a failure's cause is in either.
	maxOutput = 64 << 10
	// slowTest is from where on a test is named among the slow ones.
	slowTest   = 2.0
	maxSlowest = 15
)

// Collector turns a stream of test events into a Group. It prints one line per
// finished package and the whole output of every failed test. It is not safe
// for concurrent use.
type Collector struct {
	out    io.Writer
	skips  SkipList
	strict bool
	began  time.Time

	group    Group
	packages map[string]*packageState
	builds   map[string]*text // output of builds by ImportPath
}

type packageState struct {
	tests  map[string]*testState
	order  []string
	output text
}

type testState struct {
	outcome string // pass, fail or skip; empty while it runs
	seconds float64
	parent  bool // has subtests
	output  text
}

// NewCollector starts the group of that name, printing to out. When strict,
// skips that the list does not allow, and packages that have test files but
// ran no test, count as failures.
func NewCollector(out io.Writer, name string, skips SkipList, strict bool) *Collector {
	return &Collector{
		out:      out,
		skips:    skips,
		strict:   strict,
		began:    time.Now(),
		group:    Group{Name: name, Kernel: KernelRelease()},
		packages: make(map[string]*packageState),
		builds:   make(map[string]*text),
	}
}

// SetKernel says that the tests run on another kernel than this one.
func (c *Collector) SetKernel(release string) { c.group.Kernel = release }

// AddAll adds all events of a JSON stream until its end. Lines that are no
// events, which the go command prints when it cannot start at all, are shown.
func (c *Collector) AddAll(r io.Reader) error {
	// Lines are as long as a test likes to make them, so no bufio.Scanner.
	dec := newLineReader(r)
	for {
		line, err := dec.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read test events: %w", err)
		}
		var ev Event
		if len(line) == 0 {
			continue
		}
		if line[0] != '{' || json.Unmarshal(line, &ev) != nil {
			fmt.Fprintf(c.out, "%s\n", line)
			continue
		}
		c.Add(ev)
	}
}

// Add takes one event.
func (c *Collector) Add(ev Event) {
	switch ev.Action {
	case "build-output":
		b := c.builds[ev.ImportPath]
		if b == nil {
			b = new(text)
			c.builds[ev.ImportPath] = b
		}
		b.add(ev.Output)
		return
	case "build-fail":
		return // the package that needed it fails too, and names it
	}
	p := c.packages[ev.Package]
	if p == nil {
		p = &packageState{tests: make(map[string]*testState)}
		c.packages[ev.Package] = p
	}
	if ev.Test != "" {
		p.add(ev)
		return
	}
	switch ev.Action {
	case "output":
		p.output.add(ev.Output)
	case "pass", "fail", "skip":
		c.closePackage(ev)
	}
}

func (p *packageState) add(ev Event) {
	t := p.tests[ev.Test]
	if t == nil {
		t = new(testState)
		p.tests[ev.Test] = t
		p.order = append(p.order, ev.Test)
		for name := ev.Test; ; {
			i := strings.LastIndexByte(name, '/')
			if i < 0 {
				break
			}
			name = name[:i]
			if parent := p.tests[name]; parent != nil {
				parent.parent = true
			}
		}
	}
	switch ev.Action {
	case "output":
		t.output.add(ev.Output)
	case "pass", "fail", "skip":
		t.outcome, t.seconds = ev.Action, ev.Elapsed
	}
}

// closePackage counts a package's tests once its last event is there.
func (c *Collector) closePackage(ev Event) {
	p := c.packages[ev.Package]
	delete(c.packages, ev.Package)
	res := Package{Name: ev.Package, Seconds: ev.Elapsed}
	for _, name := range p.order {
		t := p.tests[name]
		if t.parent && (t.outcome == "pass" || t.outcome == "skip" || p.childFailed(name)) {
			continue
		}
		full := ev.Package + "." + name
		if t.seconds >= slowTest {
			c.group.Slowest = append(c.group.Slowest, Timed{full, t.seconds})
		}
		switch t.outcome {
		case "pass":
			res.Passed++
		case "skip":
			c.skip(&res, full, t.output.skipReason())
		case "fail":
			c.fail(&res, full, t.output.String())
		default:
			c.fail(&res, full+" (did not finish)", t.output.String()+p.output.String())
		}
	}
	switch {
	case ev.Action == "fail" && ev.FailedBuild != "":
		var built string
		if b := c.builds[ev.FailedBuild]; b != nil {
			built = b.String()
		}
		c.fail(&res, ev.Package+" (does not build)", built)
	case ev.Action == "fail" && res.Failed == 0:
		c.fail(&res, ev.Package+" (outside of its tests)", p.output.String())
	case ev.Action == "pass" && len(p.order) == 0:
		c.skip(&res, ev.Package+".", "the package ran no test")
	case ev.Action == "skip" && len(p.order) == 0:
		return // has no test files
	}
	c.group.Packages = append(c.group.Packages, res)
	c.group.add(res.Counts)
	verdict := "ok  "
	if res.Failed > 0 {
		verdict = "FAIL"
	}
	fmt.Fprintf(c.out, "%s %s: %s (%.1f s)\n", verdict, ev.Package, res.Counts, res.Seconds)
}

// childFailed reports whether any test below name failed or never ended, which
// then stands for the failure of name itself.
func (p *packageState) childFailed(name string) bool {
	for other, t := range p.tests {
		if strings.HasPrefix(other, name+"/") && (t.outcome == "fail" || t.outcome == "") {
			return true
		}
	}
	return false
}

func (c *Collector) fail(res *Package, name, output string) {
	res.Failed++
	c.showFailure(name, output)
}

func (c *Collector) skip(res *Package, name, reason string) {
	s := Skip{Name: name, Reason: reason, Allowed: c.skips.Allows(c.group.Name, name, reason)}
	c.group.Skips = append(c.group.Skips, s)
	if s.Allowed || !c.strict {
		res.Skipped++
		return
	}
	c.fail(res, name+" (skipped)", "    "+reason+"\n    the list of allowed skips does not have it\n")
}

func (c *Collector) showFailure(name, output string) {
	c.group.Failures = append(c.group.Failures, name)
	fmt.Fprintf(c.out, "\n--- FAIL %s\n%s\n", name, strings.TrimRight(output, "\n"))
}

// Fail counts a failure that belongs to no test: a process that died, a virtual
// machine that never booted, too few tests. Detail may be empty.
func (c *Collector) Fail(what, detail string) {
	c.group.Failed++
	c.showFailure(what, detail)
}

// Failed is how many failures were counted up to now.
func (c *Collector) Failed() int { return c.group.Failed }

// Passed is how many tests passed in the packages that have ended.
func (c *Collector) Passed() int { return c.group.Passed }

// Close ends the group, whose unfinished packages count as failed, prints its
// summary and returns it.
func (c *Collector) Close() *Group {
	open := make([]string, 0, len(c.packages))
	for name := range c.packages {
		open = append(open, name)
	}
	slices.Sort(open)
	for _, name := range open {
		c.closePackage(Event{Action: "fail", Package: name})
	}
	g := &c.group
	g.Seconds = seconds(time.Since(c.began))
	slices.SortStableFunc(g.Slowest, func(a, b Timed) int { return cmp.Compare(b.Seconds, a.Seconds) })
	if len(g.Slowest) > maxSlowest {
		g.Slowest = g.Slowest[:maxSlowest]
	}
	c.printSummary()
	return g
}

func (c *Collector) printSummary() {
	g := &c.group
	if len(g.Skips) > 0 {
		fmt.Fprintf(c.out, "\nskipped:\n")
		for _, s := range g.Skips {
			fmt.Fprintf(c.out, "  %s: %s\n", s.Name, s.Reason)
		}
	}
	if len(g.Slowest) > 0 {
		fmt.Fprintf(c.out, "\nslow:\n")
		for _, t := range g.Slowest {
			fmt.Fprintf(c.out, "  %6.1f s  %s\n", t.Seconds, t.Name)
		}
	}
	if len(g.Failures) > 0 {
		fmt.Fprintf(c.out, "\nfailed:\n")
		for _, f := range g.Failures {
			fmt.Fprintf(c.out, "  %s\n", f)
		}
	}
	fmt.Fprintf(c.out, "%s (%s, %.1f s): %s\n", g.Name, g.Kernel, g.Seconds, g.Counts)
}

// text keeps the beginning and the end of what is added to it.
type text struct {
	head, tail []byte
	dropped    int
}

func (t *text) add(s string) {
	if room := maxOutput/2 - len(t.head); room > 0 && len(t.tail) == 0 {
		n := min(room, len(s))
		t.head = append(t.head, s[:n]...)
		s = s[n:]
	}
	t.tail = append(t.tail, s...)
	if over := len(t.tail) - maxOutput/2; over > maxOutput/2 {
		t.tail = append(t.tail[:0], t.tail[over:]...)
		t.dropped += over
	}
}

// String returns what was kept, without the lines that only tell that a test
// began or waited.
func (t *text) String() string {
	s := string(t.head)
	if t.dropped > 0 {
		s += fmt.Sprintf("\n[… %d bytes left out …]\n", t.dropped)
	}
	s += string(t.tail)
	return frameLine.ReplaceAllString(s, "")
}

var (
	frameLine = regexp.MustCompile(`(?m)^=== (RUN|PAUSE|CONT|NAME) .*\n`)
	endLine   = regexp.MustCompile(`(?m)^\s*--- SKIP: .*\n`)
	position  = regexp.MustCompile(`(?m)^\s*[\w.-]+\.go:\d+: `)
)

// skipReason is what a skipped test logged, without its position in the source.
func (t *text) skipReason() string {
	s := endLine.ReplaceAllString(t.String(), "")
	s = position.ReplaceAllString(s, "")
	if s = strings.Join(strings.Fields(s), " "); s != "" {
		return s
	}
	return "no reason given"
}
