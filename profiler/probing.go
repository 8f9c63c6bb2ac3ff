package profiler

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/tracer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// ErrNoFunction: nothing to sample the calls of is in the targets.
var ErrNoFunction = errors.New("no function to sample")

// probing is what is to be sampled by probes in a module.
type probing struct {
	calls  []uint64 // offsets
	allocs []loader.AllocSite
	frees  []uint64
}

func (s *probing) empty() bool { return s == nil || len(s.calls)+len(s.allocs) == 0 }

// probe attaches to the functions of what a process has mapped, as far as that was
// not done yet.
func (p *Profiler) probe(proc *process) error {
	if p.opt.Event != loader.SampleCalls && p.opt.Event != loader.SampleAllocs {
		return nil
	}
	if proc.probed == nil {
		proc.probed = make(map[*module]bool)
	}
	allocator := p.allocator(proc)
	var errs []error
	for i := range proc.regions {
		r := &proc.regions[i]
		m := r.module
		if m.bin == nil || !r.IsFile() || proc.probed[m] {
			continue
		}
		proc.probed[m] = true
		if p.opt.Event == loader.SampleAllocs && m != allocator && !m.bin.IsGo() {
			continue
		}
		if err := p.attach(proc, r); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(m.name), err))
		}
	}
	return errors.Join(errs...)
}

// attach attaches to one module of a process.
func (p *Profiler) attach(proc *process, r *region) error {
	m := r.module
	if !m.planned {
		m.planned = true
		m.probes = p.plan(m)
	}
	if m.probes.empty() {
		return nil
	}
	path, err := symbolizer.ModulePath(int(proc.pid), r.Mapping)
	if err != nil {
		return err
	}
	if len(m.probes.calls) > 0 {
		if err := p.session.AttachCalls(path, proc.pid, m.probes.calls); err != nil {
			return err
		}
		p.building.Functions += len(m.probes.calls)
	}
	if len(m.probes.allocs) > 0 {
		if err := p.session.AttachAllocs(path, proc.pid, m.probes.allocs, m.probes.frees); err != nil {
			return err
		}
		p.building.Functions += len(m.probes.allocs)
	}
	return nil
}

// plan finds what is to be probed in a module.
func (p *Profiler) plan(m *module) *probing {
	if p.opt.Event == loader.SampleCalls {
		matcher, err := p.opt.Functions.Compile()
		if err != nil || !matcher.MatchModule(m.name) {
			return nil
		}
		found, err := tracer.Plan(m.bin, m.name, matcher, tracer.PlanOptions{Returns: uprobes.ReturnNone, Kernel: p.release})
		if err != nil {
			p.note("%s: %v", filepath.Base(m.name), err)
			return nil
		}
		s := &probing{}
		for _, c := range found {
			if c.Err == nil {
				s.calls = append(s.calls, c.Plan.Entry.Offset)
			}
		}
		return s
	}
	if m.bin.IsGo() {
		return p.planAllocs(m, goAllocators, true)
	}
	return p.planAllocs(m, allocators, false)
}

// allocators are the functions of C that allocate.
var allocators = map[string]loader.AllocKind{
	"malloc": loader.AllocMalloc, "valloc": loader.AllocMalloc, "pvalloc": loader.AllocMalloc,
	"calloc": loader.AllocCalloc, "realloc": loader.AllocRealloc, "reallocarray": loader.AllocReallocarray,
	"aligned_alloc": loader.AllocAligned, "memalign": loader.AllocAligned, "posix_memalign": loader.AllocPosix,
}

// goAllocators are those of Go's runtime. From Go 1.26 on the compiler calls one
// for each size of small objects (runtime/malloc_generated.go), and so does
// mallocgc.
var goAllocators = map[string]loader.AllocKind{"runtime.mallocgc": loader.AllocGo}

// goSmallAllocators begin the names of those for small objects.
var goSmallAllocators = []string{"runtime.mallocgcSmallScanNoHeaderSC", "runtime.mallocgcSmallNoScanSC", "runtime.mallocTiny"}

func isGoSmallAllocator(name string) bool {
	for _, prefix := range goSmallAllocators {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// planAllocs places the probes in functions that allocate and free.
func (p *Profiler) planAllocs(m *module, kinds map[string]loader.AllocKind, golang bool) *probing {
	fns, err := m.bin.Functions()
	if err != nil {
		return nil
	}
	s := &probing{}
	for i := range fns {
		fn := &fns[i]
		names := append([]string{fn.Symbol, fn.Name}, fn.Aliases...)
		kind, free := loader.AllocKind(0), false
		for _, name := range names {
			if k := kinds[name]; k != 0 {
				kind = k
			}
			if golang && isGoSmallAllocator(name) {
				kind = loader.AllocGo
			}
			free = free || !golang && name == "free"
		}
		switch {
		case free:
			s.frees = append(s.frees, fn.Offset)
		case kind != 0:
			if site, ok := p.allocSite(m.bin, fn, kind); ok {
				s.allocs = append(s.allocs, site)
			}
		}
	}
	return s
}

// allocSite places the probes of a function that allocates.
func (p *Profiler) allocSite(bin *symbolizer.Binary, fn *symbolizer.Function, kind loader.AllocKind) (loader.AllocSite, bool) {
	returns := uprobes.ReturnUretprobe
	if kind == loader.AllocGo {
		returns = uprobes.ReturnNone
	}
	plan, err := tracer.PlanFunction(bin, fn, tracer.PlanOptions{Returns: returns, NeedArgs: true, Kernel: p.release})
	if err != nil || returns != uprobes.ReturnNone && len(plan.Returns) == 0 {
		p.note("%s: %s is left out: %v", filepath.Base(bin.Path), fn.Name, err)
		return loader.AllocSite{}, false
	}
	site := loader.AllocSite{Entry: plan.Entry.Offset, Kind: kind}
	if len(plan.Returns) > 0 {
		site.Return = plan.Returns[0].Offset
	}
	return site, true
}

// allocator is the module whose malloc a process uses: that of the program if it
// has one, that of a library made for it, or the C library's.
func (p *Profiler) allocator(proc *process) *module {
	var best *module
	rank := 0
	for i := range proc.regions {
		m := proc.regions[i].module
		if m.bin == nil || p.opt.Event != loader.SampleAllocs || m.bin.IsGo() || !definesMalloc(m.bin) {
			continue
		}
		r := 1
		switch {
		case m.bin.Interp != "" || i == 0:
			r = 3
		case strings.Contains(filepath.Base(m.name), "malloc"):
			r = 2
		}
		if r > rank {
			best, rank = m, r
		}
	}
	return best
}

func definesMalloc(bin *symbolizer.Binary) bool {
	fns, err := bin.Functions()
	if err != nil {
		return false
	}
	for i := range fns {
		if fns[i].Symbol == "malloc" {
			return true
		}
		for _, alias := range fns[i].Aliases {
			if alias == "malloc" {
				return true
			}
		}
	}
	return false
}
