package tests

import (
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// overflow traces a target while sbxtrace stands still, so that the smallest
// buffer overflows, and lets it go on.
func overflow(t *testing.T, flags ...string) (*result, targets.Truth) {
	t.Helper()
	p := start(t, targets.Build(t, "calls"), "--rounds", "400")
	s := attach(t, p.PID(), append([]string{"--buffer", "64KiB"}, flags...)...)
	s.signal(syscall.SIGSTOP)
	p.Go()
	truth := p.Truth()
	s.signal(syscall.SIGCONT)
	if err := p.Quit(); err != nil {
		t.Errorf("the target ended with %v", err)
	}
	return s.wait(), truth
}

// What finds the buffer full is counted, to the last event: entries and exits
// that came and those that are lost are all that happened. Calls that were open
// meanwhile are marked.
func TestFaultRingOverflow(t *testing.T) {
	for name, flags := range map[string][]string{"calls": nil, "args": {"--level", "args"}, "stacks": {"--level", "stacks"}, "ret": {"--returns", "ret"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, truth := overflow(t, append(flags, "--entries")...)
			var happened uint64
			for fn, n := range truth.Counts {
				happened += n + truth.Returns[fn]
			}
			var lost uint64
			for _, e := range r.of("lost") {
				if e.Cause != "ring-full" || e.Count == 0 {
					t.Errorf("%+v", e)
				}
				lost += e.Count
			}
			returned, open, marked := uint64(0), 0, 0
			for _, c := range r.calls {
				if c.End == "" {
					returned++
				} else {
					open++
				}
				if c.Gap {
					marked++
				}
			}
			if lost == 0 || lost != r.totals.Lost {
				t.Errorf("%d events lost, the totals say %d", lost, r.totals.Lost)
			}
			if seen := r.entries + returned + r.totals.Orphans; seen+lost != happened {
				t.Errorf("%d entries and %d exits were seen, %d without an entry, and %d events were lost: %d happened",
					r.entries, returned, r.totals.Orphans, lost, happened)
			}
			if marked == 0 || uint64(marked) != r.totals.Gaps {
				t.Errorf("%d calls are marked, the totals say %d; %d have no return", marked, r.totals.Gaps, open)
			}
		})
	}
}

// Levels that send no calls lose none, however small the buffer.
func TestFaultRingOverflowAggregated(t *testing.T) {
	for _, level := range []string{"count", "latency"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			r, truth := overflow(t, "--level", level)
			aggregated(t, r, truth)
		})
	}
}

// A person is told in the tree, where they are missing, and in the summary.
func TestFaultRingOverflowShown(t *testing.T) {
	t.Parallel()
	p := start(t, targets.Build(t, "calls"), "--rounds", "400")
	s := attachTo(p.PID(), "--buffer", "64KiB", "--max-overhead", "off").start(t)
	s.waitAttached()
	s.signal(syscall.SIGSTOP)
	p.Go()
	p.Truth()
	s.signal(syscall.SIGCONT)
	if err := p.Quit(); err != nil {
		t.Errorf("the target ended with %v", err)
	}
	s.endsWith(0)
	shown := s.stdout.String()
	for _, want := range []string{
		`(?m)^ *⚠ [0-9 ,]+ events lost.*: ring-full$`, `\(events lost inside\)`,
		`(?m)^  ⚠ [0-9 ,]+ events lost: ring-full`, `(?m)^  · .* open while events were lost`,
	} {
		if !regexp.MustCompile(want).MatchString(shown) {
			t.Errorf("nothing like %s in\n%s", want, last(shown, 40))
		}
	}
	if os.Getenv("NO_COLOR") == "" && strings.Contains(shown, "\x1b") {
		t.Error("there are colours in a file")
	}
}

// last returns the last lines of a text.
func last(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
