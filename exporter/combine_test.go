package exporter

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

func TestMerge(t *testing.T) {
	p := cacheServer()
	before := p.String()
	m, err := Merge(p, slowerServer(), cacheServer())
	if err != nil {
		t.Fatal(err)
	}
	want := totals(p)
	for i, v := range totals(slowerServer()) {
		want[i] = 2*want[i] + v
	}
	if got := totals(m); !slices.Equal(got, want) {
		t.Errorf("values add up to %v, want %v", got, want)
	}
	if len(m.Sample) != len(p.Sample) {
		t.Errorf("%d samples, want the %d of one profile: their stacks are the same", len(m.Sample), len(p.Sample))
	}
	if m.DurationNanos != 3*p.DurationNanos {
		t.Errorf("duration %d", m.DurationNanos)
	}
	if p.String() != before {
		t.Error("merging changed a profile")
	}
	one, err := Merge(p)
	if err != nil || one.String() != before {
		t.Errorf("one profile merged is another: %v", err)
	}
}

func TestMergeTypes(t *testing.T) {
	cpu := func(names ...string) *profile.Profile {
		var types []*profile.ValueType
		for _, n := range names {
			name, unit, _ := strings.Cut(n, "/")
			types = append(types, &profile.ValueType{Type: name, Unit: unit})
		}
		b := newBuilder(types...)
		b.sample(1, "a; b")
		return b.p
	}
	m, err := Merge(cpu("samples/count", "cpu/nanoseconds"), cpu("cpu/nanoseconds", "wall/nanoseconds"))
	if err != nil {
		t.Fatal(err)
	}
	if got := typeNames(m); got != "cpu/nanoseconds" {
		t.Errorf("common types: %s", got)
	}
	if got := totals(m)[0]; got != 10_000_001 {
		t.Errorf("10 ms and 1 ns add up to %d", got)
	}
	for _, tc := range [][2]*profile.Profile{
		{cpu("cpu/nanoseconds"), cpu("wall/nanoseconds")}, {cpu("cpu/nanoseconds"), cpu("cpu/count")},
	} {
		if _, err := Merge(tc[0], tc[1]); !errors.Is(err, ErrIncompatible) {
			t.Errorf("%s and %s merged: %v", typeNames(tc[0]), typeNames(tc[1]), err)
		}
	}
	other := cpu("cpu/nanoseconds")
	other.PeriodType = nil
	if _, err := Merge(cpu("cpu/nanoseconds"), other); err != nil {
		t.Errorf("without a period: %v", err)
	}
}

func TestDiff(t *testing.T) {
	p, base := slowerServer(), cacheServer()
	d := diffOf(t, p, base)
	tr := newTree(d, false)
	if !slices.Equal(tr.total, totals(p)) || !slices.Equal(tr.was, totals(base)) {
		t.Errorf("totals %v and %v, want %v and %v", tr.total, tr.was, totals(p), totals(base))
	}
	rows := tr.functions(1)
	for _, r := range rows {
		if r.name == "parse_query" && (r.flat != 0 || r.baseFlat != 900_000_000) {
			t.Errorf("parse_query was 900 ms and is gone: %+v", r)
		}
		if r.name == "dict_find" && (r.flat != 3*2_420_000_000 || r.baseFlat != 2_420_000_000) {
			t.Errorf("dict_find is three times as long: %+v", r)
		}
	}
	if _, err := Diff(d, base); err == nil {
		t.Error("a comparison was compared")
	}
	if d := diffOf(t, base, base); len(d.Sample) != 2*len(base.Sample) {
		t.Errorf("a profile and itself: %d samples", len(d.Sample))
	}
}

func TestScale(t *testing.T) {
	p := cacheServer()
	Scale(p, 0.5)
	if got := totals(p); !slices.Equal(got, []int64{500, 5_000_000_000}) {
		t.Errorf("half of 1000 samples: %v", got)
	}
}

func TestFilter(t *testing.T) {
	for _, tc := range []struct {
		name string
		f    Filter
		want int64
	}{
		{"nothing", Filter{}, 1000},
		{"thread name", Filter{Threads: []string{"io_*"}}, 118},
		{"thread id", Filter{Threads: []string{"4711"}}, 882},
		{"two threads", Filter{Threads: []string{"io_thd_1", "cache-server"}}, 1000},
		{"process", Filter{PIDs: []string{"4711"}}, 1000},
		{"no such process", Filter{PIDs: []string{"471"}}, 0},
		{"kernel", Filter{Modules: []string{"[[]kernel]", "[kernel]"}}, 360},
		{"library", Filter{Modules: []string{"libz.so*"}}, 4},
		{"function", Filter{Funcs: []string{"dict_find"}}, 242},
		{"inlined function", Filter{Funcs: []string{"process_ev?nts"}}, 880},
		{"caller and thread", Filter{Funcs: []string{"write_*"}, Threads: []string{"io_*"}}, 80},
	} {
		p := cacheServer()
		before := p.String()
		got := tc.f.Apply(p)
		if err := got.CheckValid(); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if n := totals(got)[0]; n != tc.want {
			t.Errorf("%s: %d samples, want %d", tc.name, n, tc.want)
		}
		if p.String() != before {
			t.Errorf("%s: the profile was changed", tc.name)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"*", "", true}, {"", "", true}, {"", "a", false}, {"a", "a", true}, {"a*", "abc", true}, {"*c", "abc", true},
		{"a*c", "ac", true}, {"a*c", "abcd", false}, {"a*b*c", "a-b-b-c", true}, {"a*b*c", "acb", false}, {"ab*ba", "aba", false},
		{"?", "", false}, {"??", "ab", true}, {"*?c", "bc", true}, {"*?c", "c", false}, {"**", "x", true}, {"a*a*a*a*b", strings.Repeat("a", 200), false},
		{"std::*<*>::push_back*", "std::vector<int>::push_back(int&&)", true},
	} {
		if got := matches(globs([]string{tc.pattern}), tc.s); got != tc.want {
			t.Errorf("%q and %q: %v", tc.pattern, tc.s, got)
		}
	}
}
