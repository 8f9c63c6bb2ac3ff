package uprobes

import (
	"debug/buildinfo"
	"debug/elf"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

func TestDefaultSelectionGo(t *testing.T) {
	app := ModuleInfo{Name: "/srv/app", Go: true, GoModule: "example.com/app", GoPackage: "example.com/app/cmd/app"}
	goCommand := ModuleInfo{Name: "go", Go: true, GoPackage: "cmd/go"}
	unknown := ModuleInfo{Name: "app", Go: true}
	tests := []struct {
		target ModuleInfo
		pkg    string
		module string
		why    string
	}{
		{app, "main", "app", ""},
		{app, "main", "/proc/1/root/srv/app", ""},
		{app, "example.com/app", "app", ""},
		{app, "example.com/app/internal/store", "app", ""},
		{app, "example.com/app_test", "app", ""},
		{app, "example.com/application", "app", "package example.com/application is not part of the main module example.com/app"},
		{app, "runtime", "app", "package runtime is not part of the main module example.com/app"},
		{app, "github.com/lib/pq", "app", "package github.com/lib/pq is not part of the main module example.com/app"},
		{app, "", "app", "not of a Go package"},
		{app, "main", "libc.so.6", "module libc.so.6 is not the main executable"},
		{goCommand, "main", "go", ""},
		{goCommand, "cmd/go", "go", ""},
		{goCommand, "cmd/go/internal/load", "go", ""},
		{goCommand, "cmd/gofmt", "go", "package cmd/gofmt is not part of cmd/go"},
		{goCommand, "cmd/internal/objabi", "go", "package cmd/internal/objabi is not part of cmd/go"},
		{unknown, "main", "app", ""},
		{unknown, "example.com/x", "app", ""},
		{unknown, "net/http", "app", "package net/http is part of the standard library"},
		{ModuleInfo{Name: "app", Go: true, GoModule: "gopkg.in/x.v2"}, "gopkg.in/x%2ev2", "app", ""},
	}
	for _, test := range tests {
		fn := &symbolizer.Function{Name: test.pkg + ".f", Symbol: test.pkg + ".f", Lang: symbolizer.LangGo, Package: test.pkg}
		ok, why := DefaultSelection(test.target).Explain(fn, test.module, nil)
		if ok != (test.why == "") || why != test.why {
			t.Errorf("%+v, package %q of %s: got %v, %q; want %q", test.target, test.pkg, test.module, ok, why, test.why)
		}
	}
}

func TestDefaultSelectionNative(t *testing.T) {
	const (
		own       = ""
		toolchain = "added by the toolchain"
		cold      = "cold part of another function"
		thunk     = "thunk or guard of something else"
		stdCPP    = "part of C++'s standard library"
	)
	c, cpp, rust := symbolizer.LangC, symbolizer.LangCPP, symbolizer.LangRust
	tests := []struct {
		name, symbol string
		lang         symbolizer.Lang
		why          string
	}{
		{"main", "main", c, own},
		{"processCommand", "processCommand", c, own},
		{"processCommand.constprop.0", "processCommand.constprop.0", c, own},
		{"app+0x1234", "", symbolizer.LangUnknown, own},
		{"_start_server", "_start_server", c, own},
		{"std_thing", "std_thing", c, own},
		{"_start", "_start", c, toolchain},
		{"_init", "_init", c, toolchain},
		{"_fini", "_fini", c, toolchain},
		{"frame_dummy", "frame_dummy", c, toolchain},
		{"register_tm_clones", "register_tm_clones", c, toolchain},
		{"deregister_tm_clones", "deregister_tm_clones", c, toolchain},
		{"__do_global_dtors_aux", "__do_global_dtors_aux", c, toolchain},
		{"_dl_relocate_static_pie", "_dl_relocate_static_pie", c, toolchain},
		{"__libc_csu_init", "__libc_csu_init", c, toolchain},
		{"__x86.get_pc_thunk.bx", "__x86.get_pc_thunk.bx", c, toolchain},
		{"malloc@plt", "malloc@plt", c, toolchain},
		{"*ABS*+0x1234@plt", "*ABS*+0x1234@plt", c, toolchain},
		{"global constructors keyed to x", "_GLOBAL__sub_I_x", cpp, toolchain},
		{"__static_initialization_and_destruction_0(int, int)", "_Z41__static_initialization_and_destruction_0ii", cpp, toolchain},
		{"main.cold", "main.cold", c, cold},
		{"f.part.0.cold", "f.part.0.cold", c, cold},
		{"f.cold.12", "f.cold.12", c, cold},
		{"f(int) [clone .cold]", "_Z1fi.cold", cpp, cold},
		{"f.colder", "f.colder", c, own},

		{"app::run()", "_ZN3app3runEv", cpp, own},
		{"void app::f<std::string>(std::string)", "_Zx", cpp, own},
		{"app::f(std::vector<int>)", "_Zx", cpp, own},
		{"std::vector<app::T>::push_back(app::T const&)", "_Zx", cpp, stdCPP},
		{"void std::__sort<app::T*>(app::T*)", "_Zx", cpp, stdCPP},
		{"__gnu_cxx::new_allocator<int>::f()", "_Zx", cpp, stdCPP},
		{"std::ostream& std::operator<< <char>(std::ostream&)", "_Zx", cpp, stdCPP},
		{"app::operator std::string() const", "_Zx", cpp, own},
		{"non-virtual thunk to app::f()", "_ZThn8_x", cpp, thunk},

		{"app::run", "_ZN3app3run17h0123456789abcdefE", rust, own},
		{"<app::T as core::fmt::Debug>::fmt", "_RNx", rust, own},
		{"<app::T>::new", "_RNx", rust, own},
		{"app::map::<i32>", "_RNx", rust, own},
		{"serde::f", "_RNx", rust, own},
		{"core::ptr::drop_in_place<app::T>", "_ZNx", rust, "part of Rust's standard library (crate core)"},
		{"std::rt::lang_start", "_ZNx", rust, "part of Rust's standard library (crate std)"},
		{"<alloc::vec::Vec<T> as core::ops::Drop>::drop", "_ZNx", rust, "part of Rust's standard library (crate alloc)"},
		{"<&T as core::fmt::Debug>::fmt", "_ZNx", rust, "part of Rust's standard library (crate core)"},
		{"<T as app::Trait>::f", "_ZNx", rust, own},
		{"<&mut [app::T] as core::fmt::Debug>::fmt", "_RNx", rust, own},
		{"<<app::T as app::U>::V as core::fmt::Debug>::fmt", "_RNx", rust, own},
		{"<dyn core::any::Any>::is", "_RNx", rust, "part of Rust's standard library (crate core)"},
		{"compiler_builtins::mem::memcpy", "_RNx", rust, "part of Rust's standard library (crate compiler_builtins)"},
		{"rust_eh_personality", "rust_eh_personality", rust, toolchain},
		{"__rust_alloc", "__rust_alloc", rust, toolchain},
		{"main", "main", rust, own},
	}
	m := DefaultSelection(ModuleInfo{Name: "/usr/bin/app"})
	for _, test := range tests {
		fn := &symbolizer.Function{Name: test.name, Symbol: test.symbol, Lang: test.lang}
		ok, why := m.Explain(fn, "app", nil)
		if ok != (test.why == "") || why != test.why {
			t.Errorf("%s (%s): got %v, %q; want %q", test.name, test.symbol, ok, why, test.why)
		}
		if m.Match(fn, "libapp.so", nil) {
			t.Errorf("%s of a library is selected", test.name)
		}
		// What a pattern asks for is never held back.
		if asked := mustCompile(t, Selector{Funcs: []string{`*`}}).WithDefault(ModuleInfo{Name: "app"}); !asked.Match(fn, "app", nil) {
			t.Errorf("%s is not selected by a pattern", test.name)
		}
	}
}

func TestWithDefaultKeepsExcludes(t *testing.T) {
	m := mustCompile(t, Selector{Excludes: []string{"main.noisy*"}}).WithDefault(ModuleInfo{Name: "app", Go: true, GoModule: "x"})
	for name, want := range map[string]bool{"main.run": true, "main.noisyLog": false} {
		fn := &symbolizer.Function{Name: name, Symbol: name, Lang: symbolizer.LangGo, Package: "main"}
		if got := m.Match(fn, "app", nil); got != want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// TestDefaultSelectionGoCommand applies the default to the go command itself.
func TestDefaultSelectionGoCommand(t *testing.T) {
	path, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command")
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Skipf("no build information in %s: %v", path, err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Skipf("no symbols in %s: %v", path, err)
	}
	m := DefaultSelection(ModuleInfo{Name: path, Go: true, GoModule: info.Main.Path, GoPackage: info.Path})
	selected := map[string]int{}
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC {
			continue
		}
		slash := strings.LastIndexByte(s.Name, '/') + 1
		if strings.HasPrefix(s.Name, "type:") || strings.HasPrefix(s.Name, "go:") {
			slash = 0
		}
		dot := strings.IndexByte(s.Name[slash:], '.')
		if dot < 0 {
			continue
		}
		fn := &symbolizer.Function{Name: s.Name, Symbol: s.Name, Lang: symbolizer.LangGo, Package: s.Name[:slash+dot]}
		if m.Match(fn, path, nil) {
			selected[fn.Package]++
		}
	}
	for pkg := range selected {
		if pkg != "main" && !strings.HasPrefix(pkg, "cmd/go") {
			t.Errorf("package %s is selected", pkg)
		}
	}
	if selected["main"] == 0 || selected["cmd/go/internal/load"] == 0 {
		t.Errorf("the go command's own packages are missing: %v", selected)
	}
}
