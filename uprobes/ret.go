package uprobes

import (
	"slices"

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
		leaf := !b.calls && !b.tailJumps && !b.split
		if isGo || opt.Unwinds && !leaf || b.readsReturnAddr {
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
		if !isGo && !opt.Unwinds && opt.ReturnMethod == ReturnAuto {
			return ReturnUretprobe, nil
		}
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
	if b.split {
		p.warn("parts of the function lie elsewhere: returns from there are seen late")
	}
	if len(b.rets) == 0 {
		return ReturnNone, nil
	}
	return ReturnRet, nil
}

// returnSites makes the sites for method.
func (b *body) returnSites(method ReturnMethod, fn *symbolizer.Function, entry *Site) []Site {
	switch method {
	case ReturnUretprobe:
		return []Site{{Offset: entry.Offset, Role: RoleReturn, Class: entry.Class, Reason: "return probe"}}
	case ReturnRet:
		sites := make([]Site, len(b.rets))
		for i, off := range b.rets {
			sites[i] = Site{Offset: fn.Offset + uint64(off), Role: RoleRet, Class: b.retClass, Reason: "ret, " + b.retClass.String()}
		}
		return sites
	}
	return nil
}
