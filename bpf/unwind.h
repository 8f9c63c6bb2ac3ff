/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Unwinds user stacks by tables that userspace has built from the unwind
 * information of each file (symbolizer.UnwindTable).
 *
 *   targets          pid → where its mappings are in map mappings
 *   mappings         sorted mappings of all processes: address → pages of a file
 *   unwind_pages     64 KiB of code each: where its rows are
 *   unwind_segments  rows: 16 bits of address, 16 bits of rule
 *   unwind_rules     how to get from a frame to its caller
 *
 * A value is shared by everything that has it: rows by all processes that map a
 * file, rules by all files. All but targets and unwind_segments are arrays of
 * one element that userspace has mapped: programs get a pointer to it by one
 * look-up and search without calls.
 *
 * State is in memory (struct unwinder), where the verifier takes every value for
 * possible: so it follows one pass of each loop in one way only.
 */
#pragma once
#include "events.h"
#include "ids.h"

enum unwind_kind {
	UNWIND_NONE,
	UNWIND_END,
	UNWIND_CFA,
	UNWIND_DEREF,
	UNWIND_PLT,
	UNWIND_SIGNAL,
	UNWIND_GO_STACK,
};

enum unwind_flags {
	UNWIND_EXACT = 1 << 0, /* the caller's address is that of the next instruction */
	UNWIND_FP_SAVED = 1 << 1, /* a place in saved counts from the frame pointer */
};

enum {
	SAVED_REGS = 6,
	SAVED_LOST = -32768,
	MAX_RULES = 1 << 16,
	MAX_PAGES = 1 << 16,
	SEGMENT_ROWS = 1 << 17,
	MAX_SEGMENTS = 512,
	MAX_MAPPINGS = 1 << 16,
	PAGE_SHIFT = 16,
};

/* As symbolizer.UnwindRule. */
struct unwind_rule {
	__u8 kind;
	__u8 reg;
	__u8 ra_reg;
	__u8 flags;
	__s32 offset;
	__s32 second;
	__s16 saved[SAVED_REGS];
};

struct unwind_page {
	__u32 first; /* row in the segment */
	__u16 count;
	__u16 segment;
};

/* An executable mapping of a process. */
struct mapping {
	__u64 start;
	__u64 end;
	__u64 bias; /* of an address to one counted from the first page's code */
	__u32 first_page;
	__u32 pages; /* 0: there is no table */
};

/* What is known of a process whose stacks are taken. */
struct target {
	__u32 first; /* in map mappings */
	__u32 mappings;
	__u32 go_id; /* offset of goid in runtime.g; 0: not a Go program */
	__u32 go_m; /* offset of m in runtime.g */
	__u32 go_curg; /* offset of curg in runtime.m */
	__u32 go_bp; /* offset of sched.bp in runtime.g */
	__s32 go_tls; /* offset of g from the thread pointer */
	__u32 python; /* it is in map pythons */
	__u32 go_labels; /* offset of labels in runtime.g */
	__u32 pad;
};

struct unwind_rules {
	struct unwind_rule rule[MAX_RULES];
};

struct unwind_pages {
	struct unwind_page page[MAX_PAGES];
};

struct unwind_segment {
	__u32 row[SEGMENT_ROWS]; /* lower half address, upper half rule */
};

struct mappings {
	struct mapping mapping[MAX_MAPPINGS];
};

/* Forces the inner map's type into BTF. */
const struct unwind_segment *unused_unwind_segment __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unwind_rules);
} unwind_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unwind_pages);
} unwind_pages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_SEGMENTS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(map_flags, BPF_F_MMAPABLE);
		__uint(max_entries, 1);
		__type(key, __u32);
		__type(value, struct unwind_segment);
	});
} unwind_segments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mappings);
} mappings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct target);
} targets SEC(".maps");

/*
 * Registers by DWARF number. Those that a caller's frame may count from are in
 * `tracked`, in the order of unwind_rule.saved.
 */
#if defined(__TARGET_ARCH_x86)
enum { DW_FP = 6, DW_SP = 7, DW_REGS = 16 };
static const __u8 tracked[SAVED_REGS] = { 3, 6, 12, 13, 14, 15 };
#define TRACKED_MASK (1 << 3 | 1 << 6 | 1 << 7 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 15)
#elif defined(__TARGET_ARCH_arm64)
enum { DW_FP = 29, DW_RA = 30, DW_SP = 31, DW_REGS = 32 };
static const __u8 tracked[SAVED_REGS] = { 29, 30, 19, 20, 21, 22 };
#define TRACKED_MASK (1U << 29 | 1U << 30 | 1U << 31 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22)
#endif

enum { PYTHON_FRAME_SIZE = 80 }; /* of _PyInterpreterFrame without its variables */

/* symbolizer.PythonLayout: offsets in bytes. */
struct python {
	__u64 runtime; /* address of _PyRuntime */
	__u32 minor; /* 11 for CPython 3.11 */
	__u32 interpreters;
	__u32 next_interp;
	__u32 threads;
	__u32 next_thread;
	__u32 native_id;
	__u32 thread_frame;
	__u32 has_cframe;
	__u32 cframe_frame;
	__u32 frame_code; /* these four are below PYTHON_FRAME_SIZE */
	__u32 frame_previous;
	__u32 frame_instr;
	__u32 frame_owner;
	__u32 pad;
};

/* A walk along Python's frames: python.h. */
struct python_walk {
	struct python py;
	__u64 interp;
	__u64 thread;
	__u64 frame;
	__u64 word;
	__u64 raw[PYTHON_FRAME_SIZE / 8];
	__u32 tid; /* as the process sees it */
	__u32 words;
};

/*
 * A walk from frame to frame, and the sample that it fills. What two paths
 * through a program have left in registers would make the verifier follow both
 * to the end: values that live longer are read back from here.
 */
struct unwinder {
	struct target target;
	struct mapping map; /* the one found last */
	__u64 pc;
	__u64 addr; /* in the instruction that the frame executes */
	__u64 word[2]; /* read from the stack */
	__u64 hash; /* of the stack so far */
	__u64 reg[32]; /* by DWARF number */
	__u64 at[32]; /* where the value is on the stack; 0: in reg */
	__u32 valid; /* bit n: reg[n] or at[n] is known */
	__u32 exact; /* pc is that of an instruction, not of a return */
	__u32 lo, hi; /* of a search */
	__u32 rule;
	__u32 depth;
	struct python_walk walk;
	struct sample_event e;
	__u64 slack[MAX_SAMPLE_USER]; /* so that an index need only be masked */
};

#define VOLATILE(lvalue) (*(volatile __typeof__(lvalue) *)&(lvalue))

enum step {
	STEP_ON,
	STEP_DONE, /* outermost frame, or e.cut says why not */
};

/* Reads a register of the present frame. */
static __always_inline bool get_reg(struct unwinder *u, __u32 r, __u64 *value)
{
	r &= 31;
	if (!(u->valid >> r & 1)) {
		u->e.cut = CUT_REGISTER;
		return false;
	}
	if (u->at[r]) {
		if (bpf_probe_read_user(&u->reg[r], 8, (void *)u->at[r])) {
			u->e.cut = CUT_UNREADABLE;
			return false;
		}
		u->at[r] = 0;
	}
	*value = VOLATILE(u->reg[r]);
	return true;
}

/* Reads a word of user memory. */
static __always_inline bool read_word(struct unwinder *u, __u64 addr, __u64 *value)
{
	if (bpf_probe_read_user(u->word, 8, (void *)addr)) {
		u->e.cut = CUT_UNREADABLE;
		return false;
	}
	*value = VOLATILE(u->word[0]);
	return true;
}

/* Finds the mapping that has u->addr: u->map. */
static __always_inline bool find_mapping(struct unwinder *u)
{
	__u32 zero = 0;
	struct mappings *all;
	struct mapping *m;

	if (VOLATILE(u->addr) >= VOLATILE(u->map.start) && VOLATILE(u->addr) < VOLATILE(u->map.end))
		return true;
	all = bpf_map_lookup_elem(&mappings, &zero);
	if (!all)
		return false;
	VOLATILE(u->lo) = u->target.first;
	VOLATILE(u->hi) = u->target.first + u->target.mappings;
	/* The first one that ends beyond addr. */
	for (int i = 0; i < 17; i++) {
		__u32 lo = VOLATILE(u->lo), hi = VOLATILE(u->hi), mid = (lo + hi) / 2;

		if (lo >= hi)
			break;
		if (VOLATILE(all->mapping[mid & (MAX_MAPPINGS - 1)].end) > VOLATILE(u->addr))
			VOLATILE(u->hi) = mid;
		else
			VOLATILE(u->lo) = mid + 1;
	}
	if (VOLATILE(u->lo) >= u->target.first + u->target.mappings)
		return false;
	m = &all->mapping[VOLATILE(u->lo) & (MAX_MAPPINGS - 1)];
	if (VOLATILE(u->addr) < VOLATILE(m->start) || VOLATILE(u->addr) >= VOLATILE(m->end))
		return false;
	u->map = *m;
	return true;
}

/* Finds the rule for u->addr in u->map; rule 0 if there is none. */
static __always_inline __u32 find_rule(struct unwinder *u)
{
	__u32 zero = 0, n;
	struct unwind_segment *seg;
	struct unwind_pages *pages;
	struct unwind_page *page;
	void *inner;

	VOLATILE(u->word[0]) = VOLATILE(u->addr) - u->map.bias;
	if (VOLATILE(u->word[0]) >> PAGE_SHIFT >= u->map.pages)
		return 0;
	pages = bpf_map_lookup_elem(&unwind_pages, &zero);
	if (!pages)
		return 0;
	page = &pages->page[(u->map.first_page + (__u32)(VOLATILE(u->word[0]) >> PAGE_SHIFT)) & (MAX_PAGES - 1)];
	if (!VOLATILE(page->count))
		return 0;
	VOLATILE(u->lo) = page->first;
	VOLATILE(u->hi) = page->first + page->count;
	n = page->segment;
	inner = bpf_map_lookup_elem(&unwind_segments, &n);
	if (!inner)
		return 0;
	seg = bpf_map_lookup_elem(inner, &zero);
	if (!seg)
		return 0;
	/* The last row at or before addr. */
	for (int i = 0; i < 16; i++) {
		__u32 lo = VOLATILE(u->lo), hi = VOLATILE(u->hi), mid = (lo + hi) / 2;

		if (lo + 1 >= hi)
			break;
		if ((VOLATILE(seg->row[mid & (SEGMENT_ROWS - 1)]) & 0xffff) <= (VOLATILE(u->word[0]) & 0xffff))
			VOLATILE(u->lo) = mid;
		else
			VOLATILE(u->hi) = mid;
	}
	n = VOLATILE(seg->row[VOLATILE(u->lo) & (SEGMENT_ROWS - 1)]);
	return (n & 0xffff) <= (VOLATILE(u->word[0]) & 0xffff) ? n >> 16 : 0;
}

#if defined(__TARGET_ARCH_x86)
/* Offsets in the ucontext of a signal frame: arch/x86/include/uapi/asm/sigcontext.h. */
enum {
	SIG_R8 = 40,
	SIG_RDI = 104,
	SIG_RSI = 112,
	SIG_RBP = 120,
	SIG_RBX = 128,
	SIG_RDX = 136,
	SIG_RAX = 144,
	SIG_RCX = 152,
	SIG_RSP = 160,
	SIG_RIP = 168,
};

/* Continues with what a signal has interrupted, whose ucontext is at uc. */
static __always_inline enum step leave_signal(struct unwinder *u, __u64 uc)
{
	if (!read_word(u, uc + SIG_RIP, &u->pc) || !read_word(u, uc + SIG_RSP, &u->reg[DW_SP]))
		return STEP_DONE;
	u->at[0] = uc + SIG_RAX;
	u->at[1] = uc + SIG_RDX;
	u->at[2] = uc + SIG_RCX;
	u->at[3] = uc + SIG_RBX;
	u->at[4] = uc + SIG_RSI;
	u->at[5] = uc + SIG_RDI;
	u->at[6] = uc + SIG_RBP;
	for (int i = 0; i < 8; i++)
		u->at[8 + i] = uc + SIG_R8 + 8 * i;
	u->valid = 0xffff;
	u->exact = true;
	return STEP_ON;
}

/*
 * Whether code without rules is a signal trampoline: mov $15,%rax or %eax,
 * then syscall. Some C libraries have no unwind information for theirs.
 */
static __always_inline bool is_sigreturn(struct unwinder *u, __u64 pc)
{
	__u64 code;

	if (bpf_probe_read_user(u->word, 8, (void *)pc))
		return false;
	code = VOLATILE(u->word[0]);
	return code == 0x0f0000000fc0c748ULL || (code & 0xffffffffffffffULL) == 0x050f0000000fb8ULL;
}
#endif

/* Goes on from the outermost frame of a system stack to its goroutine. */
static __always_inline enum step leave_go_stack(struct unwinder *u)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 g = 0, m = 0;
#if defined(__TARGET_ARCH_x86)
	__u64 tls = BPF_CORE_READ(task, thread.fsbase);
#else
	__u64 tls = BPF_CORE_READ(task, thread.uw.tp_value);
#endif
	enum { GOBUF_SP = 56, GOBUF_PC = 64 }; /* of runtime.g.sched */

	if (!u->target.go_id)
		return STEP_DONE;
	if (!read_word(u, tls + u->target.go_tls, &g) || !read_word(u, g + u->target.go_m, &m) ||
	    !read_word(u, m + u->target.go_curg, &g))
		return STEP_DONE;
	if (!g)
		return STEP_DONE; /* the scheduler's own */
	if (!read_word(u, g + GOBUF_SP, &u->reg[DW_SP]) || !read_word(u, g + GOBUF_PC, &u->pc))
		return STEP_DONE;
	if (!u->pc)
		return STEP_DONE;
	u->at[DW_FP] = g + u->target.go_bp;
	u->valid = 1U << DW_SP | 1U << DW_FP;
	u->exact = false;
	return STEP_ON;
}

/* Goes on by frame pointer, where nothing else is known of the code. */
static __always_inline enum step by_frame_pointer(struct unwinder *u)
{
	__u64 fp;

#if defined(__TARGET_ARCH_x86)
	if (is_sigreturn(u, u->pc))
		return leave_signal(u, u->reg[DW_SP]);
#endif
	if (!get_reg(u, DW_FP, &fp))
		return STEP_DONE;
	if (!fp && !u->map.pages)
		return STEP_DONE; /* generated code: the ABI marks the outermost frame so */
	if (fp & 7 || fp < u->reg[DW_SP] || fp - u->reg[DW_SP] > 64 << 20 ||
	    bpf_probe_read_user(u->word, sizeof(u->word), (void *)fp)) {
		u->e.cut = CUT_NO_RULE;
		return STEP_DONE;
	}
	u->reg[DW_FP] = VOLATILE(u->word[0]);
	u->at[DW_FP] = 0;
	u->reg[DW_SP] = fp + 16;
	u->pc = VOLATILE(u->word[1]);
	u->exact = false;
	u->valid = 1U << DW_SP | 1U << DW_FP;
	return STEP_ON;
}

/* The CFA of the present frame. */
static __always_inline bool frame_address(struct unwinder *u, const struct unwind_rule *r, __u64 *cfa)
{
	__u64 base;

	if (!get_reg(u, r->reg, &base))
		return false;
	base += (__s64)r->offset;
	if (r->kind == UNWIND_DEREF) {
		if (!read_word(u, base, &base))
			return false;
		base += (__s64)r->second;
	} else if (r->kind == UNWIND_PLT && (u->pc & 15) >= (__u64)r->second) {
		base += 8;
	}
	*cfa = base;
	return true;
}

/* Says where the registers of the caller are. */
static __always_inline bool save_registers(struct unwinder *u, const struct unwind_rule *r, __u64 cfa)
{
	__u64 fp = 0;

	if (r->flags & UNWIND_FP_SAVED && !get_reg(u, DW_FP, &fp))
		return false;
	for (int i = 0; i < SAVED_REGS; i++) {
		__s64 s = r->saved[i];
		__u32 n = tracked[i];

		if (!s)
			continue;
		if (s == SAVED_LOST) {
			u->valid &= ~(1U << n);
			continue;
		}
		u->at[n] = s & 1 ? fp + (s - 1) * 4 : cfa + s * 4;
		u->valid |= 1U << n;
	}
	return true;
}

/* Goes to the caller by a rule that gives the CFA. */
static __always_inline enum step by_rule(struct unwinder *u, const struct unwind_rule *r)
{
	__u64 cfa, ra, sp = u->reg[DW_SP];
	bool leaf = u->exact;

	if (!frame_address(u, r, &cfa))
		return STEP_DONE;
#if defined(__TARGET_ARCH_x86)
	if (r->ra_reg) {
		if (!get_reg(u, r->ra_reg - 1, &ra))
			return STEP_DONE;
	} else if (!read_word(u, cfa + (r->kind == UNWIND_CFA ? (__s64)r->second : -8), &ra)) {
		return STEP_DONE;
	}
	if (!save_registers(u, r, cfa))
		return STEP_DONE;
#else
	if (!save_registers(u, r, cfa) || !get_reg(u, DW_RA, &ra))
		return STEP_DONE;
	u->valid &= ~(1U << DW_RA);
	ra &= (1ULL << 52) - 1; /* without authentication codes and tags */
#endif
	/* The caller's frame is above, but for code that switches stacks by another register. */
	if ((cfa == sp && !leaf) || (cfa < sp && r->reg == DW_SP)) {
		u->e.cut = CUT_LOOP;
		return STEP_DONE;
	}
	u->valid &= TRACKED_MASK;
	u->reg[DW_SP] = cfa;
	u->pc = ra;
	u->exact = r->flags & UNWIND_EXACT;
	return STEP_ON;
}

/* Adds a word to a hash. */
static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 29;
}

/*
 * Records the present frame and goes to its caller. A function that is not
 * static the verifier looks at once, whoever calls it.
 */
__noinline int next_frame(struct unwinder *u)
{
	__u32 zero = 0, depth;
	struct unwind_rules *rules;
	struct unwind_rule *r;

	if (!u)
		return STEP_DONE;
	if (!VOLATILE(u->pc))
		return STEP_DONE; /* where threads begin */
	VOLATILE(u->addr) = VOLATILE(u->pc) - !VOLATILE(u->exact);
	VOLATILE(u->rule) = 0;
	if (find_mapping(u)) {
		VOLATILE(u->rule) = find_rule(u);
	} else if (VOLATILE(u->depth)) {
		u->e.cut = CUT_UNMAPPED;
		return STEP_DONE;
	}
	depth = VOLATILE(u->depth);
	if (depth >= MAX_SAMPLE_USER) {
		u->e.cut = CUT_TOO_DEEP;
		return STEP_DONE;
	}
	u->e.stack[depth] = VOLATILE(u->addr);
	VOLATILE(u->hash) = mix(VOLATILE(u->hash), VOLATILE(u->addr));
	VOLATILE(u->depth) = depth + 1;
	rules = bpf_map_lookup_elem(&unwind_rules, &zero);
	if (!rules)
		return STEP_DONE;
	r = &rules->rule[VOLATILE(u->rule) & (MAX_RULES - 1)];
	switch (VOLATILE(r->kind)) {
	case UNWIND_END:
		return STEP_DONE;
	case UNWIND_NONE:
		return by_frame_pointer(u);
#if defined(__TARGET_ARCH_x86)
	case UNWIND_SIGNAL:
		return leave_signal(u, u->reg[DW_SP] + (__s64)r->offset);
#endif
	case UNWIND_GO_STACK:
		if (!u->exact)
			return leave_go_stack(u);
	}
	return by_rule(u, r);
}

/* Goes from frame to frame until the outermost one. */
static __always_inline void unwind(struct unwinder *u)
{
	for (__u64 i = 0; i <= MAX_SAMPLE_USER; i++)
		if (next_frame(u) == STEP_DONE)
			return;
}

/* Begins with the registers of user code. */
static __always_inline void start_unwinding(struct unwinder *u, const struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	u->reg[0] = regs->ax;
	u->reg[1] = regs->dx;
	u->reg[2] = regs->cx;
	u->reg[3] = regs->bx;
	u->reg[4] = regs->si;
	u->reg[5] = regs->di;
	u->reg[6] = regs->bp;
	u->reg[7] = regs->sp;
	u->reg[8] = regs->r8;
	u->reg[9] = regs->r9;
	u->reg[10] = regs->r10;
	u->reg[11] = regs->r11;
	u->reg[12] = regs->r12;
	u->reg[13] = regs->r13;
	u->reg[14] = regs->r14;
	u->reg[15] = regs->r15;
	u->pc = regs->ip;
	u->valid = 0xffff;
#elif defined(__TARGET_ARCH_arm64)
	for (int i = 0; i < 31; i++)
		u->reg[i] = regs->user_regs.regs[i];
	u->reg[DW_SP] = regs->user_regs.sp;
	u->pc = regs->user_regs.pc;
	u->valid = ~0U;
#endif
	for (int i = 0; i < DW_REGS; i++)
		u->at[i] = 0;
	u->exact = true;
	u->map.start = u->map.end = 0;
	u->depth = 0;
	u->e.cut = CUT_NONE;
}
