/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPU time in known shares: each thread descends --depth frames and there runs
 * three functions, 70, 20 and 10 units of work, until it is told to stop.
 * "values" are the ns of CPU time that each of them took by the thread's own
 * clock, and that of the whole process. --threads N --depth N --ms N (stop after
 * so much CPU time of each thread; 0: when told to)
 */
#define TRUTH_FUNCTIONS(X) X(seventy) X(twenty) X(ten)
#define TRUTH_NO_RETURNS
#define TRUTH_NO_DEPTH
#define TRUTH_NO_TREE
#include "truth.h"

enum { MAX_THREADS = 256 };

static unsigned long spent[T_count]; /* ns */
static long depth, limit_ms;
static unsigned finished;
static __thread volatile unsigned long sink;

TRUTH_INLINE unsigned long cpu_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (unsigned long)now.tv_sec * 1000000000 + (unsigned long)now.tv_nsec;
}

/*
 * A unit is of another length each time, the mean is what counts: work that
 * repeats with a fixed period can fall into step with that of the samples.
 */
TRUTH_INLINE void work(int units)
{
	static __thread unsigned random = 1;

	random = random * 1664525 + 1013904223; /* Numerical Recipes' generator */
	for (int i = 0; i < units * (int)(2000 + (random >> 16) % 4000); i++)
		sink += (unsigned long)i * i;
}

TRACED void seventy(void)
{
	unsigned long began = cpu_ns(CLOCK_THREAD_CPUTIME_ID);

	TICK(seventy);
	work(70);
	__atomic_fetch_add(&spent[T_seventy], cpu_ns(CLOCK_THREAD_CPUTIME_ID) - began, __ATOMIC_RELAXED);
}

TRACED void twenty(void)
{
	unsigned long began = cpu_ns(CLOCK_THREAD_CPUTIME_ID);

	TICK(twenty);
	work(20);
	__atomic_fetch_add(&spent[T_twenty], cpu_ns(CLOCK_THREAD_CPUTIME_ID) - began, __ATOMIC_RELAXED);
}

TRACED void ten(void)
{
	unsigned long began = cpu_ns(CLOCK_THREAD_CPUTIME_ID);

	TICK(ten);
	work(10);
	__atomic_fetch_add(&spent[T_ten], cpu_ns(CLOCK_THREAD_CPUTIME_ID) - began, __ATOMIC_RELAXED);
}

/* recursion that is none when optimised away: there is work after the call */
TRACED long descend(long levels)
{
	long below;

	if (levels > 0) {
		below = descend(levels - 1);
		sink++;
		return below + 1;
	}
	do {
		seventy();
		twenty();
		ten();
	} while (!truth_stopped && (limit_ms == 0 || cpu_ns(CLOCK_THREAD_CPUTIME_ID) < (unsigned long)limit_ms * 1000000));
	return 0;
}

static void *thread(void *unused)
{
	(void)unused;
	descend(depth);
	truth_merge();
	__atomic_fetch_add(&finished, 1, __ATOMIC_RELEASE);
	return NULL;
}

int main(int argc, char **argv)
{
	long count = truth_arg(argc, argv, "--threads", 0);
	pthread_t threads[MAX_THREADS];
	unsigned long before;
	char extra[256];

	depth = truth_arg(argc, argv, "--depth", 0);
	limit_ms = truth_arg(argc, argv, "--ms", 0);
	if (count < 0 || count > MAX_THREADS)
		return 2;
	truth_begin(argc, argv);
	before = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
	truth_endless();
	for (long i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, thread, NULL) != 0)
			return 4;
	if (count == 0)
		thread(NULL);
	for (long i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	snprintf(extra, sizeof(extra), ",\"values\":{\"seventy\":%lu,\"twenty\":%lu,\"ten\":%lu,\"all\":%lu}",
		 spent[T_seventy], spent[T_twenty], spent[T_ten], cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - before);
	truth_print(extra);
	truth_stay();
	return 0;
}
