package uprobes

import (
	"strings"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// baseSymbol strips the version from a linkage name: memcpy@@GLIBC_2.14.
func baseSymbol(name string) string {
	if i := strings.IndexByte(name, '@'); i > 0 {
		return name[:i]
	}
	return name
}

// notProbeableNames are functions that must keep their bytes, because others
// read them: unwinders recognise signal frames by the code they return to.
var notProbeableNames = map[string]string{
	"__restore_rt": "unwinders recognise it by its bytes",
	"__restore":    "unwinders recognise it by its bytes",
}

// oddReturns are functions whose return address must stay in place, or that do
// not return to it once and in order. A return probe on them crashes the
// target or confuses its stack; a RET of theirs does not end one call.
var oddReturns = func() map[string]string {
	m := map[string]string{}
	set := func(reason, names string) {
		for _, n := range strings.Fields(names) {
			m[n] = reason
		}
	}
	set("returns twice", `setjmp _setjmp __setjmp sigsetjmp __sigsetjmp __sigsetjmp_cancel savectx
		vfork __vfork __libc_vfork clone __clone clone3 __clone3 __clone_internal
		getcontext __getcontext returns_twice unw_getcontext _Ux86_64_getcontext _Uaarch64_getcontext __unw_getcontext`)
	set("never returns", `longjmp _longjmp __longjmp siglongjmp __libc_longjmp __libc_siglongjmp __longjmp_chk ____longjmp_chk
		__longjmp_cancel __pthread_unwind __pthread_unwind_next pthread_exit __pthread_exit thrd_exit
		_exit _Exit exit quick_exit abort __assert_fail __assert_perror_fail __stack_chk_fail __fortify_fail __chk_fail
		__cxa_throw __cxa_rethrow __cxa_bad_cast __cxa_bad_typeid __cxa_throw_bad_array_new_length
		__gxx_throw_wrapper rust_panic rust_begin_unwind __rust_start_panic`)
	set("continues in another context", `setcontext __setcontext swapcontext __swapcontext makecontext __makecontext __start_context
		jump_fcontext make_fcontext ontop_fcontext co_switch coro_transfer _co_switch __push___start_context
		_Ux86_64_setcontext _Uaarch64_setcontext unw_resume __unw_resume`)
	set("has no return address on the stack", `_start _dl_start_user _start_c __start _rt0_amd64_linux
		_dl_runtime_resolve _dl_runtime_resolve_fxsave _dl_runtime_resolve_xsave _dl_runtime_resolve_xsavec
		_dl_runtime_profile _dl_runtime_profile_avx _dl_runtime_profile_avx512 _dl_runtime_profile_sse
		_dl_tlsdesc_dynamic _dl_tlsdesc_return _dl_tlsdesc_undefweak _dl_tlsdesc_lazy_resolver
		_dl_tlsdesc_resolve_hold _dl_tlsdesc_resolve_rela thread_start __restore_rt __restore`)
	set("looks at its return address", `dlopen dlsym dlvsym dlmopen __dlopen __dlsym __dlvsym __dlmopen
		__libc_dlopen_mode __libc_dlsym _dl_open _dl_sym _dl_vsym
		mcount _mcount __mcount __fentry__ __cyg_profile_func_enter __cyg_profile_func_exit __morestack`)
	return m
}()

// oddPrefixes are families of such functions.
var oddPrefixes = []struct{ prefix, reason string }{
	{"_Unwind_", "walks the stack that it returns to"},
	{"_dl_runtime_resolve", "has no return address on the stack"},
	{"_dl_tlsdesc_", "has no return address on the stack"},
	{"__tsan_", "looks at its return address"},
	{"__asan_", "looks at its return address"},
	{"__msan_", "looks at its return address"},
	{"__sanitizer_", "looks at its return address"},
}

// returnsOddly says why returns of fn must not be observed; empty if they may.
func returnsOddly(fn *symbolizer.Function) string {
	if fn.Lang == symbolizer.LangGo {
		return oddGo[fn.Name]
	}
	if r := oddSymbol(fn.Symbol); r != "" {
		return r
	}
	if fn.Symbol == "" {
		return oddSymbol(fn.Name)
	}
	for _, a := range fn.Aliases {
		if r := oddSymbol(a); r != "" {
			return r
		}
	}
	return ""
}

func oddSymbol(name string) string {
	name = baseSymbol(name)
	if r, ok := oddReturns[name]; ok {
		return r
	}
	if strings.HasPrefix(name, "_") {
		for _, p := range oddPrefixes {
			if strings.HasPrefix(name, p.prefix) {
				return p.reason
			}
		}
	}
	return ""
}

// oddGo are functions of Go's runtime whose RET does not end one call: they
// leave or enter another goroutine or stack.
var oddGo = map[string]string{
	"runtime.gogo":                  "continues in another context",
	"gogo":                          "continues in another context",
	"runtime.mcall":                 "continues in another context",
	"runtime.systemstack":           "switches stacks",
	"runtime.systemstack_switch":    "switches stacks",
	"runtime.asmcgocall":            "switches stacks",
	"runtime.asmcgocall_landingpad": "switches stacks",
	"runtime.cgocallback":           "switches stacks",
	"runtime.morestack":             "switches stacks",
	"runtime.morestack_noctxt":      "switches stacks",
	"runtime.rt0_go":                "has no return address on the stack",
	"runtime.goexit":                "has no return address on the stack",
	"runtime.sigreturn__sigaction":  "has no return address on the stack",
	"runtime.asyncPreempt":          "returns to where a signal interrupted",
	"runtime.clone":                 "returns twice",
}
