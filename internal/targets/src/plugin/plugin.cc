// SPDX-License-Identifier: Apache-2.0
// A program without exceptions that loads a plug-in with them, which throws
// through the program's frames. --rounds N; with --step "LOADED" is printed after
// the load and another "go" awaited, so that a tracer can take notice.
#include "functions.h"
#include "truth.h"
#include <dlfcn.h>

typedef int callee(int);

// called by the plug-in, calls it back, is left by an exception if n is odd
TRACED int host_callback(int n, callee *thrower)
{
	ENTER(host_callback);
	n = thrower(n) + 1;
	LEAVE();
	return n;
}

TRACED int host_round(int (*run)(int, int (*)(int, callee *)), int n)
{
	ENTER(host_round);
	int sum = 0;
	for (int i = 0; i < n; i++)
		sum += run(i, host_callback);
	LEAVE();
	return sum;
}

// before the plug-in is there
TRACED int host_start(int n)
{
	ENTER(host_start);
	LEAVE();
	return n;
}

int main(int argc, char **argv)
{
	int rounds = (int)truth_arg(argc, argv, "--rounds", 10);
	char path[4096], line[16];
	volatile int sink = 0;

	truth_begin(argc, argv);
	for (int i = 0; i < rounds; i++)
		sink = sink + host_start(i);
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 64);
	if (length < 0)
		return 4;
	path[length] = 0;
	strcpy(strrchr(path, '/') + 1, "libraise.so");
	void *library = dlopen(path, RTLD_NOW);
	if (!library) {
		fprintf(stderr, "dlopen: %s\n", dlerror());
		return 4;
	}
	if (truth_has(argc, argv, "--step")) {
		truth_say("LOADED libraise.so\n");
		if (!truth_line(line, sizeof(line)) || strcmp(line, "go") != 0)
			return 3;
	}
	auto run = (int (*)(int, int (*)(int, callee *)))dlsym(library, "plug_catch");
	sink = sink + host_round(run, rounds);
	return truth_end("");
}
