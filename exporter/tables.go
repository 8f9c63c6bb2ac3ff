package exporter

import (
	"cmp"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// row is what belongs to one function, module or thread: flat is of stacks that
// end there, cum of all stacks through it. The base's are 0 without one.
type row struct {
	name              string
	frame             int32 // of a function
	samples           int64 // of a thread
	flat, cum         int64
	baseFlat, baseCum int64
	line              int32 // of a function: where most of flat is; 0 unknown
	lead              int64 // by how much
}

// byFrame returns a row per group of frames that has any value: group numbers
// the frames, name names a group.
func (t *tree) byFrame(typ, groups int, group func(frame int32) int32, name func(group int32) string) []row {
	now, before := t.cumulative(typ)
	rows := make([]row, groups)
	open := make([]int32, groups) // how often a group is on the path
	n := len(t.types)
	order, depths := t.order(now, func(int32) bool { return true })
	var path []int32
	for i, at := range order {
		for len(path) > int(max(depths[i]-1, 0)) {
			open[path[len(path)-1]]--
			path = path[:len(path)-1]
		}
		if at == 0 {
			continue
		}
		g := group(t.nodes[at].frame)
		r := &rows[g]
		self := t.self[int(at)*n+typ]
		r.flat += self
		r.vote(t.nodes[at].line, self)
		if t.base != nil {
			r.baseFlat += t.base[int(at)*n+typ]
		}
		if open[g] == 0 {
			r.cum += now[at]
			if before != nil {
				r.baseCum += before[at]
			}
		}
		open[g]++
		path = append(path, g)
	}
	kept := rows[:0]
	for g := range rows {
		r := rows[g]
		if r.cum != 0 || r.flat != 0 || r.baseCum != 0 || r.baseFlat != 0 {
			r.name, r.frame = name(int32(g)), int32(g)
			kept = append(kept, r)
		}
	}
	return kept
}

// vote counts for a line of a function as node.vote does.
func (r *row) vote(line int32, weight int64) {
	if weight <= 0 || line == 0 {
		return
	}
	switch {
	case line == r.line:
		r.lead += weight
	case r.lead < weight:
		r.line, r.lead = line, weight-r.lead
	default:
		r.lead -= weight
	}
}

// functions returns a row per function, the most flat first.
func (t *tree) functions(typ int) []row {
	rows := t.byFrame(typ, len(t.frames), func(f int32) int32 { return f }, func(g int32) string { return t.frames[g].Name })
	sortRows(rows)
	return rows
}

// modules returns a row per module, the most flat first.
func (t *tree) modules(typ int) []row {
	return t.grouped(typ, func(f *Frame) string { return f.Module })
}

// namespaces returns a row per package, outer namespace or crate, or per module
// for what has none.
func (t *tree) namespaces(typ int) []row {
	return t.grouped(typ, spaceOf)
}

// grouped returns a row per group of frames, the most flat first.
func (t *tree) grouped(typ int, group func(f *Frame) string) []row {
	ids := make(map[string]int32)
	var names []string
	of := make([]int32, len(t.frames))
	for i := range t.frames {
		g := group(&t.frames[i])
		id, ok := ids[g]
		if !ok {
			id = int32(len(names))
			ids[g] = id
			names = append(names, g)
		}
		of[i] = id
	}
	rows := t.byFrame(typ, len(names), func(f int32) int32 { return of[f] }, func(g int32) string { return names[g] })
	sortRows(rows)
	return rows
}

func sortRows(rows []row) {
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(b.flat, a.flat), cmp.Compare(b.cum, a.cum), strings.Compare(a.name, b.name))
	})
}

// threadRows returns a row per thread, the most first; none when samples do not
// tell.
func threadRows(p *profile.Profile, typ int) []row {
	ids := make(map[thread]int)
	var rows []row
	count := -1
	for i, t := range p.SampleType {
		if t.Type == "samples" && t.Unit == "count" {
			count = i
		}
	}
	for _, s := range p.Sample {
		t := threadOf(s)
		i, ok := ids[t]
		if !ok {
			if t.String() == "" {
				continue
			}
			i = len(rows)
			ids[t] = i
			rows = append(rows, row{name: t.String()})
		}
		r := &rows[i]
		n := int64(1)
		if count >= 0 {
			n = s.Value[count]
		}
		if s.DiffBaseSample() {
			r.baseFlat -= s.Value[typ]
			continue
		}
		r.samples += n
		r.flat += s.Value[typ]
	}
	sortRows(rows)
	return rows
}
