package profiler

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
)

// location is a place in code, the same in all processes that map it.
type location struct {
	module *module
	addr   uint64 // in the file; in the process for code without a file
	// Of code that a process has made itself: what it was when the sample was
	// taken, for it may be something else soon.
	proc *process
	jit  symbolizer.JITFunction
}

// samples counts stacks. Only the goroutine that delivers events touches it,
// but for count.
type samples struct {
	count     atomic.Uint64
	ids       map[location]uint32
	locations []location
	byID      map[uint64]*found // stacks that the kernel counts samples of
	stacks    map[string]*stack
	order     []*stack
	key       []byte
	stats     Stats
}

// found is a stack with its addresses looked up, while they mean what they did
// when the sample was taken.
type found struct {
	locations []uint32
	thread    string // its name
	comm      string // name of its process
	goid      uint64
	labels    []symbolizer.GoLabel // of the goroutine
	cut       trace.Cut
	depth     int // of the user stack
}

// stack is a stack that one thread or goroutine was seen with.
type stack struct {
	*found
	pid, tid uint32
	waker    *found // nil: unknown
	samples  int64
	weight   int64
	// Of what was still allocated in the end.
	inUse      int64
	inUseBytes int64
}

// Stats says what was sampled.
type Stats struct {
	Samples uint64
	Lost    uint64                  // samples that the kernel could not deliver
	Kernel  uint64                  // samples of kernel threads, which have no user stack
	Cut     [trace.Cuts]uint64      // samples by the end of their user stack
	CutAt   map[trace.Cut]CutPlaces // where incomplete ones end
	Frames  uint64                  // of all user stacks
	Unwind  loader.UnwindStats
}

// CutPlaces counts the functions or modules that stacks end in.
type CutPlaces map[uint32]uint64

// Complete is the share of the user stacks that reach their outermost frame,
// from 0 to 1.
func (s *Stats) Complete() float64 {
	all := s.Samples - s.Kernel
	if all == 0 {
		return 1
	}
	return float64(s.Cut[trace.CutNone]-s.Kernel) / float64(all)
}

func (s *samples) init() {
	s.ids = make(map[location]uint32)
	s.byID = make(map[uint64]*found)
	s.stacks = make(map[string]*stack)
	s.stats.CutAt = make(map[trace.Cut]CutPlaces)
}

// location returns the number of a location.
func (s *samples) location(l location) uint32 {
	id, ok := s.ids[l]
	if !ok {
		id = uint32(len(s.locations))
		s.ids[l] = id
		s.locations = append(s.locations, l)
	}
	return id
}

// sample takes up a sample, or a stack that samples will be counted of.
func (p *Profiler) sample(e *trace.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.samples
	if e.StackID != 0 && e.Count == 0 {
		s.byID[e.StackID] = p.find(e)
		return
	}
	key := s.key[:0]
	key = binary.LittleEndian.AppendUint32(key, e.PID)
	key = binary.LittleEndian.AppendUint32(key, e.TID)
	var f *found
	if e.StackID != 0 {
		key = binary.LittleEndian.AppendUint64(key, e.StackID)
		key = binary.LittleEndian.AppendUint64(key, e.Waker)
		if f = s.byID[e.StackID]; f == nil {
			s.stats.Lost += e.Count // its stack was
			return
		}
	} else {
		f = p.find(e)
		key = binary.LittleEndian.AppendUint64(key, e.GoID)
		key = append(append(key, e.Comm...), 0, byte(e.Cut))
		for _, l := range f.labels {
			key = append(append(append(append(key, l.Key...), 0), l.Value...), 0)
		}
		for _, l := range f.locations {
			key = binary.LittleEndian.AppendUint32(key, l)
		}
	}
	s.key = key
	inUse := e.Flags&trace.FlagInUse != 0
	if !inUse {
		s.note(f, e.Count)
	}
	st := s.stacks[string(key)]
	if st == nil {
		st = &stack{found: f, pid: e.PID, tid: e.TID, waker: s.byID[e.Waker]}
		s.stacks[string(key)] = st
		s.order = append(s.order, st)
	}
	if inUse {
		st.inUse += int64(e.Count)
		st.inUseBytes += int64(e.Weight)
		return
	}
	st.samples += int64(e.Count)
	st.weight += int64(e.Weight)
}

// find looks the addresses of a sample up.
func (p *Profiler) find(e *trace.Event) *found {
	proc := p.target(e)
	f := &found{
		locations: make([]uint32, 0, len(e.Kernel)+len(e.Stack)),
		thread:    e.Comm, comm: e.Comm, goid: e.GoID, labels: proc.goLabels(e.GoLabels), cut: e.Cut, depth: len(e.Stack),
	}
	if proc != nil && proc.comm != "" {
		f.comm = proc.comm
	}
	for i, addr := range e.Kernel {
		if i > 0 {
			addr-- // into the call
		}
		f.locations = append(f.locations, p.samples.location(location{module: p.named(kernelModule), addr: addr}))
	}
	user := make([]uint32, len(e.Stack))
	for i, addr := range e.Stack {
		user[i] = p.resolve(proc, addr)
	}
	f.locations = append(f.locations, p.interleave(proc, user, e)...)
	return f
}

// note keeps account of what samples are worth.
func (s *samples) note(f *found, n uint64) {
	s.stats.Samples += n
	s.count.Add(n)
	s.stats.Cut[f.cut] += n
	s.stats.Frames += n * uint64(f.depth)
	switch {
	case f.depth == 0:
		s.stats.Kernel += n
		s.stats.Cut[trace.CutNone] += n
		s.stats.Cut[f.cut] -= n
	case f.cut != trace.CutNone:
		at := s.stats.CutAt[f.cut]
		if at == nil {
			at = make(CutPlaces)
			s.stats.CutAt[f.cut] = at
		}
		at[f.locations[len(f.locations)-1]] += n
	}
}
