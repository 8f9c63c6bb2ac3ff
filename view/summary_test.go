package view

import (
	"bytes"
	"testing"

	"github.com/sbxtrace/sbxtrace/trace"
)

// busy acts out a program with durations of many sizes.
func busy(s *stage) {
	a := s.thread(4711, 4711)
	a.enter(fnMain)
	for i := range uint64(1200) {
		a.enter(fnParse)
		a.leaf(fnMalloc, 40+i*i%977)
		a.leave(fnParse, 900+i*i%50_000)
		if i%100 == 0 {
			a.leaf(fnLong, 3*ms+i*ms/10)
		}
	}
	a.enter(fnThrow)
	a.drop(1)
	a.leave(fnMain, sec)
	a.enter(fnServe)
	s.send(trace.Event{Kind: trace.KindLost, Count: 12345, Cause: trace.LostRing})
	s.send(a.event(trace.Event{Kind: trace.KindExit, Func: fnFib, SP: top + 0x100}))
}

func summarize(act func(*stage)) ([]trace.Row, *trace.Totals) {
	stats := trace.NewStats()
	s := newStage(stats)
	act(s)
	s.finish()
	stats.Detached(fnMalloc)
	totals := stats.Totals()
	totals.Orphans = s.p.Orphans
	return stats.Rows(program), &totals
}

func TestSummary(t *testing.T) {
	rows, totals := summarize(busy)
	counts := make([]trace.Row, len(rows))
	for i, r := range rows {
		counts[i] = trace.Row{Func: r.Func, Calls: r.Calls * 1000, AtLeast: r.AtLeast}
	}
	elapsed := &trace.Totals{First: 1, Last: 1 + 2*sec}
	deep := *totals
	deep.Ends[trace.EndUnseen], deep.Stacks, deep.Cut = 36, 2414, 120
	// Where the kernel adds up it does not tell how calls ended.
	aggregated := *elapsed
	aggregated.Lost[trace.LostStack] = 1372
	for _, tc := range []struct {
		name   string
		rows   []trace.Row
		totals *trace.Totals
		opt    SummaryOptions
	}{
		{"any", rows, totals, SummaryOptions{}},
		{"160", rows, totals, SummaryOptions{Width: 160, Sort: trace.SortCalls}},
		{"120", rows, totals, SummaryOptions{Width: 120, Sort: trace.SortSelf}},
		{"80", rows, totals, SummaryOptions{Width: 80}},
		{"40", rows, totals, SummaryOptions{Width: 40, Limit: 3}},
		{"10", rows, totals, SummaryOptions{Width: 10, Sort: trace.SortName}},
		{"color", rows, totals, SummaryOptions{Width: 120, Color: true}},
		{"count", counts, elapsed, SummaryOptions{}},
		{"count-untimed", counts, new(trace.Totals), SummaryOptions{Width: 60}},
		{"deep", rows, &deep, SummaryOptions{}},
		{"aggregated", rows, &aggregated, SummaryOptions{}},
		{"empty", nil, new(trace.Totals), SummaryOptions{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := Summary(&out, program, tc.rows, tc.totals, tc.opt); err != nil {
				t.Fatal(err)
			}
			golden(t, "summary-"+tc.name+".txt", out.Bytes())
		})
	}
}

func TestHistogram(t *testing.T) {
	rows, _ := summarize(busy)
	for _, tc := range []struct {
		name string
		fn   trace.FuncID
		opt  SummaryOptions
	}{
		{"parse", fnParse, SummaryOptions{}},
		{"malloc-60", fnMalloc, SummaryOptions{Width: 60}},
		{"main", fnMain, SummaryOptions{}},
		{"open", fnServe, SummaryOptions{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			for i := range rows {
				if rows[i].Func != tc.fn {
					continue
				}
				if err := Histogram(&out, program, &rows[i], tc.opt); err != nil {
					t.Fatal(err)
				}
			}
			golden(t, "hist-"+tc.name+".txt", out.Bytes())
		})
	}
}
