package exporter

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/google/pprof/profile"

	"github.com/sbxtrace/sbxtrace/internal/term"
)

// maxFlameNodes bounds the frames of a flame graph: the largest are kept. It
// keeps pages in single megabytes and quick to open; what is left out is
// narrower than a pixel until one zooms far in.
const maxFlameNodes = 100_000

// flame is what the page of a flame graph knows, as its script reads it
// (flame/model.js). Nodes are in preorder; frames, modules and so on are
// numbered, those with more weight first.
type flame struct {
	Types    []flameType `json:"types"`
	Type     int         `json:"type"`  // what is shown first
	Color    string      `json:"color"` // likewise
	NewName  string      `json:"newName"`
	BaseName string      `json:"baseName"`
	Modules  []string    `json:"modules"`
	Spaces   []string    `json:"spaces"`
	Langs    []string    `json:"langs"`
	Files    []string    `json:"files"`
	Frames   flameFrames `json:"frames"`
	Nodes    flameNodes  `json:"nodes"`
	// Values per type and node: of stacks that end in a node, and of frames
	// below it that were left out; the base's in a comparison, else null.
	Self     [][]int64 `json:"self"`
	Rest     [][]int64 `json:"rest"`
	Base     [][]int64 `json:"base"`
	BaseRest [][]int64 `json:"baseRest"`

	title        string
	facts, notes []string
	tree         *tree
	order        []int32 // nodes of the tree by nodes of the graph
}

type flameType struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	Unit  string `json:"unit"`
}

type flameFrames struct {
	Name   []string `json:"name"`
	Module []int    `json:"module"`
	Space  []int    `json:"space"`
	Lang   []int    `json:"lang"`
	File   []int    `json:"file"`
}

type flameNodes struct {
	Frame []int32 `json:"frame"`
	Depth []int32 `json:"depth"`
	Line  []int32 `json:"line"`
}

// newFlame makes the data of a flame graph, for all types of values.
func newFlame(p *profile.Profile, opt Options) (*flame, error) {
	typ, err := sampleType(p, opt.SampleType)
	if err != nil {
		return nil, err
	}
	t := newTree(p, opt.ByThread)
	f := &flame{Type: typ, tree: t, title: title(p, typ, opt), NewName: "the new profile", BaseName: "the base"}
	for _, vt := range p.SampleType {
		f.Types = append(f.Types, flameType{vt.Type, typeTitle(vt), vt.Unit})
	}
	f.facts = t.facts(p, typ)
	f.notes = t.notes(typ)
	if t.base != nil {
		f.title += ": what changed from the base"
		f.facts = []string{
			"new " + typePhrase(t.total[typ], t.types[typ]), "base " + typePhrase(t.was[typ], t.types[typ]),
			"shares are of each profile’s own total",
		}
	}
	f.prune(maxFlameNodes)
	f.name(typ)
	f.values()
	return f, nil
}

// prune chooses the nodes that the graph has.
func (f *flame) prune(most int) {
	t := f.tree
	weight := t.importance()
	now, before := t.cumulative(f.Type)
	for i := range before {
		now[i] = max(now[i], before[i])
	}
	if len(t.nodes) <= most {
		f.order, f.Nodes.Depth = t.order(now, func(int32) bool { return true })
		return
	}
	sorted := slices.Clone(weight)
	slices.Sort(sorted)
	least := sorted[len(sorted)-most]
	// Of those that weigh the same, the first: callers stand before callees
	// and weigh no less, so who is kept has its callers.
	more, _ := slices.BinarySearch(sorted, math.Nextafter(least, math.Inf(1)))
	ties := most - (len(sorted) - more)
	keep := make([]bool, len(t.nodes))
	for i, w := range weight {
		keep[i] = w > least || w == least && ties > 0
		if w == least {
			ties--
		}
	}
	f.order, f.Nodes.Depth = t.order(now, func(at int32) bool { return keep[at] })
	f.notes = append(f.notes, fmt.Sprintf("%s with %.2g %% of the whole or less each are left out; their values count for their callers",
		term.Plural(uint64(len(t.nodes)-len(f.order)), "frame"), 100*least))
}

// importance is the largest share that a node has of the total of any type.
func (t *tree) importance() []float64 {
	weight := make([]float64, len(t.nodes))
	for typ := range t.types {
		now, before := t.cumulative(typ)
		for i := range weight {
			weight[i] = max(weight[i], size(ratio(now[i], t.total[typ])))
			if before != nil {
				weight[i] = max(weight[i], size(ratio(before[i], t.was[typ])))
			}
		}
	}
	return weight
}

// name numbers the frames that the graph has, and what they belong to.
func (f *flame) name(typ int) {
	t := f.tree
	numbers := make(map[int32]int32)
	modules, spaces := newRanking(), newRanking()
	langs, files := newRanking(), newRanking()
	n := len(t.types)
	for _, at := range f.order {
		if at > 0 {
			frame, self := &t.frames[t.nodes[at].frame], t.self[int(at)*n+typ]
			modules.add(frame.Module, self)
			spaces.add(spaceOf(frame), self)
			langs.add(frame.Lang, self)
			files.add(frame.File, 0)
		}
	}
	f.Modules, f.Spaces, f.Langs, f.Files = modules.rank(), spaces.rank(), langs.rank(), files.rank()
	f.Color = "module"
	if modules.leads(0.98) && len(f.Spaces) > 1 {
		f.Color = "space"
	}
	for _, at := range f.order {
		node := &t.nodes[at]
		number := int32(0)
		if at > 0 {
			var ok bool
			if number, ok = numbers[node.frame]; !ok {
				number = int32(len(f.Frames.Name))
				numbers[node.frame] = number
				frame := &t.frames[node.frame]
				f.Frames.Name = append(f.Frames.Name, term.Clean(frame.Name))
				f.Frames.Module = append(f.Frames.Module, modules.at[frame.Module])
				f.Frames.Space = append(f.Frames.Space, spaces.at[spaceOf(frame)])
				f.Frames.Lang = append(f.Frames.Lang, langs.at[frame.Lang])
				f.Frames.File = append(f.Frames.File, files.at[frame.File])
			}
		}
		f.Nodes.Frame = append(f.Nodes.Frame, number)
		f.Nodes.Line = append(f.Nodes.Line, node.line)
	}
	if len(f.Frames.Name) == 0 {
		// The root needs a frame to point at.
		f.Frames = flameFrames{Name: []string{"all"}, Module: []int{0}, Space: []int{0}, Lang: []int{0}, File: []int{0}}
		f.Modules, f.Spaces, f.Langs, f.Files = []string{""}, []string{""}, []string{""}, []string{""}
	}
}

// spaceOf is a frame's namespace, or its module where it has none.
func spaceOf(f *Frame) string {
	if n := namespace(f); n != "" {
		return n
	}
	return f.Module
}

// values fills in what each node weighs.
func (f *flame) values() {
	t := f.tree
	n := len(t.types)
	kept := make([]int32, len(t.nodes)) // numbers in the graph; of left out nodes, of the next one above
	for i := range kept {
		kept[i] = -1
	}
	for i, at := range f.order {
		kept[at] = int32(i)
	}
	whole := len(f.order) == len(t.nodes)
	for typ := range t.types {
		self, rest := make([]int64, len(f.order)), make([]int64, len(f.order))
		var base, baseRest []int64
		if t.base != nil {
			base, baseRest = make([]int64, len(f.order)), make([]int64, len(f.order))
		}
		for at := range t.nodes {
			i := kept[at]
			to, toBase := self, base
			if i < 0 || at != int(f.order[i]) {
				// Nodes stand after their parents, so those have theirs.
				i = kept[t.nodes[at].parent]
				kept[at] = i
				to, toBase = rest, baseRest
			}
			to[i] += t.self[at*n+typ]
			if toBase != nil {
				toBase[i] += t.base[at*n+typ]
			}
		}
		f.Self = append(f.Self, self)
		if t.base != nil {
			f.Base = append(f.Base, base)
		}
		if !whole {
			f.Rest = append(f.Rest, rest)
			if t.base != nil {
				f.BaseRest = append(f.BaseRest, baseRest)
			}
		}
	}
}

// ranking numbers names by their weight.
type ranking struct {
	weight map[string]int64
	at     map[string]int
	all    int64
}

func newRanking() *ranking {
	return &ranking{weight: make(map[string]int64), at: make(map[string]int)}
}

func (r *ranking) add(name string, weight int64) {
	r.weight[name] += weight
	r.all += weight
}

// rank returns the names, those with most weight first, and numbers them so.
func (r *ranking) rank() []string {
	names := make([]string, 0, len(r.weight))
	for name := range r.weight {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(r.weight[b], r.weight[a]), cmp.Compare(a, b))
	})
	cleaned := make([]string, len(names))
	for i, name := range names {
		r.at[name] = i
		cleaned[i] = term.Clean(name)
	}
	return cleaned
}

// leads reports whether one name has that share of all weight.
func (r *ranking) leads(share float64) bool {
	for _, w := range r.weight {
		if float64(w) >= share*float64(r.all) {
			return true
		}
	}
	return false
}
