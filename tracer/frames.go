package tracer

import (
	"errors"
	"strconv"
	"sync"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// stackSymbols names the addresses of stacks, per process. Files are opened
// while the process lives, so that what it leaves behind can still be named.
type stackSymbols struct {
	wanted bool // level stacks

	mu   sync.Mutex
	pids map[uint32]*symbolizer.ProcessSymbols
}

func (s *stackSymbols) add(pid uint32) {
	if !s.wanted {
		return
	}
	ps, err := symbolizer.NewProcessSymbols(int(pid))
	if err != nil {
		return // its addresses stay numbers
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pids == nil {
		s.pids = make(map[uint32]*symbolizer.ProcessSymbols)
	}
	if old := s.pids[pid]; old != nil {
		old.Close()
	}
	s.pids[pid] = ps
}

func (s *stackSymbols) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, ps := range s.pids {
		errs = append(errs, ps.Close())
	}
	s.pids = nil
	return errors.Join(errs...)
}

// Frame appends the name of a stack's address in process pid to dst: it is a
// view.Frame.
func (t *Tracer) Frame(dst []byte, pid uint32, addr uint64) []byte {
	if loc, ok := t.Locate(pid, addr); ok {
		return append(dst, loc.String()...)
	}
	return strconv.AppendUint(append(dst, "0x"...), addr, 16)
}
