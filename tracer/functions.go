package tracer

import (
	"sync"
	"sync/atomic"

	"github.com/sbxtrace/sbxtrace/trace"
)

// table numbers the functions of a session. It only grows; reading takes no
// lock, because the consumer of millions of calls a second does it.
type table struct {
	mu    sync.Mutex
	funcs atomic.Pointer[[]*trace.Func]
}

// Func returns the description of id, nil for an id never given.
func (t *table) Func(id trace.FuncID) *trace.Func {
	fns := t.funcs.Load()
	if fns == nil || int(id) >= len(*fns) {
		return nil
	}
	return (*fns)[id]
}

// add numbers fns, in order, and returns the first number.
func (t *table) add(fns ...trace.Func) trace.FuncID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var old []*trace.Func
	if p := t.funcs.Load(); p != nil {
		old = *p
	}
	first := trace.FuncID(len(old))
	all := old
	for i := range fns {
		f := fns[i]
		f.ID = first + trace.FuncID(i)
		all = append(all, &f)
	}
	t.funcs.Store(&all)
	return first
}

// len returns how many ids are given.
func (t *table) len() int {
	if p := t.funcs.Load(); p != nil {
		return len(*p)
	}
	return 0
}
