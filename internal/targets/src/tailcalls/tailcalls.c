/* SPDX-License-Identifier: Apache-2.0 */
/* Functions that leave by a jump to another function. --rounds N --bounces N
 *
 * The tree is the logical one: the parent of a function that was jumped to is
 * the one that jumped. Whoever makes an ordinary call resumes its own state
 * after it. No function jumps to itself: compilers make a loop of that. */
#define TRUTH_NO_RETURNS
#define TRUTH_NO_DEPTH
#define TRUTH_FUNCTIONS(X)                                          \
	X(chain) X(tail_first) X(tail_second) X(tail_third)         \
	X(bounce) X(ping) X(pong)                                   \
	X(pointer) X(tail_pointer) X(to_even) X(to_odd)             \
	X(choose) X(tail_maybe)                                     \
	X(after) X(tail_after_work) X(plain_leaf)
#include "truth.h"

#if defined(__clang__)
#define TAIL_RETURN __attribute__((musttail)) return
#else
#define TAIL_RETURN return /* -O2 makes it a jump; a test disassembles */
#endif

TRACED long plain_leaf(long n)
{
	ENTER(plain_leaf);
	LEAVE();
	return n + 1;
}

/* three functions in a row; the last one makes ordinary calls */
TRACED long tail_third(long n)
{
	ENTER(tail_third);
	long value = plain_leaf(n) + plain_leaf(n);
	LEAVE();
	return value;
}

TRACED long tail_second(long n)
{
	ENTER_TAIL(tail_second);
	TAIL_RETURN tail_third(n * 2);
}

TRACED long tail_first(long n)
{
	ENTER_TAIL(tail_first);
	TAIL_RETURN tail_second(n + 1);
}

TRACED long chain(long n)
{
	ENTER(chain);
	struct truth_state here = HERE();
	long value = tail_first(n);
	RESUME(here);
	value += plain_leaf(n);
	LEAVE();
	return value;
}

/* many jumps at one stack depth */
TRACED long pong(long n);

TRACED long ping(long n)
{
	ENTER_TAIL(ping);
	if (n == 0)
		return 0;
	TAIL_RETURN pong(n - 1);
}

TRACED long pong(long n)
{
	ENTER_TAIL(pong);
	if (n == 0)
		return 1;
	TAIL_RETURN ping(n - 1);
}

TRACED long bounce(long n)
{
	ENTER(bounce);
	struct truth_state here = HERE();
	long value = ping(n);
	RESUME(here);
	LEAVE();
	return value;
}

/* jumps through a register */
TRACED long to_even(long n)
{
	ENTER_TAIL(to_even);
	return n / 2;
}

TRACED long to_odd(long n)
{
	ENTER_TAIL(to_odd);
	return 3 * n + 1;
}

static long (*volatile targets[2])(long) = {to_even, to_odd};

TRACED long tail_pointer(long n)
{
	ENTER_TAIL(tail_pointer);
	TAIL_RETURN targets[n & 1](n);
}

TRACED long pointer(long n)
{
	ENTER(pointer);
	struct truth_state here = HERE();
	long value = tail_pointer(n);
	RESUME(here);
	LEAVE();
	return value;
}

/* leaves by a jump or by a return */
TRACED long tail_maybe(long n)
{
	ENTER_TAIL(tail_maybe);
	if (n & 1)
		TAIL_RETURN plain_leaf(n);
	return n;
}

TRACED long choose(long n)
{
	ENTER(choose);
	struct truth_state here = HERE();
	long value = tail_maybe(n);
	RESUME(here);
	LEAVE();
	return value;
}

/* calls before it jumps, so it has a frame to take down first */
TRACED long tail_after_work(long n)
{
	ENTER_TAIL(tail_after_work);
	long value = plain_leaf(n);
	value ^= plain_leaf(value) << 1;
	TAIL_RETURN tail_third(value + n);
}

TRACED long after(long n)
{
	ENTER(after);
	struct truth_state here = HERE();
	long value = tail_after_work(n);
	RESUME(here);
	LEAVE();
	return value;
}

int main(int argc, char **argv)
{
	long rounds = truth_arg(argc, argv, "--rounds", 100);
	long bounces = truth_arg(argc, argv, "--bounces", 20);
	volatile long sink = 0;

	truth_begin(argc, argv);
	for (long i = 0; i < rounds; i++)
		sink += chain(i) + bounce(bounces) + pointer(i) + choose(i) + after(i);
	return truth_end("");
}
