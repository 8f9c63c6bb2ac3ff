package tests

//lint:file-ignore U1000 helpers that the tests of the package share, each of which uses some

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// invocation is a command line of sbxtrace as a user types it, and the
// surroundings in which that happens.
type invocation struct {
	args    []string
	wrapper []string  // command line of a program that starts sbxtrace; nil: none
	dir     string    // working directory; empty: that of the test
	session bool      // in a session of its own, without a terminal
	user    uint32    // 0: as the test's
	caps    []uintptr // of another user: bits of capability.h
	stdin   *os.File  // nil: the null device
	stdout  *os.File  // nil: the session's stream
}

// typed is sbxtrace with these arguments.
func typed(args ...string) *invocation { return &invocation{args: args} }

// attachTo is `sbxtrace attach` for a process.
func attachTo(pid int, args ...string) *invocation {
	return typed(append([]string{"attach", "--pid", strconv.Itoa(pid)}, args...)...)
}

// start starts sbxtrace. It is killed when the test ends, if not before.
func (i *invocation) start(t testing.TB) *session {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	s := &session{
		t: t, stdout: &stream{t, filepath.Join(dir, "stdout")}, stderr: &stream{t, filepath.Join(dir, "stderr")},
		exited: make(chan struct{}),
	}
	line := append(append(append([]string(nil), i.wrapper...), sbxtraceBin), i.args...)
	s.cmd = exec.Command(line[0], line[1:]...)
	s.cmd.Dir = i.dir
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: i.session}
	if i.user != 0 {
		s.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: i.user, Gid: i.user}
		s.cmd.SysProcAttr.AmbientCaps = i.caps
	}
	if i.stdin != nil {
		s.cmd.Stdin = i.stdin
	}
	for _, out := range []struct {
		to    *io.Writer
		given *os.File
		path  string
	}{{&s.cmd.Stdout, i.stdout, s.stdout.path}, {&s.cmd.Stderr, nil, s.stderr.path}} {
		f := out.given
		if f == nil {
			var err error
			// Appending: sbxtrace and its target write by turns.
			if f, err = os.OpenFile(out.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
				t.Fatal(err)
			}
			defer f.Close()
		}
		*out.to = f
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start sbxtrace: %v", err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		if i.session {
			syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // what it started
		}
		<-s.exited
	})
	return s
}

// gives runs sbxtrace to its end and checks it as endsWith does.
func (i *invocation) gives(t testing.TB, status int, stderr ...string) *session {
	t.Helper()
	s := i.start(t)
	s.endsWith(status, stderr...)
	return s
}

// endsWith waits until sbxtrace ends and checks its exit status, and that each
// text is in what it wrote to stderr. It never ends in a stack trace, and when
// it fails the last line says why.
func (s *session) endsWith(status int, stderr ...string) {
	s.t.Helper()
	if got := s.status(); got != status {
		s.t.Errorf("%s ended with status %d, want %d\n%s", s, got, status, s.stderr)
	}
	said := s.stderr.String()
	for _, text := range stderr {
		if !strings.Contains(said, text) {
			s.t.Errorf("%s does not say %q:\n%s", s, text, said)
		}
	}
	for _, trace := range []string{"panic: ", "fatal error: ", "goroutine 1 ["} {
		if strings.Contains(said, trace) {
			s.t.Errorf("%s crashed:\n%s", s, said)
		}
	}
	lines := strings.Split(strings.TrimSuffix(said, "\n"), "\n")
	if last := lines[len(lines)-1]; status == 1 && !strings.HasPrefix(last, "sbxtrace: ") {
		s.t.Errorf("the last line of %s is no message of its own:\n%s", s, said)
	}
}

// String is the command line.
func (s *session) String() string {
	return strings.Join(append([]string{filepath.Base(s.cmd.Path)}, s.cmd.Args[1:]...), " ")
}

// waitAttached returns when sbxtrace has said that all probes are in.
func (s *session) waitAttached() {
	s.t.Helper()
	s.waitFor("all probes to be in", func() bool { return strings.Contains(s.stderr.String(), "sbxtrace: attached: ") })
}

// eventually returns when a condition holds, which must come about by itself.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(stuck); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", stuck, what)
		}
	}
}

// taskState is the state of a process as ps(1) shows it: R, S, T, Z, and so on.
// It is empty when there is no such process.
func taskState(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, state, _ := strings.Cut(string(stat), ") ") // a name may contain anything
	return state[:1]
}

// unprobed returns when no probe is left in a process. The kernel takes them
// out a little after the end of an sbxtrace that was killed.
func unprobed(t testing.TB, pid int) {
	t.Helper()
	eventually(t, "the kernel to take the probes out", func() bool {
		seen := &recorder{TB: t}
		intact(seen, pid)
		return seen.failures == 0
	})
}

// unharmed checks that a target, which waits to be told to work, has no probe
// in it, does its work and ends as it should.
func unharmed(t testing.TB, p *targets.Process) {
	t.Helper()
	intact(t, p.PID())
	p.Go()
	if truth := p.Truth(); len(truth.Counts) == 0 {
		t.Errorf("%s did nothing", p)
	}
	if err := p.Quit(); err != nil {
		t.Errorf("%s ended with %v", p, err)
	}
}
