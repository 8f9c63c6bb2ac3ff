package loader

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sbxtrace/sbxtrace/trace"
)

// ErrTooMany says that there is no room for the counters of more functions.
var ErrTooMany = errors.New("more functions to trace")

// groupSize is how many functions share their links: large enough that ten
// thousand functions take few system calls, small enough that leaving one out
// (the group is attached anew without it) takes about a millisecond.
const groupSize = 512

// inactive is a generation that no group has.
const inactive = 0

// group is a set of functions of one module that is attached at once.
type group struct {
	id         uint16
	generation uint8
	module     *attached
	functions  []Function
	links      []link.Link
}

// attached is a module with probes in it.
type attached struct {
	path   string
	pid    uint32
	exe    *link.Executable
	groups []*group
}

// Attach puts the probes of m in. Nothing counts before all of them are there.
// On error nothing of m stays attached; ErrTooMany is that of a function whose id
// is not below Config.MaxFuncs. It may be called while Run is running.
func (s *Session) Attach(m Module) error {
	for i := range m.Functions {
		if int(m.Functions[i].ID) >= s.stride {
			return fmt.Errorf("attach to %s: %w than %d", m.Path, ErrTooMany, s.stride)
		}
	}
	exe, err := link.OpenExecutable(m.Path)
	if err != nil {
		return fmt.Errorf("attach to %s: %w", m.Path, err)
	}
	mod := &attached{path: m.Path, pid: m.PID, exe: exe}
	if err := s.setUSDT(m.Functions); err != nil {
		return fmt.Errorf("attach to %s: %w", m.Path, err)
	}
	for fns := m.Functions; len(fns) > 0; {
		n := min(groupSize, len(fns))
		g, err := s.newGroup(mod, fns[:n:n])
		if err == nil {
			mod.groups = append(mod.groups, g)
			g.links, err = s.attachGroup(g)
		}
		if err != nil {
			s.detach(mod.groups)
			if !s.multi {
				return fmt.Errorf("attach to %s: %w", m.Path, explain(err, tryPerfUprobe))
			}
			return fmt.Errorf("attach to %s: %w", m.Path, explain(err))
		}
		fns = fns[n:]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.detach(mod.groups)
		return ErrClosed
	}
	for _, g := range mod.groups {
		s.activate(g)
		for i := range g.functions {
			id := g.functions[i].ID
			s.owner[id] = append(s.owner[id], g)
		}
	}
	s.modules = append(s.modules, mod)
	return nil
}

func (s *Session) newGroup(mod *attached, fns []Function) (*group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range maxGroups {
		id := s.nextGroup
		s.nextGroup++
		if s.groupUse[id] {
			continue
		}
		s.groupUse[id] = true
		return &group{id: id, generation: 1, module: mod, functions: fns}, nil
	}
	return nil, fmt.Errorf("more than %d groups of probes", maxGroups)
}

// activate makes the group's present generation the one that counts.
func (s *Session) activate(g *group) { s.shared.setGeneration(g.id, g.generation) }

// attachGroup attaches all sites of g: exits first, so that no entry is seen
// whose exit is not.
func (s *Session) attachGroup(g *group) ([]link.Link, error) {
	byProgram := make([]sites, programs)
	for i := range g.functions {
		f := &g.functions[i]
		for j := range f.Probes {
			p := &f.Probes[j]
			c, err := cookie(f.ID, g.id, g.generation, p, g.module.pid == 0)
			if err != nil {
				return nil, err
			}
			byProgram[p.Program].add(p, c)
		}
	}
	order := []Program{ProgramReturn, ProgramRet, ProgramGoRet, ProgramPythonReturn, ProgramGoExit,
		ProgramEntry, ProgramGoEntry, ProgramUSDT, ProgramPythonEntry}
	var links []link.Link
	for _, p := range order {
		at := &byProgram[p]
		if len(at.offsets) == 0 {
			continue
		}
		ls, err := s.attachSites(g.module, p, at)
		if err != nil {
			closeLinks(links)
			return nil, err
		}
		links = append(links, ls...)
	}
	return links, nil
}

// sites are the arguments of one uprobe_multi link.
type sites struct {
	offsets, cookies, refCtrs []uint64
	refs                      bool
}

func (l *sites) add(p *Probe, cookie uint64) {
	l.offsets = append(l.offsets, p.Offset)
	l.cookies = append(l.cookies, cookie)
	l.refCtrs = append(l.refCtrs, p.RefCtrOffset)
	l.refs = l.refs || p.RefCtrOffset != 0
}

func (s *Session) attachSites(mod *attached, p Program, at *sites) ([]link.Link, error) {
	return attachProbes(mod, s.programs[p], s.multi, p == ProgramReturn, at)
}

// attachProbes attaches a program at sites, to returns if ret is set; multi says
// that the program is loaded for uprobe_multi.
func attachProbes(mod *attached, prog *ebpf.Program, multi, ret bool, at *sites) ([]link.Link, error) {
	if !multi {
		return attachEach(mod, prog, ret, at)
	}
	opts := &link.UprobeMultiOptions{Addresses: at.offsets, Cookies: at.cookies, PID: mod.pid}
	if at.refs {
		opts.RefCtrOffsets = at.refCtrs
	}
	attach := mod.exe.UprobeMulti
	if ret {
		attach = mod.exe.UretprobeMulti
	}
	l, err := attach(nil, prog, opts)
	if err != nil {
		return nil, err
	}
	return []link.Link{l}, nil
}

// attachEach is for kernels before 6.6: one perf event per site, in parallel,
// since each costs the kernel a grace period.
func attachEach(mod *attached, prog *ebpf.Program, ret bool, at *sites) ([]link.Link, error) {
	links := make([]link.Link, len(at.offsets))
	errs := make([]error, len(at.offsets))
	parallel(len(links), func(i int) {
		opts := &link.UprobeOptions{
			Address:      at.offsets[i],
			Cookie:       at.cookies[i],
			PID:          int(mod.pid),
			RefCtrOffset: at.refCtrs[i],
		}
		if ret {
			links[i], errs[i] = mod.exe.Uretprobe("", prog, opts)
		} else {
			links[i], errs[i] = mod.exe.Uprobe("", prog, opts)
		}
	})
	if err := errors.Join(errs...); err != nil {
		closeLinks(links)
		for _, e := range errs {
			if e != nil {
				return nil, explainPerf(e)
			}
		}
	}
	return links, nil
}

// Remove detaches functions while the others of their groups go on: no event
// of those is lost or doubled. Functions that are not attached are ignored. The
// groups go in the order of ids, and gone is told of each as its turn comes:
// nothing of its functions counts from the time at on (ns, CLOCK_MONOTONIC) but
// what a program is in the middle of. The sites follow within some tens of
// milliseconds.
func (s *Session) Remove(ids []trace.FuncID, gone func(ids []trace.FuncID, at uint64)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[trace.FuncID]bool, len(ids))
	var touched []*group
	for _, id := range ids {
		for _, g := range s.owner[id] {
			out[id] = true
			if !slices.Contains(touched, g) {
				touched = append(touched, g)
			}
		}
		delete(s.owner, id)
	}
	var errs []error
	for _, g := range touched {
		var keep []Function
		var removed []trace.FuncID
		for _, f := range g.functions {
			if out[f.ID] {
				removed = append(removed, f.ID)
			} else {
				keep = append(keep, f)
			}
		}
		errs = append(errs, s.renew(g, keep, func() { gone(removed, Now()) }))
	}
	return errors.Join(errs...)
}

// Change moves the probes of functions that are attached for pid (0: for every
// process that maps the file), to where fns say; a function without probes is
// detached. Those that are not attached, or not any more, are ignored. A call
// that is running meanwhile may stay without an exit.
func (s *Session) Change(pid uint32, fns []Function) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := make(map[trace.FuncID]*Function, len(fns))
	for i := range fns {
		changed[fns[i].ID] = &fns[i]
	}
	var errs []error
	for _, m := range s.modules {
		if m.pid != pid {
			continue
		}
		for _, g := range m.groups {
			if !slices.ContainsFunc(g.functions, func(f Function) bool { return changed[f.ID] != nil }) {
				continue
			}
			next := make([]Function, 0, len(g.functions))
			for _, f := range g.functions {
				if c := changed[f.ID]; c == nil {
					next = append(next, f)
				} else if len(c.Probes) > 0 {
					next = append(next, *c)
				} else {
					s.disown(f.ID, g)
				}
			}
			errs = append(errs, s.renew(g, next, func() {}))
		}
	}
	return errors.Join(errs...)
}

// disown notes that a function is no longer in a group.
func (s *Session) disown(id trace.FuncID, g *group) {
	s.owner[id] = slices.DeleteFunc(s.owner[id], func(o *group) bool { return o == g })
	if len(s.owner[id]) == 0 {
		delete(s.owner, id)
	}
}

// renew replaces the links of g by ones for the functions in keep. It calls
// before when the new ones are in and do not count yet.
func (s *Session) renew(g *group, keep []Function, before func()) error {
	next := *g
	next.functions = keep
	next.generation = g.generation%255 + 1
	links, err := s.attachGroup(&next)
	before()
	if err != nil {
		// The module may be gone, with its process: then so are its calls.
		s.shared.setGeneration(g.id, inactive)
	} else {
		s.activate(&next)
	}
	old := g.links
	g.functions, g.generation, g.links = keep, next.generation, links
	// The kernel takes the sites out at once and then waits for grace periods,
	// which the next group need not do.
	s.closing.Go(func() { closeLinks(old) })
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("attach the rest of a group anew: %w", err)
	}
	return nil
}

// RemoveProcess takes out what was attached to this one process: its end has
// been seen, or its program replaced.
func (s *Session) RemoveProcess(pid uint32) {
	s.removeModules(func(m *attached) bool { return m.pid == pid && pid != 0 })
}

// RemoveModule takes out the module that these functions are of, wherever it is
// attached. When it returns the sites are out.
func (s *Session) RemoveModule(ids map[trace.FuncID]bool) {
	s.removeModules(func(m *attached) bool {
		return slices.ContainsFunc(m.groups, func(g *group) bool {
			return slices.ContainsFunc(g.functions, func(f Function) bool { return ids[f.ID] })
		})
	})
}

func (s *Session) removeModules(which func(*attached) bool) {
	s.mu.Lock()
	var gone []*group
	keep := s.modules[:0]
	for _, m := range s.modules {
		if which(m) {
			gone = append(gone, m.groups...)
		} else {
			keep = append(keep, m)
		}
	}
	clear(s.modules[len(keep):])
	s.modules = keep
	for _, g := range gone {
		for i := range g.functions {
			s.disown(g.functions[i].ID, g)
		}
		s.groupUse[g.id] = false
	}
	s.mu.Unlock()
	s.detach(gone)
}

// detach takes groups out: their programs fall silent at once, the sites follow.
func (s *Session) detach(groups []*group) {
	var links []link.Link
	for _, g := range groups {
		s.shared.setGeneration(g.id, inactive)
		links = append(links, g.links...)
		g.links = nil
	}
	closeLinks(links)
}

// closeLinks closes in parallel: each close waits for a grace period.
func closeLinks(links []link.Link) {
	parallel(len(links), func(i int) {
		if links[i] != nil {
			links[i].Close()
		}
	})
}

// parallel runs f(0..n-1) on many goroutines: the calls wait in the kernel.
func parallel(n int, f func(i int)) {
	workers := min(n, max(32, 4*runtime.NumCPU()))
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
