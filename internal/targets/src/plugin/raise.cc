// SPDX-License-Identifier: Apache-2.0
// A plug-in that throws; counts into the program's table.
#define TRUTH_EXTERN
#include "functions.h"
#include "truth.h"

typedef int callee(int);

// throws if n is odd
TRACED int plug_throw(int n)
{
	ENTER(plug_throw);
	if (n % 2 != 0)
		throw n;
	LEAVE();
	return n;
}

TRACED int plug_after(int n)
{
	ENTER(plug_after);
	LEAVE();
	return n + 1;
}

// through a frame of the program
extern "C" TRACED int plug_catch(int n, int (*callback)(int, callee *))
{
	ENTER(plug_catch);
	const truth_state here = HERE();
	try {
		n = callback(n, plug_throw);
	} catch (int thrown) {
		RESUME(here);
		n = thrown;
	}
	n = plug_after(n);
	LEAVE();
	return n;
}
