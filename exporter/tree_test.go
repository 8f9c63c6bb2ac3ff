package exporter

import (
	"bytes"
	"strings"
	"testing"
)

// TestPrune keeps of a tree what weighs most, with its callers, and loses no
// value.
func TestPrune(t *testing.T) {
	p := manyStacks(5000, 1000, 12)
	for _, most := range []int{1, 2, 10, 100, 1000, 1_000_000} {
		tr := newTree(p, false)
		f := &flame{Type: 1, tree: tr}
		f.prune(most)
		f.name(1)
		f.values()
		if want := min(most, len(tr.nodes)); len(f.order) != want {
			t.Errorf("%d of %d nodes kept, want %d", len(f.order), len(tr.nodes), want)
		}
		for typ := range tr.types {
			sum := int64(0)
			for i := range f.order {
				sum += f.Self[typ][i]
				if f.Rest != nil {
					sum += f.Rest[typ][i]
				}
			}
			if sum != tr.total[typ] {
				t.Errorf("%d nodes: values add up to %d, want %d", most, sum, tr.total[typ])
			}
		}
		now, _ := tr.cumulative(1)
		kept := map[int32]bool{}
		least := now[0]
		for _, at := range f.order {
			kept[at] = true
			least = min(least, now[at])
			if up := tr.nodes[at].parent; up >= 0 && !kept[up] {
				t.Fatalf("%d nodes: one is kept without its caller", most)
			}
		}
		for at := range tr.nodes {
			if !kept[int32(at)] && now[at] > least {
				t.Fatalf("%d nodes: one of %d is left out, one of %d kept", most, now[at], least)
			}
		}
		if told := strings.Contains(strings.Join(f.notes, ""), "left out"); told != (most < len(tr.nodes)) {
			t.Errorf("%d of %d nodes: notes %q", most, len(tr.nodes), f.notes)
		}
	}
}

// TestDepthIsBounded takes the innermost frames of a stack without end.
func TestDepthIsBounded(t *testing.T) {
	b := newBuilder()
	b.sample(1, "main; "+strings.Repeat("again; ", 3*maxDepth)+"leaf")
	text := write(t, b.p, FormatFolded, Options{})
	if n := bytes.Count(text, []byte(";")) + 1; n != maxDepth || !bytes.HasSuffix(text, []byte(";leaf 1\n")) {
		t.Errorf("%d frames, ending in %q", n, text[len(text)-20:])
	}
}

func TestRecursionCountsOnce(t *testing.T) {
	b := newBuilder()
	b.sample(10, "main; fib; fib; fib")
	b.sample(5, "main; fib; other; fib")
	for _, r := range newTree(b.p, false).functions(0) {
		want := map[string][2]int64{"main": {0, 15}, "fib": {15, 15}, "other": {0, 5}}[r.name]
		if r.flat != want[0] || r.cum != want[1] {
			t.Errorf("%s has flat %d and cum %d, want %v", r.name, r.flat, r.cum, want)
		}
	}
}

func TestLanguage(t *testing.T) {
	for _, tc := range []struct{ name, mangled, file, module, lang, space, short string }{
		{"main", "", "main.c", "app", "c", "", "main"},
		{"ns::f(int)", "_ZN2ns1fEi", "x.h", "app", "c++", "ns", "ns::f"},
		{"operator new(unsigned long)", "_Znwm", "", "libstdc++.so.6", "c++", "", "operator new"},
		{"core::fmt::write", "_ZN4core3fmt5write17h0123456789abcdefE", "", "app", "rust", "core", "core::fmt::write"},
		{"<a::B as c::D>::e", "_RNvX", "", "app", "rust", "", "a::B::e"},
		{"<alloc::vec::Vec<T> as core::ops::Drop>::drop", "", "", "app", "rust", "", "alloc::vec::Vec<T>::drop"},
		{"net/http.(*conn).serve", "", "", "app", "go", "net/http", "http.(*conn).serve"},
		{"main.Map[github.com/x/y.Z].Get", "", "map.go", "app", "go", "main", "main.Map[github.com/x/y.Z].Get"},
		{"github.com/x/y/v2.F", "", "", "app", "go", "github.com/x/y/v2", "v2.F"},
		{"lists:map/2", "", "", "beam.smp", "erlang", "lists", "lists:map/2"},
		{"LazyCompile:*f app.js:1", "", "", "perf-1.map", "javascript", "", "LazyCompile:*f app.js:1"},
		{"work", "", "job.py", "python3.11", "python", "job.py", "work"},
		{"do_syscall_64", "", "", "[kernel]", "kernel", "", "do_syscall_64"},
		{"memcpy", "", "memcpy.S", "libc.so.6", "assembly", "", "memcpy"},
		{"runtime.memmove", "", "/go/src/runtime/memmove_amd64.s", "app", "go", "runtime", "runtime.memmove"},
		{"malloc", "", "", "libc.so.6", "", "", "malloc"},
	} {
		f := Frame{Name: tc.name, Module: tc.module, File: tc.file}
		f.Lang = language(&f, tc.mangled)
		if f.Lang != tc.lang {
			t.Errorf("%s is %q, want %q", tc.name, f.Lang, tc.lang)
		}
		if tc.space == "" && strings.HasPrefix(tc.name, "<") {
			continue
		}
		if got := namespace(&f); got != tc.space {
			t.Errorf("%s is in %q, want %q", tc.name, got, tc.space)
		}
		if got := shortName(f.Name, f.Lang); got != tc.short {
			t.Errorf("%s is %q for short, want %q", tc.name, got, tc.short)
		}
	}
}
