package tests

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// soakTime is how long a soak lasts: $SBXTRACE_SOAK, else long enough to be
// worth it.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SBXTRACE_SOAK")
	if text == "" {
		return 5 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("SBXTRACE_SOAK: %v", err)
	}
	return d
}

// A Go program under constant garbage collection, with stacks that grow and
// move, panics that are recovered and goroutines that come and go, is traced at
// full speed and all the while checks its own results: every call is seen, and
// the program does not notice.
func TestSoakGo(t *testing.T) {
	needRoot(t)
	p := targets.Start(t, targets.Build(t, "gosoak"))
	p.Ready()
	// Every event is paired and summed up; a line for each would fill the disk.
	s := attach(t, p.PID(), "--summary")
	p.Go()
	time.Sleep(soakTime(t)) // the length of the soak is what is asked for
	p.Signal(syscall.SIGTERM)
	truth := p.Truth()
	if n := truth.Values["failures"]; n != 0 {
		t.Errorf("the program found %v of its results wrong", n)
	}
	p.Quit()
	if err := p.Wait(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
	r := s.wait()
	if r.totals.Lost == 0 {
		for name, want := range truth.Counts {
			if got := r.rows[name].Calls; got != want {
				t.Errorf("%s: %d calls, the program made %d", name, got, want)
			}
		}
	} else {
		t.Logf("%d events lost", r.totals.Lost)
	}
}

// The target outlives a governed session too, in which functions are taken out
// while goroutines are inside them.
func TestSoakGoGoverned(t *testing.T) {
	needRoot(t)
	p := targets.Start(t, targets.Build(t, "gosoak"))
	p.Ready()
	p.Go()
	for range 5 {
		cmd := exec.Command(sbxtraceBin, "attach", "--pid", strconv.Itoa(p.PID()), "--duration", "300ms", "--summary", "*")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	p.Signal(syscall.SIGTERM)
	if n := p.Truth().Values["failures"]; n != 0 {
		t.Errorf("the program found %v of its results wrong", n)
	}
	p.Quit()
	if err := p.Wait(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
}
