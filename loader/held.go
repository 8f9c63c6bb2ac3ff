package loader

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Resume lets a process go that was stopped at exec (Config.StopOnExec). It is
// no error if the process has ended.
func (s *Session) Resume(pid uint32) error {
	err := resume(pid)
	_ = s.coll.Maps["held"].Delete(pid) // gone with the process, perhaps
	return err
}

func resume(pid uint32) error {
	if err := unix.Kill(int(pid), unix.SIGCONT); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("continue process %d: %w", pid, err)
	}
	return nil
}

// Held lists the processes that are stopped at exec (Config.StopOnExec).
func (s *Session) Held() ([]uint32, error) { return heldIn(s.coll.Maps["held"]) }

func heldIn(held *ebpf.Map) ([]uint32, error) {
	var pid uint32
	var value uint8
	var pids []uint32
	it := held.Iterate()
	for it.Next(&pid, &value) {
		pids = append(pids, pid)
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return pids, fmt.Errorf("list the processes held at exec: %w", err)
	}
	return pids, nil
}

// resumeAll lets go whoever is in the map.
func resumeAll(held *ebpf.Map) error {
	pids, err := heldIn(held)
	errs := []error{err}
	for _, pid := range pids {
		errs = append(errs, resume(pid))
	}
	return errors.Join(errs...)
}

// Descriptors that a guard inherits.
const (
	guardMap   = 3 + iota // what is held
	guardAlive            // a pipe's end, whose other end closes with the session's process
)

// startGuard starts this program anew with args, which must make it call Guard.
func (s *Session) startGuard(args []string) error {
	fd, err := unix.FcntlInt(uintptr(s.coll.Maps["held"].FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("duplicate a map's descriptor: %w", err)
	}
	held := os.NewFile(uintptr(fd), "map")
	defer held.Close()
	alive, mine, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start guard: %w", err)
	}
	defer alive.Close()

	guard := exec.Command("/proc/self/exe", args...)
	guard.Args[0] = "sbxtrace"
	guard.Dir = "/"
	guard.ExtraFiles = []*os.File{guardMap - 3: held, guardAlive - 3: alive}
	// What a terminal sends to sbxtrace is not for its guard.
	guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := guard.Start(); err != nil {
		mine.Close()
		return fmt.Errorf("start guard: %w", err)
	}
	s.guard, s.alive = guard, mine
	return nil
}

// stopGuard ends the guard, which is needed no more.
func (s *Session) stopGuard() {
	if s.guard == nil {
		return
	}
	_ = s.guard.Process.Kill()
	_ = s.guard.Wait() // killed
	s.alive.Close()
}

// Guard waits for the end of the session that started this process (see
// Config.GuardArgs), which does not come to anything but SIGKILL or a crash: a
// session that is closed ends its guard. Then it lets go the processes that the
// session has stopped at exec, which would otherwise never go on.
func Guard() error {
	// It ends with sbxtrace and not before, whoever asks a whole group to end.
	signal.Ignore(unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP)
	held, err := ebpf.NewMapFromFD(guardMap)
	if err != nil {
		return fmt.Errorf("guard: inherit map: %w", err)
	}
	defer held.Close()
	fds := []unix.PollFd{{Fd: guardAlive}} // the other end's closing needs no asking for
	for {
		_, err := unix.Poll(fds, -1)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("guard: wait for sbxtrace to end: %w", err)
		}
	}
	// Its programs are detached by now, but one may still be running: it
	// writes the map first and stops the process then.
	err = resumeAll(held)
	time.Sleep(50 * time.Millisecond)
	return errors.Join(err, resumeAll(held))
}
