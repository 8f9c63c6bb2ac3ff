/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting inside the traced functions themselves, so that a test can compare
 * what a tracer saw with what really happened.
 *
 * A program lists its counted functions before it includes this header:
 *
 *     #define TRUTH_FUNCTIONS(X) X(outer) X(add, "ns::add(int, int)")
 *     #include "truth.h"
 *
 * (the second argument is the name a tracer prints where it differs from the
 * identifier) and marks each of them:
 *
 *     TRACED int outer(int n) { ENTER(outer); ...; LEAVE(); return r; }
 *
 * Everything here is inlined into the caller or runs outside the counted part,
 * so counting adds no call. LEAVE stores to memory, so that a call before it is
 * never turned into a jump.
 *
 * The counters live in shared memory: children of fork add to the same ones,
 * and so do programs that were started with the descriptor in $TRUTH_FD.
 *
 * Protocol on stdin and stdout: "READY <pid>" is printed, the line "go" starts
 * the work, one JSON line is printed when it is done, "quit" or end of file
 * ends the process. With --auto nothing is read and READY is not printed.
 */
#ifndef TRUTH_H
#define TRUTH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* TRACED keeps a function one function with one symbol: not inlined, not
 * cloned, not merged, called by its standard convention. */
#if defined(__clang__)
#define TRACED __attribute__((noinline))
#else
#define TRACED __attribute__((noipa))
#endif
#define TRUTH_INLINE static inline __attribute__((always_inline, unused))
#define TRUTH_COLD static __attribute__((noinline, unused))

#define TRUTH_PICK_(a, b, n, ...) n
#define TRUTH_NAME1_(id) #id
#define TRUTH_NAME2_(id, name) name
#define TRUTH_NAME_(...) \
	TRUTH_PICK_(__VA_ARGS__, TRUTH_NAME2_, TRUTH_NAME1_, )(__VA_ARGS__)
#define TRUTH_ID1_(id) T_##id
#define TRUTH_ID2_(id, name) T_##id
#define TRUTH_ID_(...) \
	TRUTH_PICK_(__VA_ARGS__, TRUTH_ID2_, TRUTH_ID1_, )(__VA_ARGS__)

#define TRUTH_ENUM_(...) TRUTH_ID_(__VA_ARGS__),
#define TRUTH_STRING_(...) TRUTH_NAME_(__VA_ARGS__),

/* T_root stands for every caller that is not counted: main, thread starts. */
enum truth_id { T_root, TRUTH_FUNCTIONS(TRUTH_ENUM_) T_count };

struct truth_table {
	unsigned long calls[T_count];
	unsigned long returns[T_count];
	unsigned long maxdepth[T_count];
	unsigned long edges[T_count][T_count]; /* [parent][child] */
};

/* What the calling thread is in: innermost counted function, its depth. */
struct truth_state {
	int fn;
	unsigned depth;
};

#ifdef TRUTH_EXTERN /* a library that counts into its program's table */
extern struct truth_table *truth_table;
extern __thread struct truth_state truth_now;
extern __thread unsigned long truth_local[T_count];
#else
struct truth_table *truth_table;
__thread struct truth_state truth_now;
__thread unsigned long truth_local[T_count];
#endif

/* truth_enter counts one call of id and returns what to restore afterwards. */
TRUTH_INLINE struct truth_state truth_enter(int id)
{
	struct truth_state caller = truth_now;
	unsigned long depth = caller.depth + 1, deepest;

	truth_now.fn = id;
	truth_now.depth = depth;
	__atomic_fetch_add(&truth_table->calls[id], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&truth_table->edges[caller.fn][id], 1, __ATOMIC_RELAXED);
	deepest = __atomic_load_n(&truth_table->maxdepth[id], __ATOMIC_RELAXED);
	while (depth > deepest &&
	       !__atomic_compare_exchange_n(&truth_table->maxdepth[id], &deepest, depth, 0,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	return caller;
}

TRUTH_INLINE void truth_leave(int id, struct truth_state caller)
{
	__atomic_fetch_add(&truth_table->returns[id], 1, __ATOMIC_RELAXED);
	*(volatile int *)&truth_now.fn = caller.fn;
	*(volatile unsigned *)&truth_now.depth = caller.depth;
}

#define ENTER(id)                     \
	enum { truth_self = T_##id }; \
	const struct truth_state truth_caller = truth_enter(T_##id)
#define LEAVE() truth_leave(truth_self, truth_caller)

/* ENTER_TAIL is for functions that leave by a jump to another one: there is no
 * LEAVE, whoever called the first of them has to RESUME. Returns are not
 * counted, so such programs define TRUTH_NO_RETURNS. */
#define ENTER_TAIL(id) ((void)truth_enter(T_##id))

/* ENTER_ASYNC is for handlers of signals that may arrive between a function's
 * first instruction and its ENTER, so that the parent is not known: the call is
 * counted, but not in the tree. */
#define ENTER_ASYNC(id)                                     \
	enum { truth_self = T_##id };                         \
	const struct truth_state truth_caller = truth_now;  \
	truth_now.fn = T_##id;                              \
	__atomic_fetch_add(&truth_table->calls[T_##id], 1, __ATOMIC_RELAXED)

/* TICK only counts the call, in the thread's own counters: one instruction
 * instead of atomic ones, for programs whose speed is measured. Each thread
 * calls truth_merge before it ends. Such programs define TRUTH_NO_RETURNS,
 * TRUTH_NO_DEPTH and TRUTH_NO_TREE. */
#define TICK(id) ((void)truth_local[T_##id]++)

/* HERE and RESUME bring the state back after a jump across frames (longjmp) or
 * stacks (swapcontext). */
#define HERE() (truth_now)
#define RESUME(state) ((void)(truth_now = (state)))

#ifndef TRUTH_EXTERN
static const char *const truth_names[T_count] = {"", TRUTH_FUNCTIONS(TRUTH_STRING_)};
static int truth_auto; /* nothing is read from stdin */
static volatile sig_atomic_t truth_stopped; /* endless programs end when it is set */

/* truth_say writes one formatted piece to stdout, unbuffered. */
TRUTH_COLD __attribute__((format(printf, 1, 2))) void truth_say(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	if (vdprintf(STDOUT_FILENO, format, args) < 0)
		_exit(4);
	va_end(args);
}

/* truth_line reads one line of stdin; 0 at end of file. */
TRUTH_COLD int truth_line(char *line, size_t size)
{
	size_t n = 0;
	char c;

	while (read(STDIN_FILENO, &c, 1) == 1) {
		if (c == '\n') {
			line[n] = 0;
			return 1;
		}
		if (n + 1 < size)
			line[n++] = c;
	}
	line[n] = 0;
	return 0;
}

/* truth_arg is the number after "name" on the command line, or fallback. */
TRUTH_COLD long truth_arg(int argc, char **argv, const char *name, long fallback)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return strtol(argv[i + 1], NULL, 0);
	return fallback;
}

/* truth_has says whether the flag "name" is on the command line. */
TRUTH_COLD int truth_has(int argc, char **argv, const char *name)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return 1;
	return 0;
}

/* truth_merge adds what the calling thread counted with TICK. */
TRUTH_COLD void truth_merge(void)
{
	for (int i = 0; i < T_count; i++) {
		__atomic_fetch_add(&truth_table->calls[i], truth_local[i], __ATOMIC_RELAXED);
		truth_local[i] = 0;
	}
}

/* truth_seconds is the monotonic time. */
TRUTH_COLD double truth_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* truth_open makes the shared counters; share hands them to programs that this
 * one executes. */
TRUTH_COLD void truth_open(int share)
{
	const char *inherited = getenv("TRUTH_FD");
	int fd;
	void *memory;

	if (inherited) {
		fd = (int)strtol(inherited, NULL, 10);
	} else {
		fd = (int)syscall(SYS_memfd_create, "truth", share ? 0 : 1 /* MFD_CLOEXEC */);
		if (fd < 0 || ftruncate(fd, sizeof(struct truth_table)) != 0) {
			perror("truth: memfd");
			_exit(4);
		}
		if (share) {
			char number[16];
			snprintf(number, sizeof(number), "%d", fd);
			setenv("TRUTH_FD", number, 1);
		}
	}
	memory = mmap(NULL, sizeof(struct truth_table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED) {
		perror("truth: mmap");
		_exit(4);
	}
	truth_table = (struct truth_table *)memory;
	if (!share)
		close(fd);
}

/* truth_begin opens the counters if need be, says READY and waits for "go". */
TRUTH_COLD void truth_begin(int argc, char **argv)
{
	char line[64];

	if (!truth_table)
		truth_open(0);
	truth_auto |= truth_has(argc, argv, "--auto");
	if (truth_auto)
		return;
	truth_say("READY %d\n", (int)getpid());
	if (!truth_line(line, sizeof(line)) || strcmp(line, "go") != 0) {
		fprintf(stderr, "%s: expected \"go\" on stdin, got \"%s\"\n", argv[0], line);
		_exit(3);
	}
}

/* truth_object prints one JSON object of the functions whose value is not 0. */
TRUTH_COLD void truth_object(FILE *out, const char *key, const unsigned long *values)
{
	const char *comma = "";

	fprintf(out, "\"%s\":{", key);
	for (int i = T_root + 1; i < T_count; i++) {
		if (values[i] == 0)
			continue;
		fprintf(out, "%s\"%s\":%lu", comma, truth_names[i], values[i]);
		comma = ",";
	}
	fputs("}", out);
}

/* truth_print prints the JSON line. extra is further members, each with a
 * leading comma, or "". Programs in which a field has no meaning leave it out
 * by defining TRUTH_NO_RETURNS, TRUTH_NO_DEPTH or TRUTH_NO_TREE. */
TRUTH_COLD void truth_print(const char *extra)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		_exit(4);
	fputs("{", out);
	truth_object(out, "counts", truth_table->calls);
#ifndef TRUTH_NO_RETURNS
	fputs(",", out);
	truth_object(out, "returns", truth_table->returns);
#endif
#ifndef TRUTH_NO_DEPTH
	fputs(",", out);
	truth_object(out, "maxdepth", truth_table->maxdepth);
#endif
#ifndef TRUTH_NO_TREE
	const char *comma = "";
	fputs(",\"tree\":[", out);
	for (int parent = 0; parent < T_count; parent++) {
		for (int child = T_root + 1; child < T_count; child++) {
			if (truth_table->edges[parent][child] == 0)
				continue;
			fprintf(out, "%s{\"parent\":\"%s\",\"child\":\"%s\",\"count\":%lu}", comma,
				truth_names[parent], truth_names[child],
				truth_table->edges[parent][child]);
			comma = ",";
		}
	}
	fputs("]", out);
#endif
	fprintf(out, "%s}\n", extra);
	fclose(out);
	for (size_t done = 0; done < size;) {
		ssize_t n = write(STDOUT_FILENO, text + done, size - done);
		if (n < 0)
			_exit(4);
		done += (size_t)n;
	}
	free(text);
}

/* truth_wait blocks until "quit" or end of file; with --auto it returns. */
TRUTH_COLD void truth_wait(void)
{
	char line[64];

	if (truth_auto)
		return;
	while (truth_line(line, sizeof(line)))
		if (strcmp(line, "quit") == 0)
			return;
}

/* truth_end is the usual end of a program: print, wait, exit status. */
TRUTH_COLD int truth_end(const char *extra)
{
	truth_print(extra);
	truth_wait();
	return 0;
}

TRUTH_COLD void truth_on_term(int sig)
{
	(void)sig;
	truth_stopped = 1;
}

/* truth_stay keeps an endless program that was given a limit alive until it is
 * told to stop. */
TRUTH_COLD void truth_stay(void)
{
	while (!truth_auto && !truth_stopped)
		usleep(1000);
}

TRUTH_COLD void *truth_stopper(void *unused)
{
	(void)unused;
	truth_wait();
	truth_stopped = 1;
	return NULL;
}

/* truth_endless makes "quit", end of file and SIGTERM set truth_stopped, for
 * programs that work until they are told to stop and print their truth then. */
TRUTH_COLD void truth_endless(void)
{
	struct sigaction action;
	pthread_t thread;

	memset(&action, 0, sizeof(action));
	action.sa_handler = truth_on_term;
	action.sa_flags = SA_RESTART;
	sigaction(SIGTERM, &action, NULL);
	if (!truth_auto && pthread_create(&thread, NULL, truth_stopper, NULL) != 0) {
		perror("truth: thread");
		_exit(4);
	}
}
#endif /* !TRUTH_EXTERN */
#endif /* TRUTH_H */
