package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// probe is a tool attached to a function of a target; detach takes it off.
type probe struct {
	detach func()
}

// tool attaches to function fn of process pid, which runs bin.
type tool struct {
	name   string
	attach func(bin string, pid int, fn string) (*probe, error)
}

// sbxtrace is the tool at a level.
func sbxtrace(exe, dir, level string) tool {
	return tool{"sbxtrace " + level, func(bin string, pid int, fn string) (*probe, error) {
		ready := filepath.Join(dir, "ready")
		os.Remove(ready)
		cmd := exec.Command(exe, "attach", "--pid", strconv.Itoa(pid), "--func", fn, "--level", level,
			"--format", "json", "--max-overhead", "off", "--ready-file", ready, "-o", filepath.Join(dir, "out.json"))
		return start(cmd, func() bool { _, err := os.Stat(ready); return err == nil })
	}}
}

// bpftrace runs one of its standard scripts for pairs of entry and return:
// counting both, or timing each call into a histogram. Calls one by one, what
// sbxtrace's level calls delivers, would be a printf for each.
func bpftrace(what string) tool {
	script := map[string]string{
		"count": `uprobe:%[1]s:%[2]s { @e = count(); } uretprobe:%[1]s:%[2]s { @r = count(); }`,
		"time":  `uprobe:%[1]s:%[2]s { @s[tid] = nsecs; } uretprobe:%[1]s:%[2]s /@s[tid]/ { @ns = hist(nsecs - @s[tid]); delete(@s[tid]); }`,
		"print": `uprobe:%[1]s:%[2]s { printf("%%lld %%d > %[2]s\n", nsecs, tid); } uretprobe:%[1]s:%[2]s { printf("%%lld %%d < %[2]s\n", nsecs, tid); }`,
	}[what]
	return tool{"bpftrace " + what, func(bin string, pid int, fn string) (*probe, error) {
		w := &lockedBuffer{b: new(bytes.Buffer), keep: 4096}
		cmd := exec.Command("bpftrace", "-p", strconv.Itoa(pid), "-e", `BEGIN { printf("attached\n"); } `+fmt.Sprintf(script, bin, fn))
		cmd.Stdout = w
		return start(cmd, func() bool { return strings.Contains(w.String(), "attached") })
	}}
}

// perfProbe records entries and returns by perf's own uprobes.
func perfProbe(dir string) tool {
	return tool{"perf probe", func(bin string, pid int, fn string) (*probe, error) {
		remove := func() { _ = exec.Command("perf", "probe", "-q", "-d", "sbxbench:*").Run() }
		remove()
		for _, def := range []string{"sbxbench:entry=" + fn, "sbxbench:ret=" + fn + "%return"} {
			if out, err := exec.Command("perf", "probe", "-q", "-x", bin, "-a", def).CombinedOutput(); err != nil {
				return nil, fmt.Errorf("perf probe %s: %w: %s", def, err, out)
			}
		}
		cmd := exec.Command("perf", "record", "-q", "-e", "sbxbench:entry,sbxbench:ret*", "-p", strconv.Itoa(pid), "-o", filepath.Join(dir, "perf.data"))
		p, err := start(cmd, func() bool { return traced(pid, bin) })
		if err != nil {
			remove()
			return nil, err
		}
		stop := p.detach
		p.detach = func() { stop(); remove() }
		return p, nil
	}}
}

// traced waits until a breakpoint is in: perf has no ready signal, so the
// first bytes of the file's functions are compared with memory.
func traced(pid int, bin string) bool {
	events, err := os.ReadFile("/sys/kernel/tracing/events/sbxbench/entry/id")
	if err != nil || len(events) == 0 {
		return false
	}
	time.Sleep(300 * time.Millisecond)
	return true
}

// emptyProgram attaches BPF programs that do nothing at the sites that
// sbxtrace chooses: the floor of what tracing can cost. exits adds a return
// probe.
func emptyProgram(exits bool) tool {
	name := "empty program, entry"
	if exits {
		name = "empty program, entry and exit"
	}
	return tool{name, func(bin string, pid int, fn string) (*probe, error) {
		offset, err := bestSite(bin, fn)
		if err != nil {
			return nil, err
		}
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceUprobeMulti, License: "Dual BSD/GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		})
		if err != nil {
			return nil, err
		}
		exe, err := link.OpenExecutable(bin)
		if err != nil {
			return nil, err
		}
		opts := &link.UprobeMultiOptions{Addresses: []uint64{offset}, PID: uint32(pid)}
		entry, err := exe.UprobeMulti(nil, prog, opts)
		if err != nil {
			return nil, err
		}
		links := []link.Link{entry}
		if exits {
			ret, err := exe.UretprobeMulti(nil, prog, opts)
			if err != nil {
				entry.Close()
				return nil, err
			}
			links = append(links, ret)
		}
		return &probe{func() {
			for _, l := range links {
				l.Close()
			}
			prog.Close()
		}}, nil
	}}
}

// bestSite is where sbxtrace would put the entry probe of fn.
func bestSite(bin, fn string) (uint64, error) {
	b, err := symbolizer.Open(bin)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	fns, err := b.Functions()
	if err != nil {
		return 0, err
	}
	for i := range fns {
		if fns[i].Name != fn {
			continue
		}
		code, err := b.Code(&fns[i])
		if err != nil {
			return 0, err
		}
		plan, err := uprobes.Analyze(elf.EM_X86_64, code, fns[i], uprobes.Options{})
		if err != nil {
			return 0, err
		}
		return plan.Entry.Offset, nil
	}
	return 0, fmt.Errorf("no function %s in %s", fn, bin)
}

// start runs a tool until ready says that it is attached.
func start(cmd *exec.Cmd, ready func() bool) (*probe, error) {
	var errs bytes.Buffer
	cmd.Stderr = &lockedBuffer{b: &errs, keep: 4096}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	deadline := time.After(30 * time.Second)
	for !ready() {
		select {
		case <-done:
			return nil, fmt.Errorf("%s ended: %s", cmd.Args[0], errs.String())
		case <-deadline:
			_ = cmd.Process.Kill()
			return nil, fmt.Errorf("%s was not ready in time: %s", cmd.Args[0], errs.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return &probe{func() {
		// bpftrace loses an interrupt that comes while it begins to listen.
		for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGINT, syscall.SIGINT, os.Kill} {
			_ = cmd.Process.Signal(sig)
			select {
			case <-done:
				return
			case <-time.After(10 * time.Second):
			}
		}
	}}, nil
}
