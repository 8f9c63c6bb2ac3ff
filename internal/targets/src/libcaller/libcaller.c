/* SPDX-License-Identifier: Apache-2.0 */
/* Calls into a shared library it is linked to, and back. --rounds N */
#include "functions.h"
#include "truth.h"

TRACED int app_compare(int a, int b)
{
	ENTER(app_compare);
	int less = lib_leaf(a) < b;
	LEAVE();
	return less;
}

TRACED int app_step(int n)
{
	ENTER(app_step);
	int value = lib_work(n) + lib_leaf(n);
	LEAVE();
	return value;
}

TRACED int app_run(int n)
{
	ENTER(app_run);
	int value = app_step(n) + lib_visit(4, app_compare);
	LEAVE();
	return value;
}

int main(int argc, char **argv)
{
	long rounds = truth_arg(argc, argv, "--rounds", 100);
	volatile int sink = 0;

	truth_begin(argc, argv);
	for (long i = 0; i < rounds; i++)
		sink += app_run((int)i);
	return truth_end("");
}
