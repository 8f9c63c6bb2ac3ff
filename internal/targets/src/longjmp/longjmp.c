/* SPDX-License-Identifier: Apache-2.0 */
/* longjmp out of three counted frames, in a loop, with ordinary calls at the
 * same depths afterwards. --rounds N */
#define TRUTH_FUNCTIONS(X) \
	X(jump_base) X(hop1) X(hop2) X(hop3) X(settle) X(settle_leaf) X(jump_loop)
#include "truth.h"
#include <setjmp.h>

static jmp_buf target;

/* hop3 comes back only when it is not told to jump */
TRACED int hop3(int jump)
{
	ENTER(hop3);
	if (jump)
		longjmp(target, jump);
	LEAVE();
	return 3;
}

TRACED int hop2(int jump)
{
	ENTER(hop2);
	int value = hop3(jump) + 1;
	LEAVE();
	return value;
}

TRACED int hop1(int jump)
{
	ENTER(hop1);
	int value = hop2(jump) + 1;
	LEAVE();
	return value;
}

TRACED int settle_leaf(int n)
{
	ENTER(settle_leaf);
	LEAVE();
	return n + 1;
}

TRACED int settle(int n)
{
	ENTER(settle);
	int value = settle_leaf(n) + settle_leaf(n + 1);
	LEAVE();
	return value;
}

/* one jump across three frames, then calls where they were, then no jump */
TRACED int jump_base(int n)
{
	ENTER(jump_base);
	struct truth_state here = HERE();
	volatile int value = n;

	if (setjmp(target) == 0)
		value += hop1(1);
	RESUME(here);
	value += settle(n);
	value += hop1(0);
	LEAVE();
	return value;
}

/* four jumps back into the same activation */
TRACED int jump_loop(void)
{
	ENTER(jump_loop);
	struct truth_state here = HERE();
	int jumps = setjmp(target);

	RESUME(here);
	if (jumps < 4)
		hop1(jumps + 1);
	jumps += settle(jumps);
	LEAVE();
	return jumps;
}

int main(int argc, char **argv)
{
	long rounds = truth_arg(argc, argv, "--rounds", 200);
	volatile int sink = 0;

	truth_begin(argc, argv);
	for (long i = 0; i < rounds; i++) {
		sink += jump_base((int)i);
		sink += jump_loop();
	}
	return truth_end("");
}
