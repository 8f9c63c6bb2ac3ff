package tracer

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/sbxtrace/sbxtrace/trace"
)

// told hands what the manager has to say (functions that were removed, the names
// of threads) to the consumer of events, as events in their order. Its lock is
// never held for long: the consumer must not wait.
type told struct {
	next atomic.Uint64 // time of the first, MaxUint64 for none
	mu   sync.Mutex
	list []trace.Event // by time
}

func newTold() *told {
	t := new(told)
	t.next.Store(math.MaxUint64)
	return t
}

// add appends events.
func (t *told) add(list ...trace.Event) {
	if len(list) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, list...)
	t.next.Store(t.list[0].Time)
}

// due reports whether there are events up to now.
func (t *told) due(now uint64) bool { return t.next.Load() <= now }

// take returns the events up to now.
func (t *told) take(now uint64) []trace.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for n < len(t.list) && t.list[n].Time <= now {
		n++
	}
	out := t.list[:n:n]
	t.list = t.list[n:]
	if len(t.list) == 0 {
		t.list = nil
		t.next.Store(math.MaxUint64)
	} else {
		t.next.Store(t.list[0].Time)
	}
	return out
}

// gone is the set of functions that were removed.
type gone []bool

func (g *gone) add(id trace.FuncID) {
	if n := int(id) + 1 - len(*g); n > 0 {
		*g = append(*g, make([]bool, n)...)
	}
	(*g)[id] = true
}

func (g gone) has(id trace.FuncID) bool { return int(id) < len(g) && g[id] }
