package tests

import (
	"fmt"
	"os/exec"
	"strconv"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// --no-follow: the calls of the process alone, in all its threads.
func TestNoFollow(t *testing.T) {
	const children = 5
	for _, level := range []string{"calls", "count", "latency"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			p := start(t, targets.Build(t, "forker"), "--children", strconv.Itoa(children))
			s := attach(t, p.PID(), "--no-follow", "--level", level)
			p.Go()
			p.Truth()
			if err := p.Quit(); err != nil {
				t.Error(err)
			}
			r := s.wait()
			for _, c := range r.calls {
				if c.PID != p.PID() {
					t.Fatalf("%s is a call of process %d, a child", c.Func, c.PID)
				}
			}
			report(t, level, differences("calls", map[string]uint64{
				"spawn_child": children, "run_exec": children, "fork_outer": children, "fork_inner": children,
				"thread_main": children, "thread_inner": children, "thread_ends": children,
				"child_leaf": children, // thread_main calls it; thread_inner ends before
				"child_work": 0, "child_ends": 0, "after_fork": 0, "before_exec": 0, "exec_work": 0, "replace_outer": 0,
			}, r.rowCounts()))
		})
	}
}

// Children and grandchildren that are there when sbxtrace comes, below a shell
// that has none of the functions; and with --no-follow not.
func TestLiveChildren(t *testing.T) {
	for _, target := range []string{"calls", "gocalls"} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			path := own(t, targets.Build(t, target))
			p := targets.StartCmd(t, exec.Command("sh", "-c", fmt.Sprintf("sh -c '%s --rounds 20; true'; true", path)))
			pid := p.Ready()
			truth, r := observe(t, p, "--func", "outer", "--func", "middle", "--func", "leaf", "--func", "branchy", "--func", "tiny", "--func", "main.*")
			report(t, "calls", differences("calls", truth.Counts, r.counts()))
			for _, c := range r.calls {
				if c.PID != pid {
					t.Fatalf("%s is a call of process %d, want %d", c.Func, c.PID, pid)
				}
			}
		})
	}
	t.Run("no-follow", func(t *testing.T) {
		t.Parallel()
		needRoot(t)
		path := own(t, targets.Build(t, "calls"))
		p := targets.StartCmd(t, exec.Command("sh", "-c", path+" --rounds 20; true"))
		p.Ready()
		s := sbxtrace(t, "attach", "--pid", strconv.Itoa(p.PID()), "--no-follow", "outer")
		if status := s.status(); status != 1 {
			t.Errorf("status %d: the shell has no function outer\n%s", status, s.stderr)
		}
		p.Go()
		p.Truth()
	})
}

// observe attaches to a target, lets it work and end.
func observe(t testing.TB, p *targets.Process, flags ...string) (targets.Truth, *result) {
	t.Helper()
	s := attach(t, p.PID(), flags...)
	p.Go()
	truth := p.Truth()
	if err := p.Quit(); err != nil {
		t.Error(err)
	}
	return truth, s.wait()
}

// A process that executes other programs, each traced by the same selectors from
// when its probes are in, which a message says.
func TestExec(t *testing.T) {
	for _, follow := range []string{"--follow", "--no-follow"} {
		for _, target := range []string{"calls", "gocalls"} {
			t.Run(target+"/"+follow, func(t *testing.T) {
				t.Parallel()
				needRoot(t)
				path := own(t, targets.Build(t, target))
				// Two shells, one executed by the other, then the target.
				p := targets.StartCmd(t, exec.Command("bash", "-c", fmt.Sprintf(
					"echo WAIT; read x; exec sh -c 'echo WAIT; read x; exec %s --rounds 15'", path)))
				p.Line("WAIT")
				s := attach(t, p.PID(), follow, "main", "main.*", "outer", "middle", "leaf", "branchy", "tiny")
				p.Go()
				p.Line("WAIT")
				p.Go()
				p.Ready()
				s.waitNote(fmt.Sprintf("in %s, which pid %d executes", target, p.PID()))
				p.Go()
				truth := p.Truth()
				if err := p.Quit(); err != nil {
					t.Error(err)
				}
				situation{}.compare(t, s.wait(), truth)
			})
		}
	}
}

// Targets of another user, without any rights.
func TestOtherUser(t *testing.T) {
	for _, target := range []string{"calls", "gocalls"} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			path := own(t, targets.Build(t, target))
			p := targets.StartCmd(t, exec.Command(needTool(t, "setpriv"), "--reuid", "65534", "--regid", "65534", "--clear-groups",
				"--no-new-privs", "--bounding-set", "-all", path, "--rounds", "10"))
			p.Ready()
			truth, r := observe(t, p)
			situation{}.compare(t, r, truth)
		})
	}
}
