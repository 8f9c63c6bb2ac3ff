/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of every shape that compilers and people make, each with a busy
 * function at its end: what stands on the stack while shape_X_leaf runs is
 * known: shape_X_leaf, …, shape_X, shape, main. Endless. "counts" are the
 * rounds of each shape. Functions of asm.S are hand-written.
 */
#define TRUTH_FUNCTIONS(X)                                                            \
	X(shape_plain) X(shape_alloca) X(shape_aligned) X(shape_big) X(shape_saved)     \
	X(shape_callback) X(shape_signal) X(shape_altstack) X(shape_variadic)           \
	X(shape_assembly) X(shape_bare) X(shape_pushes) X(shape_vdso) X(shape_syscall) X(shape_tail)
#define TRUTH_NO_RETURNS
#define TRUTH_NO_DEPTH
#define TRUTH_NO_TREE
#include "truth.h"
#include <alloca.h>

static volatile unsigned long sink;
static int rounds = 30000;

TRUTH_INLINE void spin(void)
{
	for (int i = 0; i < rounds; i++)
		sink += (unsigned long)i * 7;
}

#define LEAF(name)                              \
	TRACED void name##_leaf(void)             \
	{                                       \
		TICK(name);                     \
		spin();                         \
	}
/* reached through a pointer, so that nothing is known of it where it is called */
#define LEAVES(name)                                              \
	LEAF(name)                                                \
	static void (*volatile name##_pointer)(void) = name##_leaf;

LEAVES(shape_plain)
TRACED void shape_plain(void)
{
	shape_plain_leaf();
	sink++;
}

/* a frame of a size that is not known before: needs a frame pointer */
LEAVES(shape_alloca)
TRACED void shape_alloca(int n)
{
	volatile char *room = alloca((size_t)n);

	room[0] = 1;
	shape_alloca_leaf();
	sink += (unsigned long)room[n - 1];
}

/* a stack realigned to 64 bytes: the CFA is behind a saved pointer */
LEAVES(shape_aligned)
TRACED void shape_aligned(int n)
{
	volatile char room[256] __attribute__((aligned(64)));
	volatile char *more = alloca((size_t)n);

	room[0] = more[0] = 1;
	shape_aligned_leaf();
	sink += (unsigned long)room[0] + (unsigned long)more[n - 1];
}

LEAVES(shape_big)
TRACED void shape_big(void)
{
	volatile char room[200000];

	room[0] = room[sizeof(room) - 1] = 1;
	shape_big_leaf();
	sink += (unsigned long)room[0];
}

/* every register that a function has to keep in use, across the call */
LEAVES(shape_saved)
TRACED unsigned long shape_saved(unsigned long a, unsigned long b, unsigned long c, unsigned long d,
				 unsigned long e, unsigned long f)
{
	unsigned long g = a * b, h = c * d, i = e * f;

	shape_saved_pointer();
	g += sink;
	shape_saved_pointer();
	return a + b + c + d + e + f + g + h + i;
}

/* through the C library and back */
LEAVES(shape_callback)
static int compare(const void *a, const void *b)
{
	shape_callback_leaf();
	return *(const int *)a - *(const int *)b;
}

TRACED void shape_callback(void)
{
	int values[4] = {3, 1, 2, 0};

	qsort(values, 4, sizeof(values[0]), compare);
	sink += (unsigned long)values[0];
}

/* from a signal's handler into what it interrupted */
LEAVES(shape_signal)
static void on_signal(int sig)
{
	(void)sig;
	shape_signal_leaf();
}

TRACED void shape_signal(void)
{
	raise(SIGUSR1);
	sink++;
}

LEAVES(shape_altstack)
static void on_altstack(int sig)
{
	(void)sig;
	shape_altstack_leaf();
}

TRACED void shape_altstack(void)
{
	raise(SIGUSR2);
	sink++;
}

LEAVES(shape_variadic)
TRACED void shape_variadic(int n, ...)
{
	va_list args;

	va_start(args, n);
	for (int i = 0; i < n; i++)
		sink += (unsigned long)va_arg(args, int);
	shape_variadic_leaf();
	va_end(args);
	sink++;
}

/* tail call: the function itself is gone from the stack */
LEAVES(shape_tail)
TRACED void shape_tail_inner(void)
{
	shape_tail_leaf();
	sink++;
}

TRACED void shape_tail(void)
{
	sink++;
	shape_tail_inner();
}

#if defined(__x86_64__)
/* asm.S: with and without unwind information */
void frames_assembly(long n, volatile unsigned long *sink);
void frames_bare(long n, volatile unsigned long *sink);
void frames_pushes(void (*leaf)(void));
#else
static void frames_assembly(long n, volatile unsigned long *at) { while (n--) ++*at; }
static void frames_bare(long n, volatile unsigned long *at) { while (n--) ++*at; }
static void frames_pushes(void (*leaf)(void)) { leaf(); sink++; }
#endif

TRACED void shape_assembly(void)
{
	TICK(shape_assembly);
	frames_assembly(rounds, &sink);
	sink++;
}

TRACED void shape_bare(void)
{
	TICK(shape_bare);
	frames_bare(rounds, &sink);
	sink++;
}

LEAVES(shape_pushes)
TRACED void shape_pushes(void)
{
	frames_pushes(shape_pushes_leaf);
	sink++;
}

TRACED void shape_vdso(void)
{
	struct timespec now;

	TICK(shape_vdso);
	for (int i = 0; i < rounds / 20; i++) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		sink += (unsigned long)now.tv_nsec;
	}
}

TRACED void shape_syscall(void)
{
	char byte;

	TICK(shape_syscall);
	for (int i = 0; i < rounds / 100; i++)
		if (pread(-1, &byte, 1, 0) != -1)
			_exit(4);
	sink++;
}

TRACED void shape(int which)
{
	switch (which) {
	case 0: shape_plain(); break;
	case 1: shape_alloca(300); break;
	case 2: shape_aligned(100); break;
	case 3: shape_big(); break;
	case 4: sink += shape_saved(sink, 2, 3, 4, 5, 6); break;
	case 5: shape_callback(); break;
	case 6: shape_signal(); break;
	case 7: shape_altstack(); break;
	case 8: shape_variadic(3, 1, 2, 3); break;
	case 9: shape_assembly(); break;
	case 10: shape_bare(); break;
	case 11: shape_pushes(); break;
	case 12: shape_vdso(); break;
	case 13: shape_syscall(); break;
	case 14: shape_tail(); break;
	}
	sink++;
}

int main(int argc, char **argv)
{
	static char stack[1 << 16];
	struct sigaction action;
	stack_t alternate;

	memset(&action, 0, sizeof(action));
	memset(&alternate, 0, sizeof(alternate));
	alternate.ss_sp = stack;
	alternate.ss_size = sizeof(stack);
	sigaltstack(&alternate, NULL);
	action.sa_handler = on_signal;
	sigaction(SIGUSR1, &action, NULL);
	action.sa_handler = on_altstack;
	action.sa_flags = SA_ONSTACK;
	sigaction(SIGUSR2, &action, NULL);
	truth_begin(argc, argv);
	truth_endless();
	while (!truth_stopped)
		for (int i = 0; i < 15; i++)
			shape(i);
	truth_merge();
	truth_print("");
	truth_stay();
	return 0;
}
