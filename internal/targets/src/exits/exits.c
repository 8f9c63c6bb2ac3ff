/* SPDX-License-Identifier: Apache-2.0 */
/* Ends with status 7 inside nested calls: by exit() (default), by exit() in a
 * second thread (--thread), or by _exit() (--now). exit() runs a counted
 * handler on top of the open calls. */
#define TRUTH_FUNCTIONS(X) \
	X(exit_outer) X(exit_middle) X(exit_inner) X(before) X(on_exit_work) X(on_exit_leaf)
#include "truth.h"

enum { STATUS = 7 };

static int now;

TRACED int before(int n)
{
	ENTER(before);
	LEAVE();
	return n + 1;
}

TRACED int on_exit_leaf(int n)
{
	ENTER(on_exit_leaf);
	LEAVE();
	return n + 1;
}

TRACED void on_exit_work(void)
{
	ENTER(on_exit_work);
	on_exit_leaf(1);
	on_exit_leaf(2);
	LEAVE();
}

static void say(void)
{
	truth_print("");
	truth_wait();
}

TRACED int exit_inner(int n)
{
	ENTER(exit_inner);
	before(n);
	if (now) {
		say();
		_exit(STATUS);
	}
	if (n >= 0)
		exit(STATUS);
	LEAVE();
	return n;
}

TRACED int exit_middle(int n)
{
	ENTER(exit_middle);
	n += exit_inner(n);
	LEAVE();
	return n;
}

TRACED int exit_outer(int n)
{
	ENTER(exit_outer);
	n += before(n) + exit_middle(n);
	LEAVE();
	return n;
}

static void *thread_main(void *unused)
{
	(void)unused;
	exit_outer(1);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	now = truth_has(argc, argv, "--now");
	atexit(say); /* registered first, runs last */
	atexit(on_exit_work);
	truth_begin(argc, argv);
	if (!truth_has(argc, argv, "--thread"))
		return exit_outer(1);
	if (pthread_create(&thread, NULL, thread_main, NULL) != 0)
		_exit(4);
	pthread_join(thread, NULL);
	return 1;
}
