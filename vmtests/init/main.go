// Command init is the first process of a test machine: it mounts what the tests
// need, runs them, reports through the second serial port and powers off.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/vmtests/guest"
)

const port = "/dev/ttyS1"

func main() {
	if os.Getpid() == 1 {
		superviseAndPowerOff()
	}
	if err := runJobs(); err != nil {
		fmt.Println("init:", err)
		os.Exit(1)
	}
}

// superviseAndPowerOff is process 1. Jobs are run by a child of it, because
// waiting for a particular child and reaping every orphan do not go together in
// one process.
func superviseAndPowerOff() {
	defer func() {
		unix.Sync()
		err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		fmt.Println("init: power off:", err)
	}()
	if err := mountAll(); err != nil {
		fmt.Println("init:", err)
		return
	}
	runner, err := os.StartProcess("/init", []string{"/init"}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		fmt.Println("init: start runner:", err)
		return
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid == runner.Pid {
			return
		}
	}
}

// mountAll sets up the file systems, and the loopback device.
func mountAll() error {
	for _, m := range []struct{ kind, at, data string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", ""},
		{"tmpfs", "/dev/shm", ""},
		{"tmpfs", "/run", ""},
		{"tmpfs", "/tmp", ""},
		{"cgroup2", "/sys/fs/cgroup", ""},
		{"bpf", "/sys/fs/bpf", ""},
		{"tracefs", "/sys/kernel/tracing", ""},
		{"debugfs", "/sys/kernel/debug", ""},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.kind, m.at, err)
		}
	}
	if err := os.Chmod("/tmp", 0o1777); err != nil {
		return fmt.Errorf("open /tmp to everyone: %w", err)
	}
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, name); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("set up /dev: %w", err)
		}
	}
	return loopbackUp()
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("name loopback device: %w", err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring loopback device up: %w", err)
	}
	return nil
}

// runJobs runs what the configuration lists and reports it.
func runJobs() error {
	out, err := openPort()
	if err != nil {
		return err
	}
	defer out.Close()
	report := json.NewEncoder(out)
	report.SetEscapeHTML(false)
	if err := report.Encode(bootEvent()); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	cfg, err := readConfig()
	if err != nil {
		_ = report.Encode(guest.Event{Kind: guest.KindError, Text: err.Error()})
		return err
	}
	for _, job := range cfg.Jobs {
		if err := runJob(report, cfg.Env, job); err != nil {
			return err
		}
	}
	return report.Encode(guest.Event{Kind: guest.KindDone})
}

// openPort opens the serial port and switches off the line discipline's own
// ideas, such as a carriage return with each line feed.
func openPort() (*os.File, error) {
	f, err := os.OpenFile(port, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open port for results: %w", err)
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err == nil {
		t.Oflag &^= unix.OPOST
		t.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
		err = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up port for results: %w", err), f.Close())
	}
	return f, nil
}

func bootEvent() guest.Event {
	ev := guest.Event{Kind: guest.KindBoot, CPUs: runtime.NumCPU()}
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) == nil {
		ev.Millis = now.Nano() / 1e6
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		ev.Kernel = strings.TrimSpace(string(release))
	}
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	ev.BTF = err == nil
	return ev
}

func readConfig() (guest.Config, error) {
	var cfg guest.Config
	text, err := os.ReadFile(guest.ConfigPath)
	if err != nil {
		return cfg, fmt.Errorf("read configuration: %w", err)
	}
	if err := json.Unmarshal(text, &cfg); err != nil {
		return cfg, fmt.Errorf("decode %s: %w", guest.ConfigPath, err)
	}
	return cfg, nil
}

// runJob runs one test binary to its end and passes its output on line by line.
// The error is about reporting alone.
func runJob(report *json.Encoder, env []string, job guest.Job) error {
	if err := report.Encode(guest.Event{Kind: guest.KindStart, Job: job.Name}); err != nil {
		return fmt.Errorf("report start of %s: %w", job.Name, err)
	}
	began := time.Now()
	end := guest.Event{Kind: guest.KindEnd, Job: job.Name}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("run %s: %w", job.Name, err)
	}
	defer r.Close()
	cmd := exec.Command(job.Path, job.Args...)
	cmd.Dir, cmd.Env = job.Dir, slices.Concat(env, job.Env)
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		end.Code, end.Text = 127, err.Error()
		return report.Encode(end)
	}
	// The pipe ends when the last holder of it is gone, which may be a
	// grandchild: so everything is killed both at the time limit and when the
	// test binary itself has ended.
	limit := time.AfterFunc(time.Duration(job.Seconds)*time.Second, func() { killOthers(os.Getpid()) })
	waited := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		limit.Stop()
		killOthers(os.Getpid())
		waited <- err
	}()
	if err := copyLines(report, job.Name, r); err != nil {
		return err
	}
	end.Code, end.Text = exitCode(<-waited)
	end.Millis = time.Since(began).Milliseconds()
	if err := report.Encode(end); err != nil {
		return fmt.Errorf("report end of %s: %w", job.Name, err)
	}
	return nil
}

func copyLines(report *json.Encoder, job string, r io.Reader) error {
	lines := bufio.NewReaderSize(r, 32<<10)
	for {
		line, err := lines.ReadSlice('\n') // or a piece of one too long
		if len(line) > 0 {
			ev := guest.Event{Kind: guest.KindOutput, Job: job, Text: string(line)}
			if err := report.Encode(ev); err != nil {
				return fmt.Errorf("report output of %s: %w", job, err)
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil
		}
	}
}

func exitCode(err error) (int, string) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, ""
	case !errors.As(err, &exit):
		return 127, err.Error()
	}
	if st, ok := exit.Sys().(syscall.WaitStatus); ok && st.Signaled() {
		return 128 + int(st.Signal()), exit.String()
	}
	return exit.ExitCode(), exit.String()
}

// killOthers kills every process but process 1, self and the kernel's threads.
func killOthers(self int) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return // the pattern is a constant
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == 1 || pid == self {
			continue
		}
		if _, err := os.Readlink(dir + "/exe"); err != nil {
			continue // a kernel thread, or gone
		}
		_ = unix.Kill(pid, unix.SIGKILL) // it may be gone by now
	}
}
