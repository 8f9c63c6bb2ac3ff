/* SPDX-License-Identifier: Apache-2.0 */
/* Nested calls that sleep for known times. --rounds N --unit MICROSECONDS
 *
 *     slow_outer: 2 units, two slow_middle
 *     slow_middle: 3 units, one slow_leaf, one quick
 *     slow_leaf: 5 units
 *
 * "slept_ns" is the least time that all calls of a function took together,
 * callees included. */
#define TRUTH_FUNCTIONS(X) X(slow_outer) X(slow_middle) X(slow_leaf) X(quick)
#include "truth.h"
#include <errno.h>

static long unit;

/* sleeps the whole time, whatever interrupts it */
TRUTH_INLINE void sleep_units(long units)
{
	struct timespec left = {units * unit / 1000000, units * unit % 1000000 * 1000};

	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

TRACED int quick(int n)
{
	ENTER(quick);
	LEAVE();
	return n + 1;
}

TRACED int slow_leaf(int n)
{
	ENTER(slow_leaf);
	sleep_units(5);
	LEAVE();
	return n;
}

TRACED int slow_middle(int n)
{
	ENTER(slow_middle);
	sleep_units(3);
	n += slow_leaf(n) + quick(n);
	LEAVE();
	return n;
}

TRACED int slow_outer(int n)
{
	ENTER(slow_outer);
	sleep_units(1);
	n += slow_middle(n);
	sleep_units(1);
	n += slow_middle(n);
	LEAVE();
	return n;
}

int main(int argc, char **argv)
{
	long rounds = truth_arg(argc, argv, "--rounds", 10);
	volatile int sink = 0;
	char extra[160];

	unit = truth_arg(argc, argv, "--unit", 1000);
	truth_begin(argc, argv);
	for (long i = 0; i < rounds; i++)
		sink += slow_outer((int)i);
	snprintf(extra, sizeof(extra),
		 ",\"slept_ns\":{\"slow_outer\":%ld,\"slow_middle\":%ld,\"slow_leaf\":%ld}",
		 rounds * 18 * unit * 1000, rounds * 16 * unit * 1000, rounds * 10 * unit * 1000);
	return truth_end(extra);
}
