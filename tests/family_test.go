package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"strconv"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// several starts processes of one program, each with a number of rounds of its
// own, and waits until they are ready.
func several(t testing.TB, path string, rounds ...int) []*targets.Process {
	t.Helper()
	needRoot(t)
	started := make([]*targets.Process, len(rounds))
	for i, n := range rounds {
		started[i] = targets.Start(t, path, "--rounds", strconv.Itoa(n))
	}
	for _, p := range started {
		p.Ready()
	}
	return started
}

// letWork lets targets work and end, and returns what happened in each.
func letWork(t testing.TB, started []*targets.Process) map[int]targets.Truth {
	t.Helper()
	happened := map[int]targets.Truth{}
	for _, p := range started {
		p.Go()
	}
	for _, p := range started {
		happened[p.PID()] = p.Truth()
	}
	for _, p := range started {
		if err := p.Quit(); err != nil {
			t.Error(err)
		}
	}
	return happened
}

// pidFlags are the flags for processes, each given on its own.
func pidFlags(started []*targets.Process) []string {
	var flags []string
	for _, p := range started {
		flags = append(flags, "--pid", strconv.Itoa(p.PID()))
	}
	return flags
}

// sum is what happened in all processes together, as far as it can be added up.
func sum(all map[int]targets.Truth) targets.Truth {
	total := targets.Truth{Counts: map[string]uint64{}}
	for _, truth := range all {
		for name, n := range truth.Counts {
			total.Counts[name] += n
		}
	}
	return total
}

// compareEach compares the calls of each process with what happened in it, and
// the summary with what happened in all.
func compareEach(t *testing.T, r *result, happened map[int]targets.Truth) {
	t.Helper()
	r.complete(t)
	for pid, truth := range happened {
		own := r.only(func(c *call) bool { return c.PID == pid })
		report(t, fmt.Sprintf("process %d", pid), differences("calls", truth.Counts, own.counts()))
		report(t, fmt.Sprintf("process %d", pid), truth.CompareEdges(own.edges(truth.Counts)))
	}
	for _, c := range r.calls {
		if _, ok := happened[c.PID]; !ok {
			t.Fatalf("%s is a call of process %d, which is no target", c.Func, c.PID)
		}
	}
	report(t, "summary", differences("calls", sum(happened).Counts, r.rowCounts()))
}

// Processes of one program, when all that run it are targets and when one is
// not: each call is counted once, in its own process.
func TestSeveralPIDs(t *testing.T) {
	for _, target := range []string{"calls", "exceptions", "gocalls"} {
		for _, bystander := range []bool{false, true} {
			for _, follow := range []string{"--follow", "--no-follow"} {
				t.Run(fmt.Sprintf("%s/bystander=%v/%s", target, bystander, follow), func(t *testing.T) {
					t.Parallel()
					needRoot(t)
					path := own(t, targets.Build(t, target))
					started := several(t, path, 10, 25, 7)
					var other []*targets.Process
					if bystander {
						other = several(t, path, 40)
					}
					s := sbxtrace(t, "attach", append(pidFlags(started), follow)...)
					s.waitReady()
					letWork(t, other)
					happened := letWork(t, started)
					compareEach(t, s.wait(), happened)
				})
			}
		}
	}
}

// The levels that count in the kernel count each call once too.
func TestSeveralPIDsCounted(t *testing.T) {
	for _, level := range []string{"count", "latency"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			path := own(t, targets.Build(t, "calls"))
			started := several(t, path, 10, 25)
			other := several(t, path, 40)
			s := sbxtrace(t, "attach", append(pidFlags(started), "--level", level)...)
			s.waitReady()
			letWork(t, other)
			want := sum(letWork(t, started)).Counts
			report(t, level, differences("calls", want, s.wait().rowCounts()))
		})
	}
}

// A process that is named in several ways is one.
func TestSamePID(t *testing.T) {
	t.Parallel()
	needRoot(t)
	path := named(t, "calls", "sbx-same")
	started := several(t, path, 20)
	s := sbxtrace(t, "attach", append(append(pidFlags(started), pidFlags(started)...), "--name", "sbx-same")...)
	s.waitReady()
	happened := letWork(t, started)
	compareEach(t, s.wait(), happened)
}

// named copies a target and gives the program a name of its own.
func named(t testing.TB, target, name string) string {
	t.Helper()
	path := own(t, targets.Build(t, target))
	renamed := filepath.Join(filepath.Dir(path), name)
	if err := os.Rename(path, renamed); err != nil {
		t.Fatal(err)
	}
	return renamed
}

// Processes by name: all that there are, and those that are started later.
func TestName(t *testing.T) {
	t.Parallel()
	needRoot(t)
	path := named(t, "calls", "sbx-by-name")
	other := several(t, named(t, "calls", "sbx-other-name"), 9)
	started := several(t, path, 10, 20)
	s := sbxtrace(t, "attach", "--name", "sbx-by-*")
	s.waitReady()
	late := several(t, path, 30)
	s.waitNote(fmt.Sprintf("pid %d (sbx-by-name) is a target too", late[0].PID()))
	letWork(t, other)
	happened := letWork(t, append(started, late...))
	compareEach(t, s.wait(), happened)
}

// With --no-follow those that are started later are no targets.
func TestNameNoFollow(t *testing.T) {
	t.Parallel()
	needRoot(t)
	path := named(t, "calls", "sbx-no-follow")
	started := several(t, path, 10)
	s := sbxtrace(t, "attach", "--name", "sbx-no-follow", "--no-follow")
	s.waitReady()
	letWork(t, several(t, path, 30))
	happened := letWork(t, started)
	compareEach(t, s.wait(), happened)
}

// cgroup makes a control group for a test and returns its path in the hierarchy
// and its directory. Its processes must have ended when the test does.
func cgroup(t testing.TB) (name, dir string) {
	t.Helper()
	needRoot(t)
	name = fmt.Sprintf("sbxtrace-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
	dir = filepath.Join(cgroupRoot(t), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return "/" + name, dir
}

// cgroupRoot is where version 2 of control groups is mounted.
func cgroupRoot(t testing.TB) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[2] == "cgroup2" {
			return f[1]
		}
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "cgroup2", 0, ""); err != nil {
		t.Fatalf("mount control groups: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// enter moves a process to a control group.
func enter(t testing.TB, dir string, p *targets.Process) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(p.PID())), 0); err != nil {
		t.Fatal(err)
	}
}

// startInside starts a target inside a control group, from its first moment.
func startInside(t testing.TB, dir, path string, rounds int) *targets.Process {
	t.Helper()
	group, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	cmd := exec.Command(path, "--rounds", strconv.Itoa(rounds))
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	p := targets.StartCmd(t, cmd)
	p.Ready()
	return p
}

// The processes of a control group and of those below it: those that are there,
// those that are moved there, and those that are started there.
func TestCgroup(t *testing.T) {
	for _, target := range []string{"calls", "gocalls"} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			name, dir := cgroup(t)
			below := filepath.Join(dir, "below")
			if err := os.Mkdir(below, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Remove(below) })
			path := own(t, targets.Build(t, target))
			started := several(t, path, 5, 6, 7)
			outside := started[2:]
			enter(t, dir, started[0])
			enter(t, below, started[1])
			s := sbxtrace(t, "attach", "--cgroup", name)
			s.waitReady()

			moved := several(t, path, 8, 9)
			enter(t, below, moved[0])
			enter(t, dir, moved[1])
			all := append(append(started[:2:2], moved...), startInside(t, below, path, 10), startInside(t, dir, path, 11))
			for _, p := range all[2:] {
				s.waitNote(fmt.Sprintf("pid %d (%s) is a target too", p.PID(), target))
			}
			letWork(t, outside)
			happened := letWork(t, all)
			compareEach(t, s.wait(), happened)
		})
	}
}
