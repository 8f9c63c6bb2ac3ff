package tracer

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// ListOptions say what to list.
type ListOptions struct {
	Path     string   // an ELF file, or
	PIDs     []uint32 // processes: everything they have mapped
	Selector uprobes.Selector
	USDT     []string // static probes by pattern; empty: all, where Selector is zero
	Lines    bool     // look source lines up
	Inlined  bool     // look for functions that exist only inlined
}

// ListedModule is a file that functions are in.
type ListedModule struct {
	Name string // base name
	Path string // as given, or as the process sees it
	Main bool   // the program itself, not a library
}

// Listed is a function with what attach would do with it.
type Listed struct {
	Candidate
	Module *ListedModule
	File   string // source file, empty if unknown
	Line   int    // 0 if unknown
	CostNS uint32 // of a traced call, estimated; 0 if it cannot be probed
	// Unwinds: exceptions or panics may pass through frames of the program.
	Unwinds bool
}

// ListedStatic is a static probe, which may be at several places in the code.
type ListedStatic struct {
	Module *ListedModule
	Sites  []uprobes.StaticProbe // of the same provider and name, at least one
	CostNS uint32                // of a hit, estimated
}

// ListedInline is a function that has no code of its own.
type ListedInline struct {
	Name   string
	Module *ListedModule
	Sites  []symbolizer.InlineSite // where it was inlined, at least one
}

// Listing is what List found.
type Listing struct {
	Functions []Listed // by module, in the order of their addresses
	Static    []ListedStatic
	Inlined   []ListedInline // with ListOptions.Inlined
	// The default selection leaves out LeftOut functions: of the toolchain and
	// the standard library in the program itself, and of its libraries.
	LeftOut   int
	Libraries int
	// Notes are what the user should know: patterns that match nothing while
	// others do, modules that cannot be read.
	Notes []error
}

// Probeable counts the functions that can be probed.
func (l *Listing) Probeable() int {
	n := 0
	for i := range l.Functions {
		if l.Functions[i].Err == nil {
			n++
		}
	}
	return n
}

// lister is the state of List.
type lister struct {
	o      ListOptions
	cost   uprobes.CostModel
	kernel loader.KernelVersion
	usdt   *uprobes.USDTMatcher // nil: no static probes
	out    *Listing
	seen   map[fileID]bool
	match  []*uprobes.Matcher // of each program
	names  catalog
}

// List tells what attach would trace with the same selectors, and where it
// would put the probes. It needs no privileges but to read the files. It fails
// with a *uprobes.NoMatchError when a pattern fits nothing,
// symbolizer.ErrNotELF or ErrMalformed for a bad file, symbolizer.ErrNoProcess
// for a missing process, and loader.ErrPermission for one that may not be
// looked into.
func List(o ListOptions) (*Listing, error) {
	kernel, _, err := loader.RunningKernel()
	if err != nil {
		return nil, err
	}
	l := &lister{o: o, cost: costModel(), kernel: kernel, out: new(Listing), seen: make(map[fileID]bool)}
	// Whoever names functions does not ask for static probes.
	patterns := o.USDT
	if len(patterns) == 0 && o.Selector.Empty() {
		patterns = []string{"*"}
	}
	if len(patterns) > 0 {
		if l.usdt, err = uprobes.CompileUSDT(patterns); err != nil {
			return nil, err
		}
	}
	if o.Path != "" {
		if err := l.file(o.Path); err != nil {
			return nil, err
		}
	}
	for _, pid := range o.PIDs {
		if err := l.process(pid); err != nil {
			return nil, err
		}
	}
	return l.out, l.unmatched()
}

// file lists the file at path, of which it is not known who maps it.
func (l *lister) file(path string) error {
	bin, err := symbolizer.OpenCached(path)
	if err != nil {
		return err
	}
	defer bin.Close()
	m, err := l.matcher(bin, path)
	if err != nil {
		return err
	}
	self := &mapped{Module: symbolizer.Module{Path: path, Main: true}}
	return l.module(bin, self, m, unwinds(self, bin))
}

// matcher is for the program bin and what it maps.
func (l *lister) matcher(bin *symbolizer.Binary, path string) (*uprobes.Matcher, error) {
	m, err := l.o.Selector.Compile()
	if err != nil {
		return nil, err
	}
	if l.o.Selector.Empty() {
		m = m.WithDefault(uprobes.ModuleInfo{Name: path, Go: bin.IsGo(), GoModule: bin.GoModule, GoPackage: bin.GoPackage})
	}
	l.match = append(l.match, m)
	return m, nil
}

// process lists what a process has mapped and what no other one had before.
func (l *lister) process(pid uint32) error {
	mods, err := targetFiles(pid)
	if err != nil {
		return err
	}
	var m *uprobes.Matcher
	raises := false
	bins := make([]*symbolizer.Binary, len(mods))
	defer func() {
		for _, b := range bins {
			if b != nil {
				b.Close()
			}
		}
	}()
	for i := range mods {
		bin, err := mods[i].open()
		if err != nil {
			if mods[i].Main {
				return err
			}
			if !errors.Is(err, symbolizer.ErrNotELF) { // files of data are mapped too
				l.out.Notes = append(l.out.Notes, fmt.Errorf("%s is left out: %w", mods[i].Name(), err))
			}
			continue
		}
		bins[i] = bin
		raises = raises || unwinds(&mods[i], bin)
		if mods[i].Main {
			if m, err = l.matcher(bin, mods[i].Path); err != nil {
				return err
			}
		}
	}
	if m == nil {
		return fmt.Errorf("pid %d: %w: its program cannot be found", pid, ErrUntraceable)
	}
	for i := range mods {
		if bins[i] == nil || l.seen[mods[i].id] {
			continue
		}
		l.seen[mods[i].id] = true
		if err := l.module(bins[i], &mods[i], m, raises); err != nil {
			return err
		}
	}
	return nil
}

// module lists one file.
func (l *lister) module(bin *symbolizer.Binary, file *mapped, m *uprobes.Matcher, raises bool) error {
	mod := &ListedModule{Name: filepath.Base(file.Path), Path: file.Path, Main: file.Main}
	l.names.modules = append(l.names.modules, mod.Name)
	onlyStatic := len(l.o.USDT) > 0 && l.o.Selector.Empty()
	switch {
	case onlyStatic:
	case m.MatchModule(file.Path):
		if err := l.functions(bin, mod, m, raises); err != nil {
			return err
		}
	case l.o.Selector.Empty():
		fns, _ := bin.Functions() // what cannot be read is not there to be traced either
		l.out.LeftOut += len(fns)
		l.out.Libraries++
	}
	if l.usdt == nil {
		return nil
	}
	return l.static(bin, mod)
}

func (l *lister) functions(bin *symbolizer.Binary, mod *ListedModule, m *uprobes.Matcher, raises bool) error {
	found, err := Plan(bin, mod.Path, m, PlanOptions{Unwinds: raises, Kernel: l.kernel})
	if err != nil {
		return err
	}
	all, err := bin.Functions()
	if err != nil {
		return err
	}
	l.names.functions = append(l.names.functions, all)
	if l.o.Selector.Empty() {
		l.out.LeftOut += len(all) - len(found)
	}
	first := len(l.out.Functions)
	for i := range found {
		f := Listed{Candidate: found[i], Module: mod, Unwinds: raises}
		if f.Err == nil {
			f.CostNS = l.cost.EstimateCall(f.Plan)
		}
		l.out.Functions = append(l.out.Functions, f)
	}
	if l.o.Lines {
		lookUpLines(bin, l.out.Functions[first:])
	}
	if l.o.Inlined {
		l.out.Inlined = append(l.out.Inlined, onlyInlined(bin, mod, m, all)...)
	}
	return nil
}

// lookUpLines fills in source lines, on all CPUs.
func lookUpLines(bin *symbolizer.Binary, fns []Listed) {
	const batch = 256
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				from := int(next.Add(batch)) - batch
				if from >= len(fns) {
					return
				}
				for i := from; i < min(from+batch, len(fns)); i++ {
					// The first instruction may be of something inlined: the
					// outermost frame is the function's own.
					if frames := bin.Inlines(fns[i].Function.Addr); len(frames) > 0 {
						fns[i].File, fns[i].Line = frames[len(frames)-1].File, frames[len(frames)-1].Line
					}
				}
			}
		})
	}
	wg.Wait()
}

// static adds the static probes of a file, those of one name together.
func (l *lister) static(bin *symbolizer.Binary, mod *ListedModule) error {
	probes, err := uprobes.StaticProbes(bin.File(), nil)
	if err != nil {
		return fmt.Errorf("read the static probes of %s: %w", mod.Name, err)
	}
	l.names.static = append(l.names.static, probes...)
	byID := make(map[string]int)
	first := len(l.out.Static)
	for i := range probes {
		p := &probes[i]
		if !l.usdt.Match(p, mod.Path) {
			continue
		}
		at, ok := byID[p.ID()]
		if !ok {
			at = len(l.out.Static)
			byID[p.ID()] = at
			// The probe is a nop of one byte, which every kernel emulates.
			cost := l.cost.Estimate(uprobes.Site{Role: uprobes.RoleUSDT, Class: uprobes.Emulated})
			l.out.Static = append(l.out.Static, ListedStatic{Module: mod, CostNS: cost})
		}
		l.out.Static[at].Sites = append(l.out.Static[at].Sites, *p)
	}
	slices.SortFunc(l.out.Static[first:], func(a, b ListedStatic) int {
		return cmp.Compare(a.Sites[0].ID(), b.Sites[0].ID())
	})
	return nil
}
