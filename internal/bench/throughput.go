package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// throughput lets as many threads as there are CPUs call a traced function as
// fast as they can, and asks whether every call arrived.
func (b *bench) throughput() error {
	bin, err := buildShapes(b.dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n## Keeping up\n\n%d threads call one traced function as fast as they can for %d s; JSON lines to a file.\n\n", runtime.NumCPU(), b.seconds)
	fmt.Fprint(b.out, "| function begins with | calls made | calls recorded | calls/s | lost | peak memory of sbxtrace, MiB |\n| --- | ---: | ---: | ---: | ---: | ---: |\n")
	for _, s := range shapes[:2] {
		if err := b.flood(bin, s.fn, s.what); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) flood(bin, fn, what string) error {
	t, err := startTarget(bin, "spin", strconv.Itoa(b.seconds), strconv.Itoa(runtime.NumCPU()), fn)
	if err != nil {
		return err
	}
	out, ready := filepath.Join(b.dir, "flood.json"), filepath.Join(b.dir, "ready")
	os.Remove(ready)
	cmd := exec.Command(b.exe, "attach", "--pid", strconv.Itoa(t.pid()), "--func", fn, "--format", "json",
		"--max-overhead", "off", "--ready-file", ready, "-o", out)
	p, err := start(cmd, func() bool { _, err := os.Stat(ready); return err == nil })
	if err != nil {
		return err
	}
	begin := time.Now()
	if _, err := fmt.Fprintln(t.in, "go"); err != nil {
		return err
	}
	peak := watchMemory(cmd.Process.Pid, func() bool { return time.Since(begin) > time.Duration(b.seconds)*time.Second })
	made, err := t.number()
	if err != nil {
		return err
	}
	t.stop()
	p.detach()
	calls, lost, err := totals(out)
	if err != nil {
		return err
	}
	os.Remove(out)
	fmt.Fprintf(b.out, "| %s | %.0f | %d | %.0f | %d | %d |\n", what, made, calls, made/float64(b.seconds), lost, peak>>10)
	return nil
}

// watchMemory returns the highest resident size seen, in KiB, until done.
func watchMemory(pid int, done func() bool) int {
	peak := 0
	for !done() {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			break
		}
		if _, rest, ok := strings.Cut(string(status), "VmRSS:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(rest)[0])
			peak = max(peak, kib)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return peak
}

// totals reads the last line of JSON output.
func totals(file string) (calls, lost uint64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	if _, err := f.Seek(max(0, info.Size()-4096), 0); err != nil {
		return 0, 0, err
	}
	var last []byte
	for s := bufio.NewScanner(f); s.Scan(); {
		last = bytes.Clone(s.Bytes())
	}
	var t struct{ Calls, Lost uint64 }
	if err := json.Unmarshal(last, &t); err != nil {
		return 0, 0, fmt.Errorf("totals of %s: %w", file, err)
	}
	return t.Calls, t.Lost, nil
}

// governor attaches to a target that calls its functions endlessly, with the
// default limit, and compares what the target does per second before, during
// and with the governor switched off.
func (b *bench) governor() error {
	bin, err := buildShapes(b.dir)
	if err != nil {
		return err
	}
	rate := func(limit string) (float64, error) {
		const seconds = 3
		t, err := startTarget(bin, "spin", strconv.Itoa(seconds), "1", "leaf")
		if err != nil {
			return 0, err
		}
		defer t.stop()
		if limit != "" {
			ready := filepath.Join(b.dir, "ready")
			os.Remove(ready)
			cmd := exec.Command(b.exe, "attach", "--pid", strconv.Itoa(t.pid()), "--max-overhead", limit, "--summary",
				"--ready-file", ready, "-o", filepath.Join(b.dir, "out"))
			p, err := start(cmd, func() bool { _, err := os.Stat(ready); return err == nil })
			if err != nil {
				return 0, err
			}
			defer p.detach()
		}
		if _, err := fmt.Fprintln(t.in, "go"); err != nil {
			return 0, err
		}
		calls, err := t.number()
		return calls / seconds, err
	}
	free, err := rate("")
	if err != nil {
		return err
	}
	governed, err := rate("10%")
	if err != nil {
		return err
	}
	ungoverned, err := rate("off")
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n## The overhead governor\n\nA program that does nothing but call a two-instruction function, for 3 s.\n\n"+
		"| | calls/s | of the untraced rate |\n| --- | ---: | ---: |\n| untraced | %.0f | 1 |\n| attach, default limit | %.0f | %.2f |\n| attach, no limit | %.0f | %.4f |\n",
		free, governed, governed/free, ungoverned, ungoverned/free)
	return nil
}
