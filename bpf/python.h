/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Walks the Python frames of a thread that runs CPython, by the layout that
 * userspace has found out (symbolizer.PythonLayout):
 *
 *   pythons         pid → where the interpreter is and how it lays out its frames
 *   python_threads  thread → its PyThreadState
 *
 * Frames go behind the user stack of the sample, innermost first, two words
 * each: the code object's address, with bit 0 set if the interpreter's loop was
 * entered for this frame, and the address of the instruction. A frame of
 * CPython 3.12 and later that only marks an entry has 1 and 0.
 */
#pragma once
#include "unwind.h"

enum {
	MAX_PYTHON_FRAMES = MAX_SAMPLE_PYTHON / 2,
	MAX_PYTHON_THREADS = 128, /* looked at for one sample */
	PYTHON_OWNED_BY_INTERPRETER = 3, /* least owner of frames that are not Python's */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct python);
} pythons SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32); /* in the initial pid namespace */
	__type(value, __u64);
} python_threads SEC(".maps");

/* The id of the current thread in its own pid namespace. */
static __always_inline __u32 own_tid(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pid *p = BPF_CORE_READ(task, thread_pid);
	unsigned int level = BPF_CORE_READ(p, level);
	unsigned long at = bpf_core_field_offset(struct pid, numbers) + (level & 63) * sizeof(struct upid);
	struct upid id = {};

	bpf_probe_read_kernel(&id, sizeof(id), (void *)p + at);
	return id.nr;
}

/* Reads a word at an offset of a structure into w->word. */
static __always_inline bool python_word(struct python_walk *w, __u64 addr, __u32 offset)
{
	return !bpf_probe_read_user(&w->word, 8, (void *)(addr + offset));
}

static __always_inline bool is_my_thread(struct python_walk *w, __u64 thread)
{
	return python_word(w, thread, w->py.native_id) && VOLATILE(w->word) == VOLATILE(w->tid);
}

/* Finds the PyThreadState of the current thread: w->thread. */
static __always_inline bool find_python_thread(struct python_walk *w)
{
	__u32 key = bpf_get_current_pid_tgid();
	__u64 *known = bpf_map_lookup_elem(&python_threads, &key);

	if (known) {
		VOLATILE(w->thread) = *known;
		if (is_my_thread(w, VOLATILE(w->thread)))
			return true;
	}
	if (!python_word(w, w->py.runtime, w->py.interpreters))
		return false;
	VOLATILE(w->interp) = VOLATILE(w->word);
	VOLATILE(w->thread) = 0;
	for (int i = 0; i < MAX_PYTHON_THREADS; i++) {
		if (!VOLATILE(w->thread)) { /* on to the next interpreter */
			if (!VOLATILE(w->interp) || !python_word(w, VOLATILE(w->interp), w->py.threads))
				return false;
			VOLATILE(w->thread) = VOLATILE(w->word);
			if (!python_word(w, VOLATILE(w->interp), w->py.next_interp))
				return false;
			VOLATILE(w->interp) = VOLATILE(w->word);
			continue;
		}
		if (is_my_thread(w, VOLATILE(w->thread))) {
			__u64 thread = VOLATILE(w->thread);

			bpf_map_update_elem(&python_threads, &key, &thread, BPF_ANY);
			return true;
		}
		if (!python_word(w, VOLATILE(w->thread), w->py.next_thread))
			return false;
		VOLATILE(w->thread) = VOLATILE(w->word);
	}
	return false;
}

/* Appends w->frame to the sample, and goes to the one below. */
static __always_inline bool python_frame(struct python_walk *w, struct unwinder *u)
{
	__u64 code, instr, at;
	__u8 owner;

	if (bpf_probe_read_user(w->raw, sizeof(w->raw), (void *)VOLATILE(w->frame)))
		return false;
	if (w->py.frame_code > PYTHON_FRAME_SIZE - 8 || w->py.frame_instr > PYTHON_FRAME_SIZE - 8 ||
	    w->py.frame_previous > PYTHON_FRAME_SIZE - 8 || w->py.frame_owner > PYTHON_FRAME_SIZE - 8)
		return false;
	code = *(__u64 *)((void *)w->raw + (w->py.frame_code & 120));
	instr = *(__u64 *)((void *)w->raw + (w->py.frame_instr & 120));
	owner = *(__u8 *)((void *)w->raw + w->py.frame_owner);
	VOLATILE(w->frame) = *(__u64 *)((void *)w->raw + (w->py.frame_previous & 120));
	code &= ~7ULL; /* from 3.14 on a reference with marks */
	if (w->py.minor == 11) {
		code |= owner != 0;
	} else if (owner >= PYTHON_OWNED_BY_INTERPRETER) {
		code = 1;
		instr = 0;
	}
	at = VOLATILE(u->depth) + VOLATILE(w->words);
	if (at >= MAX_SAMPLE_USER + MAX_SAMPLE_PYTHON - 1)
		return false;
	u->e.stack[at] = code;
	u->e.stack[at + 1] = instr;
	VOLATILE(w->words) += 2;
	VOLATILE(u->hash) = mix(mix(VOLATILE(u->hash), code), instr);
	return true;
}

/* Puts the Python frames of the current thread behind the sample's user stack. */
static __always_inline void walk_python(struct unwinder *u)
{
	__u32 pid = u->e.h.pid;
	struct python *py = bpf_map_lookup_elem(&pythons, &pid);
	struct python_walk *w = &u->walk;

	if (!py || VOLATILE(u->depth) > MAX_SAMPLE_USER)
		return;
	w->py = *py;
	w->tid = own_tid();
	w->words = 0;
	if (!find_python_thread(w) || !python_word(w, VOLATILE(w->thread), w->py.thread_frame))
		return;
	if (w->py.has_cframe && (!VOLATILE(w->word) || !python_word(w, VOLATILE(w->word), w->py.cframe_frame)))
		return;
	VOLATILE(w->frame) = VOLATILE(w->word);
	for (int i = 0; i < MAX_PYTHON_FRAMES; i++) {
		if (!VOLATILE(w->frame) || !python_frame(w, u))
			break;
	}
	u->e.python = VOLATILE(w->words);
}
