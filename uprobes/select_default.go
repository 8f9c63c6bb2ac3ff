package uprobes

import (
	"path"
	"strings"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// ModuleInfo describes the target's main executable, as far as choosing its
// own functions needs.
type ModuleInfo struct {
	Name string // path or base name of the ELF file
	Go   bool   // a Go program: packages decide
	// GoModule is the main module's path (debug.BuildInfo.Main.Path), empty
	// without module information, as in the go command's own build.
	GoModule string
	// GoPackage is the main package's import path (debug.BuildInfo.Path), such as
	// cmd/go, or empty.
	GoPackage string
}

// DefaultSelection selects the target's own functions, what `attach --pid` with
// no selector shows:
//
//   - Go: the functions of package main and of the main module's packages. For
//     a program without a main module those below the main package's import
//     path (cmd/go and cmd/go/... for the go command), and where even that is
//     unknown every package outside the standard library.
//   - Others: the functions of the main executable without what the toolchain
//     added (start-up code, PLT stubs, static initialisers, thunks, cold parts
//     of split functions) and without the standard library of C++ (std::,
//     __gnu_cxx::) and Rust (core::, alloc::, std:: and what std contains).
func DefaultSelection(target ModuleInfo) *Matcher {
	return (&Matcher{}).WithDefault(target)
}

// WithDefault returns m itself if it selects something by a pattern, and
// otherwise the target's own functions less m's excludes.
func (m *Matcher) WithDefault(target ModuleInfo) *Matcher {
	if len(m.funcs)+len(m.modules)+len(m.packages)+len(m.files) > 0 {
		return m
	}
	return &Matcher{excludes: m.excludes, own: &target, signatures: m.signatures}
}

func (t *ModuleInfo) isMain(module string) bool { return path.Base(module) == path.Base(t.Name) }

// isOwn reports whether fn is one of the target's own functions, or why not.
func (t *ModuleInfo) isOwn(fn *symbolizer.Function, module string) (bool, rejection) {
	if !t.isMain(module) {
		return false, rejection{"module %s is not the main executable", [2]string{path.Base(module)}}
	}
	if t.Go {
		return t.isOwnGo(packageOf(fn))
	}
	if isToolchainName(fn.Symbol) || isToolchainName(fn.Name) {
		return false, rejection{format: "added by the toolchain"}
	}
	if isColdPart(fn.Symbol) || isColdPart(fn.Name) {
		return false, rejection{format: "cold part of another function"}
	}
	switch {
	case hasSpecialName(fn.Name):
		return false, rejection{format: "thunk or guard of something else"}
	case fn.Lang == symbolizer.LangRust || strings.HasPrefix(fn.Symbol, "_R"):
		if crate := rustCrate(fn.Name); rustStd[crate] {
			return false, rejection{"part of Rust's standard library (crate %s)", [2]string{crate}}
		}
	case strings.HasPrefix(fn.Symbol, "_Z"):
		if inStdNamespace(fn.Name) {
			return false, rejection{format: "part of C++'s standard library"}
		}
	}
	return true, rejection{}
}

func (t *ModuleInfo) isOwnGo(pkg string) (bool, rejection) {
	switch {
	case pkg == "main":
		return true, rejection{}
	case pkg == "":
		return false, rejection{format: "not of a Go package"}
	case t.GoModule != "":
		if underPath(pkg, t.GoModule) {
			return true, rejection{}
		}
		return false, rejection{"package %s is not part of the main module %s", [2]string{pkg, t.GoModule}}
	case t.GoPackage != "":
		if underPath(pkg, t.GoPackage) {
			return true, rejection{}
		}
		return false, rejection{"package %s is not part of %s", [2]string{pkg, t.GoPackage}}
	}
	// Import paths outside the standard library begin with a domain name.
	if first, _, _ := strings.Cut(pkg, "/"); strings.Contains(first, ".") {
		return true, rejection{}
	}
	return false, rejection{"package %s is part of the standard library", [2]string{pkg}}
}

// underPath reports whether pkg is root, root's external test package, or
// below root.
func underPath(pkg, root string) bool {
	rest, ok := strings.CutPrefix(pkg, root)
	return ok && (rest == "" || rest[0] == '/' || rest == "_test")
}

// toolchainNames are functions that compilers, linkers and the C start-up files
// add to an executable.
var toolchainNames = map[string]bool{
	"_start": true, "_init": true, "_fini": true, "_dl_relocate_static_pie": true,
	"frame_dummy": true, "register_tm_clones": true, "deregister_tm_clones": true,
	"__do_global_dtors_aux": true, "__do_global_ctors_aux": true, "call_weak_fn": true,
	"__libc_csu_init": true, "__libc_csu_fini": true, "__libc_csu_irel": true,
	"_dl_start": true, "_start_c": true, "atexit": true, "at_quick_exit": true,
	"__stack_chk_fail_local": true, "__gmon_start__": true, "__tls_init": true,
	"__cxx_global_array_dtor": true, "__clang_call_terminate": true,
	"__static_initialization_and_destruction_0": true, "rust_begin_unwind": true,
	"rust_eh_personality": true, "rust_panic": true, "__rustc::rust_begin_unwind": true,
}

// toolchainPrefixes begin the names of generated functions, of which there are
// many alike, and of the runtimes of sanitizers and unwinding.
var toolchainPrefixes = []string{
	"_GLOBAL__", "__x86.get_pc_thunk.", "__libc_csu_", "__cxx_global_var_init",
	"_Z41__static_initialization_and_destruction_0", "__static_initialization_and_destruction_0(",
	"__asan_", "__ubsan_", "__tsan_", "__msan_", "__lsan_", "__sanitizer_", "__interceptor_",
	"__gcov_", "__llvm_profile_", "_Unwind_", "__rust_", "__rdl_", "__rg_",
}

func isToolchainName(name string) bool {
	if name == "" || toolchainNames[name] {
		return name != ""
	}
	// All prefixes begin alike; most names do not.
	if name[0] == '_' {
		for _, prefix := range toolchainPrefixes {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
	}
	return strings.HasSuffix(name, "@plt") || strings.HasSuffix(name, ".plt")
}

// inStdNamespace reports whether a demangled C++ name lies in the standard
// library's namespaces, whatever its return type and parameters are.
func inStdNamespace(name string) bool {
	// Most names need no closer look: a name is in std:: only if it says so.
	if !strings.Contains(name, "std::") && !strings.Contains(name, "__gnu_cxx::") && !strings.Contains(name, "__cxxabiv1::") {
		return false
	}
	qualified := dropSignature(name)
	for _, ns := range []string{"std::", "__gnu_cxx::", "__cxxabiv1::"} {
		if strings.HasPrefix(qualified, ns) {
			return true
		}
	}
	return false
}

// rustStd are the crates of Rust's standard library and those it links in
// privately (library/std/Cargo.toml of the rust repository).
var rustStd = map[string]bool{
	"core": true, "alloc": true, "std": true, "std_detect": true, "compiler_builtins": true,
	"panic_unwind": true, "panic_abort": true, "proc_macro": true, "test": true, "unwind": true,
	"__rustc": true, "rustc_demangle": true, "addr2line": true, "gimli": true, "object": true,
	"miniz_oxide": true, "adler": true, "adler2": true, "hashbrown": true, "rustc_std_workspace_core": true,
}

// rustCrate returns the crate a demangled Rust path begins with, or "". For an
// implementation it is the type's crate, and the trait's where the type is a
// generic parameter or builtin: "<&T as core::fmt::Debug>::fmt" is core's.
func rustCrate(name string) string {
	rest := name
	for strings.HasPrefix(rest, "<") {
		rest = rest[1:]
		for {
			trimmed := strings.TrimLeft(rest, "&*[( ")
			for _, word := range []string{"mut ", "const ", "dyn ", "impl "} {
				trimmed = strings.TrimPrefix(trimmed, word)
			}
			if trimmed == rest {
				break
			}
			rest = trimmed
		}
		first := identPrefix(rest)
		if strings.HasPrefix(rest[len(first):], "::") {
			return first
		}
		if strings.HasPrefix(rest, "<") {
			continue
		}
		_, trait, ok := strings.Cut(rest, " as ")
		if !ok {
			return ""
		}
		rest = trait
	}
	first := identPrefix(rest)
	if strings.HasPrefix(rest[len(first):], "::") {
		return first
	}
	return ""
}

func identPrefix(s string) string {
	i := 0
	for i < len(s) && isIdentByte(s[i]) {
		i++
	}
	return s[:i]
}
