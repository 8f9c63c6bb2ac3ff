package tracer

import (
	"fmt"
	"path"
	"slices"

	"github.com/sbxtrace/sbxtrace/loader"
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
		plan.functions = append(plan.functions, loader.Function{
			ID: t.number(mod, []trace.Func{f})[0],
			Probes: []loader.Probe{{
				Program: staticProgram(sp), Offset: sp.Offset, RefCtrOffset: sp.SemaphoreOffset,
			}},
			USDT:      staticArgs(sp),
			Announced: derived && !sp.Derived && uprobes.CPythonFunctions.IsEntry(sp),
		})
	}
	return nil
}

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
