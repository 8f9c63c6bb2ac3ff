// C++ names: namespaces, templates, overloads, constructors, operators, lambdas.
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#define KEEP __attribute__((noinline, used))

namespace outer {
namespace {
KEEP int unnamed(int x) { return x + 1; }
}  // namespace

namespace inner {
template <typename T>
struct Box {
  T value;
  KEEP explicit Box(T v) : value(v) {}
  KEEP T get() const { return value; }
  template <typename U>
  KEEP U as() const {
    return static_cast<U>(value);
  }
};
}  // namespace inner

KEEP int over(int x) { return x; }
KEEP int over(double x) { return static_cast<int>(x); }
KEEP int over(const std::string& s) { return static_cast<int>(s.size()); }
KEEP int single(int x, double y) { return x + static_cast<int>(y); }

struct Shape {
  KEEP virtual ~Shape() { std::puts("~Shape"); }
  KEEP virtual double area() const { return 0; }
};
struct Square : Shape {
  double side = 2;
  KEEP double area() const override { return side * side; }
  KEEP bool operator==(const Square& o) const { return side == o.side; }
};
}  // namespace outer

KEEP int thrower(int x) {
  if (x > 100) throw std::runtime_error("big");
  return x;
}

int main(int argc, char**) {
  outer::inner::Box<int> a(argc);
  outer::inner::Box<double> b(1.5);
  outer::Square s, t;
  std::function<int(int)> f = [argc](int x) { return x + argc; };
  std::vector<int> v{1, 2, 3};
  int sum = outer::unnamed(argc) + a.get() + static_cast<int>(b.get()) + static_cast<int>(a.as<long>()) +
            outer::over(1) + outer::over(2.0) + outer::over(std::string("x")) + outer::single(1, 2) + f(3) +
            static_cast<int>(s.area()) + (s == t) + v[0];
  try {
    sum += thrower(sum);
  } catch (const std::exception& e) {
    std::puts(e.what());
  }
  std::printf("%d\n", sum);
  return 0;
}
