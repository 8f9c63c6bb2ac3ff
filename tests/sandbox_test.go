package tests

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refuseEnv makes the test binary a sandbox: it refuses the system calls that
// the variable lists to itself, hides the directories, and then executes its
// arguments. Mounting and unsharing take root and all threads: the process must be
// young.
const refuseEnv = "SBXTRACE_TESTS_REFUSE"

// refusals are what a sandbox can refuse, by name: a system call, perhaps only
// with one first argument, and the error that it gives instead.
var refusals = map[string]struct {
	call  uint32
	first int64 // -1: any
	errno syscall.Errno
}{
	// As containers do by default.
	"bpf":             {unix.SYS_BPF, -1, unix.EPERM},
	"perf_event_open": {unix.SYS_PERF_EVENT_OPEN, -1, unix.EPERM},
	"ptrace":          {unix.SYS_PTRACE, -1, unix.EPERM},
	// As kernels do that lack something.
	"no bpf":         {unix.SYS_BPF, -1, unix.ENOSYS},
	"no maps":        {unix.SYS_BPF, unix.BPF_MAP_CREATE, unix.EINVAL},
	"no links":       {unix.SYS_BPF, unix.BPF_LINK_CREATE, unix.EINVAL},
	"no perf events": {unix.SYS_PERF_EVENT_OPEN, -1, unix.ENOSYS},
	"no descriptors": {unix.SYS_BPF, unix.BPF_LINK_CREATE, unix.EMFILE},
}

// refusing is sbxtrace where system calls are refused, by the names of refusals,
// and directories are empty, by their paths.
func refusing(t testing.TB, i *invocation, names ...string) *invocation {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	i.wrapper = []string{"env", refuseEnv + "=" + strings.Join(names, ","), self}
	return i
}

// sandboxed executes the command line as refuseEnv demands, and does not return
// unless that fails.
func sandboxed(list string) error {
	var calls []string
	for _, name := range strings.Split(list, ",") {
		if !strings.HasPrefix(name, "/") {
			calls = append(calls, name)
		} else if err := hide(name); err != nil {
			return fmt.Errorf("hide %s: %w", name, err)
		}
	}
	if err := refuse(calls); err != nil {
		return err
	}
	os.Unsetenv(refuseEnv)
	return syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
}

// hide puts an empty directory in a place, for this process alone.
func hide(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("none", path, "tmpfs", 0, "")
}

// refuse installs a seccomp filter (Documentation/userspace-api/seccomp_filter.rst).
func refuse(names []string) error {
	// Offsets into struct seccomp_data.
	const number, firstArgument = 0, 16
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	// unless skips instructions if the word loaded is another one.
	unless := func(word uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: word, Jf: skip}
	}
	give := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	var filter []unix.SockFilter
	for _, name := range names {
		r, ok := refusals[name]
		if !ok {
			return fmt.Errorf("cannot refuse %q", name)
		}
		filter = append(filter, load(number))
		if r.first < 0 {
			filter = append(filter, unless(r.call, 1))
		} else {
			filter = append(filter, unless(r.call, 3), load(firstArgument), unless(uint32(r.first), 1))
		}
		filter = append(filter, give(unix.SECCOMP_RET_ERRNO|uint32(r.errno)))
	}
	filter = append(filter, give(unix.SECCOMP_RET_ALLOW))
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}
