package testsum

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// stream renders events in the form of `go test -json`, from a short notation:
// action, test and text, separated by bars.
func stream(pkg string, lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		f := strings.SplitN(l, "|", 3)
		fmt.Fprintf(&b, `{"Action":%q,"Package":%q`, f[0], pkg)
		if len(f) > 1 && f[1] != "" {
			fmt.Fprintf(&b, `,"Test":%q`, f[1])
		}
		if len(f) > 2 {
			fmt.Fprintf(&b, `,"Output":%q`, f[2])
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func TestCollector(t *testing.T) {
	skips, err := ParseSkips(strings.NewReader("# why\nunit p\\.TestOK needs a .* world\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		events string
		strict bool
		want   Counts
		failed []string // the failures' names
		shows  []string // parts of what is printed
	}{
		{
			name:   "pass",
			events: stream("p", "start", "run|TestA", "output|TestA|=== RUN TestA\n", "pass|TestA", "pass"),
			want:   Counts{Passed: 1},
			shows:  []string{"ok   p: 1 passed, 0 failed"},
		},
		{
			name:   "subtests stand for their parent",
			events: stream("p", "run|TestA", "run|TestA/x", "run|TestA/y", "pass|TestA/x", "pass|TestA/y", "pass|TestA", "pass"),
			want:   Counts{Passed: 2},
		},
		{
			name:   "failed subtest",
			events: stream("p", "run|TestA", "run|TestA/x", "run|TestA/y", "output|TestA/x|cause\n", "fail|TestA/x", "pass|TestA/y", "fail|TestA", "fail"),
			want:   Counts{Passed: 1, Failed: 1},
			failed: []string{"p.TestA/x"},
			shows:  []string{"--- FAIL p.TestA/x\ncause\n"},
		},
		{
			name:   "parent fails by itself",
			events: stream("p", "run|TestA", "run|TestA/x", "pass|TestA/x", "output|TestA|cause\n", "fail|TestA", "fail"),
			want:   Counts{Passed: 1, Failed: 1},
			failed: []string{"p.TestA"},
		},
		{
			name:   "panic leaves a test unfinished",
			events: stream("p", "run|TestA", "output|TestA|panic: oops\n", "output||exit status 2\n", "fail"),
			want:   Counts{Failed: 1},
			failed: []string{"p.TestA (did not finish)"},
			shows:  []string{"panic: oops", "exit status 2"},
		},
		{
			name:   "stream ends too early",
			events: stream("p", "run|TestA", "pass|TestA", "run|TestB"),
			want:   Counts{Passed: 1, Failed: 1},
			failed: []string{"p.TestB (did not finish)"},
		},
		{
			name:   "stream ends between tests",
			events: stream("p", "run|TestA", "pass|TestA"),
			want:   Counts{Passed: 1, Failed: 1},
			failed: []string{"p (outside of its tests)"},
		},
		{
			name:   "TestMain fails",
			events: stream("p", "output||no root\n", "fail"),
			want:   Counts{Failed: 1},
			failed: []string{"p (outside of its tests)"},
			shows:  []string{"no root"},
		},
		{
			name: "build fails",
			events: `{"ImportPath":"p [p.test]","Action":"build-output","Output":"x.go:1: undefined: y\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
{"Action":"start","Package":"p"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}
`,
			want:   Counts{Failed: 1},
			failed: []string{"p (does not build)"},
			shows:  []string{"undefined: y"},
		},
		{
			name:   "allowed skip",
			strict: true,
			events: stream("p", "run|TestOK", "output|TestOK|    a_test.go:12: needs a better world\n", "output|TestOK|--- SKIP: TestOK (0.00s)\n", "skip|TestOK", "pass"),
			want:   Counts{Skipped: 1},
			shows:  []string{"  p.TestOK: needs a better world\n"},
		},
		{
			name:   "skip that is not allowed",
			strict: true,
			events: stream("p", "run|TestB", "output|TestB|    a_test.go:12: needs a better world\n", "skip|TestB", "pass"),
			want:   Counts{Failed: 1},
			failed: []string{"p.TestB (skipped)"},
		},
		{
			name:   "skip that is not allowed, for a person",
			events: stream("p", "run|TestB", "output|TestB|    a_test.go:12: other\n", "skip|TestB", "pass"),
			want:   Counts{Skipped: 1},
		},
		{
			name:   "package that runs no test",
			strict: true,
			events: stream("p", "output||PASS\n", "pass"),
			want:   Counts{Failed: 1},
			failed: []string{"p. (skipped)"},
		},
		{
			name:   "package without test files",
			strict: true,
			events: stream("p", "output||?   p [no test files]\n", "skip"),
			want:   Counts{},
		},
		{
			name:   "text between events",
			events: "go: cannot find main module\n" + stream("p", "run|TestA", "pass|TestA", "pass"),
			want:   Counts{Passed: 1},
			shows:  []string{"cannot find main module"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			c := NewCollector(&out, "unit", skips, tc.strict)
			if err := c.AddAll(strings.NewReader(tc.events)); err != nil {
				t.Fatal(err)
			}
			g := c.Close()
			if g.Counts != tc.want {
				t.Errorf("counts = %v, want %v", g.Counts, tc.want)
			}
			if !slices.Equal(g.Failures, tc.failed) {
				t.Errorf("failures = %q, want %q", g.Failures, tc.failed)
			}
			for _, s := range tc.shows {
				if !strings.Contains(out.String(), s) {
					t.Errorf("output lacks %q:\n%s", s, out.String())
				}
			}
		})
	}
}

func TestSlowTestsAreNamed(t *testing.T) {
	c := NewCollector(new(bytes.Buffer), "unit", SkipList{}, true)
	for i, s := range []float64{1, 3, 2} {
		name := fmt.Sprintf("Test%d", i)
		c.Add(Event{Action: "run", Package: "p", Test: name})
		c.Add(Event{Action: "pass", Package: "p", Test: name, Elapsed: s})
	}
	c.Add(Event{Action: "pass", Package: "p"})
	want := []Timed{{"p.Test1", 3}, {"p.Test2", 2}}
	if got := c.Close().Slowest; !slices.Equal(got, want) {
		t.Errorf("slowest = %v, want %v", got, want)
	}
}

func TestTextIsBounded(t *testing.T) {
	var x text
	line := strings.Repeat("a", 1000) + "\n"
	x.add("first\n")
	for range 10_000 {
		x.add(line)
	}
	x.add("last\n")
	s := x.String()
	if len(s) > 2*maxOutput {
		t.Errorf("%d bytes kept, want at most %d", len(s), 2*maxOutput)
	}
	if !strings.HasPrefix(s, "first\n") || !strings.HasSuffix(s, "last\n") {
		t.Error("the first or the last line is lost")
	}
	if !strings.Contains(s, "bytes left out") {
		t.Error("the gap is not marked")
	}
}

func TestLongLines(t *testing.T) {
	in := strings.Repeat("x", 3*maxLine) + "\r\nshort\n\nend"
	r := newLineReader(strings.NewReader(in))
	var got []string
	for {
		line, err := r.next()
		if err != nil {
			break
		}
		got = append(got, string(line))
	}
	if len(got) != 4 || got[1] != "short" || got[2] != "" || got[3] != "end" {
		t.Fatalf("%d lines, last %.20q", len(got), got[len(got)-1])
	}
	if len(got[0]) < maxLine || len(got[0]) > maxLine+(64<<10) {
		t.Errorf("long line kept with %d bytes", len(got[0]))
	}
}

func TestParseSkipsErrors(t *testing.T) {
	for in, want := range map[string]string{
		"unit p.TestA":         "line 1: want a group, a test and a reason",
		"\nunit":               "line 2: want a group, a test and a reason",
		"# fine\n\nunit ( why": "line 3: error parsing regexp",
	} {
		_, err := ParseSkips(strings.NewReader(in))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseSkips(%q) = %v, want %q", in, err, want)
		}
	}
}

// The repository's own list must be readable, or no test would be run at all.
func TestRepositorySkips(t *testing.T) {
	if _, err := ReadSkips(filepath.Join("..", "..", ".ci", "allowed-skips")); err != nil {
		t.Fatal(err)
	}
}

func TestCheckAndTotal(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	check := func(name string, command ...string) Counts {
		t.Helper()
		g, err := Check(context.Background(), Options{Out: &out, Name: name, Results: dir}, command)
		if err != nil {
			t.Fatal(err)
		}
		return g.Counts
	}
	if got := check("good", "true"); got != (Counts{Passed: 1}) {
		t.Errorf("good: %v", got)
	}
	if got := check("bad", "sh", "-c", "echo why; exit 3"); got != (Counts{Failed: 1}) {
		t.Errorf("bad: %v", got)
	}
	if !strings.Contains(out.String(), "exit status 3\nwhy\n") {
		t.Errorf("failure shown as %q", out.String())
	}
	for _, tc := range []struct {
		groups []string
		last   string
	}{
		{[]string{"good"}, "1 passed, 0 failed"},
		{[]string{"good", "bad"}, "1 passed, 1 failed"},
		{[]string{"good", "missing"}, "1 passed, 1 failed"},
		{nil, "0 passed, 1 failed"},
	} {
		out.Reset()
		Total(&out, dir, tc.groups)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if got := lines[len(lines)-1]; got != tc.last {
			t.Errorf("total of %v ends with %q, want %q", tc.groups, got, tc.last)
		}
	}
}

// A run that dies must not leave the result of an earlier one behind.
func TestOldResultIsForgotten(t *testing.T) {
	dir := t.TempDir()
	g := Group{Name: "a/b", Counts: Counts{Passed: 7}}
	if err := g.Save(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadGroup(dir, "a/b"); err != nil || got.Passed != 7 {
		t.Fatalf("ReadGroup = %v, %v", got, err)
	}
	for range 2 {
		if err := Forget(dir, "a/b"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadGroup(dir, "a/b"); !errors.Is(err, ErrNoResult) {
		t.Errorf("ReadGroup after Forget: %v", err)
	}
}

// GoTest on a module of its own: the real stream of the installed go command.
func TestGoTest(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":         "module m\ngo 1.26\n",
		"ok/a_test.go":   "package a\nimport \"testing\"\nfunc TestA(t *testing.T) {}\nfunc TestB(t *testing.T) { t.Run(\"x\", func(t *testing.T) {}); t.Run(\"y\", func(t *testing.T) { t.Skip(\"not here\") }) }\n",
		"bad/a_test.go":  "package a\nimport \"testing\"\nfunc TestA(t *testing.T) { t.Error(\"wrong value\") }\nfunc TestP(t *testing.T) { panic(\"oops\") }\n",
		"none/a_test.go": "package a\nfunc f() { undefined() }\n",
	} {
		path := filepath.Join(dir, "src", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(filepath.Join(dir, "src"))
	for _, tc := range []struct {
		args   []string
		strict bool
		min    int
		want   Counts
		shows  string
	}{
		{args: []string{"./ok"}, min: 2, want: Counts{Passed: 2, Skipped: 1}, shows: "m/ok.TestB/y: not here"},
		{args: []string{"./ok"}, strict: true, want: Counts{Passed: 2, Failed: 1}, shows: "m/ok.TestB/y (skipped)"},
		{args: []string{"./ok"}, min: 3, want: Counts{Passed: 2, Failed: 1, Skipped: 1}, shows: "2 passed, expected 3 or more"},
		{args: []string{"./bad"}, want: Counts{Failed: 2}, shows: "wrong value"},
		{args: []string{"./none"}, want: Counts{Failed: 1}, shows: "undefined: undefined"},
		{args: []string{"./nowhere"}, want: Counts{Failed: 1}, shows: "nowhere"},
	} {
		var out bytes.Buffer
		o := Options{Out: &out, Name: "g", Results: filepath.Join(dir, "results"), Strict: tc.strict, Min: tc.min}
		g, err := GoTest(context.Background(), o, tc.args)
		if err != nil {
			t.Fatal(err)
		}
		if g.Counts != tc.want || !strings.Contains(out.String(), tc.shows) {
			t.Errorf("go test %v: %v, want %v and %q in\n%s", tc.args, g.Counts, tc.want, tc.shows, out.String())
		}
	}
}
