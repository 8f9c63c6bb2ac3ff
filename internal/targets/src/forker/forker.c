/* SPDX-License-Identifier: Apache-2.0 */
/* Children of fork and vfork, exec of itself, and threads and processes that
 * end inside a call. --children N
 *
 * Everything counts into one shared table, so the truth is that of the whole
 * family. Frames that a child inherits through fork and returns from are not
 * counted twice: only the process that made a call counts its return. */
#define TRUTH_FUNCTIONS(X)                                            \
	X(spawn_child) X(child_work) X(child_leaf) X(child_ends)      \
	X(fork_outer) X(fork_inner) X(after_fork)                     \
	X(run_exec) X(before_exec) X(exec_work) X(exec_leaf)          \
	X(replace_outer) X(replace_inner)                             \
	X(thread_main) X(thread_inner) X(thread_ends)
#include "truth.h"
#include <errno.h>
#include <sys/wait.h>

extern char **environ;

static void wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			_exit(4);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "forker: child %d: status %#x\n", (int)pid, status);
		_exit(5);
	}
}

TRACED int child_leaf(int n)
{
	ENTER(child_leaf);
	LEAVE();
	return n + 1;
}

/* n + 1 leaves */
TRACED int child_work(int n)
{
	ENTER(child_work);
	int sum = 0;
	for (int i = 0; i <= n; i++)
		sum += child_leaf(i);
	LEAVE();
	return sum;
}

/* ends the process while it runs */
TRACED void child_ends(int n)
{
	ENTER(child_ends);
	if (n >= 0)
		_exit(0);
	LEAVE();
}

/* a child that works, has a child of its own, and ends inside a call */
TRACED void spawn_child(int n)
{
	ENTER(spawn_child);
	pid_t pid = fork();
	if (pid == 0) {
		child_work(n);
		pid_t grandchild = fork();
		if (grandchild == 0) {
			child_work(1);
			_exit(0);
		}
		wait_for(grandchild);
		child_ends(n);
	}
	wait_for(pid);
	LEAVE();
}

static pid_t forked;

/* both processes return from it and from its caller */
TRACED int fork_inner(int n)
{
	ENTER(fork_inner);
	static struct truth_table scratch;
	forked = fork();
	if (forked == 0)
		truth_table = &scratch;
	LEAVE();
	return n;
}

TRACED int fork_outer(int n)
{
	ENTER(fork_outer);
	n = fork_inner(n) + 1;
	LEAVE();
	return n;
}

TRACED int after_fork(int n)
{
	ENTER(after_fork);
	LEAVE();
	return n * 2;
}

TRACED int exec_leaf(int n)
{
	ENTER(exec_leaf);
	LEAVE();
	return n - 1;
}

/* what the executed program does: three leaves */
TRACED int exec_work(int n)
{
	ENTER(exec_work);
	n = exec_leaf(exec_leaf(exec_leaf(n)));
	LEAVE();
	return n;
}

static void exec_self(void)
{
	char *arguments[] = {"forker", "--exec-child", NULL};

	execve("/proc/self/exe", arguments, environ);
	_exit(127);
}

/* called in the child of vfork, on the parent's stack */
TRACED int before_exec(int n)
{
	ENTER(before_exec);
	LEAVE();
	return n;
}

TRACED void run_exec(int n)
{
	ENTER(run_exec);
	pid_t pid = vfork();
	if (pid == 0) {
		before_exec(n);
		exec_self();
	}
	wait_for(pid);
	LEAVE();
}

/* the program is replaced while two calls run */
TRACED int replace_inner(int n)
{
	ENTER(replace_inner);
	if (n >= 0)
		exec_self();
	LEAVE();
	return n;
}

TRACED int replace_outer(int n)
{
	ENTER(replace_outer);
	n = replace_inner(n) + 1;
	LEAVE();
	return n;
}

/* the thread ends while three calls run */
TRACED int thread_ends(int n)
{
	ENTER(thread_ends);
	if (n >= 0)
		pthread_exit(NULL);
	LEAVE();
	return n;
}

TRACED int thread_inner(int n)
{
	ENTER(thread_inner);
	n = thread_ends(n) + child_leaf(n);
	LEAVE();
	return n;
}

TRACED void *thread_main(void *argument)
{
	ENTER(thread_main);
	volatile int value = child_leaf(*(int *)argument);
	value += thread_inner(value);
	LEAVE();
	return NULL;
}

int main(int argc, char **argv)
{
	int children = (int)truth_arg(argc, argv, "--children", 10);

	truth_open(1);
	if (truth_has(argc, argv, "--exec-child")) {
		exec_work(3);
		return 0;
	}
	truth_begin(argc, argv);
	for (int i = 0; i < children; i++) {
		spawn_child(i);
		run_exec(i);

		int value = fork_outer(i);
		if (forked == 0) {
			truth_open(1); /* the shared table again */
			after_fork(value);
			_exit(0);
		}
		wait_for(forked);

		pid_t pid = fork();
		if (pid == 0)
			_exit(replace_outer(i));
		wait_for(pid);

		pthread_t thread;
		if (pthread_create(&thread, NULL, thread_main, &i) != 0)
			return 4;
		pthread_join(thread, NULL);
	}
	return truth_end("");
}
