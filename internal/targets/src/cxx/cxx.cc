// SPDX-License-Identifier: Apache-2.0
// What C++ makes of names: namespaces, overloads, templates, lambdas, operators,
// virtual functions, constructors, thunks. --rounds N
//
// Names are printed without parameters, unless functions differ in nothing else.
// Compilers name lambdas in their own ways.
#if defined(__clang__)
#define LAMBDA_TWICE "use_lambdas()::$_0::operator()"
#define LAMBDA_COUNTER "use_lambdas()::$_1::operator()"
#else
#define LAMBDA_TWICE "use_lambdas()::{lambda(int)#1}::operator()"
#define LAMBDA_COUNTER "use_lambdas()::{lambda()#2}::operator()"
#endif
#define TRUTH_FUNCTIONS(X)                                                        \
	X(round_of_calls, "round_of_calls")                                       \
	X(add_int, "math::add(int, int)")                                         \
	X(add_double, "math::add(double, double)")                                \
	X(add_text, "math::add(std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> > const&, char const*)") \
	X(deep, "math::detail::deep")                                             \
	X(hidden, "(anonymous namespace)::hidden")                                \
	X(twice_int, "math::twice<int>")                                          \
	X(twice_double, "math::twice<double>")                                    \
	X(power_3, "math::power<3>")                                              \
	X(power_2, "math::power<2>")                                              \
	X(power_1, "math::power<1>")                                              \
	X(box_get_int, "Box<int>::get")                                           \
	X(box_get_long, "Box<long>::get")                                         \
	X(box_map, "Box<int>::map<long>")                                         \
	X(widen, "widen")                                                         \
	X(vec_new, "Vec::Vec")                                                    \
	X(vec_delete, "Vec::~Vec")                                                \
	X(vec_index, "Vec::operator[]")                                           \
	X(vec_plus, "operator+")                                                  \
	X(vec_origin, "Vec::origin")                                              \
	X(circle_area, "Circle::area")                                            \
	X(square_area, "Square::area")                                            \
	X(both_first, "Both::first")                                              \
	X(both_second, "Both::second")                                            \
	X(both_thunk, "non-virtual thunk to Both::second(int)")                   \
	X(lambda_twice, LAMBDA_TWICE)                                             \
	X(lambda_counter, LAMBDA_COUNTER)                                         \
	X(use_lambdas, "use_lambdas")                                             \
	X(visit, "visit")                                                         \
	X(describe, "describe[abi:cxx11]")                                        \
	X(plain_c, "plain_c")
#include "truth.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace math {

TRACED int add(int a, int b)
{
	ENTER(add_int);
	LEAVE();
	return a + b;
}

TRACED double add(double a, double b)
{
	ENTER(add_double);
	LEAVE();
	return a + b;
}

TRACED int add(const std::string &a, const char *b)
{
	ENTER(add_text);
	int length = static_cast<int>(a.size() + __builtin_strlen(b));
	LEAVE();
	return length;
}

namespace detail {

TRACED int deep(unsigned long n)
{
	ENTER(deep);
	int value = add(static_cast<int>(n), 1);
	LEAVE();
	return value;
}

} // namespace detail

template <typename T> struct twice_id;
template <> struct twice_id<int> {
	static constexpr int id = T_twice_int;
};
template <> struct twice_id<double> {
	static constexpr int id = T_twice_double;
};

template <typename T> TRACED T twice(T value)
{
	const truth_state caller = truth_enter(twice_id<T>::id);
	T result = add(value, value);
	truth_leave(twice_id<T>::id, caller);
	return result;
}

// instances call each other down to 1
template <int N> TRACED int power(int base)
{
	constexpr int id = N == 3 ? T_power_3 : N == 2 ? T_power_2 : T_power_1;
	const truth_state caller = truth_enter(id);
	int result = base;
	if constexpr (N > 1)
		result *= power<N - 1>(base);
	truth_leave(id, caller);
	return result;
}

} // namespace math

namespace {

TRACED int hidden(int n)
{
	ENTER(hidden);
	int value = math::detail::deep(static_cast<unsigned long>(n));
	LEAVE();
	return value;
}

} // namespace

template <typename T> struct Box {
	T value;

	TRACED T get() const
	{
		constexpr int id = sizeof(T) == sizeof(int) ? T_box_get_int : T_box_get_long;
		const truth_state caller = truth_enter(id);
		truth_leave(id, caller);
		return value;
	}

	template <typename U> TRACED Box<U> map(U (*function)(T)) const
	{
		ENTER(box_map);
		Box<U> result{function(get())};
		LEAVE();
		return result;
	}
};

TRACED long widen(int n)
{
	ENTER(widen);
	LEAVE();
	return n + 1L;
}

struct Vec {
	int x, y;

	TRACED Vec(int x, int y) : x(x), y(y)
	{
		ENTER(vec_new);
		LEAVE();
	}
	TRACED ~Vec()
	{
		ENTER(vec_delete);
		LEAVE();
	}
	TRACED int operator[](int i) const
	{
		ENTER(vec_index);
		LEAVE();
		return i == 0 ? x : y;
	}
	TRACED static Vec origin()
	{
		ENTER(vec_origin);
		Vec result(0, 0);
		LEAVE();
		return result;
	}
};

TRACED Vec operator+(const Vec &a, const Vec &b)
{
	ENTER(vec_plus);
	Vec result(a[0] + b[0], a[1] + b[1]);
	LEAVE();
	return result;
}

struct Shape {
	virtual ~Shape() = default;
	virtual int area(int scale) const = 0;
};

struct Circle final : Shape {
	TRACED int area(int scale) const override
	{
		ENTER(circle_area);
		LEAVE();
		return 3 * scale * scale;
	}
};

struct Square final : Shape {
	TRACED int area(int scale) const override
	{
		ENTER(square_area);
		int value = math::add(scale * scale, 0);
		LEAVE();
		return value;
	}
};

struct First {
	long padding = 0;
	virtual ~First() = default;
	virtual int first(int n) = 0;
};

struct Second {
	long padding = 0;
	virtual ~Second() = default;
	virtual int second(int n) = 0;
};

struct Both : First, Second {
	TRACED int first(int n) override;
	TRACED int second(int n) override;
};

TRACED int Both::first(int n)
{
	ENTER(both_first);
	LEAVE();
	return n + 1;
}

TRACED int Both::second(int n)
{
	ENTER(both_second);
	LEAVE();
	return n + 2;
}

TRACED int visit(int n, const std::function<int(int)> &function)
{
	ENTER(visit);
	int sum = 0;
	for (int i = 0; i < n; i++)
		sum += function(i);
	LEAVE();
	return sum;
}

TRACED int use_lambdas(int n)
{
	ENTER(use_lambdas);
	auto twice = [n](int x) TRACED {
		ENTER(lambda_twice);
		LEAVE();
		return x * 2 + n;
	};
	int calls = 0;
	auto counter = [&calls]() TRACED {
		ENTER(lambda_counter);
		calls++;
		LEAVE();
	};
	int sum = visit(4, twice);
	for (int i = 0; i < 3; i++)
		counter();
	LEAVE();
	return sum + calls;
}

TRACED std::string describe(int n)
{
	ENTER(describe);
	std::string text(static_cast<size_t>(n % 40), 'x'); // short ones in place, long ones on the heap
	LEAVE();
	return text;
}

extern "C" TRACED int plain_c(int n)
{
	ENTER(plain_c);
	LEAVE();
	return n + 1;
}

// hides from the compiler which class an object has
template <typename T> T *opaque(T *object)
{
	__asm__ volatile("" : "+r"(object));
	return object;
}

TRACED int round_of_calls(int n)
{
	ENTER(round_of_calls);
	int sum = math::add(n, 1);
	sum += static_cast<int>(math::add(n * 0.5, 1.0));
	sum += math::add(std::string("text"), "more");
	sum += hidden(n);
	sum += math::twice(n) + static_cast<int>(math::twice(n * 0.25));
	sum += math::power<3>(n);
	sum += static_cast<int>(Box<int>{n}.map<long>(widen).get());
	{
		Vec a(1, n), b = Vec::origin();
		sum += (a + b)[1];
	}
	std::unique_ptr<Shape> shapes[] = {std::make_unique<Circle>(), std::make_unique<Square>()};
	for (auto &shape : shapes)
		sum += opaque(shape.get())->area(n);
	Both both;
	sum += opaque(static_cast<First *>(&both))->first(n);
	// through the thunk, which is too small to count itself; a compiler that knew
	// what is called would leave it out
	int (Second::*volatile second)(int) = &Second::second;
	sum += (opaque(static_cast<Second *>(&both))->*second)(n);
	__atomic_fetch_add(&truth_table->calls[T_both_thunk], 1, __ATOMIC_RELAXED);
	sum += use_lambdas(n);
	sum += static_cast<int>(describe(n).size());
	sum += plain_c(n);
	LEAVE();
	return sum;
}

int main(int argc, char **argv)
{
	long rounds = truth_arg(argc, argv, "--rounds", 100);
	volatile int sink;

	truth_begin(argc, argv);
	for (long i = 0; i < rounds; i++)
		sink = round_of_calls(static_cast<int>(i));
	(void)sink;
	return truth_end("");
}
