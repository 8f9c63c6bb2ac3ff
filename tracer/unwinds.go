package tracer

import (
	"strings"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// passive are modules that carry unwind tables for languages and raise nothing
// through their callers: glibc's are for thread cancellation, whose forced
// unwinding takes the end of the walk at a return probe for the end of the
// stack and goes on (nptl/unwind.c, unwind_stop); the runtimes of C++ and the
// replacements of malloc raise only for C++ code that calls them.
var passive = []string{
	"libc.so", "libc-", "ld-linux", "ld-musl", "libpthread", "libm.so", "libm-", "libdl", "librt", "libresolv",
	"libgcc_s", "libstdc++", "libc++", "libjemalloc", "libtcmalloc",
}

// raising are symbols of which a module that raises or catches exceptions or
// panics needs or has one: the personality routines of languages with handlers
// (C's, for cleanups, is not among them) and the functions that raise.
var raising = map[string]bool{
	"__gxx_personality_v0": true, "rust_eh_personality": true, "__gnat_personality_v0": true,
	"__objc_personality_v0": true, "__gnu_objc_personality_v0": true, "__gdc_personality_v0": true,
	"__cxa_throw": true, "_Unwind_RaiseException": true,
}

// unwinds reports whether exceptions or panics may pass through frames of a
// process that has this module mapped. Return probes must not be in their way:
// an unwinder does not know the trampoline's address, and aborts the process.
func unwinds(m *mapped, bin *symbolizer.Binary) bool {
	for _, prefix := range passive {
		if strings.HasPrefix(m.Name(), prefix) {
			return false
		}
	}
	if bin.IsGo() || !bin.HasUnwinder() {
		return false
	}
	if dynamic, err := bin.File().DynamicSymbols(); err == nil {
		for _, s := range dynamic {
			if raising[s.Name] {
				return true
			}
		}
		if !m.Main || bin.Interp != "" {
			return false
		}
	}
	// A static program has the C library's tables and unwinder in it: only a
	// personality routine tells, unless the symbols were stripped.
	fns, err := bin.Functions()
	if err != nil {
		return true
	}
	named := false
	for i := range fns {
		if fns[i].Source == symbolizer.SourceUnwindTable {
			continue
		}
		named = true
		if strings.Contains(fns[i].Symbol, "_personality") && raising[fns[i].Symbol] {
			return true
		}
	}
	return !named
}
