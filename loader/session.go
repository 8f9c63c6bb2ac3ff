package loader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/bpf"
	"github.com/sbxtrace/sbxtrace/trace"
)

// Level is how much is instrumented. Each level includes the ones before it.
type Level uint32

// Levels, as in bpf/maps.h.
const (
	LevelCount   Level = iota // hits per function, counted in the kernel
	LevelLatency              // durations per function, aggregated in the kernel
	LevelCalls                // every entry and exit as an event
	LevelArgs                 // with raw argument and return registers
	LevelStacks               // with the user stack at entry
)

// AttachMode chooses how probes are attached.
type AttachMode uint8

// Attach modes.
const (
	AttachAuto  AttachMode = iota // uprobe_multi where the kernel has it
	AttachMulti                   // uprobe_multi or an error
	AttachPerf                    // one perf event per site, as on kernels before 6.6
)

// Config is what a Session does. The zero value traces every call of the
// processes added, at LevelCount.
type Config struct {
	Level       Level
	MinDuration time.Duration // shorter calls are not sent; 0: all
	MaxDepth    uint32        // deeper calls are not sent; 0: all
	Sample      uint32        // one outermost call in this many; 0 or 1: all
	TIDs        []uint32      // only these threads; empty: all
	Comm        string        // only threads of this name; empty: all
	Follow      bool          // children of traced processes are traced too
	// Announce says that processes that are not traced are announced
	// (trace.KindCandidate) when they execute a program or enter a control group.
	Announce   bool
	StopOnExec bool // a process that executes a program is stopped (SIGSTOP) until Resume
	// GuardArgs are arguments that make this program call Guard, which lets go
	// what StopOnExec has stopped should this process be killed. Nil: no guard.
	GuardArgs []string
	RingBytes int // ring buffer, a power of two; 0: DefaultRingBytes
	MaxFuncs  int // functions that can be traced at once; 0: DefaultMaxFuncs
	Mode      AttachMode
	Static    bool // static probes will be attached
	// InternPython names a Python function seen for the first time.
	InternPython func(PythonFunc) trace.FuncID
}

// DefaultMaxFuncs is enough for all but the largest programs. Each function takes
// 8 bytes of locked memory for each CPU.
const DefaultMaxFuncs = 1 << 16

// DefaultRingBytes holds about a fifth of a second of the highest rate that
// two cores can produce.
const DefaultRingBytes = 32 << 20

func (c *Config) stateful() bool {
	return c.Level == LevelLatency || c.MinDuration > 0 || c.MaxDepth > 0 || c.Sample > 1
}

// Handler consumes the events of a Session, on one goroutine.
type Handler interface {
	// Event gets the next event; it and its slices are valid during the call.
	Event(e *trace.Event)
	// Tick says that all events before now (ns, CLOCK_MONOTONIC) were
	// delivered; it comes at least every 100 ms.
	Tick(now uint64)
}

// Session is one set of loaded programs and what they are attached to. Its
// methods may be called concurrently, except that Run runs once.
type Session struct {
	cfg      Config
	coll     *ebpf.Collection
	programs [programs]*ebpf.Program
	ring     *ring
	shared   *shared
	stride   int
	cpus     int
	multi    bool
	tasks    []link.Link
	python   *pythonCalls
	guard    *exec.Cmd // nil: none is needed
	alive    *os.File  // closes with this process, which tells the guard

	mu        sync.Mutex
	closed    bool
	modules   []*attached
	owner     map[trace.FuncID][]*group
	groupUse  [maxGroups]bool
	nextGroup uint16
	closing   sync.WaitGroup // links of groups that were replaced
}

// New loads the programs. It attaches nothing but the scheduler's tracepoints.
// Errors wrap ErrPermission or ErrNotSupported where that is the reason.
func New(cfg Config) (*Session, error) {
	s := &Session{cfg: cfg, owner: make(map[trace.FuncID][]*group)}
	if s.cfg.RingBytes == 0 {
		s.cfg.RingBytes = DefaultRingBytes
	}
	if s.cfg.MaxFuncs == 0 {
		s.cfg.MaxFuncs = DefaultMaxFuncs
	}
	if err := s.load(); err != nil {
		s.Close()
		return nil, err
	}
	if cfg.StopOnExec && cfg.GuardArgs != nil {
		if err := s.startGuard(cfg.GuardArgs); err != nil {
			s.Close()
			return nil, err
		}
	}
	if err := s.attachTasks(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Session) load() error {
	var err error
	if s.cpus, err = ebpf.PossibleCPU(); err != nil {
		return fmt.Errorf("count CPUs: %w", err)
	}
	s.stride = s.cfg.MaxFuncs
	s.multi = s.cfg.Mode != AttachPerf
	if s.multi {
		// What else goes wrong will do so again, and be explained.
		if err := features.HaveBPFLinkUprobeMulti(); errors.Is(err, ebpf.ErrNotSupported) {
			if s.cfg.Mode == AttachMulti {
				return &FeatureError{Feature: "uprobe_multi links", Kernel: "6.6", Err: err}
			}
			s.multi = false
		}
	}
	spec, err := bpf.LoadTrace()
	if err != nil {
		return fmt.Errorf("read BPF programs: %w", err)
	}
	if err := s.configure(spec); err != nil {
		return err
	}
	if s.coll, err = ebpf.NewCollection(spec); err != nil {
		return fmt.Errorf("load BPF programs: %w", explain(err, toLoad...))
	}
	for p, name := range programNames {
		s.programs[p] = s.coll.Programs[name]
	}
	return s.mapMemory()
}

// programNames are the programs' names in bpf/trace.bpf.c.
var programNames = [programs]string{
	ProgramEntry:        "entry_c",
	ProgramReturn:       "return_c",
	ProgramRet:          "ret_c",
	ProgramGoEntry:      "entry_go",
	ProgramGoRet:        "ret_go",
	ProgramGoExit:       "go_exit",
	ProgramUSDT:         "usdt",
	ProgramPythonEntry:  "python_entry",
	ProgramPythonReturn: "python_return",
}

// configure writes the settings into the programs' constants, so that the
// verifier drops what they switch off.
func (s *Session) configure(spec *ebpf.CollectionSpec) error {
	c := &s.cfg
	var comm [16]uint8
	copy(comm[:15], c.Comm)
	dev, ino, err := pidNamespace()
	if err != nil {
		return err
	}
	settings := map[string]any{
		"cfg_level":           uint32(c.Level),
		"cfg_stateful":        c.stateful(),
		"cfg_min_duration":    uint64(c.MinDuration),
		"cfg_max_depth":       c.MaxDepth,
		"cfg_sample":          c.Sample,
		"cfg_filter_tid":      len(c.TIDs) > 0,
		"cfg_filter_comm":     c.Comm != "",
		"cfg_comm":            comm,
		"cfg_follow":          c.Follow,
		"cfg_announce":        c.Announce,
		"cfg_stop_on_exec":    c.StopOnExec,
		"cfg_pidns_dev":       dev,
		"cfg_pidns_ino":       ino,
		"cfg_counters_stride": uint32(s.stride),
	}
	for name, value := range settings {
		v := spec.Variables[name]
		if v == nil {
			continue // optimised away by the compiler
		}
		if err := v.Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	spec.Maps["events"].MaxEntries = uint32(c.RingBytes)
	spec.Maps["counters"].MaxEntries = uint32(s.stride * s.cpus)
	if c.Level == LevelLatency {
		spec.Maps["latencies"].MaxEntries = uint32(s.stride)
	} else {
		spec.Maps["buckets"].MaxEntries = 1
	}
	if !c.stateful() {
		spec.Maps["stacks"].MaxEntries = 1
	}
	if c.Level != LevelStacks || c.MinDuration == 0 {
		spec.Maps["kept_stacks"].MaxEntries = 1
	}
	if !c.Announce {
		delete(spec.Programs, "on_cgroup")
	}
	for p, name := range programNames {
		if static := Program(p) >= ProgramUSDT; static && !c.Static {
			delete(spec.Programs, name)
		} else if s.multi {
			spec.Programs[name].AttachType = ebpf.AttachTraceUprobeMulti
		}
	}
	return nil
}

func (s *Session) mapMemory() error {
	var err error
	m := s.coll.Maps
	if s.ring, err = newRing(m["events"].FD(), s.cfg.RingBytes); err != nil {
		return err
	}
	if s.shared, err = mapShared(m); err != nil {
		return err
	}
	for _, tid := range s.cfg.TIDs {
		if err := m["tids"].Put(tid, uint8(1)); err != nil {
			return fmt.Errorf("filter thread %d: %w", tid, err)
		}
	}
	s.python = newPythonCalls(s.cfg.InternPython)
	return nil
}

func (s *Session) attachTasks() error {
	names := []string{"on_fork", "on_exec", "on_exit"}
	if s.cfg.Announce {
		names = append(names, "on_cgroup")
	}
	for _, name := range names {
		l, err := link.AttachTracing(link.TracingOptions{Program: s.coll.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach %s to its scheduler tracepoint: %w", name, explain(err))
		}
		s.tasks = append(s.tasks, l)
	}
	return nil
}

// Process is what a session must know about a traced process.
type Process struct {
	PID        uint32
	GoidOffset uint16 // of goid in its runtime.g, bytes; 0 if it is no Go program
	// OwnProbes says that what is attached for every process that maps a file
	// does not count for this one.
	OwnProbes bool
}

// AddProcess makes a process a traced one, or changes what is known about it.
// Its children inherit that.
func (s *Session) AddProcess(p Process) error {
	about := uint32(p.GoidOffset)
	if p.OwnProbes {
		about |= aboutOwnProbes
	}
	if err := s.coll.Maps["processes"].Put(p.PID, bpf.TraceProcess{About: about}); err != nil {
		return fmt.Errorf("trace process %d: %w", p.PID, err)
	}
	s.shared.know(p.PID, about)
	return nil
}

// aboutOwnProbes is ABOUT_OWN_PROBES of bpf/maps.h.
const aboutOwnProbes = 1 << 31

// Forget undoes AddProcess.
func (s *Session) Forget(pid uint32) {
	_ = s.coll.Maps["processes"].Delete(pid) // the kernel has, if it ended
	s.shared.forget(pid)
}

// Hits returns how often the function was entered since it was attached; 0 for
// an id that cannot be attached.
func (s *Session) Hits(id trace.FuncID) uint64 {
	var n uint64
	if int(id) >= s.stride {
		return 0
	}
	for cpu := range s.cpus {
		n += atomic.LoadUint64(&s.shared.hits[cpu*s.stride+int(id)])
	}
	return n
}

// TakeLost returns events that say what found the ring full and was not said yet;
// who takes them has to pass them on.
func (s *Session) TakeLost() []trace.Event {
	var out []trace.Event
	for cpu := range s.cpus {
		n := &s.shared.lost[cpu%len(s.shared.lost)]
		if atomic.LoadUint64(n) == 0 {
			continue
		}
		if count := atomic.SwapUint64(n, 0); count > 0 {
			out = append(out, trace.Event{Kind: trace.KindLost, Time: Now(), Count: count, CPU: int32(cpu), Cause: trace.LostRing})
		}
	}
	return out
}

// LostTasks returns how many forks, execs and ends of processes and threads were
// not reported so far, because the ring was full.
func (s *Session) LostTasks() uint64 { return atomic.LoadUint64(&s.shared.lostTasks[0]) }

// Multi reports whether probes attach by uprobe_multi.
func (s *Session) Multi() bool { return s.multi }

// Run delivers events to h until ctx is done; then it silences the probes,
// delivers what is still in the ring, and returns nil.
func (s *Session) Run(ctx context.Context, h Handler) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := context.AfterFunc(ctx, s.ring.interrupt)
	defer stop()

	r := reader{s: s, h: h}
	for ctx.Err() == nil {
		before := Now()
		n := s.ring.read(r.record)
		h.Tick(before - min(before, settleTime))
		if err := s.ring.wait(r.pause(n)); err != nil {
			return err
		}
	}
	s.silence()
	for s.ring.read(r.record) > 0 {
	}
	r.reportLost()
	h.Tick(Now())
	return nil
}

// settleTime is how long an event may take from its time stamp to the ring.
const settleTime = uint64(2 * time.Millisecond)

// reader is the state of Run.
type reader struct {
	s       *Session
	h       Handler
	event   trace.Event
	boosted bool
}

func (r *reader) record(raw []byte) {
	if !decode(raw, &r.event, r.s.python) {
		return
	}
	switch r.event.Kind {
	case trace.KindTaskExit, trace.KindProcessExit:
		r.s.python.forget(r.event.TID)
		r.reportFull()
	case trace.KindExec:
		r.reportFull()
	}
	r.h.Event(&r.event)
}

// pause returns how long to let events gather: not at all while a burst goes
// on, some milliseconds for a trickle, and little enough for a live view.
func (r *reader) pause(read uint64) time.Duration {
	size := r.s.ring.size
	if read > size/4 && !r.boosted {
		// The targets may own every CPU. Falling behind loses events, so
		// the reader takes precedence from here on.
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -10)
		r.boosted = true
	}
	switch {
	case read > size/16:
		return 0
	case read > 0:
		return 5 * time.Millisecond
	}
	return 20 * time.Millisecond
}

// reportFull delivers what found the ring full and was not yet said by the
// programs: before calls are ended by the end of a thread, so that they are marked.
func (r *reader) reportFull() {
	for _, e := range r.s.TakeLost() {
		r.h.Event(&e)
	}
}

// reportLost delivers all that was lost and not yet said.
func (r *reader) reportLost() {
	r.reportFull()
	for cpu := range r.s.cpus {
		deep := r.s.shared.tooDeep
		if n := atomic.LoadUint64(&deep[cpu%len(deep)]); n > 0 {
			r.h.Event(&trace.Event{Kind: trace.KindLost, Time: Now(), Count: n, CPU: int32(cpu), Cause: trace.LostStack})
		}
	}
	for _, p := range r.s.programs {
		if p == nil {
			continue
		}
		stats, err := p.Stats()
		if err != nil {
			continue // before 5.12
		}
		if n := stats.RecursionMisses; n > 0 {
			r.h.Event(&trace.Event{Kind: trace.KindLost, Time: Now(), Count: n, CPU: -1, Cause: trace.LostMissed})
		}
	}
}

// silence stops all call events at once; the sites stay in until Close.
func (s *Session) silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.modules {
		for _, g := range m.groups {
			s.shared.setGeneration(g.id, inactive)
		}
	}
}

// Close takes every probe out and frees everything. It is safe to call twice.
func (s *Session) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	var groups []*group
	for _, m := range s.modules {
		groups = append(groups, m.groups...)
	}
	s.modules = nil
	s.mu.Unlock()

	s.detach(groups)
	s.closing.Wait()
	closeLinks(s.tasks)
	var errs []error
	if s.coll != nil && s.cfg.StopOnExec {
		errs = append(errs, resumeAll(s.coll.Maps["held"]))
	}
	s.stopGuard()
	if s.ring != nil {
		errs = append(errs, s.ring.close())
	}
	errs = append(errs, s.shared.close())
	if s.coll != nil {
		s.coll.Close()
	}
	return errors.Join(errs...)
}

// Now is CLOCK_MONOTONIC in ns, the clock of events (bpf_ktime_get_ns).
func Now() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// initialPIDNamespace is the inode of the initial pid namespace
// (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const initialPIDNamespace = 0xeffffffc

// pidNamespace identifies sbxtrace's own pid namespace to the programs: zeros
// where it is the initial one and ids need no translation.
func pidNamespace() (dev, ino uint64, err error) {
	fi, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return 0, 0, fmt.Errorf("read pid namespace: %w", err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	if st.Ino == initialPIDNamespace {
		return 0, 0, nil
	}
	return st.Dev, st.Ino, nil
}
