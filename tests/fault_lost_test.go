package tests

import (
	"os"
	"regexp"
	"slices"
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
			r, truth := overflow(t, append(slices.Clone(flags), "--entries", "outer", "middle", "leaf", "branchy", "tiny")...)
			happened := uint64(1) // the end of the process
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
			// An end of the process that was lost is found out otherwise: it may be
			// counted and be there.
			seen := r.entries + returned + r.totals.Orphans + uint64(len(r.of("exit")))
			if seen+lost != happened && seen+lost != happened+1 {
				t.Errorf("%d entries and %d exits were seen, %d without an entry, %d ends of the process, and %d events were lost: %d happened",
					r.entries, returned, r.totals.Orphans, len(r.of("exit")), lost, happened)
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

// A child whose exec found the buffer full is let go all the same, and its
// program is traced when it works on.
func TestFaultRingOverflowHeld(t *testing.T) {
	t.Parallel()
	needRoot(t)
	child := own(t, targets.Build(t, "calls"))
	l := launchBy(t, (*invocation).start, []string{"--buffer", "64KiB", "--max-overhead", "off", "-o", "/dev/null"},
		"sh", "-c", `echo READY $$; read line; i=0; while [ $i -lt 2000 ]; do i=$((i + 1)); done; "$0" --auto >/dev/null; echo CHILD $?`, child)
	l.signal(syscall.SIGSTOP)
	l.send("go")
	eventually(t, "the child to be held", func() bool {
		pids := running(t, child)
		return len(pids) == 1 && taskState(pids[0]) == "T"
	})
	l.signal(syscall.SIGCONT)
	l.endsWith(0, " in calls, which pid ")
	if out := l.stdout.String(); !strings.Contains(out, "CHILD 0\n") {
		t.Errorf("the command printed %q", out)
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
		`(?m)^ *⚠ [0-9\pZ]+ events lost.*: ring-full$`, `\(events lost inside\)`,
		`(?m)^  ⚠ [0-9\pZ]+ events lost: ring-full`, `(?m)^  · .* open while events were lost`,
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
