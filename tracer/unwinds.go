package tracer

import (
	"slices"
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
	"libcrypto.so", "libssl.so", // switch stacks for who asks for it: see switching
}

// raising are symbols of which a module that raises or catches exceptions or
// panics needs or has one: the personality routines of languages with handlers
// (C's, for cleanups, is not among them) and the functions that raise and catch.
var raising = map[string]bool{
	"__gxx_personality_v0": true, "rust_eh_personality": true, "__gnat_personality_v0": true,
	"__objc_personality_v0": true, "__gnu_objc_personality_v0": true, "__gdc_personality_v0": true,
	"__cxa_throw": true, "__cxa_begin_catch": true, "_Unwind_RaiseException": true,
}

// cleaning are the personality routines that also modules have which only clean
// up when an exception passes: ICU, for one. Of a library that is no reason to
// expect exceptions, for who raises and catches them says so in symbols of
// his own.
var cleaning = map[string]bool{"__gxx_personality_v0": true}

// switching are functions that continue on another stack, and those that make
// one: of the C library, and of the coroutine libraries that programs carry in
// themselves (Boost.Context and what is made of it, libcoro, libco, libaco,
// State Threads, Ruby, MariaDB, libtask). OpenSSL runs asynchronous jobs on stacks
// of their own when the program drives them, which takes these functions.
var switching = map[string]bool{
	"makecontext": true, "swapcontext": true, "setcontext": true,
	"jump_fcontext": true, "make_fcontext": true, "ontop_fcontext": true, "bthread_jump_fcontext": true,
	"coro_transfer": true, "coroutine_transfer": true, "co_switch": true, "co_swap": true, "coctx_swap": true,
	"acosw": true, "_st_md_cxt_restore": true, "my_context_continue": true, "contextswitch": true,
	"ASYNC_start_job": true, "SSL_waiting_for_async": true, "SSL_get_all_async_fds": true, "SSL_get_changed_async_fds": true,
}

// unwinds reports whether calls may be left otherwise than in the order in which
// return probes expect it, in a process that has this module mapped. Exceptions
// and panics: an unwinder does not know the trampoline's address, and aborts
// the process. Coroutines: the kernel keeps one list of return addresses per
// thread and takes those of lower stacks for left, so that a coroutine on such
// a stack would return to nowhere.
func unwinds(m *mapped, bin *symbolizer.Binary) bool {
	for _, prefix := range passive {
		if strings.HasPrefix(m.Name(), prefix) {
			return false
		}
	}
	if bin.IsGo() {
		return false
	}
	if switchesStacks(m, bin) {
		return true
	}
	if !bin.HasUnwinder() {
		return false
	}
	if dynamic, err := bin.File().DynamicSymbols(); err == nil {
		for _, s := range dynamic {
			if raising[s.Name] && (m.Main || !cleaning[s.Name]) {
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

// switchesStacks reports whether a module has or calls functions that continue
// on another stack.
func switchesStacks(m *mapped, bin *symbolizer.Binary) bool {
	if dynamic, err := bin.File().DynamicSymbols(); err == nil {
		for _, s := range dynamic {
			if switching[s.Name] {
				return true
			}
		}
	}
	if !m.Main {
		return false
	}
	fns, err := bin.Functions()
	return err == nil && slices.ContainsFunc(fns, func(f symbolizer.Function) bool { return switching[f.Symbol] })
}
