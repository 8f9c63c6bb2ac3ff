package tracer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// manage follows the processes and governs the overhead until ctx is done or
// the last process has ended.
func (t *Tracer) manage(ctx context.Context) {
	tick := time.NewTicker(governorPeriod)
	defer tick.Stop()
	t.latecomers()
	t.takeCosts(ctx)
	t.mu.Lock()
	looked, cpu := t.attached, t.cpu
	t.mu.Unlock()
	if looked.IsZero() {
		looked = time.Now() // nothing to probe yet
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.work.ready:
			for _, e := range t.work.take() {
				if !t.processEvent(&e) {
					return
				}
			}
		case pid := <-t.late:
			t.mu.Lock()
			if err := t.mappedFile(pid); err != nil && !errors.Is(err, symbolizer.ErrNoProcess) {
				t.note("pid %d: %v", pid, err)
			}
			t.mu.Unlock()
		case <-tick.C:
			now := time.Now()
			if !t.lookAgain(now) {
				return
			}
			if t.govern(now.Sub(looked), cpu) {
				now = time.Now()
				tick.Reset(governorPeriod)
			}
			looked = now
		}
	}
}

// calibrate measures what probes cost here, while symbols are being read. Where
// that is not possible the costs known for this kind of machine stand.
func (t *Tracer) calibrate(ctx context.Context) {
	defer close(t.measured)
	if t.governor == nil {
		return
	}
	c, err := loader.Calibrate(ctx)
	if err != nil {
		return
	}
	m := uprobes.CostModel{Return: c.ReturnNS}
	m.Hit[uprobes.Emulated] = c.EntryEmulatedNS
	m.Hit[uprobes.SingleStepped] = c.EntrySteppedNS
	m.Hit[uprobes.Nop5Optimized] = c.EntryNop5NS
	if c.EntryNop5NS == 0 {
		m.Hit[uprobes.Nop5Optimized] = c.EntryEmulatedNS
	}
	t.measured <- m
}

// takeCosts waits for what calibrate measures.
func (t *Tracer) takeCosts(ctx context.Context) {
	select {
	case <-ctx.Done():
	case m, ok := <-t.measured:
		if !ok {
			return
		}
		t.mu.Lock()
		t.cost = m
		t.mu.Unlock()
	}
}

// processEvent acts on a fork, exec or end; false says that no target is left.
func (t *Tracer) processEvent(e *trace.Event) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	switch e.Kind {
	case trace.KindFork:
		if e.ChildPID != e.PID {
			err = t.forked(e.PID, e.ChildPID)
		}
	case trace.KindExec:
		err = t.executed(e.PID)
	case trace.KindCandidate:
		err = t.candidate(e.PID)
	case trace.KindProcessExit:
		t.leave(e.PID)
	}
	if err != nil && !errors.Is(err, symbolizer.ErrNoProcess) {
		t.note("pid %d: %v", e.PID, err)
	}
	return len(t.processes) > 0
}

// programCost is what the programs' own work adds to the cost of a hit, which
// is measured with an empty program.
const programCost = 1.3

// govern takes out functions that cost the targets too much, and reports
// whether there were any.
func (t *Tracer) govern(elapsed time.Duration, last cpuTimes) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.governor == nil {
		return false
	}
	for _, w := range t.unwatched {
		if t.gone[w.id] {
			continue
		}
		t.governor.watch(w.id, w.size, programCost*float64(t.cost.EstimateCall(&w.plan)))
	}
	t.unwatched = nil
	used := last.update(t.processes)
	out := t.governor.look(elapsed, used, t.loader.Hits)
	if len(out) == 0 {
		return false
	}
	ids := make([]trace.FuncID, 0, len(out))
	rates := make(map[trace.FuncID]hot, len(out))
	for _, h := range out {
		if t.gone[h.id] {
			continue // with another
		}
		rates[h.id] = h
		for _, id := range append([]trace.FuncID{h.id}, t.together[h.id]...) {
			if !t.gone[id] {
				ids = append(ids, id)
				t.governor.forget(id)
				t.gone[id] = true
			}
		}
	}
	err := t.loader.Remove(ids, func(now []trace.FuncID, at uint64) {
		list := make([]trace.Event, 0, len(now))
		for _, id := range now {
			if h, ok := rates[id]; ok { // once, however many processes it is attached to
				list = append(list, trace.Event{Kind: trace.KindDetached, Time: at, Func: h.id, Count: h.rate})
				delete(rates, id)
			}
		}
		t.told.add(list...)
	})
	if err != nil {
		t.note("take out hot functions: %v", err)
	}
	// What happened meanwhile is no measure of what is left.
	t.governor.skip(t.loader.Hits)
	last.update(t.processes)
	return true
}

// count is "1 function" or "2 functions".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// cpuTimes is the CPU time of each process at the last look.
type cpuTimes map[uint32]time.Duration

// update returns the CPU time used since the last update.
func (c cpuTimes) update(processes map[uint32]*process) time.Duration {
	var used time.Duration
	for pid := range processes {
		now, err := cpuTime(pid)
		if err != nil {
			continue
		}
		if last, ok := c[pid]; ok {
			used += now - last
		}
		c[pid] = now
	}
	for pid := range c {
		if processes[pid] == nil {
			delete(c, pid)
		}
	}
	return used
}
