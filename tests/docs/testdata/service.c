/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the documentation's commands call ./server and ./import. As a server it
 * handles made-up requests until a signal ends it; as import it parses the lines
 * of a file.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
	(void)number;
	ended = 1;
}

static void pause_for(long milliseconds)
{
	struct timespec time = {0, milliseconds * 1000000};

	nanosleep(&time, NULL);
}

__attribute__((noinline)) int parse_field(const char *text)
{
	int sum = 0;

	while (*text && *text != ',')
		sum += *text++;
	return sum;
}

__attribute__((noinline)) int parse_line(const char *line)
{
	int sum = 0;

	for (const char *at = line; at; at = strchr(at, ',')) {
		at += *at == ',';
		sum += parse_field(at);
	}
	pause_for(1);
	return sum;
}

__attribute__((noinline)) void handle_ping(void) { pause_for(5); }

__attribute__((noinline)) void handle_request(int number)
{
	char line[64];

	snprintf(line, sizeof(line), "%d,GET,/", number);
	parse_line(line);
	pause_for(10);
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	char line[256];

	if (!strcmp(slash ? slash + 1 : argv[0], "import")) {
		FILE *file = argc > 1 ? fopen(argv[1], "r") : NULL;

		if (!file) {
			fprintf(stderr, "import: no file\n");
			return 1;
		}
		while (fgets(line, sizeof(line), file))
			parse_line(line);
		return 0;
	}
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	for (int i = 0; !ended; i++) {
		handle_request(i);
		if (i % 8 == 0)
			handle_ping();
	}
	return 0;
}
