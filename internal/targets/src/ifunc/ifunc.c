/* SPDX-License-Identifier: Apache-2.0 */
/* An indirect function with two implementations, and functions with several
 * names. --rounds N */
#define TRUTH_FUNCTIONS(X) X(use) X(dispatch_plain) X(dispatch_fast) X(aliased)
#include "truth.h"

TRACED int dispatch_plain(int n)
{
	ENTER(dispatch_plain);
	LEAVE();
	return n + 1;
}

TRACED int dispatch_fast(int n)
{
	ENTER(dispatch_fast);
	LEAVE();
	return n + 1;
}

/* runs while the program is being relocated, so it counts nothing */
__attribute__((used)) static int (*resolve_dispatch(void))(int)
{
	return dispatch_fast;
}

int dispatch(int n) __attribute__((ifunc("resolve_dispatch")));

/* one address, three names */
TRACED int aliased(int n)
{
	ENTER(aliased);
	LEAVE();
	return n * 2;
}
int aliased_strong(int n) __attribute__((alias("aliased")));
int aliased_weak(int n) __attribute__((weak, alias("aliased")));

/* one call through the indirect function, one direct, three of the aliases */
TRACED int use(int n)
{
	ENTER(use);
	int value = dispatch(n) + dispatch_plain(n) + aliased(n) + aliased_strong(n) + aliased_weak(n);
	LEAVE();
	return value;
}

int main(int argc, char **argv)
{
	long rounds = truth_arg(argc, argv, "--rounds", 100);
	volatile int sink = 0;

	truth_begin(argc, argv);
	for (long i = 0; i < rounds; i++)
		sink += use((int)i);
	return truth_end("");
}
