package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// attachTimes measures how long a user waits: to the first event of a Go
// program with some 15,000 functions, and to attach to and detach from ten
// thousand C functions, beside bpftrace where it can do the same.
func (b *bench) attachTimes() error {
	fmt.Fprint(b.out, "\n## From the command to the first event\n\n| what | ms |\n| --- | ---: |\n")
	if err := b.goFirstEvent(); err != nil {
		return err
	}
	// Kernels before 6.6 attach one by one; newer ones are far slower at that
	// than they were, so that a hundred have to do.
	few, err := b.buildMany(100)
	if err != nil {
		return err
	}
	if err := b.many(few, 100, "perf-event"); err != nil {
		return err
	}
	bin, err := b.buildMany(10_000)
	if err != nil {
		return err
	}
	if err := b.many(bin, 10_000, "uprobe-multi"); err != nil {
		return err
	}
	return b.manyBpftrace(bin)
}

// goFirstEvent starts the go command under `run` with all of its functions
// traced and takes the time until the first line comes out.
func (b *bench) goFirstEvent() error {
	for _, selection := range []string{"", "*"} {
		var least time.Duration
		var functions string
		for range b.rounds {
			args := []string{"run", "--max-overhead", "off", "--format", "json", "--entries"}
			what := "own functions of"
			if selection != "" {
				args = append(args, selection)
				what = "all functions of"
			}
			out := filepath.Join(b.dir, "first")
			os.Remove(out)
			if err := syscall.Mkfifo(out, 0o600); err != nil {
				return err
			}
			cmd := exec.Command(b.exe, append(args, "-o", out, "--", "go", "version")...)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			begin := time.Now()
			if err := cmd.Start(); err != nil {
				return err
			}
			f, err := os.Open(out)
			if err != nil {
				return err
			}
			if _, err := bufio.NewReader(f).ReadString('\n'); err != nil {
				return fmt.Errorf("no event: %w: %s", err, errs.String())
			}
			took := time.Since(begin)
			f.Close() // sbxtrace ends when nobody reads
			_ = cmd.Wait()
			if least == 0 || took < least {
				least = took
			}
			functions = attachedCount(errs.String())
			if selection != "" {
				functions = what + " the go command, " + functions
			} else {
				functions = what + " the go command, " + functions
			}
		}
		fmt.Fprintf(b.out, "| start to first event, %s | %d |\n", functions, least.Milliseconds())
	}
	return nil
}

// attachedCount takes the number of functions from the line on stderr.
func attachedCount(stderr string) string {
	m := regexp.MustCompile(`attached: (\d+ functions?)`).FindStringSubmatch(stderr)
	if m == nil {
		return "?"
	}
	return m[1]
}

// buildMany makes a program with n functions that sleeps.
func (b *bench) buildMany(n int) (string, error) {
	var src strings.Builder
	src.WriteString("#include <unistd.h>\n")
	for i := range n {
		fmt.Fprintf(&src, "__attribute__((noinline)) int many_%d(int x) { return x * %d + 1; }\n", i, i)
	}
	src.WriteString("int (*volatile table[])(int) = {")
	for i := range n {
		fmt.Fprintf(&src, "many_%d,", i)
	}
	src.WriteString("};\nint main(void) { write(1, \"ready\\n\", 6); char c; read(0, &c, 1); return table[0](1) & 1; }\n")
	file, bin := filepath.Join(b.dir, "many.c"), filepath.Join(b.dir, "many")
	if err := os.WriteFile(file, []byte(src.String()), 0o600); err != nil {
		return "", err
	}
	if out, err := exec.Command("gcc", "-O1", "-o", bin, file).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile %d functions: %w\n%s", n, err, out)
	}
	return bin, nil
}

func (b *bench) many(bin string, n int, mode string) error {
	var in, out time.Duration
	for range min(b.rounds, 3) {
		t, err := startTarget(bin)
		if err != nil {
			return err
		}
		ready := filepath.Join(b.dir, "ready")
		os.Remove(ready)
		cmd := exec.Command(b.exe, "attach", "--pid", strconv.Itoa(t.pid()), "many_*", "--attach-with", mode,
			"--summary", "--ready-file", ready, "-o", filepath.Join(b.dir, "out"))
		begin := time.Now()
		p, err := start(cmd, func() bool { _, err := os.Stat(ready); return err == nil })
		if err != nil {
			return err
		}
		attached := time.Since(begin)
		begin = time.Now()
		p.detach()
		detached := time.Since(begin)
		t.stop()
		if in == 0 || attached < in {
			in = attached
		}
		if out == 0 || detached < out {
			out = detached
		}
	}
	fmt.Fprintf(b.out, "| attach to %d functions, entry and exit, by %s | %d |\n| detach from them, to the end of the process | %d |\n", n, mode, in.Milliseconds(), out.Milliseconds())
	return nil
}

// manyBpftrace attaches bpftrace to the same functions, entries only: it
// takes a bound on how many probes it may have.
func (b *bench) manyBpftrace(bin string) error {
	t, err := startTarget(bin)
	if err != nil {
		return err
	}
	defer t.stop()
	w := &lockedBuffer{b: new(bytes.Buffer), keep: 4096}
	cmd := exec.Command("bpftrace", "-p", strconv.Itoa(t.pid()), "-e", fmt.Sprintf(`BEGIN { printf("attached\n"); } uprobe:%s:many_11* { @ = count(); }`, bin))
	cmd.Env = append(os.Environ(), "BPFTRACE_MAX_PROBES=20000")
	cmd.Stdout = w
	begin := time.Now()
	p, err := start(cmd, func() bool { return strings.Contains(w.String(), "attached") })
	if err != nil {
		fmt.Fprintf(b.out, "| bpftrace, 111 of them, entries only | %v |\n", err)
		return nil
	}
	in := time.Since(begin)
	begin = time.Now()
	p.detach()
	fmt.Fprintf(b.out, "| bpftrace: attach to 111 of them, entries only | %d |\n| bpftrace: detach | %d |\n", in.Milliseconds(), time.Since(begin).Milliseconds())
	return nil
}
