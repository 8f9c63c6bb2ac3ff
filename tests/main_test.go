package tests

//lint:file-ignore U1000 helpers that the tests of the package share, each of which uses some

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sbxtraceBin is the binary under test.
var sbxtraceBin string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if list := os.Getenv(refuseEnv); list != "" {
		fmt.Fprintln(os.Stderr, sandboxed(list))
		return 1
	}
	sbxtraceBin = os.Getenv("SBXTRACE_BIN")
	if sbxtraceBin == "" && os.Geteuid() == 0 {
		dir, err := os.MkdirTemp("", "sbxtrace-tests-*")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil { // other users run it too
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if sbxtraceBin, err = buildSbxtrace(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// buildSbxtrace builds the binary as users get it: static.
func buildSbxtrace(dir string) (string, error) {
	path := filepath.Join(dir, "sbxtrace")
	cmd := exec.Command("go", "build", "-o", path, "../cmd/sbxtrace")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build sbxtrace: %w\n%s", err, out)
	}
	return path, nil
}

// needRoot skips a test on machines where tracing is not allowed.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: tracing takes CAP_BPF and CAP_PERFMON")
	}
}

// needTool skips a test when a program that it uses is not there.
func needTool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("needs %s, which is not installed", name)
	}
	return path
}

// kernelAtLeast compares the running kernel's release.
func kernelAtLeast(t testing.TB, major, minor int) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	var a, b int
	if _, err := fmt.Sscanf(strings.TrimSpace(string(text)), "%d.%d", &a, &b); err != nil {
		t.Fatalf("kernel release %q: %v", text, err)
	}
	return a > major || a == major && b >= minor
}
