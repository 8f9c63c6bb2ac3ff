package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// startIn starts a target by a shell script that prepares its surroundings, in a
// mount namespace of its own, and executes it ("$@").
func startIn(t testing.TB, script string, command ...string) *targets.Process {
	t.Helper()
	needRoot(t)
	line := append([]string{"--mount", "sh", "-e", "-c", script + "\nexec \"$@\"", "sh"}, command...)
	p := targets.StartCmd(t, exec.Command(needTool(t, "unshare"), line...))
	p.Ready()
	return p
}

// traced lets a target work that sbxtrace is attached to, and compares.
func traced(t *testing.T, p *targets.Process, s *session) {
	t.Helper()
	p.Go()
	truth := p.Truth()
	if err := p.Quit(); err != nil {
		t.Error(err)
	}
	situation{}.compare(t, s.wait(), truth)
}

// The target's files are where only it sees them, under names that here mean
// other files.
func TestMountNamespace(t *testing.T) {
	for _, target := range []string{"libcaller", "exceptions", "gocalls"} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			path := own(t, targets.Build(t, target))
			hidden := t.TempDir()
			decoy := filepath.Join(hidden, target)
			copyFile(t, targets.Build(t, "busy"), decoy)
			p := startIn(t, fmt.Sprintf("mount -t tmpfs none %[1]s; cp %[2]s/* %[1]s", hidden, filepath.Dir(path)), decoy, "--rounds", "10")
			flags := []string{}
			if target == "libcaller" {
				flags = []string{"--module", "libcallee.so", "--module", "libcaller", "--func", "*"}
			}
			traced(t, p, attach(t, p.PID(), flags...))
		})
	}
}

func TestChroot(t *testing.T) {
	for _, target := range []string{"calls", "gocalls"} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			needTool(t, "chroot")
			options := []targets.Option{targets.Static()}
			if target == "gocalls" {
				options = nil // static as it is
			}
			path := own(t, targets.Build(t, target, options...))
			p := startIn(t, "", "chroot", filepath.Dir(path), "/"+target, "--rounds", "10")
			traced(t, p, attach(t, p.PID()))
		})
	}
}

// overlay is a script that mounts dir below two layers of its own at each of
// the given directories, which then hold the same files under identities of
// their own.
func overlay(dir string) string {
	return fmt.Sprintf(`mkdir -p %[1]s/tmp; mount -t tmpfs none %[1]s/tmp
mkdir %[1]s/tmp/upper %[1]s/tmp/work %[1]s/tmp/merged
mount -t overlay none -o lowerdir=%[1]s/lower,upperdir=%[1]s/tmp/upper,workdir=%[1]s/tmp/work %[1]s/tmp/merged`, dir)
}

// layered copies a target to what is the lower layer of overlay(dir).
func layered(t testing.TB, path string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "lower"), 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile(t, path, filepath.Join(dir, "lower", filepath.Base(path)))
	return dir
}

// inLayers starts processes of one program in containers of one image: the same
// file, with an identity for each of them.
func inLayers(t testing.TB, target string, n int, count string) []*targets.Process {
	t.Helper()
	dir := layered(t, targets.Build(t, target))
	started := make([]*targets.Process, n)
	for i := range started {
		started[i] = startIn(t, overlay(dir), filepath.Join(dir, "tmp", "merged", target), count, strconv.Itoa(3+i))
	}
	return started
}

// Each call is counted once, in whatever way the processes become targets.
func TestOverlay(t *testing.T) {
	for _, target := range []string{"calls", "exceptions", "gocalls"} {
		for _, follow := range []string{"--follow", "--no-follow"} {
			t.Run(target+"/"+follow, func(t *testing.T) {
				t.Parallel()
				started := inLayers(t, target, 3, "--rounds")
				s := sbxtrace(t, "attach", append(pidFlags(started), follow)...)
				s.waitReady()
				happened := letWork(t, started)
				compareEach(t, s.wait(), happened)
			})
		}
	}
}

// Children of the second process get probes of their own after the fork: what
// they do before is not seen, but nothing is counted twice.
func TestOverlayChildren(t *testing.T) {
	t.Parallel()
	started := inLayers(t, "forker", 2, "--children")
	s := sbxtrace(t, "attach", pidFlags(started)...)
	s.waitReady()
	want := sum(letWork(t, started)).Counts
	got := s.wait().rowCounts()
	for name, n := range want {
		if got[name] > n {
			t.Errorf("%s: %d calls, the programs made %d", name, got[name], n)
		}
	}
	report(t, "calls of the processes themselves", differences("calls",
		map[string]uint64{"spawn_child": want["spawn_child"], "run_exec": want["run_exec"], "fork_outer": want["fork_outer"]}, got))
}

// The program is upgraded or removed while it runs, before sbxtrace comes: what
// is traced is what runs.
func TestReplacedBinary(t *testing.T) {
	for name, change := range map[string]func(path, other string) error{
		"removed":  func(path, _ string) error { return os.Remove(path) },
		"replaced": func(path, other string) error { return os.Rename(other, path) },
		"renamed":  func(path, _ string) error { return os.Rename(path, path+".old") },
	} {
		for _, target := range []string{"calls", "gocalls", "libcaller"} {
			t.Run(name+"/"+target, func(t *testing.T) {
				t.Parallel()
				needRoot(t)
				path := own(t, targets.Build(t, target))
				p := targets.Start(t, path, "--rounds", "10")
				p.Ready()
				flags := []string{}
				changed := path
				if target == "libcaller" {
					flags = []string{"--module", "libcallee.so*", "--module", "libcaller", "--func", "*"}
					changed = filepath.Join(filepath.Dir(path), "libcallee.so")
				}
				other := filepath.Join(t.TempDir(), "other")
				copyFile(t, targets.Build(t, "busy"), other)
				if err := change(changed, other); err != nil {
					t.Fatal(err)
				}
				traced(t, p, attach(t, p.PID(), flags...))
			})
		}
	}
}

// The program is replaced while sbxtrace is attached: nothing changes for the
// process, nor for its children.
func TestReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	path := own(t, targets.Build(t, "forker"))
	p := targets.Start(t, path, "--children", "4")
	p.Ready()
	s := attach(t, p.PID())
	other := filepath.Join(t.TempDir(), "other")
	copyFile(t, targets.Build(t, "busy"), other)
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	p.Go()
	truth := p.Truth()
	if err := p.Quit(); err != nil {
		t.Error(err)
	}
	situation{noDepth: true}.compare(t, s.wait(), truth)
}
