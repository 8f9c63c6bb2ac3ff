package loader

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sbxtrace/sbxtrace/bpf"
	"github.com/sbxtrace/sbxtrace/trace"
)

// drainPeriod is how often the counts of samples in the kernel are looked at.
const drainPeriod = time.Second

// remember keeps what events that count samples of a stack need to say of it.
func (p *Profile) remember(e *trace.Event) {
	if len(p.stacks) >= maxStacks {
		return
	}
	p.stacks[e.StackID] = trace.Event{
		Kind: trace.KindSample, StackID: e.StackID, Flags: e.Flags, Cut: e.Cut, Comm: e.Comm, CPU: -1,
	}
}

// maxStacks bounds the stacks that samples are counted of.
const maxStacks = 1 << 21

// deliver sends an event for samples that were counted.
func (p *Profile) deliver(h Handler, pid, tid uint32, stack, waker, count, weight uint64, flags trace.Flags) {
	e, ok := p.stacks[stack]
	if !ok {
		e = trace.Event{Kind: trace.KindSample, StackID: stack, Cut: trace.CutNotLoaded, CPU: -1}
	}
	e.Flags |= flags
	e.Time, e.PID, e.TID, e.Waker, e.Count, e.Weight = Now(), pid, tid, waker, count, weight
	h.Event(&e)
}

// drain delivers what was counted. While sampling goes on it does so only to make
// room, since a count may grow in the moment in which it is taken away.
func (p *Profile) drain(h Handler, all bool) error {
	m := p.coll.Maps["totals"]
	if !all {
		used, err := countKeys(m, int(m.MaxEntries())/2)
		if err != nil || used < int(m.MaxEntries())/2 {
			return err
		}
	}
	var keys []bpf.ProfileTotalKey
	var key bpf.ProfileTotalKey
	var total bpf.ProfileTotal
	it := m.Iterate()
	for it.Next(&key, &total) {
		keys = append(keys, key)
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return fmt.Errorf("read the counts of samples: %w", err)
	}
	for _, key := range keys {
		if err := m.LookupAndDelete(key, &total); err != nil {
			if errors.Is(err, ebpf.ErrKeyNotExist) {
				continue
			}
			return fmt.Errorf("read the counts of samples: %w", err)
		}
		p.deliver(h, key.Pid, key.Tid, key.Stack, key.Waker, total.Count, total.Weight, 0)
	}
	return nil
}

// countKeys counts the elements of a map, up to a limit.
func countKeys(m *ebpf.Map, limit int) (n int, err error) {
	var key, next bpf.ProfileTotalKey
	err = m.NextKey(nil, &next)
	for ; err == nil && n < limit; n++ {
		key = next
		err = m.NextKey(key, &next)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return n, fmt.Errorf("read the counts of samples: %w", err)
	}
	return n, nil
}

// drainBlocked delivers the waits that go on at the end of sampling, as far as
// they have come by then (ns, CLOCK_MONOTONIC).
func (p *Profile) drainBlocked(h Handler, end uint64) error {
	var tid uint32
	var w bpf.ProfileWaiting
	it := p.coll.Maps["blocked"].Iterate()
	for it.Next(&tid, &w) {
		if end > w.Since {
			p.deliver(h, w.Pid, w.Tid, w.Stack, w.Waker, 1, end-w.Since, 0)
		}
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return fmt.Errorf("read the waits that go on: %w", err)
	}
	return nil
}
