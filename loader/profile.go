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

// ProfileConfig is what a Profile samples. The zero value takes DefaultSampleRate
// samples a second of the processes added.
type ProfileConfig struct {
	Rate      int    // samples per second and CPU; 0: DefaultSampleRate
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
	period uint64 // ns
	coll   *ebpf.Collection
	ring   *ring
	unwind *unwindMaps
	lost   []uint64 // by CPU
	memory []byte   // of lost
	tasks  []link.Link
	names  commNames

	mu     sync.Mutex
	events []int // perf events
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
	p := &Profile{cfg: cfg, period: uint64(time.Second) / uint64(cfg.Rate)}
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
		"cfg_pidns_dev": dev, "cfg_pidns_ino": ino,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	spec.Maps["events"].MaxEntries = uint32(p.cfg.RingBytes)
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

// Period is how much CPU time a sample stands for.
func (p *Profile) Period() time.Duration { return time.Duration(p.period) }

// AddTable loads the unwind table of a file, once for all processes that map it.
// Rows are in ascending order of their addresses. It fails with ErrTableMemory
// when the limit is reached.
func (p *Profile) AddTable(rows []UnwindRow, rules []UnwindRule) (Table, error) {
	return p.unwind.addTable(rows, rules)
}

// SetProcess makes pid a target, or says what it has mapped by now. Mappings are
// all of its executable ones; the slice is sorted in place.
func (p *Profile) SetProcess(pid uint32, mappings []ProcessMapping, g GoLayout) error {
	return p.unwind.setProcess(pid, mappings, g)
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
	fds, err := openClocks(p.period)
	if err != nil {
		return err
	}
	prog := p.coll.Programs["on_tick"].FD()
	for _, fd := range fds {
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, prog); err != nil {
			closeAll(fds)
			return fmt.Errorf("attach to the clock event: %w", explain(err))
		}
	}
	for _, fd := range fds {
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
			closeAll(fds)
			return fmt.Errorf("enable the clock event: %w", err)
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
	p.events = nil
	return err
}

// Run delivers samples and process events to h until ctx is done; then it stops,
// delivers what is still in the ring and what was lost, and returns nil.
func (p *Profile) Run(ctx context.Context, h Handler) error {
	defer Hurry()()
	stop := context.AfterFunc(ctx, p.ring.interrupt)
	defer stop()
	var e trace.Event
	record := func(raw []byte) {
		if decodeSample(raw, &e, &p.names) || decode(raw, &e, nil) {
			h.Event(&e)
		}
	}
	for ctx.Err() == nil {
		before := Now()
		n := p.ring.read(record)
		h.Tick(before - min(before, settleTime))
		pause := 50 * time.Millisecond
		if n > p.ring.size/16 {
			pause = 0
		}
		if err := p.ring.wait(pause); err != nil {
			return err
		}
	}
	err := p.Stop()
	for p.ring.read(record) > 0 {
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
