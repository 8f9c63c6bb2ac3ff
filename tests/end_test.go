package tests

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// unfinished lists the calls that did not return, by function and how they
// ended.
func (r *result) unfinished() map[string]string {
	ends := map[string]string{}
	for _, c := range r.calls {
		if c.End != "" {
			ends[c.Func] = c.End
		}
	}
	return ends
}

func checkUnfinished(t *testing.T, r *result, end string, names ...string) {
	t.Helper()
	ends := r.unfinished()
	for _, name := range names {
		if ends[name] != end {
			t.Errorf("%s ended by %q, want %q", name, ends[name], end)
		}
	}
}

// exit(), with handlers that run on top of open calls, exit() by another thread
// than the first, and _exit().
func TestExits(t *testing.T) {
	for _, mode := range []string{"--exit", "--thread", "--now"} {
		for label, options := range twoBuilds {
			t.Run(mode[2:]+"/"+label, func(t *testing.T) {
				t.Parallel()
				needRoot(t)
				const status = 7
				path := targets.Build(t, "exits", options...)
				r, truth, err := traceToEnd(t, path, []string{mode}, nil)
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != status {
					t.Errorf("the target ended with %v, want status %d", err, status)
				}
				situation{}.compare(t, r, truth)
				checkUnfinished(t, r, "thread-exit", "exit_outer", "exit_middle", "exit_inner")

				s := run(t, path, []string{mode}, nil)
				r = s.waitStatus(status)
				situation{}.compare(t, r, truthOf(t, s.stdout.String()))
				checkUnfinished(t, r, "thread-exit", "exit_outer", "exit_middle", "exit_inner")
			})
		}
	}
}

// A target that crashes leaves all its calls, and `run` reports the signal as
// shells do.
func TestCrash(t *testing.T) {
	for mode, sig := range map[string]syscall.Signal{"--abort": syscall.SIGABRT, "--segv": syscall.SIGSEGV, "--trap": syscall.SIGTRAP} {
		t.Run(mode[2:], func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			path := targets.Build(t, "crash")
			r, truth, err := traceToEnd(t, path, []string{mode}, nil)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != sig {
				t.Errorf("the target ended with %v, want %v", err, sig)
			}
			situation{}.compare(t, r, truth)
			checkUnfinished(t, r, "thread-exit", "crash_outer", "crash_middle", "crash_inner")

			s := run(t, path, []string{mode}, nil)
			r = s.waitStatus(128 + int(sig))
			situation{}.compare(t, r, truthOf(t, s.stdout.String()))
		})
	}
}
