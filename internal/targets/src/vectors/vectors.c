/* SPDX-License-Identifier: Apache-2.0 */
/* Functions that begin with vector instructions whose opcode byte the kernel
 * mistakes for another instruction's. Each is called --rounds N times and checks
 * its result: "values" has "failures", and "kinds", how many of the functions the
 * processor could execute. */
#define TRUTH_NO_RETURNS
#define TRUTH_NO_DEPTH
#define TRUTH_NO_TREE
#define AVX_FUNCTIONS(X)                                                      \
	X(v_por) X(v_compare) X(v_store) X(v_to_general) X(v_shuffle)         \
	X(v_broadcast) X(v_fused) X(v_upper) X(v_xor)
#define EVEX_FUNCTIONS(X) X(v_broadcast_evex)
#define TRUTH_FUNCTIONS(X) X(scalar) AVX_FUNCTIONS(X) EVEX_FUNCTIONS(X)
#include "truth.h"

/* Each instruction, then the count, then the result as the ABI has it. */
#define FUNCTION(name, first, result)                                          \
	unsigned long asm_calls_##name;                                        \
	__asm__(".pushsection .text\n.balign 16\n.globl " #name "\n.type " #name            \
		", @function\n" #name ":\n\t" first                             \
		"\n\tincq asm_calls_" #name "(%rip)\n\t" result                 \
		"\n\tret\n.size " #name ", .-" #name "\n.popsection");

FUNCTION(v_por, "vpor %xmm1, %xmm0, %xmm0", "vmovq %xmm0, %rax")                       /* eb: jmp */
FUNCTION(v_compare, "vcmpltsd %xmm1, %xmm0, %xmm0", "vmovq %xmm0, %rax")               /* c2: ret */
FUNCTION(v_store, "vmovdqu %xmm1, (%rdi)", "mov (%rdi), %rax")                         /* 7f: jg */
FUNCTION(v_to_general, "vmovd %xmm0, %eax", "")                                        /* 7e: jle */
FUNCTION(v_shuffle, "vpshufd $0xe1, %xmm0, %xmm0", "vmovq %xmm0, %rax")                /* 70: jo, with a distance */
FUNCTION(v_broadcast, "vpbroadcastb %xmm0, %xmm0", "vmovq %xmm0, %rax")                /* 78: js */
FUNCTION(v_fused, "vfnmadd213sd %xmm2, %xmm1, %xmm0", "vmovq %xmm0, %rax")             /* 9d: popf */
FUNCTION(v_upper, "vzeroupper", "vmovq %xmm0, %rax")                                   /* 77: ja */
FUNCTION(v_xor, "vxorps %xmm0, %xmm0, %xmm0", "vmovq %xmm0, %rax")                     /* 57: push */
FUNCTION(v_broadcast_evex, "vpbroadcastb %esi, %xmm16", "vmovdqu64 %xmm16, (%rdi)\n\tmov (%rdi), %rax") /* 7a: jp */

#define DECLARE(name) unsigned long name(unsigned long *memory, unsigned long byte, double a, double b, double c);
AVX_FUNCTIONS(DECLARE)
EVEX_FUNCTIONS(DECLARE)

static unsigned long failures;

TRACED unsigned long scalar(unsigned long n)
{
	TICK(scalar);
	return n + 1;
}

static unsigned long bits(double value)
{
	unsigned long b;

	memcpy(&b, &value, sizeof(b));
	return b;
}

static void check(const char *name, unsigned long got, unsigned long want)
{
	if (got == want)
		return;
	if (!failures++)
		fprintf(stderr, "%s gives %lx, want %lx\n", name, got, want);
}
#define CHECK(name, byte, a, b, c, want) check(#name, name(memory, byte, a, b, c), want)

static void avx_round(unsigned long n)
{
	unsigned long memory[8] = {0};
	double a = (double)n + 0.25, b = 7.5, c = 1000;
	unsigned long x = bits(a);

	CHECK(v_por, 0, a, b, c, x | bits(b));
	CHECK(v_compare, 0, a, b, c, a < b ? ~0ul : 0);
	CHECK(v_store, 0, a, b, c, bits(b));
	CHECK(v_to_general, 0, a, b, c, x & 0xffffffff);
	CHECK(v_shuffle, 0, a, b, c, x >> 32 | x << 32);
	CHECK(v_broadcast, 0, a, b, c, (x & 0xff) * 0x0101010101010101ul);
	CHECK(v_fused, 0, a, b, c, bits(c - a * b));
	CHECK(v_upper, 0, a, b, c, x);
	CHECK(v_xor, 0, a, b, c, 0);
}

static void evex_round(unsigned long n)
{
	unsigned long memory[8] = {0};

	CHECK(v_broadcast_evex, n & 0xff, 0, 0, 0, (n & 0xff) * 0x0101010101010101ul);
}

int main(int argc, char **argv)
{
	long rounds = truth_arg(argc, argv, "--rounds", 100);
	int avx, evex, kinds = 0;
	char extra[128];

	__builtin_cpu_init();
	avx = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
	evex = avx && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
	truth_begin(argc, argv);
	for (unsigned long n = 0; n < (unsigned long)rounds; n++) {
		scalar(n);
		if (avx)
			avx_round(n);
		if (evex)
			evex_round(n);
	}
	truth_merge();
#define COLLECT(name)                                             \
	truth_table->calls[T_##name] = asm_calls_##name;          \
	kinds += asm_calls_##name != 0;
	AVX_FUNCTIONS(COLLECT)
	EVEX_FUNCTIONS(COLLECT)
	snprintf(extra, sizeof(extra), ",\"values\":{\"failures\":%lu,\"kinds\":%d}", failures, kinds);
	return truth_end(extra);
}
