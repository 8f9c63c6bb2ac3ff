package exporter

import (
	"cmp"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// maxNodes bounds the nodes of a tree. Real profiles of an hour on many cores
// stay below; of made-up ones the rest of a stack counts for its last node.
const maxNodes = 4 << 20

// node is a frame below its callers: all stacks that begin with the same
// frames share it.
type node struct {
	frame  int32 // in tree.frames; -1 for the root
	parent int32 // in tree.nodes; -1 for the root
	line   int32 // the most frequent one; 0 unknown
	weight int64 // by how much line leads
}

// tree is a profile with equal beginnings of stacks merged. Node 0 is the root:
// everything. A node stands after its parent.
type tree struct {
	*frameTable
	types   []*profile.ValueType
	nodes   []node
	self    []int64          // per node and type: of stacks that end there
	base    []int64          // the same of the base of a comparison; nil without one
	total   []int64          // per type
	was     []int64          // per type, of the base
	stacks  int              // different samples
	counts  int              // the type that counts samples, if its unit is count
	cut     int64            // stacks that do not reach their root, counted as samples are
	counted int64            // all stacks, counted so
	reasons map[string]int64 // cut by reason
	marks   bool             // whoever made the profile marks stacks that do not reach their root
	crowded int              // samples that maxNodes cut

	children map[uint64]int32
}

// newTree merges the stacks of p.
func newTree(p *profile.Profile, byThread bool) *tree {
	n := len(p.SampleType)
	t := &tree{
		frameTable: newFrameTable(), types: p.SampleType, nodes: []node{{frame: -1, parent: -1}},
		self: make([]int64, n), total: make([]int64, n), counts: countType(p),
		reasons: make(map[string]int64), children: make(map[uint64]int32),
	}
	t.marks = slices.ContainsFunc(p.Comments, func(c string) bool { return strings.Contains(c, "sbxtrace") })
	if compares(p) {
		t.base, t.was = make([]int64, n), make([]int64, n)
	}
	var stack, frames []place
	for _, s := range p.Sample {
		stack = stack[:0]
		if byThread {
			if name := threadOf(s).String(); name != "" {
				stack = append(stack, place{frame: t.add(Frame{Name: name, Module: "thread"})})
			}
		}
		skip := len(stack)
		frames = t.stack(frames[:0], s)
		stack = append(stack, frames...)
		t.sample(s, stack, skip)
	}
	return t
}

// compares reports whether p has samples of a base, as Diff makes them.
func compares(p *profile.Profile) bool {
	return slices.ContainsFunc(p.Sample, (*profile.Sample).DiffBaseSample)
}

// sample adds one sample. Samples of a base count against it, with the sign that
// Diff has turned.
func (t *tree) sample(s *profile.Sample, stack []place, skip int) {
	at := int32(0)
	var weight int64
	for _, v := range s.Value {
		weight = max(weight, v, -v)
	}
	for _, pl := range stack {
		next, ok := t.child(at, pl.frame)
		if !ok {
			t.crowded++
			break
		}
		at = next
		t.nodes[at].vote(pl.line, weight)
	}
	n := len(t.types)
	if t.base != nil && s.DiffBaseSample() {
		for i, v := range s.Value {
			t.base[int(at)*n+i] -= v
			t.was[i] -= v
		}
		return
	}
	for i, v := range s.Value {
		t.self[int(at)*n+i] += v
		t.total[i] += v
	}
	t.stacks++
	count := int64(1)
	if t.types[t.counts].Unit == "count" {
		count = s.Value[t.counts]
	}
	t.counted += count
	if why := incomplete(s); why != "" || len(stack) == skip {
		if why == "" {
			why = "no frames"
		}
		t.cut += count
		t.reasons[why] += count
	}
}

// child returns the node of a frame below another, made on first use; false
// when there are too many.
func (t *tree) child(parent, frame int32) (int32, bool) {
	key := uint64(parent)<<32 | uint64(uint32(frame))
	if at, ok := t.children[key]; ok {
		return at, true
	}
	if len(t.nodes) >= maxNodes {
		return 0, false
	}
	at := int32(len(t.nodes))
	t.children[key] = at
	t.nodes = append(t.nodes, node{frame: frame, parent: parent})
	for range t.types {
		t.self = append(t.self, 0)
		if t.base != nil {
			t.base = append(t.base, 0)
		}
	}
	return at, true
}

// vote counts for a line: the one with more than half of the weight wins
// (Boyer and Moore's majority vote).
func (n *node) vote(line int32, weight int64) {
	switch {
	case line == n.line:
		n.weight += weight
	case n.weight < weight:
		n.line, n.weight = line, weight-n.weight
	default:
		n.weight -= weight
	}
}

// cumulative returns, per node, the values of type typ of all stacks through
// it, and those of the base, nil without one.
func (t *tree) cumulative(typ int) (now, before []int64) {
	sum := func(self []int64) []int64 {
		if self == nil {
			return nil
		}
		n := len(t.types)
		out := make([]int64, len(t.nodes))
		for i := len(t.nodes) - 1; i >= 0; i-- {
			out[i] += self[i*n+typ]
			if p := t.nodes[i].parent; p >= 0 {
				out[p] += out[i]
			}
		}
		return out
	}
	return sum(t.self), sum(t.base)
}

// order returns the nodes that keep accepts in preorder, children with more
// weight first, and the depth of each. A node's parent is kept if it is.
func (t *tree) order(weight []int64, keep func(at int32) bool) (order []int32, depths []int32) {
	first := make([]int32, len(t.nodes)+1) // where a node's children begin in below
	for i := range t.nodes {
		if p := t.nodes[i].parent; p >= 0 && keep(int32(i)) {
			first[p+1]++
		}
	}
	for i := range t.nodes {
		first[i+1] += first[i]
	}
	below := make([]int32, first[len(t.nodes)])
	next := slices.Clone(first[:len(t.nodes)])
	for i := range t.nodes {
		if p := t.nodes[i].parent; p >= 0 && keep(int32(i)) {
			below[next[p]] = int32(i)
			next[p]++
		}
	}
	type entry struct{ at, depth int32 }
	stack := []entry{{0, 0}}
	for len(stack) > 0 {
		e := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		order, depths = append(order, e.at), append(depths, e.depth)
		children := below[first[e.at]:first[e.at+1]]
		slices.SortFunc(children, func(a, b int32) int {
			return cmp.Or(cmp.Compare(weight[b], weight[a]), cmp.Compare(t.frames[t.nodes[a].frame].Name, t.frames[t.nodes[b].frame].Name),
				cmp.Compare(a, b))
		})
		for i := len(children) - 1; i >= 0; i-- {
			stack = append(stack, entry{children[i], e.depth + 1})
		}
	}
	return order, depths
}
