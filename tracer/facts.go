package tracer

import (
	"cmp"
	"slices"

	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
)

// ModuleFacts are what is known of a file with traced functions.
type ModuleFacts struct {
	Path      string // as the target sees it
	BuildID   string // hex, empty if the file has none
	Functions int
}

// Modules lists the files in which functions are traced, by path.
func (t *Tracer) Modules() []ModuleFacts {
	t.mu.Lock()
	defer t.mu.Unlock()
	type key struct{ path, id string }
	found := make(map[key]int)
	for i := range t.funcs.len() {
		if id := trace.FuncID(i); !t.internal[id] {
			f := t.funcs.Func(id)
			found[key{f.Path, f.BuildID}]++
		}
	}
	out := make([]ModuleFacts, 0, len(found))
	for k, n := range found {
		out = append(out, ModuleFacts{Path: k.path, BuildID: k.id, Functions: n})
	}
	slices.SortFunc(out, func(a, b ModuleFacts) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.BuildID, b.BuildID))
	})
	return out
}

// Processes are the ids of the processes that are traced now, ascending.
func (t *Tracer) Processes() []uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]uint32, 0, len(t.processes))
	for pid := range t.processes {
		out = append(out, pid)
	}
	slices.Sort(out)
	return out
}

// Locate tells what an address of a stack of process pid is; false if nothing
// is known of it.
func (t *Tracer) Locate(pid uint32, addr uint64) (symbolizer.Location, bool) {
	t.symbols.mu.Lock()
	ps := t.symbols.pids[pid]
	t.symbols.mu.Unlock()
	if ps == nil {
		return symbolizer.Location{}, false
	}
	loc, err := ps.Resolve(addr)
	return loc, err == nil
}
