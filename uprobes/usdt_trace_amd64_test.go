package uprobes

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// tracee is a process stopped by ptrace(2), an independent witness: it reads
// the same registers and memory as a BPF program would.
type tracee struct {
	t   *testing.T
	cmd *exec.Cmd
	pid int
}

// startTracee starts a command and stops it at its first instruction. The test
// must stay on its thread from here on; startTracee sees to that.
func startTracee(t *testing.T, name string, args ...string) *tracee {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, syscall.EPERM) {
			t.Skipf("ptrace is not allowed here: %v", err)
		}
		t.Fatal(err)
	}
	tr := &tracee{t: t, cmd: cmd, pid: cmd.Process.Pid}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if status := tr.wait(); !status.Stopped() {
		t.Fatalf("the process did not stop at its start: %v", status)
	}
	return tr
}

func (tr *tracee) wait() syscall.WaitStatus {
	tr.t.Helper()
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(tr.pid, &status, 0, nil); err != nil {
		tr.t.Fatalf("wait: %v", err)
	}
	return status
}

func (tr *tracee) peek(addr uint64, to []byte) error {
	n, err := syscall.PtracePeekData(tr.pid, uintptr(addr), to)
	if err == nil && n != len(to) {
		err = fmt.Errorf("read %d of %d bytes", n, len(to))
	}
	return err
}

func (tr *tracee) poke(addr uint64, data ...byte) {
	tr.t.Helper()
	if _, err := syscall.PtracePokeData(tr.pid, uintptr(addr), data); err != nil {
		tr.t.Fatalf("write to 0x%x: %v", addr, err)
	}
}

// cString reads a NUL-terminated string.
func (tr *tracee) cString(addr uint64) string {
	var out []byte
	for b := make([]byte, 1); len(out) < 4096; out = append(out, b[0]) {
		if err := tr.peek(addr+uint64(len(out)), b); err != nil {
			tr.t.Fatalf("read string at 0x%x: %v", addr, err)
		}
		if b[0] == 0 {
			break
		}
	}
	return string(out)
}

// fileAddr returns where the process has mapped a file offset, in a mapping
// with the given permission letter.
func (tr *tracee) fileAddr(path string, offset uint64, perm string) uint64 {
	tr.t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", tr.pid))
	if err != nil {
		tr.t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[5] != path || !strings.Contains(fields[1], perm) {
			continue
		}
		var start, end uint64
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &start, &end); err != nil {
			tr.t.Fatal(err)
		}
		first, err := strconv.ParseUint(fields[2], 16, 64)
		if err != nil {
			tr.t.Fatal(err)
		}
		if offset >= first && offset-first < end-start {
			return start + offset - first
		}
	}
	tr.t.Fatalf("no mapping of offset 0x%x of %s with permission %s in\n%s", offset, path, perm, maps)
	return 0
}

// runToEntry runs the process to the entry point of its executable, when the
// dynamic loader has mapped all libraries.
func (tr *tracee) runToEntry(exe string) {
	tr.t.Helper()
	f, err := elf.Open(exe)
	if err != nil {
		tr.t.Fatal(err)
	}
	defer f.Close()
	offset, ok := fileOffset(f, f.Entry, 1, elf.PF_X)
	if !ok {
		tr.t.Fatalf("%s: no code at its entry point", exe)
	}
	at := tr.fileAddr(exe, offset, "x")
	code := make([]byte, 1)
	if err := tr.peek(at, code); err != nil {
		tr.t.Fatal(err)
	}
	tr.poke(at, 0xcc)
	if err := syscall.PtraceCont(tr.pid, 0); err != nil {
		tr.t.Fatal(err)
	}
	if status := tr.wait(); !status.Stopped() || status.StopSignal() != syscall.SIGTRAP {
		tr.t.Fatalf("the process did not get to its entry point: %v", status)
	}
	tr.poke(at, code...)
	regs := tr.regs()
	if regs.Rip--; regs.Rip != at {
		tr.t.Fatalf("stopped at 0x%x, not at the entry point 0x%x", regs.Rip, at)
	}
	tr.setRegs(regs)
}

func (tr *tracee) regs() *syscall.PtraceRegs {
	tr.t.Helper()
	regs := new(syscall.PtraceRegs)
	if err := syscall.PtraceGetRegs(tr.pid, regs); err != nil {
		tr.t.Fatal(err)
	}
	return regs
}

func (tr *tracee) setRegs(regs *syscall.PtraceRegs) {
	tr.t.Helper()
	if err := syscall.PtraceSetRegs(tr.pid, regs); err != nil {
		tr.t.Fatal(err)
	}
}

// firings runs a process of one thread to its end, with a breakpoint at every
// probe, and calls hit at each one with the registers as a uprobe would present
// them.
func (tr *tracee) firings(path string, probes []StaticProbe, hit func(p *StaticProbe, regs []byte)) {
	tr.t.Helper()
	at := map[uint64]*StaticProbe{}
	original := map[uint64][]byte{}
	for i := range probes {
		addr := tr.fileAddr(path, probes[i].Offset, "x")
		code := make([]byte, 1)
		if err := tr.peek(addr, code); err != nil {
			tr.t.Fatal(err)
		}
		at[addr], original[addr] = &probes[i], code
		tr.poke(addr, 0xcc)
	}
	for signal := 0; ; {
		if err := syscall.PtraceCont(tr.pid, signal); err != nil {
			tr.t.Fatalf("continue: %v", err)
		}
		status := tr.wait()
		if status.Exited() {
			if status.ExitStatus() != 0 {
				tr.t.Fatalf("exit status %d", status.ExitStatus())
			}
			return
		}
		if !status.Stopped() {
			tr.t.Fatalf("the process ended: signal %v", status.Signal())
		}
		signal = 0
		regs := tr.regs()
		p := at[regs.Rip-1]
		if status.StopSignal() != syscall.SIGTRAP || p == nil {
			signal = int(status.StopSignal())
			continue
		}
		regs.Rip--
		var buf bytes.Buffer
		if err := binary.Write(&buf, binary.LittleEndian, regs); err != nil {
			tr.t.Fatal(err)
		}
		hit(p, buf.Bytes())
		// Execute the instruction that the breakpoint replaced.
		tr.setRegs(regs)
		tr.poke(regs.Rip, original[regs.Rip]...)
		if err := syscall.PtraceSingleStep(tr.pid); err != nil {
			tr.t.Fatal(err)
		}
		if status := tr.wait(); !status.Stopped() || status.StopSignal() != syscall.SIGTRAP {
			tr.t.Fatalf("single step: %v", status)
		}
		tr.poke(regs.Rip, 0xcc)
	}
}

func readProbes(t *testing.T, path string) []StaticProbe {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	probes, err := StaticProbes(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return probes
}

// listen raises a probe's semaphore, as the kernel does through ref_ctr_offset.
func (tr *tracee) listen(path string, p *StaticProbe) {
	tr.poke(tr.fileAddr(path, p.SemaphoreOffset, "w"), 1, 0)
}

// TestUSDTArgsOfRunningProgram compares the values fetched by ArgSpecs with
// what the program really passed, for several compilers and code models.
func TestUSDTArgsOfRunningProgram(t *testing.T) {
	if headers, _ := filepath.Glob("/usr/include/*/sys/sdt.h"); len(headers) == 0 {
		if _, err := os.Stat("/usr/include/sys/sdt.h"); err != nil {
			t.Skip("no <sys/sdt.h> (Debian: systemtap-sdt-dev)")
		}
	}
	ran := false
	for _, compiler := range []string{"gcc", "clang", "clang-19"} {
		cc, err := exec.LookPath(compiler)
		if err != nil {
			continue
		}
		ran = true
		for _, flags := range [][]string{{"-O0", "-no-pie", "-fno-pie"}, {"-O2", "-no-pie", "-fno-pie"}, {"-O0", "-pie", "-fPIE"}, {"-O2", "-pie", "-fPIE"}, {"-O2", "-pie", "-fPIE", "-s"}} {
			t.Run(compiler+strings.Join(flags, ""), func(t *testing.T) {
				exe := filepath.Join(t.TempDir(), "probes")
				args := append([]string{"-o", exe, "testdata/usdt/probes.c", "testdata/usdt/guarded.c"}, flags...)
				if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				checkRunningArgs(t, exe, slices.Contains(flags, "-s"))
			})
		}
	}
	if !ran {
		t.Skip("no C compiler")
	}
}

func checkRunningArgs(t *testing.T, exe string, stripped bool) {
	neg := func(n int64) uint64 { return uint64(n) }
	want := map[string][]uint64{
		"registers":   {neg(-1), neg(-2000000000000), 250, neg(-7), 4000000000},
		"constants":   {neg(-5), 7, 200, neg(-3)},
		"globals":     {neg(-1), 1000000000002, 4711, neg(-2)},
		"stack":       {neg(-77), neg(-88), neg(-99)},
		"floats":      {math.Float64bits(1.5), uint64(math.Float32bits(-0.25)), math.Float64bits(2.5)},
		"pointers":    {0, 'h', 11, neg(-33)},
		"handwritten": {0x12, neg(-2), 1000000000002, 1000000000003 & 0xffff, 1000000000003, 1000000000002},
		"guarded":     {42},
	}
	probes := readProbes(t, exe)
	if len(probes) != len(want)+1 {
		t.Fatalf("%d probes, want %d", len(probes), len(want)+1)
	}
	tr := startTracee(t, exe, "hello")
	tr.runToEntry(exe)
	for i := range probes {
		if probes[i].Name == "guarded" {
			tr.listen(exe, &probes[i])
		}
	}
	fired := map[string]int{}
	tr.firings(exe, probes, func(p *StaticProbe, regs []byte) {
		fired[p.Name]++
		values, ok := want[p.Name]
		if !ok || len(p.Args) != len(values) || p.Err != nil {
			t.Errorf("%+v has %d arguments, want %d", p, len(p.Args), len(values))
			return
		}
		for i, a := range p.Args {
			got, read := evalArg(a.Spec, regs, tr.peek)
			switch {
			case p.Name == "pointers" && i == 0:
				if !read || tr.cString(got) != "hello" {
					t.Errorf("%s: %s: pointer 0x%x, %v", p.Name, a.Raw, got, read)
				}
			case !read && errors.Is(a.Err, errNotInRegs) && p.Name == "floats":
				// Unread and said so.
			case !read && stripped && strings.Contains(a.Raw, "(%rip)"):
				// The symbol is gone with the symbol table.
			case !read || got != values[i]:
				t.Errorf("%s: %s: got 0x%x, %v, %v; want 0x%x", p.Name, a.Raw, got, read, a.Err, values[i])
			}
		}
	})
	for name := range want {
		if fired[name] != 1 {
			t.Errorf("%s fired %d times", name, fired[name])
		}
	}
	if fired["unheard"] != 0 {
		t.Error("a probe fired whose semaphore is 0")
	}
}
