/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions whose prologues differ, called in a tight loop: what a probe costs
 * depends on the instruction under it. Usage: shapes FUNCTION; then commands on
 * stdin: a number of calls to make, answered with the ns they took; end of file
 * ends it. "spin SECONDS THREADS FUNCTION" calls as fast as it can and prints
 * how many calls were made.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* push %rbp is the first instruction: gcc -O0, clang, Go. */
__asm__(".text\n.globl push_first\n.type push_first,@function\npush_first:\n"
	"push %rbp\nmov %rsp,%rbp\nlea 1(%rdi),%rax\npop %rbp\nret\n.size push_first,.-push_first\n");
/* endbr64 first: gcc with -fcf-protection, the default of most distributions. */
__asm__(".text\n.globl endbr_push\n.type endbr_push,@function\nendbr_push:\n"
	"endbr64\npush %rbp\nmov %rsp,%rbp\nlea 1(%rdi),%rax\npop %rbp\nret\n.size endbr_push,.-endbr_push\n");
/* A move is scheduled before the first push: gcc -O2. */
__asm__(".text\n.globl mov_push\n.type mov_push,@function\nmov_push:\n"
	"mov %rdi,%rax\npush %rbx\nlea 1(%rax),%rax\npop %rbx\nret\n.size mov_push,.-mov_push\n");
/* A leaf without anything that the kernel emulates. */
__asm__(".text\n.globl leaf\n.type leaf,@function\nleaf:\n"
	"lea 1(%rdi),%rax\nret\n.size leaf,.-leaf\n");

long push_first(long), endbr_push(long), mov_push(long), leaf(long);

static const struct {
	const char *name;
	long (*f)(long);
} shapes[] = {{"push_first", push_first}, {"endbr_push", endbr_push}, {"mov_push", mov_push}, {"leaf", leaf}};

static long (*chosen)(long);
static volatile int stop;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void *spin(void *calls)
{
	long n = 0;
	while (!stop) {
		chosen(n);
		n++;
	}
	*(long *)calls = n;
	return NULL;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[argc - 1] : "";
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		if (!strcmp(shapes[i].name, name))
			chosen = shapes[i].f;
	if (!chosen)
		return fprintf(stderr, "usage: shapes [spin SECONDS THREADS] FUNCTION\n"), 2;
	printf("ready\n");
	fflush(stdout);
	char line[64];
	if (argc == 5) {
		int threads = atoi(argv[3]);
		pthread_t t[64];
		long calls[64] = {0}, sum = 0;
		if (!fgets(line, sizeof line, stdin))
			return 1;
		for (int i = 0; i < threads && i < 64; i++)
			pthread_create(&t[i], NULL, spin, &calls[i]);
		struct timespec d = {.tv_sec = atoi(argv[2])};
		nanosleep(&d, NULL);
		stop = 1;
		for (int i = 0; i < threads && i < 64; i++) {
			pthread_join(t[i], NULL);
			sum += calls[i];
		}
		printf("%ld\n", sum);
		return 0;
	}
	while (fgets(line, sizeof line, stdin)) {
		long n = atol(line);
		double from = now();
		for (long i = 0; i < n; i++)
			chosen(i);
		printf("%.0f\n", now() - from);
		fflush(stdout);
	}
	return 0;
}
