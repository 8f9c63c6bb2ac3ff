/* SPDX-License-Identifier: Apache-2.0 */
/* Recursion: direct, mutual and branching. --depth N --pair N --fib N */
#define TRUTH_FUNCTIONS(X) X(descend) X(is_even) X(is_odd) X(fib)
#include "truth.h"

TRACED int descend(int n)
{
	ENTER(descend);
	int depth = n <= 1 ? 1 : descend(n - 1) + 1;
	LEAVE();
	return depth;
}

TRACED int is_odd(int n);

TRACED int is_even(int n)
{
	ENTER(is_even);
	int yes = n == 0 ? 1 : is_odd(n - 1);
	LEAVE();
	return yes;
}

TRACED int is_odd(int n)
{
	ENTER(is_odd);
	int yes = n == 0 ? 0 : is_even(n - 1);
	LEAVE();
	return yes;
}

TRACED int fib(int n)
{
	ENTER(fib);
	int value = n < 2 ? n : fib(n - 1) + fib(n - 2);
	LEAVE();
	return value;
}

int main(int argc, char **argv)
{
	int depth = (int)truth_arg(argc, argv, "--depth", 1500);
	int pair = (int)truth_arg(argc, argv, "--pair", 999);
	int n = (int)truth_arg(argc, argv, "--fib", 15);
	int a, b, c;
	char extra[96];

	truth_begin(argc, argv);
	a = descend(depth);
	b = is_even(pair);
	c = fib(n);
	snprintf(extra, sizeof(extra), ",\"values\":{\"descend\":%d,\"is_even\":%d,\"fib\":%d}", a, b, c);
	return truth_end(extra);
}
