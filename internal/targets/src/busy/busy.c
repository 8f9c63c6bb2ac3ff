/* SPDX-License-Identifier: Apache-2.0 */
/* An endless mix of small and large functions, as a load for benchmarks: text is
 * made, parsed, hashed, looked up, sorted and checked. --threads N --rounds N
 * (per thread, 0: until told to stop). Prints "RATE <calls per second>" once a
 * second and "elapsed_ns" among the values. */
#define TRUTH_NO_RETURNS
#define TRUTH_NO_DEPTH
#define TRUTH_NO_TREE
#define TRUTH_FUNCTIONS(X)                                            \
	X(handle) X(make_text) X(put_number) X(parse) X(next_char)    \
	X(is_digit) X(hash_bytes) X(mix) X(table_add) X(table_find)   \
	X(probe_slot) X(sort_values) X(less) X(swap_values)           \
	X(checksum) X(rotate) X(transform)
#include "truth.h"

enum { VALUES = 24, SLOTS = 256, MAX_THREADS = 64 };

struct worker {
	unsigned seed;
	unsigned long failures;
	unsigned long progress; /* calls so far, for the rate */
	char text[VALUES * 12];
	unsigned values[VALUES];
	unsigned slots[SLOTS];
};

static struct worker workers[MAX_THREADS];
static long rounds;
static unsigned long finished;

TRACED unsigned rotate(unsigned x, int by)
{
	TICK(rotate);
	return x << by | x >> (32 - by);
}

TRACED unsigned mix(unsigned hash, unsigned value)
{
	TICK(mix);
	return rotate(hash ^ value * 0xcc9e2d51u, 13) * 5 + 0xe6546b64u;
}

TRACED char *put_number(char *at, unsigned value)
{
	char digits[10];
	int n = 0;

	TICK(put_number);
	do {
		digits[n++] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	while (n)
		*at++ = digits[--n];
	*at++ = ' ';
	return at;
}

TRACED void make_text(struct worker *w)
{
	char *at = w->text;

	TICK(make_text);
	for (int i = 0; i < VALUES; i++) {
		w->seed = w->seed * 1664525u + 1013904223u;
		at = put_number(at, w->seed >> (i * 7 % 24));
	}
	*at = 0;
}

TRACED int is_digit(int c)
{
	TICK(is_digit);
	return c >= '0' && c <= '9';
}

TRACED int next_char(const char **at)
{
	TICK(next_char);
	return *(*at)++;
}

TRACED int parse(struct worker *w)
{
	const char *at = w->text;
	int n = 0;

	TICK(parse);
	for (int c = next_char(&at); c; c = next_char(&at)) {
		unsigned value = 0;
		for (; is_digit(c); c = next_char(&at))
			value = value * 10 + (unsigned)(c - '0');
		w->values[n++] = value;
	}
	return n;
}

TRACED unsigned hash_bytes(const unsigned *values, int n)
{
	unsigned hash = 2166136261u;

	TICK(hash_bytes);
	for (int i = 0; i < n; i++)
		hash = mix(hash, values[i]);
	return hash;
}

TRACED int probe_slot(const struct worker *w, unsigned slot, unsigned value)
{
	TICK(probe_slot);
	return w->slots[slot] == 0 || w->slots[slot] == value;
}

TRACED unsigned table_find(const struct worker *w, unsigned value)
{
	unsigned slot = value * 2654435761u % SLOTS;

	TICK(table_find);
	while (!probe_slot(w, slot, value))
		slot = (slot + 1) % SLOTS;
	return slot;
}

TRACED void table_add(struct worker *w, unsigned value)
{
	TICK(table_add);
	w->slots[table_find(w, value)] = value;
}

TRACED int less(unsigned a, unsigned b)
{
	TICK(less);
	return a < b;
}

TRACED void swap_values(unsigned *a, unsigned *b)
{
	unsigned c = *a;

	TICK(swap_values);
	*a = *b;
	*b = c;
}

TRACED void sort_values(unsigned *values, int n)
{
	TICK(sort_values);
	for (int i = 1; i < n; i++)
		for (int j = i; j > 0 && less(values[j], values[j - 1]); j--)
			swap_values(&values[j], &values[j - 1]);
}

TRACED unsigned long checksum(const unsigned *values, int n)
{
	unsigned long sum = 0;

	TICK(checksum);
	for (int i = 0; i < n; i++)
		sum += values[i];
	return sum;
}

/* large and without calls: some thousand instructions of arithmetic */
TRACED unsigned transform(unsigned *values, int n)
{
	unsigned acc = 1;

	TICK(transform);
	for (int turn = 0; turn < 16; turn++)
		for (int i = 0; i < n; i++) {
			acc ^= values[i] + (acc << 6) + (acc >> 2);
			acc *= 0x9e3779b1u;
		}
	return acc;
}

/* one round of everything; 0 if the results contradict each other */
TRACED int handle(struct worker *w)
{
	unsigned long sum;
	int n;

	TICK(handle);
	make_text(w);
	n = parse(w);
	if (n != VALUES)
		return 0;
	sum = checksum(w->values, n);
	memset(w->slots, 0, sizeof(w->slots));
	for (int i = 0; i < n; i++)
		table_add(w, w->values[i] | 1);
	w->seed ^= hash_bytes(w->values, n);
	sort_values(w->values, n);
	w->seed += transform(w->values, n);
	return sum == checksum(w->values, n) && w->values[0] <= w->values[n - 1];
}

static void *work(void *argument)
{
	struct worker *w = argument;
	unsigned long calls;

	for (long i = 0; !truth_stopped && (rounds == 0 || i < rounds); i++) {
		w->failures += !handle(w);
		calls = 0;
		for (int f = T_root + 1; f < T_count; f++)
			calls += truth_local[f];
		__atomic_store_n(&w->progress, calls, __ATOMIC_RELAXED);
	}
	truth_merge();
	__atomic_fetch_add(&finished, 1, __ATOMIC_RELEASE);
	return NULL;
}

int main(int argc, char **argv)
{
	long count = truth_arg(argc, argv, "--threads", 1);
	pthread_t threads[MAX_THREADS];
	unsigned long calls = 0, before = 0, failures = 0;
	double start, last, now;
	char extra[160];

	rounds = truth_arg(argc, argv, "--rounds", 0);
	if (count < 1 || count > MAX_THREADS)
		return 2;
	truth_begin(argc, argv);
	truth_endless();
	start = last = truth_seconds();
	for (long i = 0; i < count; i++) {
		workers[i].seed = (unsigned)i + 1;
		if (pthread_create(&threads[i], NULL, work, &workers[i]) != 0)
			return 4;
	}
	while (__atomic_load_n(&finished, __ATOMIC_ACQUIRE) < (unsigned long)count) {
		usleep(1000);
		now = truth_seconds();
		if (now - last < 1)
			continue;
		calls = 0;
		for (long i = 0; i < count; i++)
			calls += __atomic_load_n(&workers[i].progress, __ATOMIC_RELAXED);
		truth_say("RATE %.0f\n", (double)(calls - before) / (now - last));
		last = now;
		before = calls;
	}
	now = truth_seconds();
	for (long i = 0; i < count; i++) {
		pthread_join(threads[i], NULL);
		failures += workers[i].failures;
	}
	snprintf(extra, sizeof(extra), ",\"values\":{\"failures\":%lu,\"elapsed_ns\":%.0f}", failures,
		 (now - start) * 1e9);
	truth_print(extra);
	truth_stay();
	return failures != 0;
}
