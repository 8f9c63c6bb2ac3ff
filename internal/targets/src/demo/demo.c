/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small service to look at: two workers take requests from a queue, parse
 * them, check who asks, query a pretended database and render an answer. Most
 * requests take microseconds; some read a slow page or make a report.
 *
 *     demo [--requests N] [--seed S] [--pause MICROSECONDS]
 *
 * runs until SIGTERM or SIGINT, or for N requests. What a request does depends on
 * the seed and its number alone. With --wait it follows the protocol of truth.h;
 * with --auto it prints its truth at the end instead of a summary.
 */
#define TRUTH_FUNCTIONS(X)                                            \
	X(handle_request)                                             \
	X(parse) X(read_line) X(parse_header)                         \
	X(auth) X(find_session) X(check_token)                        \
	X(db_query) X(plan) X(fetch_row) X(read_page) X(sort_rows)    \
	X(render) X(escape) X(write_body) X(render_error) X(log_line)
#include "truth.h"
#include <errno.h>

enum { WORKERS = 2, QUEUE = 16, MAX_ROWS = 8, TEXT = 256 };

enum kind { DENIED, MISSING, REPORT, PAGE };

struct request {
	unsigned long number, dice;
	char line[TEXT];
	int headers;
	enum kind kind;
	char user[16];
};

struct row {
	unsigned long key;
	char name[32];
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t filled, emptied;
	unsigned long numbers[QUEUE], head, tail;
	int closed;
} queue = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, {0}, 0, 0, 0};

static unsigned long seed, served, denied, missing;

/* splitmix64 */
TRUTH_INLINE unsigned long dice(unsigned long x)
{
	x += 0x9e3779b97f4a7c15ul;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ul;
	x = (x ^ x >> 27) * 0x94d049bb133111ebul;
	return x ^ x >> 31;
}

TRUTH_INLINE void pause_for(long microseconds)
{
	struct timespec left = {microseconds / 1000000, microseconds % 1000000 * 1000};

	while (nanosleep(&left, &left) != 0 && errno == EINTR && !truth_stopped)
		;
}

TRACED int read_line(struct request *r)
{
	ENTER(read_line);
	int length = snprintf(r->line, sizeof(r->line), "GET /item/%lu HTTP/1.1", r->dice % 1000);
	LEAVE();
	return length;
}

TRACED unsigned long parse_header(struct request *r, int index)
{
	ENTER(parse_header);
	unsigned long sum = (unsigned long)index;
	for (const char *c = r->line; *c; c++)
		sum = sum * 31 + (unsigned char)*c;
	LEAVE();
	return sum;
}

TRACED int parse(struct request *r)
{
	ENTER(parse);
	int length = read_line(r);
	r->headers = 2 + (int)(r->dice % 3);
	for (int i = 0; i < r->headers; i++)
		r->dice += 0 * parse_header(r, i);
	switch (r->dice >> 8 & 15) {
	case 0:
		r->kind = DENIED;
		break;
	case 1:
		r->kind = MISSING;
		break;
	case 2:
		r->kind = REPORT;
		break;
	default:
		r->kind = PAGE;
	}
	LEAVE();
	return length;
}

TRACED int find_session(struct request *r)
{
	ENTER(find_session);
	int found = snprintf(r->user, sizeof(r->user), "user%lu", r->dice % 100);
	LEAVE();
	return found;
}

TRACED int check_token(const struct request *r)
{
	ENTER(check_token);
	unsigned long hash = r->dice;
	for (int i = 0; i < 2000; i++) /* as a key derivation would */
		hash = dice(hash);
	int good = hash != 0 && r->kind != DENIED;
	LEAVE();
	return good;
}

TRACED int auth(struct request *r)
{
	ENTER(auth);
	int good = find_session(r) > 0 && check_token(r);
	LEAVE();
	return good;
}

/* one page in eight is not in memory */
TRACED void read_page(const struct request *r, int index)
{
	ENTER(read_page);
	if ((r->dice >> (24 + index) & 7) == 0)
		pause_for(2000 + (long)(r->dice >> 40 & 4095));
	LEAVE();
}

TRACED void fetch_row(const struct request *r, struct row *row, int index)
{
	ENTER(fetch_row);
	read_page(r, index);
	row->key = dice(r->dice + (unsigned long)index);
	snprintf(row->name, sizeof(row->name), "item <%lu>", row->key % 100000);
	LEAVE();
}

TRACED int plan(const struct request *r)
{
	ENTER(plan);
	int rows = r->kind == MISSING ? 0 : r->kind == REPORT ? MAX_ROWS : 2 + (int)(r->dice >> 16 & 1);
	LEAVE();
	return rows;
}

TRACED void sort_rows(struct row *rows, int n)
{
	ENTER(sort_rows);
	for (int i = 1; i < n; i++)
		for (int j = i; j > 0 && rows[j].key < rows[j - 1].key; j--) {
			struct row row = rows[j];
			rows[j] = rows[j - 1];
			rows[j - 1] = row;
		}
	LEAVE();
}

TRACED int db_query(const struct request *r, struct row *rows)
{
	ENTER(db_query);
	int n = plan(r);
	for (int i = 0; i < n; i++)
		fetch_row(r, &rows[i], i);
	if (n > 1)
		sort_rows(rows, n);
	LEAVE();
	return n;
}

TRACED int escape(char *to, const char *from)
{
	ENTER(escape);
	char *start = to;
	for (; *from; from++)
		to = *from == '<' ? stpcpy(to, "&lt;") : *from == '>' ? stpcpy(to, "&gt;") : (*to = *from, to + 1);
	LEAVE();
	return (int)(to - start);
}

TRACED int write_body(const struct request *r, int length)
{
	ENTER(write_body);
	if (r->kind == REPORT) /* a slow client */
		pause_for(6000);
	LEAVE();
	return length;
}

TRACED int render(const struct request *r, const struct row *rows, int n)
{
	ENTER(render);
	char page[MAX_ROWS * 64];
	int length = 0;
	for (int i = 0; i < n; i++)
		length += escape(page + length, rows[i].name);
	length = write_body(r, length);
	LEAVE();
	return length;
}

TRACED int render_error(const struct request *r, int status)
{
	ENTER(render_error);
	int length = (int)strlen(r->line) + status;
	LEAVE();
	return length;
}

TRACED int log_line(const struct request *r, int status)
{
	ENTER(log_line);
	char line[TEXT * 2];
	int length = snprintf(line, sizeof(line), "%lu %s \"%s\" %d", r->number, r->user, r->line, status);
	LEAVE();
	return length;
}

TRACED int handle_request(struct request *r)
{
	ENTER(handle_request);
	struct row rows[MAX_ROWS];
	int status = 200, n;

	parse(r);
	if (!auth(r)) {
		status = 403;
		render_error(r, status);
	} else if ((n = db_query(r, rows)) == 0) {
		status = 404;
		render_error(r, status);
	} else {
		render(r, rows, n);
	}
	log_line(r, status);
	LEAVE();
	return status;
}

/* takes a number from the queue; 0 when it is closed and empty */
TRUTH_INLINE unsigned long take(void)
{
	unsigned long number = 0;

	pthread_mutex_lock(&queue.lock);
	while (queue.head == queue.tail && !queue.closed)
		pthread_cond_wait(&queue.filled, &queue.lock);
	if (queue.head != queue.tail) {
		number = queue.numbers[queue.head++ % QUEUE];
		pthread_cond_signal(&queue.emptied);
	}
	pthread_mutex_unlock(&queue.lock);
	return number;
}

TRUTH_INLINE void put(unsigned long number)
{
	pthread_mutex_lock(&queue.lock);
	while (queue.tail - queue.head == QUEUE)
		pthread_cond_wait(&queue.emptied, &queue.lock);
	queue.numbers[queue.tail++ % QUEUE] = number;
	pthread_cond_signal(&queue.filled);
	pthread_mutex_unlock(&queue.lock);
}

static void *worker(void *unused)
{
	unsigned long number;

	(void)unused;
	while ((number = take()) != 0) {
		struct request r = {.number = number, .dice = dice(seed * 1000003 + number)};
		int status = handle_request(&r);
		__atomic_fetch_add(status == 200 ? &served : status == 403 ? &denied : &missing, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long requests = (unsigned long)truth_arg(argc, argv, "--requests", 0);
	long pause = truth_arg(argc, argv, "--pause", 25000);
	int summary = !truth_has(argc, argv, "--auto") && !truth_has(argc, argv, "--wait");
	struct sigaction action;
	pthread_t workers[WORKERS];

	seed = (unsigned long)truth_arg(argc, argv, "--seed", 1);
	truth_auto = summary;
	truth_begin(argc, argv);
	truth_endless();
	sigaction(SIGTERM, NULL, &action);
	sigaction(SIGINT, &action, NULL);
	for (int i = 0; i < WORKERS; i++)
		if (pthread_create(&workers[i], NULL, worker, NULL) != 0)
			return 4;
	for (unsigned long number = 1; !truth_stopped && (requests == 0 || number <= requests); number++) {
		put(number);
		if (pause > 0)
			pause_for(pause);
	}
	pthread_mutex_lock(&queue.lock);
	queue.closed = 1;
	pthread_cond_broadcast(&queue.filled);
	pthread_mutex_unlock(&queue.lock);
	for (int i = 0; i < WORKERS; i++)
		pthread_join(workers[i], NULL);
	if (summary) {
		printf("%lu requests: %lu served, %lu denied, %lu not found\n", served + denied + missing, served,
		       denied, missing);
		return 0;
	}
	truth_print("");
	truth_stay();
	return 0;
}
