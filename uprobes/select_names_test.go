package uprobes

import (
	"slices"
	"testing"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

func TestNameForms(t *testing.T) {
	tests := []struct {
		fn   symbolizer.Function
		want []string
	}{
		// C
		{symbolizer.Function{Name: "main", Symbol: "main"}, []string{"main"}},
		{symbolizer.Function{Name: "f", Symbol: "f", Aliases: []string{"g", "h@V1"}}, []string{"f", "g", "h@V1", "h"}},
		{symbolizer.Function{Name: "memcpy", Symbol: "memcpy@@GLIBC_2.14"}, []string{"memcpy", "memcpy@@GLIBC_2.14", "memcpy"}},
		{symbolizer.Function{Name: "f.constprop.0", Symbol: "f.constprop.0"}, []string{"f.constprop.0", "f"}},
		{symbolizer.Function{Name: "f.part.0.isra.0", Symbol: "f.part.0.isra.0"}, []string{"f.part.0.isra.0", "f"}},
		{symbolizer.Function{Name: "f.llvm.123", Symbol: "f.llvm.123"}, []string{"f.llvm.123", "f"}},
		{symbolizer.Function{Name: "f.cold", Symbol: "f.cold"}, []string{"f.cold"}},
		{symbolizer.Function{Name: "f.part.0.cold", Symbol: "f.part.0.cold"}, []string{"f.part.0.cold"}},
		{symbolizer.Function{Name: "lib.so+0x10"}, []string{"lib.so+0x10"}},

		// Go
		{symbolizer.Function{Name: "net/http.(*conn).serve", Symbol: "net/http.(*conn).serve", Lang: symbolizer.LangGo},
			[]string{"net/http.(*conn).serve"}},
		{symbolizer.Function{Name: "main.Map[...]", Symbol: "main.Map[go.shape.int]", Lang: symbolizer.LangGo},
			[]string{"main.Map[...]", "main.Map", "main.Map[go.shape.int]"}},
		{symbolizer.Function{Name: "main.(*S[a[b]]).P.func1", Symbol: "main.(*S[a[b]]).P.func1", Lang: symbolizer.LangGo},
			[]string{"main.(*S[a[b]]).P.func1", "main.(*S).P.func1"}},

		// C++
		{symbolizer.Function{Name: "ns::f(int)", Symbol: "_ZN2ns1fEi"}, []string{"ns::f(int)", "ns::f", "_ZN2ns1fEi"}},
		{symbolizer.Function{Name: "void ns::f<int>(int, char*)", Symbol: "_Zx"},
			[]string{"void ns::f<int>(int, char*)", "ns::f<int>", "ns::f", "_Zx"}},
		{symbolizer.Function{Name: "std::map<int, a<b> >::get(int) const", Symbol: "_Zx"},
			[]string{"std::map<int, a<b> >::get(int) const", "std::map<int, a<b> >::get", "std::map::get", "_Zx"}},
		{symbolizer.Function{Name: "ns::f<int>.constprop.0", Symbol: "_Zx.constprop.0"},
			[]string{"ns::f<int>.constprop.0", "ns::f<int>", "ns::f", "_Zx.constprop.0", "_Zx"}},
		{symbolizer.Function{Name: "f(int) [clone .isra.0]", Symbol: "_Z1fi.isra.0"},
			[]string{"f(int) [clone .isra.0]", "f", "_Z1fi.isra.0", "_Z1fi"}},
		{symbolizer.Function{Name: "(anonymous namespace)::f()", Symbol: "_Zx"},
			[]string{"(anonymous namespace)::f()", "(anonymous namespace)::f", "_Zx"}},
		{symbolizer.Function{Name: "main::{lambda(int)#1}::operator()(int) const", Symbol: "_Zx"},
			[]string{"main::{lambda(int)#1}::operator()(int) const", "main::{lambda(int)#1}::operator()", "_Zx"}},
		{symbolizer.Function{Name: "f(int)::g::h(char)", Symbol: "_Zx"},
			[]string{"f(int)::g::h(char)", "f(int)::g::h", "_Zx"}},
		{symbolizer.Function{Name: "a::operator[](unsigned long)", Symbol: "_Zx"},
			[]string{"a::operator[](unsigned long)", "a::operator[]", "_Zx"}},
		{symbolizer.Function{Name: "a<b>::operator<(a<b> const&)", Symbol: "_Zx"},
			[]string{"a<b>::operator<(a<b> const&)", "a<b>::operator<", "a::operator<", "_Zx"}},
		{symbolizer.Function{Name: "std::ostream& std::operator<< <char>(std::ostream&, char)", Symbol: "_Zx"},
			[]string{"std::ostream& std::operator<< <char>(std::ostream&, char)", "std::operator<< <char>", "std::operator<<", "_Zx"}},
		{symbolizer.Function{Name: "a::operator->() const", Symbol: "_Zx"},
			[]string{"a::operator->() const", "a::operator->", "_Zx"}},
		{symbolizer.Function{Name: "operator new[](unsigned long)", Symbol: "_Zx"},
			[]string{"operator new[](unsigned long)", "operator new[]", "_Zx"}},
		{symbolizer.Function{Name: "operator new(unsigned long)", Symbol: "_Zx"},
			[]string{"operator new(unsigned long)", "operator new", "_Zx"}},
		{symbolizer.Function{Name: "a::operator std::vector<int> const&() const", Symbol: "_Zx"},
			[]string{"a::operator std::vector<int> const&() const", "a::operator std::vector<int> const&", "_Zx"}},
		{symbolizer.Function{Name: "decltype ({parm#1}+1) add<int>(int)", Symbol: "_Zx"},
			[]string{"decltype ({parm#1}+1) add<int>(int)", "add<int>", "add", "_Zx"}},
		{symbolizer.Function{Name: "a::f() const::{lambda()#1}::operator()() const", Symbol: "_Zx"},
			[]string{"a::f() const::{lambda()#1}::operator()() const", "a::f() const::{lambda()#1}::operator()", "_Zx"}},
		{symbolizer.Function{Name: "f[abi:cxx11](int)", Symbol: "_Zx"},
			[]string{"f[abi:cxx11](int)", "f[abi:cxx11]", "_Zx"}},
		{symbolizer.Function{Name: "non-virtual thunk to a::f()", Symbol: "_ZThn16x"},
			[]string{"non-virtual thunk to a::f()", "_ZThn16x"}},

		// Rust, legacy and v0
		{symbolizer.Function{Name: "app::run", Symbol: "_ZN3app3run17h0123456789abcdefE", Lang: symbolizer.LangRust},
			[]string{"app::run", "_ZN3app3run17h0123456789abcdefE"}},
		{symbolizer.Function{Name: "<app::T<u8> as core::fmt::Debug>::fmt", Symbol: "_RNx", Lang: symbolizer.LangRust},
			[]string{"<app::T<u8> as core::fmt::Debug>::fmt", "app::T<u8>::fmt", "app::T::fmt", "_RNx"}},
		{symbolizer.Function{Name: "<app::T>::new", Symbol: "_RNx", Lang: symbolizer.LangRust},
			[]string{"<app::T>::new", "app::T::new", "_RNx"}},
		{symbolizer.Function{Name: "app::map::<i32, fn(i32) -> i32>", Symbol: "_RNx", Lang: symbolizer.LangRust},
			[]string{"app::map::<i32, fn(i32) -> i32>", "app::map", "_RNx"}},
		{symbolizer.Function{Name: "app::run::{{closure}}", Symbol: "_ZNx", Lang: symbolizer.LangRust},
			[]string{"app::run::{{closure}}", "_ZNx"}},
		{symbolizer.Function{Name: "core::ptr::drop_in_place<alloc::vec::Vec<u8>>", Symbol: "_ZNx", Lang: symbolizer.LangRust},
			[]string{"core::ptr::drop_in_place<alloc::vec::Vec<u8>>", "core::ptr::drop_in_place", "_ZNx"}},
	}
	for _, test := range tests {
		if got := appendNameForms(nil, &test.fn, false); !slices.Equal(got, test.want) {
			t.Errorf("%s:\n got %q\nwant %q", test.fn.Name, got, test.want)
		}
	}
}

func TestSignatureForms(t *testing.T) {
	tests := []struct {
		name, symbol string
		yes, no      []string
	}{
		{"ns::f", "_ZN2ns1fEiPc", []string{"ns::f(int, char*)", "ns::f(*)", "*(int,*"}, []string{"ns::f()", "ns::f(char*)"}},
		{"ns::g<int>", "_ZN2ns1gIiEEvT_", []string{"ns::g<int>(int)", "void ns::g<int>(int)", "ns::g*(int)"}, []string{"int ns::g<int>(int)"}},
		{"void ns::g<int>(int)", "_ZN2ns1gIiEEvT_", []string{"ns::g<int>(int)", "void ns::g<int>(int)"}, []string{"ns::g<int>(char)"}},
		{"ns::f(int, char*)", "_ZN2ns1fEiPc", []string{"ns::f(int, char*)", "ns::f(*)"}, []string{"ns::f(int)"}},
		{"ns::f.cold", "_ZN2ns1fEiPc.cold", []string{"ns::f(int, char*) [clone .cold]"}, []string{"ns::f(int, char*)"}},
		{"broken", "_ZNotmangled", []string{"broken"}, []string{"broken(*)"}},
	}
	for _, test := range tests {
		fn := &symbolizer.Function{Name: test.name, Symbol: test.symbol, Lang: symbolizer.LangCPP}
		for _, pattern := range test.yes {
			if !mustCompile(t, Selector{Funcs: []string{pattern}}).Match(fn, "app", nil) {
				t.Errorf("%q does not match %s (%s)", pattern, test.name, test.symbol)
			}
		}
		for _, pattern := range test.no {
			if mustCompile(t, Selector{Funcs: []string{pattern}}).Match(fn, "app", nil) {
				t.Errorf("%q matches %s (%s)", pattern, test.name, test.symbol)
			}
		}
	}
	fn := &symbolizer.Function{Name: "ns::f", Symbol: "_ZN2ns1fEiPc", Lang: symbolizer.LangCPP}
	if !mustCompile(t, Selector{Regex: []string{`\(int, char`}}).Match(fn, "app", nil) {
		t.Error("a regular expression does not see the parameters")
	}
	m := mustCompile(t, Selector{Excludes: []string{"ns::f(int*"}}).WithDefault(ModuleInfo{Name: "app"})
	if m.Match(fn, "app", nil) {
		t.Error("an exclude does not see the parameters")
	}
}

// FuzzNameForms looks for names on which the scanners run off their end.
func FuzzNameForms(f *testing.F) {
	for _, seed := range []string{"<", "<a as b>::f", "operator", "operator ", "f(int)::operator<<<(", "a->b<->>", "::<", ")(", "x [clone .cold]"} {
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, name string, rust bool) {
		fn := symbolizer.Function{Name: name, Symbol: "_Zx", Lang: symbolizer.LangCPP}
		if rust {
			fn.Lang = symbolizer.LangRust
		}
		forms := appendNameForms(nil, &fn, true)
		if forms[0] != name {
			t.Errorf("forms of %q begin with %q", name, forms[0])
		}
		for _, form := range forms[1:] {
			if len(form) > len(name)+len(fn.Symbol) || form == "" {
				t.Errorf("form %q of %q", form, name)
			}
		}
		fn.Lang = symbolizer.LangGo
		appendNameForms(nil, &fn, true)
		_, _ = rustCrate(name), lastComponent(name)
	})
}
