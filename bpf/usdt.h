/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Static probes (USDT). Where an argument is at a site is written in the
 * binary's .note.stapsdt; uprobes.ArgSpec is that, ready to be evaluated.
 */
#pragma once
#include "calls.h"

enum usdt_kind {
	USDT_CONST,
	USDT_REG,
	USDT_MEM,
};

struct usdt_arg {
	__s64 value; /* constant, or displacement of a memory operand */
	__u16 reg; /* offset into struct pt_regs */
	__u16 index; /* the same, of the index register; 0xffff: none */
	__u8 kind;
	__u8 scale;
	__u8 size; /* bytes: 1, 2, 4, 8 */
	__u8 is_signed;
};

struct usdt_spec {
	__u64 nargs;
	struct usdt_arg args[MAX_USDT_ARGS];
};

/* By function id of the cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct usdt_spec);
} usdt_specs SEC(".maps");

const struct usdt_event *unused_usdt_event __attribute__((unused));
const struct python_event *unused_python_event __attribute__((unused));

static __always_inline __u64 usdt_value(struct pt_regs *ctx, const struct usdt_arg *a)
{
	__u64 v = a->value, reg = 0;
	__u32 shift;

	if (a->kind == USDT_CONST)
		return v;
	bpf_probe_read_kernel(&reg, sizeof(reg), (void *)ctx + a->reg);
	if (a->kind == USDT_REG) {
		v = reg;
	} else {
		v += reg;
		if (a->index != 0xffff) {
			bpf_probe_read_kernel(&reg, sizeof(reg), (void *)ctx + a->index);
			v += reg * a->scale;
		}
		reg = 0;
		bpf_probe_read_user(&reg, sizeof(reg), (void *)v);
		v = reg;
	}
	if (a->size >= 8 || !a->size)
		return v;
	shift = 64 - a->size * 8;
	v <<= shift & 63;
	return a->is_signed ? (__u64)((__s64)v >> (shift & 63)) : v >> (shift & 63);
}

SEC("uprobe")
int usdt(struct pt_regs *ctx)
{
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
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count_lost();
		return 0;
	}
	fill_header(&e->h, &w, EVENT_USDT, bpf_ktime_get_ns());
	e->nargs = spec->nargs;
	for (int i = 0; i < MAX_USDT_ARGS; i++)
		e->args[i] = i < spec->nargs ? usdt_value(ctx, &spec->args[i]) : 0;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}

/* function__entry(file, function, line) and function__return of CPython (Include/pydtrace.d). */
static __always_inline int python(struct pt_regs *ctx, __u8 kind)
{
	struct python_event *e;
	struct usdt_spec *spec;
	struct where w;
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
	e->line = usdt_value(ctx, &spec->args[2]);
	e->file[0] = 0;
	e->func[0] = 0;
	bpf_probe_read_user_str(e->file, sizeof(e->file), (void *)usdt_value(ctx, &spec->args[0]));
	bpf_probe_read_user_str(e->func, sizeof(e->func), (void *)usdt_value(ctx, &spec->args[1]));
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
