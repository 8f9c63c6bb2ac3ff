package tracer

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
)

// overlooked is what became of events of processes that found the ring full.
type overlooked struct {
	known uint64    // how many there were when processes were looked at
	look  time.Time // when to look next; zero: nothing is missing
}

// settleLost is how long events that did arrive have to be acted on, before those
// that did not are looked for.
const settleLost = 100 * time.Millisecond

// lookAgain makes up for events that were lost, and reports whether a target is
// left. Otherwise the end of the last would never be noticed, and who is held at
// exec never be let go.
func (t *Tracer) lookAgain(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := &t.overlooked
	if n := t.loader.LostTasks(); n != o.known {
		o.known, o.look = n, now.Add(settleLost)
	}
	if o.look.IsZero() || now.Before(o.look) {
		return true
	}
	o.look = time.Time{}
	if err := t.reconcile(); err != nil {
		t.note("%v", err)
	}
	return len(t.processes) > 0
}

// reconcile takes up what the targets have done without its being reported.
func (t *Tracer) reconcile() error {
	var errs []error
	act := func(err error) {
		if err != nil && !errors.Is(err, symbolizer.ErrNoProcess) {
			errs = append(errs, err)
		}
	}
	t.told.add(t.loader.TakeLost()...) // first: calls that end here are marked
	for _, pid := range slices.Collect(maps.Keys(t.processes)) {
		p := t.processes[pid]
		switch {
		case !alive(pid):
			t.told.add(trace.Event{Kind: trace.KindProcessExit, Time: loader.Now(), PID: pid, TID: pid})
			t.leave(pid)
		case p.exe != fileID{} && exeID(int(pid)) != p.exe:
			comm, err := symbolizer.Comm(int(pid))
			if err != nil {
				continue // it has just ended, which is reported
			}
			t.told.add(trace.Event{Kind: trace.KindExec, Time: loader.Now(), PID: pid, TID: pid, Comm: comm})
			act(t.executed(pid))
		}
	}
	if t.opt.Follow {
		for _, child := range t.children(slices.Collect(maps.Values(t.processes))) {
			if parent, err := symbolizer.Parent(int(child)); err == nil {
				act(t.forked(uint32(parent), child))
			}
		}
	}
	if t.opt.StopOnExec {
		held, err := t.loader.Held()
		act(err)
		for _, pid := range held {
			act(t.executed(pid))
		}
	}
	return errors.Join(errs...)
}
