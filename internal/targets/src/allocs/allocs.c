/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is allocated in known sizes: kept, given back, grown, by every
 * function that allocates. "values" are the bytes that each function has
 * allocated, and those that "keeps" has not given back. --rounds N
 */
#define TRUTH_FUNCTIONS(X) X(keeps) X(frees) X(grows) X(aligns) X(zeroes)
#define TRUTH_NO_RETURNS
#define TRUTH_NO_DEPTH
#define TRUTH_NO_TREE
#include "truth.h"
#include <malloc.h>

enum { MAX_ROUNDS = 100000 };

static void *volatile kept[MAX_ROUNDS];
static unsigned long bytes[T_count];

static void *use(void *memory)
{
	if (!memory)
		_exit(4);
	*(volatile char *)memory = 1;
	return memory;
}

TRACED void keeps(int i)
{
	TICK(keeps);
	kept[i] = use(malloc(1000));
	bytes[T_keeps] += 1000;
}

TRACED void frees(void)
{
	TICK(frees);
	free(use(malloc(700)));
	bytes[T_frees] += 700;
}

TRACED void grows(void)
{
	char *memory = use(malloc(100));

	TICK(grows);
	memory = use(realloc(memory, 5000));
	memory = use(realloc(memory, 200000)); /* beyond the heap */
	free(memory);
	bytes[T_grows] += 100 + 5000 + 200000;
}

TRACED void aligns(void)
{
	void *memory = NULL;

	TICK(aligns);
	if (posix_memalign(&memory, 256, 640) != 0)
		_exit(4);
	free(use(memory));
	free(use(aligned_alloc(64, 320)));
	bytes[T_aligns] += 640 + 320;
}

TRACED void zeroes(void)
{
	TICK(zeroes);
	free(use(calloc(30, 50)));
	bytes[T_zeroes] += 30 * 50;
}

int main(int argc, char **argv)
{
	long rounds = truth_arg(argc, argv, "--rounds", 1000);
	char extra[256];

	if (rounds > MAX_ROUNDS)
		return 2;
	truth_begin(argc, argv);
	for (int i = 0; i < rounds; i++) {
		keeps(i);
		frees();
		grows();
		aligns();
		zeroes();
	}
	truth_merge();
	snprintf(extra, sizeof(extra), ",\"values\":{\"keeps\":%lu,\"frees\":%lu,\"grows\":%lu,\"aligns\":%lu,\"zeroes\":%lu}",
		 bytes[T_keeps], bytes[T_frees], bytes[T_grows], bytes[T_aligns], bytes[T_zeroes]);
	return truth_end(extra);
}
