package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// replace puts another program in the place of one, as installers do: the old
// file is not touched, and goes when nobody uses it any more.
func replace(t testing.TB, path, by string) {
	t.Helper()
	copyFile(t, by, path+".new")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// A program that is replaced or deleted, before it is attached to or while it is,
// runs on and is traced on.
func TestFaultReplaced(t *testing.T) {
	needRoot(t)
	other := targets.Build(t, "recurse")
	for name, change := range map[string]func(t testing.TB, path string){
		"replaced": func(t testing.TB, path string) { replace(t, path, other) },
		"deleted": func(t testing.TB, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"its directory deleted": func(t testing.TB, path string) {
			if err := os.RemoveAll(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/before=%t", name, before), func(t *testing.T) {
				t.Parallel()
				path := own(t, targets.Build(t, "calls"))
				p := targets.Start(t, path, "--rounds", "20")
				p.Ready()
				if before {
					change(t, path)
				}
				s := attach(t, p.PID())
				if !before {
					change(t, path)
				}
				p.Go()
				truth := p.Truth()
				if err := p.Quit(); err != nil {
					t.Errorf("the target ended with %v", err)
				}
				situation{}.compare(t, s.wait(), truth)
			})
		}
	}
}

// shell is a shell under observation that executes lines one by one.
type shell struct {
	*launched
	lines int
}

// do executes a line and returns what it printed and its exit status.
func (sh *shell) do(line string) (output string, status string) {
	sh.t.Helper()
	sh.lines++
	done := fmt.Sprintf("DONE %d ", sh.lines)
	before := len(sh.stdout.String())
	sh.send(fmt.Sprintf("%s\necho %s$?", line, done))
	sh.waitFor("the shell to execute a line", func() bool {
		text := sh.stdout.String()[before:]
		return strings.Contains(text, done) && strings.HasSuffix(text, "\n")
	})
	output, status, _ = strings.Cut(sh.stdout.String()[before:], done)
	return output, strings.TrimSpace(status)
}

// A program that other processes are started from is replaced: those started
// later are traced with the functions of the new one. If it is overwritten in
// place, which nothing forbids while nobody runs it, no probe of the old one is
// in the way of the new one.
func TestFaultProgramChanges(t *testing.T) {
	for _, by := range []string{"replace", "overwrite"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			path, second := own(t, targets.Build(t, "calls")), own(t, targets.Build(t, "recurse"))
			change := map[string]string{
				"replace":   fmt.Sprintf("cp %s %s.new && mv %s.new %s", second, path, path, path),
				"overwrite": fmt.Sprintf("cat %s >%s", second, path),
			}[by]
			sh := &shell{launched: launchTracing(t, "sh", "-c", `echo READY $$; while read -r line; do eval "$line"; done`)}
			first, status := sh.do(path + " --auto --rounds 5")
			if status != "0" {
				t.Errorf("the first program ended with status %s", status)
			}
			if _, status := sh.do(change); status != "0" {
				t.Errorf("%s ended with status %s", change, status)
			}
			next, status := sh.do(path + " --auto --depth 1100 --fib 8")
			if status != "0" {
				t.Errorf("the second program ended with status %s", status)
			}
			sh.stdin.Close()
			r := sh.wait()
			for name, truth := range map[string]targets.Truth{"first": truthOf(t, first), "second": truthOf(t, next)} {
				report(t, name+" program", differences("calls", truth.Counts, r.counts()))
			}
		})
	}
}

// The same where nobody holds a process at exec: the probes are out of a program
// before it can be executed again.
func TestFaultOverwritten(t *testing.T) {
	t.Parallel()
	needRoot(t)
	path, second := own(t, targets.Build(t, "calls")), own(t, targets.Build(t, "recurse"))
	p := targets.Start(t, "/bin/sh", "-c", fmt.Sprintf(`
		echo READY $$
		read line
		%[1]s
		cat %[2]s >%[1]s || exit 11
		%[1]s --auto >/dev/null || exit 12
		exit 7`, path, second))
	p.Ready()
	s := attach(t, p.PID())
	p.Go() // to the shell, which starts the program
	p.Ready()
	s.waitFor("probes in the program", func() bool { return strings.Contains(s.stderr.String(), " in calls, which pid ") })
	p.Go()
	truth := p.Truth()
	var exit *exec.ExitError
	if err := p.Quit(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("the shell ended with %v", err)
	}
	report(t, "first program", differences("calls", truth.Counts, s.wait().counts()))
}

// Overwritten while sbxtrace stands still: who writes to the file waits until it
// has taken its probes out.
func TestFaultOverwrittenUnseen(t *testing.T) {
	t.Parallel()
	needRoot(t)
	path, second := own(t, targets.Build(t, "calls")), own(t, targets.Build(t, "recurse"))
	sh := &shell{launched: launchTracing(t, "sh", "-c", `echo READY $$; while read -r line; do eval "$line"; done`)}
	if _, status := sh.do(path + " --auto"); status != "0" {
		t.Errorf("the first program ended with status %s", status)
	}
	sh.signal(syscall.SIGSTOP)
	time.AfterFunc(100*time.Millisecond, func() { sh.cmd.Process.Signal(syscall.SIGCONT) })
	copyFile(t, second, path) // in place
	next, status := sh.do(path + " --auto --depth 1100 --fib 8")
	if status != "0" {
		t.Errorf("the second program ended with status %s", status)
	}
	sh.stdin.Close()
	report(t, "second program", differences("calls", truthOf(t, next).Counts, sh.wait().counts()))
}
