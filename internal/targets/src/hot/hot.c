/* SPDX-License-Identifier: Apache-2.0 */
/* One tiny function in a tight loop until told to stop (or --calls N), beside a
 * rarely called one. Prints "RATE <calls per second>" once a second. */
#define TRUTH_NO_RETURNS
#define TRUTH_NO_DEPTH
#define TRUTH_NO_TREE
#define TRUTH_FUNCTIONS(X) X(hot_step) X(rare_step)
#include "truth.h"
#include <time.h>

/* plain counters: an atomic one would cost more than the function itself */
static unsigned long hot_calls, rare_calls;

TRACED unsigned long hot_step(unsigned long x)
{
	hot_calls++;
	return x * 6364136223846793005ul + 1442695040888963407ul;
}

TRACED unsigned long rare_step(unsigned long x)
{
	rare_calls++;
	return x ^ (x >> 7);
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
	enum { BATCH = 1000 };
	unsigned long limit = (unsigned long)truth_arg(argc, argv, "--calls", 0);
	unsigned long last_calls = 0, x = 1;
	double last;

	truth_begin(argc, argv);
	truth_endless();
	last = seconds();
	while (!truth_stopped && (limit == 0 || hot_calls < limit)) {
		for (int i = 0; i < BATCH; i++)
			x = hot_step(x);
		x = rare_step(x);
		double now = seconds();
		if (now - last >= 1) {
			truth_say("RATE %.0f\n", (double)(hot_calls - last_calls) / (now - last));
			last = now;
			last_calls = hot_calls;
		}
	}
	truth_table->calls[T_hot_step] = hot_calls;
	truth_table->calls[T_rare_step] = rare_calls;
	truth_print("");
	/* with --calls the work may end before it was told to: stay until then */
	while (!truth_auto && !truth_stopped)
		usleep(1000);
	return x == 0;
}
