/* SPDX-License-Identifier: Apache-2.0 */
/* Plain nested calls with loops and branches. --rounds N */
#define TRUTH_FUNCTIONS(X) X(outer) X(middle) X(leaf) X(branchy) X(tiny)
#include "truth.h"

TRACED int tiny(void)
{
	ENTER(tiny);
	LEAVE();
	return 1;
}

TRACED int leaf(int n)
{
	ENTER(leaf);
	LEAVE();
	return n * 3 + 1;
}

/* odd n: one leaf; even n: none and an early return */
TRACED int branchy(int n)
{
	ENTER(branchy);
	if (n % 2 == 0) {
		LEAVE();
		return n;
	}
	int sum = leaf(n);
	LEAVE();
	return sum;
}

/* n + 1 leaves, one branchy */
TRACED int middle(int n)
{
	ENTER(middle);
	int sum = 0;
	for (int i = 0; i <= n; i++)
		sum += leaf(i);
	sum += branchy(n);
	LEAVE();
	return sum;
}

/* three middles (0, 1, 2), one tiny */
TRACED int outer(int n)
{
	ENTER(outer);
	int sum = n;
	for (int i = 0; i < 3; i++)
		sum += middle(i);
	sum += tiny();
	LEAVE();
	return sum;
}

int main(int argc, char **argv)
{
	long rounds = truth_arg(argc, argv, "--rounds", 100);
	volatile int sink = 0;

	truth_begin(argc, argv);
	for (long i = 0; i < rounds; i++)
		sink += outer((int)i);
	return truth_end("");
}
