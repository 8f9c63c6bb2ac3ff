package tracer

import (
	"strings"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// cLibrary are modules that carry unwind tables for languages and yet raise
// nothing by themselves through frames that call them: glibc's are for thread
// cancellation, whose forced unwinding takes the end of the walk at a return
// probe for the end of the stack and goes on (nptl/unwind.c, unwind_stop).
var cLibrary = []string{"libc.so", "libc-", "ld-linux", "ld-musl", "libpthread", "libm.so", "libm-", "libdl", "librt", "libresolv", "libgcc_s"}

// personalities are the routines of languages whose exceptions or panics may
// be caught: they unwind through the frames between.
var personalities = []string{"__gxx_personality_v0", "rust_eh_personality", "__gnat_personality_v0", "__objc_personality_v0", "__gdc_personality_v0"}

// unwinds reports whether exceptions or panics may pass through frames of a
// process that has this module mapped. Return probes must not be in their way:
// an unwinder does not know the trampoline's address, and aborts the process.
func unwinds(m *mapped, bin *symbolizer.Binary) bool {
	for _, prefix := range cLibrary {
		if strings.HasPrefix(m.Name(), prefix) {
			return false
		}
	}
	if bin.IsGo() || !bin.HasUnwinder() {
		return false
	}
	if !m.Main || bin.Interp != "" {
		return true
	}
	// A static program has the C library's tables in it: its symbols tell,
	// unless they were stripped.
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
		for _, p := range personalities {
			if fns[i].Symbol == p {
				return true
			}
		}
	}
	return !named
}
