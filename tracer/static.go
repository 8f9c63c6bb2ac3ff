package tracer

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// planStatic adds the static probes of a module that are asked for.
func (t *Tracer) planStatic(p *process, mod *module, m mapped, plan *modulePlan) error {
	probes, err := uprobes.StaticProbes(mod.bin.File(), nil)
	if err != nil {
		return err
	}
	derived := slices.ContainsFunc(probes, func(sp uprobes.StaticProbe) bool { return sp.Derived })
	names := make(map[string]bool)
	var python []trace.FuncID
	for i := range probes {
		sp := &probes[i]
		if !p.usdt.Match(sp, m.Path) {
			continue
		}
		if sp.Err != nil {
			t.note("%s: %v", sp.ID(), sp.Err)
			continue
		}
		f := trace.Func{Name: sp.ID(), Path: m.Path, BuildID: mod.bin.BuildID, Offset: sp.Offset, Lang: trace.LangStatic}
		if m.id != p.main {
			f.Module = mod.name
		}
		id := t.number(mod, []trace.Func{f})[0]
		names[f.Name] = true
		if uprobes.CPythonFunctions.IsEntry(sp) || uprobes.CPythonFunctions.IsReturn(sp) {
			python = append(python, id)
		}
		plan.functions = append(plan.functions, loader.Function{
			ID: id,
			Probes: []loader.Probe{{
				Program: staticProgram(sp), Offset: sp.Offset, RefCtrOffset: sp.SemaphoreOffset,
			}},
			USDT:      staticArgs(sp),
			Announced: derived && !sp.Derived && uprobes.CPythonFunctions.IsEntry(sp),
		})
		if t.governor != nil {
			// The site is a nop, or an instruction that was chosen to be one that
			// the kernel emulates.
			plan.costs = append(plan.costs, watched{id: id, plan: uprobes.Plan{Entry: uprobes.Site{Role: uprobes.RoleUSDT, Class: uprobes.Emulated}}})
		}
	}
	if len(mod.plans) == 0 {
		t.report.Static += len(names)
	}
	for _, id := range python {
		t.together[id] = python
	}
	return nil
}

// isPython reports whether a program is CPython that announces the calls of
// Python functions, or one of its libraries does.
func isPython(m *mapped, bin *symbolizer.Binary) bool {
	if name := m.Name(); !strings.HasPrefix(name, "python") && !strings.HasPrefix(name, "libpython") {
		return false
	}
	probes, err := uprobes.StaticProbes(bin.File(), nil)
	if err != nil {
		return false
	}
	entry, leave := false, false
	for i := range probes {
		entry = entry || uprobes.CPythonFunctions.IsEntry(&probes[i]) && probes[i].Err == nil
		leave = leave || uprobes.CPythonFunctions.IsReturn(&probes[i]) && probes[i].Err == nil
	}
	return entry && leave
}

// pythonFunctions are the static probes that stand for Python functions.
var pythonFunctions = []string{
	uprobes.CPythonFunctions.Provider + ":" + uprobes.CPythonFunctions.Entry,
	uprobes.CPythonFunctions.Provider + ":" + uprobes.CPythonFunctions.Return,
}

// StandsForPython reports whether a static probe, "provider:name", is one of
// those that the calls of Python functions are made of.
func StandsForPython(name string) bool { return slices.Contains(pythonFunctions, name) }

// staticProgram picks the program for a static probe: CPython's function
// probes make calls, others are events.
func staticProgram(p *uprobes.StaticProbe) loader.Program {
	switch {
	case uprobes.CPythonFunctions.IsEntry(p):
		return loader.ProgramPythonEntry
	case uprobes.CPythonFunctions.IsReturn(p):
		return loader.ProgramPythonReturn
	}
	return loader.ProgramUSDT
}

// staticArgs are the recipes for the arguments of a static probe.
func staticArgs(p *uprobes.StaticProbe) []loader.USDTArg {
	args := make([]loader.USDTArg, len(p.Args))
	for i := range p.Args {
		s := &p.Args[i].Spec
		args[i] = loader.USDTArg{
			ValOff: s.ValOff, RegOff: s.RegOff, IdxRegOff: s.IdxRegOff,
			Kind: uint8(s.Kind), Size: s.Size, Flags: uint8(s.Flags), Shift: s.Shift,
		}
	}
	return args
}

// internPython numbers a Python function that was first seen in an event. Its
// name says where it is defined: short names recur in every module.
func (t *Tracer) internPython(f loader.PythonFunc) trace.FuncID {
	name := f.Name
	if f.File != "" {
		name = fmt.Sprintf("%s (%s:%d)", f.Name, path.Base(f.File), f.Line)
	}
	return t.funcs.add(trace.Func{Name: name, File: f.File, Line: f.Line, Path: f.File, Lang: "python"})
}
