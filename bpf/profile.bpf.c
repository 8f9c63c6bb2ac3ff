//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Sampling. Hooks:
 *   on_tick                     perf event of each CPU: the cpu-clock software event
 *   unwind_tick                 its continuation, by tail calls, 32 frames each
 *   on_fork, on_exec, on_exit   scheduler tracepoints
 * Minimum kernel: 5.15 (bpf_task_pt_regs).
 */
#include "unwind.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Forces the record type into BTF for bpf2go. */
const struct sample_event *unused_sample_event __attribute__((unused));
const struct mapping *unused_mapping __attribute__((unused));
const struct unwind_page *unused_unwind_page __attribute__((unused));
const struct unwind_rule *unused_unwind_rule __attribute__((unused));

const volatile bool cfg_all; /* processes that are not in targets too */
const volatile bool cfg_follow; /* children of targets are targets */
const volatile bool cfg_kernel; /* kernel stacks too */
const volatile __u64 cfg_weight; /* of each sample */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24); /* load */
} events SEC(".maps");

/* Samples that found the ring full, by CPU. */
__u64 lost[1024] SEC(".data.lost");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unwinder);
} unwinders SEC(".maps");

int unwind_tick(struct bpf_perf_event_data *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct bpf_perf_event_data *));
} tick_programs SEC(".maps") = {
	.values = { [0] = (void *)&unwind_tick },
};

static __always_inline void count_lost(void)
{
	__sync_fetch_and_add(&lost[bpf_get_smp_processor_id() & 1023], 1);
}

static __always_inline struct unwinder *my_unwinder(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&unwinders, &zero);
}

/* Whether the current process is wanted; the unwinder gets what is known of it. */
static __always_inline bool wanted(struct unwinder *u, __u32 pid)
{
	struct target *t = bpf_map_lookup_elem(&targets, &pid);

	if (t) {
		u->target = *t;
		return true;
	}
	__builtin_memset(&u->target, 0, sizeof(u->target));
	return cfg_all;
}

/* Whose sample it is. */
static __always_inline void describe(struct unwinder *u, __u32 pid, __u32 tid)
{
	struct event_header *h = &u->e.h;

	h->time = bpf_ktime_get_ns();
	h->pid = pid;
	h->tid = tid;
	h->func = 0;
	h->kind = EVENT_SAMPLE;
	h->pad = 0;
	h->flags = 0;
	u->e.weight = cfg_weight;
	u->e.goid = 0;
	u->e.cpu = bpf_get_smp_processor_id();
	u->e.user = u->e.kernel = 0;
	u->e.cut = CUT_NONE;
	bpf_get_current_comm(u->e.comm, sizeof(u->e.comm));
}

/* The goroutine that runs, also while it is on the system stack. */
static __always_inline void find_goroutine(struct unwinder *u)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 g = 0, m = 0;
#if defined(__TARGET_ARCH_x86)
	__u64 tls = BPF_CORE_READ(task, thread.fsbase);
#else
	__u64 tls = BPF_CORE_READ(task, thread.uw.tp_value);
#endif

	u->e.h.flags |= FLAG_GO;
	if (bpf_probe_read_user(&g, sizeof(g), (void *)(tls + u->target.go_tls)) ||
	    bpf_probe_read_user(&m, sizeof(m), (void *)(g + u->target.go_m)) ||
	    bpf_probe_read_user(&g, sizeof(g), (void *)(m + u->target.go_curg)) || !g)
		return;
	bpf_probe_read_user(&u->e.goid, sizeof(u->e.goid), (void *)(g + u->target.go_id));
}

/* Sends the sample. */
static __always_inline void finish(void *ctx, struct unwinder *u, bool kernel)
{
	__u64 n = u->depth, size;
	long k = 0;

	if (n > MAX_SAMPLE_USER)
		n = MAX_SAMPLE_USER;
	u->e.user = n;
	if (!u->target.mappings && n)
		u->e.cut = CUT_NOT_LOADED;
	if (cfg_kernel && kernel) {
		k = bpf_get_stack(ctx, &u->e.stack[n], MAX_SAMPLE_KERNEL * 8, 0);
		if (k < 0)
			k = 0;
		u->e.kernel = k / 8;
	}
	size = __builtin_offsetof(struct sample_event, stack) + n * 8 + k;
	if (size > sizeof(u->e))
		size = sizeof(u->e);
	if (bpf_ringbuf_output(&events, &u->e, size, BPF_RB_NO_WAKEUP))
		count_lost();
}

static __always_inline bool user_mode(struct bpf_perf_event_data *ctx)
{
#if defined(__TARGET_ARCH_x86)
	return ctx->regs.cs & 3;
#else
	return !(ctx->regs.pstate & 15);
#endif
}

SEC("perf_event")
int unwind_tick(struct bpf_perf_event_data *ctx)
{
	struct unwinder *u = my_unwinder();

	if (!u)
		return 0;
	for (__u64 i = 0; i < FRAMES_PER_PROGRAM; i++) {
		if (next_frame(u) == STEP_DONE) {
			finish(ctx, u, u->e.h.flags & FLAG_KERNEL);
			return 0;
		}
	}
	bpf_tail_call(ctx, &tick_programs, 0);
	u->e.cut = CUT_TOO_DEEP;
	finish(ctx, u, u->e.h.flags & FLAG_KERNEL);
	return 0;
}

SEC("perf_event")
int on_tick(struct bpf_perf_event_data *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct unwinder *u = my_unwinder();
	struct pt_regs regs;
	__u32 pid, tid;

	if (!task->pid || !u)
		return 0; /* idle */
	current_ids(&pid, &tid);
	if (!wanted(u, pid))
		return 0;
	describe(u, pid, tid);
	if (user_mode(ctx)) {
#if defined(__TARGET_ARCH_x86)
		__builtin_memcpy(&regs, &ctx->regs, sizeof(regs));
#else
		__builtin_memcpy(&regs.user_regs, &ctx->regs, sizeof(regs.user_regs));
#endif
	} else {
		u->e.h.flags |= FLAG_KERNEL;
		u->depth = 0;
		if (task->flags & PF_KTHREAD || !task->mm) {
			finish(ctx, u, true);
			return 0;
		}
		if (bpf_probe_read_kernel(&regs, sizeof(regs), (void *)bpf_task_pt_regs(task)))
			return 0;
	}
	start_unwinding(u, &regs);
	if (u->target.go_id)
		find_goroutine(u);
	bpf_tail_call(ctx, &tick_programs, 0);
	return 0;
}

static __always_inline void send_task(struct task_struct *t, __u8 kind, __u32 pid, __u32 tid, __u32 child_pid, __u32 child)
{
	struct task_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e)
		return count_lost();
	e->h.time = bpf_ktime_get_ns();
	e->h.pid = pid;
	e->h.tid = tid;
	e->h.func = 0;
	e->h.kind = kind;
	e->h.pad = 0;
	e->h.flags = 0;
	e->child = child;
	e->child_pid = child_pid;
	bpf_probe_read_kernel(e->comm, sizeof(e->comm), t->comm);
	bpf_ringbuf_submit(e, BPF_RB_FORCE_WAKEUP);
}

SEC("tp_btf/sched_process_fork")
int on_fork(__u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	__u32 pid, tid, child_pid, child_tid;
	struct target *t, copy;

	task_ids(parent, &pid, &tid);
	t = bpf_map_lookup_elem(&targets, &pid);
	if (!t)
		return 0;
	task_ids(child, &child_pid, &child_tid);
	if (child_pid == pid || !cfg_follow)
		return 0;
	copy = *t; /* it has the same memory */
	bpf_map_update_elem(&targets, &child_pid, &copy, BPF_ANY);
	send_task(child, EVENT_FORK, pid, tid, child_pid, child_tid);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int on_exec(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct target *t, none = {};
	__u32 pid, tid;

	task_ids(task, &pid, &tid);
	t = bpf_map_lookup_elem(&targets, &pid);
	if (!t)
		return 0;
	bpf_map_update_elem(&targets, &pid, &none, BPF_ANY);
	send_task(task, EVENT_EXEC, pid, tid, 0, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int on_exit(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	__u32 pid, tid;

	task_ids(task, &pid, &tid);
	if (BPF_CORE_READ(task, signal, live.counter) || !bpf_map_lookup_elem(&targets, &pid))
		return 0;
	bpf_map_delete_elem(&targets, &pid);
	send_task(task, EVENT_PROCESS_EXIT, pid, tid, 0, 0);
	return 0;
}
