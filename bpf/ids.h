/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/* Ids of processes and threads in sbxtrace's own pid namespace. */
#pragma once
#include "headers/kernel.h"
#include "headers/bpf_helpers.h"
#include "headers/bpf_core_read.h"

const volatile __u64 cfg_pidns_dev; /* pid namespace of sbxtrace; 0: the initial one */
const volatile __u64 cfg_pidns_ino;

/* Namespaces nest at most 32 deep (MAX_PID_NS_LEVEL), counted from 0. */
#define PID_LEVELS 33

/*
 * Ids of a task that runs in sbxtrace's pid namespace or in one below it: a
 * process has an id in each. 0 in others, whose numbers mean other processes.
 * A global function, whose argument is a number to the verifier: it is verified
 * once, and not again for all that may have happened before each call.
 */
__noinline __u64 ids_in_namespace(__u64 task)
{
	struct task_struct *t = (void *)task, *leader = BPF_CORE_READ(t, group_leader);
	struct pid *p = BPF_CORE_READ(t, thread_pid), *lp = BPF_CORE_READ(leader, thread_pid);
	unsigned int depth = BPF_CORE_READ(p, level);

	for (unsigned int level = 0; level < PID_LEVELS; level++) {
		unsigned long at = bpf_core_field_offset(struct pid, numbers) + level * sizeof(struct upid);
		struct upid id, leader_id;

		/* Two ends of a loop in one would have no bound that Linux 6.1 sees. */
		asm volatile("" : "+r"(depth));
		if (level > depth)
			break;
		bpf_probe_read_kernel(&id, sizeof(id), (void *)p + at);
		if (BPF_CORE_READ(id.ns, ns.inum) != (__u32)cfg_pidns_ino)
			continue;
		bpf_probe_read_kernel(&leader_id, sizeof(leader_id), (void *)lp + at);
		return (__u64)leader_id.nr << 32 | (__u32)id.nr;
	}
	return 0;
}

/* The address of a task as a number, which functions of their own can take. */
static __always_inline __u64 address_of(struct task_struct *t)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &t);
	return address;
}

static __always_inline void task_ids(struct task_struct *t, __u32 *pid, __u32 *tid)
{
	__u64 ids;

	if (!cfg_pidns_ino) {
		*tid = BPF_CORE_READ(t, pid);
		*pid = BPF_CORE_READ(t, tgid);
		return;
	}
	ids = ids_in_namespace(address_of(t));
	*pid = ids >> 32;
	*tid = ids;
}

static __always_inline void current_ids(__u32 *pid, __u32 *tid)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct bpf_pidns_info ns;
	__u64 ids;

	if (!cfg_pidns_ino) {
		/* Loads of fields: on kernels that inline the helper no call at all. */
		*pid = task->tgid;
		*tid = task->pid;
		return;
	}
	if (!bpf_get_ns_current_pid_tgid(cfg_pidns_dev, cfg_pidns_ino, &ns, sizeof(ns)))
		ids = (__u64)ns.tgid << 32 | ns.pid;
	else /* in a namespace below, which the helper takes for another */
		ids = ids_in_namespace(bpf_get_current_task());
	*pid = ids >> 32;
	*tid = ids;
}
