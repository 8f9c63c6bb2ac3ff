/* SPDX-License-Identifier: Apache-2.0 */
/* Libraries that are loaded after the start, unloaded and loaded again.
 * --rounds N; with --step the program prints "LOADED <file>" after each load
 * and waits for another "go", so that a tracer can take notice. */
#include "functions.h"
#include "truth.h"
#include <dlfcn.h>

TRACED int host_callback(int n)
{
	ENTER(host_callback);
	LEAVE();
	return n + 1;
}

/* n calls of the plug-in */
TRACED int host_round(int (*run)(int, int (*)(int)), int n)
{
	ENTER(host_round);
	int sum = 0;
	for (int i = 0; i < n; i++)
		sum += run(i, host_callback);
	LEAVE();
	return sum;
}

static void *load(const char *file, int step)
{
	char path[4096], line[16];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 64);
	void *library;

	if (length < 0)
		exit(4);
	path[length] = 0;
	strcpy(strrchr(path, '/') + 1, file);
	library = dlopen(path, RTLD_NOW);
	if (!library) {
		fprintf(stderr, "dlopen: %s\n", dlerror());
		exit(4);
	}
	if (step) {
		truth_say("LOADED %s\n", file);
		if (!truth_line(line, sizeof(line)) || strcmp(line, "go") != 0)
			exit(3);
	}
	return library;
}

int main(int argc, char **argv)
{
	int rounds = (int)truth_arg(argc, argv, "--rounds", 3);
	int step = truth_has(argc, argv, "--step");
	volatile int sink = 0;

	truth_begin(argc, argv);
	for (int i = 0; i < rounds; i++) {
		void *plug = load("libplug.so", step), *other = NULL;
		sink += host_round((int (*)(int, int (*)(int)))dlsym(plug, "plug_run"), 10);
		if (i % 2 == 0) { /* the next load may get another address */
			other = load("libother.so", step);
			sink += host_round((int (*)(int, int (*)(int)))dlsym(other, "other_run"), 5);
		}
		dlclose(plug);
		if (other && i % 4 == 0)
			dlclose(other);
	}
	return truth_end("");
}
