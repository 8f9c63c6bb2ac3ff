package profiler

import (
	"errors"
	"os"
	"sort"
	"time"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
)

// process is a process whose samples are taken, from one exec to the next.
type process struct {
	pid     uint32
	comm    string // of the process: the name of its main thread
	regions []region
	read    time.Time // when regions were
	known   map[uint64]uint32
	probed  map[*module]bool // attached to, where calls are sampled

	jit     *symbolizer.JITSymbols // names of generated code, nil if there are none yet
	jitNext time.Time              // when to look for them again
	jitErr  error                  // why there are none

	python   *python // nil if it runs no Python
	noPython bool    // it runs one that is not known
	golang   *golang // nil if it runs no Go
}

// generated looks up code that a process has made itself.
func (p *Profiler) generated(proc *process, addr uint64) (fn symbolizer.JITFunction, ok bool) {
	if proc.jit == nil {
		if time.Now().Before(proc.jitNext) {
			return fn, false
		}
		const wait = time.Second // a runtime begins to write when it begins to compile
		proc.jitNext = time.Now().Add(wait)
		var err error
		if proc.jit, err = symbolizer.OpenJITSymbols(int(proc.pid)); err != nil && proc.jitErr == nil {
			proc.jitErr = err // what is said first, while the process lives, says most
		}
		if proc.jit == nil {
			return fn, false
		}
		p.jits = append(p.jits, proc.jit)
	}
	fn, _, ok = proc.jit.Lookup(addr)
	return fn, ok
}

// noteUnnamed says of processes with much generated code that has no names how
// they can be made to write some.
func (p *Profiler) noteUnnamed() {
	const worthSaying = 20 // one sample in this many
	all, unnamed := make(map[*process]int64), make(map[*process]int64)
	for _, st := range p.samples.order {
		var proc *process
		missing := false
		for _, id := range st.locations {
			if at := p.samples.locations[id]; at.proc != nil {
				proc = at.proc
				missing = missing || len(p.frames(at)) == 0
			}
		}
		if proc != nil {
			all[proc] += st.samples
		}
		if missing {
			unnamed[proc] += st.samples
		}
	}
	for proc, n := range unnamed {
		if proc.jitErr != nil && proc.jit == nil && n*worthSaying >= all[proc] {
			p.note("%v", proc.jitErr)
		}
	}
}

// region is an executable mapping of a process and what is in it.
type region struct {
	symbolizer.Mapping
	module *module
	bias   uint64
}

// close gives the process's memory back.
func (proc *process) close() error {
	var errs []error
	if proc != nil && proc.python != nil {
		errs = append(errs, proc.python.Close())
	}
	if proc != nil && proc.golang != nil && proc.golang.memory != nil {
		errs = append(errs, proc.golang.memory.Close())
	}
	return errors.Join(errs...)
}

// AddPID makes a process a target. Errors wrap symbolizer.ErrNoProcess when
// there is no such process (any more).
func (p *Profiler) AddPID(pid uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.add(pid)
}

func (p *Profiler) add(pid uint32) error {
	if p.processes[pid] != nil {
		return nil
	}
	proc := &process{pid: pid}
	if err := p.refresh(proc); err != nil {
		return err
	}
	p.processes[pid] = proc
	if err := p.publish(proc); err != nil {
		delete(p.processes, pid)
		return err
	}
	if !p.opt.Follow {
		return nil
	}
	children, err := symbolizer.Children(int(pid))
	if err != nil {
		return nil // it ended; its end is reported by the kernel
	}
	for _, c := range children {
		if c == os.Getpid() {
			continue // sbxtrace is a child of the shell that is profiled
		}
		if err := p.add(uint32(c)); err != nil && !errors.Is(err, symbolizer.ErrNoProcess) {
			p.note("child process %d: %v", c, err)
		}
	}
	return nil
}

// AddAll makes every process a target that has a program: those that come are
// children of one.
func (p *Profiler) AddAll() error {
	pids, err := symbolizer.Processes()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pid := range pids {
		if pid == os.Getpid() {
			continue
		}
		// Kernel threads have no memory, others end meanwhile.
		if err := p.add(uint32(pid)); errors.Is(err, loader.ErrPermission) || errors.Is(err, loader.ErrNotSupported) {
			return err
		}
	}
	return nil
}

// refresh reads what a process has mapped, and opens the files, so that their
// addresses can still be named after it has ended.
func (p *Profiler) refresh(proc *process) error {
	maps, err := symbolizer.ExecutableMaps(int(proc.pid))
	if err != nil {
		return err
	}
	if len(maps) == 0 {
		return errEnded(proc.pid)
	}
	if proc.comm == "" {
		proc.comm, _ = symbolizer.Comm(int(proc.pid))
	}
	before := proc.regions
	proc.regions = make([]region, 0, len(maps))
	for _, m := range maps {
		r := region{Mapping: m}
		if i := find(before, m.Start); i >= 0 && before[i].Mapping == m {
			r = before[i]
		} else {
			r.module = p.module(proc.pid, &m)
			if r.module.bin != nil {
				r.bias, _ = r.module.bin.Bias(&m)
			}
		}
		proc.regions = append(proc.regions, r)
	}
	proc.read = time.Now()
	proc.known = make(map[uint64]uint32)
	return nil
}

// find returns the index of the region that has addr, -1 if there is none.
func find(regions []region, addr uint64) int {
	i := sort.Search(len(regions), func(i int) bool { return regions[i].End > addr })
	if i < len(regions) && addr >= regions[i].Start {
		return i
	}
	return -1
}

// publish builds the tables of what the process has mapped and tells the kernel
// side of them.
func (p *Profiler) publish(proc *process) error {
	for i := range proc.regions {
		p.prepare(proc.regions[i].module)
	}
	if err := p.loaded(); err != nil {
		return err
	}
	mappings := make([]loader.ProcessMapping, len(proc.regions))
	var layout loader.GoLayout
	for i := range proc.regions {
		r := &proc.regions[i]
		mappings[i] = loader.ProcessMapping{Start: r.Start, End: r.End, Bias: r.bias, Table: p.table(r.module)}
		if r.module.bin != nil && r.module.bin.IsGo() && layout == (loader.GoLayout{}) {
			var runtime symbolizer.GoRuntime
			runtime, layout = goLayout(r.module.bin)
			proc.openGo(runtime)
		}
	}
	p.openPython(proc)
	if err := p.session.SetProcess(proc.pid, mappings, layout, proc.python.layout()); err != nil {
		return err
	}
	return p.probe(proc)
}

// taskEvent follows forks, execs and ends of targets, in the order in which
// their samples come.
func (p *Profiler) taskEvent(e *trace.Event) {
	pid := e.PID
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Kind {
	case trace.KindFork:
		if parent := p.processes[pid]; parent != nil && p.processes[e.ChildPID] == nil {
			// Its memory is that of its parent, until it executes something.
			child := *parent
			child.pid = e.ChildPID
			child.known = make(map[uint64]uint32)
			child.jit, child.python, child.golang, child.probed = nil, nil, nil, nil
			p.processes[child.pid] = &child
			p.work.put(func() { p.remap(child.pid) })
		}
	case trace.KindExec:
		if old := p.processes[pid]; old != nil {
			old.close()
			p.processes[pid] = &process{pid: pid, comm: e.Comm}
			p.work.put(func() { p.remap(pid) })
		}
	case trace.KindProcessExit:
		p.processes[pid].close()
		delete(p.processes, pid)
		p.session.RemoveProcess(pid)
		p.work.put(func() {}) // perhaps it was the last one
	}
}

// remap takes up what a process has mapped since.
func (p *Profiler) remap(pid uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	proc := p.processes[pid]
	if proc == nil {
		return
	}
	if err := p.refresh(proc); err != nil {
		return // it ended; its end is reported by the kernel
	}
	if err := p.publish(proc); err != nil {
		p.note("pid %d: %v", pid, err)
	}
}

// minReread is the least time between two readings of a process's mappings for
// addresses that are in none of them.
const minReread = 100 * time.Millisecond

// resolve returns the location of an address of a process.
func (p *Profiler) resolve(proc *process, addr uint64) uint32 {
	if id, ok := proc.known[addr]; ok {
		return id
	}
	i := find(proc.regions, addr)
	if i < 0 && time.Since(proc.read) >= minReread {
		if p.refresh(proc) == nil {
			pid := proc.pid
			p.work.put(func() { p.remap(pid) })
			i = find(proc.regions, addr)
		} else {
			proc.read = time.Now()
		}
	}
	l := location{module: p.named(unknownModule), addr: addr}
	lasting := i >= 0
	if i >= 0 {
		r := &proc.regions[i]
		l.module = r.module
		switch {
		case r.module.bin != nil:
			l.addr = addr - r.bias
		case !r.IsFile():
			l.proc = proc
			l.jit, _ = p.generated(proc, addr)
			lasting = false // the code there may be another one soon
		}
	}
	id := p.samples.location(l)
	if proc.known == nil {
		proc.known = make(map[uint64]uint32)
	}
	if lasting && len(proc.known) < maxKnown {
		proc.known[addr] = id
	}
	return id
}

// maxKnown bounds the resolved addresses kept of each process.
const maxKnown = 1 << 18

// target returns the process of a sample; where all processes are profiled, one
// is looked at when its first sample comes.
func (p *Profiler) target(e *trace.Event) *process {
	proc := p.processes[e.PID]
	if proc != nil || e.PID == 0 {
		return proc
	}
	proc = &process{pid: e.PID}
	err := p.refresh(proc)
	if !p.opt.All {
		return proc // the last samples of one that has ended
	}
	p.processes[e.PID] = proc
	if err == nil {
		p.work.put(func() { p.remap(e.PID) })
	}
	return proc
}
