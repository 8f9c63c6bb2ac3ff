package loader

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/bpf"
)

// shared is the memory that the programs and Go both have mapped: looking at
// it takes no system call, so that the governor can look often.
type shared struct {
	hits        []uint64 // calls per function and CPU, see Session.Hits
	tooDeep     []uint64 // calls deeper than the kernel-side stacks, by CPU
	lost        []uint64 // events that found the ring full, by CPU
	lostTasks   []uint64 // one: those of processes among them
	generations []uint32 // of groups of sites, four to a word
	known       []bpf.TraceKnownProcess
	maps        [][]byte
}

// mapShared maps the arrays and data sections of a loaded collection.
func mapShared(maps map[string]*ebpf.Map) (*shared, error) {
	s := new(shared)
	for name, use := range map[string]func([]byte){
		"counters":     func(b []byte) { s.hits = view[uint64](b) },
		"too_deep":     func(b []byte) { s.tooDeep = view[uint64](b) },
		".data.lost":   func(b []byte) { s.lost = view[uint64](b) },
		".data.tasks":  func(b []byte) { s.lostTasks = view[uint64](b) },
		".data.groups": func(b []byte) { s.generations = view[uint32](b) },
		".data.known":  func(b []byte) { s.known = view[bpf.TraceKnownProcess](b) },
	} {
		m := maps[name]
		size := int(m.ValueSize()) * int(m.MaxEntries())
		page := os.Getpagesize()
		b, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return s, fmt.Errorf("map %s into memory: %w", name, err)
		}
		s.maps = append(s.maps, b)
		use(b[:size])
	}
	return s, nil
}

// view takes memory for an array of T.
func view[T any](b []byte) []T {
	var t T
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), len(b)/int(unsafe.Sizeof(t)))
}

// setGeneration makes a generation of a group the one that counts; 0: none.
func (s *shared) setGeneration(group uint16, generation uint8) {
	// The programs read single bytes, Go has no atomic store of one.
	// Both architectures are little-endian.
	word, shift := &s.generations[group/4], uint(group%4*8)
	for {
		old := atomic.LoadUint32(word)
		if atomic.CompareAndSwapUint32(word, old, old&^(0xff<<shift)|uint32(generation)<<shift) {
			return
		}
	}
}

// know puts a process where programs find it without a look-up, if there is
// room. Its pid is written last: a program that sees it sees the rest.
func (s *shared) know(pid, about uint32) {
	for i := range s.known {
		k := &s.known[i]
		if old := atomic.LoadUint32(&k.Pid); old == 0 || old == pid {
			atomic.StoreUint32(&k.About, about)
			atomic.StoreUint32(&k.Pid, pid)
			return
		}
	}
}

// forget undoes know.
func (s *shared) forget(pid uint32) {
	for i := range s.known {
		atomic.CompareAndSwapUint32(&s.known[i].Pid, pid, 0)
	}
}

func (s *shared) close() error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, b := range s.maps {
		errs = append(errs, unix.Munmap(b))
	}
	*s = shared{}
	return errors.Join(errs...)
}
