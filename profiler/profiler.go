// Package profiler samples live processes: it follows what they have mapped,
// builds the unwind tables of their files, counts the stacks that the kernel
// side sends, and makes a profile of them in the model of pprof.
package profiler

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/pprof/profile"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// Options say what to sample.
type Options struct {
	Event     loader.SampleEvent
	Rate      int              // samples per second and CPU; 0: loader.DefaultSampleRate
	Period    uint64           // events that are no time: one sample in this many; 0: all
	Wakers    bool             // who ends waits, too
	Functions uprobes.Selector // loader.SampleCalls: whose calls
	All       bool             // every process of the machine
	Follow    bool             // children of the processes added, those there are and those to come
	NoKernel  bool             // user stacks only
	RingBytes int              // kernel buffer, a power of two; 0: the loader's default
	MaxBytes  uint64           // kernel memory for unwind tables; 0: the loader's default

	// Note is told what a user should know while profiling goes on. It is called
	// from any goroutine. Nil: nobody.
	Note func(format string, args ...any)
}

// Profiler is a profiling session: New, then AddPID for each target, Start, Run,
// Profile, Close.
type Profiler struct {
	opt     Options
	release loader.KernelVersion
	session *loader.Profile // once loaded has returned nil
	loadErr error
	maps    *loader.MapWatcher // nil: mapsErr says why
	mapsErr error
	began   time.Time // when sampling did
	stopped time.Time

	loadDone chan struct{}

	kernel   *symbolizer.KernelSymbols // nil: they are hidden, or not asked for
	kernelOK chan struct{}             // closed when kernel is read

	work queue       // for the manager
	late chan uint32 // pids that mapped a file

	mu        sync.Mutex
	processes map[uint32]*process
	modules   map[*symbolizer.Binary]*module
	anonymous map[string]*module // code without a file, by name
	order     []*module          // in the order of their discovery, the first target's program first
	jits      []*symbolizer.JITSymbols
	building  Report
	full      bool // the tables' memory is used up, and that was said

	samples samples
}

// Report says what profiling takes.
type Report struct {
	Processes   int
	Files       int           // with unwind tables
	Functions   int           // with probes
	UnwindBytes int           // size of the sections that the tables come from
	Building    time.Duration // of tables
	Took        time.Duration // from New to Start
	Memory      uint64        // of the tables in the kernel
}

// New begins to load the programs; AddPID and Start wait for that, and return the
// errors of loader.NewProfile.
func New(o Options) *Profiler {
	p := &Profiler{
		opt: o, began: time.Now(),
		loadDone:  make(chan struct{}),
		kernelOK:  make(chan struct{}),
		work:      queue{ready: make(chan struct{}, 1)},
		late:      make(chan uint32, 4096),
		processes: make(map[uint32]*process),
		modules:   make(map[*symbolizer.Binary]*module),
		anonymous: make(map[string]*module),
	}
	p.samples.init()
	p.release, _, _ = loader.RunningKernel() // unknown: the oldest
	go p.load()
	p.maps, p.mapsErr = loader.WatchMaps(p.mapped)
	return p
}

// load loads the programs; loaded waits for it.
func (p *Profiler) load() {
	p.session, p.loadErr = loader.NewProfile(loader.ProfileConfig{
		Event: p.opt.Event, Period: p.opt.Period, Wakers: p.opt.Wakers, Rate: p.opt.Rate, All: p.opt.All, Follow: p.opt.Follow, NoKernel: p.opt.NoKernel,
		RingBytes: p.opt.RingBytes, MaxBytes: p.opt.MaxBytes,
	})
	close(p.loadDone)
}

// loaded waits until the programs are loaded. See loader.NewProfile for errors.
func (p *Profiler) loaded() error {
	<-p.loadDone
	return p.loadErr
}

func (p *Profiler) note(format string, args ...any) {
	if p.opt.Note != nil {
		p.opt.Note(format, args...)
	}
}

// mapped is told by the map watcher that a process mapped a file.
func (p *Profiler) mapped(pid uint32) {
	select {
	case p.late <- pid:
	default: // a storm of mappings: the process is looked at for those before
	}
}

// Start begins to sample.
func (p *Profiler) Start() (Report, error) {
	if p.mapsErr != nil {
		p.note("libraries loaded from now on are not seen: %v", p.mapsErr)
	}
	if err := p.loaded(); err != nil {
		return Report{}, err
	}
	if err := p.session.Start(); err != nil {
		return Report{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if probes := p.opt.Event == loader.SampleCalls || p.opt.Event == loader.SampleAllocs; probes && p.building.Functions == 0 {
		return Report{}, ErrNoFunction
	}
	now := time.Now()
	r := p.building
	r.Processes = len(p.processes)
	r.Took = now.Sub(p.began)
	r.Memory = p.session.UnwindStats().Bytes
	p.began = now
	return r, nil
}

// Run samples until ctx is done or the last target has ended.
func (p *Profiler) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go p.readKernel()
	var wg sync.WaitGroup
	wg.Go(func() {
		p.manage(ctx)
		cancel()
	})
	err := p.session.Run(ctx, (*handler)(p))
	cancel()
	wg.Wait()
	p.stopped = time.Now()
	<-p.kernelOK
	return err
}

// readKernel reads the kernel's functions, whose names do not depend on when.
func (p *Profiler) readKernel() {
	defer close(p.kernelOK)
	if p.opt.NoKernel {
		return
	}
	var err error
	if p.kernel, err = symbolizer.ReadKernelSymbols(); err != nil {
		p.note("functions of the kernel have no names: %v", err)
	}
}

// Period is what a sample stands for, see loader.Profile.Period.
func (p *Profiler) Period() int64 { return p.session.Period() }

// Progress says how far sampling is.
type Progress struct {
	Samples uint64
	Lost    uint64
	Elapsed time.Duration
}

// Progress may be called while Run is running.
func (p *Profiler) Progress() Progress {
	return Progress{Samples: p.samples.count.Load(), Lost: p.session.Lost(), Elapsed: time.Since(p.began)}
}

// Profile makes a profile of what was sampled, once Run has returned.
func (p *Profiler) Profile() (*profile.Profile, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.build()
}

// Stats says what was sampled, once Run has returned.
func (p *Profiler) Stats() Stats {
	s := p.samples.stats
	s.Unwind = p.session.UnwindStats()
	return s
}

// Close ends the session. It is safe to call twice.
func (p *Profiler) Close() error {
	var errs []error
	if p.maps != nil {
		errs = append(errs, p.maps.Close())
	}
	if p.loaded() == nil {
		errs = append(errs, p.session.Close())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, proc := range p.processes {
		errs = append(errs, proc.close())
	}
	for _, jit := range p.jits {
		errs = append(errs, jit.Close())
	}
	for b := range p.modules {
		errs = append(errs, b.Close())
	}
	clear(p.modules)
	return errors.Join(errs...)
}

// handler takes the events of the loader.
type handler Profiler

// Event counts a sample or passes a process event to the manager.
func (h *handler) Event(e *trace.Event) {
	p := (*Profiler)(h)
	switch e.Kind {
	case trace.KindSample:
		p.sample(e)
	case trace.KindFork, trace.KindExec, trace.KindProcessExit:
		p.taskEvent(e)
	case trace.KindLost:
		p.samples.stats.Lost += e.Count
	}
}

// Tick is of no interest here.
func (h *handler) Tick(uint64) {}

// queue hands work from the consumer of events, which must not wait, to the
// manager, which may be busy building tables.
type queue struct {
	mu    sync.Mutex
	items []func()
	ready chan struct{} // has a token when items may be there
}

func (q *queue) put(item func()) {
	q.mu.Lock()
	q.items = append(q.items, item)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take returns everything that waits, oldest first.
func (q *queue) take() []func() {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = nil
	return items
}

// manage follows the processes until ctx is done or the last target has ended.
func (p *Profiler) manage(ctx context.Context) {
	// The targets may own every CPU, and what they have just executed or mapped is
	// unwound only once its tables are there.
	defer loader.Hurry()()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.work.ready:
			for _, f := range p.work.take() {
				f()
			}
		case pid := <-p.late:
			p.remap(pid)
		}
		if !p.opt.All && p.idle() {
			return
		}
	}
}

// idle reports whether no target is left.
func (p *Profiler) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.processes) == 0
}
