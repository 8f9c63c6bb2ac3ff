// SPDX-License-Identifier: Apache-2.0
// CPU time in known shares, below what C++ puts on a stack: virtual functions,
// templates, lambdas, std::function, algorithms, and exceptions that are thrown
// through it all. Endless; "values" as those of shares.c. --depth N
#define TRUTH_FUNCTIONS(X) X(seventy, "work::Heavy::run") X(twenty, "work::Light::run") X(ten, "work::generic<int>")
#define TRUTH_NO_RETURNS
#define TRUTH_NO_DEPTH
#define TRUTH_NO_TREE
#include "truth.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

static unsigned long spent[T_count];
static volatile unsigned long sink;

TRUTH_INLINE unsigned long cpu_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return static_cast<unsigned long>(now.tv_sec) * 1000000000 + static_cast<unsigned long>(now.tv_nsec);
}

TRUTH_INLINE void spin(int id, int units)
{
	unsigned long began = cpu_ns(CLOCK_THREAD_CPUTIME_ID);

	truth_local[id]++;
	for (int i = 0; i < units * 4000; i++)
		sink = sink + static_cast<unsigned long>(i) * i;
	spent[id] += cpu_ns(CLOCK_THREAD_CPUTIME_ID) - began;
}

namespace work {
struct Task {
	virtual ~Task() = default;
	virtual void run() = 0;
};
struct Heavy : Task {
	TRACED void run() override { spin(T_seventy, 70); }
};
struct Light : Task {
	TRACED void run() override { spin(T_twenty, 20); }
};
template <typename T> TRACED void generic(T)
{
	spin(T_ten, 10);
}
} // namespace work

TRACED static void thrower(int n)
{
	if (n > 0) {
		thrower(n - 1);
		sink = sink + 1;
		return;
	}
	throw std::runtime_error("as planned");
}

TRACED static void round_of_work(std::vector<std::unique_ptr<work::Task>> &tasks)
{
	std::function<void(int)> last = [](int n) { work::generic<int>(n); };

	std::for_each(tasks.begin(), tasks.end(), [](auto &task) { task->run(); });
	last(1);
	try {
		thrower(10);
	} catch (const std::exception &e) {
		sink = sink + (e.what()[0] == 'a');
	}
}

TRACED static long descend(long levels, std::vector<std::unique_ptr<work::Task>> &tasks)
{
	if (levels > 0) {
		long below = descend(levels - 1, tasks);
		sink = sink + 1;
		return below + 1;
	}
	while (!truth_stopped)
		round_of_work(tasks);
	return 0;
}

int main(int argc, char **argv)
{
	std::vector<std::unique_ptr<work::Task>> tasks;
	char extra[256];

	tasks.push_back(std::make_unique<work::Heavy>());
	tasks.push_back(std::make_unique<work::Light>());
	truth_begin(argc, argv);
	unsigned long before = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
	truth_endless();
	descend(truth_arg(argc, argv, "--depth", 0), tasks);
	truth_merge();
	snprintf(extra, sizeof(extra), ",\"values\":{\"seventy\":%lu,\"twenty\":%lu,\"ten\":%lu,\"all\":%lu}",
		 spent[T_seventy], spent[T_twenty], spent[T_ten], cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - before);
	truth_print(extra);
	truth_stay();
	return 0;
}
