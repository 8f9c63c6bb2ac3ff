package loader

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/bpf"
)

// ErrTableMemory: the unwind tables have reached their limit of memory.
var ErrTableMemory = errors.New("no memory left for unwind tables")

// Sizes of the maps of bpf/unwind.h.
const (
	unwindPageShift   = 16
	unwindPageSize    = 1 << unwindPageShift
	unwindSegmentRows = 1 << 17
	unwindMaxSegments = 512
	unwindMaxPages    = 1 << 16
	unwindMaxRules    = 1 << 16
	unwindMaxMappings = 1 << 16

	unwindFPSaved = 1 << 1 // UNWIND_FP_SAVED
)

// UnwindRule is how to get from a frame to its caller, see symbolizer.UnwindRule,
// whose fields it has.
type UnwindRule struct {
	Kind, Reg, RAReg, Flags uint8
	Offset, Second          int32
	Saved                   [6]int16
}

// UnwindRow says from which address of its file on a rule applies.
type UnwindRow struct {
	Addr uint64
	Rule uint32 // index into the rules that come with it
}

// Table is an unwind table in the kernel. The zero value is that of a file
// without unwind information.
type Table struct {
	first uint32 // of its pages
	pages uint32
	start uint64 // address in the file of the first page
}

// ProcessMapping is executable memory of a process.
type ProcessMapping struct {
	Start, End uint64 // addresses in the process
	Bias       uint64 // of an address in the process to the one in the file
	Table      Table
}

// GoLayout is where Go's runtime keeps what a sample needs, in bytes. The zero
// value is that of a process that runs no Go.
type GoLayout struct {
	GoID    uint32 // goid in runtime.g
	M       uint32 // m in runtime.g
	CurG    uint32 // curg in runtime.m
	SchedBP uint32 // sched.bp in runtime.g
	Labels  uint32 // labels in runtime.g; 0: unknown
	TLS     int32  // the g pointer, from the thread pointer
}

// PythonLayout is where CPython keeps its frames: offsets in bytes, with the
// meaning of symbolizer.PythonLayout. Those in a frame are less than 80.
type PythonLayout struct {
	Runtime uint64 // address of _PyRuntime
	Minor   uint32 // 11 for CPython 3.11

	Interpreters, NextInterp, Threads, NextThread, NativeID uint32
	ThreadFrame                                             uint32
	CFrame                                                  bool
	CFrameFrame                                             uint32
	FrameCode, FramePrevious, FrameInstr, FrameOwner        uint32
}

func (l *PythonLayout) value() bpf.ProfilePython {
	v := bpf.ProfilePython{
		Runtime: l.Runtime, Minor: l.Minor,
		Interpreters: l.Interpreters, NextInterp: l.NextInterp, Threads: l.Threads, NextThread: l.NextThread, NativeId: l.NativeID,
		ThreadFrame: l.ThreadFrame, CframeFrame: l.CFrameFrame,
		FrameCode: l.FrameCode, FramePrevious: l.FramePrevious, FrameInstr: l.FrameInstr, FrameOwner: l.FrameOwner,
	}
	if l.CFrame {
		v.HasCframe = 1
	}
	return v
}

// UnwindStats says what the unwind tables take.
type UnwindStats struct {
	Tables   int    // tables loaded
	Rows     int    // rows in them
	Rules    int    // different rules
	Bytes    uint64 // kernel memory of rows, pages, rules and mappings
	Dropped  int    // rows whose rule had no room: their code has none
	Mappings int    // mappings of all processes
}

// unwindMaps fills the maps of bpf/unwind.h. Its methods may be called
// concurrently.
type unwindMaps struct {
	mu       sync.Mutex
	targets  *ebpf.Map
	pythons  *ebpf.Map
	segments *ebpf.Map
	inner    *ebpf.MapSpec
	maxBytes uint64

	memory   [][]byte // to unmap
	rules    []bpf.ProfileUnwindRule
	pages    []bpf.ProfileUnwindPage
	mappings []bpf.ProfileMapping

	ruleIDs  map[UnwindRule]uint16
	nextPage int
	segment  []uint32 // the one that is being filled
	nsegment int      // segments so far
	nextRow  int      // in segment

	ranges map[uint32]mappingRange // of each process, by pid
	free   rangeList
	stats  UnwindStats
}

// mappingRange is a part of the array of mappings.
type mappingRange struct{ first, n int }

// newUnwindMaps maps what userspace fills. inner is how segments are made.
func newUnwindMaps(maps map[string]*ebpf.Map, inner *ebpf.MapSpec, maxBytes uint64) (*unwindMaps, error) {
	u := &unwindMaps{
		targets: maps["targets"], pythons: maps["pythons"], segments: maps["unwind_segments"], inner: inner, maxBytes: maxBytes,
		ruleIDs: make(map[UnwindRule]uint16), ranges: make(map[uint32]mappingRange),
		free: rangeList{free: []mappingRange{{0, unwindMaxMappings}}},
	}
	for name, use := range map[string]func([]byte){
		"unwind_rules": func(b []byte) { u.rules = view[bpf.ProfileUnwindRule](b) },
		"unwind_pages": func(b []byte) { u.pages = view[bpf.ProfileUnwindPage](b) },
		"mappings":     func(b []byte) { u.mappings = view[bpf.ProfileMapping](b) },
	} {
		b, err := mapArray(maps[name])
		if err != nil {
			return u, err
		}
		u.memory = append(u.memory, b)
		u.stats.Bytes += uint64(len(b))
		use(b)
	}
	u.ruleIDs[UnwindRule{}] = 0
	u.stats.Rules = 1
	return u, nil
}

// mapArray maps an array's memory.
func mapArray(m *ebpf.Map) ([]byte, error) {
	size, page := int(m.ValueSize())*int(m.MaxEntries()), os.Getpagesize()
	b, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map a BPF array into memory: %w", err)
	}
	return b, nil
}

// addTable loads a table. Rows are in ascending order of their addresses.
func (u *unwindMaps) addTable(rows []UnwindRow, rules []UnwindRule) (Table, error) {
	if len(rows) == 0 {
		return Table{}, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	start := rows[0].Addr &^ (unwindPageSize - 1)
	pages := (rows[len(rows)-1].Addr-start)>>unwindPageShift + 1
	if pages > uint64(unwindMaxPages-u.nextPage) {
		return Table{}, fmt.Errorf("%d MiB of code: %w", pages>>4, ErrTableMemory)
	}
	ids := u.internRules(rules)
	t := Table{first: uint32(u.nextPage), pages: uint32(pages), start: start}
	before := uint16(0) // the rule that reaches into the page
	for i := range pages {
		addr := start + i<<unwindPageShift
		n := 0
		for n < len(rows) && rows[n].Addr < addr+unwindPageSize {
			n++
		}
		if err := u.addPage(u.nextPage+int(i), addr, before, rows[:n], ids); err != nil {
			return Table{}, err
		}
		if n > 0 {
			before = ids[rows[n-1].Rule]
		}
		rows = rows[n:]
	}
	u.nextPage += int(pages)
	u.stats.Tables++
	return t, nil
}

// internRules returns the numbers of rules in the kernel.
func (u *unwindMaps) internRules(rules []UnwindRule) []uint16 {
	ids := make([]uint16, len(rules))
	for i, r := range rules {
		id, known := u.ruleIDs[r]
		if !known && len(u.ruleIDs) < unwindMaxRules {
			id = uint16(len(u.ruleIDs))
			u.ruleIDs[r] = id
			flags := r.Flags
			if slices.ContainsFunc(r.Saved[:], func(s int16) bool { return s&1 != 0 }) {
				flags |= unwindFPSaved
			}
			u.rules[id] = bpf.ProfileUnwindRule{Kind: r.Kind, Reg: r.Reg, RaReg: r.RAReg, Flags: flags,
				Offset: r.Offset, Second: r.Second, Saved: r.Saved}
			u.stats.Rules++
		}
		ids[i] = id // 0, no rule, beyond the limit
	}
	return ids
}

// addPage loads the rows of 64 KiB of code from addr on. before is the rule that
// applies up to the first of them.
func (u *unwindMaps) addPage(page int, addr uint64, before uint16, rows []UnwindRow, ids []uint16) error {
	need := len(rows)
	if need == 0 || rows[0].Addr != addr {
		need++
	}
	if need > 1<<16-1 {
		rows = rows[:1<<16-2]
		u.stats.Dropped += need - (1<<16 - 1)
		need = 1<<16 - 1
	}
	if u.segment == nil || need > len(u.segment)-u.nextRow {
		if err := u.newSegment(); err != nil {
			return err
		}
	}
	first := u.nextRow
	put := func(low uint64, rule uint16) {
		u.segment[u.nextRow] = uint32(low) | uint32(rule)<<16
		u.nextRow++
	}
	if need > len(rows) {
		put(0, before)
	}
	for _, r := range rows {
		put(r.Addr-addr, ids[r.Rule])
	}
	u.stats.Rows += need
	u.pages[page] = bpf.ProfileUnwindPage{First: uint32(first), Count: uint16(need), Segment: uint16(u.nsegment - 1)}
	return nil
}

// newSegment begins another segment of rows.
func (u *unwindMaps) newSegment() error {
	size := uint64(unwindSegmentRows) * 4
	if u.nsegment >= unwindMaxSegments || u.stats.Bytes+size > u.maxBytes {
		return fmt.Errorf("%d MiB used: %w", u.stats.Bytes>>20, ErrTableMemory)
	}
	m, err := ebpf.NewMap(u.inner)
	if err != nil {
		return fmt.Errorf("create segment of unwind rows: %w", explain(err))
	}
	defer m.Close() // the outer map holds it
	b, err := mapArray(m)
	if err != nil {
		return err
	}
	if err := u.segments.Put(uint32(u.nsegment), m); err != nil {
		_ = unix.Munmap(b)
		return fmt.Errorf("add segment of unwind rows: %w", err)
	}
	if u.segment != nil { // full: only the programs need it from here on
		_ = unix.Munmap(u.memory[len(u.memory)-1])
		u.memory = u.memory[:len(u.memory)-1]
	}
	u.memory = append(u.memory, b)
	u.segment, u.nextRow = view[uint32](b)[:unwindSegmentRows], 0
	u.nsegment++
	u.stats.Bytes += size
	return nil
}

// setProcess publishes the mappings of a process, which it sorts.
func (u *unwindMaps) setProcess(pid uint32, mappings []ProcessMapping, g GoLayout, py *PythonLayout) error {
	slices.SortFunc(mappings, func(a, b ProcessMapping) int {
		if a.Start < b.Start {
			return -1
		}
		return 1
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	r, ok := u.free.take(len(mappings), time.Now())
	if !ok {
		return fmt.Errorf("process %d: %d mappings: %w", pid, len(mappings), ErrTableMemory)
	}
	for i, m := range mappings {
		u.mappings[r.first+i] = bpf.ProfileMapping{
			Start: m.Start, End: m.End, Bias: m.Bias + m.Table.start, FirstPage: m.Table.first, Pages: m.Table.pages,
		}
	}
	t := bpf.ProfileTarget{
		First: uint32(r.first), Mappings: uint32(len(mappings)),
		GoId: g.GoID, GoM: g.M, GoCurg: g.CurG, GoBp: g.SchedBP, GoTls: g.TLS, GoLabels: g.Labels,
	}
	if py != nil {
		if err := u.pythons.Put(pid, py.value()); err != nil {
			u.free.give(r, time.Now())
			return fmt.Errorf("profile Python process %d: %w", pid, err)
		}
		t.Python = 1
	}
	if err := u.targets.Put(pid, t); err != nil {
		u.free.give(r, time.Now())
		return fmt.Errorf("profile process %d: %w", pid, err)
	}
	u.stats.Mappings += r.n
	u.forget(pid)
	u.ranges[pid] = r
	return nil
}

// remove ends the profiling of a process.
func (u *unwindMaps) remove(pid uint32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	_ = u.targets.Delete(pid) // the programs delete those that end
	_ = u.pythons.Delete(pid)
	u.forget(pid)
	delete(u.ranges, pid)
}

// forget gives back the range of a process.
func (u *unwindMaps) forget(pid uint32) {
	if old, ok := u.ranges[pid]; ok {
		u.free.give(old, time.Now())
		u.stats.Mappings -= old.n
	}
}

func (u *unwindMaps) close() error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var errs []error
	for _, b := range u.memory {
		errs = append(errs, unix.Munmap(b))
	}
	u.memory, u.rules, u.pages, u.mappings, u.segment = nil, nil, nil, nil, nil
	return errors.Join(errs...)
}

// rangeList hands out parts of an array. What comes back rests for a while: a
// program may still be looking at it, or a child that was forked from its owner.
type rangeList struct {
	free    []mappingRange // sorted
	resting []restingRange // oldest first
}

type restingRange struct {
	mappingRange
	since time.Time
}

// rest is how long a range is not used again.
const rest = 2 * time.Second

func (l *rangeList) give(r mappingRange, now time.Time) {
	if r.n > 0 {
		l.resting = append(l.resting, restingRange{r, now})
	}
}

// take returns a range of n elements.
func (l *rangeList) take(n int, now time.Time) (mappingRange, bool) {
	for len(l.resting) > 0 && now.Sub(l.resting[0].since) >= rest {
		l.insert(l.resting[0].mappingRange)
		l.resting = l.resting[1:]
	}
	if n == 0 {
		return mappingRange{}, true
	}
	for i := range l.free {
		f := &l.free[i]
		if f.n < n {
			continue
		}
		r := mappingRange{f.first, n}
		f.first, f.n = f.first+n, f.n-n
		if f.n == 0 {
			l.free = slices.Delete(l.free, i, i+1)
		}
		return r, true
	}
	return mappingRange{}, false
}

// insert puts a range back and joins it with its neighbours.
func (l *rangeList) insert(r mappingRange) {
	i, _ := slices.BinarySearchFunc(l.free, r.first, func(f mappingRange, first int) int { return f.first - first })
	l.free = slices.Insert(l.free, i, r)
	if i+1 < len(l.free) && r.first+r.n == l.free[i+1].first {
		l.free[i].n += l.free[i+1].n
		l.free = slices.Delete(l.free, i+1, i+2)
	}
	if i > 0 && l.free[i-1].first+l.free[i-1].n == l.free[i].first {
		l.free[i-1].n += l.free[i].n
		l.free = slices.Delete(l.free, i, i+1)
	}
}
