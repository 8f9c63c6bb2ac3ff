/* SPDX-License-Identifier: Apache-2.0 */
/* A plug-in; counts into the program's table. */
#define TRUTH_EXTERN
#include "functions.h"
#include "truth.h"

TRACED int plug_helper(int n)
{
	ENTER(plug_helper);
	LEAVE();
	return n * 2;
}

/* two helpers, one call back */
TRACED int plug_run(int n, int (*callback)(int))
{
	ENTER(plug_run);
	int value = plug_helper(n) + plug_helper(n + 1) + callback(n);
	LEAVE();
	return value;
}
