package uprobes

import (
	"cmp"
	"debug/elf"
	"slices"
	"strings"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

func sortOffsets(offs []int32) { slices.Sort(offs) }

// chooseReturns decides how returns of fn are observed and whether that is
// possible at all.
func chooseReturns(p *Plan, fn *symbolizer.Function, opt *Options, b *body) (ReturnMethod, error) {
	isGo := fn.Lang == symbolizer.LangGo
	method := opt.ReturnMethod
	switch {
	case method == ReturnNone:
		return ReturnNone, nil
	case p.NoReturn:
		return ReturnNone, nil
	}
	if reason := returnsOddly(fn); reason != "" {
		p.warn("returns are not observed: %s", reason)
		return ReturnNone, nil
	}
	if b.switchesStack {
		p.warn("returns are not observed: the function switches stacks")
		return ReturnNone, nil
	}
	if method == ReturnAuto {
		method = ReturnUretprobe
		leaf := !b.calls && !b.tailJumps && len(b.parts) == 0
		if isGo || opt.Unwinds && !leaf || b.readsReturnAddr || strings.HasPrefix(fn.Symbol, "Builtins_") {
			// V8 walks the stack of its builtins when it collects garbage.
			method = ReturnRet
		}
	}
	switch method {
	case ReturnRet:
		return retMethod(p, fn, opt, b, isGo)
	case ReturnUretprobe:
		if opt.Unwinds && (b.calls || b.tailJumps) {
			p.warn("an exception that passes a return probe aborts the process")
		}
		if b.readsReturnAddr {
			p.warn("the function reads its return address, which a return probe replaces")
		}
	}
	return method, nil
}

// retMethod checks that probes on RET instructions can stand for the returns.
func retMethod(p *Plan, fn *symbolizer.Function, opt *Options, b *body, isGo bool) (ReturnMethod, error) {
	switch {
	case b.retGuarded:
		p.warn("returns are not observed: the kernel refuses probes on authenticated returns")
		return ReturnNone, nil
	case b.complete():
		if b.mixed {
			p.warn("data among the code: %d RET instructions proven by flow of control", len(b.rets))
		}
	case isGo:
		return 0, notProbeable(fn, b.problem)
	case !opt.Unwinds && opt.ReturnMethod == ReturnAuto && !b.readsReturnAddr:
		return ReturnUretprobe, nil
	default:
		p.warn("%s: only %d RET instructions proven", b.problem, len(b.rets))
	}
	return ReturnRet, nil
}

// returnSites makes the sites for method.
func (b *body) returnSites(method ReturnMethod, fn *symbolizer.Function, entry *Site) []Site {
	switch method {
	case ReturnUretprobe:
		return []Site{{Offset: entry.Offset, Role: RoleReturn, Class: entry.Class, Reason: "return probe"}}
	case ReturnRet:
		sites := make([]Site, 0, len(b.rets)+len(b.tails))
		for _, off := range b.rets {
			sites = append(sites, Site{Offset: fn.Offset + uint64(off), Role: RoleRet, Class: b.retClass, Reason: "ret, " + b.retClass.String()})
		}
		for _, t := range b.tails {
			sites = append(sites, Site{
				Offset: fn.Offset + uint64(t.off), Role: RoleTail, Class: t.class, Condition: t.cond,
				Reason: "tail jump, " + t.class.String(),
			})
		}
		slices.SortFunc(sites, func(a, b Site) int { return cmp.Compare(a.Offset, b.Offset) })
		return sites
	}
	return nil
}

// AddPart adds the RET instructions of another part of the planned function to
// Returns: fn is the fragment that one of Parts lies in, code its bytes. It does
// nothing if returns are not observed at RET instructions, and reports whether
// the part is understood entirely. A part shared by functions belongs to none.
func (p *Plan) AddPart(arch elf.Machine, code []byte, fn symbolizer.Function) bool {
	if !fn.Fragment || fn.Size < uint64(len(code)) || len(code) == 0 || len(code) > maxCodeSize {
		return false
	}
	if p.method != ReturnRet {
		return true
	}
	scan, _, ok := forMachine(arch)
	if !ok {
		return false
	}
	s := scratchPool.Get().(*scratch)
	defer scratchPool.Put(s)
	s.reset(len(code))
	b := scan(code, &fn, &Options{}, s)
	if b.mixed || !b.complete() || b.retGuarded {
		return false
	}
	b.tails = nil // how deep the stack is in a part is not known
	p.Returns = append(p.Returns, b.returnSites(ReturnRet, &fn, &p.Entry)...)
	slices.SortFunc(p.Returns, func(a, b Site) int { return cmp.Compare(a.Offset, b.Offset) })
	p.Returns = slices.Compact(p.Returns)
	return true
}
