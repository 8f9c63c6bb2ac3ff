/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/* Maps and settings shared by the programs. Sizes marked "load" are set before loading. */
#pragma once
#include "events.h"
#include "headers/bpf_helpers.h"

enum level {
	LEVEL_COUNT,
	LEVEL_LATENCY,
	LEVEL_CALLS,
	LEVEL_ARGS,
	LEVEL_STACKS,
};

/*
 * Settings: constants by the time the verifier sees them, so that whatever a
 * session does not use is not even in its programs.
 */
const volatile __u32 cfg_level = LEVEL_CALLS;
const volatile bool cfg_stateful; /* keep call stacks in the kernel: level latency and the filters below */
const volatile __u64 cfg_min_duration; /* ns; calls shorter than this are not sent */
const volatile __u32 cfg_max_depth; /* 0: any */
const volatile __u32 cfg_sample; /* one outermost call in this many; 0: all */
const volatile bool cfg_filter_tid; /* only threads in map tids */
const volatile bool cfg_filter_comm; /* only threads called cfg_comm */
const volatile __u8 cfg_comm[COMM_LEN];
const volatile bool cfg_follow; /* children of traced processes are traced */
const volatile bool cfg_announce; /* processes that may have become targets are announced */
const volatile bool cfg_stop_on_exec; /* SIGSTOP on exec, until userspace has attached to the new program */
const volatile __u32 cfg_counters_stride; /* functions per CPU in map counters */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24); /* load */
} events SEC(".maps");

/*
 * What is known of a traced process, in one word: the offset of goid in its
 * runtime.g, 0 if it is no Go program, and flags.
 */
#define ABOUT_GOID_OFFSET(about) ((about) & 0xffff)
#define ABOUT_OWN_PROBES (1U << 31) /* probes that are attached for everyone are not for it */

struct process {
	__u32 about;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct process);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u8);
} tids SEC(".maps");

/* Processes that on_exec has stopped and nobody has let go yet, by pid. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u8);
} held SEC(".maps");

/* Hits per function and CPU: index cpu * stride + function. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* load */
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/*
 * Shared memory that the programs read without a helper call, each in a map of
 * its own so that Go can map it.
 *
 * The generation of each group of sites that counts, 0 for none: a group is
 * replaced (to leave out a hot function) by attaching the new one, stepping
 * this, and detaching the old one, so that no event is missed or doubled.
 */
__u8 generations[1 << 16] SEC(".data.groups");

/* The processes traced first, copies of what is in map processes: most sessions have no more. */
struct known_process {
	__u32 pid;
	__u32 about;
};
enum { KNOWN_PROCESSES = 4 };
struct known_process known[KNOWN_PROCESSES] SEC(".data.known");

/* Events that found the ring full, by CPU, since the last lost_event. */
__u64 lost[1024] SEC(".data.lost");
