package loader

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/bpf"
	"github.com/sbxtrace/sbxtrace/trace"
)

// SampleEvent is what samples are taken of.
type SampleEvent uint8

// Events that are sampled.
const (
	SampleCPU    SampleEvent = iota // CPU time: at each tick of a clock. Weights are ns
	SampleOffCPU                    // the time from when a thread goes to sleep until it runs again. Weights are ns
	SampleLock                      // the same for sleeps in the futex system call
	SampleWall                      // CPU time, and all time in which a thread does not run. Weights are ns
	SampleFaults                    // page faults of user code, each Period-th. Weights are faults
	SampleCalls                     // calls of functions (AttachCalls), one in Period. Weights are calls
	SampleAllocs                    // allocations of memory (AttachAllocs), one in Period. Weights are bytes
)

// ProfileConfig is what a Profile samples. The zero value takes DefaultSampleRate
// samples a second of the processes added.
type ProfileConfig struct {
	Event     SampleEvent
	Rate      int    // SampleCPU, SampleWall: samples per second and CPU; 0: DefaultSampleRate
	Period    uint64 // SampleFaults, SampleCalls, SampleAllocs: one sample in this many; 0: all
	Wakers    bool   // SampleOffCPU, SampleLock: the stacks of those that end waits, too
	All       bool   // every process, also those that were not added
	Follow    bool   // children of processes that were added
	NoKernel  bool   // user stacks only
	RingBytes int    // ring buffer, a power of two; 0: DefaultSampleRingBytes
	MaxBytes  uint64 // kernel memory for unwind tables; 0: DefaultUnwindBytes
}

// Defaults of ProfileConfig.
const (
	// DefaultSampleRate is not in step with what programs do 100 times a second.
	DefaultSampleRate = 99
	// DefaultSampleRingBytes holds several thousand deep stacks.
	DefaultSampleRingBytes = 8 << 20
	// DefaultUnwindBytes holds the tables of about 200 MiB of code.
	DefaultUnwindBytes = 64 << 20
)

// Profile is a sampling session: programs that are loaded and, from Start to the
// end of Run, sample. Its methods may be called concurrently, except that Run
// runs once.
type Profile struct {
	cfg    ProfileConfig
	period uint64                 // what one sample of a perf event stands for
	stacks map[uint64]trace.Event // of samples that are counted: whose they are
	coll   *ebpf.Collection
	ring   *ring
	unwind *unwindMaps
	lost   []uint64 // by CPU
	memory []byte   // of lost
	tasks  []link.Link
	names  commNames

	multi bool // uprobes attach by uprobe_multi
	// Before Linux 6.10 uprobe_multi takes a process id for that of a thread: there
	// probes are for all processes, and the programs ask which it is.
	anyThread bool

	mu     sync.Mutex
	events []int // perf events
	links  []link.Link
	closed bool
}

// NewProfile loads the programs. Errors wrap ErrPermission, ErrNotSupported, or
// ErrRate if the kernel does not take so many samples.
func NewProfile(cfg ProfileConfig) (*Profile, error) {
	if cfg.Rate == 0 {
		cfg.Rate = DefaultSampleRate
	}
	if cfg.RingBytes == 0 {
		cfg.RingBytes = DefaultSampleRingBytes
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultUnwindBytes
	}
	if limit, err := MaxSampleRate(); err == nil && cfg.Rate > limit {
		return nil, fmt.Errorf("%d samples a second: %w: it takes %d (sysctl kernel.perf_event_max_sample_rate)", cfg.Rate, ErrRate, limit)
	}
	p := &Profile{cfg: cfg, period: uint64(time.Second) / uint64(cfg.Rate), stacks: make(map[uint64]trace.Event)}
	switch cfg.Event {
	case SampleFaults, SampleCalls, SampleAllocs:
		p.period = max(cfg.Period, 1)
	}
	if err := p.load(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Profile) load() error {
	spec, err := bpf.LoadProfile()
	if err != nil {
		return fmt.Errorf("read BPF programs: %w", err)
	}
	dev, ino, err := pidNamespace()
	if err != nil {
		return err
	}
	for name, value := range map[string]any{
		"cfg_all": p.cfg.All, "cfg_follow": p.cfg.Follow, "cfg_kernel": !p.cfg.NoKernel, "cfg_weight": p.period,
		"cfg_pidns_dev": dev, "cfg_pidns_ino": ino, "cfg_count": p.counts(), "cfg_off_cpu": p.offCPU(),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	spec.Maps["events"].MaxEntries = uint32(p.cfg.RingBytes)
	if !p.counts() {
		for _, name := range []string{"totals", "seen"} {
			spec.Maps[name].MaxEntries = 1
		}
	}
	if p.offCPU() == 0 {
		spec.Maps["blocked"].MaxEntries = 1
	}
	p.prune(spec)
	if p.coll, err = ebpf.NewCollection(spec); err != nil {
		return fmt.Errorf("load BPF programs: %w", explain(err))
	}
	m := p.coll.Maps
	if p.ring, err = newRing(m["events"].FD(), p.cfg.RingBytes); err != nil {
		return err
	}
	if p.memory, err = mapArray(m[".data.lost"]); err != nil {
		return err
	}
	p.lost = view[uint64](p.memory)[:1024]
	if p.unwind, err = newUnwindMaps(m, spec.Maps["unwind_segments"].InnerMap, p.cfg.MaxBytes); err != nil {
		return err
	}
	for _, name := range []string{"on_fork", "on_exec", "on_exit"} {
		l, err := link.AttachTracing(link.TracingOptions{Program: p.coll.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach %s to its scheduler tracepoint: %w", name, explain(err))
		}
		p.tasks = append(p.tasks, l)
	}
	return nil
}

// ticks reports whether a perf event takes samples, counts whether they are
// counted in the kernel.
func (p *Profile) ticks() bool {
	return p.cfg.Event == SampleCPU || p.cfg.Event == SampleWall || p.cfg.Event == SampleFaults
}
func (p *Profile) counts() bool { return p.cfg.Event != SampleCPU }

// offCPU is the value of enum off_cpu in bpf/profile.bpf.c.
func (p *Profile) offCPU() uint32 {
	return map[SampleEvent]uint32{SampleOffCPU: 1, SampleLock: 2, SampleWall: 3}[p.cfg.Event]
}

// prune takes out of the collection what this session does not need.
func (p *Profile) prune(spec *ebpf.CollectionSpec) {
	for name, needed := range map[string]bool{"on_tick": p.ticks(), "on_switch": p.offCPU() > 0, "on_waking": p.cfg.Wakers} {
		if !needed {
			delete(spec.Programs, name)
		}
	}
	p.pruneCalls(spec)
}

// Period is what a sample stands for in the unit of its event: ns of CPU time,
// faults, calls, allocations; 1 for waits, whose samples have their own weights.
func (p *Profile) Period() int64 {
	if p.offCPU() != 0 && !p.ticks() {
		return 1
	}
	return int64(p.period)
}

// AddTable loads the unwind table of a file, once for all processes that map it.
// Rows are in ascending order of their addresses. It fails with ErrTableMemory
// when the limit is reached.
func (p *Profile) AddTable(rows []UnwindRow, rules []UnwindRule) (Table, error) {
	return p.unwind.addTable(rows, rules)
}

// SetProcess makes pid a target, or says what it has mapped by now. Mappings are
// all of its executable ones; the slice is sorted in place. py is nil for a
// process that runs no Python.
func (p *Profile) SetProcess(pid uint32, mappings []ProcessMapping, g GoLayout, py *PythonLayout) error {
	return p.unwind.setProcess(pid, mappings, g, py)
}

// RemoveProcess forgets a process that has ended.
func (p *Profile) RemoveProcess(pid uint32) { p.unwind.remove(pid) }

// UnwindStats says what the unwind tables take.
func (p *Profile) UnwindStats() UnwindStats {
	p.unwind.mu.Lock()
	defer p.unwind.mu.Unlock()
	return p.unwind.stats
}

// Start begins to sample.
func (p *Profile) Start() error {
	if p.ticks() {
		if err := p.startTicks(); err != nil {
			return err
		}
	}
	for name, tracepoint := range map[string]string{"on_switch": "sched_switch", "on_waking": "sched_waking"} {
		prog := p.coll.Programs[name]
		if prog == nil {
			continue
		}
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: prog})
		if err != nil {
			return fmt.Errorf("attach to the tracepoint %s: %w", tracepoint, explain(err))
		}
		p.mu.Lock()
		p.links = append(p.links, l)
		p.mu.Unlock()
	}
	return nil
}

// startTicks opens the perf events and attaches to them.
func (p *Profile) startTicks() error {
	open := openClocks
	if p.cfg.Event == SampleFaults {
		open = openFaults
	}
	fds, err := open(p.period)
	if err != nil {
		return err
	}
	prog := p.coll.Programs["on_tick"].FD()
	for _, fd := range fds {
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, prog); err != nil {
			closeAll(fds)
			return fmt.Errorf("attach to a perf event: %w", explain(err))
		}
	}
	for _, fd := range fds {
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
			closeAll(fds)
			return fmt.Errorf("enable a perf event: %w", err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		closeAll(fds)
		return ErrClosed
	}
	p.events = append(p.events, fds...)
	return nil
}

// Stop ends the sampling; what was sampled is still delivered by Run.
func (p *Profile) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := closeAll(p.events)
	closeLinks(p.links)
	p.events, p.links = nil, nil
	return err
}

// Run delivers samples and process events to h until ctx is done; then it stops,
// delivers what is still in the kernel and what was lost, and returns nil.
func (p *Profile) Run(ctx context.Context, h Handler) error {
	defer Hurry()()
	stop := context.AfterFunc(ctx, p.ring.interrupt)
	defer stop()
	var e trace.Event
	record := func(raw []byte) {
		if decodeSample(raw, &e, &p.names) || decode(raw, &e, nil) {
			if e.StackID != 0 {
				p.remember(&e)
			}
			h.Event(&e)
		}
	}
	drained := time.Now()
	for ctx.Err() == nil {
		before := Now()
		n := p.ring.read(record)
		if p.counts() && time.Since(drained) > drainPeriod {
			if err := p.drain(h, false); err != nil {
				return err
			}
			drained = time.Now()
		}
		h.Tick(before - min(before, settleTime))
		pause := 50 * time.Millisecond
		if n > p.ring.size/16 {
			pause = 0
		}
		if err := p.ring.wait(pause); err != nil {
			return err
		}
	}
	end := Now()
	err := p.Stop()
	for p.ring.read(record) > 0 {
	}
	if p.counts() {
		err = errors.Join(err, p.drain(h, true), p.drainBlocked(h, end), p.drainAllocations(h))
	}
	for cpu := range p.lost {
		if n := atomic.LoadUint64(&p.lost[cpu]); n > 0 {
			h.Event(&trace.Event{Kind: trace.KindLost, Time: Now(), Count: n, CPU: int32(cpu), Cause: trace.LostRing})
		}
	}
	h.Tick(Now())
	return err
}

// Hurry gives the calling goroutine a thread of its own that goes before those
// of the targets, until the function that it returns is called.
func Hurry() (done func()) {
	runtime.LockOSThread()
	tid := unix.Gettid()
	before, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
	if err != nil || unix.Setpriority(unix.PRIO_PROCESS, tid, -10) != nil {
		return runtime.UnlockOSThread
	}
	return func() {
		// The system call returns 20 less the nice value.
		_ = unix.Setpriority(unix.PRIO_PROCESS, tid, 20-before)
		runtime.UnlockOSThread()
	}
}

// Lost is how many samples found the ring full so far.
func (p *Profile) Lost() (n uint64) {
	for cpu := range p.lost {
		n += atomic.LoadUint64(&p.lost[cpu])
	}
	return n
}

// Close ends the sampling and frees everything. It is safe to call twice.
func (p *Profile) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	errs := []error{p.Stop()}
	closeLinks(p.tasks)
	if p.ring != nil {
		errs = append(errs, p.ring.close())
	}
	errs = append(errs, p.unwind.close())
	if p.memory != nil {
		errs = append(errs, unix.Munmap(p.memory))
		p.memory, p.lost = nil, nil
	}
	if p.coll != nil {
		p.coll.Close()
	}
	return errors.Join(errs...)
}
