package symbolizer

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ianlancetaylor/demangle"
)

func TestDemangle(t *testing.T) {
	for symbol, want := range map[string]string{
		"main":                                            "main",
		"__libc_start_main":                               "__libc_start_main",
		"foo.constprop.0.isra.1":                          "foo.constprop.0.isra.1",
		"_ZN5outer5inner3fooEv":                           "outer::inner::foo",
		"_ZN5outer5inner3fooEi.cold":                      "outer::inner::foo.cold",
		"_ZN5outer3fooEi.part.0.constprop.1":              "outer::foo.part.0.constprop.1",
		"_ZNK5outer5Shape4areaEv":                         "outer::Shape::area",
		"_ZN5outer5ShapeC1Ei":                             "outer::Shape::Shape",
		"_ZN5outer5ShapeD0Ev":                             "outer::Shape::~Shape",
		"_ZN5outer12_GLOBAL__N_17unnamedEi":               "outer::(anonymous namespace)::unnamed",
		"_ZL6helperPKc":                                   "helper",
		"_ZSt9terminatev":                                 "std::terminate",
		"_ZN5outer5inner3BoxIiE3getEv":                    "outer::inner::Box<int>::get",
		"_ZNK5outer6SquareeqERKS0_":                       "outer::Square::operator==",
		"_ZN4core3ptr13drop_in_place17h0123456789abcdefE": "core::ptr::drop_in_place",
		"_ZN4core3fmt9Formatter3pad17h0123456789abcdefE.llvm.123456789":                             "core::fmt::Formatter::pad",
		"_ZN60_$LT$alloc..string..String$u20$as$u20$core..fmt..Display$GT$3fmt17h0123456789abcdefE": "<alloc::string::String as core::fmt::Display>::fmt",
		"_RNvNtCs1234_7mycrate3foo3bar":                                                             "mycrate::foo::bar",
		"_RINvCs4T4zK9Otvt5_5names4showhEB2_":                                                       "names::show::<u8>",
		"_Z":                                                                                        "_Z",
		"_R_not_rust":                                                                               "_R_not_rust",
		"_Z99999999999999999999f":                                                                   "_Z99999999999999999999f",
	} {
		if got := Demangle(symbol); got != want {
			t.Errorf("Demangle(%q) = %q, want %q", symbol, got, want)
		}
	}
}

// TestSimpleNamesAgreeWithDemangler compares the short cut for simple names with
// the demangler on every symbol of the C++ library.
func TestSimpleNamesAgreeWithDemangler(t *testing.T) {
	b := open(t, needFile(t, "/usr/lib/*-linux-gnu/libstdc++.so.6"), Options{})
	simple := 0
	for _, f := range functions(t, b) {
		if !isMangled(f.Symbol) || f.Symbol[1] != 'Z' {
			continue
		}
		name, ok := simpleCPPName(f.Symbol)
		if !ok {
			continue
		}
		simple++
		if want := demangleWith(f.Symbol, demangle.NoParams, demangle.NoEnclosingParams); name != want {
			t.Errorf("%s: %q, the demangler has %q", f.Symbol, name, want)
		}
	}
	if simple < 300 {
		t.Errorf("only %d names are simple", simple)
	}
}

func TestCPPNames(t *testing.T) {
	b := open(t, compile(t, "names.cc", "-g"), Options{NoDebugFiles: true})
	for _, name := range []string{
		"main", "thrower", "outer::(anonymous namespace)::unnamed", "outer::single",
		"outer::over(int)", "outer::over(double)",
		"outer::over(std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> > const&)",
		"outer::inner::Box<int>::Box", "outer::inner::Box<int>::get", "outer::inner::Box<double>::get", "outer::inner::Box<int>::as<long>",
		"outer::Shape::area", "outer::Square::area", "outer::Square::operator==",
	} {
		f := byName(t, b, name)
		if want := LangCPP; f.Lang != want && name != "main" {
			t.Errorf("%s is %s, want %s", name, f.Lang, want)
		}
		if file, line := b.Line(f.Addr); name != "main" && (filepath.Base(file) != "names.cc" || line == 0) {
			t.Errorf("%s is at %s:%d", name, file, line)
		}
	}
	compareWithNM(t, b, []string{"nm"}, b.Path)
}

func TestRustNames(t *testing.T) {
	need(t, "rustc")
	for _, mangling := range []string{"v0", "legacy"} {
		t.Run(mangling, func(t *testing.T) {
			path := fixture(t, "rust "+mangling, func(dir string) (string, error) {
				out := filepath.Join(dir, "prog")
				args := []string{"-O", "-g", "-o", out, "testdata/src/names.rs", "-C", "symbol-mangling-version=" + mangling}
				if mangling == "legacy" { // the nightly compiler's privilege by now
					args = append(args, "-Z", "unstable-options")
				}
				cmd := exec.Command("rustc", args...)
				cmd.Env = append(cmd.Environ(), "RUSTC_BOOTSTRAP=1")
				text, err := cmd.CombinedOutput()
				if err != nil {
					t.Logf("%s", text)
				}
				return out, err
			})
			b := open(t, path, Options{NoDebugFiles: true})
			names := []string{"names::main", "<names::shapes::Square as names::shapes::Area>::area", "exported"}
			if mangling == "v0" {
				names = append(names, "names::show::<&str>", "names::show::<u8>", "<names::shapes::Square>::grow")
			} else {
				names = append(names, "names::shapes::Square::grow")
			}
			for _, name := range names {
				f := byName(t, b, name)
				if want := name != "exported"; (f.Lang == LangRust) != want {
					t.Errorf("%s is %s", name, f.Lang)
				}
				// The first instruction may be that of an inlined function.
				frames := b.Inlines(f.Addr)
				if last := frames[len(frames)-1]; last.Function != name || filepath.Base(last.File) != "names.rs" || last.Line == 0 {
					t.Errorf("%s is at %+v", name, frames)
				}
			}
			if !b.HasUnwinder() {
				t.Error("a Rust program has no unwinder")
			}
			compareWithNM(t, b, []string{"nm"}, path)
		})
	}
}

// TestOverloadsOnly: parameters are shown where they tell names apart and nowhere
// else.
func TestOverloadsOnly(t *testing.T) {
	b := open(t, needFile(t, "/usr/lib/*-linux-gnu/libstdc++.so.6"), Options{})
	short := make(map[string][]string)
	long := 0
	for _, f := range functions(t, b) {
		if f.Lang == LangCPP {
			short[Demangle(f.Symbol)] = append(short[Demangle(f.Symbol)], f.Name)
		}
	}
	for name, shown := range short {
		slices.Sort(shown)
		if len(shown) == 1 && shown[0] != name {
			t.Errorf("%s is alone but shown as %s", name, shown[0])
		}
		if len(shown) > 1 && shown[0] != name {
			long++
		}
	}
	if long < 100 {
		t.Errorf("only %d overloaded names", long)
	}
}

// TestDemangleHostile: names that would expand without bound stay short.
func TestDemangleHostile(t *testing.T) {
	expanding := "_Z1fI" + strings.Repeat("1AIS_S_", 40) + strings.Repeat("E", 41) + "vv"
	for _, symbol := range []string{
		expanding,
		"_ZN" + strings.Repeat("1a", 10000) + "Ev",
		"_Z" + strings.Repeat("N", 30000),
		"_R" + strings.Repeat("Nv", 15000),
		"_ZN3fooE" + strings.Repeat("P", 30000) + "i",
	} {
		if got := Demangle(symbol); len(got) > 1<<maxDemangled+len(symbol)*2 {
			t.Errorf("%.40s… becomes %d bytes", symbol, len(got))
		}
		if got := demangleFull(symbol); len(got) > 1<<maxDemangled+len(symbol)*2 {
			t.Errorf("%.40s… with parameters becomes %d bytes", symbol, len(got))
		}
	}
}
