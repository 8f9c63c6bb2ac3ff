// SPDX-License-Identifier: Apache-2.0
// Exceptions through counted frames. --rounds N --threads N
//
// A frame that an exception leaves does not return. Destructors that run while
// an exception unwinds are called from the frame they belong to, so a Note keeps
// the state of its frame.
#define TRUTH_FUNCTIONS(X)                                                     \
	X(worker)                                                              \
	X(catch_through) X(frame5) X(frame4) X(frame3) X(frame2) X(frame1)     \
	X(after_catch) X(catch_rethrown) X(rethrow) X(in_handler)              \
	X(catch_cleaned) X(cleanup_outer) X(cleanup_inner)                     \
	X(note_new, "Note::Note") X(note_delete, "Note::~Note") X(note_leaf)   \
	X(catch_callback) X(c_each) X(callback) X(no_throw) X(carried)
#include "truth.h"

#include <exception>
#include <stdexcept>

static long rounds;

struct Failure : std::runtime_error {
	int code;
	explicit Failure(int code) : std::runtime_error("failure"), code(code) {}
};

TRACED int after_catch(int n)
{
	ENTER(after_catch);
	LEAVE();
	return n + 1;
}

// frameN calls frameN-1; frame1 throws unless n is even
TRACED int frame1(int n)
{
	ENTER(frame1);
	if (n % 2 != 0)
		throw Failure(n);
	LEAVE();
	return n;
}

#define FRAME(name, next)                \
	TRACED int name(int n)           \
	{                                \
		ENTER(name);             \
		int value = next(n) + 1; \
		LEAVE();                 \
		return value;            \
	}
FRAME(frame2, frame1)
FRAME(frame3, frame2)
FRAME(frame4, frame3)
FRAME(frame5, frame4)

// through 1 to 5 frames, each once with an exception and once without
TRACED int catch_through(int n)
{
	ENTER(catch_through);
	int (*const frames[])(int) = {frame1, frame2, frame3, frame4, frame5};
	const truth_state here = HERE();
	int sum = n;
	for (auto frame : frames) {
		for (int turn = 0; turn < 2; turn++) {
			try {
				sum += frame(turn + 1);
			} catch (const Failure &failure) {
				RESUME(here);
				sum += failure.code;
			}
			sum += after_catch(sum);
		}
	}
	LEAVE();
	return sum;
}

TRACED int in_handler(int n)
{
	ENTER(in_handler);
	LEAVE();
	return n;
}

TRACED int rethrow(int n)
{
	ENTER(rethrow);
	const truth_state here = HERE();
	try {
		n += frame3(1);
	} catch (const Failure &failure) {
		RESUME(here);
		in_handler(failure.code);
		throw;
	}
	LEAVE();
	return n;
}

TRACED int catch_rethrown(int n)
{
	ENTER(catch_rethrown);
	const truth_state here = HERE();
	try {
		n += rethrow(n);
	} catch (const std::exception &) {
		RESUME(here);
		n += after_catch(n);
	}
	LEAVE();
	return n;
}

TRACED int note_leaf(int n)
{
	ENTER(note_leaf);
	LEAVE();
	return n;
}

struct Note {
	truth_state frame;
	int n;

	TRACED explicit Note(int n);
	TRACED ~Note();
};

// the frame is the one that holds the Note
Note::Note(int n) : frame(HERE()), n(n)
{
	ENTER(note_new);
	LEAVE();
}

Note::~Note()
{
	RESUME(frame);
	ENTER(note_delete);
	note_leaf(n);
	LEAVE();
}

TRACED int cleanup_inner(int n)
{
	ENTER(cleanup_inner);
	{
		Note one(n), two(n + 1);
		n += frame2(n);
	}
	LEAVE();
	return n;
}

TRACED int cleanup_outer(int n)
{
	ENTER(cleanup_outer);
	{
		Note note(n);
		n += cleanup_inner(n);
	}
	LEAVE();
	return n;
}

// three destructors while an exception unwinds, then three without one
TRACED int catch_cleaned(int n)
{
	ENTER(catch_cleaned);
	const truth_state here = HERE();
	for (int turn = 1; turn <= 2; turn++) {
		try {
			n += cleanup_outer(turn);
		} catch (const Failure &) {
			RESUME(here);
		}
		n += after_catch(n);
	}
	LEAVE();
	return n;
}

// a C function between the thrower and the catcher
extern "C" TRACED void c_each(int n, int (*function)(int))
{
	ENTER(c_each);
	for (int i = 0; i < n; i++)
		function(i < n - 1 ? 2 : 1); // the last one throws
	LEAVE();
}

TRACED int callback(int n)
{
	ENTER(callback);
	n += frame2(n);
	LEAVE();
	return n;
}

TRACED int catch_callback(int n)
{
	ENTER(catch_callback);
	const truth_state here = HERE();
	try {
		c_each(4, callback);
	} catch (const Failure &failure) {
		RESUME(here);
		n += failure.code;
	}
	LEAVE();
	return n;
}

TRACED int no_throw(int n) noexcept
{
	ENTER(no_throw);
	const truth_state here = HERE();
	try {
		n += frame2(1);
	} catch (...) {
		RESUME(here);
		n += after_catch(n);
	}
	LEAVE();
	return n;
}

// keeps an exception and throws it again later
TRACED int carried(int n)
{
	ENTER(carried);
	const truth_state here = HERE();
	std::exception_ptr kept;
	try {
		frame3(1);
	} catch (...) {
		RESUME(here);
		kept = std::current_exception();
	}
	n += after_catch(n);
	try {
		std::rethrow_exception(kept);
	} catch (const Failure &failure) {
		n += failure.code;
	}
	LEAVE();
	return n;
}

TRACED void *worker(void *)
{
	ENTER(worker);
	volatile int sink;
	for (long i = 0; i < rounds; i++) {
		int n = static_cast<int>(i);
		sink = catch_through(n) + catch_rethrown(n) + catch_cleaned(n) + catch_callback(n) +
		       no_throw(n) + carried(n);
		(void)sink;
	}
	LEAVE();
	return nullptr;
}

int main(int argc, char **argv)
{
	enum { MAX_THREADS = 64 };
	long threads = truth_arg(argc, argv, "--threads", 4);
	pthread_t ids[MAX_THREADS];

	if (threads < 1 || threads > MAX_THREADS)
		return 2;
	rounds = truth_arg(argc, argv, "--rounds", 20);
	truth_begin(argc, argv);
	for (long i = 0; i < threads; i++)
		if (pthread_create(&ids[i], nullptr, worker, nullptr) != 0)
			return 4;
	for (long i = 0; i < threads; i++)
		pthread_join(ids[i], nullptr);
	return truth_end("");
}
