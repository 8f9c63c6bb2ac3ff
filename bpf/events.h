/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * The records that the programs send, shared with Go through bpf2go -type.
 * Every field is naturally aligned and padding is spelled out. Values of the
 * enums are those of trace.Kind, trace.Flags and trace.LostCause: append only.
 *
 * Times are ns of CLOCK_MONOTONIC. Process and thread ids are those of
 * sbxtrace's own pid namespace.
 */
#pragma once
#include "headers/kernel.h"

enum event_kind {
	EVENT_INVALID,
	EVENT_ENTRY,
	EVENT_EXIT,
	EVENT_FORK,
	EVENT_EXEC,
	EVENT_TASK_EXIT,
	EVENT_GO_EXIT,
	EVENT_MAP,
	EVENT_USDT,
	EVENT_LOST,
	EVENT_PROCESS_EXIT,
	EVENT_DETACHED, /* not of the programs */
	EVENT_COMM, /* not of the programs */
	EVENT_SAMPLE,
	EVENT_CANDIDATE,
};

enum event_flags {
	FLAG_GO = 1 << 0,
	FLAG_TAIL_JUMPS = 1 << 1,
	FLAG_HOOKED = 1 << 2,
	FLAG_RETURN = 1 << 3,
	FLAG_CUT_STACK = 1 << 4,
	FLAG_KERNEL = 1 << 4,
	FLAG_WAKER = 1 << 5,
	FLAG_IN_USE = 1 << 6, /* not of the programs */
};

enum lost_cause {
	LOST_NONE,
	LOST_RING,
	LOST_STACK,
	LOST_MISSED,
	LOST_DETACHED,
};

enum {
	MAX_ARGS = 6,
	MAX_STACK = 127,
	MAX_SAMPLE_USER = 1024,
	MAX_SAMPLE_KERNEL = 127,
	MAX_SAMPLE_PYTHON = 512,
	MAX_USDT_ARGS = 12,
	MAX_USDT_TEXTS = 3,
	USDT_TEXT_LEN = 200,
	COMM_LEN = 16,
	PYTHON_FILE_LEN = 192,
	PYTHON_FUNC_LEN = 96,
};

/* Why the user stack of a sample ends before its outermost frame: trace.Cut. */
enum stack_cut {
	CUT_NONE,
	CUT_NO_RULE,
	CUT_UNREADABLE,
	CUT_TOO_DEEP,
	CUT_REGISTER,
	CUT_UNMAPPED,
	CUT_NOT_LOADED,
	CUT_LOOP,
};

struct event_header {
	__u64 time;
	__u32 pid;
	__u32 tid;
	__u32 func;
	__u8 kind;
	__u8 pad;
	__u16 flags;
};

/* Entry and exit at level calls. */
struct call_event {
	struct event_header h;
	__u64 sp;
	__u64 goid;
};

/* Entry at level args, exit with its return register in args[0]. */
struct args_event {
	struct call_event c;
	__u64 args[MAX_ARGS];
};

/* Entry at level stacks. */
struct stack_event {
	struct args_event a;
	__u64 depth; /* valid addresses */
	__u64 stack[MAX_STACK];
};

/* Fork, exec, the end of threads and processes. */
struct task_event {
	struct event_header h;
	__u32 child; /* of the end of a thread or process: its wait status */
	__u32 child_pid;
	__u8 comm[COMM_LEN];
};

struct lost_event {
	struct event_header h;
	__u64 count;
	__s32 cpu;
	__u32 cause;
};

struct usdt_event {
	struct event_header h;
	__u32 nargs;
	__u32 unread; /* bit i: args[i] could not be read */
	__u64 args[MAX_USDT_ARGS];
};

/* The memory that an argument points to, as far as a string reaches that may be there. */
struct usdt_text {
	__u32 arg;
	__u32 len; /* with the 0 at its end; USDT_TEXT_LEN: cut; 0: there is none */
	__u8 text[USDT_TEXT_LEN];
};

/* A usdt_event with arguments that may point to strings. */
struct usdt_text_event {
	struct usdt_event u;
	struct usdt_text texts[MAX_USDT_TEXTS];
};

/* CPython's function__entry and function__return. */
struct python_event {
	struct event_header h;
	__u64 line;
	__u8 file[PYTHON_FILE_LEN];
	__u8 func[PYTHON_FUNC_LEN];
};

/*
 * One sample, or with a count of 0 a stack that samples are counted of in map
 * totals. Stacks are innermost first, of callers the last byte of the call.
 */
struct sample_event {
	struct event_header h;
	__u64 count;
	__u64 weight;
	__u64 id; /* of the stack, by which it is counted; 0: only this one sample has it */
	__u64 goid;
	__u64 labels; /* runtime.g.labels of the goroutine */
	__u32 cpu;
	__u16 user; /* addresses of the user stack, which come first */
	__u16 kernel; /* addresses of the kernel stack, at the end */
	__u8 cut; /* enum stack_cut */
	__u8 pad;
	__u16 python; /* words of the Python stack (python.h), behind the user stack */
	__u8 pad2[4];
	__u8 comm[COMM_LEN];
	__u64 stack[MAX_SAMPLE_USER + MAX_SAMPLE_PYTHON + MAX_SAMPLE_KERNEL];
};
