package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/sbxtrace/sbxtrace/vmtests/guest"
)

// cpus of a test machine: enough for tests of concurrency to have some.
const cpus = 2

// bootSeconds is what a machine gets for starting up and powering off. Two
// seconds of it are used on an idle host.
const bootSeconds = 90

// machine is one boot of a kernel in QEMU.
type machine struct {
	kernel    string // path of the image
	initramfs string
	memoryMB  int
	dir       string // for the logs of both ports
	limit     time.Duration
}

// run boots the machine and hands every event to on, until it powers off. The
// error says that it did not come to its end by itself.
func (m *machine) run(ctx context.Context, on func(guest.Event)) error {
	ctx, cancel := context.WithTimeout(ctx, m.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
		"-smp", fmt.Sprint(cpus), "-m", fmt.Sprintf("%dM", m.memoryMB),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", m.kernel, "-initrd", m.initramfs,
		// Stalls are suppressed because the host may be too busy to emulate in
		// time; mitigations cost time and protect nothing here.
		"-append", "console=ttyS0 rdinit=/init panic=-1 oops=panic mitigations=off nowatchdog rcupdate.rcu_cpu_stall_suppress=1",
		"-chardev", "file,id=console,path="+m.consoleLog(), "-serial", "chardev:console",
		"-chardev", "stdio,id=results,signal=off", "-serial", "chardev:results")
	stderr := new(strings.Builder)
	cmd.Stderr = stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("run qemu: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run qemu: %w", err)
	}
	readErr := m.readEvents(stdout, on)
	waitErr := cmd.Wait()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("still running after %v", m.limit)
	case waitErr != nil:
		return fmt.Errorf("qemu: %w %s", waitErr, strings.TrimSpace(stderr.String()))
	}
	return readErr
}

// readEvents decodes the events and logs them as they came.
func (m *machine) readEvents(r io.Reader, on func(guest.Event)) (err error) {
	log, err := os.Create(filepath.Join(m.dir, "results.log"))
	if err != nil {
		return fmt.Errorf("create log of results: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	lines := bufio.NewScanner(io.TeeReader(r, log))
	lines.Buffer(nil, 1<<20) // init cuts output at 32 KiB, which JSON may blow up sixfold
	for lines.Scan() {
		var ev guest.Event
		if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
			return fmt.Errorf("results: %w in %.100q", err, lines.Bytes())
		}
		on(ev)
	}
	return lines.Err()
}

func (m *machine) consoleLog() string { return filepath.Join(m.dir, "console.log") }

// kernelTrouble are the console's messages that mean that the kernel itself has
// failed, whatever the tests say.
var kernelTrouble = regexp.MustCompile(`Kernel panic|BUG: |Oops: |general protection fault|refcount_t: |WARNING: CPU`)

// trouble returns what the kernel complained about, with what followed.
func (m *machine) trouble() (string, error) {
	text, err := os.ReadFile(m.consoleLog())
	if err != nil {
		return "", fmt.Errorf("read console: %w", err)
	}
	return findTrouble(string(text)), nil
}

func findTrouble(console string) string {
	at := kernelTrouble.FindStringIndex(console)
	if at == nil {
		return ""
	}
	start := strings.LastIndexByte(console[:at[0]], '\n') + 1
	lines := strings.SplitAfterN(console[start:], "\n", 41)
	return strings.Join(lines[:min(len(lines), 40)], "")
}

// consoleTail is the console's last lines, for when the machine said no more.
func (m *machine) consoleTail() string {
	text, err := os.ReadFile(m.consoleLog())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}
