/* SPDX-License-Identifier: Apache-2.0 */
/* The library; counts into the program's table. */
#define TRUTH_EXTERN
#include "functions.h"
#include "truth.h"

TRACED int lib_leaf(int n)
{
	ENTER(lib_leaf);
	LEAVE();
	return n + 1;
}

/* not exported: in the symbol table only */
__attribute__((noinline, visibility("hidden"))) int lib_hidden(int n)
{
	ENTER(lib_hidden);
	LEAVE();
	return n ^ 1;
}

/* two hidden ones, one leaf through the procedure linkage table */
TRACED int lib_work(int n)
{
	ENTER(lib_work);
	int value = lib_hidden(n) + lib_hidden(n + 1) + lib_leaf(n);
	LEAVE();
	return value;
}

/* n calls back into the program */
TRACED int lib_visit(int n, int (*compare)(int, int))
{
	ENTER(lib_visit);
	int sum = 0;
	for (int i = 0; i < n; i++)
		sum += compare(i, n);
	LEAVE();
	return sum;
}
