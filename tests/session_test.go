package tests

//lint:file-ignore U1000 helpers that the tests of the package share, each of which uses some

import (
	"errors"
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

// stuck is how long sbxtrace may take for a step before the test fails. It is
// generous: it guards against a hang and measures nothing.
const stuck = 2 * time.Minute

// session is a running sbxtrace.
type session struct {
	t      testing.TB
	cmd    *exec.Cmd
	output string // its JSON lines, where it was told to write them
	ready  string // exists when all probes are in, if it was told so
	stdout *stream
	stderr *stream

	exited chan struct{}
	err    error // of Wait; valid after exited
}

// stream is what a process prints, in a file: a target that outlives sbxtrace
// may hold it open without anybody waiting for that.
type stream struct {
	t    testing.TB
	path string
}

// String is what has been printed so far.
func (s *stream) String() string {
	text, err := os.ReadFile(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// sbxtrace starts a command of sbxtrace that traces, with JSON to a file and
// without a limit of overhead, which would take functions out.
func sbxtrace(t testing.TB, command string, args ...string) *session {
	t.Helper()
	return sbxtraceBy(t, nil, command, args...)
}

// sbxtraceBy is sbxtrace started by another program, whose command line is
// wrapper.
func sbxtraceBy(t testing.TB, wrapper []string, command string, args ...string) *session {
	t.Helper()
	i := typed(append([]string{command}, args...)...)
	i.wrapper = wrapper
	return i.tracing(t)
}

// tracing starts sbxtrace with JSON to a file, a ready file, and without a limit
// of overhead, which would take functions out.
func (i *invocation) tracing(t testing.TB) *session {
	t.Helper()
	dir := t.TempDir()
	output, ready := filepath.Join(dir, "out.json"), filepath.Join(dir, "ready")
	with := *i
	with.args = append([]string{i.args[0], "--format", "json", "--max-overhead", "off", "--ready-file", ready, "-o", output}, i.args[1:]...)
	s := with.start(t)
	s.output, s.ready = output, ready
	return s
}

// attach starts `sbxtrace attach` for a process and returns when all probes
// are in.
func attach(t testing.TB, pid int, args ...string) *session {
	t.Helper()
	s := sbxtrace(t, "attach", append([]string{"--pid", strconv.Itoa(pid)}, args...)...)
	s.waitReady()
	return s
}

// waitReady returns when all probes are in, and fails the test if sbxtrace ends
// before.
func (s *session) waitReady() {
	s.t.Helper()
	s.waitFor("all probes to be in", func() bool {
		_, err := os.Stat(s.ready)
		return err == nil
	})
}

// waitFor returns when a condition holds, and fails the test if sbxtrace ends
// before.
func (s *session) waitFor(what string, holds func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(stuck)
	for !holds() {
		select {
		case <-s.exited:
			if holds() {
				return
			}
			s.t.Fatalf("sbxtrace ended (%v) while the test waited for %s\n%s", s.err, what, s.stderr)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("waited %v for %s\n%s", stuck, what, s.stderr)
		}
	}
}

// waitNote returns when sbxtrace has printed a message that contains text.
func (s *session) waitNote(text string) {
	s.t.Helper()
	s.waitFor("a message with "+strconv.Quote(text), func() bool { return strings.Contains(s.stderr.String(), text) })
}

// wait waits until sbxtrace ends, which it does when its last target has, and
// returns what it saw. Its exit status must be 0.
func (s *session) wait() *result {
	s.t.Helper()
	return s.waitStatus(0)
}

// waitStatus is wait for an exit status that need not be 0.
func (s *session) waitStatus(want int) *result {
	s.t.Helper()
	if status := s.status(); status != want {
		s.t.Fatalf("sbxtrace ended with status %d, want %d\n%s", status, want, s.stderr)
	}
	return readResult(s.t, s.output)
}

// stop asks sbxtrace to end and returns what it saw.
func (s *session) stop() *result {
	s.t.Helper()
	s.signal(syscall.SIGINT)
	return s.wait()
}

func (s *session) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("signal %v to sbxtrace: %v\n%s", sig, err, s.stderr)
	}
}

// status waits until sbxtrace ends and returns its exit status.
func (s *session) status() int {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(stuck):
		s.t.Fatalf("sbxtrace did not end within %v\n%s", stuck, s.stderr)
	}
	var exit *exec.ExitError
	if s.err != nil && !errors.As(s.err, &exit) {
		s.t.Fatalf("sbxtrace: %v\n%s", s.err, s.stderr)
	}
	return s.cmd.ProcessState.ExitCode()
}

// own copies a target, with what lies beside it, to a directory of this test:
// a file that no other process has mapped, and that the test may change.
func own(t testing.TB, path string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(path)
	for _, f := range files {
		// The others in a directory of prebuilt programs are none of its own.
		if f.Name() != name && !strings.Contains(f.Name(), ".so") && f.Name() != name+".debug" {
			continue
		}
		copyFile(t, filepath.Join(filepath.Dir(path), f.Name()), filepath.Join(dir, f.Name()))
	}
	return filepath.Join(dir, name)
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	// A process that another test starts meanwhile would inherit the open file
	// for a moment, and the kernel executes no file that is open for writing.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o755); err != nil {
		t.Fatal(err)
	}
}

// start starts a target of its own and waits until it is ready.
func start(t testing.TB, path string, args ...string) *targets.Process {
	t.Helper()
	needRoot(t)
	p := targets.Start(t, own(t, path), args...)
	p.Ready()
	return p
}

// traceAttached attaches to a target, lets it work and end, and returns what
// sbxtrace saw and what happened.
func traceAttached(t testing.TB, path string, args, flags []string) (*result, targets.Truth) {
	t.Helper()
	r, truth, err := traceToEnd(t, path, args, flags)
	if err != nil {
		t.Fatalf("the target ended with %v", err)
	}
	return r, truth
}

// traceToEnd is traceAttached for targets that end otherwise than with status
// 0; it returns the error of [exec.Cmd.Wait].
func traceToEnd(t testing.TB, path string, args, flags []string) (*result, targets.Truth, error) {
	t.Helper()
	p := start(t, path, args...)
	s := attach(t, p.PID(), flags...)
	p.Go()
	truth := p.Truth()
	err := p.Quit()
	return s.wait(), truth, err
}

// traceRun lets sbxtrace start a target, and returns what it saw and what
// happened.
func traceRun(t testing.TB, path string, args, flags []string) (*result, targets.Truth) {
	t.Helper()
	s := run(t, path, args, flags)
	r := s.wait()
	return r, truthOf(t, s.stdout.String())
}

// run starts `sbxtrace run` for a target.
func run(t testing.TB, path string, args, flags []string) *session {
	t.Helper()
	needRoot(t)
	command := append([]string{"--", own(t, path), "--auto"}, args...)
	return sbxtrace(t, "run", append(append([]string(nil), flags...), command...)...)
}
