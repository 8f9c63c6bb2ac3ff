/* SPDX-License-Identifier: Apache-2.0 */
#include "work.h"
#include "_cgo_export.h"
#include <pthread.h>
#include <stdlib.h>

#define TRACED __attribute__((noipa))

static long calls[C_FUNCTIONS];

static inline __attribute__((always_inline)) void count(int function)
{
	__atomic_fetch_add(&calls[function], 1, __ATOMIC_RELAXED);
}

long c_calls(int function)
{
	return __atomic_load_n(&calls[function], __ATOMIC_RELAXED);
}

TRACED int c_leaf(int n)
{
	count(C_LEAF);
	return n + 1;
}

TRACED int c_work(int n)
{
	count(C_WORK);
	n = goBack(c_leaf(n));
	return c_leaf(n) + 1;
}

TRACED void *c_thread(void *rounds)
{
	volatile int sum = 0;

	count(C_THREAD);
	for (int i = 0; i < *(int *)rounds; i++)
		sum += goFromThread(c_leaf(i));
	return NULL;
}

TRACED void c_start(int threads, int rounds)
{
	pthread_t ids[64];

	count(C_START);
	if (threads > 64)
		abort();
	for (int i = 0; i < threads; i++)
		if (pthread_create(&ids[i], NULL, c_thread, &rounds) != 0)
			abort();
	for (int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
}
