// Package tracer watches live processes: it finds the functions to probe in
// the files that a process has mapped, attaches to them, follows forks, execs
// and libraries loaded later, keeps the overhead within its limit, and turns
// the kernel's events into calls for sinks.
package tracer

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"time"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// Options say what to watch and how closely.
type Options struct {
	Selector uprobes.Selector // zero: each target's own functions
	USDT     []string         // static probes, "provider:name" globs
	Level    loader.Level
	Returns  uprobes.ReturnMethod

	MinDuration time.Duration // shorter calls are left out; 0: none
	MaxDepth    uint32        // deeper calls are left out; 0: none
	Sample      uint32        // one outermost call in this many
	TIDs        []uint32      // only these threads
	Comm        string        // only threads of this name

	Follow bool // children too, those there are and those to come
	// Joins tells whether a process that has executed a program or entered a
	// control group is to become a target. Nil: none does.
	Joins       func(pid int) bool
	StopOnExec  bool     // hold a process at exec until its new program is attached
	GuardArgs   []string // as loader.Config.GuardArgs
	MaxOverhead float64  // percent of the targets' CPU time; 0: no limit
	RingBytes   int      // kernel buffer, a power of two; 0: the loader's default
	Mode        loader.AttachMode

	// Note is told what a user should know while tracing goes on ("libfoo.so:
	// 12 functions attached"). It is called from any goroutine. Nil: nobody.
	Note func(format string, args ...any)
}

// bare reports whether nothing was selected: each target's own functions are
// traced.
func (o *Options) bare() bool { return o.Selector.Empty() && len(o.USDT) == 0 }

// Report says what was attached.
type Report struct {
	Functions int // functions with probes
	Static    int // static probes
	Modules   int // files they are in
	Processes int
	Skipped   []Candidate // matched, but cannot be probed
	Took      time.Duration
}

// Tracer is a tracing session. New, then AddPIDs, Start, Run,
// Close. Functions and Rows may be used at any time in between.
type Tracer struct {
	opt    Options
	kernel loader.KernelVersion
	cost   uprobes.CostModel
	loader *loader.Session // once loaded returned nil

	loadDone chan struct{}
	loadErr  error
	measured chan uprobes.CostModel // closed without one where costs cannot be measured
	forgo    context.CancelFunc     // ends the measurement

	maps    *loader.MapWatcher // nil: mapsErr says why
	mapsErr error

	overlooked overlooked

	overwrites    *overwriteWatcher // nil: overwritesErr says why
	overwritesErr error
	funcs         table
	began         time.Time

	work queue[trace.Event] // process events for the manager
	told *told              // by the manager, for the consumer of events
	late chan uint32        // pids that mapped a file

	mu        sync.Mutex
	processes map[uint32]*process
	modules   map[fileID]*module
	matchers  []*uprobes.Matcher
	governor  *governor
	unwatched []watched // functions that the governor does not know yet
	gone      map[trace.FuncID]bool
	together  map[trace.FuncID][]trace.FuncID // static probes that say nothing without each other
	internal  map[trace.FuncID]bool           // probes of our own, no function of the user's
	report    Report

	attached time.Time // when the first probes began to count
	cpu      cpuTimes  // of the targets then and later

	python  sync.Once // says that Python functions are traced
	symbols stackSymbols
	regions regions
	tap     trace.Tap // may be nil
}

// watched is a function with what decides the cost of a call.
type watched struct {
	id   trace.FuncID
	size uint64       // bytes of code
	plan uprobes.Plan // entry, and one return
}

// New begins to load the programs; AddPIDs waits for that, and returns the
// errors of loader.New.
func New(o Options) (*Tracer, error) {
	kernel, _, err := loader.RunningKernel()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat("/proc/self"); err != nil {
		return nil, fmt.Errorf("processes are looked at through /proc, which is not mounted: %w", err)
	}
	t := &Tracer{
		opt:       o,
		kernel:    kernel,
		cost:      costModel(),
		began:     time.Now(),
		work:      queue[trace.Event]{ready: make(chan struct{}, 1)},
		late:      make(chan uint32, 4096),
		told:      newTold(),
		loadDone:  make(chan struct{}),
		measured:  make(chan uprobes.CostModel, 1),
		processes: make(map[uint32]*process),
		modules:   make(map[fileID]*module),
		gone:      make(map[trace.FuncID]bool),
		together:  make(map[trace.FuncID][]trace.FuncID),
		internal:  make(map[trace.FuncID]bool),
		cpu:       make(cpuTimes),
	}
	t.symbols.wanted = o.Level >= loader.LevelStacks
	if o.MaxOverhead > 0 {
		t.governor = newGovernor(o.MaxOverhead)
	}
	if !o.Selector.Empty() {
		if _, err := o.Selector.Compile(); err != nil {
			return nil, err
		}
	}
	go t.load(0)
	ctx, cancel := context.WithCancel(context.Background())
	t.forgo = cancel
	go t.calibrate(ctx)
	t.maps, t.mapsErr = loader.WatchMaps(t.mapped)
	t.overwrites, t.overwritesErr = watchOverwrites(t.overwritten)
	return t, nil
}

// load loads the programs, with room for at least so many functions; loaded
// waits for it.
func (t *Tracer) load(functions int) {
	o := &t.opt
	t.loader, t.loadErr = loader.New(loader.Config{
		Level: o.Level, MinDuration: o.MinDuration, MaxDepth: o.MaxDepth, Sample: o.Sample,
		TIDs: o.TIDs, Comm: o.Comm, Follow: o.Follow, Announce: o.Joins != nil, StopOnExec: o.StopOnExec, GuardArgs: o.GuardArgs, Static: len(o.USDT) > 0 || o.bare(),
		RingBytes: o.RingBytes, Mode: o.Mode, InternPython: t.internPython, MaxFuncs: functions,
	})
	close(t.loadDone)
}

// loaded waits until the programs are loaded. See loader.New for errors.
func (t *Tracer) loaded() error {
	<-t.loadDone
	return t.loadErr
}

// makeRoom loads the programs anew if there are more functions than they have
// room for and nothing is attached yet.
func (t *Tracer) makeRoom() error {
	if err := t.loaded(); err != nil {
		return err
	}
	n := t.funcs.len()
	if n < loader.DefaultMaxFuncs || len(t.processes) > 0 {
		return nil
	}
	if err := t.loader.Close(); err != nil {
		return err
	}
	t.loadDone = make(chan struct{})
	t.load(1 << bits.Len(uint(n+n/2))) // for libraries loaded later, too
	return t.loaded()
}

// Functions names the functions of events and calls.
func (t *Tracer) Functions() trace.Functions { return &t.funcs }

func (t *Tracer) note(format string, args ...any) {
	if t.opt.Note != nil {
		t.opt.Note(format, args...)
	}
}

// Tap makes Run hand the raw stream to tap as well: a recorder. It comes before
// Run.
func (t *Tracer) Tap(tap trace.Tap) { t.tap = tap }

// Start attaches to the targets. It fails with ErrNoFunctions when there is
// nothing to attach to.
func (t *Tracer) Start() (Report, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mapsErr != nil {
		t.note("libraries loaded from now on are not seen: %v", t.mapsErr)
	}
	if t.overwritesErr != nil {
		t.note("programs must not be overwritten while they are traced: %v", t.overwritesErr)
	}
	if t.report.Functions+t.report.Static == 0 {
		return t.report, t.nothing()
	}
	t.noteUnmatched()
	t.report.Processes = len(t.processes)
	t.report.Took = time.Since(t.began)
	return t.report, nil
}

// Run delivers calls to sink until ctx is done or the last target has ended,
// then closes the calls that are open and returns. Sinks are called from this
// goroutine.
func (t *Tracer) Run(ctx context.Context, sink trace.Sink) (orphans uint64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		t.manage(ctx)
		cancel()
	})
	h := newHandler(t, sink)
	t.readLayouts()
	t.nameThreads(h)
	err = t.loader.Run(ctx, h)
	cancel()
	wg.Wait()
	h.finish()
	return h.pairer.Orphans, err
}

// readLayouts takes up the processes' memory layouts while they are certain to
// live.
func (t *Tracer) readLayouts() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for pid := range t.processes {
		t.regions.read(pid)
	}
}

// nameThreads tells the pairer what the threads are called that were there
// before tracing began.
func (t *Tracer) nameThreads(h *handler) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for pid := range t.processes {
		for _, e := range threadNames(pid) {
			h.observe(&e)
		}
	}
}

// threadNames are events that tell the names of a process's threads; none if it
// has ended.
func threadNames(pid uint32) []trace.Event {
	tids, _ := symbolizer.Threads(int(pid))
	now := loader.Now()
	var names []trace.Event
	for _, tid := range tids {
		if comm, err := symbolizer.Comm(tid); err == nil {
			names = append(names, trace.Event{Kind: trace.KindComm, Time: now, PID: pid, TID: uint32(tid), Comm: comm})
		}
	}
	return names
}

// Attached is when the first probes began to count: ns, CLOCK_MONOTONIC.
func (t *Tracer) Attached() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.attached.IsZero() {
		return loader.Now()
	}
	return loader.Now() - uint64(time.Since(t.attached))
}

// Close takes all probes out. It is safe to call twice.
func (t *Tracer) Close() error {
	var errs []error
	t.forgo()
	if t.maps != nil {
		errs = append(errs, t.maps.Close())
	}
	errs = append(errs, t.overwrites.close())
	if t.loaded() == nil {
		errs = append(errs, t.loader.Close())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.modules {
		if m.bin != nil {
			errs = append(errs, m.bin.Close())
		}
	}
	errs = append(errs, t.symbols.close())
	clear(t.modules)
	return errors.Join(errs...)
}

// handler stands between the loader and the pairer.
type handler struct {
	t      *Tracer
	pairer *trace.Pairer
	tap    trace.Tap // may be nil
	gone   gone      // what the pairer knows to be removed
	now    uint64
}

func newHandler(t *Tracer, sink trace.Sink) *handler {
	h := &handler{t: t, tap: t.tap}
	h.pairer = trace.NewPairer(sink, h.region)
	if h.tap != nil {
		h.tap.Begin(h.pairer)
	}
	return h
}

// region is the pairer's trace.Regions.
func (h *handler) region(pid uint32, sp uint64) (trace.Region, bool) {
	r, ok := h.t.regions.find(pid, sp)
	if ok && h.tap != nil {
		h.tap.Region(pid, r)
	}
	return r, ok
}

// Event passes an event on, process events to the manager too.
func (h *handler) Event(e *trace.Event) {
	if h.t.told.due(e.Time) {
		h.hear(e.Time)
	}
	switch e.Kind {
	case trace.KindCandidate:
		h.t.work.put(*e)
		return // nothing that happened in a target
	case trace.KindEntry, trace.KindExit:
		// A hit may come between the time of a removal and the removal.
		if h.gone.has(e.Func) {
			return
		}
	case trace.KindFork, trace.KindExec, trace.KindProcessExit:
		h.t.work.put(*e)
	}
	h.observe(e)
	h.t.regions.event(e)
}

// observe hands an event to all who get the raw stream.
func (h *handler) observe(e *trace.Event) {
	h.pairer.Event(e)
	if h.tap != nil {
		h.tap.Event(e)
	}
}

// Tick passes on that every event before now is through.
func (h *handler) Tick(now uint64) {
	h.now = now
	if h.t.told.due(now) {
		h.hear(now)
	}
	h.pairer.Tick(now)
	if h.tap != nil {
		h.tap.Tick(now)
	}
}

// hear passes on what the manager said up to now. The calls of functions that
// were removed end there.
func (h *handler) hear(now uint64) {
	for _, e := range h.t.told.take(now) {
		if e.Kind == trace.KindDetached {
			h.gone.add(e.Func)
		}
		h.observe(&e)
	}
}

// finish closes the calls that are open.
func (h *handler) finish() {
	h.pairer.Finish(h.now)
	if h.tap != nil {
		h.tap.Finish(h.now)
	}
}

// mapped is told by the map watcher that a process mapped a file.
func (t *Tracer) mapped(pid uint32) {
	select {
	case t.late <- pid:
	default: // a storm of mappings: the process is looked at for those before
	}
}
