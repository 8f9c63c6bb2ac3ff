/* SPDX-License-Identifier: Apache-2.0 */
/* One tiny function in a tight loop until told to stop (or --calls N), beside a
 * rarely called one. Prints "RATE <calls per second>" once a second. */
#define TRUTH_NO_RETURNS
#define TRUTH_NO_DEPTH
#define TRUTH_NO_TREE
#define TRUTH_FUNCTIONS(X) X(hot_step) X(rare_step)
#include "truth.h"

TRACED unsigned long hot_step(unsigned long x)
{
	TICK(hot_step);
	return x * 6364136223846793005ul + 1442695040888963407ul;
}

TRACED unsigned long rare_step(unsigned long x)
{
	TICK(rare_step);
	return x ^ (x >> 7);
}

int main(int argc, char **argv)
{
	enum { BATCH = 1000 };
	unsigned long limit = (unsigned long)truth_arg(argc, argv, "--calls", 0);
	unsigned long calls = 0, last_calls = 0, x = 1;
	double last;

	truth_begin(argc, argv);
	truth_endless();
	last = truth_seconds();
	while (!truth_stopped && (limit == 0 || calls < limit)) {
		for (int i = 0; i < BATCH; i++)
			x = hot_step(x);
		x = rare_step(x);
		calls += BATCH;
		double now = truth_seconds();
		if (now - last >= 1) {
			truth_say("RATE %.0f\n", (double)(calls - last_calls) / (now - last));
			last = now;
			last_calls = calls;
		}
	}
	truth_merge();
	truth_print("");
	truth_stay();
	return x == 0;
}
