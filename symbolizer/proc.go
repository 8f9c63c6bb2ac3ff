package symbolizer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// procRoot is where the proc file system is mounted.
const procRoot = "/proc"

// procDir is the directory that describes the process. When the main thread has
// ended and others live on, /proc/PID has no memory map any more, but those of
// the other threads do.
func procDir(pid int) string {
	dir := filepath.Join(procRoot, strconv.Itoa(pid))
	if _, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
		return dir
	}
	tids, _ := Threads(pid)
	for _, tid := range tids {
		task := filepath.Join(dir, "task", strconv.Itoa(tid))
		if _, err := os.Readlink(filepath.Join(task, "exe")); err == nil {
			return task
		}
	}
	return dir
}

// procError wraps an error of reading /proc/PID: what vanished is ErrNoProcess.
func procError(pid int, err error) error {
	if err == nil {
		return nil
	}
	if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)) && !ProcessExists(pid) {
		return fmt.Errorf("pid %d: %w", pid, ErrNoProcess)
	}
	return fmt.Errorf("pid %d: %w", pid, err)
}

// ProcessExists reports whether there is a process (not merely a thread) with
// that id, zombies included.
func ProcessExists(pid int) bool {
	if pid <= 0 {
		return false
	}
	// /proc/TID opens for threads too, though it is not listed.
	status, err := readStatus(pid)
	return err == nil && status["Tgid"] == strconv.Itoa(pid)
}

// readProc reads a small file of /proc/PID.
func readProc(pid int, name string) ([]byte, error) {
	const maxProcFile = 4 << 20 // a command line is at most 2 MiB and a bit
	f, err := os.Open(filepath.Join(procRoot, strconv.Itoa(pid), name))
	if err != nil {
		return nil, procError(pid, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxProcFile))
	if err != nil {
		return nil, procError(pid, err)
	}
	return data, nil
}

// readStatus reads the fields of /proc/PID/status.
func readStatus(pid int) (map[string]string, error) {
	data, err := os.ReadFile(filepath.Join(procRoot, strconv.Itoa(pid), "status"))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			err = ErrNoProcess
		}
		return nil, fmt.Errorf("pid %d: %w", pid, err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields[name] = strings.TrimSpace(value)
		}
	}
	return fields, nil
}

// statusInts returns the numbers of one field of /proc/PID/status.
func statusInts(pid int, field string) ([]int, error) {
	status, err := readStatus(pid)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, word := range strings.Fields(status[field]) {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("pid %d: status field %s: %w", pid, field, ErrMalformed)
		}
		out = append(out, n)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("pid %d: no status field %s: %w", pid, field, ErrMalformed)
	}
	return out, nil
}

// Exe returns the path of the process's executable as the kernel shows it,
// without " (deleted)". Kernel threads and zombies have none: the error then is
// not ErrNoProcess. To open the file use ModulePath or ExePath.
func Exe(pid int) (string, error) {
	path, err := os.Readlink(ExePath(pid))
	if err != nil {
		return "", procError(pid, err)
	}
	return strings.TrimSuffix(path, deletedSuffix), nil
}

// ExePath is a path by which this process can open the executable of another
// one, also if it was deleted or replaced.
func ExePath(pid int) string { return filepath.Join(procDir(pid), "exe") }

// RootPath is the prefix that makes a path of the process one of ours, see
// Options.Root.
func RootPath(pid int) string { return filepath.Join(procDir(pid), "root") }

// NSpid returns the ids of the process in the pid namespaces around it, ours
// first and the process's own last.
func NSpid(pid int) ([]int, error) { return statusInts(pid, "NSpid") }

// Tgid returns the process that a thread belongs to.
func Tgid(tid int) (int, error) {
	ids, err := statusInts(tid, "Tgid")
	if err != nil {
		return 0, err
	}
	return ids[0], nil
}

// Comm returns the name of the process's main thread, at most 15 bytes.
func Comm(pid int) (string, error) {
	data, err := readProc(pid, "comm")
	return strings.TrimSuffix(string(data), "\n"), err
}

// Cmdline returns the arguments the process was started with, its own name
// first. It is empty for kernel threads and zombies.
func Cmdline(pid int) ([]string, error) {
	data, err := readProc(pid, "cmdline")
	if err != nil || len(data) == 0 {
		return nil, err
	}
	return strings.Split(string(bytes.TrimSuffix(data, []byte{0})), "\x00"), nil
}

// Credentials are the user and group that a process runs as.
type Credentials struct {
	UID, EUID int // real and effective user
	GID, EGID int // real and effective group
}

// Creds returns the credentials of the process, in our user namespace.
func Creds(pid int) (Credentials, error) {
	uids, err := statusInts(pid, "Uid")
	if err != nil {
		return Credentials{}, err
	}
	gids, err := statusInts(pid, "Gid")
	if err != nil {
		return Credentials{}, err
	}
	if len(uids) < 2 || len(gids) < 2 {
		return Credentials{}, fmt.Errorf("pid %d: status: %w", pid, ErrMalformed)
	}
	return Credentials{UID: uids[0], EUID: uids[1], GID: gids[0], EGID: gids[1]}, nil
}

// StartTime returns when the process started, in clock ticks (10 ms) after boot.
// Together with the id it names a process for good: ids are used again.
func StartTime(pid int) (uint64, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	const startTime = 22 - 3 // fields of proc_pid_stat(5) count from 1; ours start with the third
	if len(fields) <= startTime {
		return 0, fmt.Errorf("pid %d: stat: %w", pid, ErrMalformed)
	}
	ticks, err := strconv.ParseUint(fields[startTime], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("pid %d: stat: %w", pid, ErrMalformed)
	}
	return ticks, nil
}

// Task is what the scheduler knows of a thread.
type Task struct {
	State  byte // 'R', 'S', 'D', 'T' stopped, 't' stopped by a tracer, 'Z' zombie, …: proc_pid_stat(5)
	Kernel bool // a thread of the kernel
	Ending bool // on its way out, or out: it executes nothing any more
}

// TaskState returns the state of the process's main thread, or of the thread
// whose id is given.
func TaskState(pid int) (Task, error) {
	fields, err := statFields(pid)
	if err != nil {
		return Task{}, err
	}
	const flags = 9 - 3
	const exiting, kthread = 0x4, 0x200000 // PF_EXITING, PF_KTHREAD: include/linux/sched.h
	if len(fields) <= flags || len(fields[0]) != 1 {
		return Task{}, fmt.Errorf("pid %d: stat: %w", pid, ErrMalformed)
	}
	bits, err := strconv.ParseUint(fields[flags], 10, 64)
	if err != nil {
		return Task{}, fmt.Errorf("pid %d: stat: %w", pid, ErrMalformed)
	}
	return Task{State: fields[0][0], Kernel: bits&kthread != 0, Ending: bits&exiting != 0}, nil
}

// Parent returns the id of the parent process, 0 if it is outside of our pid
// namespace.
func Parent(pid int) (int, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	if len(fields) < 2 {
		return 0, fmt.Errorf("pid %d: stat: %w", pid, ErrMalformed)
	}
	ppid, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0, fmt.Errorf("pid %d: stat: %w", pid, ErrMalformed)
	}
	return ppid, nil
}

// statFields returns the fields of /proc/PID/stat from the third on. The second,
// the name, may contain anything, also spaces and parentheses.
func statFields(pid int) ([]string, error) {
	data, err := readProc(pid, "stat")
	if err != nil {
		return nil, err
	}
	_, rest, ok := cutLast(string(data), ")")
	if !ok {
		return nil, fmt.Errorf("pid %d: stat: %w", pid, ErrMalformed)
	}
	return strings.Fields(rest), nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Threads returns the thread ids of the process in ascending order.
func Threads(pid int) ([]int, error) {
	dir := filepath.Join(procRoot, strconv.Itoa(pid), "task")
	ids, err := numericEntries(dir)
	if err != nil {
		return nil, procError(pid, err)
	}
	return ids, nil
}

// Children returns the processes that the process's threads started and that
// still have it as parent, in ascending order.
func Children(pid int) ([]int, error) {
	if !ProcessExists(pid) {
		return nil, fmt.Errorf("pid %d: %w", pid, ErrNoProcess)
	}
	// /proc/PID/task/TID/children depends on a kernel option and may miss some
	// while processes come and go; the parents of all processes do not.
	all, err := Processes()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(p int) bool {
		parent, err := Parent(p)
		return err != nil || parent != pid
	}), nil
}

// Processes returns the ids of all processes in our pid namespace in ascending
// order.
func Processes() ([]int, error) {
	ids, err := numericEntries(procRoot)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	return ids, nil
}

// numericEntries returns the names of a directory's entries that are numbers,
// sorted.
func numericEntries(dir string) ([]int, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var ids []int
	for _, name := range names {
		if id, err := strconv.Atoi(name); err == nil && id > 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}
