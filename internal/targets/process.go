package targets

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// stuck is how long a target may take for a step before the test fails. It is
// generous, for slow virtual machines: it guards against a hang and measures
// nothing.
const stuck = 5 * time.Minute

// Process is a running target. Its methods are for the test's goroutine and
// fail the test when the target does not behave.
type Process struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser

	mu    sync.Mutex
	lines []string      // stdout so far
	more  chan struct{} // closed and replaced when lines or done change
	done  bool          // stdout is at its end
	next  map[string]int

	exited chan struct{} // closed when the process was waited for
	err    error         // of Wait; valid after exited
}

// Start runs the binary at path and makes sure that it is killed when the test
// ends. It returns at once; see Ready.
func Start(t testing.TB, path string, args ...string) *Process {
	t.Helper()
	return StartCmd(t, exec.Command(path, args...))
}

// StartCmd is Start for a command with an environment, directory or attributes
// of its own. Stdin and Stdout belong to the protocol; Stderr is the test's if
// it is nil.
func StartCmd(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, cmd: cmd, more: make(chan struct{}), next: map[string]int{}, exited: make(chan struct{})}
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	p.stdin = stdin
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	cmd.Stdout = writer
	if err := cmd.Start(); err != nil {
		reader.Close()
		writer.Close()
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	writer.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(reader)
	}()
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.exited
		reader.SetReadDeadline(time.Now().Add(time.Second)) // a grandchild may hold the pipe
		<-read
		reader.Close()
	})
	return p
}

// read collects stdout line by line.
func (p *Process) read(from io.Reader) {
	reader := bufio.NewReader(from)
	for {
		line, err := reader.ReadString('\n')
		p.mu.Lock()
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			p.lines = append(p.lines, line)
		}
		p.done = err != nil
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// PID returns the target's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Line waits for the next line of stdout that begins with prefix and returns
// the rest of it. Lines are consumed per prefix.
func (p *Process) Line(prefix string) string {
	p.t.Helper()
	deadline := time.After(stuck)
	for {
		p.mu.Lock()
		for p.next[prefix] < len(p.lines) {
			line := p.lines[p.next[prefix]]
			p.next[prefix]++
			if rest, found := strings.CutPrefix(line, prefix); found {
				p.mu.Unlock()
				return rest
			}
		}
		more, done := p.more, p.done
		p.mu.Unlock()
		if done {
			p.t.Fatalf("%s ended its output without a line %q", p.cmd.Path, prefix)
		}
		select {
		case <-more:
		case <-deadline:
			p.t.Fatalf("%s printed no line %q within %v", p.cmd.Path, prefix, stuck)
		}
	}
}

// Ready waits until the target has started and waits for Go. It returns the
// process id as the target itself sees it, which differs from PID in another
// pid namespace.
func (p *Process) Ready() int {
	p.t.Helper()
	pid, err := strconv.Atoi(p.Line("READY "))
	if err != nil {
		p.t.Fatalf("%s: READY line: %v", p.cmd.Path, err)
	}
	return pid
}

// Go lets the target do its work.
func (p *Process) Go() {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, "go\n"); err != nil {
		p.t.Fatalf("%s: go: %v", p.cmd.Path, err)
	}
}

// Truth waits until the target has printed what it did. The target stays alive
// until Quit. A target that works endlessly prints it after Stop or Quit.
func (p *Process) Truth() Truth {
	p.t.Helper()
	var truth Truth
	if err := json.Unmarshal([]byte("{"+p.Line("{")), &truth); err != nil {
		p.t.Fatalf("%s: truth: %v", p.cmd.Path, err)
	}
	return truth
}

// Stop asks a target that works endlessly to end, and returns its truth.
func (p *Process) Stop() Truth {
	p.t.Helper()
	p.send("quit\n")
	return p.Truth()
}

// Quit lets the target end and waits for that. It returns the error of
// [exec.Cmd.Wait]: nil for exit status 0.
func (p *Process) Quit() error {
	p.t.Helper()
	p.send("quit\n")
	return p.Wait()
}

// Wait waits for the target to end by itself and returns the error of
// [exec.Cmd.Wait].
func (p *Process) Wait() error {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.err
	case <-time.After(stuck):
		p.t.Fatalf("%s did not end within %v", p.cmd.Path, stuck)
		return nil
	}
}

// Alive says whether the target still runs.
func (p *Process) Alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Signal sends a signal to the target.
func (p *Process) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("%s: signal %v: %v", p.cmd.Path, sig, err)
	}
}

// Rate waits for the next "RATE" line of a target that prints one every second
// and returns its number of calls per second.
func (p *Process) Rate() float64 {
	p.t.Helper()
	rate, err := strconv.ParseFloat(p.Line("RATE "), 64)
	if err != nil {
		p.t.Fatalf("%s: RATE line: %v", p.cmd.Path, err)
	}
	return rate
}

// send writes to the target, which may have ended already.
func (p *Process) send(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, text); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
		p.t.Fatalf("%s: %v", p.cmd.Path, err)
	}
}

// Run starts a target with --auto, waits for its end and returns its truth.
func Run(t testing.TB, path string, args ...string) Truth {
	t.Helper()
	p := Start(t, path, append([]string{"--auto"}, args...)...)
	truth := p.Truth()
	if err := p.Wait(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return truth
}

// String names the process for messages.
func (p *Process) String() string { return fmt.Sprintf("%s (pid %d)", p.cmd.Path, p.PID()) }
