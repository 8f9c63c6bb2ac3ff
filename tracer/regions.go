package tracer

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// span is one writable mapping of a process.
type span struct{ lo, hi uint64 }

// regions knows the memory layout of processes, for telling a thread's stacks
// apart. It is used by the consumer of events alone.
type regions struct {
	spans map[uint32][]span // by process, sorted; nil: could not be read
}

// maxLayouts bounds how many processes' layouts are kept.
const maxLayouts = 1024

// find returns the mapping that holds a stack address. It is a trace.Regions.
func (r *regions) find(pid uint32, sp uint64) (lo, hi uint64, ok bool) {
	spans, read := r.spans[pid]
	if s, ok := lookup(spans, sp); ok {
		return s.lo, s.hi, true
	}
	if read && spans == nil {
		return 0, 0, false // the process is gone
	}
	if r.spans == nil || len(r.spans) >= maxLayouts {
		r.spans = make(map[uint32][]span)
	}
	spans = readSpans(pid)
	r.spans[pid] = spans
	s, ok := lookup(spans, sp)
	return s.lo, s.hi, ok
}

// forget drops what is known of a process that ended or runs another program.
func (r *regions) forget(pid uint32) { delete(r.spans, pid) }

func lookup(spans []span, sp uint64) (span, bool) {
	i, _ := slices.BinarySearchFunc(spans, sp, func(s span, sp uint64) int {
		if s.hi <= sp {
			return -1
		}
		return 1
	})
	if i < len(spans) && spans[i].lo <= sp {
		return spans[i], true
	}
	return span{}, false
}

// readSpans reads the writable mappings from /proc/PID/maps (proc_pid_maps(5)).
func readSpans(pid uint32) []span {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil
	}
	defer f.Close()
	var spans []span
	for lines := bufio.NewScanner(f); lines.Scan(); {
		addresses, rest, ok := strings.Cut(lines.Text(), " ")
		if !ok || len(rest) < 2 || rest[1] != 'w' {
			continue
		}
		from, to, _ := strings.Cut(addresses, "-")
		lo, err1 := strconv.ParseUint(from, 16, 64)
		hi, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil {
			spans = append(spans, span{lo, hi})
		}
	}
	return spans
}
