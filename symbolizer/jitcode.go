package symbolizer

import (
	"cmp"
	"container/heap"
	"slices"
	"sort"
)

// Limits on what is kept of the code that one process has generated. A large
// Node program has some 100,000 functions, RabbitMQ 40,000.
const (
	maxJITRanges    = 1 << 19
	maxJITNameBytes = 64 << 20
	maxJITLines     = 4 << 20
	maxJITPending   = 1 << 16 // before they are put in order
)

// jitCode holds the names of generated code. A runtime uses addresses again: of
// two ranges that overlap, the later one has the addresses that both claim.
type jitCode struct {
	ranges  []jitRange // sorted, disjoint
	pending []jitRange // not yet among ranges, in the order they came
	next    uint32     // number of the next range
	dropped uint64     // ranges forgotten because of the limits
}

// jitRange is a piece of generated code.
type jitRange struct {
	start, end uint64
	base       uint64 // start of the code of which this is what later ranges have left
	seq        uint32 // later ranges have larger ones
	name       string // as the runtime wrote it
	lines      *jitLines
}

// jitLines are the source lines of a function, by address.
type jitLines struct {
	rows  []jitLine // sorted by addr
	files []string
}

type jitLine struct {
	addr uint64
	line int32
	file int32 // index into files
}

func (l *jitLines) at(addr uint64) (file string, line int) {
	i := sort.Search(len(l.rows), func(i int) bool { return l.rows[i].addr > addr }) - 1
	if i < 0 {
		return "", 0
	}
	return l.files[l.rows[i].file], int(l.rows[i].line)
}

// add takes up a range that is newer than all others. Empty ranges and such that
// wrap around are left out.
func (c *jitCode) add(start, size uint64, name string, lines *jitLines) {
	if size == 0 || start+size < start {
		return
	}
	c.pending = append(c.pending, jitRange{start, start + size, start, c.next, name, lines})
	c.next++
	if len(c.pending) >= maxJITPending {
		c.settle()
	}
}

// find returns the range that has addr.
func (c *jitCode) find(addr uint64) (jitRange, bool) {
	c.settle()
	i := sort.Search(len(c.ranges), func(i int) bool { return c.ranges[i].end > addr })
	if i < len(c.ranges) && addr >= c.ranges[i].start {
		return c.ranges[i], true
	}
	return jitRange{}, false
}

// settle puts the pending ranges over those that are known.
func (c *jitCode) settle() {
	if len(c.pending) == 0 {
		return
	}
	all := append(c.ranges, c.pending...)
	c.pending = c.pending[:0]
	slices.SortFunc(all, func(a, b jitRange) int { return cmp.Compare(a.start, b.start) })

	out := make([]jitRange, 0, len(all))
	var open newestFirst // that begin at or before pos and may not have ended
	var pos uint64
	for i := 0; i < len(all) || len(open) > 0; {
		if len(open) == 0 {
			pos = all[i].start
		}
		for i < len(all) && all[i].start <= pos {
			heap.Push(&open, all[i])
			i++
		}
		for len(open) > 0 && open[0].end <= pos {
			heap.Pop(&open)
		}
		if len(open) == 0 {
			continue
		}
		end := open[0].end
		if i < len(all) {
			end = min(end, all[i].start)
		}
		if n := len(out) - 1; n >= 0 && out[n].seq == open[0].seq && out[n].end == pos {
			out[n].end = end
		} else {
			piece := open[0]
			piece.start, piece.end = pos, end
			out = append(out, piece)
		}
		pos = end
	}
	c.ranges = out
	c.limit()
}

// limit forgets the oldest half of the ranges when they are too many.
func (c *jitCode) limit() {
	bytes, lines := 0, 0
	for i := range c.ranges {
		bytes += len(c.ranges[i].name)
		if l := c.ranges[i].lines; l != nil {
			lines += len(l.rows)
		}
	}
	if lines > maxJITLines {
		for i := range c.ranges {
			c.ranges[i].lines = nil
		}
	}
	if len(c.ranges) <= maxJITRanges && bytes <= maxJITNameBytes {
		return
	}
	seqs := make([]uint32, len(c.ranges))
	for i := range c.ranges {
		seqs[i] = c.ranges[i].seq
	}
	slices.Sort(seqs)
	oldest := seqs[len(seqs)/2]
	before := len(c.ranges)
	c.ranges = slices.Clone(slices.DeleteFunc(c.ranges, func(r jitRange) bool { return r.seq < oldest }))
	c.dropped += uint64(before - len(c.ranges))
}

// newestFirst is a heap of ranges with the newest in front.
type newestFirst []jitRange

func (h newestFirst) Len() int           { return len(h) }
func (h newestFirst) Less(i, j int) bool { return h[i].seq > h[j].seq }
func (h newestFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *newestFirst) Push(x any)        { *h = append(*h, x.(jitRange)) }
func (h *newestFirst) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
