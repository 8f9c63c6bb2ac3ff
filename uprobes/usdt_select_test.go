package uprobes

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestUSDTMatcher(t *testing.T) {
	entry := &StaticProbe{Provider: "python", Name: "function__entry"}
	query := &StaticProbe{Provider: "postgresql", Name: "query__parse__start"}
	const lib = "/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0"
	tests := []struct {
		pattern string
		probe   *StaticProbe
		module  string
		want    bool
	}{
		{"python:function__entry", entry, lib, true},
		{"python:function__*", entry, lib, true},
		{"py*:*", entry, lib, true},
		{"*:*", query, "postgres", true},
		{"python:*", query, "postgres", false},
		{"postgresql:query__*", query, "postgres", true},
		{"postgresql:query__start", query, "postgres", false},
		{"postgresql:query-parse-start", query, "postgres", true},
		{"postgresql:query-*", query, "postgres", true},
		{"query__parse__start", query, "postgres", true},
		{"query__parse", query, "postgres", false},
		{"libpython*:python:function__entry", entry, lib, true},
		{"libpython*:python:function__entry", entry, "/usr/bin/python3.11", false},
		{"/usr/bin/*:python:*", entry, "/usr/bin/python3.11", true},
		{"/usr/bin/*:python:*", entry, lib, false},
	}
	for _, test := range tests {
		m, err := CompileUSDT([]string{"no:such", test.pattern})
		if err != nil {
			t.Errorf("%q: %v", test.pattern, err)
			continue
		}
		if got := m.Match(test.probe, test.module); got != test.want {
			t.Errorf("%q, %s of %s: got %v", test.pattern, test.probe.ID(), test.module, got)
		}
		want := []Pattern{{PatternUSDT, "no:such"}}
		if !test.want {
			want = append(want, Pattern{PatternUSDT, test.pattern})
		}
		if got := m.Unmatched(); !slices.Equal(got, want) {
			t.Errorf("%q: unmatched %v, want %v", test.pattern, got, want)
		}
	}
}

func TestCompileUSDTErrors(t *testing.T) {
	m, err := CompileUSDT([]string{"a:b:c:d", "p:", ":n", "", "lib[z-a]:p:n", `p:n\`, "ok:ok", ":p:n"})
	if m != nil || !errors.Is(err, ErrPattern) {
		t.Fatalf("got %v, %v", m, err)
	}
	for _, want := range []string{
		`bad static probe pattern "a:b:c:d", column 6: more than three parts`,
		`bad static probe pattern "p:", column 3: the pattern is empty`,
		`bad static probe pattern ":n", column 1: the pattern is empty`,
		`bad static probe pattern "", column 1: the pattern is empty`,
		`bad static probe pattern "lib[z-a]:p:n", column 5: the range "z-a" runs backwards`,
		`bad static probe pattern "p:n\\", column 4: nothing follows`,
		`bad static probe pattern ":p:n", column 1: the pattern is empty`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in:\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 7 {
		t.Errorf("%d errors, want 7:\n%v", n, err)
	}
}

func TestNearestUSDT(t *testing.T) {
	probes := []StaticProbe{
		{Provider: "python", Name: "function__entry"}, {Provider: "python", Name: "function__return"},
		{Provider: "postgresql", Name: "query__start"}, {Provider: "postgresql", Name: "query__start"}, {Provider: "other", Name: "query__start"},
	}
	tests := []struct {
		pattern string
		limit   int
		want    []string
	}{
		{"python:function__entyr", 3, []string{"python:function__entry"}},
		{"pyhton:function__entry", 3, []string{"python:function__entry"}},
		{"lib:python:functoin__*", 3, []string{"python:function__entry", "python:function__return"}},
		{"postgres:query-strat", 3, []string{"postgresql:query__start", "other:query__start"}},
		{"query-strat", 1, []string{"postgresql:query__start"}},
		{"x:nothing_alike", 3, nil},
	}
	for _, test := range tests {
		got := NearestUSDT(test.pattern, probes, test.limit)
		if len(got) > test.limit || !slices.Equal(got, test.want) {
			t.Errorf("%q: got %q, want %q", test.pattern, got, test.want)
		}
	}
}
