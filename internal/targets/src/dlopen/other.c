/* SPDX-License-Identifier: Apache-2.0 */
/* Another plug-in; counts into the program's table. */
#define TRUTH_EXTERN
#include "functions.h"
#include "truth.h"

TRACED int other_helper(int n)
{
	ENTER(other_helper);
	LEAVE();
	return n - 1;
}

/* one helper, two calls back */
TRACED int other_run(int n, int (*callback)(int))
{
	ENTER(other_run);
	int value = other_helper(n) + callback(n) + callback(n + 1);
	LEAVE();
	return value;
}
