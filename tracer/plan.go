package tracer

import (
	"errors"
	"fmt"
	"runtime"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// Candidate is a function of a module with the decision on how to probe it.
type Candidate struct {
	Function symbolizer.Function
	Plan     *uprobes.Plan // nil when it cannot be probed
	Err      error         // why not; wraps uprobes.ErrNotProbeable or uprobes.ErrUnsafe
}

// PlanOptions say how functions are placed.
type PlanOptions struct {
	Returns  uprobes.ReturnMethod
	NeedArgs bool
	// Unwinds: exceptions, panics or coroutines may leave frames of the process.
	Unwinds bool
	// Kernel's release, which decides what is emulated. Zero: the oldest.
	Kernel loader.KernelVersion
}

// Plan selects the functions of a binary that match and places their probes,
// in the order of their addresses. module is the name that selectors see.
func Plan(bin *symbolizer.Binary, module string, m *uprobes.Matcher, o PlanOptions) ([]Candidate, error) {
	fns, err := bin.Functions()
	if err != nil {
		return nil, fmt.Errorf("read the functions of %s: %w", module, err)
	}
	var out []Candidate
	for i := range fns {
		fn := &fns[i]
		file := func() string {
			f, _ := bin.Line(fn.Addr)
			return f
		}
		if m.Match(fn, module, file) {
			out = append(out, Candidate{Function: *fn})
		}
	}
	place(bin, fns, out, o)
	return out, nil
}

// place analyses the code of the candidates on all CPUs.
func place(bin *symbolizer.Binary, all []symbolizer.Function, out []Candidate, o PlanOptions) {
	code := layout(all)
	var next atomic.Int64
	var wg sync.WaitGroup
	const batch = 64
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				from := int(next.Add(batch)) - batch
				if from >= len(out) {
					return
				}
				for i := from; i < min(from+batch, len(out)); i++ {
					out[i].Plan, out[i].Err = analyze(bin, &out[i].Function, code, o)
				}
			}
		})
	}
	wg.Wait()
}

// layout is the functions of a file by address.
type layout []symbolizer.Function

// find returns the function that the code at addr belongs to, nil for none.
func (l layout) find(addr uint64) *symbolizer.Function {
	i := sort.Search(len(l), func(i int) bool { return l[i].Addr > addr })
	if i == 0 || addr-l[i-1].Addr >= max(l[i-1].Size, 1) {
		return nil
	}
	return &l[i-1]
}

// part returns the part of fn, split off by the compiler, that addr lies in.
func (l layout) part(fn *symbolizer.Function, addr uint64) *symbolizer.Function {
	f := l.find(addr)
	if f == nil || !f.Fragment || f.Symbol != "" && fn.Symbol != "" && baseName(f.Symbol) != baseName(fn.Symbol) {
		return nil
	}
	return f
}

// PlanFunction places the probes of one function of a binary. Errors wrap
// uprobes.ErrNotProbeable or uprobes.ErrUnsafe.
func PlanFunction(bin *symbolizer.Binary, fn *symbolizer.Function, o PlanOptions) (*uprobes.Plan, error) {
	fns, err := bin.Functions()
	if err != nil {
		return nil, err
	}
	return analyze(bin, fn, layout(fns), o)
}

func analyze(bin *symbolizer.Binary, fn *symbolizer.Function, all layout, o PlanOptions) (*uprobes.Plan, error) {
	if fn.IFunc {
		return nil, fmt.Errorf("%s: %w: it only chooses between implementations (IFUNC) and runs once, when it is bound", fn.Name, uprobes.ErrNotProbeable)
	}
	code, err := bin.Code(fn)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", uprobes.ErrNotProbeable, err)
	}
	opt := uprobes.Options{
		ReturnMethod:      o.Returns,
		Unwinds:           o.Unwinds,
		NeedArgs:          o.NeedArgs,
		EmulatedNops:      o.Kernel.AtLeast(6, 16),
		Optimized5ByteNop: o.Kernel.AtLeast(6, 18),
		SameFunction:      func(addr uint64) bool { return all.part(fn, addr) != nil },
		OtherEntry: func(addr uint64) bool {
			f := all.find(addr)
			return f != nil && f.Addr == addr && addr != fn.Addr
		},
	}
	plan, err := uprobes.Analyze(bin.Arch, code, *fn, opt)
	if err != nil {
		return nil, err
	}
	for _, addr := range plan.Parts {
		part := all.part(fn, addr)
		if part == nil {
			continue
		}
		if code, err := bin.Code(part); err != nil || !plan.AddPart(bin.Arch, code, *part) {
			plan.Warnings = append(plan.Warnings, "returns from "+part.Name+" are not observed")
		}
	}
	return plan, nil
}

// baseName is a symbol without what compilers append to parts and clones of a
// function: f.cold, f.part.0, f.constprop.0, f.isra.0.
func baseName(symbol string) string {
	if i := strings.IndexByte(symbol, '.'); i > 0 {
		for _, s := range []string{".cold", ".part.", ".constprop.", ".isra.", ".lto_priv."} {
			if strings.HasPrefix(symbol[i:], s) {
				return symbol[:i]
			}
		}
	}
	return symbol
}

// probes translates a plan for the loader.
func probes(fn *symbolizer.Function, p *uprobes.Plan, level loader.Level) []loader.Probe {
	golang := fn.Lang == symbolizer.LangGo
	hooked := len(p.Returns) > 0 && p.Returns[0].Role == uprobes.RoleReturn
	// Where every tail jump is a site, a call that jumped has ended: nothing
	// at its stack pointer can be called by it.
	common := loader.Probe{TailJumps: p.TailJumps && !p.TailSites, Hooked: hooked, ABI0: fn.ABI0}

	entry := common
	entry.Program = loader.ProgramEntry
	if golang {
		entry.Program = loader.ProgramGoEntry
	}
	entry.Offset, entry.SPAdjust = p.Entry.Offset, uint64(p.Entry.SPAdjust)
	out := []loader.Probe{entry}
	if level == loader.LevelCount {
		return out
	}
	for _, s := range p.Returns {
		ret := common
		ret.Offset, ret.SPAdjust = s.Offset, uint64(s.SPAdjust)
		ret.Tail, ret.Condition = s.Role == uprobes.RoleTail, uint8(s.Condition)
		switch {
		case s.Role == uprobes.RoleReturn:
			ret.Program = loader.ProgramReturn
		case golang:
			ret.Program = loader.ProgramGoRet
		default:
			ret.Program = loader.ProgramRet
		}
		out = append(out, ret)
	}
	return out
}

// ErrNoFunctions says that nothing of what was asked for can be probed.
var ErrNoFunctions = errors.New("no function to trace")
