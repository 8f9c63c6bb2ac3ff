package tracer

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func launch(t *testing.T, args ...string) (*Launched, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	l, err := Launch(LaunchOptions{Args: args, Stdout: &out, Stderr: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	return l, &out
}

// Before Release the program has mapped its libraries and run nothing of its own.
func TestLaunchStopsAtEntry(t *testing.T) {
	l, out := launch(t, "/bin/sh", "-c", "echo hello; exit 7")
	maps, err := os.ReadFile("/proc/" + strconv.Itoa(l.PID()) + "/maps")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(maps), "libc.so") {
		t.Errorf("libc is not mapped yet:\n%s", maps)
	}
	if out.Len() > 0 {
		t.Errorf("it has run: %q", out)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	status, err := l.Wait()
	if err != nil || status != 7 || out.String() != "hello\n" {
		t.Errorf("status %d, %v, output %q", status, err, out)
	}
}

func TestLaunchSignalStatus(t *testing.T) {
	l, _ := launch(t, "/bin/sh", "-c", "kill -TERM $$")
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if status, err := l.Wait(); status != 128+int(syscall.SIGTERM) || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
}

func TestLaunchNotFound(t *testing.T) {
	if _, err := Launch(LaunchOptions{Args: []string{"/does/not/exist"}}); err == nil {
		t.Error("no error")
	}
}

func TestLaunchUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("changing the user takes root")
	}
	var out bytes.Buffer
	l, err := Launch(LaunchOptions{Args: []string{"/usr/bin/id", "-un"}, User: "nobody", Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Wait(); err != nil || out.String() != "nobody\n" {
		t.Errorf("ran as %q, %v", out.String(), err)
	}
}
