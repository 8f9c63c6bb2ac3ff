/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that all live at once, each with a number of calls of its own.
 * --threads N --items N: thread t makes (t + 1) * items calls of work_item. */
#define TRUTH_FUNCTIONS(X) X(work) X(work_item) X(work_leaf)
#include "truth.h"

enum { MAX_THREADS = 256 };

static pthread_barrier_t barrier;
static long items;
static struct worker {
	long number;
	long tid;
	unsigned long calls; /* counted functions called by this thread, work itself included */
} workers[MAX_THREADS];

static __thread unsigned long calls_here;

TRACED long work_leaf(long n)
{
	ENTER(work_leaf);
	calls_here++;
	LEAVE();
	return n ^ 0x5a;
}

TRACED long work_item(long n)
{
	ENTER(work_item);
	calls_here++;
	long value = work_leaf(n) + work_leaf(n + 1);
	LEAVE();
	return value;
}

TRACED void *work(void *argument)
{
	ENTER(work);
	calls_here++;
	struct worker *self = argument;
	volatile long sink = 0;

	self->tid = syscall(SYS_gettid);
	pthread_barrier_wait(&barrier);
	for (long i = 0; i < (self->number + 1) * items; i++)
		sink += work_item(i);
	self->calls = calls_here;
	pthread_barrier_wait(&barrier);
	LEAVE();
	return NULL;
}

int main(int argc, char **argv)
{
	long count = truth_arg(argc, argv, "--threads", 64);
	pthread_t threads[MAX_THREADS];
	char *extra = malloc(64 + MAX_THREADS * 48);
	int length;

	if (count < 1 || count > MAX_THREADS || !extra)
		return 2;
	items = truth_arg(argc, argv, "--items", 10);
	pthread_barrier_init(&barrier, NULL, (unsigned)count);
	truth_begin(argc, argv);
	for (long i = 0; i < count; i++) {
		workers[i].number = i;
		if (pthread_create(&threads[i], NULL, work, &workers[i]) != 0)
			return 4;
	}
	for (long i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	length = sprintf(extra, ",\"threads\":{");
	for (long i = 0; i < count; i++)
		length += sprintf(extra + length, "%s\"%ld\":%lu", i ? "," : "", workers[i].tid,
				  workers[i].calls);
	sprintf(extra + length, "}");
	return truth_end(extra);
}
