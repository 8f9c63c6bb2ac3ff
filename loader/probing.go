package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"

	"github.com/sbxtrace/sbxtrace/bpf"
	"github.com/sbxtrace/sbxtrace/trace"
)

// AllocKind tells how a function that allocates is called. The values are those of
// enum alloc_kind in bpf/profile.bpf.c.
type AllocKind uint8

// Kinds of functions that allocate.
const (
	AllocMalloc       AllocKind = iota + 1 // malloc(size) and the like: valloc, pvalloc
	AllocCalloc                            // calloc(n, size)
	AllocRealloc                           // realloc(pointer, size)
	AllocAligned                           // aligned_alloc(alignment, size), memalign
	AllocPosix                             // posix_memalign(&pointer, alignment, size)
	AllocReallocarray                      // reallocarray(pointer, n, size)
	AllocGo                                // runtime.mallocgc(size, …)
)

// AllocSite is a function that allocates.
type AllocSite struct {
	Entry  uint64 // offset in the file of an instruction at which the arguments are in their registers
	Return uint64 // offset of one at which the return address is at the stack pointer. Not for AllocGo
	Kind   AllocKind
}

// pruneCalls takes out what a session without uprobes does not need.
func (p *Profile) pruneCalls(spec *ebpf.CollectionSpec) {
	p.multi = features.HaveBPFLinkUprobeMulti() == nil
	if v, _, err := RunningKernel(); err == nil && p.multi && !v.AtLeast(6, 10) {
		p.anyThread = true
	}
	calls, allocs := p.cfg.Event == SampleCalls, p.cfg.Event == SampleAllocs
	for name, needed := range map[string]bool{"on_call": calls, "on_alloc": allocs, "on_alloc_return": allocs, "on_free": allocs} {
		switch {
		case !needed:
			delete(spec.Programs, name)
		case p.multi:
			spec.Programs[name].AttachType = ebpf.AttachTraceUprobeMulti
		}
	}
	if !allocs {
		spec.Maps["allocating"].MaxEntries = 1
		spec.Maps["allocations"].MaxEntries = 1
	}
	if !calls && !allocs {
		spec.Maps["call_unwinders"].MaxEntries = 1
	}
}

// AttachCalls samples calls of functions of the file at path, by the offsets of
// their sites, in process pid; 0: in all targets. It may be called while Run is
// running.
func (p *Profile) AttachCalls(path string, pid uint32, offsets []uint64) error {
	at := &sites{}
	for _, off := range offsets {
		at.add(&Probe{Offset: off}, 0)
	}
	return p.attach(path, pid, "on_call", false, at)
}

// AttachAllocs samples functions of the file at path that allocate, and follows
// those that free, by the offsets of their first instructions, as AttachCalls does.
func (p *Profile) AttachAllocs(path string, pid uint32, allocs []AllocSite, frees []uint64) error {
	enter, leave, free := &sites{}, &sites{}, &sites{}
	for _, a := range allocs {
		enter.add(&Probe{Offset: a.Entry}, uint64(a.Kind))
		if a.Kind != AllocGo { // Go moves its stacks
			leave.add(&Probe{Offset: a.Return}, 0)
		}
	}
	for _, off := range frees {
		free.add(&Probe{Offset: off}, 0)
	}
	// Returns first: an allocation that has begun must be seen to end.
	for _, part := range []struct {
		program string
		ret     bool
		at      *sites
	}{{"on_alloc_return", true, leave}, {"on_free", false, free}, {"on_alloc", false, enter}} {
		if err := p.attach(path, pid, part.program, part.ret, part.at); err != nil {
			return err
		}
	}
	return nil
}

func (p *Profile) attach(path string, pid uint32, program string, ret bool, at *sites) error {
	if len(at.offsets) == 0 {
		return nil
	}
	exe, err := link.OpenExecutable(path)
	if err != nil {
		return fmt.Errorf("attach to %s: %w", path, err)
	}
	if p.anyThread {
		pid = 0
	}
	links, err := attachProbes(&attached{path: path, pid: pid, exe: exe}, p.coll.Programs[program], p.multi, ret, at)
	if err != nil {
		return fmt.Errorf("attach to %s: %w", path, explain(err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		closeLinks(links)
		return ErrClosed
	}
	p.links = append(p.links, links...)
	return nil
}

// drainAllocations delivers what is allocated at the end, by stack.
func (p *Profile) drainAllocations(h Handler) error {
	type owner struct {
		pid, tid uint32
		stack    uint64
	}
	type sum struct{ count, bytes uint64 }
	var key bpf.ProfileAllocationKey
	var a bpf.ProfileAllocation
	inUse := make(map[owner]sum)
	it := p.coll.Maps["allocations"].Iterate()
	for it.Next(&key, &a) {
		o := owner{a.Pid, a.Tid, a.Stack}
		s := inUse[o]
		inUse[o] = sum{s.count + p.period, s.bytes + a.Size*p.period}
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return fmt.Errorf("read what is allocated: %w", err)
	}
	for o, s := range inUse {
		p.deliver(h, o.pid, o.tid, o.stack, 0, s.count, s.bytes, trace.FlagInUse)
	}
	return nil
}
