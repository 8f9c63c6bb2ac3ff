/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Call stacks kept in the kernel, one per thread or goroutine, for what must be
 * decided before an event is sent: level latency (nothing is sent at all), the
 * minimum duration, the maximum depth, and sampling of outermost calls.
 *
 * What is sent is a subset of the full stream that is closed under "caller of":
 * a call that turns out to be long enough first sends the entries of its
 * callers that were held back. So the consumer needs no second way to read it.
 */
#pragma once
#include "calls.h"

enum {
	FRAMES = 128, /* a power of two */
	RECURSION_SEARCH = 16,
	BUCKETS_PER_OCTAVE = 8,
};

struct stack_key {
	__u32 pid;
	__u32 go;
	__u64 id; /* goroutine, or thread */
};

struct frame {
	__u64 sp;
	__u64 time;
	__u64 child; /* ns in traced callees */
	__u32 func;
	__u16 flags;
	__u8 cookie_flags;
	__u8 recursive;
	__u64 args[MAX_ARGS];
};

struct call_stack {
	__u32 depth; /* frames in use */
	__u32 sent; /* frames, from the outermost, whose entry has been sent */
	__u32 skipped; /* the outermost call was not drawn by sampling */
	__u32 kept; /* frames, from the outermost, that have ever had a stack in kept_stacks */
	struct frame frames[FRAMES];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct stack_key);
	__type(value, struct call_stack);
} stacks SEC(".maps");

/* An empty call_stack: too large for the BPF stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct call_stack);
} empty_stack SEC(".maps");

/*
 * Level stacks with a minimum duration: the stacks at the entries that were not
 * sent yet, one for each frame. They are overwritten by the next calls there.
 */
struct kept_key {
	struct stack_key of;
	__u32 frame;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct kept_key);
	__type(value, struct stack_event);
} kept_stacks SEC(".maps");

/* A stack_event to begin with: too large for the BPF stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stack_event);
} empty_kept SEC(".maps");

#define KEEPS_STACKS (cfg_level == LEVEL_STACKS && cfg_min_duration)

/* Level latency, per function: ns. */
struct latency {
	__u64 returns; /* exits that were measured */
	__u64 total; /* recursive calls left out */
	__u64 self;
	__u64 min; /* stored as ~min, so that 0 means none yet */
	__u64 max;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* load */
	__type(key, __u32);
	__type(value, struct latency);
} latencies SEC(".maps");

struct bucket_key {
	__u32 func;
	__u32 bucket;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct bucket_key);
	__type(value, __u64);
} buckets SEC(".maps");

/* Calls deeper than FRAMES, by CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} too_deep SEC(".maps");

static __always_inline void key_of(const struct where *w, struct stack_key *key)
{
	key->pid = w->pid;
	key->go = w->flags & FLAG_GO;
	key->id = w->goid ? w->goid : ((__u64)w->tid << 32);
}

static __always_inline struct call_stack *stack_of(const struct where *w, bool create)
{
	struct stack_key key;
	struct call_stack *s;
	__u32 zero = 0;

	key_of(w, &key);
	s = bpf_map_lookup_elem(&stacks, &key);
	if (s || !create)
		return s;
	s = bpf_map_lookup_elem(&empty_stack, &zero);
	if (!s)
		return NULL;
	bpf_map_update_elem(&stacks, &key, s, BPF_NOEXIST);
	return bpf_map_lookup_elem(&stacks, &key);
}

/* 8 steps per power of two; values below 8 each have their own. trace.HistFromKernel reads it. */
static __always_inline __u32 bucket_of(__u64 ns)
{
	__u32 log = 0;
	__u64 v = ns;

	if (ns < BUCKETS_PER_OCTAVE)
		return ns;
	if (v >> 32) {
		log += 32;
		v >>= 32;
	}
	if (v >> 16) {
		log += 16;
		v >>= 16;
	}
	if (v >> 8) {
		log += 8;
		v >>= 8;
	}
	if (v >> 4) {
		log += 4;
		v >>= 4;
	}
	if (v >> 2) {
		log += 2;
		v >>= 2;
	}
	log += v >> 1;
	return (log - 2) * BUCKETS_PER_OCTAVE + ((ns >> (log - 3)) & (BUCKETS_PER_OCTAVE - 1));
}

static __always_inline void raise_to(__u64 *max, __u64 value)
{
	for (int i = 0; i < 8; i++) {
		__u64 old = *(volatile __u64 *)max;

		if (old >= value || __sync_val_compare_and_swap(max, old, value) == old)
			return;
	}
}

static __always_inline void measure(struct frame *f, __u64 now)
{
	struct bucket_key key = {.func = f->func};
	struct latency *l = bpf_map_lookup_elem(&latencies, &key.func);
	__u64 duration = now - f->time, one = 1, *n;

	if (!l)
		return;
	__sync_fetch_and_add(&l->returns, 1);
	if (!f->recursive)
		__sync_fetch_and_add(&l->total, duration);
	if (duration > f->child)
		__sync_fetch_and_add(&l->self, duration - f->child);
	raise_to(&l->max, duration);
	raise_to(&l->min, ~duration);

	key.bucket = bucket_of(duration);
	n = bpf_map_lookup_elem(&buckets, &key);
	if (n) {
		__sync_fetch_and_add(n, 1);
		return;
	}
	if (bpf_map_update_elem(&buckets, &key, &one, BPF_NOEXIST)) {
		n = bpf_map_lookup_elem(&buckets, &key);
		if (n)
			__sync_fetch_and_add(n, 1);
	}
}

static __always_inline struct frame *frame_at(struct call_stack *s, __u32 i)
{
	/* The compiler must not use what it knows of i to leave the mask out: the verifier does not know it. */
	asm volatile("" : "+r"(i));
	i &= FRAMES - 1;
	return &s->frames[i];
}

/* Drops the frames that an entry at sp proves gone: see trace.Pairer. */
static __always_inline void settle(struct call_stack *s, __u64 sp)
{
	for (int i = 0; i < FRAMES; i++) {
		__u32 n = s->depth;
		struct frame *top;

		if (!n || n > FRAMES)
			break;
		top = frame_at(s, n - 1);
		if ((__s64)top->sp > (__s64)sp)
			break;
		if (top->sp == sp && top->cookie_flags & COOKIE_TAIL_JUMPS)
			break;
		s->depth = n - 1;
	}
	if (s->sent > s->depth)
		s->sent = s->depth;
}

static __always_inline bool is_recursive(struct call_stack *s, __u32 func)
{
	__u32 n = s->depth;

	for (int i = 1; i <= RECURSION_SEARCH; i++) {
		if (i > n)
			return false;
		if (frame_at(s, n - i)->func == func)
			return true;
	}
	return false;
}

static __always_inline void kept_key(const struct where *w, __u32 frame, struct kept_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key_of(w, &key->of);
	key->frame = frame;
}

/* Keeps the stack at the entry of frame n until it is known whether it is sent. */
static __always_inline void keep_stack(struct pt_regs *ctx, struct call_stack *s, const struct where *w, __u32 n)
{
	struct stack_event *e;
	struct kept_key key;
	__u32 zero = 0;

	kept_key(w, n, &key);
	e = bpf_map_lookup_elem(&kept_stacks, &key);
	if (!e) {
		e = bpf_map_lookup_elem(&empty_kept, &zero);
		if (!e || bpf_map_update_elem(&kept_stacks, &key, e, BPF_ANY))
			return;
		e = bpf_map_lookup_elem(&kept_stacks, &key);
		if (!e)
			return;
		if (s->kept <= n)
			s->kept = n + 1;
	}
	e->a.c.h.flags = entry_stack(ctx, w, e);
}

/* Sends the entry of frame n with the stack that was kept; false if there is none. */
static __always_inline bool send_kept(const struct frame *f, const struct where *w, __u32 n, __u64 time)
{
	struct stack_event *e;
	struct kept_key key;
	__u16 cut;

	kept_key(w, n, &key);
	e = bpf_map_lookup_elem(&kept_stacks, &key);
	if (!e)
		return false;
	cut = e->a.c.h.flags & FLAG_CUT_STACK;
	fill_header(&e->a.c.h, w, EVENT_ENTRY, time);
	e->a.c.h.flags |= cut;
	e->a.c.sp = w->sp;
	e->a.c.goid = w->goid;
	__builtin_memcpy(e->a.args, f->args, sizeof(e->a.args));
	if (bpf_ringbuf_output(&events, e, sizeof(*e), BPF_RB_NO_WAKEUP))
		count_lost();
	return true;
}

/* Sends the entry of frame n, which was held back. */
static __always_inline void send_frame(const struct frame *f, const struct where *now, __u32 n, __u64 time)
{
	struct where w = *now;

	report_lost(&w);
	w.sp = f->sp;
	w.cookie = f->func;
	w.flags = f->flags;
	if (KEEPS_STACKS) {
		if (send_kept(f, &w, n, time))
			return;
		w.flags |= FLAG_CUT_STACK;
	}
	if (cfg_level >= LEVEL_ARGS) {
		struct args_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

		if (!e)
			return count_lost();
		fill_header(&e->c.h, &w, EVENT_ENTRY, time);
		e->c.sp = w.sp;
		e->c.goid = w.goid;
		__builtin_memcpy(e->args, f->args, sizeof(e->args));
		bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
		return;
	}
	send_call(NULL, &w, EVENT_ENTRY, time, false);
}

static __always_inline void stateful_entry(struct pt_regs *ctx, struct where *w, bool go)
{
	struct call_stack *s = stack_of(w, true);
	struct frame *f;
	__u32 n;

	if (!s)
		return;
	settle(s, w->sp);
	n = s->depth;
	if (n && s->skipped)
		return;
	if (cfg_max_depth && n >= cfg_max_depth)
		return;
	if (n >= FRAMES) {
		__u32 cpu = bpf_get_smp_processor_id();
		__u64 *deep = bpf_map_lookup_elem(&too_deep, &cpu);

		if (deep)
			__sync_fetch_and_add(deep, 1);
		return;
	}
	if (!n)
		s->skipped = cfg_sample > 1 && bpf_get_prandom_u32() % cfg_sample != 0;
	f = frame_at(s, n);
	f->sp = w->sp;
	f->child = 0;
	f->func = COOKIE_FUNC(w->cookie);
	f->flags = w->flags;
	f->cookie_flags = COOKIE_FLAGS(w->cookie);
	f->recursive = cfg_level == LEVEL_LATENCY && is_recursive(s, f->func);
	s->depth = n + 1;
	if (cfg_level >= LEVEL_ARGS) {
		if (go)
			go_args(ctx, f->args);
		else
			c_args(ctx, f->args);
	}
	if (KEEPS_STACKS && !s->skipped)
		keep_stack(ctx, s, w, n);
	f->time = bpf_ktime_get_ns();
	if (cfg_level == LEVEL_LATENCY || s->skipped || cfg_min_duration)
		return;
	send_call(ctx, w, EVENT_ENTRY, f->time, go);
	s->sent = n + 1;
}

/* The index of the frame that this exit ends, or -1. Frames above it are gone. */
static __always_inline int find_frame(struct call_stack *s, const struct where *w)
{
	for (int i = 0; i < FRAMES; i++) {
		__u32 n = s->depth;
		struct frame *top;

		if (!n || n > FRAMES)
			return -1;
		top = frame_at(s, n - 1);
		if ((__s64)top->sp > (__s64)w->sp)
			return -1;
		if (top->sp == w->sp && top->func == COOKIE_FUNC(w->cookie))
			return n - 1;
		s->depth = n - 1;
	}
	return -1;
}

static __always_inline void send_held_back(struct call_stack *s, const struct where *w, __u32 upto)
{
	for (int i = 0; i < FRAMES; i++) {
		__u32 n = s->sent;
		struct frame *f;

		if (n > upto || n >= FRAMES)
			return;
		f = frame_at(s, n);
		send_frame(f, w, n, f->time);
		s->sent = n + 1;
	}
}

static __always_inline void stateful_exit(struct pt_regs *ctx, struct where *w, bool go)
{
	struct call_stack *s = stack_of(w, false);
	__u64 now = bpf_ktime_get_ns(), duration;
	struct frame *f;
	int i;

	if (!s)
		return;
	i = find_frame(s, w);
	if (i < 0)
		goto out;
	f = frame_at(s, i);
	duration = now - f->time;
	s->depth = i;
	if (i > 0)
		frame_at(s, i - 1)->child += duration;
	if (s->skipped)
		goto out;
	if (cfg_level == LEVEL_LATENCY) {
		measure(f, now);
		goto out;
	}
	if (s->sent > i || duration >= cfg_min_duration) {
		send_held_back(s, w, i);
		send_call(ctx, w, EVENT_EXIT, now, go);
	}
out:
	if (s->sent > s->depth)
		s->sent = s->depth;
	/* Callers that tail-called and are watched at their RETs end with this exit: they have none of their own. */
	for (int j = 0; j < FRAMES; j++) {
		__u32 n = s->depth;

		if (!n || n > FRAMES)
			break;
		f = frame_at(s, n - 1);
		if (f->sp != w->sp || f->cookie_flags & COOKIE_HOOKED)
			break;
		if (cfg_level == LEVEL_LATENCY && !s->skipped)
			measure(f, now);
		s->depth = n - 1;
	}
	if (s->sent > s->depth)
		s->sent = s->depth;
}

static __always_inline void forget_stack(__u32 pid, __u64 id, __u32 go)
{
	struct stack_key key = {.pid = pid, .go = go, .id = id};

	if (KEEPS_STACKS) {
		struct call_stack *s = bpf_map_lookup_elem(&stacks, &key);
		struct kept_key kept = {.of = key};

		for (int i = 0; s && i < FRAMES; i++) {
			if (i >= s->kept)
				break;
			kept.frame = i;
			bpf_map_delete_elem(&kept_stacks, &kept);
		}
	}
	bpf_map_delete_elem(&stacks, &key);
}
