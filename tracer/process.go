package tracer

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// process is a traced process.
type process struct {
	pid     uint32
	goid    uint32 // offset of goid in runtime.g, 0 for other than Go programs
	main    fileID
	matcher *uprobes.Matcher // nil: its program cannot be traced
	usdt    *uprobes.USDTMatcher
	unwinds bool            // return probes would be in its way
	done    map[fileID]bool // modules looked at
}

// module is a file with functions that are traced, in whatever processes.
type module struct {
	id        fileID
	name      string
	bin       *symbolizer.Binary
	functions []loader.Function // planned for the processes so far
	everyone  bool              // attached for all processes that map the file
}

// AddPID makes a process a target and attaches to it. With Options.Follow its
// children are added too. Errors wrap symbolizer.ErrNoProcess when there is no
// such process (any more).
func (t *Tracer) AddPID(pid uint32) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.addProcess(pid); err != nil {
		return err
	}
	if !t.opt.Follow {
		return nil
	}
	return t.addChildren(pid)
}

// addChildren adds the children that a process has now, and theirs.
func (t *Tracer) addChildren(pid uint32) error {
	children, err := symbolizer.Children(int(pid))
	if err != nil {
		return nil // it ended; its end is reported by the kernel
	}
	for _, c := range children {
		child := uint32(c)
		if t.processes[child] != nil || c == os.Getpid() {
			continue // sbxtrace is a child of the shell that is traced
		}
		if err := t.addProcess(child); err != nil {
			if !errors.Is(err, symbolizer.ErrNoProcess) && !errors.Is(err, ErrNoFunctions) {
				t.note("child process %d: %v", child, err)
			}
			continue
		}
		if err := t.addChildren(child); err != nil {
			return err
		}
	}
	return nil
}

// addProcess traces pid from now on: what it has mapped, and what it will map.
// Errors wrap symbolizer.ErrNoProcess also when it ends in the middle of that.
func (t *Tracer) addProcess(pid uint32) error {
	return endedMeanwhile(pid, t.tryProcess(pid))
}

func (t *Tracer) tryProcess(pid uint32) error {
	p := &process{pid: pid, done: make(map[fileID]bool)}
	mods, err := targetFiles(pid)
	if err != nil {
		return err
	}
	if err := t.describe(p, mods); err != nil {
		return err
	}
	// Symbols are read while the programs are still being loaded.
	if err := t.planModules(p, mods); err != nil {
		return err
	}
	if err := t.loaded(); err != nil {
		return err
	}
	// First: forks are followed from here on.
	if err := t.loader.AddProcess(pid, p.goid); err != nil {
		return err
	}
	if !alive(pid) { // if it is, its end will be reported
		return fmt.Errorf("pid %d: %w", pid, symbolizer.ErrNoProcess)
	}
	t.processes[pid] = p
	t.symbols.add(pid)
	return t.addModules(p, mods)
}

// describe finds out what matters of the process as a whole.
func (t *Tracer) describe(p *process, mods []mapped) error {
	info := uprobes.ModuleInfo{}
	for _, m := range mods {
		if m.Main {
			p.main = m.id
		}
		bin, err := m.open()
		if err != nil {
			continue // said when its functions are asked for
		}
		p.unwinds = p.unwinds || unwinds(&m, bin)
		if m.Main {
			if bin.File().Class != elf.ELFCLASS64 {
				bin.Close()
				return fmt.Errorf("pid %d: %w: %s is a 32-bit program", p.pid, ErrUntraceable, m.Path)
			}
			info = uprobes.ModuleInfo{Name: m.Path, Go: bin.IsGo(), GoModule: bin.GoModule, GoPackage: bin.GoPackage}
			if bin.IsGo() {
				p.goid = goidOffset(bin.GoVersion)
			}
		}
		bin.Close()
	}
	matcher, err := t.opt.Selector.Compile()
	if err != nil {
		return err
	}
	if t.opt.Selector.Empty() {
		matcher = matcher.WithDefault(info)
	}
	p.matcher = matcher
	if len(t.opt.USDT) > 0 {
		if p.usdt, err = uprobes.CompileUSDT(t.opt.USDT); err != nil {
			return err
		}
	}
	t.matchers = append(t.matchers, matcher)
	return nil
}

// planModules decides what to trace in the modules that are not known yet.
func (t *Tracer) planModules(p *process, mods []mapped) error {
	for _, m := range mods {
		if t.modules[m.id] != nil || p.done[m.id] {
			continue
		}
		known, err := t.planModule(p, m)
		if err != nil {
			if m.id == p.main {
				return err
			}
			t.note("%s is left out: %v", m.Name(), err)
			p.done[m.id] = true
			continue
		}
		t.modules[m.id] = known
	}
	return nil
}

// addModules attaches to the modules of p that were not looked at yet.
func (t *Tracer) addModules(p *process, mods []mapped) error {
	if err := t.planModules(p, mods); err != nil {
		return err
	}
	for _, m := range mods {
		if p.done[m.id] {
			continue
		}
		p.done[m.id] = true
		if err := t.attachModule(p, m); err != nil {
			if m.id == p.main || errors.Is(err, loader.ErrPermission) {
				return err
			}
			t.note("%s is left out: %v", m.Name(), err)
		}
	}
	return nil
}

// attachModule attaches to what was planned for one module of p.
func (t *Tracer) attachModule(p *process, m mapped) error {
	known := t.modules[m.id]
	if len(known.functions) == 0 || known.everyone {
		return nil
	}
	scope := p.pid
	if t.opt.Follow && m.id == p.main && !t.usedByOthers(m.id) {
		// Nobody else runs this program: probes for all who map the file
		// are in a child from its first instruction on.
		scope = 0
		known.everyone = true
	}
	if t.attached.IsZero() {
		t.attached = time.Now()
		t.cpu.update(t.processes)
	}
	path, err := m.openPath()
	if err == nil {
		err = t.loader.Attach(loader.Module{Path: path, PID: scope, Functions: known.functions})
	}
	if err != nil {
		known.everyone = false
		return err
	}
	return nil
}

// planModule finds the functions to trace in a module.
func (t *Tracer) planModule(p *process, m mapped) (*module, error) {
	functions := p.usdt == nil || !t.opt.Selector.Empty()
	wanted := functions && p.matcher.MatchModule(m.Path)
	mod := &module{id: m.id, name: m.Name()}
	if !wanted && p.usdt == nil {
		return mod, nil
	}
	bin, err := m.open()
	if err != nil {
		return nil, err
	}
	mod.bin = bin
	if wanted {
		if err := t.planFunctions(p, mod, m); err != nil {
			bin.Close()
			return nil, err
		}
	}
	if p.usdt != nil {
		if err := t.planStatic(p, mod, m); err != nil {
			bin.Close()
			return nil, err
		}
	}
	if len(mod.functions) > 0 {
		t.report.Modules++
	}
	return mod, nil
}

func (t *Tracer) planFunctions(p *process, mod *module, m mapped) error {
	found, err := Plan(mod.bin, m.Path, p.matcher, PlanOptions{
		Returns: t.opt.Returns, NeedArgs: t.opt.Level >= loader.LevelArgs, Unwinds: p.unwinds, Kernel: t.kernel,
	})
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return nil
	}
	descriptions := make([]trace.Func, 0, len(found))
	placed := found[:0]
	for _, c := range found {
		if c.Err != nil {
			t.report.Skipped = append(t.report.Skipped, c)
			continue
		}
		placed = append(placed, c)
		descriptions = append(descriptions, t.describeFunc(p, mod, m, &c.Function))
	}
	first := t.funcs.add(descriptions...)
	for i := range placed {
		c := &placed[i]
		id := first + trace.FuncID(i)
		mod.functions = append(mod.functions, loader.Function{ID: id, Probes: probes(&c.Function, c.Plan, t.opt.Level)})
		if t.governor != nil {
			w := watched{id: id, plan: uprobes.Plan{Entry: c.Plan.Entry}}
			if t.opt.Level > loader.LevelCount && len(c.Plan.Returns) > 0 {
				w.plan.Returns = c.Plan.Returns[:1:1]
			}
			t.unwatched = append(t.unwatched, w)
		}
	}
	t.report.Functions += len(placed)
	t.planGoExit(p, mod, m)
	return nil
}

func (t *Tracer) describeFunc(p *process, mod *module, m mapped, fn *symbolizer.Function) trace.Func {
	f := trace.Func{
		Name: fn.Name, Path: m.Path, BuildID: mod.bin.BuildID,
		Offset: fn.Offset, Size: fn.Size, Lang: fn.Lang.String(),
	}
	if m.id != p.main {
		f.Module = mod.name
	}
	return f
}

// planGoExit adds the probe that tells when a goroutine ends inside a call.
func (t *Tracer) planGoExit(p *process, mod *module, m mapped) {
	if m.id != p.main || p.goid == 0 || t.opt.Level < loader.LevelLatency {
		return
	}
	fns, err := mod.bin.Functions()
	if err != nil {
		return
	}
	i := slices.IndexFunc(fns, func(f symbolizer.Function) bool { return f.Symbol == "runtime.goexit1" || f.Name == "runtime.goexit1" })
	if i < 0 {
		return
	}
	plan, err := analyze(mod.bin, &fns[i], nil, PlanOptions{Returns: uprobes.ReturnNone, Kernel: t.kernel})
	if err != nil {
		return
	}
	id := t.funcs.add(t.describeFunc(p, mod, m, &fns[i]))
	t.internal[id] = true
	mod.functions = append(mod.functions, loader.Function{ID: id, Probes: []loader.Probe{{
		Program: loader.ProgramGoExit, Offset: plan.Entry.Offset, SPAdjust: uint64(plan.Entry.SPAdjust),
	}}})
}

// usedByOthers reports whether a process that is no target runs the program.
func (t *Tracer) usedByOthers(id fileID) bool {
	pids, err := symbolizer.Processes()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(pids, func(pid int) bool {
		return t.processes[uint32(pid)] == nil && exeID(pid) == id
	})
}

// forked attaches to a new child what is attached to its parent alone.
func (t *Tracer) forked(parent, child uint32) error {
	p := t.processes[parent]
	if p == nil || t.processes[child] != nil {
		return nil
	}
	if p.matcher == nil {
		t.processes[child] = &process{pid: child}
		return nil
	}
	c := *p
	c.pid = child
	c.done = make(map[fileID]bool)
	t.processes[child] = &c
	t.symbols.add(child)
	mods, err := mappedFiles(child)
	if errors.Is(err, symbolizer.ErrNoProcess) {
		return nil // it has ended already
	}
	if err != nil {
		return err
	}
	return endedMeanwhile(child, t.addModules(&c, mods))
}

// executed starts over with a process that runs another program now.
func (t *Tracer) executed(pid uint32) error {
	var err error
	if t.processes[pid] != nil {
		t.loader.RemoveProcess(pid)
		delete(t.processes, pid)
		err = t.addProcess(pid)
		if t.processes[pid] == nil {
			// Still one of ours: the next program that it executes may be
			// one that can be traced.
			t.processes[pid] = &process{pid: pid}
		}
	}
	if t.opt.StopOnExec {
		err = errors.Join(err, t.loader.Resume(pid))
	}
	return err
}

// mappedFile looks at what a process has mapped meanwhile.
func (t *Tracer) mappedFile(pid uint32) error {
	p := t.processes[pid]
	if p == nil || p.matcher == nil {
		return nil
	}
	mods, err := mappedFiles(pid)
	if err != nil {
		return nil // it ended; its end is reported by the kernel
	}
	before := t.report.Functions
	err = endedMeanwhile(pid, t.addModules(p, mods))
	if n := t.report.Functions - before; n > 0 {
		t.note("%s in libraries loaded since", count(n, "function"))
	}
	return err
}
