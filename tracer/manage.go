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
	t.calibrate(ctx)
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
			t.govern(now.Sub(looked), cpu)
			looked = now
		}
	}
}

// calibrate measures what probes cost here. Where that is not possible the
// costs known for this kind of machine stand.
func (t *Tracer) calibrate(ctx context.Context) {
	if t.governor == nil {
		return
	}
	c, err := loader.Calibrate(ctx)
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cost = uprobes.CostModel{Return: c.ReturnNS}
	t.cost.Hit[uprobes.Emulated] = c.EntryEmulatedNS
	t.cost.Hit[uprobes.SingleStepped] = c.EntrySteppedNS
	t.cost.Hit[uprobes.Nop5Optimized] = c.EntryNop5NS
	if c.EntryNop5NS == 0 {
		t.cost.Hit[uprobes.Nop5Optimized] = c.EntryEmulatedNS
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

// govern takes out functions that cost the targets too much.
func (t *Tracer) govern(elapsed time.Duration, last cpuTimes) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.governor == nil {
		return
	}
	for _, w := range t.unwatched {
		if t.gone[w.id] {
			continue
		}
		t.governor.watch(w.id, float64(t.cost.EstimateCall(&w.plan)))
	}
	t.unwatched = nil
	used := last.update(t.processes)
	out := t.governor.look(elapsed, used, t.loader.Hits)
	if len(out) == 0 {
		return
	}
	ids := make([]trace.FuncID, len(out))
	for i, h := range out {
		ids[i] = h.id
		t.governor.forget(h.id)
		t.gone[h.id] = true
	}
	if err := t.loader.Remove(ids...); err != nil {
		t.note("take out hot functions: %v", err)
	}
	now := loader.Now()
	for _, h := range out {
		t.told = append(t.told, trace.Event{Kind: trace.KindDetached, Time: now, Func: h.id, Count: h.rate})
	}
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
