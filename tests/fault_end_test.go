package tests

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/targets"
	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// Whatever asks attach to end, it says what it has seen, and the target goes on
// without a probe.
func TestFaultAttachSignalled(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			p := start(t, targets.Build(t, "calls"))
			s := attachTo(p.PID()).start(t)
			s.waitAttached()
			s.signal(sig)
			s.endsWith(0)
			if !strings.Contains(s.stdout.String(), "0 calls of 0 functions") {
				t.Errorf("no summary:\n%s", s.stdout)
			}
			unharmed(t, p)
		})
	}
}

// A killed sbxtrace leaves nothing behind either: the kernel sees to it.
func TestFaultAttachKilled(t *testing.T) {
	for _, returns := range []string{"uretprobe", "ret"} {
		t.Run(returns, func(t *testing.T) {
			t.Parallel()
			p := start(t, targets.Build(t, "calls"))
			s := attachTo(p.PID(), "--returns", returns).start(t)
			s.waitAttached()
			s.signal(syscall.SIGKILL)
			s.status()
			unprobed(t, p.PID())
			unharmed(t, p)
		})
	}
}

// Killed in the middle of attaching.
func TestFaultKilledWhileAttaching(t *testing.T) {
	t.Parallel()
	p := start(t, targets.Build(t, "calls"))
	for i := range 8 {
		s := attachTo(p.PID()).start(t)
		time.Sleep(time.Duration(i) * 15 * time.Millisecond) // anywhere: no moment is special
		s.signal(syscall.SIGKILL)
		s.status()
	}
	unprobed(t, p.PID())
	unharmed(t, p)
}

// --duration ends the session and not the target.
func TestFaultDuration(t *testing.T) {
	t.Parallel()
	p := start(t, targets.Build(t, "calls"))
	attachTo(p.PID(), "--duration", "50ms").gives(t, 0, "attached: ")
	unharmed(t, p)
}

// A reader that stands still blocks sbxtrace, the first Ctrl-C cannot be
// answered; the second ends it.
func TestFaultTwoInterrupts(t *testing.T) {
	t.Parallel()
	p := start(t, targets.Build(t, "busy"), "--threads", "1")
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	// Not by return probes: see KNOWN_ISSUES.md on detaching from a busy target.
	i := attachTo(p.PID(), "--max-overhead", "off", "--returns", "ret")
	i.stdout = writer
	s := i.start(t)
	writer.Close()
	s.waitAttached()
	p.Go()
	p.Rate() // the pipe has long been full
	s.signal(syscall.SIGINT)
	select {
	case <-s.exited:
		t.Fatalf("it ended although its output was blocked\n%s", s.stderr)
	case <-time.After(200 * time.Millisecond):
	}
	s.signal(syscall.SIGINT)
	s.status()
	p.Stop()
	if err := p.Quit(); err != nil {
		t.Errorf("the target ended with %v", err)
	}
}

// launched is a target that `run` started, with pipes that outlive sbxtrace.
type launched struct {
	*session
	pid   int // of the target
	stdin *os.File
}

// launch starts a command by `run` and waits until it has printed a line that
// begins with "READY " and its process id.
func launch(t testing.TB, command ...string) *launched {
	t.Helper()
	return launchBy(t, (*invocation).start, nil, command...)
}

// launchTracing is launch with JSON to a file, as tracing.
func launchTracing(t testing.TB, command ...string) *launched {
	t.Helper()
	return launchBy(t, (*invocation).tracing, nil, command...)
}

func launchBy(t testing.TB, begin func(*invocation, testing.TB) *session, flags []string, command ...string) *launched {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { writer.Close() })
	i := typed(slices.Concat([]string{"run"}, flags, []string{"--"}, command)...)
	i.stdin = reader
	l := &launched{session: begin(i, t), stdin: writer}
	reader.Close()
	l.waitFor("the target to be ready", func() bool { return strings.HasSuffix(l.stdout.String(), "\n") })
	word, rest, _ := strings.Cut(strings.TrimSpace(l.stdout.String()), " ")
	if l.pid, err = strconv.Atoi(rest); err != nil || word != "READY" {
		t.Fatalf("the target printed %q", l.stdout.String())
	}
	t.Cleanup(func() { syscall.Kill(l.pid, syscall.SIGKILL) })
	return l
}

func (l *launched) send(line string) {
	l.t.Helper()
	if _, err := l.stdin.WriteString(line + "\n"); err != nil {
		l.t.Fatal(err)
	}
}

// What asks `run` to end is passed on: the command ends, and then sbxtrace,
// with its status, although a process that the command started lives on.
func TestFaultRunSignalled(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			i := typed("run", "-o", "/dev/null", "--", "sh", "-c", "ulimit -c 0; sleep 1000 & kill -STOP $$; wait")
			i.session = true // without a terminal, as services and CI runners start it
			s := i.start(t)
			command := childOf(t, s, "sh")
			s.waitFor("the command to stop itself", func() bool { return taskState(command) == "T" })
			s.signal(sig)
			if err := syscall.Kill(command, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			s.endsWith(128 + int(sig))
		})
	}
}

// childOf is the process of a name that sbxtrace has started.
func childOf(t testing.TB, s *session, name string) int {
	t.Helper()
	found := 0
	s.waitFor(name+" to run", func() bool {
		pids, err := symbolizer.Children(s.cmd.Process.Pid)
		if err != nil {
			return false // it has ended
		}
		for _, pid := range pids {
			if comm, err := symbolizer.Comm(pid); err == nil && comm == name {
				found = pid
			}
		}
		return found != 0
	})
	t.Cleanup(func() { syscall.Kill(found, syscall.SIGKILL) })
	return found
}

// A target outlives an sbxtrace that is killed, whole.
func TestFaultRunKilled(t *testing.T) {
	t.Parallel()
	l := launch(t, own(t, targets.Build(t, "calls")))
	l.signal(syscall.SIGKILL)
	l.status()
	unprobed(t, l.pid)
	l.send("go")
	eventually(t, "the target to work", func() bool { return strings.Contains(l.stdout.String(), `{"counts"`) })
	l.send("quit")
	eventually(t, "the target to end", func() bool { return taskState(l.pid) == "" })
}

// One that is killed before it lets the command go takes it along: it has done
// nothing yet, and nobody else would let it go.
func TestFaultRunKilledEarly(t *testing.T) {
	t.Parallel()
	mine := own(t, targets.Build(t, "calls"))
	for i := range 10 {
		s := typed("run", "-o", "/dev/null", "--", mine).start(t)
		time.Sleep(time.Duration(i) * 10 * time.Millisecond) // anywhere: no moment is special
		s.signal(syscall.SIGKILL)
		s.status()
	}
	// Those that were let go have read the end of their input, and ended.
	eventually(t, "the commands to end", func() bool { return len(running(t, mine)) == 0 })
}

// running are the processes that execute a file.
func running(t testing.TB, path string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if exe, err := os.Readlink("/proc/" + e.Name() + "/exe"); err == nil && exe == path {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A child that was stopped at exec, until its new program is attached, goes on
// when sbxtrace is killed before it comes to that.
func TestFaultRunKilledHolding(t *testing.T) {
	t.Parallel()
	child := own(t, targets.Build(t, "calls"))
	l := launch(t, "sh", "-c", `echo READY $$; read line; "$0" --auto >/dev/null; echo CHILD $?; read line`, child)
	l.signal(syscall.SIGSTOP)
	l.send("go")
	eventually(t, "the child to be held", func() bool {
		pids := running(t, child)
		return len(pids) == 1 && taskState(pids[0]) == "T"
	})
	l.signal(syscall.SIGKILL)
	l.status()
	eventually(t, "the child to go on", func() bool { return strings.Contains(l.stdout.String(), "CHILD 0") })
	l.send("end")
	eventually(t, "the target to end", func() bool { return taskState(l.pid) == "" })
}

// The end of the view is not the end of the command, whatever of its children
// is being held at that moment.
func TestFaultRunDuration(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s := typed("run", "--duration", "60ms", "-o", "/dev/null", "--", "sh", "-c",
		"i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i + 1)); done; echo $i; exit 9").gives(t, 9)
	if s.stdout.String() != "100\n" {
		t.Errorf("the command printed %q", s.stdout)
	}
}
