/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/* What every call probe does: whose call is it, does it count, send it. */
#pragma once
#include "headers/bpf_core_read.h"
#include "ids.h"
#include "maps.h"
#include "regs.h"

/*
 * Attach cookie of a call site, written by loader/cookie.go:
 *   bits  0-23  function
 *   bits 24-39  group of sites
 *   bits 40-47  generation of the group
 *   bits 48-55  8-byte words from sp up to the slot of the return address; at
 *               a jump out of the function instead when it is taken: 0 always,
 *               0x10 | the condition as x86 encodes it
 *   bits 56-63  enum cookie_flags
 */
enum cookie_flags {
	COOKIE_TAIL_JUMPS = 1 << 0,
	COOKIE_HOOKED = 1 << 1,
	COOKIE_ABI0 = 1 << 2,
	COOKIE_TAIL = 1 << 3, /* the site is a jump to another function */
	COOKIE_EVERYONE = 1 << 4, /* attached for every process that maps the file */
};

#define COOKIE_FUNC(c) ((__u32)(c) & 0xffffff)
#define COOKIE_GROUP(c) ((__u32)((c) >> 24) & 0xffff)
#define COOKIE_GENERATION(c) ((__u64)((c) >> 40) & 0xff)
#define COOKIE_SP(c) (((__u64)((c) >> 48) & 0xff) * 8)
#define COOKIE_CONDITION(c) ((__u32)((c) >> 48) & 0xff)
#define COOKIE_FLAGS(c) ((__u32)((c) >> 56))

/* What is running: ids, and where on which stack. */
struct where {
	__u64 cookie;
	__u64 sp;
	__u64 goid;
	__u32 pid;
	__u32 tid;
	__u16 flags;
};

/* Whether pid is traced, and what is known about it. */
static __always_inline bool traced(__u32 pid, __u32 *about)
{
	struct process *p;

	if (cfg_pidns_ino && !pid) /* free places of known[] have 0, too */
		return false;
	for (int i = 0; i < KNOWN_PROCESSES; i++) {
		if (known[i].pid == pid) {
			*about = known[i].about;
			return true;
		}
	}
	p = bpf_map_lookup_elem(&processes, &pid);
	if (!p)
		return false;
	*about = p->about;
	return true;
}

static __always_inline bool group_counts(__u64 cookie)
{
	return generations[COOKIE_GROUP(cookie)] == COOKIE_GENERATION(cookie);
}

static __always_inline void count_hit(__u64 cookie)
{
	__u32 i = bpf_get_smp_processor_id() * cfg_counters_stride + COOKIE_FUNC(cookie);
	__u64 *n = bpf_map_lookup_elem(&counters, &i);

	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline bool wanted_thread(__u32 tid)
{
	if (cfg_filter_tid && !bpf_map_lookup_elem(&tids, &tid))
		return false;
	if (cfg_filter_comm) {
		__u8 comm[COMM_LEN] = {};

		bpf_get_current_comm(comm, sizeof(comm));
		for (int i = 0; i < COMM_LEN; i++) {
			if (comm[i] != cfg_comm[i])
				return false;
			if (!comm[i])
				break;
		}
	}
	return true;
}

/*
 * Goroutine and place on its stack. Stacks move when they grow, so the place
 * is given from the stack's upper end. runtime.g begins with stack{lo, hi}.
 */
static __always_inline void locate_goroutine(const struct pt_regs *ctx, struct where *w, __u32 goid_offset)
{
	__u64 g = REG_G(ctx), hi = 0;

#if defined(__TARGET_ARCH_x86)
	if (COOKIE_FLAGS(w->cookie) & COOKIE_ABI0) {
		struct task_struct *task = (void *)bpf_get_current_task();
		__u64 tls = BPF_CORE_READ(task, thread.fsbase);

		g = 0;
		bpf_probe_read_user(&g, sizeof(g), (void *)(tls - 8));
	}
#endif
	bpf_probe_read_user(&hi, sizeof(hi), (void *)(g + 8));
	if (goid_offset)
		bpf_probe_read_user(&w->goid, sizeof(w->goid), (void *)(g + goid_offset));
	w->sp -= hi;
	w->flags |= FLAG_GO;
}

/* Fills w and says whether this hit is of a traced process. */
static __always_inline bool locate(struct pt_regs *ctx, struct where *w, bool go)
{
	__u32 about = 0;

	w->cookie = bpf_get_attach_cookie(ctx);
	w->goid = 0;
	w->flags = 0;
	current_ids(&w->pid, &w->tid);
	if (!group_counts(w->cookie) || !traced(w->pid, &about))
		return false;
	if (about & ABOUT_OWN_PROBES && COOKIE_FLAGS(w->cookie) & COOKIE_EVERYONE)
		return false;
	w->sp = REG_SP(ctx);
	if (!(COOKIE_FLAGS(w->cookie) & COOKIE_TAIL))
		w->sp += COOKIE_SP(w->cookie);
	if (go && cfg_level > LEVEL_COUNT)
		locate_goroutine(ctx, w, ABOUT_GOID_OFFSET(about));
	return true;
}

static __always_inline void fill_header(struct event_header *h, const struct where *w, __u8 kind, __u64 time)
{
	h->time = time;
	h->pid = w->pid;
	h->tid = w->tid;
	h->func = COOKIE_FUNC(w->cookie);
	h->kind = kind;
	h->pad = 0;
	h->flags = w->flags;
}

static __always_inline __u64 *lost_here(void)
{
	return &lost[bpf_get_smp_processor_id() & 1023];
}

static __always_inline void count_lost(void)
{
	__sync_fetch_and_add(lost_here(), 1);
}

/*
 * Says what was lost on this CPU as soon as there is room, in the place where it is missing. The reader takes counts, too:
 * whoever swaps one out has it.
 */
static __always_inline void report_lost(const struct where *w)
{
	__u64 *n = lost_here(), count;
	struct lost_event *e;

	if (!*n)
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e)
		return;
	count = __sync_lock_test_and_set(n, 0);
	if (!count) {
		bpf_ringbuf_discard(e, BPF_RB_NO_WAKEUP);
		return;
	}
	fill_header(&e->h, w, EVENT_LOST, bpf_ktime_get_ns());
	e->count = count;
	e->cpu = bpf_get_smp_processor_id();
	e->cause = LOST_RING;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* Stands for a return address that a return probe has replaced; the rest is where it was on the stack. */
#define REPLACED (1ULL << 63)

/*
 * Puts the return addresses back that return probes have replaced by their
 * trampoline: the kernel keeps them in the order of the stack. Counters are in
 * the record, where the verifier does not follow every value that they can have.
 */
static __always_inline void restore_replaced(__u64 *stack, const __u64 *depth)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct return_instance *r = BPF_CORE_READ(task, utask, return_instances);
	volatile __u64 *next = stack;

	*next = 1;
	for (int step = 0; step < 2 * MAX_STACK; step++) {
		__u64 i = *next;

		if (i >= *(volatile const __u64 *)depth || i >= MAX_STACK)
			return;
		if (stack[i] & REPLACED && r) {
			if (BPF_CORE_READ(r, stack) < (stack[i] & ~REPLACED)) {
				r = BPF_CORE_READ(r, next);
				continue;
			}
			stack[i] = BPF_CORE_READ(r, orig_ret_vaddr);
		}
		*next = i + 1;
	}
}

/* Where a chain of frame pointers ends: outermost frames have 0 or a small number of main's caller. */
static __always_inline bool no_frame(__u64 fp)
{
	return fp < 4096;
}

/*
 * The return addresses by frame pointers, from a function's entry: its frame is
 * not built yet, so the frame pointer is still the caller's, and where to return
 * stands at sp, or is at hand (lr; 0 on x86). Returns FLAG_CUT_STACK if there may
 * be more callers. A function of its own to the verifier: its loops would be
 * multiplied by those of the programs that call it.
 */
__noinline int walk_stack(struct stack_event *e, __u64 ip, __u64 fp, __u64 sp, __u64 lr)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 trampoline = BPF_CORE_READ(task, mm, uprobes_state.xol_area, vaddr);
	int cut = FLAG_CUT_STACK;
	__u64 frame[2];
	__u32 n;

	if (!e)
		return cut;
	e->depth = 1;
	e->stack[0] = ip;
	e->stack[1] = lr;
	if (!lr && bpf_probe_read_user(&e->stack[1], 8, (void *)sp))
		return cut;
	if (trampoline && e->stack[1] == trampoline)
		e->stack[1] = REPLACED | sp;
	for (n = 2; n < MAX_STACK; n++) {
		if (no_frame(fp)) {
			cut = 0;
			break;
		}
		if (bpf_probe_read_user(frame, sizeof(frame), (void *)fp))
			break;
		if (!frame[1]) {
			cut = 0;
			break;
		}
		e->stack[n] = frame[1];
		if (trampoline && frame[1] == trampoline)
			e->stack[n] = REPLACED | (fp + 8);
		if (frame[0] <= fp) {
			cut = no_frame(frame[0]) ? 0 : FLAG_CUT_STACK;
			n++;
			break;
		}
		fp = frame[0];
	}
	e->depth = n;
	if (trampoline) {
		restore_replaced(e->stack, &e->depth);
		e->stack[0] = ip;
	}
	return cut;
}

/* The stack at a function's entry; returns flags. */
static __always_inline __u16 entry_stack(const struct pt_regs *ctx, const struct where *w, struct stack_event *e)
{
	return walk_stack(e, REG_IP(ctx), REG_FP(ctx), REG_SP(ctx) + COOKIE_SP(w->cookie), REG_LR(ctx)) & FLAG_CUT_STACK;
}

/* Sends one entry; at levels above calls only with the registers at hand. */
static __always_inline void send_call(struct pt_regs *ctx, const struct where *w, __u8 kind, __u64 time, bool go)
{
	report_lost(w);
	if (cfg_level == LEVEL_STACKS && kind == EVENT_ENTRY && ctx) {
		struct stack_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

		if (!e)
			return count_lost();
		fill_header(&e->a.c.h, w, kind, time);
		e->a.c.sp = w->sp;
		e->a.c.goid = w->goid;
		if (go)
			go_args(ctx, e->a.args);
		else
			c_args(ctx, e->a.args);
		e->a.c.h.flags |= entry_stack(ctx, w, e);
		bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
		return;
	}
	if (cfg_level >= LEVEL_ARGS && ctx) {
		struct args_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

		if (!e)
			return count_lost();
		fill_header(&e->c.h, w, kind, time);
		e->c.sp = w->sp;
		e->c.goid = w->goid;
		if (kind == EVENT_EXIT) {
			/* At a tail jump there is no return value yet. */
			if (!(COOKIE_FLAGS(w->cookie) & COOKIE_TAIL))
				e->c.h.flags |= FLAG_RETURN;
			e->args[0] = REG_RET(ctx);
		} else if (go) {
			go_args(ctx, e->args);
		} else {
			c_args(ctx, e->args);
		}
		bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
		return;
	}
	struct call_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e)
		return count_lost();
	fill_header(&e->h, w, kind, time);
	e->sp = w->sp;
	e->goid = w->goid;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}
