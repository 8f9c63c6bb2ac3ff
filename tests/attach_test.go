package tests

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// intact checks that the code of a process is what is in its files: no
// breakpoint is left.
func intact(t testing.TB, pid int) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	compared := 0
	for line := range strings.Lines(string(maps)) {
		var start, end, offset, inode uint64
		var perms, dev string
		if _, err := fmt.Sscanf(line, "%x-%x %s %x %s %d", &start, &end, &perms, &offset, &dev, &inode); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if !strings.Contains(perms, "x") || inode == 0 {
			continue
		}
		file, err := os.ReadFile(fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, start, end))
		if err != nil {
			t.Fatal(err)
		}
		code := make([]byte, end-start)
		if _, err := mem.ReadAt(code, int64(start)); err != nil {
			t.Fatalf("read %s: %v", line, err)
		}
		want := file[min(offset, uint64(len(file))):]
		want = want[:min(len(want), len(code))]
		if !bytes.Equal(code[:len(want)], want) {
			i := 0
			for code[i] == want[i] {
				i++
			}
			t.Errorf("byte %#x of the file is %#02x in memory, %#02x in the file: %s", offset+uint64(i), code[i], want[i], line)
		}
		compared += len(want)
	}
	if compared == 0 {
		t.Errorf("process %d has no code", pid)
	}
}

// One perf event for each site, as on kernels without uprobe_multi, shows the
// same calls. Newer kernels take a tenth of a second to remove each, one after
// the other, hence few functions.
func TestAttachPerfEvents(t *testing.T) {
	for _, s := range []situation{
		{target: "calls", only: []string{"outer", "middle", "leaf"}},
		{target: "exceptions", only: []string{"frame1", "frame2", "frame3", "after_catch"}, attachOnly: true},
		{target: "forker", only: []string{"child_work", "child_leaf", "exec_leaf"}, attachOnly: true},
		{target: "gocalls", only: []string{"main.inner", "main.leaf", "main.fib"}, runOnly: true},
		{target: "libcaller", only: []string{"lib_work", "lib_hidden", "app_step"}, attachOnly: true, args: []string{"--rounds", "5"}},
	} {
		s.flags = []string{"--attach-with", "perf-event"}
		s.inBuild(t, s.target)
	}
}

func TestAttachUprobeMulti(t *testing.T) {
	t.Parallel()
	needRoot(t)
	if !kernelAtLeast(t, 6, 6) {
		s := sbxtrace(t, "attach", "--pid", strconv.Itoa(start(t, targets.Build(t, "calls")).PID()), "--attach-with", "uprobe-multi")
		if status := s.status(); status != 1 || !strings.Contains(s.stderr.String(), "6.6") {
			t.Errorf("status %d: %s", status, s.stderr)
		}
		return
	}
	situation{target: "calls", flags: []string{"--attach-with", "uprobe-multi"}}.check(t)
}

// Two sbxtraces on one target, on the same functions: each sees all.
func TestTwoTracers(t *testing.T) {
	for _, target := range []string{"calls", "gocalls", "exceptions"} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			p := start(t, targets.Build(t, target), "--rounds", "20")
			first := attach(t, p.PID())
			second := attach(t, p.PID(), "--level", "args")
			third := attach(t, p.PID(), "--level", "count")
			p.Go()
			truth := p.Truth()
			third.stop()
			intactCalls := second.stop()
			if err := p.Quit(); err != nil {
				t.Error(err)
			}
			situation{}.compare(t, first.wait(), truth)
			situation{}.compare(t, intactCalls, truth)
		})
	}
}

// The second of two tracers goes while the first goes on.
func TestTracerLeaves(t *testing.T) {
	t.Parallel()
	p := start(t, targets.Build(t, "calls"), "--rounds", "200")
	first := attach(t, p.PID())
	second := attach(t, p.PID())
	second.stop()
	p.Go()
	truth := p.Truth()
	if err := p.Quit(); err != nil {
		t.Error(err)
	}
	situation{}.compare(t, first.wait(), truth)
}

// Attaching and detaching a hundred times under load, five at once, harms
// nothing: the target checks its own results.
func TestAttachOften(t *testing.T) {
	const rounds, together = 10, 5
	for target, args := range map[string][]string{
		"busy":   {"--threads", "1"},
		"gosoak": {"--workers", "1"},
	} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			p := start(t, targets.Build(t, target), args...)
			p.Go()
			p.Rate()
			for range rounds {
				sessions := make([]*session, together)
				for i := range sessions {
					level := []string{"calls", "count", "latency", "args", "calls"}[i]
					sessions[i] = sbxtrace(t, "attach", "--pid", strconv.Itoa(p.PID()), "--summary", "--level", level)
				}
				for i, s := range sessions {
					s.waitReady()
					if i == together-1 {
						s.signal(syscall.SIGKILL) // a killed sbxtrace leaves nothing either
					} else {
						s.signal(syscall.SIGINT)
					}
				}
				for i, s := range sessions {
					if status := s.status(); i < together-1 && status != 0 {
						t.Errorf("status %d\n%s", status, s.stderr)
					}
				}
				if !p.Alive() {
					t.Fatal("the target died")
				}
			}
			intact(t, p.PID())
			truth := p.Stop()
			if err := p.Quit(); err != nil {
				t.Errorf("the target ended with %v", err)
			}
			if truth.Values["failures"] != 0 {
				t.Errorf("%d of the target's own checks failed", truth.Values["failures"])
			}
		})
	}
}

// While probes are in, the memory does differ: or intact would see nothing.
func TestIntactSeesProbes(t *testing.T) {
	t.Parallel()
	p := start(t, targets.Build(t, "calls"))
	s := attach(t, p.PID())
	seen := &recorder{TB: t}
	intact(seen, p.PID())
	if seen.failures == 0 {
		t.Error("the code of a probed process is that of its file")
	}
	s.stop()
	intact(t, p.PID())
}

// recorder is a test that takes failures for what is wanted.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failures int
}

func (r *recorder) Errorf(string, ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures++
}
