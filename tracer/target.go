package tracer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// ErrUntraceable says that a process exists and cannot be a target; the error
// that wraps it says why.
var ErrUntraceable = errors.New("cannot be traced")

// CheckTarget says why a process cannot be a target, nil if it can: there is no
// such process, it is a thread, of the kernel, a zombie, of another user, or
// sbxtrace itself.
func CheckTarget(pid uint32) error {
	_, err := targetFiles(pid)
	return err
}

// targetFiles are the files that pid has mapped executable, its program first.
// Where there is no program the error says why: the process has ended, is none,
// may not be looked at, or is sbxtrace.
func targetFiles(pid uint32) ([]mapped, error) {
	if int(pid) == os.Getpid() {
		return nil, fmt.Errorf("pid %d: %w: it is sbxtrace itself, whose every event would make another", pid, ErrUntraceable)
	}
	tgid, err := symbolizer.Tgid(int(pid))
	if errors.Is(err, symbolizer.ErrNoProcess) && errors.Is(unix.Kill(int(pid), 0), unix.EPERM) {
		return nil, otherUser(pid, fs.ErrPermission) // /proc is mounted with hidepid
	}
	if err != nil {
		return nil, err
	}
	if tgid != int(pid) {
		return nil, fmt.Errorf("pid %d: %w: it is a thread of process %d: give --pid %d --tid %d", pid, ErrUntraceable, tgid, tgid, pid)
	}
	mods, err := mappedFiles(pid)
	if errors.Is(err, fs.ErrPermission) {
		return nil, otherUser(pid, err)
	}
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(mods, func(m mapped) bool { return m.Main }) {
		return mods, nil
	}
	return mods, withoutProgram(pid, mods)
}

// withoutProgram says why the program of a process is not to be seen, nil if it is
// for none of the reasons known.
func withoutProgram(pid uint32, mods []mapped) error {
	task, err := symbolizer.TaskState(int(pid))
	switch {
	case err != nil:
		return err
	case task.Kernel:
		return fmt.Errorf("pid %d: %w: it is a thread of the kernel, which runs no program", pid, ErrUntraceable)
	case len(mods) == 0 && (task.State == 'Z' || task.State == 'X'):
		return fmt.Errorf("pid %d: %w: it has ended, and its parent has not taken notice yet (a zombie)", pid, symbolizer.ErrNoProcess)
	}
	if _, err := symbolizer.Exe(int(pid)); errors.Is(err, fs.ErrPermission) {
		return otherUser(pid, err)
	}
	return nil
}

// otherUser is the error for a process that this user may not look at.
func otherUser(pid uint32, err error) error {
	missing := loader.MissingForOthers()
	if len(missing) == 0 {
		return fmt.Errorf("pid %d: %w, although the capabilities are there: a security module or the container's runtime protects that process (%w)", pid, loader.ErrPermission, err)
	}
	return fmt.Errorf("pid %d: %w: a process of another user takes %s: run it with sudo (%w)",
		pid, loader.ErrPermission, strings.Join(missing, " and "), err)
}

// alive reports whether a thread of the process still executes its program. The
// kernel reports the end of one that did so when it became a target.
func alive(pid uint32) bool {
	tids, err := symbolizer.Threads(int(pid))
	return err == nil && slices.ContainsFunc(tids, func(tid int) bool {
		task, err := symbolizer.TaskState(tid)
		return err == nil && !task.Ending
	})
}

// endedMeanwhile makes ErrNoProcess of whatever error the end of a process
// caused while it was being looked at or attached to.
func endedMeanwhile(pid uint32, err error) error {
	if err == nil || errors.Is(err, symbolizer.ErrNoProcess) || alive(pid) {
		return err
	}
	return fmt.Errorf("pid %d: %w: it ended while probes were being attached", pid, symbolizer.ErrNoProcess)
}
