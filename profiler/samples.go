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
	stacks    map[string]*stack
	order     []*stack
	key       []byte
	stats     Stats
}

// stack is a stack that one thread or goroutine was seen with.
type stack struct {
	pid, tid  uint32
	goid      uint64
	isGo      bool
	cut       trace.Cut
	comm      string // of the process
	thread    string // name of the thread
	locations []uint32
	samples   int64
	weight    int64
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

// sample counts one sample.
func (p *Profiler) sample(e *trace.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.samples
	proc := p.target(e)
	key := s.key[:0]
	key = binary.LittleEndian.AppendUint32(key, e.PID)
	key = binary.LittleEndian.AppendUint32(key, e.TID)
	key = binary.LittleEndian.AppendUint64(key, e.GoID)
	key = append(append(key, e.Comm...), 0, byte(e.Cut))
	head := len(key)
	for i, addr := range e.Kernel {
		if i > 0 {
			addr-- // into the call
		}
		key = binary.LittleEndian.AppendUint32(key, p.kernelLocation(addr))
	}
	for _, addr := range e.Stack {
		key = binary.LittleEndian.AppendUint32(key, p.resolve(proc, addr))
	}
	s.key = key
	s.stats.Samples++
	s.count.Add(1)
	s.stats.Cut[e.Cut]++
	s.stats.Frames += uint64(len(e.Stack))
	if len(e.Stack) == 0 {
		s.stats.Kernel++
	}
	if e.Cut != trace.CutNone && len(e.Stack) > 0 {
		at := s.stats.CutAt[e.Cut]
		if at == nil {
			at = make(CutPlaces)
			s.stats.CutAt[e.Cut] = at
		}
		at[binary.LittleEndian.Uint32(key[len(key)-4:])]++
	}
	st := s.stacks[string(key)]
	if st == nil {
		st = &stack{pid: e.PID, tid: e.TID, goid: e.GoID, isGo: e.Flags&trace.FlagGo != 0, cut: e.Cut, comm: e.Comm, thread: e.Comm}
		if proc != nil && proc.comm != "" {
			st.comm = proc.comm
		}
		st.locations = make([]uint32, (len(key)-head)/4)
		for i := range st.locations {
			st.locations[i] = binary.LittleEndian.Uint32(key[head+4*i:])
		}
		s.stacks[string(key)] = st
		s.order = append(s.order, st)
	}
	st.samples++
	st.weight += int64(e.Weight)
}

// kernelLocation is the location of an address of the kernel.
func (p *Profiler) kernelLocation(addr uint64) uint32 {
	return p.samples.location(location{module: p.named(kernelModule), addr: addr})
}
