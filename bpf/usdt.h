/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Static probes (USDT). Where an argument is at a site is written in the
 * binary's .note.stapsdt; uprobes.ArgSpec is that, ready to be evaluated.
 */
#pragma once
#include "calls.h"

/* uprobes.ArgKind, uprobes.ArgFlags: append only. */
enum usdt_kind {
	USDT_UNREADABLE,
	USDT_CONST, /* val_off */
	USDT_REG, /* reg + val_off */
	USDT_MEM, /* memory at reg + val_off */
	USDT_MEM_INDEX, /* memory at reg + (index << shift) + val_off */
	USDT_MEM_FIELD, /* three offsets in val_off, 16 bits each: memory at memory at reg + 1st, + 2nd, and the 3rd added */
};

enum usdt_flags {
	USDT_SIGNED = 1 << 0,
	USDT_FLOAT = 1 << 1,
	USDT_NO_BASE = 1 << 2,
	USDT_INDEX_SXTW = 1 << 3,
	USDT_INDEX_UXTW = 1 << 4,
};

/* The layout of uprobes.ArgSpec. */
struct usdt_arg {
	__s64 val_off;
	__u16 reg_off; /* bytes into struct pt_regs */
	__u16 idx_reg_off;
	__u8 kind;
	__u8 size; /* bytes: 1, 2, 4, 8 */
	__u8 flags;
	__u8 shift;
};

struct usdt_spec {
	__u32 nargs;
	__u8 texts[4]; /* arguments that may point to strings, MAX_USDT_ARGS for none; the last is unused */
	struct usdt_arg args[MAX_USDT_ARGS];
};

/* By function id of the cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct usdt_spec);
} usdt_specs SEC(".maps");

const struct usdt_event *unused_usdt_event __attribute__((unused));
const struct usdt_text_event *unused_usdt_text_event __attribute__((unused));
const struct python_event *unused_python_event __attribute__((unused));

/* The address of the registers as a number, which functions of their own can take. */
static __always_inline __u64 address_of_regs(struct pt_regs *ctx)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &ctx);
	return address;
}

static __always_inline __u64 usdt_reg(__u64 regs, __u16 off)
{
	__u64 v = 0;

	bpf_probe_read_kernel(&v, sizeof(v), (void *)regs + off);
	return v;
}

/* Fetches one argument; false: it could not be read. */
static __always_inline bool usdt_value(__u64 regs, const struct usdt_arg *a, __u64 *value)
{
	__u64 v = a->val_off, index, reg;
	__u32 shift;

	*value = 0;
	if (a->kind == USDT_UNREADABLE)
		return false;
	if (a->kind == USDT_MEM_FIELD) {
		index = 0;
		if (bpf_probe_read_user(&index, 8, (void *)(usdt_reg(regs, a->reg_off) + (v & 0xffff))))
			return false;
		index += v >> 16 & 0xffff;
		v = v >> 32 & 0xffff;
		reg = 0;
		if (a->size == 4 ? bpf_probe_read_user(&reg, 4, (void *)index) : bpf_probe_read_user(&reg, 8, (void *)index))
			return false;
		v += reg;
		goto cut;
	}
	if (a->kind != USDT_CONST && !(a->flags & USDT_NO_BASE))
		v += usdt_reg(regs, a->reg_off);
	if (a->kind == USDT_MEM_INDEX) {
		index = usdt_reg(regs, a->idx_reg_off);
		if (a->flags & USDT_INDEX_SXTW)
			index = (__s64)(__s32)index;
		else if (a->flags & USDT_INDEX_UXTW)
			index = (__u32)index;
		v += index << (a->shift & 63);
	}
	if (a->kind == USDT_MEM || a->kind == USDT_MEM_INDEX) {
		index = v;
		v = 0;
		switch (a->size) {
		case 1:
			if (bpf_probe_read_user(&v, 1, (void *)index))
				return false;
			break;
		case 2:
			if (bpf_probe_read_user(&v, 2, (void *)index))
				return false;
			break;
		case 4:
			if (bpf_probe_read_user(&v, 4, (void *)index))
				return false;
			break;
		default:
			if (bpf_probe_read_user(&v, 8, (void *)index))
				return false;
		}
	}
cut:
	if (a->size && a->size < 8) {
		shift = 64 - a->size * 8;
		v <<= shift & 63;
		v = a->flags & USDT_SIGNED ? (__u64)((__s64)v >> (shift & 63)) : v >> (shift & 63);
	}
	*value = v;
	return true;
}

/*
 * All arguments of a static probe, in the event: what is known of memory there
 * is not followed, so that the ways to have read one do not multiply with those
 * of the next. A function of its own to the verifier for the same reason.
 */
__noinline int fill_args(struct usdt_event *e, __u32 func, __u64 regs)
{
	struct usdt_spec *spec;
	__u64 value;

	if (!e)
		return 0;
	e->nargs = 0;
	e->unread = 0;
	spec = bpf_map_lookup_elem(&usdt_specs, &func);
	if (!spec)
		return 0;
	e->nargs = spec->nargs;
	for (int i = 0; i < MAX_USDT_ARGS; i++) {
		e->args[i] = 0;
		if (i >= spec->nargs)
			continue;
		if (!usdt_value(regs, &spec->args[i], &value))
			e->unread |= 1 << i;
		e->args[i] = value;
	}
	return 0;
}

/* The strings that arguments point to; a function of its own like fill_args. */
__noinline int fill_texts(struct usdt_text_event *e, __u32 func)
{
	struct usdt_spec *spec;

	if (!e)
		return 0;
	spec = bpf_map_lookup_elem(&usdt_specs, &func);
	if (!spec)
		return 0;
	for (int i = 0; i < MAX_USDT_TEXTS; i++) {
		struct usdt_text *t = &e->texts[i];
		__u32 arg = spec->texts[i];
		long n;

		t->arg = arg;
		t->len = 0;
		if (arg >= MAX_USDT_ARGS)
			continue;
		n = bpf_probe_read_user_str(t->text, sizeof(t->text), (void *)e->u.args[arg]);
		if (n > 0)
			t->len = n;
	}
	return 0;
}

SEC("uprobe")
int usdt(struct pt_regs *ctx)
{
	struct usdt_text_event *te;
	struct usdt_spec *spec;
	struct usdt_event *e;
	struct where w;
	__u32 func;

	if (!locate(ctx, &w, false) || !wanted_thread(w.tid))
		return 0;
	count_hit(w.cookie);
	if (cfg_level < LEVEL_CALLS)
		return 0;
	func = COOKIE_FUNC(w.cookie);
	spec = bpf_map_lookup_elem(&usdt_specs, &func);
	if (!spec)
		return 0;
	report_lost(&w);
	if (spec->texts[0] >= MAX_USDT_ARGS) {
		e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
		if (!e) {
			count_lost();
			return 0;
		}
		fill_header(&e->h, &w, EVENT_USDT, bpf_ktime_get_ns());
		fill_args(e, func, address_of_regs(ctx));
		bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
		return 0;
	}
	te = bpf_ringbuf_reserve(&events, sizeof(*te), 0);
	if (!te) {
		count_lost();
		return 0;
	}
	fill_header(&te->u.h, &w, EVENT_USDT, bpf_ktime_get_ns());
	fill_args(&te->u, func, address_of_regs(ctx));
	fill_texts(te, func);
	bpf_ringbuf_submit(te, BPF_RB_NO_WAKEUP);
	return 0;
}

/* function__entry(file, function, line) and function__return of CPython (Include/pydtrace.d). */
static __always_inline int python(struct pt_regs *ctx, __u8 kind)
{
	struct python_event *e;
	struct usdt_spec *spec;
	struct where w;
	__u64 text, regs;
	__u32 func;

	if (!locate(ctx, &w, false) || !wanted_thread(w.tid))
		return 0;
	count_hit(w.cookie);
	func = COOKIE_FUNC(w.cookie);
	spec = bpf_map_lookup_elem(&usdt_specs, &func);
	if (!spec || spec->nargs < 3)
		return 0;
	report_lost(&w);
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count_lost();
		return 0;
	}
	fill_header(&e->h, &w, kind, bpf_ktime_get_ns());
	regs = address_of_regs(ctx);
	usdt_value(regs, &spec->args[2], &e->line);
	e->file[0] = 0;
	e->func[0] = 0;
	if (usdt_value(regs, &spec->args[0], &text))
		bpf_probe_read_user_str(e->file, sizeof(e->file), (void *)text);
	if (usdt_value(regs, &spec->args[1], &text))
		bpf_probe_read_user_str(e->func, sizeof(e->func), (void *)text);
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("uprobe")
int python_entry(struct pt_regs *ctx)
{
	return python(ctx, EVENT_ENTRY);
}

SEC("uprobe")
int python_return(struct pt_regs *ctx)
{
	return python(ctx, EVENT_EXIT);
}
