/* SPDX-License-Identifier: Apache-2.0 */
/* Dies of a signal inside nested calls: --abort (default), --segv or --trap.
 * The truth is printed by the innermost call, which dies when told to quit. */
#define TRUTH_FUNCTIONS(X) X(crash_outer) X(crash_middle) X(crash_inner) X(before)
#include "truth.h"
#include <sys/resource.h>

static volatile int *volatile nowhere;

enum kind { ABORT, SEGV, TRAP };

TRACED int before(int n)
{
	ENTER(before);
	LEAVE();
	return n + 1;
}

TRACED int crash_inner(enum kind kind)
{
	ENTER(crash_inner);
	truth_print("");
	truth_wait();
	switch (kind) {
	case ABORT:
		abort();
	case SEGV:
		*nowhere = 1;
		break;
	case TRAP:
		raise(SIGTRAP);
	}
	LEAVE();
	return 0;
}

TRACED int crash_middle(enum kind kind)
{
	ENTER(crash_middle);
	int value = before(1);
	value += crash_inner(kind);
	LEAVE();
	return value;
}

TRACED int crash_outer(enum kind kind)
{
	ENTER(crash_outer);
	int value = before(0) + before(1);
	value += crash_middle(kind);
	LEAVE();
	return value;
}

int main(int argc, char **argv)
{
	struct rlimit none = {0, 0};

	setrlimit(RLIMIT_CORE, &none);
	truth_begin(argc, argv);
	if (truth_has(argc, argv, "--segv"))
		return crash_outer(SEGV);
	if (truth_has(argc, argv, "--trap"))
		return crash_outer(TRAP);
	return crash_outer(ABORT);
}
