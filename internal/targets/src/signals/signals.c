/* SPDX-License-Identifier: Apache-2.0 */
/* Signal handlers that interrupt counted functions and call counted functions:
 * on the normal stack and on an alternate one, at instructions of the program's
 * choice (raise) and at any instruction (timers). --rounds N --ticks N */
#define TRUTH_NO_DEPTH
#define TRUTH_FUNCTIONS(X)                                       \
	X(raise_outer) X(raise_inner) X(on_usr1) X(on_usr2)      \
	X(on_both) X(handler_leaf)                               \
	X(jump_outer) X(jump_inner) X(on_jump)                   \
	X(spin_outer) X(spin_leaf)                               \
	X(on_tick) X(on_tick_leaf) X(on_alt_tick) X(on_alt_leaf)
#include "truth.h"
#include <setjmp.h>
#include <sys/time.h>

static sigjmp_buf escape;
static volatile sig_atomic_t ticks, alt_ticks;

TRACED int handler_leaf(int n)
{
	ENTER(handler_leaf);
	LEAVE();
	return n + 1;
}

/* SIGUSR1: normal stack */
TRACED void on_usr1(int sig)
{
	ENTER(on_usr1);
	handler_leaf(sig);
	handler_leaf(sig + 1);
	LEAVE();
}

/* SIGUSR2: alternate stack */
TRACED void on_usr2(int sig)
{
	ENTER(on_usr2);
	handler_leaf(sig);
	LEAVE();
}

/* SIGHUP: normal stack, interrupted itself by SIGUSR2 on the other stack */
TRACED void on_both(int sig)
{
	ENTER(on_both);
	handler_leaf(sig);
	raise(SIGUSR2);
	handler_leaf(sig);
	LEAVE();
}

TRACED int raise_inner(int sig)
{
	ENTER(raise_inner);
	int value = raise(sig) + handler_leaf(sig);
	LEAVE();
	return value;
}

TRACED int raise_outer(int n)
{
	ENTER(raise_outer);
	n += raise_inner(SIGUSR1);
	n += raise_inner(SIGUSR2);
	n += raise_inner(SIGHUP);
	LEAVE();
	return n;
}

/* SIGWINCH: leaves by siglongjmp, also out of the interrupted jump_inner */
TRACED void on_jump(int sig)
{
	ENTER(on_jump);
	handler_leaf(sig);
	if (sig)
		siglongjmp(escape, 1);
	LEAVE();
}

TRACED int jump_inner(int n)
{
	ENTER(jump_inner);
	n += raise(SIGWINCH);
	LEAVE();
	return n;
}

TRACED int jump_outer(int n)
{
	ENTER(jump_outer);
	struct truth_state here = HERE();
	volatile int value = n;

	if (sigsetjmp(escape, 1) == 0)
		value += jump_inner(n);
	RESUME(here);
	value += handler_leaf(value);
	LEAVE();
	return value;
}

/* the timers' handlers: normal stack ... */
TRACED int on_tick_leaf(int n)
{
	ENTER(on_tick_leaf);
	LEAVE();
	return n;
}

TRACED void on_tick(int sig)
{
	ENTER_ASYNC(on_tick);
	ticks += 1 + 0 * (on_tick_leaf(sig) + on_tick_leaf(sig));
	LEAVE();
}

/* ... and alternate stack */
TRACED int on_alt_leaf(int n)
{
	ENTER(on_alt_leaf);
	LEAVE();
	return n;
}

TRACED void on_alt_tick(int sig)
{
	ENTER_ASYNC(on_alt_tick);
	alt_ticks += 1 + 0 * on_alt_leaf(sig);
	LEAVE();
}

TRACED unsigned spin_leaf(unsigned x)
{
	ENTER(spin_leaf);
	x = x * 1103515245u + 12345u;
	LEAVE();
	return x;
}

/* ten leaves */
TRACED unsigned spin_outer(unsigned x)
{
	ENTER(spin_outer);
	for (int i = 0; i < 10; i++)
		x = spin_leaf(x);
	LEAVE();
	return x;
}

static void handle(int sig, void (*handler)(int), int flags)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = handler;
	action.sa_flags = SA_RESTART | flags;
	sigaction(sig, &action, NULL);
}

static void every(int which, long microseconds)
{
	struct itimerval interval = {{0, microseconds}, {0, microseconds}};

	setitimer(which, &interval, NULL);
}

int main(int argc, char **argv)
{
	enum { ALT_STACK = 64 << 10 };
	long rounds = truth_arg(argc, argv, "--rounds", 50);
	long wanted = truth_arg(argc, argv, "--ticks", 100);
	stack_t stack = {.ss_sp = malloc(ALT_STACK), .ss_size = ALT_STACK};
	volatile unsigned sink = 1;

	sigaltstack(&stack, NULL);
	handle(SIGUSR1, on_usr1, 0);
	handle(SIGUSR2, on_usr2, SA_ONSTACK);
	handle(SIGHUP, on_both, 0);
	handle(SIGWINCH, on_jump, 0);
	handle(SIGALRM, on_tick, 0);
	handle(SIGVTALRM, on_alt_tick, SA_ONSTACK);
	truth_begin(argc, argv);
	for (long i = 0; i < rounds; i++) {
		sink += (unsigned)raise_outer((int)i);
		sink += (unsigned)jump_outer((int)i);
	}
	every(ITIMER_REAL, 700);
	every(ITIMER_VIRTUAL, 1100);
	while (ticks < wanted || alt_ticks < wanted / 4)
		sink = spin_outer(sink);
	every(ITIMER_REAL, 0);
	every(ITIMER_VIRTUAL, 0);
	return truth_end("");
}
