// Fires static probes whose argument values the test knows. The values come
// from argc so that no compiler can fold them: it is called with one argument.
#include <sys/sdt.h>

#define NOINLINE __attribute__((noinline))

static int g_int;
long g_array[8];
static struct {
	int x, y;
	short s;
} g_struct;
static double g_double;

NOINLINE void registers(int a, long b, unsigned char c, short d, unsigned e)
{
	DTRACE_PROBE5(demo, registers, a, b, c, d, e);
}

NOINLINE void constants(void)
{
	DTRACE_PROBE4(demo, constants, -5, 7UL, (unsigned char)200, (signed char)-3);
}

NOINLINE void globals(void)
{
	DTRACE_PROBE4(demo, globals, g_int, g_array[2], g_struct.y, g_struct.s);
}

NOINLINE void stack(long a, long b, long c, long d, long e, long f, long g, int h, signed char i)
{
	DTRACE_PROBE3(demo, stack, g, h, i);
}

NOINLINE void floats(double a, float b)
{
	DTRACE_PROBE3(demo, floats, a, b, g_double);
}

NOINLINE void pointers(const char *s, int *p)
{
	DTRACE_PROBE4(demo, pointers, s, *s, *p, p[2]);
}

// Operands that compilers write only when they must: legacy high bytes, and
// all parts of an address.
NOINLINE void handwritten(long n)
{
	__asm__ volatile(
		"990:	nop\n"
		"	.pushsection .note.stapsdt,\"\",\"note\"\n"
		"	.balign 4\n"
		"	.4byte 992f-991f, 994f-993f, 3\n"
		"991:	.asciz \"stapsdt\"\n"
		"992:	.balign 4\n"
		"993:	.8byte 990b, _.stapsdt.base, 0\n"
		"	.asciz \"demo\"\n"
		"	.asciz \"handwritten\"\n"
		"	.asciz \"1@%%ah -1@%%bh 8@-8(%%rdi,%%rcx,8) 2@(%%rdi, %%rcx, 8) 8@24(%%rdi) 8@g_array+16(%%rip)\"\n"
		"994:	.balign 4\n"
		"	.popsection\n"
		:: "a"(0x1234 * n), "b"(0xfe00 * n), "c"(3 * n), "D"(g_array) : "memory");
}

void guarded(int n);

int main(int argc, char **argv)
{
	int n = argc - 1; /* 1 */
	int numbers[3] = {n * 11, n * 22, n * -33};

	g_int = -n;
	for (int i = 0; i < 8; i++)
		g_array[i] = n * (1000000000000L + i);
	g_struct.y = n * 4711;
	g_struct.s = n * -2;
	g_double = n * 2.5;

	registers(-n, n * -2000000000000L, n * 250, n * -7, n * 4000000000U);
	constants();
	globals();
	stack(1, 2, 3, 4, 5, 6, n * -77L, n * -88, n * -99);
	floats(n * 1.5, n * -0.25f);
	pointers(argv[1], numbers);
	handwritten(n);
	guarded(n);
	return 0;
}
