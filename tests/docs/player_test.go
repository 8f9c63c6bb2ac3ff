package docs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// playing is the environment variable that makes the test binary a player.
const playing = "SBXTRACE_DOCS_PLAYER"

const (
	// patience is how long a command may take. It guards against a hang and
	// measures nothing.
	patience = 2 * time.Minute
	// showing is how long a command that traces until Ctrl-C has to show something.
	showing = 3 * time.Second
	// tries of a command whose output depends on what the target happens to do.
	tries = 4
)

// endless are commands that end with Ctrl-C, unless they have a --duration.
var endless = regexp.MustCompile(`\bsbxtrace (attach|run|profile|record|flows|top|replay)\b`)

// bounded are those that end by themselves: after a time, or with a command of
// theirs, unless that is a server.
var bounded = regexp.MustCompile(`--duration| -- ([^.]|\.[^/]|\./[^s])`)

// live are commands whose output depends on what the target does meanwhile, and
// on who of its threads is first.
var live = regexp.MustCompile(`\bsbxtrace (attach|run|profile|record|flows|top)\b`)

// outcome is what became of a command.
type outcome struct {
	Problem string // empty: it did as the page says
	Printed string
}

// play runs the commands of a page, which come as JSON on stdin, in the working
// directory, and prints their outcomes as JSON. It is the first process of a pid
// namespace: what commands leave running ends with it.
func play() error {
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	var commands []command
	if err := json.NewDecoder(os.Stdin).Decode(&commands); err != nil {
		return err
	}
	p := player{}
	results := json.NewEncoder(os.Stdout)
	for i := range commands {
		if err := results.Encode(p.try(&commands[i])); err != nil {
			return err
		}
	}
	return nil
}

// player runs commands one after the other.
type player struct {
	started map[string]*exec.Cmd // services by name
}

// try runs a command until it did what the page says, or too often.
func (p *player) try(c *command) outcome {
	var o outcome
	for range tries {
		status, printed, err := p.run(c.Text)
		o = outcome{Printed: printed, Problem: judge(c, status, printed, err)}
		if o.Problem == "" || err != nil || !live.MatchString(c.Text) {
			break
		}
	}
	return o
}

// judge says how an outcome differs from what the page says.
func judge(c *command, status int, printed string, err error) string {
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(printed, "\n"), "\n")
	last := lines[len(lines)-1]
	// A message shown announces that the command fails.
	announced := strings.HasPrefix(last, "sbxtrace: ") && len(missing([]string{last}, c.Shown, false)) == 0
	if status != c.Status && !(c.Status == 0 && announced) {
		return fmt.Sprintf("status %d, want %d", status, c.Status)
	}
	if lacking := missing(c.Shown, lines, !live.MatchString(c.Text)); len(lacking) > 0 {
		return "not printed, or not in this order:\n" + strings.Join(lacking, "\n")
	}
	return ""
}

// run runs a command and returns its exit status and what it printed on both
// streams, as on a terminal.
func (p *player) run(text string) (status int, printed string, err error) {
	if err := p.serve(text); err != nil {
		return 0, "", err
	}
	if text, err = runnable(text); err != nil {
		return 0, "", err
	}
	out, err := os.CreateTemp("", "docs-output-*")
	if err != nil {
		return 0, "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := shell(text)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return 0, "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err = p.await(cmd, text, out.Name(), ended)
	output, readErr := os.ReadFile(out.Name())
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = nil // it is what the status says
	}
	return cmd.ProcessState.ExitCode(), string(output), errors.Join(err, readErr)
}

// shell is a command for bash, in a process group of its own as in a terminal.
func shell(text string) *exec.Cmd {
	cmd := exec.Command("bash", "-c", text)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// await waits for a command to end, and types Ctrl-C if it would not by itself.
func (p *player) await(cmd *exec.Cmd, text, output string, ended <-chan error) error {
	interrupt := endless.MatchString(text) && !bounded.MatchString(text)
	start := time.Now()
	var began time.Time // when it said that it traces
	size := 0           // of the output then
	for {
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(start) > patience {
			err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			return errors.Join(fmt.Errorf("still running after %v", patience), err, <-ended)
		}
		if !interrupt {
			continue
		}
		printed, err := os.ReadFile(output)
		if err != nil {
			return err
		}
		if began.IsZero() && bytes.Contains(printed, []byte("sbxtrace: ")) {
			began, size = time.Now(), len(printed)
		}
		if shown := len(printed) > size+1000; !began.IsZero() && (shown || time.Since(began) > showing) {
			interrupt = false
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
				return err
			}
		}
	}
}

// serve starts the services that a command mentions and that do not run yet. A
// service that the command itself starts is ended first.
func (p *player) serve(text string) error {
	for _, s := range services {
		if !s.mention.MatchString(text) {
			continue
		}
		old := p.started[s.name]
		if s.own && strings.HasPrefix(text, s.command) {
			if old != nil {
				if err := syscall.Kill(-old.Process.Pid, syscall.SIGKILL); err != nil {
					return err
				}
				old.Wait()
				delete(p.started, s.name)
			}
			continue
		}
		if pids, err := symbolizer.FindByName(s.name); err != nil || len(pids) > 0 {
			continue
		}
		if strings.Contains(text, "build/demo/demo") && !strings.Contains(text, "--name") {
			continue // the file is meant
		}
		cmd := shell("exec " + s.command)
		if _, err := cmd.StdinPipe(); err != nil { // at whose end some end
			return err
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("start %s: %w", s.name, err)
		}
		if p.started == nil {
			p.started = map[string]*exec.Cmd{}
		}
		p.started[s.name] = cmd
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if pids, err := symbolizer.FindByName(s.name); err == nil && len(pids) > 0 && settled(pids[0], s.name) {
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("%s did not start", s.name)
			}
		}
	}
	return nil
}

// settled reports whether a process executes the named program and waits for
// something, which it does when it has started up.
func settled(pid int, name string) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || filepath.Base(exe) != name {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && stateOf(stat) == 'S'
}

// stateOf is a process's state in /proc/PID/stat: it stands behind the name.
func stateOf(stat []byte) byte {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 || i+2 >= len(stat) {
		return 0
	}
	return stat[i+2]
}
