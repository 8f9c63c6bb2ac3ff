package tests

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/targets"
	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// Processes that cannot be a target: why not is said.
func TestFaultNoTarget(t *testing.T) {
	needRoot(t)
	threads := start(t, targets.Build(t, "busy"), "--threads", "2")
	threads.Go()
	thread := 0
	eventually(t, "a thread", func() bool {
		tids, err := symbolizer.Threads(threads.PID())
		if err != nil {
			t.Fatal(err)
		}
		for _, tid := range tids {
			if tid != threads.PID() {
				thread = tid
			}
		}
		return thread != 0
	})
	for _, tt := range []struct {
		name string
		pid  int
		says string
	}{
		{"no process", freePID(t), "no such process\n"},
		{"a thread", thread, fmt.Sprintf("cannot be traced: it is a thread of process %d: give --pid %d --tid %d", threads.PID(), threads.PID(), thread)},
		{"a kernel thread", kernelThread(t), "cannot be traced: it is a thread of the kernel"},
		{"a zombie", zombie(t), "no such process: it has ended"},
		{"a 32-bit program", program32(t), "cannot be traced: "},
	} {
		if tt.pid == 0 {
			t.Logf("%s is not to be had here", tt.name)
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			attachTo(tt.pid).gives(t, 1, fmt.Sprintf("sbxtrace: pid %d: ", tt.pid), tt.says)
			typed("functions", "--pid", strconv.Itoa(tt.pid)).gives(t, 1)
		})
	}
	t.Run("several, none of them", func(t *testing.T) {
		s := attachTo(freePID(t), "--pid", strconv.Itoa(zombie(t))).gives(t, 1, "none of 2 processes can be traced")
		if n := strings.Count(s.stderr.String(), "\n"); n != 3 {
			t.Errorf("%d lines:\n%s", n, s.stderr)
		}
	})
	t.Run("several, one of them", func(t *testing.T) {
		p := start(t, targets.Build(t, "calls"))
		attachTo(freePID(t), "--pid", strconv.Itoa(p.PID()), "--duration", "10ms").gives(t, 0, "no such process", "of 1 process,")
		unharmed(t, p)
	})
	// A script is traced in its interpreter.
	t.Run("a script", func(t *testing.T) {
		script := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(script, []byte("#!/bin/sh\necho READY $$\nread line\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		p := targets.Start(t, script)
		p.Ready()
		attachTo(p.PID(), "--duration", "10ms").gives(t, 0, "attached: ")
		if err := p.Quit(); err != nil {
			t.Error(err)
		}
	})
}

// freePID is an id that no process has: the highest that can be is free on any
// machine that has not started as many.
func freePID(t testing.TB) int {
	t.Helper()
	const most = 1 << 22
	for pid := most; pid > most-100; pid-- {
		if !symbolizer.ProcessExists(pid) {
			return pid
		}
	}
	t.Fatal("no process id is free")
	return 0
}

// kernelThread is the process id of one, 0 if there is none to be seen, as in a
// container.
func kernelThread(t testing.TB) int {
	t.Helper()
	pids, err := symbolizer.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if task, err := symbolizer.TaskState(pid); err == nil && task.Kernel {
			return pid
		}
	}
	return 0
}

// zombie is a process that has ended and that nobody has waited for.
func zombie(t testing.TB) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() })
	eventually(t, "the process to end", func() bool { return taskState(cmd.Process.Pid) == "Z" })
	return cmd.Process.Pid
}

// program32 is a process that runs a program for i386, made here: compilers for
// that are not at hand everywhere. It is 0 where the kernel does not execute any.
func program32(t testing.TB) int {
	t.Helper()
	const base, headers = 0x08048000, 52 + 32
	code := []byte{
		0xb8, 29, 0, 0, 0, // mov $__NR_pause, %eax
		0xcd, 0x80, // int $0x80
		0xeb, 0xf7, // again
	}
	var file []byte
	put := func(parts ...any) {
		for _, part := range parts {
			file, _ = binary.Append(file, binary.LittleEndian, part)
		}
	}
	size := uint32(headers + len(code))
	put([]byte("\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	put(uint16(elf.ET_EXEC), uint16(elf.EM_386), uint32(1), uint32(base+headers), uint32(52), uint32(0), uint32(0),
		uint16(52), uint16(32), uint16(1), uint16(40), uint16(0), uint16(0))
	put(uint32(elf.PT_LOAD), uint32(0), uint32(base), uint32(base), size, size, uint32(elf.PF_R|elf.PF_X), uint32(4096))
	put(code)
	path := filepath.Join(t.TempDir(), "program32")
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, file, 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	if err := cmd.Start(); err != nil {
		return 0
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

// A target that dies at any moment of attaching is no such process, or was
// attached to; nothing else is ever said of it.
func TestFaultTargetDies(t *testing.T) {
	t.Parallel()
	needRoot(t)
	path := own(t, targets.Build(t, "calls"))
	attached := 0
	for i := range 30 {
		p := targets.Start(t, path)
		p.Ready()
		s := attachTo(p.PID()).start(t)
		time.Sleep(time.Duration(i) * 12 * time.Millisecond) // anywhere: no moment is special
		p.Signal(syscall.SIGKILL)
		status := s.status()
		s.endsWith(status)
		switch said := s.stderr.String(); {
		case status == 0 && strings.Contains(said, "attached: "):
			attached++
		case status == 1 && strings.Contains(said, "no such process"):
		default:
			t.Errorf("status %d\n%s", status, said)
		}
	}
	t.Logf("%d of 30 were attached to", attached)
}

// Processes that live for a moment, as many as can be, among the children.
func TestFaultShortLived(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s := typed("run", "--summary", "-o", "/dev/null", "--", "sh", "-c",
		`i=0; while [ $i -lt 60 ]; do /bin/true & i=$((i + 1)); done; wait; echo $i`).gives(t, 0)
	if s.stdout.String() != "60\n" {
		t.Errorf("the command printed %q", s.stdout)
	}
	for line := range strings.Lines(s.stderr.String()) {
		if !strings.Contains(line, "attached: ") && !strings.Contains(line, " executes") && !strings.Contains(line, "cannot be probed") && !strings.Contains(line, ", detached") {
			t.Errorf("it says: %s", line)
		}
	}
}

// The target ends while its probes are being taken out.
func TestFaultTargetEndsWhileDetaching(t *testing.T) {
	t.Parallel()
	needRoot(t)
	path := own(t, targets.Build(t, "calls"))
	for i := range 10 {
		p := targets.Start(t, path)
		p.Ready()
		s := attachTo(p.PID()).start(t)
		s.waitAttached()
		s.signal(syscall.SIGINT)
		time.Sleep(time.Duration(i) * time.Millisecond) // anywhere: no moment is special
		p.Signal(syscall.SIGKILL)
		s.endsWith(0)
	}
}

// Ctrl-C in the middle of attaching to thousands of functions ends it at once.
func TestFaultInterruptedWhileAttaching(t *testing.T) {
	t.Parallel()
	needRoot(t)
	p := start(t, targets.Build(t, "gohttp"))
	interrupted := 0
	for i := range 12 {
		s := attachTo(p.PID(), "*").start(t)
		time.Sleep(time.Duration(i) * 30 * time.Millisecond) // anywhere: no moment is special
		s.signal(syscall.SIGINT)
		status := s.status()
		said := s.stderr.String()
		switch {
		case status == 1 && said == "sbxtrace: interrupted before all probes were in\n":
			interrupted++
		case status == 0 && strings.Contains(said, "attached: "):
		case status == -1 && said == "": // it had not even begun
		default:
			t.Errorf("status %d\n%s", status, said)
		}
	}
	if interrupted == 0 {
		t.Error("it was never interrupted while it attached")
	}
	unprobed(t, p.PID())
	p.Go()
	p.Truth()
	if err := p.Quit(); err != nil {
		t.Errorf("the target ended with %v", err)
	}
}
