package trace

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// names is a Functions whose ids are indices.
type names []string

func (n names) Func(id FuncID) *Func {
	if int(id) < len(n) {
		return &Func{ID: id, Name: n[id]}
	}
	return nil
}

func TestStats(t *testing.T) {
	s := NewStats()
	l := &Lane{PID: 1, TID: 1}
	leave := func(fn FuncID, dur, child uint64, edit func(*Call)) {
		c := Call{Start: 1000, Last: 1000 + dur, Child: child, Func: fn}
		if edit != nil {
			edit(&c)
		}
		s.Enter(l, &c)
		s.Leave(l, &c)
	}
	leave(0, 10, 0, nil)
	leave(0, 30, 20, nil)
	leave(0, 7, 0, func(c *Call) { c.Recursive = true })
	leave(1, 500, 0, func(c *Call) { c.End = EndUnwound })
	leave(1, 2, 0, func(c *Call) { c.End = EndTask })
	leave(2, 47, 47, func(c *Call) { c.End, c.Gap = EndDetached, true })
	s.Event(&Event{Kind: KindLost, Time: 5000, Count: 12, Cause: LostRing})
	s.Event(&Event{Kind: KindLost, Count: 3, Cause: LostMissed})
	s.Event(&Event{Kind: KindExec, Time: 900})
	s.Detached(1)

	rows := s.Rows(names{"f", "g", "h"})
	type want struct {
		fn                                        FuncID
		calls, timed, total, self, min, max, gaps uint64
		unreturned                                uint64
		atLeast                                   bool
	}
	var got []want
	for _, r := range rows {
		got = append(got, want{r.Func, r.Calls, r.Timed, r.Total, r.Self, r.Min, r.Max, r.Gaps, r.Unreturned(), r.AtLeast})
		if n := r.Hist.Count(); n != r.Timed {
			t.Errorf("function %d: histogram of %d calls, want %d", r.Func, n, r.Timed)
		}
	}
	wants := []want{
		{fn: 1, calls: 2, timed: 1, total: 502, self: 502, min: 2, max: 2, unreturned: 2, atLeast: true},
		{fn: 2, calls: 1, total: 47, gaps: 1, unreturned: 1, atLeast: true},
		{fn: 0, calls: 3, timed: 3, total: 40, self: 27, min: 7, max: 30},
	}
	if !slices.Equal(got, wants) {
		t.Errorf("rows\n got %+v\nwant %+v", got, wants)
	}
	totals := s.Totals()
	if totals.Calls != 6 || totals.AllLost() != 15 || totals.Lost[LostRing] != 12 || totals.Gaps != 1 ||
		totals.Unreturned() != 3 || totals.Elapsed() != 4100 {
		t.Errorf("totals %+v, elapsed %d", totals, totals.Elapsed())
	}
}

func TestStatsDoNotAllocate(t *testing.T) {
	s := NewStats()
	l := &Lane{}
	c := Call{Func: 3}
	n := uint64(0)
	run := func() {
		n += 7919
		c.Last = c.Start + n%100_000
		s.Enter(l, &c)
		s.Leave(l, &c)
	}
	for range 10_000 {
		run()
	}
	if allocs := testing.AllocsPerRun(1000, run); allocs != 0 {
		t.Errorf("%v allocations per call", allocs)
	}
}

func TestStatsSurviveUnknownValues(t *testing.T) {
	s := NewStats()
	s.Leave(&Lane{}, &Call{Func: 1<<32 - 1, End: 200, Start: 9, Last: 3})
	s.Event(&Event{Kind: KindLost, Cause: 200, Count: 1})
	rows := s.Rows(names{})
	if len(rows) != 1 || rows[0].Func != 1<<32-1 || rows[0].Total != 0 || rows[0].Unreturned() != 1 {
		t.Errorf("rows %+v", rows)
	}
}

func TestRowMerge(t *testing.T) {
	h := func(values ...uint64) *Hist {
		h := new(Hist)
		for _, v := range values {
			h.Add(v)
		}
		return h
	}
	r := Row{Calls: 1}
	r.Merge(&Row{Calls: 2, Timed: 2, Total: 30, Self: 20, Min: 10, Max: 20, Hist: h(10, 20), Gaps: 1, Ends: [NumEndKinds]uint64{EndReturn: 2}})
	r.Merge(&Row{Calls: 1, Timed: 1, Total: 5, Self: 5, Min: 5, Max: 5, Hist: h(5), AtLeast: true, Ends: [NumEndKinds]uint64{EndOpen: 1}})
	r.Merge(&Row{Calls: 9})
	if r.Calls != 13 || r.Timed != 3 || r.Total != 35 || r.Self != 25 || r.Min != 5 || r.Max != 20 || r.Gaps != 1 ||
		!r.AtLeast || r.Hist.Count() != 3 || r.Unreturned() != 1 || r.Quantile(0.5) != 10 {
		t.Errorf("merged %+v, p50 %d", r, r.Quantile(0.5))
	}
}

func TestSortRows(t *testing.T) {
	fns := names{"c", "a", "b", "d"}
	hist := new(Hist)
	hist.Add(5)
	rows := func() []Row {
		return []Row{
			{Func: 0, Calls: 1, Total: 10, Self: 1, Timed: 1, Min: 5, Max: 5, Hist: hist},
			{Func: 1, Calls: 9, Total: 5, Self: 5},
			{Func: 2, Calls: 1, Total: 10, Self: 3},
			{Func: 3, Calls: 2, Total: 10, Self: 2},
		}
	}
	for _, tc := range []struct {
		key  string
		want []FuncID
	}{
		{"total", []FuncID{3, 2, 0, 1}},
		{"self", []FuncID{1, 2, 3, 0}},
		{"calls", []FuncID{1, 3, 2, 0}},
		{"min", []FuncID{0, 1, 3, 2}},
		{"p50", []FuncID{0, 1, 3, 2}},
		{"p95", []FuncID{0, 1, 3, 2}},
		{"p99", []FuncID{0, 1, 3, 2}},
		{"max", []FuncID{0, 1, 3, 2}},
		{"name", []FuncID{1, 2, 0, 3}},
	} {
		key, err := ParseSortKey(tc.key)
		if err != nil {
			t.Fatal(err)
		}
		if key.String() != tc.key {
			t.Errorf("%q parses to %q", tc.key, key)
		}
		for range 5 {
			r := rows()
			rand.Shuffle(len(r), func(i, j int) { r[i], r[j] = r[j], r[i] })
			SortRows(r, fns, key)
			var got []FuncID
			for _, row := range r {
				got = append(got, row.Func)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("by %s: %v, want %v", key, got, tc.want)
			}
		}
	}
	if _, err := ParseSortKey("size"); !errors.Is(err, ErrSortKey) {
		t.Errorf("unknown key: %v", err)
	}
}

func TestKindCounts(t *testing.T) {
	// A kind appended to the enumerations must be counted too.
	if s := EndKind(NumEndKinds).String(); s != "unknown" {
		t.Errorf("NumEndKinds leaves out %q", s)
	}
	if s := LostCause(NumLostCauses).String(); s != "unknown" {
		t.Errorf("NumLostCauses leaves out %q", s)
	}
}

func TestByFunc(t *testing.T) {
	var m ByFunc[int]
	ids := []FuncID{0, 5, 4096, maxDense - 1, maxDense, 1<<32 - 1}
	for i, id := range ids {
		if m.Get(id) != nil {
			t.Errorf("id %d is there before it is set", id)
		}
		m.Set(id, &i)
		m.Set(id, &i)
	}
	seen := 0
	m.Each(func(id FuncID, v *int) {
		seen++
		if ids[*v] != id {
			t.Errorf("id %d has the value of %d", id, ids[*v])
		}
	})
	if seen != len(ids) || m.Len() != len(ids) {
		t.Errorf("%d values, Len %d, want %d", seen, m.Len(), len(ids))
	}
}

func BenchmarkStats(b *testing.B) {
	s := NewStats()
	l := &Lane{}
	c := Call{}
	b.ReportAllocs()
	for i := range uint64(b.N) {
		c.Func = FuncID(i % 500)
		c.Last = c.Start + i*7919%1_000_000
		s.Enter(l, &c)
		s.Leave(l, &c)
	}
}
