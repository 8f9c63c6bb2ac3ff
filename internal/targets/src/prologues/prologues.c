/* SPDX-License-Identifier: Apache-2.0 */
/* Many functions that differ in their first instructions and in their shape,
 * assembly ones (asm.S) and what compilers make. --rounds N
 *
 * Each is called with the arguments 0 .. N-1; "values" has the sum of its first
 * arguments ("arg0 NAME") and of its results ("ret NAME"). */
#define TRUTH_NO_RETURNS
#define TRUTH_NO_DEPTH
#define TRUTH_NO_TREE
#include "functions.h"
#define TRUTH_FUNCTIONS(X) \
	ASM_COUNTED(X) X(ret_only) X(jmp_only) X(endbr_ret) C_COUNTED(X) X(cold_path) X(c_step)
#include "truth.h"

#define DECLARE(name)                  \
	unsigned long asm_calls_##name; \
	long name(long n);
ASM_COUNTED(DECLARE)
void ret_only(long n);
long jmp_only(long n);
void endbr_ret(long n);

static struct sums {
	long calls, arg0, ret;
} sums[T_count];

TRACED long c_plain(long n)
{
	TICK(c_plain);
	return n + 1;
}

/* begins with nops for patching */
__attribute__((patchable_function_entry(5))) TRACED long c_patchable(long n)
{
	TICK(c_patchable);
	return n + 1;
}

/* a jump table */
TRACED long c_switch(long n)
{
	TICK(c_switch);
	switch (n % 9) {
	case 0: return n + 1;
	case 1: return n * 3;
	case 2: return n ^ 21;
	case 3: return n << 2;
	case 4: return n - 40;
	case 5: return n / 7;
	case 6: return -n;
	case 7: return n | 64;
	}
	return ~n;
}

TRACED long c_step(long n)
{
	TICK(c_step);
	return n + 1;
}

/* several returns, with calls between them */
TRACED long c_returns(long n)
{
	TICK(c_returns);
	if (n % 4 == 0)
		return 0;
	long value = c_step(n);
	if (n % 4 == 1)
		return value;
	value = c_step(value);
	if (n % 4 == 2)
		return value;
	return c_step(value) * 2;
}

__attribute__((cold)) TRACED long cold_path(long n)
{
	TICK(cold_path);
	return -n;
}

/* compilers move the unlikely part away, to c_cold.cold */
TRACED long c_cold(long n)
{
	TICK(c_cold);
	if (__builtin_expect(n < 0, 0)) {
		volatile long value = cold_path(n) + cold_path(n - 1);
		return value;
	}
	return n + 1;
}

/* as c_cold, and every call goes there and returns from there */
TRACED long c_cold_taken(long n)
{
	TICK(c_cold_taken);
	if (__builtin_expect(n >= 0, 0)) {
		volatile long value = cold_path(n) + cold_path(n + 1);
		return value;
	}
	return n;
}

/* a frame of several pages, probed page by page */
TRACED long c_large_frame(long n)
{
	volatile char room[20000];

	TICK(c_large_frame);
	room[0] = (char)n;
	room[sizeof(room) - 1] = (char)(n + 1);
	return room[0] + room[sizeof(room) - 1];
}

TRACED long c_many_args(long a, long b, long c, long d, long e, long f, long g, long h)
{
	TICK(c_many_args);
	return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h;
}

struct large {
	long value[8];
};

/* returned in memory: rdi is a hidden argument */
TRACED struct large c_struct(long n)
{
	struct large result = {{n, n + 1, n + 2}};

	TICK(c_struct);
	return result;
}

/* saves the vector registers behind a branch on al */
TRACED long c_vararg(long n, ...)
{
	va_list args;

	TICK(c_vararg);
	va_start(args, n);
	n += va_arg(args, long) + (long)va_arg(args, double);
	va_end(args);
	return n;
}

/* a local symbol */
__attribute__((noinline)) static long c_static(long n)
{
	TICK(c_static);
	__asm__ volatile("" : "+r"(n));
	return n + 1;
}

/* aligns its frame: begins with a lea of rsp */
TRACED long c_realigned(long n)
{
	__attribute__((aligned(64))) volatile long line[8];

	TICK(c_realigned);
	line[n & 7] = n;
	return line[n & 7] + ((unsigned long)line & 63);
}

TRUTH_INLINE void note(int id, long arg0, long ret)
{
	sums[id].calls++;
	sums[id].arg0 += arg0;
	sums[id].ret += ret;
}

#define CALL(name) note(T_##name, n, name(n));

static void round_of_calls(long n)
{
	struct large large;

	ASM_COUNTED(CALL)
	ret_only(n);
	TICK(ret_only);
	note(T_ret_only, n, 0);
	endbr_ret(n);
	TICK(endbr_ret);
	note(T_endbr_ret, n, 0);
	CALL(jmp_only)
	TICK(jmp_only);
	note(T_push_first, n, n + 1);  /* where it jumped */
	note(T_fallen_into, n, n + 1); /* where fall_into went on */
	CALL(c_plain)
	CALL(c_patchable)
	CALL(c_switch)
	CALL(c_returns)
	CALL(c_cold)
	CALL(c_cold_taken)
	CALL(c_large_frame)
	CALL(c_static)
	CALL(c_realigned)
	note(T_c_many_args, n, c_many_args(n, 1, 2, 3, 4, 5, 6, 7));
	large = c_struct(n);
	note(T_c_struct, 0, large.value[1]);
	note(T_c_vararg, n, c_vararg(n, 5l, 2.5));
}

int main(int argc, char **argv)
{
	long rounds = truth_arg(argc, argv, "--rounds", 100);
	char *extra = malloc((size_t)T_count * 128);
	int length = 0;

	if (!extra)
		return 4;
	truth_begin(argc, argv);
	for (long n = 0; n < rounds; n++)
		round_of_calls(n);
	truth_merge();
#define COLLECT(name) truth_table->calls[T_##name] = asm_calls_##name;
	ASM_COUNTED(COLLECT)
	length = sprintf(extra, ",\"values\":{");
	for (int i = T_root + 1; i < T_count; i++) {
		if (sums[i].calls == 0)
			continue;
		length += sprintf(extra + length, "%s\"arg0 %s\":%ld,\"ret %s\":%ld", i > 1 ? "," : "",
				  truth_names[i], sums[i].arg0, truth_names[i], sums[i].ret);
	}
	sprintf(extra + length, "}");
	return truth_end(extra);
}
