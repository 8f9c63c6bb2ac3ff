package tests

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// busy is a target at work.
func busy(t testing.TB) *targets.Process {
	t.Helper()
	p := start(t, targets.Build(t, "busy"), "--threads", "1")
	p.Go()
	return p
}

// goesOn checks that a target at work has no probe in it and goes on working.
func goesOn(t testing.TB, p *targets.Process) {
	t.Helper()
	intact(t, p.PID())
	truth := p.Stop()
	if truth.Values["failures"] != 0 {
		t.Errorf("%d of the target's own checks failed", truth.Values["failures"])
	}
	if err := p.Quit(); err != nil {
		t.Errorf("the target ended with %v", err)
	}
}

// `sbxtrace … | head -1`: the reader has seen enough, which is no error.
func TestFaultReaderLeaves(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			p := busy(t)
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			i := attachTo(p.PID(), "--format", format)
			i.stdout = writer
			s := i.start(t)
			writer.Close()
			line, err := bufio.NewReader(reader).ReadString('\n')
			if err != nil || line == "" {
				t.Errorf("read %q, %v", line, err)
			}
			reader.Close()
			s.endsWith(0, "attached: ")
			goesOn(t, p)
		})
	}
}

// A full disk ends the session with an error, not the target, and what was
// written is readable.
func TestFaultDiskFull(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			dir := t.TempDir()
			if err := syscall.Mount("none", dir, "tmpfs", 0, "size=256k"); err != nil {
				t.Skipf("mount a small tmpfs: %v", err)
			}
			defer syscall.Unmount(dir, syscall.MNT_DETACH)
			p := busy(t)
			file := filepath.Join(dir, "out")
			attachTo(p.PID(), "--format", format, "-o", file, "--max-overhead", "off").gives(t, 1, "write output", file, "no space left on device")
			out, err := os.ReadFile(file)
			if err != nil || len(out) < 128<<10 {
				t.Errorf("%d bytes were written, %v", len(out), err)
			}
			if first, _, _ := strings.Cut(string(out), "\n"); format == "json" && !json.Valid([]byte(first)) {
				t.Errorf("the first line is no JSON: %s", first)
			}
			goesOn(t, p)
		})
	}
}

// Output that cannot be written at all.
func TestFaultOutput(t *testing.T) {
	p := start(t, targets.Build(t, "calls"))
	missing := filepath.Join(t.TempDir(), "missing", "file")
	for _, tt := range []struct {
		name string
		args []string
		want []string
	}{
		{"directory missing", []string{"-o", missing}, []string{"create output", missing, "no such file or directory"}},
		{"a directory", []string{"-o", "/"}, []string{"create output", "is a directory"}},
		{"full device", []string{"-o", "/dev/full", "--duration", "10ms"}, []string{"write output", "no space left on device"}},
		{"ready file", []string{"--ready-file", missing}, []string{"create ready file", "no such file or directory"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			attachTo(p.PID(), tt.args...).gives(t, 1, tt.want...)
		})
	}
	t.Run("read-only directory", func(t *testing.T) {
		dir := t.TempDir()
		if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_RDONLY, ""); err != nil {
			t.Skipf("mount a read-only tmpfs: %v", err)
		}
		defer syscall.Unmount(dir, syscall.MNT_DETACH)
		attachTo(p.PID(), "--ready-file", filepath.Join(dir, "ready")).gives(t, 1, "create ready file", "read-only file system")
		attachTo(p.PID(), "-o", filepath.Join(dir, "out")).gives(t, 1, "create output", "read-only file system")
	})
	t.Run("stdout closed", func(t *testing.T) {
		i := attachTo(p.PID(), "--duration", "10ms")
		i.wrapper = []string{"sh", "-c", `exec "$0" "$@" >&-`}
		i.gives(t, 0, "attached: ")
	})
	unharmed(t, p)
}

// The directory that sbxtrace was started in does not exist any more.
func TestFaultDirectoryGone(t *testing.T) {
	t.Parallel()
	p := start(t, targets.Build(t, "calls"))
	for _, args := range [][]string{
		append(attachTo(p.PID()).args, "--duration", "10ms"),
		{"run", "-o", "/dev/null", "--", "true"},
		{"functions", "/bin/true", "*"},
	} {
		i := typed(args...)
		i.wrapper = []string{"sh", "-c", `mkdir gone && cd gone && rmdir ../gone && exec "$0" "$@"`}
		i.dir = t.TempDir()
		i.gives(t, 0)
	}
	unharmed(t, p)
}

// Files that are no programs.
func TestFaultNoELF(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	whole, err := os.ReadFile(targets.Build(t, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	damaged := func(change func(b []byte)) []byte {
		b := append([]byte(nil), whole...)
		change(b)
		return b
	}
	for name, content := range map[string][]byte{
		"empty":            {},
		"text":             []byte("not a program\n"),
		"magic alone":      []byte("\x7fELF"),
		"header alone":     whole[:64],
		"truncated":        whole[:len(whole)/2],
		"no sections":      damaged(func(b []byte) { copy(b[40:48], "\xff\xff\xff\xff\xff\xff\xff\x7f") }),
		"many sections":    damaged(func(b []byte) { copy(b[58:64], "\x40\x00\xff\xff\xff\xff") }),
		"program headers":  damaged(func(b []byte) { copy(b[54:58], "\x38\x00\xff\xff") }),
		"other machine":    damaged(func(b []byte) { copy(b[18:20], "\xf3\x00") }),
		"names elsewhere":  damaged(func(b []byte) { copy(b[62:64], "\x01\x00") }),
		"garbage at end":   damaged(func(b []byte) { fill(b[len(b)*3/4:], 0xa5) }),
		"garbage in front": damaged(func(b []byte) { fill(b[64:4096], 0x5a) }),
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"functions", path}, {"functions", path, "--verbose", "*"}, {"run", "--", path, "--auto"}} {
			s := typed(args...).start(t)
			status := s.status()
			s.endsWith(status) // no stack trace
			switch {
			case status == 0 && (name == "empty" || name == "text" || name == "magic alone" || name == "header alone"):
				t.Errorf("%s %s: no error", args[0], name)
			case status != 0 && args[0] == "functions" && !strings.Contains(s.stderr.String(), name[:1]):
				t.Errorf("%s %s: status %d\n%s", args[0], name, status, s.stderr)
			}
		}
	}
	if out, err := exec.Command("cmp", targets.Build(t, "calls"), targets.Build(t, "calls")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func fill(b []byte, value byte) {
	for i := range b {
		b[i] = value
	}
}
