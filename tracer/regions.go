package tracer

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/sbxtrace/sbxtrace/trace"
)

// regions knows the memory layout of processes, for telling a thread's stacks
// apart. It is used by the consumer of events alone.
type regions struct {
	layouts map[uint32][]trace.Region // by process, sorted
}

// maxLayouts bounds how many processes' layouts are kept.
const maxLayouts = 1024

// find returns the mapping that holds a stack address. It is a trace.Regions.
func (r *regions) find(pid uint32, sp uint64) (trace.Region, bool) {
	if found, ok := lookup(r.layouts[pid], sp); ok {
		return found, true
	}
	r.read(pid)
	return lookup(r.layouts[pid], sp)
}

// read takes up the present layout of a process. Of one that has ended, what
// was known of it stays.
func (r *regions) read(pid uint32) {
	spans := readSpans(pid)
	if spans == nil {
		return
	}
	if r.layouts == nil || len(r.layouts) >= maxLayouts {
		r.layouts = make(map[uint32][]trace.Region)
	}
	r.layouts[pid] = spans
}

// event follows processes: a child has its parent's layout, also when it ends
// before its own can be read; a new program has another.
func (r *regions) event(e *trace.Event) {
	switch e.Kind {
	case trace.KindFork:
		if spans := r.layouts[e.PID]; spans != nil && e.ChildPID != e.PID {
			r.layouts[e.ChildPID] = spans
		}
	case trace.KindExec, trace.KindProcessExit:
		delete(r.layouts, e.PID)
	}
}

func lookup(spans []trace.Region, sp uint64) (trace.Region, bool) {
	i, _ := slices.BinarySearchFunc(spans, sp, func(s trace.Region, sp uint64) int {
		if s.Hi <= sp {
			return -1
		}
		return 1
	})
	if i < len(spans) && spans[i].Lo <= sp {
		return spans[i], true
	}
	return trace.Region{}, false
}

// arenaSize is the alignment of the heaps that glibc makes for threads
// (HEAP_MAX_SIZE, malloc/arena.c).
const arenaSize = 64 << 20

// readSpans reads the writable mappings from /proc/PID/maps (proc_pid_maps(5)).
func readSpans(pid uint32) []trace.Region {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil
	}
	defer f.Close()
	var spans []trace.Region
	below := uint64(0) // end of the mapping before
	for lines := bufio.NewScanner(f); lines.Scan(); {
		addresses, rest, ok := strings.Cut(lines.Text(), " ")
		from, to, _ := strings.Cut(addresses, "-")
		lo, err1 := strconv.ParseUint(from, 16, 64)
		hi, err2 := strconv.ParseUint(to, 16, 64)
		if err1 != nil || err2 != nil || !ok || len(rest) < 2 {
			continue
		}
		if rest[1] == 'w' {
			r := trace.Region{Lo: lo, Hi: hi}
			switch {
			case strings.HasSuffix(rest, "[stack]"):
				r.Lo, r.Own = below, true // as far as it can grow
			case strings.HasSuffix(rest, "[heap]"), lo%arenaSize == 0:
				r.Shared = true
			}
			spans = append(spans, r)
		}
		below = hi
	}
	return spans
}
