package tests

//lint:file-ignore U1000 helpers that the tests of the package share, each of which uses some

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// server is a program of others that a test runs on this machine.
type server struct {
	t      testing.TB
	cmd    *exec.Cmd
	output *stream
	exited chan struct{}
}

// serve starts a server and returns when ready holds. The server ends with the
// test. name is a user for whom it runs; empty: the test's own.
func serve(t testing.TB, name string, ready func() bool, command ...string) *server {
	t.Helper()
	needRoot(t)
	s := &server{t: t, cmd: exec.Command(needTool(t, command[0]), command[1:]...), exited: make(chan struct{})}
	log, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.output = &stream{t, log.Name()}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.Dir = "/"
	// What it has started ends with it, and so does it with the test.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if name != "" {
		uid, gid := userIDs(t, name)
		s.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", command[0], err)
	}
	go func() {
		s.cmd.Wait()
		close(s.exited)
	}()
	t.Cleanup(s.stop)
	deadline := time.Now().Add(stuck)
	for !ready() {
		select {
		case <-s.exited:
			t.Fatalf("%s ended at once:\n%s", command[0], s.output)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready after %v:\n%s", command[0], stuck, s.output)
		}
	}
	return s
}

func (s *server) pid() int { return s.cmd.Process.Pid }

// stop ends the server, by force if it does not end.
func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(20 * time.Second):
		s.t.Errorf("%s does not end", s.cmd.Path)
	}
	if err := syscall.Kill(-s.pid(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.t.Errorf("end what %s has started: %v", s.cmd.Path, err)
	}
	<-s.exited
}

func userIDs(t testing.TB, name string) (uid, gid uint32) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	id := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
	return id(u.Uid), id(u.Gid)
}

// dirFor is a directory of the test that belongs to another user.
func dirFor(t testing.TB, name string) string {
	t.Helper()
	dir := t.TempDir()
	uid, gid := userIDs(t, name)
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// freePort is a TCP port of this machine that nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// accepts reports whether somebody listens on a port of this machine.
func accepts(port string) bool {
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// output is what a command prints. It must succeed.
func output(t testing.TB, command ...string) string {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(command, " "), err, out, &stderr)
	}
	return string(out)
}

// cpuOf is the CPU time that a process has used, of all its threads.
func cpuOf(t testing.TB, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var ticks int
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// bareAttach starts `sbxtrace attach --pid` as a user would, with the view in a
// file.
func bareAttach(t testing.TB, pid int, args ...string) (s *session, view string) {
	t.Helper()
	view = filepath.Join(t.TempDir(), "view.txt")
	return attachTo(pid, append([]string{"-o", view}, args...)...).start(t), view
}

// waitView waits until a view shows a text.
func (s *session) waitView(view, text string) {
	s.t.Helper()
	s.waitFor("the view to show "+strconv.Quote(text), func() bool {
		got, _ := os.ReadFile(view)
		return strings.Contains(string(got), text)
	})
}

// stopView ends sbxtrace by Ctrl-C and returns the view.
func (s *session) stopView(view string) string {
	s.t.Helper()
	s.signal(syscall.SIGINT)
	if status := s.status(); status != 0 {
		s.t.Fatalf("sbxtrace ended with status %d\n%s", status, s.stderr)
	}
	got, err := os.ReadFile(view)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(got)
}

// listed are the lines of `sbxtrace functions` for a target, by name.
func listed(t testing.TB, args ...string) map[string]listedLine {
	t.Helper()
	lines := map[string]listedLine{}
	for text := range strings.Lines(output(t, append([]string{sbxtraceBin, "functions", "--format", "json"}, args...)...)) {
		var l listedLine
		if err := unmarshal(text, &l); err != nil {
			t.Fatalf("line %s: %v", text, err)
		}
		lines[l.Name] = l
	}
	return lines
}

// listedLine is a line of `sbxtrace functions --format json`, see docs/functions.md.
type listedLine struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Module  string `json:"module"`
	Lang    string `json:"lang"`
	NamedBy string `json:"named_by"`
	File    string `json:"file"`
	Line    int    `json:"line"`
	Entry   *struct {
		Class  string `json:"class"`
		Reason string `json:"reason"`
	} `json:"entry"`
	Returns *struct {
		Method string `json:"method"`
	} `json:"returns"`
	Sites []struct {
		Addr      string   `json:"addr"`
		Args      []string `json:"args"`
		Semaphore string   `json:"semaphore"`
	} `json:"sites"`
	Problem string `json:"problem"`
}
