package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LaunchOptions say how a command is started.
type LaunchOptions struct {
	Args   []string // the command and its arguments
	User   string   // run as this user (name or uid); empty: as the caller
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Launched is a command that was started under observation.
type Launched struct {
	cmd     *exec.Cmd
	release chan struct{} // closed to let the command go
	done    chan error    // the result of letting it go
	ended   chan struct{} // closed when it has ended, before Wait collects its status
}

// Kinds of failure of Launch.
var (
	// ErrCommandNotFound: there is no such command.
	ErrCommandNotFound = errors.New("command not found")
	// ErrNotExecutable: the file cannot be executed.
	ErrNotExecutable = errors.New("not executable")
)

// errExited says that a command ended before its main program began.
var errExited = errors.New("command ended before its first instruction")

// Launch starts a command and stops it where the dynamic loader has mapped
// every library and is about to jump to the program's own entry point, so that
// not one call of main can be missed. Release lets it go.
func Launch(o LaunchOptions) (*Launched, error) {
	cmd := exec.Command(o.Args[0], o.Args[1:]...)
	if cmd.Err != nil {
		return nil, startError(o.Args[0], cmd.Err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = o.Stdin, o.Stdout, o.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if o.User != "" {
		cred, home, err := credential(o.User)
		if err != nil {
			return nil, err
		}
		cmd.SysProcAttr.Credential = cred
		cmd.Env = append(os.Environ(), home...)
	}
	l := &Launched{cmd: cmd, release: make(chan struct{}), done: make(chan error, 1), ended: make(chan struct{})}
	started := make(chan error)
	go l.hold(started)
	if err := <-started; err != nil {
		return nil, startError(cmd.Path, err)
	}
	return l, nil
}

// startError says why a command was not started.
func startError(name string, err error) error {
	var pathErr *fs.PathError
	var lookErr *exec.Error
	switch {
	case errors.As(err, &pathErr): // its text repeats the name
		err = pathErr.Err
	case errors.As(err, &lookErr):
		err = lookErr.Err
	}
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("start %s: %w: it is in no directory of $PATH", name, ErrCommandNotFound)
	case errors.Is(err, fs.ErrNotExist):
		if _, statErr := os.Stat(name); statErr == nil {
			return fmt.Errorf("start %s: %w: its interpreter does not exist", name, ErrCommandNotFound)
		}
		return fmt.Errorf("start %s: %w", name, ErrCommandNotFound)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.EISDIR):
		return fmt.Errorf("start %s: %w: %w", name, ErrNotExecutable, err)
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("start %s: %w: it is held by ptrace until it is traced, and started as another user with --user or sudo: one of these is not allowed here", name, err)
	}
	return fmt.Errorf("start %s: %w", name, err)
}

// hold starts the command and keeps it stopped until release. ptrace obeys
// only the thread that began it, hence a goroutine of its own for all of it.
func (l *Launched) hold(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := l.cmd.Start(); err != nil {
		started <- err
		return
	}
	// After an error it is still worth running: only the certainty of the
	// first calls is lost.
	err := runToEntry(l.PID())
	started <- nil
	<-l.release
	if detachErr := syscall.PtraceDetach(l.PID()); detachErr != nil && !errors.Is(detachErr, syscall.ESRCH) {
		err = errors.Join(err, fmt.Errorf("let the command go: %w", detachErr))
	}
	l.done <- err
}

// runToEntry takes the process, which stands at its exec, to its entry point.
func runToEntry(pid int) error {
	if _, err := waitStop(pid); err != nil {
		return err
	}
	// Until it is let go, the end of sbxtrace is its end: it has done nothing
	// yet, and would stay stopped, or run into the breakpoint.
	if err := syscall.PtraceSetOptions(pid, unix.PTRACE_O_EXITKILL); err != nil {
		return fmt.Errorf("bind the command to sbxtrace: %w", err)
	}
	entry, err := auxEntry(pid)
	if err != nil {
		return nil // stay at the exec: libraries are then traced as they are mapped
	}
	saved := make([]byte, len(breakpoint))
	if _, err := syscall.PtracePeekText(pid, entry, saved); err != nil {
		return nil
	}
	if _, err := syscall.PtracePokeText(pid, entry, breakpoint); err != nil {
		return nil
	}
	sig := 0
	for {
		if err := syscall.PtraceCont(pid, sig); err != nil {
			return fmt.Errorf("continue to the entry point: %w", err)
		}
		s, err := waitStop(pid)
		if err != nil {
			return err
		}
		if s == syscall.SIGTRAP {
			break
		}
		sig = int(s) // meant for the command
	}
	if _, err := syscall.PtracePokeText(pid, entry, saved); err != nil {
		return fmt.Errorf("restore the entry point: %w", err)
	}
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(pid, &regs); err != nil {
		return fmt.Errorf("read registers: %w", err)
	}
	regs.SetPC(uint64(entry))
	if err := syscall.PtraceSetRegs(pid, &regs); err != nil {
		return fmt.Errorf("set registers: %w", err)
	}
	return nil
}

// waitStop waits until pid stops and returns the signal that stopped it. The
// end of the process is errExited; its status is left for Wait to collect.
func waitStop(pid int) (syscall.Signal, error) {
	// Layout of siginfo_t for SIGCHLD (sigaction(2)): si_status follows
	// si_pid and si_uid.
	const status, cldTrapped, cldStopped = 24, 4, 5
	var info unix.Siginfo
	if err := retry(func() error {
		return unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
	}); err != nil {
		return 0, fmt.Errorf("wait for the command: %w", err)
	}
	if info.Code != cldTrapped && info.Code != cldStopped {
		return 0, errExited
	}
	raw := (*[unsafe.Sizeof(info)]byte)(unsafe.Pointer(&info))
	sig := syscall.Signal(binary.NativeEndian.Uint32(raw[status:]) & 0x7f)
	if err := retry(func() error { return unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED, nil) }); err != nil {
		return 0, fmt.Errorf("wait for the command: %w", err)
	}
	return sig, nil
}

// retry repeats a system call that a signal interrupted.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// auxEntry reads the address of the program's entry point, relocated, from the
// auxiliary vector that the kernel gave it (AT_ENTRY, getauxval(3)).
func auxEntry(pid int) (uintptr, error) {
	const atEntry = 9
	aux, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/auxv")
	if err != nil {
		return 0, err
	}
	for ; len(aux) >= 16; aux = aux[16:] {
		if binary.NativeEndian.Uint64(aux) == atEntry {
			return uintptr(binary.NativeEndian.Uint64(aux[8:])), nil
		}
	}
	return 0, errors.New("no entry point in the auxiliary vector")
}

// PID is the process id of the command.
func (l *Launched) PID() int { return l.cmd.Process.Pid }

// Release lets the command run.
func (l *Launched) Release() error {
	close(l.release)
	err := <-l.done
	go func() {
		_ = retry(func() error { return unix.Waitid(unix.P_PID, l.PID(), nil, unix.WEXITED|unix.WNOWAIT, nil) })
		close(l.ended)
	}()
	return err
}

// Ended is closed when the command has ended after Release; processes that it
// started may live on. Its status is still to be had by Wait.
func (l *Launched) Ended() <-chan struct{} { return l.ended }

// Wait waits for the command's end and returns its exit status, 128 plus the
// signal's number when a signal ended it.
func (l *Launched) Wait() (int, error) {
	err := l.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("wait for the command: %w", err)
	}
	ws := l.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

// Signal sends the command a signal.
func (l *Launched) Signal(s os.Signal) error { return l.cmd.Process.Signal(s) }

// credential looks a user up, by name or number, with all groups, and the
// environment that goes with it.
func credential(name string) (*syscall.Credential, []string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, nil, fmt.Errorf("run as %s: %w", name, err)
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, nil, fmt.Errorf("run as %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, nil, fmt.Errorf("run as %s: %w", name, err)
	}
	cred := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, nil, fmt.Errorf("run as %s: %w", name, err)
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			cred.Groups = append(cred.Groups, uint32(n))
		}
	}
	return cred, []string{"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username}, nil
}
