package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// target is a running shapes program.
type target struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// buildShapes compiles shapes.c into dir.
func buildShapes(dir string) (string, error) {
	bin := filepath.Join(dir, "shapes")
	out, err := exec.Command("gcc", "-O2", "-o", bin, "internal/bench/src/shapes.c", "-lpthread").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile shapes.c: %w\n%s", err, out)
	}
	return bin, nil
}

func startTarget(bin string, args ...string) (*target, error) {
	t := &target{cmd: exec.Command(bin, args...)}
	t.cmd.Stderr = os.Stderr
	var err error
	if t.in, err = t.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	t.out = bufio.NewScanner(out)
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	if !t.out.Scan() || t.out.Text() != "ready" {
		return nil, fmt.Errorf("%s did not start", bin)
	}
	return t, nil
}

func (t *target) pid() int { return t.cmd.Process.Pid }

// nsPerCall makes n calls and returns what each took.
func (t *target) nsPerCall(n int) (float64, error) {
	if _, err := fmt.Fprintln(t.in, n); err != nil {
		return 0, err
	}
	ns, err := t.number()
	return ns / float64(n), err
}

func (t *target) number() (float64, error) {
	if !t.out.Scan() {
		return 0, fmt.Errorf("the target ended: %v", t.out.Err())
	}
	return strconv.ParseFloat(strings.TrimSpace(t.out.Text()), 64)
}

func (t *target) stop() {
	t.in.Close()
	_ = t.cmd.Wait()
}
