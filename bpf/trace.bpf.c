//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Call tracing. Hooks:
 *   entry_c, entry_go    uprobe at a function's entry site
 *   return_c             uretprobe, native code only: Go moves its stacks
 *   ret_c, ret_go        uprobe on each RET instruction
 *   go_exit              uprobe at runtime.goexit1
 *   usdt, python         uprobe at a static probe
 *   on_fork, on_exec, on_exit   scheduler tracepoints
 *   on_cgroup            tracepoint where a task enters a control group
 * The same programs attach by uprobe_multi (kernel 6.6+) or one by one through
 * perf events. Minimum kernel: 5.15 (attach cookies of uprobes).
 * The cookie is described in calls.h. Events are records of events.h.
 */
#include "stateful.h"
#include "usdt.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Forces the record types into BTF for bpf2go. */
const struct call_event *unused_call_event __attribute__((unused));
const struct args_event *unused_args_event __attribute__((unused));
const struct stack_event *unused_stack_event __attribute__((unused));
const struct task_event *unused_task_event __attribute__((unused));
const struct lost_event *unused_lost_event __attribute__((unused));

static __always_inline int entry(struct pt_regs *ctx, bool go)
{
	struct where w;

	if (!locate(ctx, &w, go))
		return 0;
	if (cfg_level == LEVEL_COUNT && !wanted_thread(w.tid))
		return 0;
	count_hit(w.cookie);
	if (cfg_level == LEVEL_COUNT || !wanted_thread(w.tid))
		return 0;
	if (COOKIE_FLAGS(w.cookie) & COOKIE_TAIL_JUMPS)
		w.flags |= FLAG_TAIL_JUMPS;
	if (COOKIE_FLAGS(w.cookie) & COOKIE_HOOKED)
		w.flags |= FLAG_HOOKED;
	if (cfg_stateful)
		stateful_entry(ctx, &w, go);
	else
		send_call(ctx, &w, EVENT_ENTRY, bpf_ktime_get_ns(), go);
	return 0;
}

static __always_inline int leave(struct pt_regs *ctx, bool go, bool hooked)
{
	struct where w;

	if (!locate(ctx, &w, go) || !wanted_thread(w.tid))
		return 0;
	if (!hooked && COOKIE_FLAGS(w.cookie) & COOKIE_TAIL && COOKIE_CONDITION(w.cookie) &&
	    !condition_holds(ctx, COOKIE_CONDITION(w.cookie)))
		return 0; /* stays in the function */
	if (hooked) {
		w.sp -= RETURN_PROBE_POPPED;
		w.flags |= FLAG_HOOKED;
	}
	if (cfg_stateful)
		stateful_exit(ctx, &w, go);
	else
		send_call(ctx, &w, EVENT_EXIT, bpf_ktime_get_ns(), go);
	return 0;
}

SEC("uprobe")
int entry_c(struct pt_regs *ctx)
{
	return entry(ctx, false);
}

SEC("uprobe")
int entry_go(struct pt_regs *ctx)
{
	return entry(ctx, true);
}

SEC("uprobe")
int return_c(struct pt_regs *ctx)
{
	return leave(ctx, false, true);
}

SEC("uprobe")
int ret_c(struct pt_regs *ctx)
{
	return leave(ctx, false, false);
}

SEC("uprobe")
int ret_go(struct pt_regs *ctx)
{
	return leave(ctx, true, false);
}

SEC("uprobe")
int go_exit(struct pt_regs *ctx)
{
	struct call_event *e;
	struct where w;

	if (!locate(ctx, &w, true) || !w.goid)
		return 0;
	if (cfg_stateful)
		forget_stack(w.pid, w.goid, FLAG_GO);
	if (cfg_level < LEVEL_CALLS)
		return 0;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count_lost();
		return 0;
	}
	fill_header(&e->h, &w, EVENT_GO_EXIT, bpf_ktime_get_ns());
	e->sp = w.sp;
	e->goid = w.goid;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}

/* Events of processes that found the ring full: whoever follows processes has to look for himself. */
__u64 lost_tasks SEC(".data.tasks");

static __always_inline void send_task(struct task_struct *t, __u8 kind, __u32 pid, __u32 tid, __u32 child_pid, __u32 child)
{
	struct task_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		__sync_fetch_and_add(&lost_tasks, 1);
		return count_lost();
	}
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

/* Says that a process that is not traced may have become one that is wanted. */
static __always_inline void announce(struct task_struct *t)
{
	__u32 pid, tid;

	task_ids(t, &pid, &tid);
	if (pid) /* else it is out of sbxtrace's sight */
		send_task(t, EVENT_CANDIDATE, pid, tid, 0, 0);
}

SEC("tp_btf/sched_process_fork")
int on_fork(__u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	__u32 pid, tid, child_pid, child_tid;
	struct process p = {};

	task_ids(parent, &pid, &tid);
	if (!traced(pid, &p.about)) {
		/* Made in another control group than its parent's (CLONE_INTO_CGROUP). */
		if (cfg_announce && BPF_CORE_READ(child, cgroups) != BPF_CORE_READ(parent, cgroups))
			announce(child);
		return 0;
	}
	task_ids(child, &child_pid, &child_tid);
	if (child_pid != pid) {
		if (!cfg_follow)
			return 0;
		bpf_map_update_elem(&processes, &child_pid, &p, BPF_ANY);
	}
	send_task(child, EVENT_FORK, pid, tid, child_pid, child_tid);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int on_exec(__u64 *ctx)
{
	struct task_struct *t = (void *)ctx[0];
	__u32 pid, tid, about;

	task_ids(t, &pid, &tid);
	if (!traced(pid, &about)) {
		if (cfg_announce)
			announce(t);
		return 0;
	}
	if (cfg_stop_on_exec) {
		/* First in the map: whoever lets go what is there misses nobody. */
		__u8 one = 1;

		bpf_map_update_elem(&held, &pid, &one, BPF_ANY);
		bpf_send_signal(19 /* SIGSTOP */);
	}
	send_task(t, EVENT_EXEC, pid, tid, 0, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int on_exit(__u64 *ctx)
{
	struct task_struct *t = (void *)ctx[0];
	__u32 pid, tid, about;
	bool last = BPF_CORE_READ(t, signal, live.counter) == 0;

	task_ids(t, &pid, &tid);
	if (!traced(pid, &about))
		return 0;
	if (cfg_stateful) {
		forget_stack(pid, (__u64)tid << 32, 0);
		forget_stack(pid, (__u64)tid << 32, FLAG_GO);
	}
	if (last) {
		bpf_map_delete_elem(&processes, &pid);
		for (int i = 0; i < KNOWN_PROCESSES; i++)
			if (known[i].pid == pid)
				known[i].pid = 0;
	}
	send_task(t, last ? EVENT_PROCESS_EXIT : EVENT_TASK_EXIT, pid, tid, 0, BPF_CORE_READ(t, exit_code));
	return 0;
}

SEC("tp_btf/cgroup_attach_task")
int on_cgroup(__u64 *ctx)
{
	struct task_struct *t = (void *)ctx[2];
	__u32 pid, tid, about;

	task_ids(t, &pid, &tid);
	if (!traced(pid, &about))
		announce(t);
	return 0;
}
