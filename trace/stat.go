package trace

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// NumEndKinds and NumLostCauses size arrays indexed by EndKind and LostCause.
const (
	NumEndKinds   = int(EndDetached) + 1
	NumLostCauses = int(LostFiltered) + 1
)

// Row is what is known of one function's calls: collected by Stats, or read
// from the counters that levels count and latency keep in the kernel.
type Row struct {
	Func  FuncID
	Calls uint64 // calls that ended, recursive ones included; of a static probe how often it fired
	Timed uint64 // calls whose duration is exact: the ones that Min, Max and Hist describe
	Total uint64 // ns from entry to end, of calls that are not inside another call of the same function
	Self  uint64 // ns outside traced callees, of all calls
	Min   uint64 // ns, shortest; valid when Timed > 0
	Max   uint64 // ns, longest; valid when Timed > 0
	Hist  *Hist  // durations; nil where they were not measured
	Ends  [NumEndKinds]uint64
	Gaps  uint64 // calls during which events were lost
	// AtLeast says that the overhead governor removed the function's
	// probes: all numbers are lower bounds.
	AtLeast bool
}

// Quantile returns the duration (ns) that the share q (0 to 1) of the timed
// calls does not exceed, within 3.1 % (6.3 % for kernel-side histograms).
func (r *Row) Quantile(q float64) uint64 {
	v := r.Hist.Quantile(q)
	if r.Timed == 0 {
		return v
	}
	return min(max(v, r.Min), r.Max)
}

// Unreturned counts the calls that ended otherwise than by returning.
func (r *Row) Unreturned() uint64 {
	var n uint64
	for _, e := range r.Ends[EndReturn+1:] {
		n += e
	}
	return n
}

// Merge adds the calls of o, a row of the same function.
func (r *Row) Merge(o *Row) {
	if o.Timed > 0 {
		if r.Timed == 0 || o.Min < r.Min {
			r.Min = o.Min
		}
		r.Max = max(r.Max, o.Max)
	}
	r.Calls += o.Calls
	r.Timed += o.Timed
	r.Total += o.Total
	r.Self += o.Self
	r.Gaps += o.Gaps
	r.AtLeast = r.AtLeast || o.AtLeast
	for i, n := range o.Ends {
		r.Ends[i] += n
	}
	if o.Hist != nil {
		if r.Hist == nil {
			r.Hist = new(Hist)
		}
		r.Hist.Merge(o.Hist)
	}
}

// Totals are the figures of a whole session.
type Totals struct {
	Calls   uint64
	Ends    [NumEndKinds]uint64 // calls by how they ended
	Gaps    uint64              // calls during which events were lost
	Stacks  uint64              // calls at level stacks
	Cut     uint64              // those whose stack may end before its outermost frame
	Orphans uint64              // exits without an entry; Stats leaves it 0, a Pairer counts them
	Lost    [NumLostCauses]uint64
	First   uint64 // ns, time of the first entry or event
	Last    uint64 // ns, time of the last
}

// Elapsed is the time from the first to the last event in ns.
func (t *Totals) Elapsed() uint64 { return sub(t.Last, t.First) }

// AllLost counts the lost events of all causes.
func (t *Totals) AllLost() uint64 {
	var n uint64
	for _, l := range t.Lost {
		n += l
	}
	return n
}

// Unreturned counts the calls that ended otherwise than by returning.
func (t *Totals) Unreturned() uint64 {
	r := Row{Ends: t.Ends}
	return r.Unreturned()
}

// Stats is a Sink that sums up calls per function. Once it has seen a
// function's usual durations it does not allocate. It is not safe for
// concurrent use.
type Stats struct {
	rows   ByFunc[stat]
	totals Totals
	began  bool
}

type stat struct {
	Row
	hist Hist
}

// NewStats returns an empty Stats.
func NewStats() *Stats { return new(Stats) }

// Enter notes the time, and what there is of the stack.
func (s *Stats) Enter(_ *Lane, c *Call) {
	s.at(c.Start)
	cut := c.StackCut()
	if len(c.Stack) > 0 || cut {
		s.totals.Stacks++
	}
	if cut {
		s.totals.Cut++
	}
}

// Leave counts a call. Calls whose end is only bounded (unwound, unseen, open,
// detached) have their share in Total and Self and none in Min, Max and Hist.
func (s *Stats) Leave(_ *Lane, c *Call) {
	s.at(c.Last)
	r := s.row(c.Func)
	d := c.Duration()
	r.Calls++
	r.Self += c.Self()
	if !c.Recursive {
		r.Total += d
	}
	if c.Exact() {
		if r.Timed == 0 || d < r.Min {
			r.Min = d
		}
		r.Max = max(r.Max, d)
		r.Timed++
		r.hist.Add(d)
	}
	end := min(int(c.End), NumEndKinds-1)
	r.Ends[end]++
	s.totals.Calls++
	s.totals.Ends[end]++
	if c.Gap {
		r.Gaps++
		s.totals.Gaps++
	}
	if c.End == EndDetached {
		r.AtLeast = true
	}
}

// Event counts what was lost, and static probes.
func (s *Stats) Event(e *Event) {
	if e.Time != 0 {
		s.at(e.Time)
	}
	switch e.Kind {
	case KindLost:
		s.totals.Lost[min(int(e.Cause), NumLostCauses-1)] += e.Count
	case KindUSDT:
		s.row(e.Func).Calls++
	}
}

// Tick does nothing: sums do not depend on time passing.
func (s *Stats) Tick(uint64) {}

// Detached notes that the probes of fn were removed: its numbers are lower
// bounds from now on.
func (s *Stats) Detached(fn FuncID) { s.row(fn).AtLeast = true }

// Rows returns a copy of the rows of all functions seen, ordered by total time,
// the longest first, then by name. Their Hists are the Stats' own and go on
// counting.
func (s *Stats) Rows(fns Functions) []Row {
	rows := make([]Row, 0, s.rows.Len())
	s.rows.Each(func(_ FuncID, r *stat) {
		row := r.Row
		row.Hist = &r.hist
		rows = append(rows, row)
	})
	rows = JoinStatic(rows, fns)
	SortRows(rows, fns, SortTotal)
	return rows
}

// JoinStatic makes one row of the places that a static probe has in a file:
// each is a function of its own, and all have one name.
func JoinStatic(rows []Row, fns Functions) []Row {
	type probe struct{ name, path string }
	first := make(map[probe]int)
	out := rows[:0]
	for i := range rows {
		r := rows[i]
		if f := fns.Func(r.Func); f != nil && f.Lang == LangStatic {
			id := probe{f.Name, f.Path}
			if at, seen := first[id]; seen {
				out[at].Merge(&r)
				continue
			}
			first[id] = len(out)
		}
		out = append(out, r)
	}
	return out
}

// Totals returns the session's figures so far.
func (s *Stats) Totals() Totals { return s.totals }

func (s *Stats) row(fn FuncID) *stat {
	r := s.rows.Get(fn)
	if r == nil {
		r = &stat{Row: Row{Func: fn}}
		s.rows.Set(fn, r)
	}
	return r
}

func (s *Stats) at(t uint64) {
	if !s.began {
		s.began, s.totals.First, s.totals.Last = true, t, t
	}
	s.totals.First = min(s.totals.First, t)
	s.totals.Last = max(s.totals.Last, t)
}

// Exact reports whether Duration is what an ended call took, and not an upper
// bound (EndUnwound, EndUnseen) or a lower one (EndOpen, EndDetached).
func (c *Call) Exact() bool {
	switch c.End {
	case EndReturn, EndTask, EndGo, EndExec:
		return true
	}
	return false
}

// SortKey is a column that rows can be ordered by.
type SortKey uint8

// Sort keys.
const (
	SortTotal SortKey = iota
	SortSelf
	SortCalls
	SortMin
	SortP50
	SortP95
	SortP99
	SortMax
	SortName
)

var sortNames = [...]string{"total", "self", "calls", "min", "p50", "p95", "p99", "max", "name"}

// String returns the key as given on the command line.
func (k SortKey) String() string {
	if int(k) < len(sortNames) {
		return sortNames[k]
	}
	return "unknown"
}

// ErrSortKey is wrapped by the error of ParseSortKey.
var ErrSortKey = errors.New("unknown sort key")

// ParseSortKey returns the key of a name as String gives it, or an error
// wrapping ErrSortKey.
func ParseSortKey(s string) (SortKey, error) {
	if i := slices.Index(sortNames[:], s); i >= 0 {
		return SortKey(i), nil
	}
	return 0, fmt.Errorf("%w %q: use one of %s", ErrSortKey, s, strings.Join(sortNames[:], ", "))
}

// SortRows orders rows by key: largest first, names ascending. Rows that are
// equal in it are ordered by calls, then name, module and id, so that the order
// never depends on chance.
func SortRows(rows []Row, fns Functions, key SortKey) {
	type keyed struct {
		v    uint64
		name *Func
		row  Row
	}
	tmp := make([]keyed, len(rows))
	for i := range rows {
		tmp[i] = keyed{sortValue(&rows[i], key), fns.Func(rows[i].Func), rows[i]}
		if tmp[i].name == nil {
			tmp[i].name = new(Func)
		}
	}
	slices.SortFunc(tmp, func(a, b keyed) int {
		byName := cmp.Or(cmp.Compare(a.name.Name, b.name.Name), cmp.Compare(a.name.Module, b.name.Module))
		if key == SortName && byName != 0 {
			return byName
		}
		return cmp.Or(cmp.Compare(b.v, a.v), cmp.Compare(b.row.Calls, a.row.Calls), byName,
			cmp.Compare(a.row.Func, b.row.Func))
	})
	for i := range tmp {
		rows[i] = tmp[i].row
	}
}

func sortValue(r *Row, key SortKey) uint64 {
	switch key {
	case SortTotal:
		return r.Total
	case SortSelf:
		return r.Self
	case SortCalls:
		return r.Calls
	case SortMin:
		return r.Min
	case SortP50:
		return r.Quantile(0.5)
	case SortP95:
		return r.Quantile(0.95)
	case SortP99:
		return r.Quantile(0.99)
	case SortMax:
		return r.Max
	}
	return 0
}

// maxDense bounds the ids that ByFunc keeps in a slice.
const maxDense = 1 << 20

// ByFunc maps FuncIDs to values: a slice for ids as sessions give them, counted
// from 0, and a map for the ids of damaged input. The zero value is empty.
type ByFunc[T any] struct {
	dense  []*T
	sparse map[FuncID]*T
	n      int
}

// Get returns the value of fn, or nil.
func (m *ByFunc[T]) Get(fn FuncID) *T {
	if int(fn) < len(m.dense) {
		return m.dense[fn]
	}
	if fn < maxDense {
		return nil
	}
	return m.sparse[fn]
}

// Set gives fn a value, which must not be nil.
func (m *ByFunc[T]) Set(fn FuncID, v *T) {
	if m.Get(fn) == nil {
		m.n++
	}
	if fn >= maxDense {
		if m.sparse == nil {
			m.sparse = make(map[FuncID]*T)
		}
		m.sparse[fn] = v
		return
	}
	if n := int(fn) + 1; n > len(m.dense) {
		m.dense = append(m.dense, make([]*T, max(n, 2*len(m.dense))-len(m.dense))...)
	}
	m.dense[fn] = v
}

// Len returns how many ids have a value.
func (m *ByFunc[T]) Len() int { return m.n }

// Each calls f for every value: ids below 2^20 ascending, others in no order.
func (m *ByFunc[T]) Each(f func(FuncID, *T)) {
	for i, v := range m.dense {
		if v != nil {
			f(FuncID(i), v)
		}
	}
	for fn, v := range m.sparse {
		f(fn, v)
	}
}
