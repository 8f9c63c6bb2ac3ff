//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Sampling. Hooks:
 *   on_tick       perf event of each CPU: the cpu-clock software event, page faults
 *   on_switch     raw tracepoint sched_switch: threads that stop running
 *   on_waking     raw tracepoint sched_waking: who makes them runnable
 *   on_call       uprobe: calls of a function
 *   on_alloc, on_alloc_return, on_free   uprobes, uretprobe: memory
 *   on_fork, on_exec, on_exit   scheduler tracepoints
 * A session loads those that it needs. Minimum kernel: 5.15 (bpf_task_pt_regs).
 *
 * A sample is sent whole, or, where there may be very many (cfg_count), its stack
 * is sent once and the samples are counted in map totals.
 */
#include "python.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Forces the record types into BTF for bpf2go. */
const struct sample_event *unused_sample_event __attribute__((unused));
const struct python *unused_python __attribute__((unused));
const struct mapping *unused_mapping __attribute__((unused));
const struct unwind_page *unused_unwind_page __attribute__((unused));
const struct unwind_rule *unused_unwind_rule __attribute__((unused));

/* What a thread that does not run is taken for. */
enum off_cpu {
	OFF_NONE,
	OFF_BLOCKED, /* sleeping, whatever for */
	OFF_LOCK, /* sleeping in the futex system call */
	OFF_ANY, /* sleeping, or runnable while another thread runs */
};

const volatile bool cfg_all; /* processes that are not in targets too */
const volatile bool cfg_follow; /* children of targets are targets */
const volatile bool cfg_kernel; /* kernel stacks too */
const volatile bool cfg_count; /* count samples here */
const volatile bool cfg_wakers; /* stacks of wakers, too */
const volatile __u32 cfg_off_cpu; /* enum off_cpu */
const volatile __u64 cfg_weight; /* of each sample of on_tick; one call, one allocation in this many */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24); /* load */
} events SEC(".maps");

/* Samples that found the ring or the map of their count full, by CPU. */
__u64 lost[1024] SEC(".data.lost");

/* What programs that may interrupt each other work with. */
enum {
	UNWINDER_TICK,
	UNWINDER_SWITCH,
	UNWINDER_WAKING,
	UNWINDERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, UNWINDERS);
	__type(key, __u32);
	__type(value, struct unwinder);
} unwinders SEC(".maps");

struct total_key {
	__u32 pid;
	__u32 tid;
	__u64 stack;
	__u64 waker; /* stack of the waker, 0 for none */
};

struct total {
	__u64 count;
	__u64 weight;
};

/* Maps that programs change under locks of the scheduler have all their memory from the start. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536); /* load */
	__type(key, struct total_key);
	__type(value, struct total);
} totals SEC(".maps");

/* Stacks that were sent. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536); /* load */
	__type(key, __u64);
	__type(value, __u8);
} seen SEC(".maps");

/* A thread that does not run. */
struct waiting {
	__u64 since;
	__u64 stack;
	__u64 waker;
	__u32 pid;
	__u32 tid;
};

/* By the thread's id in the initial pid namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536); /* load */
	__type(key, __u32);
	__type(value, struct waiting);
} blocked SEC(".maps");

const struct total_key *unused_total_key __attribute__((unused));
const struct total *unused_total __attribute__((unused));
const struct waiting *unused_waiting __attribute__((unused));

static __always_inline void count_lost(void)
{
	__sync_fetch_and_add(&lost[bpf_get_smp_processor_id() & 1023], 1);
}

static __always_inline struct unwinder *my_unwinder(__u32 which)
{
	return bpf_map_lookup_elem(&unwinders, &which);
}

/* Whether the process is wanted; the unwinder gets what is known of it. */
static __always_inline bool wanted(struct unwinder *u, __u32 pid)
{
	struct target *t;

	if (cfg_pidns_ino && !pid)
		return false; /* of another namespace, where nobody is for us */
	t = bpf_map_lookup_elem(&targets, &pid);
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
	u->e.count = 1;
	u->e.weight = cfg_weight;
	u->e.id = 0;
	u->e.goid = u->e.labels = 0;
	u->e.cpu = bpf_get_smp_processor_id();
	u->e.user = u->e.kernel = u->e.python = 0;
	u->e.cut = CUT_NONE;
	u->depth = 0;
	bpf_get_current_comm(u->e.comm, sizeof(u->e.comm));
	if (cfg_count) {
		u->hash = mix(mix(pid, *(__u64 *)u->e.comm), *(__u64 *)(u->e.comm + 8));
		u->e.count = u->e.weight = 0;
	}
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
	if (u->target.go_labels)
		bpf_probe_read_user(&u->e.labels, sizeof(u->e.labels), (void *)(g + u->target.go_labels));
}

/*
 * Sends the sample, or if samples are counted the stack unless it was sent
 * before. Returns the stack's id.
 */
static __always_inline __u64 finish(void *ctx, struct unwinder *u, bool kernel)
{
	__u64 n = VOLATILE(u->depth) & (2 * MAX_SAMPLE_USER - 1), size, id = 0;
	__u8 yes = 1;
	long k = 0;

	u->e.user = n;
	if (u->target.python)
		walk_python(u);
	n = (VOLATILE(u->depth) + VOLATILE(u->e.python)) & (2 * MAX_SAMPLE_USER - 1);
	if (!u->target.mappings && VOLATILE(u->depth))
		u->e.cut = CUT_NOT_LOADED;
	if (cfg_kernel && kernel) {
		k = bpf_get_stack(ctx, &u->e.stack[n], MAX_SAMPLE_KERNEL * 8, 0);
		if (k < 0)
			k = 0;
		VOLATILE(u->e.kernel) = k / 8;
	}
	if (cfg_count) {
		for (__u64 i = 0; i < MAX_SAMPLE_KERNEL; i++) {
			if (i >= VOLATILE(u->e.kernel))
				break;
			VOLATILE(u->hash) = mix(VOLATILE(u->hash), VOLATILE(u->e.stack[(n + i) & (2 * MAX_SAMPLE_USER - 1)]));
		}
		id = VOLATILE(u->hash) | 1;
		u->e.id = id;
		if (bpf_map_lookup_elem(&seen, &id))
			return id;
	}
	size = __builtin_offsetof(struct sample_event, stack) + n * 8 + VOLATILE(u->e.kernel) * 8;
	size &= 16383;
	if (bpf_ringbuf_output(&events, &u->e, size, BPF_RB_NO_WAKEUP)) {
		count_lost();
		return 0;
	}
	if (cfg_count)
		bpf_map_update_elem(&seen, &id, &yes, BPF_ANY);
	return id;
}

static __always_inline void count(const struct total_key *key, __u64 n, __u64 weight)
{
	struct total *t = bpf_map_lookup_elem(&totals, key), first = { n, weight };

	if (!t && bpf_map_update_elem(&totals, key, &first, BPF_NOEXIST)) {
		t = bpf_map_lookup_elem(&totals, key); /* another CPU was faster, or there is no room */
		if (!t)
			return count_lost();
	} else if (!t) {
		return;
	}
	__sync_fetch_and_add(&t->count, n);
	__sync_fetch_and_add(&t->weight, weight);
}

static __always_inline bool user_mode(struct bpf_perf_event_data *ctx)
{
#if defined(__TARGET_ARCH_x86)
	return ctx->regs.cs & 3;
#else
	return !(ctx->regs.pstate & 15);
#endif
}

/* Begins with where the current thread has entered the kernel; false if it is no user's. */
static __always_inline bool start_in_kernel(struct unwinder *u, struct pt_regs *regs)
{
	struct task_struct *task = bpf_get_current_task_btf();

	u->e.h.flags |= FLAG_KERNEL;
	return !(task->flags & PF_KTHREAD) && task->mm &&
	       !bpf_probe_read_kernel(regs, sizeof(*regs), (void *)bpf_task_pt_regs(task));
}

static __always_inline int finish_tick(struct bpf_perf_event_data *ctx, struct unwinder *u)
{
	struct total_key key = { .pid = u->e.h.pid, .tid = u->e.h.tid };

	key.stack = finish(ctx, u, u->e.h.flags & FLAG_KERNEL);
	if (key.stack)
		count(&key, 1, cfg_weight);
	return 0;
}

SEC("perf_event")
int on_tick(struct bpf_perf_event_data *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct unwinder *u = my_unwinder(UNWINDER_TICK);
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
	} else if (!start_in_kernel(u, &regs)) {
		return finish_tick(ctx, u);
	}
	start_unwinding(u, &regs);
	if (u->target.go_id)
		find_goroutine(u);
	unwind(u);
	return finish_tick(ctx, u);
}

/* A thread runs again: what it has waited for is counted. */
static __always_inline void resume(struct task_struct *task, __u64 now)
{
	__u32 tid = BPF_CORE_READ(task, pid);
	struct waiting *b;

	if (!tid)
		return;
	b = bpf_map_lookup_elem(&blocked, &tid);
	if (!b)
		return;
	struct total_key key = { .pid = b->pid, .tid = b->tid, .stack = b->stack, .waker = b->waker };
	__u64 since = b->since;

	bpf_map_delete_elem(&blocked, &tid);
	if (now > since)
		count(&key, 1, now - since);
}

/* Whether the system call that the thread is in waits for a futex. */
static __always_inline bool in_futex(const struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	return regs->orig_ax == 202 || regs->orig_ax == 449 || regs->orig_ax == 455; /* futex, futex_waitv, futex_wait */
#else
	__u64 nr = regs->user_regs.regs[8];

	return nr == 98 || nr == 449 || nr == 455;
#endif
}

static __always_inline int finish_switch(struct bpf_raw_tracepoint_args *ctx, struct unwinder *u)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct waiting b = { .since = u->e.h.time, .pid = u->e.h.pid, .tid = u->e.h.tid };
	__u32 tid = task->pid;

	b.stack = finish(ctx, u, true);
	if (b.stack && bpf_map_update_elem(&blocked, &tid, &b, BPF_ANY))
		count_lost();
	return 0;
}

SEC("raw_tp/sched_switch")
int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *prev = (void *)ctx->args[1], *next = (void *)ctx->args[2];
	struct unwinder *u = my_unwinder(UNWINDER_SWITCH);
	struct pt_regs regs;
	__u32 pid, tid;

	resume(next, bpf_ktime_get_ns());
	if (!u || !BPF_CORE_READ(prev, pid))
		return 0;
	if (cfg_off_cpu != OFF_ANY && !BPF_CORE_READ(prev, __state))
		return 0; /* it would go on if it might */
	current_ids(&pid, &tid);
	if (!wanted(u, pid))
		return 0;
	describe(u, pid, tid);
	if (!start_in_kernel(u, &regs)) {
		if (cfg_off_cpu != OFF_LOCK)
			finish_switch(ctx, u);
		return 0;
	}
	if (cfg_off_cpu == OFF_LOCK && !in_futex(&regs))
		return 0;
	start_unwinding(u, &regs);
	unwind(u);
	return finish_switch(ctx, u);
}

static __always_inline int finish_waking(struct bpf_raw_tracepoint_args *ctx, struct unwinder *u)
{
	struct task_struct *task = (void *)ctx->args[0];
	__u32 tid = BPF_CORE_READ(task, pid);
	struct waiting *b;
	__u64 id;

	id = finish(ctx, u, true);
	b = bpf_map_lookup_elem(&blocked, &tid);
	if (b)
		b->waker = id;
	return 0;
}

SEC("raw_tp/sched_waking")
int on_waking(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];
	__u32 woken = BPF_CORE_READ(task, pid), pid, tid;
	struct unwinder *u = my_unwinder(UNWINDER_WAKING);
	struct pt_regs regs;

	if (!u || !bpf_map_lookup_elem(&blocked, &woken))
		return 0;
	current_ids(&pid, &tid);
	wanted(u, pid); /* others wake, too: of them the kernel's part is known */
	describe(u, pid, tid);
	u->e.h.flags |= FLAG_WAKER;
	if (!u->target.mappings || !start_in_kernel(u, &regs))
		return finish_waking(ctx, u);
	start_unwinding(u, &regs);
	unwind(u);
	return finish_waking(ctx, u);
}

/*
 * Programs of uprobes may be preempted by one another: each takes an unwinder
 * that nobody on its CPU has at the moment.
 */
enum { CALL_UNWINDERS = 4 };

struct call_unwinder {
	__u64 owner; /* thread, 0: free */
	__u64 size; /* of an allocation */
	__u64 kind; /* enum alloc_kind */
	__u64 out; /* address of the pointer that posix_memalign sets */
	struct unwinder u;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CALL_UNWINDERS); /* load */
	__type(key, __u32);
	__type(value, struct call_unwinder);
} call_unwinders SEC(".maps");

static __always_inline struct call_unwinder *take_unwinder(void)
{
	__u64 me = bpf_get_current_pid_tgid();

	for (__u32 i = 0; i < CALL_UNWINDERS; i++) {
		__u32 key = i;
		struct call_unwinder *c = bpf_map_lookup_elem(&call_unwinders, &key);

		if (c && !__sync_val_compare_and_swap(&c->owner, 0, me))
			return c;
	}
	count_lost();
	return 0;
}

/* One call of a target in cfg_weight is sampled. */
static __always_inline bool skip_call(void)
{
	return cfg_weight > 1 && bpf_get_prandom_u32() % (__u32)cfg_weight;
}

/* Begins a sample of the current thread; 0 if there is to be none. */
static __always_inline struct call_unwinder *begin_call(void)
{
	struct call_unwinder *c;
	__u32 pid, tid;

	current_ids(&pid, &tid);
	if (!cfg_all && !bpf_map_lookup_elem(&targets, &pid))
		return 0;
	if (skip_call())
		return 0;
	c = take_unwinder();
	if (!c)
		return 0;
	if (!wanted(&c->u, pid)) {
		c->owner = 0;
		return 0;
	}
	describe(&c->u, pid, tid);
	c->size = 0;
	return c;
}

/* Functions that allocate, by their cookies; values of loader.AllocKind. */
enum alloc_kind {
	ALLOC_NONE,
	ALLOC_MALLOC, /* malloc(size) */
	ALLOC_CALLOC, /* calloc(n, size) */
	ALLOC_REALLOC, /* realloc(pointer, size) */
	ALLOC_ALIGNED, /* aligned_alloc(alignment, size) */
	ALLOC_POSIX, /* posix_memalign(&pointer, alignment, size) */
	ALLOC_REALLOCARRAY, /* reallocarray(pointer, n, size) */
	ALLOC_GO, /* runtime.mallocgc(size, …): nobody says when it is freed */
};

/* An allocation that has begun, by thread. */
struct allocating {
	__u64 size;
	__u64 stack; /* 0: not sampled */
	__u64 old; /* what realloc gives up */
	__u64 out;
	__u32 depth; /* calls of allocating functions inside */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536); /* load */
	__type(key, __u64); /* thread */
	__type(value, struct allocating);
} allocating SEC(".maps");

struct allocation_key {
	__u64 address;
	__u32 pid;
	__u32 pad;
};

struct allocation {
	__u64 size;
	__u64 stack;
	__u32 pid;
	__u32 tid;
};

/* What is allocated, as far as it was sampled. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 22); /* load */
	__type(key, struct allocation_key);
	__type(value, struct allocation);
} allocations SEC(".maps");

const struct allocation_key *unused_allocation_key __attribute__((unused));
const struct allocation *unused_allocation __attribute__((unused));

static __always_inline int finish_call(struct pt_regs *ctx, struct call_unwinder *c)
{
	__u64 me = bpf_get_current_pid_tgid();
	struct allocating *a;
	struct total_key key = { .pid = c->u.e.h.pid, .tid = c->u.e.h.tid };
	__u64 size = c->size, kind = c->kind;

	key.stack = finish(ctx, &c->u, false);
	VOLATILE(c->owner) = 0;
	if (!key.stack)
		return 0;
	if (kind == ALLOC_NONE || kind == ALLOC_GO) {
		count(&key, cfg_weight, kind == ALLOC_GO ? size * cfg_weight : cfg_weight);
		return 0;
	}
	/* Counted when it has succeeded. */
	a = bpf_map_lookup_elem(&allocating, &me);
	if (a)
		a->stack = key.stack;
	return 0;
}

SEC("uprobe")
int on_call(struct pt_regs *ctx)
{
	struct call_unwinder *c = begin_call();
	struct pt_regs regs;

	if (!c)
		return 0;
	__builtin_memcpy(&regs, ctx, sizeof(regs));
	start_unwinding(&c->u, &regs);
	unwind(&c->u);
	return finish_call(ctx, c);
}

/* Arguments of a call, as integers. */
#if defined(__TARGET_ARCH_x86)
#define ARG0(r) ((r)->di)
#define ARG1(r) ((r)->si)
#define ARG2(r) ((r)->dx)
#define GO_ARG0(r) ((r)->ax)
#define RESULT(r) ((r)->ax)
#else
#define ARG0(r) ((r)->user_regs.regs[0])
#define ARG1(r) ((r)->user_regs.regs[1])
#define ARG2(r) ((r)->user_regs.regs[2])
#define GO_ARG0(r) ((r)->user_regs.regs[0])
#define RESULT(r) ((r)->user_regs.regs[0])
#endif

SEC("uprobe")
int on_alloc(struct pt_regs *ctx)
{
	__u64 kind = bpf_get_attach_cookie(ctx), me = bpf_get_current_pid_tgid();
	struct allocating *outer, a = { .size = ARG0(ctx) };
	struct call_unwinder *c;
	struct pt_regs regs;
	__u32 pid, tid;

	current_ids(&pid, &tid);
	if (!cfg_all && !bpf_map_lookup_elem(&targets, &pid))
		return 0;
	switch (kind) {
	case ALLOC_GO:
		a.size = GO_ARG0(ctx);
		break;
	case ALLOC_CALLOC:
		a.size = ARG0(ctx) * ARG1(ctx);
		break;
	case ALLOC_REALLOC:
		a.old = ARG0(ctx);
		a.size = ARG1(ctx);
		break;
	case ALLOC_ALIGNED:
		a.size = ARG1(ctx);
		break;
	case ALLOC_POSIX:
		a.out = ARG0(ctx);
		a.size = ARG2(ctx);
		break;
	case ALLOC_REALLOCARRAY:
		a.old = ARG0(ctx);
		a.size = ARG1(ctx) * ARG2(ctx);
		break;
	}
	if (kind != ALLOC_GO) {
		outer = bpf_map_lookup_elem(&allocating, &me);
		if (outer) {
			outer->depth++; /* the outer one counts */
			return 0;
		}
		if (bpf_map_update_elem(&allocating, &me, &a, BPF_ANY)) {
			count_lost();
			return 0;
		}
	}
	c = begin_call();
	if (!c)
		return 0;
	c->size = a.size;
	c->kind = kind;
	__builtin_memcpy(&regs, ctx, sizeof(regs));
	start_unwinding(&c->u, &regs);
	unwind(&c->u);
	return finish_call(ctx, c);
}

static __always_inline void freed(__u32 pid, __u64 address)
{
	struct allocation_key key = { .address = address, .pid = pid };

	if (address)
		bpf_map_delete_elem(&allocations, &key);
}

SEC("uretprobe")
int on_alloc_return(struct pt_regs *ctx)
{
	__u64 me = bpf_get_current_pid_tgid(), address = RESULT(ctx);
	struct allocating *a = bpf_map_lookup_elem(&allocating, &me);
	struct allocation_key key = {};
	struct allocation new = {};
	__u32 pid, tid;

	if (!a)
		return 0;
	if (a->depth) {
		a->depth--;
		return 0;
	}
	current_ids(&pid, &tid);
	if (a->out) {
		if (address || bpf_probe_read_user(&address, sizeof(address), (void *)a->out))
			address = 0; /* an error number */
	}
	if (address || !a->size)
		freed(pid, a->old);
	if (address && a->stack) {
		struct total_key total = { .pid = pid, .tid = tid, .stack = a->stack };

		key.address = address;
		key.pid = pid;
		new.size = a->size;
		new.stack = a->stack;
		new.pid = pid;
		new.tid = tid;
		count(&total, cfg_weight, a->size * cfg_weight);
		if (bpf_map_update_elem(&allocations, &key, &new, BPF_ANY))
			count_lost();
	}
	bpf_map_delete_elem(&allocating, &me);
	return 0;
}

SEC("uprobe")
int on_free(struct pt_regs *ctx)
{
	__u32 pid, tid;

	current_ids(&pid, &tid);
	freed(pid, ARG0(ctx));
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
	struct python *py;

	task_ids(parent, &pid, &tid);
	t = bpf_map_lookup_elem(&targets, &pid);
	if (!t)
		return 0;
	task_ids(child, &child_pid, &child_tid);
	if (child_pid == pid || !cfg_follow)
		return 0;
	copy = *t; /* it has the same memory */
	bpf_map_update_elem(&targets, &child_pid, &copy, BPF_ANY);
	py = bpf_map_lookup_elem(&pythons, &pid);
	if (py)
		bpf_map_update_elem(&pythons, &child_pid, py, BPF_ANY);
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
	bpf_map_delete_elem(&pythons, &pid);
	send_task(task, EVENT_PROCESS_EXIT, pid, tid, 0, 0);
	return 0;
}
