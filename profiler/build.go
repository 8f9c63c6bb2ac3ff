package profiler

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
)

// mapping is a part of a module in the profile.
type mapping struct {
	*profile.Mapping
	unnamed bool // something in it has no name
}

// count and nanoseconds are units of values.
const (
	count       = "count"
	nanoseconds = "nanoseconds"
)

// eventTypes are the types of the values of each event's samples.
var eventTypes = map[loader.SampleEvent][]profile.ValueType{
	loader.SampleCPU:    {{Type: "samples", Unit: count}, {Type: "cpu", Unit: nanoseconds}},
	loader.SampleOffCPU: {{Type: "samples", Unit: count}, {Type: "off-cpu", Unit: nanoseconds}},
	loader.SampleLock:   {{Type: "samples", Unit: count}, {Type: "delay", Unit: nanoseconds}},
	loader.SampleWall:   {{Type: "samples", Unit: count}, {Type: "wall", Unit: nanoseconds}},
	loader.SampleFaults: {{Type: "samples", Unit: count}, {Type: "page-faults", Unit: count}},
	loader.SampleCalls:  {{Type: "samples", Unit: count}, {Type: "calls", Unit: count}},
	// As in the heap profiles of Go.
	loader.SampleAllocs: {{Type: "alloc_objects", Unit: count}, {Type: "alloc_space", Unit: "bytes"},
		{Type: "inuse_objects", Unit: count}, {Type: "inuse_space", Unit: "bytes"}},
}

// build makes the profile. Addresses are those of the files, so that the same
// code is the same location in all processes.
func (p *Profiler) build() (*profile.Profile, error) {
	types := eventTypes[p.opt.Event]
	b := &builder{p: p, out: &profile.Profile{
		DefaultSampleType: types[1].Type,
		PeriodType:        &profile.ValueType{Type: types[1].Type, Unit: types[1].Unit},
		Period:            p.session.Period(),
		TimeNanos:         p.began.UnixNano(),
		DurationNanos:     p.stopped.Sub(p.began).Nanoseconds(),
		Comments:          p.comments(),
	}, functions: make(map[functionKey]*profile.Function)}
	for i := range types {
		b.out.SampleType = append(b.out.SampleType, &types[i])
	}
	b.locations = make([]*profile.Location, len(p.samples.locations), len(p.samples.locations)+16)
	// The program of the first target comes first: pprof takes the first mapping
	// for the main one.
	for _, st := range p.samples.order {
		if p.isTwice(st.found) {
			continue
		}
		s := &profile.Sample{
			Value:    []int64{st.samples, st.weight, st.inUse, st.inUseBytes}[:len(types)],
			Label:    map[string][]string{"comm": {st.comm}, "thread": {st.thread}},
			NumLabel: map[string][]int64{"pid": {int64(st.pid)}, "tid": {int64(st.tid)}},
		}
		if st.cut != trace.CutNone && st.depth > 0 {
			s.Label["incomplete"] = []string{st.cut.String()}
		}
		if st.goid != 0 {
			s.NumLabel["goid"] = []int64{int64(st.goid)}
		}
		addLabels(s, st.labels)
		if st.waker != nil {
			b.addWaker(s, st.waker)
		}
		b.addStack(s, st.found)
		b.out.Sample = append(b.out.Sample, s)
	}
	p.noteUnnamed()
	b.numberMappings()
	if err := b.out.CheckValid(); err != nil {
		return nil, fmt.Errorf("the profile contradicts itself: %w", err)
	}
	return b.out, nil
}

// isTwice reports whether another sample stands for the same allocation: Go's
// mallocgc calls those for small objects, and all of them are probed.
func (p *Profiler) isTwice(f *found) bool {
	if p.opt.Event != loader.SampleAllocs || len(f.locations) < 2 {
		return false
	}
	name := func(i int) string {
		at := p.samples.locations[f.locations[i]]
		if at.module.bin == nil {
			return ""
		}
		if fn, _ := at.module.bin.Lookup(at.addr); fn != nil {
			return fn.Name
		}
		return ""
	}
	return isGoSmallAllocator(name(0)) && name(1) == "runtime.mallocgc"
}

// addStack appends a stack to a sample, without what samples it.
func (b *builder) addStack(s *profile.Sample, f *found) {
	tracing := b.p.opt.Event != loader.SampleCPU
	for i, id := range f.locations {
		if tracing = tracing && i < tracingDepth && b.p.isTracing(id); tracing {
			continue
		}
		s.Location = append(s.Location, b.location(id))
	}
}

// addWaker puts the stack of who ended a wait in front of the stack that has
// waited, upside down: in a flame graph it stands on top of it.
func (b *builder) addWaker(s *profile.Sample, f *found) {
	for i := len(f.locations) - 1; i >= 0; i-- {
		if i < tracingDepth && b.p.isTracing(f.locations[i]) {
			break
		}
		s.Location = append(s.Location, b.location(f.locations[i]))
	}
	id := b.p.samples.location(location{
		module: b.p.named(wakerModule), jit: symbolizer.JITFunction{Name: "woken by " + f.thread},
	})
	for int(id) >= len(b.locations) {
		b.locations = append(b.locations, nil)
	}
	s.Location = append(s.Location, b.location(id))
}

// tracingDepth is how many frames a tracepoint adds to the kernel's stack at most.
const tracingDepth = 8

// isTracing reports whether a location is of the kernel's way from a tracepoint to
// a program of ours.
func (p *Profiler) isTracing(id uint32) bool {
	at := p.samples.locations[id]
	if at.module.name != kernelModule || p.kernel == nil {
		return false
	}
	fn, _, ok := p.kernel.Lookup(at.addr)
	if !ok {
		return false
	}
	if fn.Module == "bpf" {
		return true
	}
	for _, prefix := range []string{"bpf_", "__bpf_", "__traceiter_", "__sched_switch", "perf_", "__perf_", "trace_call_bpf", "uprobe_"} {
		if strings.HasPrefix(fn.Name, prefix) {
			return true
		}
	}
	return false
}

// addLabels adds the labels that a Go program has given to the goroutine. Those
// that are called as one of sbxtrace's own get a prefix.
func addLabels(s *profile.Sample, labels []symbolizer.GoLabel) {
	for _, l := range labels {
		key := l.Key
		switch key {
		case "pid", "tid", "comm", "thread", "goid", "incomplete":
			key = "pprof." + key
		}
		s.Label[key] = []string{l.Value}
	}
}

// comments tell how the profile came about.
func (p *Profiler) comments() []string {
	s := p.Stats()
	c := []string{fmt.Sprintf("sbxtrace: %d samples; %.1f %% of the user stacks are complete", s.Samples, 100*s.Complete())}
	if s.Lost > 0 {
		c = append(c, fmt.Sprintf("%d samples were lost", s.Lost))
	}
	for cut := trace.CutNone + 1; cut < trace.Cuts; cut++ {
		if n := s.Cut[cut]; n > 0 {
			c = append(c, fmt.Sprintf("%d stacks are cut: %s", n, cut))
		}
	}
	return c
}

// builder is the state of build.
type builder struct {
	p         *Profiler
	out       *profile.Profile
	locations []*profile.Location // by number, nil until used
	functions map[functionKey]*profile.Function
}

type functionKey struct{ name, file string }

func (b *builder) location(id uint32) *profile.Location {
	if l := b.locations[id]; l != nil {
		return l
	}
	at := b.p.samples.locations[id]
	l := &profile.Location{ID: uint64(len(b.out.Location)) + 1, Address: at.addr}
	b.locations[id] = l
	b.out.Location = append(b.out.Location, l)
	m := b.mapping(at)
	if m != nil {
		l.Mapping = m.Mapping
	}
	frames := b.p.frames(at)
	for i := range frames {
		f := &frames[i]
		l.Line = append(l.Line, profile.Line{Function: b.function(f.Function, f.File), Line: int64(f.Line)})
		if m == nil {
			continue
		}
		m.HasFilenames = m.HasFilenames || f.File != ""
		m.HasLineNumbers = m.HasLineNumbers || f.Line != 0
		m.HasInlineFrames = m.HasInlineFrames || f.Inlined
	}
	if m != nil && !named(at, frames) {
		m.unnamed = true
	}
	return l
}

// frames are the functions at a location, innermost first. Code of which nothing
// is known has none: readers call it by its module and address.
func (p *Profiler) frames(at location) []symbolizer.Frame {
	switch {
	case at.module.name == kernelModule:
		return p.kernelFrames(at.addr)
	case at.proc != nil, at.jit.Name != "":
		if at.jit.Name == "" {
			at.jit, _ = p.generated(at.proc, at.addr) // perhaps it was named since
		}
		if at.jit.Name == "" {
			return nil
		}
		return []symbolizer.Frame{{Function: at.jit.Name, File: at.jit.File, Line: at.jit.Line}}
	case at.module.name == pythonModule:
		return []symbolizer.Frame{{Function: at.jit.Name, File: at.jit.File, Line: at.jit.Line}}
	case at.module.bin == nil:
		return nil
	}
	frames := at.module.bin.Inlines(at.addr)
	for i := range frames {
		if frames[i].Function == "" {
			return nil
		}
	}
	return frames
}

// kernelFrames names an address of the kernel.
func (p *Profiler) kernelFrames(addr uint64) []symbolizer.Frame {
	if p.kernel == nil {
		return nil
	}
	fn, _, ok := p.kernel.Lookup(addr)
	switch {
	case !ok:
		return nil
	case fn.Module != "":
		return []symbolizer.Frame{{Function: fn.Name + " [" + fn.Module + "]"}}
	}
	return []symbolizer.Frame{{Function: fn.Name}}
}

// named reports whether the file's own tables have named a location.
func named(at location, frames []symbolizer.Frame) bool {
	if at.module.bin == nil {
		return len(frames) > 0
	}
	fn, _ := at.module.bin.Lookup(at.addr)
	return fn != nil && fn.Source != symbolizer.SourceUnwindTable || len(frames) > 1
}

func (b *builder) function(name, file string) *profile.Function {
	key := functionKey{name, file}
	f := b.functions[key]
	if f == nil {
		f = &profile.Function{ID: uint64(len(b.out.Function)) + 1, Name: name, SystemName: name, Filename: file}
		b.functions[key] = f
		b.out.Function = append(b.out.Function, f)
	}
	return f
}

// mapping returns the part of a module that a location is in.
func (b *builder) mapping(at location) *mapping {
	mod := at.module
	seg := symbolizer.Segment{End: ^uint64(0)}
	switch {
	case mod.name == unknownModule:
		return nil
	case mod.bin != nil:
		var ok bool
		if seg, ok = mod.bin.Segment(at.addr); !ok {
			return nil
		}
	}
	m := mod.maps[seg.Start]
	if m == nil {
		m = &mapping{Mapping: &profile.Mapping{Start: seg.Start, Limit: seg.End, Offset: seg.Offset, File: mod.name}}
		if mod.bin != nil {
			m.BuildID = mod.bin.BuildID
		}
		mod.maps[seg.Start] = m
	}
	return m
}

// numberMappings puts the mappings that are used into the profile, in the order
// in which their modules were found: the first target's program first.
func (b *builder) numberMappings() {
	for _, mod := range b.p.order {
		for _, m := range sortedMappings(mod) {
			m.ID = uint64(len(b.out.Mapping)) + 1
			m.HasFunctions = !m.unnamed
			b.out.Mapping = append(b.out.Mapping, m.Mapping)
		}
	}
}

func sortedMappings(mod *module) []*mapping {
	var ms []*mapping
	for _, m := range mod.maps {
		ms = append(ms, m)
	}
	for i := 1; i < len(ms); i++ {
		for j := i; j > 0 && ms[j].Start < ms[j-1].Start; j-- {
			ms[j], ms[j-1] = ms[j-1], ms[j]
		}
	}
	return ms
}

// CutPlace names the code in which most stacks end that are cut for a reason.
func (p *Profiler) CutPlace(cut trace.Cut) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	modules, best := map[*module]uint64{}, (*module)(nil)
	for id, n := range p.samples.stats.CutAt[cut] {
		m := p.samples.locations[id].module
		modules[m] += n
		if best == nil || modules[m] > modules[best] {
			best = m
		}
	}
	if best == nil {
		return unknownModule
	}
	return filepath.Base(best.name)
}
