package loader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// trials try features of the running kernel. Several may be tried at once: each
// trial has code of its own to probe.
type trials struct {
	mu    sync.Mutex
	tried []*probing
}

func newTrials() *trials { return new(trials) }

// close takes out what the trials left: detaching is slow, and takes no longer
// for all at once.
func (t *trials) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	parallel(len(t.tried), func(i int) { t.tried[i].close() })
	t.tried = nil
}

// probing is the state of one trial that probes code.
type probing struct {
	ground *provingGround
	hits   *ebpf.Map // what the counting program counts
	links  []link.Link
}

func (t *trials) probing() *probing {
	p := new(probing)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tried = append(t.tried, p)
	return p
}

func (p *probing) close() {
	closeLinks(p.links)
	if p.hits != nil {
		p.hits.Close()
	}
	if p.ground != nil {
		p.ground.Close()
	}
}

// attempt tries one feature.
func (t *trials) attempt(what trial) (detail string, err error) {
	switch what {
	case tryBTF:
		return kernelBTF()
	case tryProgram:
		return "", features.HaveProgramType(ebpf.Kprobe)
	case tryRingBuffer:
		return "", features.HaveMapType(ebpf.RingBuf)
	case tryTaskTracepoints:
		return "", taskTracepoints()
	case trySession:
		return "", session()
	case tryPerfUprobe:
		const pmu = "/sys/bus/event_source/devices/uprobe"
		if _, err := os.Stat(pmu); errors.Is(err, fs.ErrNotExist) {
			return pmu + " is not there", ErrNotSupported
		}
		return "", t.probing().hit(uprobe{perf: true})
	case tryAttachCookie:
		return "", t.probing().attachCookie()
	case tryMulti:
		return "", features.HaveBPFLinkUprobeMulti()
	case tryMultiPID:
		return "", t.probing().multiPID()
	case tryReturnProbe:
		return "", t.probing().hit(uprobe{ret: true})
	case tryReturnSyscall:
		return t.probing().returnSyscall()
	case tryNop:
		return t.probing().emulatedNop()
	case tryNop5:
		return t.probing().optimizedNop()
	case tryMapRecords:
		return mapRecords()
	case tryPtrace:
		return "", stopByPtrace()
	case tryHardwarePMU:
		return hardwareCounter()
	}
	return "", fmt.Errorf("unknown trial %d", what)
}

// kernelBTF looks at the kernel's description of its types: BTF begins with a
// magic number (Documentation/bpf/btf.rst).
func kernelBTF() (string, error) {
	const path, magic = "/sys/kernel/btf/vmlinux", 0xeb9f
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path + " is not there", ErrNotSupported
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	var head [2]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return "", err
	}
	if *(*uint16)(unsafe.Pointer(&head[0])) != magic {
		return path + " is not BTF", ErrNotSupported
	}
	return path, nil
}

// taskTracepoints attaches an empty program to a tracepoint of the scheduler by
// its type information.
func taskTracepoints() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sbxtrace_try", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sched_process_fork",
		License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("load a program for a tracepoint: %w", err)
	}
	defer prog.Close()
	l, err := link.AttachTracing(link.TracingOptions{Program: prog})
	if err != nil {
		return fmt.Errorf("attach to a tracepoint: %w", err)
	}
	return l.Close()
}

// session loads the real programs.
func session() error {
	s, err := New(Config{Level: LevelCalls, Follow: true})
	if err != nil {
		return err
	}
	return s.Close()
}

// uprobe is a probe on the proving ground.
type uprobe struct {
	f    provingFunction
	perf bool // by a perf event, also where there is uprobe_multi
	ret  bool // of the return
}

// hit attaches a probe and runs into it, on a thread that is not the process's
// first. It fails with ErrNotSupported if the probe went unnoticed.
func (p *probing) hit(u uprobe) error {
	n, err := p.count(u, 1)
	if err == nil && n == 0 {
		return fmt.Errorf("attached, but not hit: %w", ErrNotSupported)
	}
	return err
}

// count attaches a probe with a cookie and returns what 10 calls add up to, each
// counting as the cookie says.
func (p *probing) count(u uprobe, cookie uint64) (uint64, error) {
	g, err := p.code()
	if err != nil {
		return 0, err
	}
	prog, multi, err := p.countingProgram(u.perf)
	if err != nil {
		return 0, fmt.Errorf("load a program: %w", err)
	}
	defer prog.Close()
	exe, err := link.OpenExecutable(g.path)
	if err != nil {
		return 0, err
	}
	at := &sites{}
	at.add(&Probe{Offset: u.f.offset()}, cookie)
	ls, err := attachProbes(&attached{path: g.path, pid: uint32(os.Getpid()), exe: exe}, prog, multi, u.ret, at)
	if err != nil {
		return 0, fmt.Errorf("attach: %w", err)
	}
	p.links = append(p.links, ls...)
	before, err := p.hitCount()
	if err != nil {
		return 0, err
	}
	onOtherThread(func() { g.call(u.f, 10) })
	after, err := p.hitCount()
	return after - before, err
}

// code is the proving ground, made when it is first needed.
func (p *probing) code() (*provingGround, error) {
	if p.ground != nil {
		return p.ground, nil
	}
	var err error
	p.ground, err = newProvingGround()
	return p.ground, err
}

// countingProgram adds its cookie to the counter at each hit.
func (p *probing) countingProgram(perf bool) (prog *ebpf.Program, multi bool, err error) {
	if p.hits == nil {
		p.hits, err = ebpf.NewMap(&ebpf.MapSpec{Name: "sbxtrace_try", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
		if err != nil {
			return nil, false, err
		}
	}
	code := asm.Instructions{
		asm.FnGetAttachCookie.Call(), // the context is in R1
		asm.Mov.Reg(asm.R6, asm.R0),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, p.hits.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.StoreXAdd(asm.R0, asm.R6, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}
	if perf {
		prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "sbxtrace_try", Type: ebpf.Kprobe, License: "Dual BSD/GPL", Instructions: code,
		})
		return prog, false, err
	}
	return probeProgram(code)
}

func (p *probing) hitCount() (n uint64, err error) {
	err = p.hits.Lookup(uint32(0), &n)
	return n, err
}

// attachCookie checks that a program is told the cookie of its site.
func (p *probing) attachCookie() error {
	if err := features.HaveProgramHelper(ebpf.Kprobe, asm.FnGetAttachCookie); err != nil {
		return err
	}
	const cookie = 1000
	n, err := p.count(uprobe{}, cookie)
	if err == nil && n%cookie != 0 {
		return fmt.Errorf("programs get another cookie than their own: %w", ErrNotSupported)
	}
	return err
}

// multiPID checks that a uprobe_multi link for one process is hit by all of its
// threads: before Linux 6.10 only the first one's hits came through.
func (p *probing) multiPID() error {
	if err := features.HaveBPFLinkUprobeMulti(); err != nil {
		return err
	}
	return p.hit(uprobe{})
}

// returnSyscall looks at the code that functions with a return probe return to:
// a breakpoint, or a system call (arch/x86/kernel/uprobes.c).
func (p *probing) returnSyscall() (string, error) {
	if runtime.GOARCH != "amd64" {
		return "a matter of x86-64", ErrNotSupported
	}
	if err := p.hit(uprobe{f: provingReturn, ret: true}); err != nil {
		return "", err
	}
	area, err := uprobesArea()
	if err != nil {
		return "", err
	}
	const breakpoint = 0xcc
	syscallInsn := []byte{0x0f, 0x05}
	switch {
	case area[0] == breakpoint:
		return "", ErrNotSupported
	case bytes.Contains(area[:64], syscallInsn):
		return "", nil
	}
	return "", errors.New("the kernel's trampoline is of no known form")
}

// emulatedNop finds out whether a nop is executed out of line: then the kernel
// has copied it to its area for that.
func (p *probing) emulatedNop() (string, error) {
	for _, f := range []provingFunction{provingStepped, provingNop} {
		if err := p.hit(uprobe{f: f}); err != nil {
			return "", err
		}
	}
	area, err := uprobesArea()
	if err != nil {
		return "", err
	}
	switch {
	case copied(area, provingCode[provingNop][:nopSize]):
		return "", ErrNotSupported
	case copied(area, provingCode[provingStepped][:steppedSize]):
		return "", nil
	}
	return "", errors.New("no trace of single-stepped instructions")
}

// copied reports whether an instruction is in a slot of the area. Slots are 64
// or 128 bytes apart (UPROBE_XOL_SLOT_BYTES).
func copied(area, insn []byte) bool {
	for at := 0; at+len(insn) <= len(area); at += 64 {
		if bytes.HasPrefix(area[at:], insn) {
			return true
		}
	}
	return false
}

// optimizedNop looks whether the kernel has replaced a nop of five bytes that
// was hit several times by a call.
func (p *probing) optimizedNop() (string, error) {
	if len(provingCode[provingNop5]) == 0 {
		return "a matter of x86-64", ErrNotSupported
	}
	g, err := p.code()
	if err != nil {
		return "", err
	}
	prog, multi, err := p.countingProgram(false)
	if err != nil {
		return "", fmt.Errorf("load a program: %w", err)
	}
	defer prog.Close()
	ls, err := g.attach(prog, multi, false, provingNop5)
	if err != nil {
		return "", fmt.Errorf("attach: %w", err)
	}
	p.links = append(p.links, ls...)
	g.call(provingNop5, 10)
	const breakpoint, call = 0xcc, 0xe8
	switch first := g.byteAt(provingNop5); first {
	case call:
		return "", nil
	case breakpoint:
		return "", ErrNotSupported
	default:
		return "", fmt.Errorf("the kernel has put %#x there", first)
	}
}

// byteAt is the first byte of a function as it is now: the kernel changes it
// behind the compiler's back.
func (g *provingGround) byteAt(f provingFunction) byte {
	word := (*uint32)(unsafe.Pointer(&g.code[f.offset()]))
	return byte(atomic.LoadUint32(word))
}

// mapRecords maps a file and waits for its record.
func mapRecords() (string, error) {
	seen := make(chan struct{}, 1)
	w, err := WatchMaps(func(pid uint32) {
		if int(pid) == os.Getpid() {
			select {
			case seen <- struct{}{}:
			default:
			}
		}
	})
	if err != nil {
		return "", err
	}
	defer w.Close()
	g, err := newProvingGround()
	if err != nil {
		return "", err
	}
	defer g.Close()
	select {
	case <-seen:
		return "", nil
	case <-time.After(2 * time.Second):
		return "", errors.New("a new mapping went unnoticed")
	}
}

// stopByPtrace starts a program that is stopped before it runs, and ends it.
func stopByPtrace() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a program under ptrace: %w", err)
	}
	err := cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	return err
}

// hardwareCounter opens a counter of CPU cycles of this thread.
func hardwareCounter() (string, error) {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_CPU_CYCLES,
		Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Bits: unix.PerfBitDisabled | unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
	}
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return "no counter of CPU cycles", fmt.Errorf("%w (%w)", ErrNotSupported, err)
	case err != nil:
		return "", fmt.Errorf("open a counter of CPU cycles: %w", err)
	}
	return "", unix.Close(fd)
}

// thisHost is the machine that sbxtrace runs on.
func thisHost(attempt func(trial) (string, error)) *host {
	return &host{
		uid:          os.Geteuid(),
		release:      RunningKernel,
		cpus:         runtime.NumCPU(),
		capabilities: effectiveCapabilities,
		read: func(path string) (string, error) {
			if strings.HasPrefix(path, "/proc/self/ns/") {
				return os.Readlink(path)
			}
			content, err := os.ReadFile(path)
			return strings.TrimSpace(string(content)), err
		},
		env:       os.Getenv,
		attempt:   attempt,
		calibrate: func(ctx context.Context) (Calibration, error) { return Calibrate(ctx) },
	}
}
