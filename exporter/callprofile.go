package exporter

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/google/pprof/profile"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/trace"
)

// CallProfile consumes a stream of calls and sums them up by the stack of traced
// functions that led to them. It is not safe for concurrent use.
type CallProfile struct {
	names
	opt   CallOptions
	open  openCalls[int32]
	nodes []callNode
	below map[callEdge]int32
	roots map[uint32]int32 // per process
	first uint64
	last  uint64

	crowded uint64 // calls that maxCallNodes had count for their callers
}

// maxCallNodes bounds the different stacks of a CallProfile: what it takes in
// memory stays below 300 MiB.
const maxCallNodes = 1 << 17

// callNode is a function below its callers.
type callNode struct {
	parent             int32 // -1 for a process
	fn                 trace.FuncID
	pid                uint32
	calls, total, self int64
}

type callEdge struct {
	parent int32
	fn     trace.FuncID
}

// NewCallProfile returns a CallProfile without calls. Names come from fns.
func NewCallProfile(fns trace.Functions, opt CallOptions) *CallProfile {
	return &CallProfile{names: names{fns}, opt: opt, open: newOpenCalls[int32](), below: make(map[callEdge]int32), roots: make(map[uint32]int32)}
}

// Enter implements trace.Sink.
func (p *CallProfile) Enter(l *trace.Lane, c *trace.Call) {
	p.open.enter(l, c, func(up *int32) int32 {
		parent := int32(0)
		if up != nil {
			parent = *up
		} else {
			parent = p.root(l.PID)
		}
		return p.node(parent, c.Func, l.PID)
	})
}

// root returns the node of a process.
func (p *CallProfile) root(pid uint32) int32 {
	at, ok := p.roots[pid]
	if !ok {
		at = int32(len(p.nodes))
		p.nodes = append(p.nodes, callNode{parent: -1, pid: pid})
		p.roots[pid] = at
	}
	return at
}

// node returns the node of a function below another. When there are too many,
// calls count for their callers.
func (p *CallProfile) node(parent int32, fn trace.FuncID, pid uint32) int32 {
	edge := callEdge{parent, fn}
	at, ok := p.below[edge]
	if !ok {
		if len(p.nodes) >= maxCallNodes {
			p.crowded++
			return parent
		}
		at = int32(len(p.nodes))
		p.nodes = append(p.nodes, callNode{parent: parent, fn: fn, pid: pid})
		p.below[edge] = at
	}
	return at
}

// Leave implements trace.Sink.
func (p *CallProfile) Leave(l *trace.Lane, c *trace.Call) {
	at, ok := p.open.leave(l, c)
	if !ok {
		return
	}
	n := &p.nodes[at]
	n.calls++
	n.self += int64(c.Self())
	if !c.Recursive {
		n.total += int64(c.Duration())
	}
	if p.first == 0 || c.Start < p.first {
		p.first = c.Start
	}
	p.last = max(p.last, c.Last)
}

// Event implements trace.Sink.
func (p *CallProfile) Event(*trace.Event) {}

// Tick implements trace.Sink.
func (p *CallProfile) Tick(uint64) {}

// Profile returns what was summed up so far: calls, their time from entry to end,
// and their time less that of traced callees, which is the default. Its stacks
// are those of traced functions: what lies between them is not known.
func (p *CallProfile) Profile() *profile.Profile {
	out := &profile.Profile{
		SampleType: []*profile.ValueType{
			{Type: "calls", Unit: "count"}, {Type: "total", Unit: "nanoseconds"}, {Type: "self", Unit: "nanoseconds"},
		},
		DefaultSampleType: "self", PeriodType: &profile.ValueType{}, DurationNanos: int64(p.last - p.first),
		Comments: []string{"calls of traced functions, summed up by stack"},
	}
	if p.crowded > 0 {
		out.Comments = append(out.Comments, fmt.Sprintf("%s counted as their callers': more than %s different stacks",
			term.Plural(p.crowded, "call"), term.Count(maxCallNodes)))
	}
	if p.opt.Wall != 0 {
		out.TimeNanos = int64(p.first) + p.opt.Wall
	}
	b := callBuilder{p: p, out: out, locations: make(map[trace.FuncID]*profile.Location), mappings: make(map[string]*profile.Mapping), processes: make(map[uint32]*profile.Sample)}
	order := make([]int32, 0, len(p.nodes))
	for i := range p.nodes {
		if p.nodes[i].calls > 0 {
			order = append(order, int32(i))
		}
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(p.nodes[b].self, p.nodes[a].self) })
	for _, at := range order {
		n := &p.nodes[at]
		labels := b.labels(n.pid)
		s := &profile.Sample{Value: []int64{n.calls, n.total, n.self}, Label: labels.Label, NumLabel: labels.NumLabel}
		for ; p.nodes[at].parent >= 0; at = p.nodes[at].parent {
			s.Location = append(s.Location, b.location(p.nodes[at].fn))
		}
		out.Sample = append(out.Sample, s)
	}
	return out
}

// callBuilder makes the locations of a profile of calls.
type callBuilder struct {
	p         *CallProfile
	out       *profile.Profile
	locations map[trace.FuncID]*profile.Location
	mappings  map[string]*profile.Mapping
	processes map[uint32]*profile.Sample // labels, shared by all samples of a process
}

func (b *callBuilder) labels(pid uint32) *profile.Sample {
	s := b.processes[pid]
	if s == nil {
		s = &profile.Sample{NumLabel: map[string][]int64{LabelPID: {int64(pid)}}}
		if name := processName(&b.p.opt, pid); name != "" {
			s.Label = map[string][]string{LabelComm: {name}}
		}
		b.processes[pid] = s
	}
	return s
}

func (b *callBuilder) location(id trace.FuncID) *profile.Location {
	if l := b.locations[id]; l != nil {
		return l
	}
	f := b.p.of(id)
	n := uint64(len(b.out.Location)) + 1
	fn := &profile.Function{ID: n, Name: f.Name, SystemName: f.Name, Filename: f.File, StartLine: int64(f.Line)}
	l := &profile.Location{ID: n, Line: []profile.Line{{Function: fn, Line: int64(f.Line)}}}
	if m := b.mapping(&f); m != nil {
		l.Mapping = m
		l.Address = m.Start + f.Offset&(1<<40-1)
	}
	b.locations[id] = l
	b.out.Function = append(b.out.Function, fn)
	b.out.Location = append(b.out.Location, l)
	return l
}

// mapping stands for a file: the offsets of its functions are addresses in it,
// above those of the files before.
func (b *callBuilder) mapping(f *trace.Func) *profile.Mapping {
	file := f.Path
	if file == "" {
		file = f.Module
	}
	if file == "" {
		return nil
	}
	key := file + "\x00" + f.BuildID
	m := b.mappings[key]
	if m == nil {
		n := uint64(len(b.out.Mapping)) + 1
		m = &profile.Mapping{
			ID: n, Start: n << 40, Limit: (n + 1) << 40, File: file, BuildID: f.BuildID,
			HasFunctions: true, HasFilenames: f.File != "", HasLineNumbers: f.Line != 0,
		}
		b.mappings[key] = m
		b.out.Mapping = append(b.out.Mapping, m)
	}
	return m
}

// profileWriter writes a CallProfile when the stream ends.
type profileWriter struct {
	*CallProfile
	w      io.Writer
	format Format
	err    error
}

func newProfileWriter(w io.Writer, fns trace.Functions, format Format, opt CallOptions) *profileWriter {
	if opt.SampleType == "" {
		opt.SampleType = "self"
	}
	return &profileWriter{CallProfile: NewCallProfile(fns, opt), w: w, format: format}
}

// Err is the first error of writing.
func (p *profileWriter) Err() error { return p.err }

// Close writes the profile.
func (p *profileWriter) Close() error {
	if p.err == nil {
		p.err = WriteProfile(p.w, p.Profile(), p.format, p.opt.Options)
	}
	return p.err
}
