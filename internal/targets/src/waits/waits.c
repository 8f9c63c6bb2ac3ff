/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting, in known places for known times: a sleeper, a thread that holds a lock
 * while it sleeps and one that wants it, a reader of a pipe and its writer; and
 * page faults, by a thread that touches new memory. Endless. "values" are the ns
 * that each function's waits took together by its own clock, and the pages.
 */
#define TRUTH_FUNCTIONS(X) X(sleeps) X(holds) X(wants) X(reads) X(writes) X(touches)
#define TRUTH_NO_RETURNS
#define TRUTH_NO_DEPTH
#define TRUTH_NO_TREE
#include "truth.h"

enum { PAGES = 64 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned long waited[T_count], pages;
static int ends[2];
static volatile int sink;

static unsigned long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (unsigned long)now.tv_sec * 1000000000 + (unsigned long)now.tv_nsec;
}

static void wait_over(int id, unsigned long began)
{
	__atomic_fetch_add(&waited[id], now_ns() - began, __ATOMIC_RELAXED);
	sink++;
}

TRACED void sleeps(void)
{
	unsigned long began = now_ns();
	struct timespec time = {0, 20000000};

	TICK(sleeps);
	nanosleep(&time, NULL);
	wait_over(T_sleeps, began);
}

TRACED void holds(void)
{
	struct timespec time = {0, 15000000}, pause = {0, 5000000};
	unsigned long began;

	TICK(holds);
	pthread_mutex_lock(&mutex);
	began = now_ns();
	nanosleep(&time, NULL);
	pthread_mutex_unlock(&mutex);
	nanosleep(&pause, NULL);
	wait_over(T_holds, began);
}

TRACED void wants(void)
{
	struct timespec pause = {0, 3000000}; /* so that the other one gets it, too */
	unsigned long began = now_ns();

	TICK(wants);
	pthread_mutex_lock(&mutex);
	wait_over(T_wants, began);
	pthread_mutex_unlock(&mutex);
	began = now_ns();
	nanosleep(&pause, NULL);
	wait_over(T_wants, began);
}

TRACED void reads(void)
{
	unsigned long began = now_ns();
	char byte;

	TICK(reads);
	if (read(ends[0], &byte, 1) != 1)
		truth_stopped = 1; /* the writer has ended */
	wait_over(T_reads, began);
}

TRACED void writes(void)
{
	struct timespec time = {0, 25000000};
	unsigned long began = now_ns();

	TICK(writes);
	nanosleep(&time, NULL);
	wait_over(T_writes, began);
	if (write(ends[1], "x", 1) != 1)
		_exit(4);
}

TRACED void touches(void)
{
	struct timespec time = {0, 10000000};
	long size = sysconf(_SC_PAGESIZE);
	volatile char *memory = mmap(NULL, (size_t)(PAGES * size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	TICK(touches);
	if (memory == MAP_FAILED)
		_exit(4);
	madvise((void *)memory, (size_t)(PAGES * size), 15 /* MADV_NOHUGEPAGE */);
	for (int i = 0; i < PAGES; i++)
		memory[i * size] = 1;
	__atomic_fetch_add(&pages, PAGES, __ATOMIC_RELAXED);
	munmap((void *)memory, (size_t)(PAGES * size));
	nanosleep(&time, NULL);
}

static void *repeat(void *function)
{
	while (!truth_stopped)
		((void (*)(void))function)();
	truth_merge();
	return NULL;
}

int main(int argc, char **argv)
{
	void (*functions[])(void) = {sleeps, holds, wants, writes, touches, reads};
	pthread_t threads[6];
	char extra[256];

	if (pipe(ends) != 0)
		return 4;
	truth_begin(argc, argv);
	truth_endless();
	for (int i = 0; i < 6; i++)
		if (pthread_create(&threads[i], NULL, repeat, (void *)functions[i]) != 0)
			return 4;
	for (int i = 0; i < 5; i++)
		pthread_join(threads[i], NULL);
	close(ends[1]);
	snprintf(extra, sizeof(extra), ",\"values\":{\"sleeps\":%lu,\"holds\":%lu,\"wants\":%lu,\"reads\":%lu,\"writes\":%lu,\"pages\":%lu}",
		 waited[T_sleeps], waited[T_holds], waited[T_wants], waited[T_reads], waited[T_writes], pages);
	truth_print(extra);
	truth_stay();
	return 0;
}
