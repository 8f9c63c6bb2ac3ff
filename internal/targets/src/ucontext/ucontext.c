/* SPDX-License-Identifier: Apache-2.0 */
/* Coroutines that switch stacks inside counted functions.
 * --coroutines N --steps N */
#define TRUTH_FUNCTIONS(X) \
	X(co_body) X(co_step) X(co_yield) X(co_leaf) X(schedule) X(resume_one)
#include "truth.h"
#include <ucontext.h>

enum { MAX_COROUTINES = 64, STACK = 64 << 10 };

static struct coroutine {
	ucontext_t context;
	int done;
} coroutines[MAX_COROUTINES];

static ucontext_t scheduler;
static int current, steps;

TRACED int co_leaf(int n)
{
	ENTER(co_leaf);
	LEAVE();
	return n + 1;
}

/* switches away while it, co_step and co_body run */
TRACED void co_yield(int self)
{
	ENTER(co_yield);
	struct truth_state here = HERE();
	swapcontext(&coroutines[self].context, &scheduler);
	RESUME(here);
	LEAVE();
}

TRACED int co_step(int self, int n)
{
	ENTER(co_step);
	n = co_leaf(n);
	co_yield(self);
	n = co_leaf(n);
	LEAVE();
	return n;
}

TRACED void co_body(int self)
{
	RESUME((struct truth_state){0});
	ENTER(co_body);
	int n = 0;
	for (int i = 0; i < steps; i++)
		n = co_step(self, n);
	coroutines[self].done = n == 2 * steps ? 1 : -1;
	LEAVE();
}

TRACED void resume_one(int which)
{
	ENTER(resume_one);
	struct truth_state here = HERE();
	current = which;
	swapcontext(&scheduler, &coroutines[which].context);
	RESUME(here);
	LEAVE();
}

/* round robin until all are done; a coroutine is resumed steps + 1 times */
TRACED int schedule(int count)
{
	ENTER(schedule);
	int left = count, failed = 0;
	while (left > 0) {
		for (int i = 0; i < count; i++) {
			if (coroutines[i].done)
				continue;
			resume_one(i);
			left -= coroutines[i].done != 0;
			failed += coroutines[i].done < 0;
		}
	}
	LEAVE();
	return failed;
}

static void start(void)
{
	co_body(current);
}

int main(int argc, char **argv)
{
	int count = (int)truth_arg(argc, argv, "--coroutines", 8);
	int failed;

	steps = (int)truth_arg(argc, argv, "--steps", 50);
	if (count < 1 || count > MAX_COROUTINES)
		return 2;
	for (int i = 0; i < count; i++) {
		ucontext_t *context = &coroutines[i].context;
		getcontext(context);
		context->uc_stack.ss_size = STACK;
		context->uc_stack.ss_sp = malloc(STACK);
		context->uc_link = &scheduler;
		makecontext(context, start, 0);
	}
	truth_begin(argc, argv);
	failed = schedule(count);
	truth_end("");
	return failed;
}
