package tracer

import (
	"errors"
	"slices"
	"time"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// module is a file with functions that are traced, in whatever processes.
type module struct {
	id       fileID
	name     string
	contents contents // of the file when it was looked at
	bin      *symbolizer.Binary
	plans    map[planKind]*modulePlan
	ids      map[probedAt]trace.FuncID // the same function is the same in all plans
	scopes   map[uint32]planKind       // what it is attached to, and how: everyone, or processes
}

// everyone is the scope of probes that are attached for all who map a file.
const everyone = 0

// planKind says for what kind of process the functions of a module were picked
// and their probes placed.
type planKind struct {
	main    bool // it is the process's program
	unwinds bool // return probes would be in the way
}

// modulePlan is what to trace in a module.
type modulePlan struct {
	functions []loader.Function
	costs     []watched
}

// probedAt tells the functions and static probes of a module apart.
type probedAt struct {
	offset uint64
	name   string
}

// kind is the kind of plan that p needs for a module.
func (p *process) kind(id fileID) planKind {
	return planKind{main: id == p.main, unwinds: p.unwinds}
}

// planModules decides what to trace in the modules of p, as far as that is not
// known yet.
func (t *Tracer) planModules(p *process, mods []mapped) error {
	if err := t.forgetOverwritten(mods); err != nil {
		return err
	}
	for _, m := range mods {
		if p.done[m.id] {
			continue
		}
		if _, err := t.planModule(p, m, p.kind(m.id)); err != nil {
			if m.id == p.main {
				return err
			}
			t.note("%s is left out: %v", m.Name(), err)
			p.done[m.id] = true
		}
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

// attachModule attaches to what was planned for one module of p, unless p is
// served by what is attached for everyone.
func (t *Tracer) attachModule(p *process, m mapped) error {
	kind, scope := p.kind(m.id), p.pid
	known := t.modules[m.id]
	if _, served := known.scopes[everyone]; served {
		return t.replan(p, m, everyone)
	}
	if m.id == p.main {
		if err := t.tellApart(p, known); err != nil {
			return err
		}
	}
	if t.opt.Follow && m.id == p.main && !p.own && len(known.scopes) == 0 && !t.usedByOthers(p) {
		// Nobody else runs this program: probes for all who map the file
		// are in a child from its first instruction on.
		scope = everyone
		for _, other := range t.processes {
			kind.unwinds = kind.unwinds || other.main == m.id && other.unwinds
		}
	}
	plan, err := t.planModule(p, m, kind)
	if err != nil || len(plan.functions) == 0 {
		return err
	}
	if t.attached.IsZero() {
		t.attached = time.Now()
		t.cpu.update(t.processes)
	}
	path, err := m.openPath()
	if err != nil {
		return err
	}
	t.noteSlow(known, plan.functions)
	if err := t.loader.Attach(loader.Module{Path: path, PID: scope, Functions: t.left(plan.functions)}); err != nil {
		return err
	}
	known.scopes[scope] = kind
	t.unwatched = append(t.unwatched, plan.costs...)
	if scope == everyone {
		t.watchOverwrite(known, path)
	}
	return nil
}

// noteSlow warns of what the kernel will take its time for: without uprobe_multi
// it takes probes out one after the other, up to a quarter of a second each.
func (t *Tracer) noteSlow(m *module, functions []loader.Function) {
	const many = 200
	n := 0
	for i := range functions {
		n += len(functions[i].Probes)
	}
	if n > many && !t.loader.Multi() {
		t.note("%d probes go into %s one by one, for want of uprobe_multi links: the kernel may take minutes to take them out again; select fewer functions", n, m.name)
	}
}

// tellApart makes sure that a process is not served twice when a file has
// several identities, as a layer that is part of several overlay mounts does:
// probes that everyone has whose program may be this one are not for p.
func (t *Tracer) tellApart(p *process, program *module) error {
	for _, m := range t.modules {
		if _, served := m.scopes[everyone]; served && m != program && m.mayBe(program) {
			p.own = true
			return t.loader.AddProcess(p.about())
		}
	}
	return nil
}

// mayBe reports whether two modules may be the same file.
func (m *module) mayBe(other *module) bool {
	if m.id.inode == other.id.inode {
		return true
	}
	return m.bin != nil && other.bin != nil && m.bin.BuildID != "" && m.bin.BuildID == other.bin.BuildID
}

// left are the functions that the governor has not taken out.
func (t *Tracer) left(all []loader.Function) []loader.Function {
	gone := func(f loader.Function) bool { return t.gone[f.ID] }
	if len(t.gone) == 0 || !slices.ContainsFunc(all, gone) {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), gone)
}

// usedByOthers reports whether a process that is no target runs p's program.
func (t *Tracer) usedByOthers(p *process) bool {
	pids, err := symbolizer.Processes()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(pids, func(pid int) bool {
		return t.processes[uint32(pid)] == nil && exeID(pid) == p.exe
	})
}

// beware looks whether a module that p has mapped meanwhile makes return probes
// dangerous to it, and if so takes them out in favour of other sites.
func (t *Tracer) beware(p *process, mods []mapped) error {
	for i := 0; i < len(mods) && !p.unwinds; i++ {
		m := &mods[i]
		if p.done[m.id] {
			continue
		}
		bin, err := m.open()
		if err != nil {
			continue // said when its functions are asked for
		}
		p.unwinds = unwinds(m, bin)
		bin.Close()
		if !p.unwinds {
			continue
		}
		var errs []error
		for _, m := range mods {
			if p.done[m.id] {
				errs = append(errs, t.replan(p, m, p.pid), t.replan(p, m, everyone))
			}
		}
		return errors.Join(errs...)
	}
	return nil
}

// replan moves the probes of a module in a scope that serves p to where they
// suit p too.
func (t *Tracer) replan(p *process, m mapped, scope uint32) error {
	known := t.modules[m.id]
	if known == nil {
		return nil // it was left out
	}
	kind, attached := known.scopes[scope]
	if !attached || kind.unwinds || !p.unwinds {
		return nil
	}
	before := known.plans[kind]
	kind.unwinds = true
	plan, err := t.planModule(p, m, kind)
	if err != nil {
		return err
	}
	change := slices.Clone(plan.functions)
	for _, f := range before.functions {
		if !slices.ContainsFunc(plan.functions, func(g loader.Function) bool { return g.ID == f.ID }) {
			change = append(change, loader.Function{ID: f.ID}) // no place for a probe is safe
		}
	}
	if err := t.loader.Change(scope, change); err != nil {
		return err
	}
	known.scopes[scope] = kind
	t.unwatched = append(t.unwatched, plan.costs...)
	return nil
}

// planModule finds the functions to trace in a module, for one kind of process.
func (t *Tracer) planModule(p *process, m mapped, kind planKind) (*modulePlan, error) {
	known := t.modules[m.id]
	if known == nil {
		known = &module{
			id: m.id, name: m.Name(), plans: make(map[planKind]*modulePlan),
			ids: make(map[probedAt]trace.FuncID), scopes: make(map[uint32]planKind),
		}
		if path, err := m.openPath(); err == nil {
			known.contents = contentsOf(path)
		}
	}
	if plan := known.plans[kind]; plan != nil {
		return plan, nil
	}
	plan := new(modulePlan)
	functions := p.usdt == nil || !t.opt.Selector.Empty()
	if wanted := functions && p.matcher.MatchModule(m.Path); wanted || p.usdt != nil {
		if known.bin == nil {
			bin, err := m.open()
			if err != nil {
				return nil, err
			}
			known.bin = bin
		}
		before := len(known.ids)
		if err := t.fillPlan(p, known, m, kind, plan, wanted); err != nil {
			if len(known.plans) == 0 {
				known.bin.Close()
			}
			return nil, err
		}
		if before == 0 && len(known.ids) > 0 {
			t.report.Modules++
		}
	}
	known.plans[kind] = plan
	t.modules[m.id] = known
	return plan, nil
}

func (t *Tracer) fillPlan(p *process, mod *module, m mapped, kind planKind, plan *modulePlan, functions bool) error {
	if functions {
		if err := t.planFunctions(p, mod, m, kind, plan); err != nil {
			return err
		}
	}
	if p.usdt != nil {
		return t.planStatic(p, mod, m, plan)
	}
	return nil
}

func (t *Tracer) planFunctions(p *process, mod *module, m mapped, kind planKind, plan *modulePlan) error {
	found, err := Plan(mod.bin, m.Path, p.matcher, PlanOptions{
		Returns: t.opt.Returns, NeedArgs: t.opt.Level >= loader.LevelArgs, Unwinds: kind.unwinds, Kernel: t.kernel,
	})
	if err != nil {
		return err
	}
	first := len(mod.plans) == 0
	placed := found[:0]
	var fns []trace.Func
	for _, c := range found {
		if c.Err == nil {
			placed = append(placed, c)
			fns = append(fns, t.describeFunc(p, mod, m, &c.Function))
		} else if first {
			t.report.Skipped = append(t.report.Skipped, c)
		}
	}
	if len(placed) == 0 {
		return nil
	}
	ids := t.number(mod, fns)
	for i := range placed {
		c := &placed[i]
		plan.functions = append(plan.functions, loader.Function{ID: ids[i], Probes: probes(&c.Function, c.Plan, t.opt.Level)})
		if t.governor != nil {
			w := watched{id: ids[i], size: c.Function.Size, plan: uprobes.Plan{Entry: c.Plan.Entry}}
			if t.opt.Level > loader.LevelCount && len(c.Plan.Returns) > 0 {
				w.plan.Returns = c.Plan.Returns[:1:1]
			}
			plan.costs = append(plan.costs, w)
		}
	}
	t.planGoExit(p, mod, m, plan)
	return nil
}

// number gives functions of a module their ids: those that they have from
// another plan, new ones to the rest.
func (t *Tracer) number(mod *module, fns []trace.Func) []trace.FuncID {
	ids := make([]trace.FuncID, len(fns))
	var fresh []trace.Func
	var at []int
	for i := range fns {
		id, ok := mod.ids[probedAt{fns[i].Offset, fns[i].Name}]
		if ids[i] = id; !ok {
			fresh, at = append(fresh, fns[i]), append(at, i)
		}
	}
	first := t.funcs.add(fresh...)
	for n, i := range at {
		ids[i] = first + trace.FuncID(n)
		mod.ids[probedAt{fns[i].Offset, fns[i].Name}] = ids[i]
	}
	if len(fns) > 0 && fns[0].Lang != trace.LangStatic {
		t.report.Functions += len(fresh)
	}
	return ids
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
func (t *Tracer) planGoExit(p *process, mod *module, m mapped, plan *modulePlan) {
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
	site, err := analyze(mod.bin, &fns[i], nil, PlanOptions{Returns: uprobes.ReturnNone, Kernel: t.kernel})
	if err != nil {
		return
	}
	// Not one of the user's functions, even where those have it too.
	id := t.funcs.add(t.describeFunc(p, mod, m, &fns[i]))
	t.internal[id] = true
	plan.functions = append(plan.functions, loader.Function{ID: id, Probes: []loader.Probe{{
		Program: loader.ProgramGoExit, Offset: site.Entry.Offset, SPAdjust: uint64(site.Entry.SPAdjust),
	}}})
}
