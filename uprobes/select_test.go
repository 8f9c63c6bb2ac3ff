package uprobes

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

func mustCompile(t testing.TB, s Selector) *Matcher {
	t.Helper()
	m, err := s.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSelectorMatch(t *testing.T) {
	cFunc := &symbolizer.Function{Name: "malloc", Symbol: "malloc", Aliases: []string{"__libc_malloc"}}
	goFunc := &symbolizer.Function{Name: "net/http.(*conn).serve", Symbol: "net/http.(*conn).serve", Lang: symbolizer.LangGo, Package: "net/http"}
	cppFunc := &symbolizer.Function{Name: "ns::Map<int>::get(int)", Symbol: "_ZN2ns3MapIiE3getEi", Lang: symbolizer.LangCPP}
	rustFunc := &symbolizer.Function{Name: "<app::T as core::fmt::Debug>::fmt", Symbol: "_RNx", Lang: symbolizer.LangRust}
	const libc = "/lib/x86_64-linux-gnu/libc.so.6"
	tests := []struct {
		name   string
		sel    Selector
		fn     *symbolizer.Function
		module string
		file   string
		why    string // empty: selected
	}{
		{"nothing restricts", Selector{}, cFunc, libc, "", ""},
		{"name", Selector{Funcs: []string{"malloc"}}, cFunc, libc, "", ""},
		{"alias", Selector{Funcs: []string{"__libc_*"}}, cFunc, libc, "", ""},
		{"other name", Selector{Funcs: []string{"free"}}, cFunc, libc, "", "its name matches no pattern"},
		{"one of several", Selector{Funcs: []string{"free", "mall*"}}, cFunc, libc, "", ""},
		{"linkage symbol", Selector{Funcs: []string{"_ZN2ns3Map*"}}, cppFunc, "app", "", ""},
		{"without parameters", Selector{Funcs: []string{"ns::Map<int>::get"}}, cppFunc, "app", "", ""},
		{"without template arguments", Selector{Funcs: []string{"ns::Map::get"}}, cppFunc, "app", "", ""},
		{"rust self type", Selector{Funcs: []string{"app::T::fmt"}}, rustFunc, "app", "", ""},

		{"regex is not anchored", Selector{Regex: []string{`conn\)\.ser`}}, goFunc, "app", "", ""},
		{"regex", Selector{Regex: []string{`^serve`}}, goFunc, "app", "", "its name matches no pattern"},
		{"glob or regex", Selector{Funcs: []string{"x"}, Regex: []string{"serve$"}}, goFunc, "app", "", ""},

		{"module in the pattern", Selector{Funcs: []string{"libc.so*:malloc"}}, cFunc, libc, "", ""},
		{"another module in the pattern", Selector{Funcs: []string{"libjemalloc*:malloc"}}, cFunc, libc, "", "its name matches no pattern"},
		{"any module in the pattern", Selector{Funcs: []string{"*:malloc"}}, cFunc, libc, "", ""},
		{"module path in the pattern", Selector{Funcs: []string{"/lib/*/libc.so.6:malloc"}}, cFunc, libc, "", ""},
		{"module and scope", Selector{Funcs: []string{"app:ns::Map*"}}, cppFunc, "app", "", ""},
		{"scope is no module", Selector{Funcs: []string{"ns::Map*"}}, cppFunc, "app", "", ""},

		{"module", Selector{Modules: []string{"libc.so*"}}, cFunc, libc, "", ""},
		{"module by base name", Selector{Modules: []string{"libc.so*"}}, cFunc, "libc.so.6", "", ""},
		{"module by path", Selector{Modules: []string{"/lib/*"}}, cFunc, libc, "", ""},
		{"other module", Selector{Modules: []string{"libm*"}}, cFunc, libc, "", "module libc.so.6 is not selected"},
		{"module and name", Selector{Modules: []string{"libc*"}, Funcs: []string{"free"}}, cFunc, libc, "", "its name matches no pattern"},

		{"package", Selector{Packages: []string{"net/http"}}, goFunc, "app", "", ""},
		{"package glob", Selector{Packages: []string{"net/*"}}, goFunc, "app", "", ""},
		{"package tree", Selector{Packages: []string{"net/..."}}, goFunc, "app", "", ""},
		{"package tree has its root", Selector{Packages: []string{"net/http/..."}}, goFunc, "app", "", ""},
		{"package tree ends at path elements", Selector{Packages: []string{"net/ht/..."}}, goFunc, "app", "", "package net/http is not selected"},
		{"all packages", Selector{Packages: []string{"..."}}, goFunc, "app", "", ""},
		{"no package", Selector{Packages: []string{"net"}}, cFunc, libc, "", "its package is not known"},
		{"crate", Selector{Packages: []string{"app"}}, rustFunc, "app", "", ""},

		{"file", Selector{Files: []string{"server.go"}}, goFunc, "app", "/usr/src/net/http/server.go", ""},
		{"file from a component on", Selector{Files: []string{"http/*.go"}}, goFunc, "app", "/usr/src/net/http/server.go", ""},
		{"file not inside a component", Selector{Files: []string{"erver.go"}}, goFunc, "app", "/usr/src/net/http/server.go", "source file /usr/src/net/http/server.go is not selected"},
		{"absolute file", Selector{Files: []string{"/usr/*"}}, goFunc, "app", "/usr/src/net/http/server.go", ""},
		{"absolute file elsewhere", Selector{Files: []string{"/src/*"}}, goFunc, "app", "/usr/src/x.go", "source file /usr/src/x.go is not selected"},
		{"unknown file", Selector{Files: []string{"*"}}, goFunc, "app", "", "its source file is not known"},

		{"exclude", Selector{Funcs: []string{"*"}, Excludes: []string{"net/*"}}, goFunc, "app", "", "excluded by net/*"},
		{"exclude alone", Selector{Excludes: []string{"mall?c"}}, cFunc, libc, "", "excluded by mall?c"},
		{"exclude of another module", Selector{Excludes: []string{"app:malloc"}}, cFunc, libc, "", ""},
		{"exclude of this module", Selector{Excludes: []string{"libc*:mal*"}}, cFunc, libc, "", "excluded by libc*:mal*"},
		{"exclude of an alias", Selector{Excludes: []string{"__libc_malloc"}}, cFunc, libc, "", "excluded by __libc_malloc"},
		{"a percent sign in the reason", Selector{Excludes: []string{"*", "%s"}}, cFunc, libc, "", "excluded by *"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := mustCompile(t, test.sel)
			file := func() string { return test.file }
			ok, why := m.Explain(test.fn, test.module, file)
			if ok != (test.why == "") || why != test.why {
				t.Errorf("got %v, %q; want %q", ok, why, test.why)
			}
			if m.Match(test.fn, test.module, file) != ok {
				t.Error("Match and Explain disagree")
			}
			if ok && !m.MatchModule(test.module) {
				t.Error("MatchModule rejects the module of a selected function")
			}
		})
	}
}

func TestFileIsAskedLast(t *testing.T) {
	m := mustCompile(t, Selector{Funcs: []string{"f*"}, Files: []string{"x.c"}, Excludes: []string{"fx"}})
	asked := 0
	file := func() string { asked++; return "/src/x.c" }
	for _, name := range []string{"g", "fx", "h"} {
		m.Match(&symbolizer.Function{Name: name, Symbol: name}, "app", file)
	}
	if asked != 0 {
		t.Errorf("asked for the file of %d functions that are out anyway", asked)
	}
	if !m.Match(&symbolizer.Function{Name: "f", Symbol: "f"}, "app", file) || asked != 1 {
		t.Errorf("f is not selected, or its file was asked for %d times", asked)
	}
	if m.Match(&symbolizer.Function{Name: "f", Symbol: "f"}, "app", nil) {
		t.Error("f is selected without a file")
	}
}

func TestModuleColon(t *testing.T) {
	tests := map[string]int{
		"libc.so*:malloc":          8,
		"malloc":                   -1,
		"std::string":              -1,
		"libx.so:std::string":      7,
		"a::f[abi:cxx11]":          -1,
		"f[abi:cxx11]":             -1,
		"{lambda(auto:1)#1}":       -1,
		"f({lambda(auto:1)#1})":    -1,
		"main.(*T).M":              -1,
		":f":                       -1,
		"lib[a-c].so:f":            11,
		`lib\:x:f`:                 6,
		"operator new:x":           -1,
		"*:f":                      1,
		"std::f:x":                 -1,
		"/usr/lib/libc.so.6:f[ab]": 18,
	}
	for text, want := range tests {
		if got := moduleColon(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	m, err := Selector{
		Funcs:    []string{"ok", "libc*:x[9-0]"},
		Regex:    []string{"a(b", "x**", "", strings.Repeat("a", maxPattern+1)},
		Modules:  []string{`x\`},
		Packages: []string{"net/[z-a]/..."},
		Files:    []string{"", "a[c-b].go"},
		Excludes: []string{"lib[z-a]:f"},
	}.Compile()
	if m != nil || !errors.Is(err, ErrPattern) {
		t.Fatalf("got %v, %v", m, err)
	}
	for _, want := range []string{
		`bad function pattern "libc*:x[9-0]", column 9: the range "9-0" runs backwards`,
		`bad regex pattern "a(b", column 1: missing closing )`,
		`bad regex pattern "x**", column 2: invalid nested repetition operator`,
		`bad regex pattern "", column 1: the pattern is empty`,
		`column 16385: longer than 16384 bytes`,
		`bad module pattern "x\\", column 2: nothing follows`,
		`bad package pattern "net/[z-a]/...", column 6: the range`,
		`bad file pattern "", column 1: the pattern is empty`,
		`bad file pattern "a[c-b].go", column 3: the range`,
		`bad exclude pattern "lib[z-a]:f", column 5: the range`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in:\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 10 {
		t.Errorf("%d errors, want 10:\n%v", n, err)
	}
}

func TestUnmatched(t *testing.T) {
	m := mustCompile(t, Selector{
		Funcs:    []string{"f*", "fo", "typo", "other:f"},
		Regex:    []string{"^f", "^z"},
		Modules:  []string{"app", "libm*"},
		Packages: []string{"a", "b"},
		Files:    []string{"x.go", "y.go"},
		Excludes: []string{"never"},
	})
	all := []Pattern{
		{PatternFunc, "f*"}, {PatternFunc, "fo"}, {PatternFunc, "typo"}, {PatternFunc, "other:f"},
		{PatternRegex, "^f"}, {PatternRegex, "^z"}, {PatternModule, "app"}, {PatternModule, "libm*"},
		{PatternPackage, "a"}, {PatternPackage, "b"}, {PatternFile, "x.go"}, {PatternFile, "y.go"},
	}
	if got := m.Unmatched(); !slices.Equal(got, all) {
		t.Errorf("before any function: %v", got)
	}
	for _, name := range []string{"f", "fo", "g"} {
		m.Match(&symbolizer.Function{Name: name, Symbol: name, Package: "a", Lang: symbolizer.LangGo}, "app", func() string { return "/x.go" })
	}
	want := []Pattern{{PatternFunc, "typo"}, {PatternFunc, "other:f"}, {PatternRegex, "^z"}, {PatternModule, "libm*"}, {PatternPackage, "b"}, {PatternFile, "y.go"}}
	if got := m.Unmatched(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMatchModule(t *testing.T) {
	tests := []struct {
		sel    Selector
		module string
		want   bool
	}{
		{Selector{Funcs: []string{"malloc"}}, "libc.so.6", true},
		{Selector{Funcs: []string{"libc*:malloc"}}, "/lib/libc.so.6", true},
		{Selector{Funcs: []string{"libc*:malloc"}}, "/lib/libm.so.6", false},
		{Selector{Funcs: []string{"libc*:malloc", "f"}}, "/lib/libm.so.6", true},
		{Selector{Funcs: []string{"libc*:malloc"}, Regex: []string{"f"}}, "/lib/libm.so.6", true},
		{Selector{Modules: []string{"libc*"}}, "/lib/libm.so.6", false},
		{Selector{Modules: []string{"libc*"}, Funcs: []string{"libm*:f"}}, "/lib/libm.so.6", false},
		{Selector{}, "app", true},
		{Selector{}, "libc.so.6", false},
		{Selector{Excludes: []string{"f"}}, "libc.so.6", false},
	}
	for _, test := range tests {
		m := mustCompile(t, test.sel).WithDefault(ModuleInfo{Name: "/usr/bin/app"})
		if got := m.MatchModule(test.module); got != test.want {
			t.Errorf("%+v, %s: got %v", test.sel, test.module, got)
		}
	}
}

func TestSelectorEmpty(t *testing.T) {
	if !(Selector{Excludes: []string{"x"}}).Empty() {
		t.Error("excludes alone select something")
	}
	for _, s := range []Selector{{Funcs: []string{"x"}}, {Regex: []string{"x"}}, {Modules: []string{"x"}}, {Packages: []string{"x"}}, {Files: []string{"x"}}} {
		if s.Empty() {
			t.Errorf("%+v is empty", s)
		}
	}
}

// manyFunctions makes n functions of mixed languages.
func manyFunctions(n int) []symbolizer.Function {
	fns := make([]symbolizer.Function, n)
	for i := range fns {
		switch i % 4 {
		case 0:
			name := fmt.Sprintf("github.com/example/app/internal/store%d.(*Table%d[...]).Insert%d", i%97, i%31, i)
			fns[i] = symbolizer.Function{Name: name, Symbol: name, Lang: symbolizer.LangGo, Package: fmt.Sprintf("github.com/example/app/internal/store%d", i%97)}
		case 1:
			fns[i] = symbolizer.Function{
				Name:   fmt.Sprintf("std::vector<ns%d::Item, std::allocator<ns%d::Item> > ns%d::Store<int>::find%d(std::string const&, int) const", i%17, i%17, i%17, i),
				Symbol: fmt.Sprintf("_ZNK3ns%d5StoreIiE5find%dERKSsi", i%17, i), Lang: symbolizer.LangCPP,
			}
		default:
			name := fmt.Sprintf("redis_module_%d_command_%d", i%13, i)
			fns[i] = symbolizer.Function{Name: name, Symbol: name, Lang: symbolizer.LangC, Aliases: []string{"__" + name}}
		}
	}
	return fns
}

func BenchmarkMatch80000(b *testing.B) {
	fns := manyFunctions(80000)
	m := mustCompile(b, Selector{
		Funcs:    []string{"*::find12*", "github.com/*/store1*.(*Table*).Insert*", "redis_*_command_1?", "malloc", "libc.so*:free"},
		Excludes: []string{"*debug*"},
	})
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for i := range fns {
			if m.Match(&fns[i], "app", nil) {
				n++
			}
		}
		if n == 0 {
			b.Fatal("nothing matches")
		}
	}
}
