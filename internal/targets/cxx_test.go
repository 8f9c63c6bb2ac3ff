package targets

import (
	"maps"
	"testing"
)

// cppVariants are how every C++ target must build and tell the same truth.
var cppVariants = map[string][]Option{
	"default":   nil,
	"O0":        {OptLevel("0")},
	"no-pie":    {NoPIE()},
	"static":    {Static()},
	"static-O0": {Static(), OptLevel("0"), NoPIE()},
	"strip":     {Strip()},
	"clang":     {Clang()},
	"clang-O0":  {Clang(), OptLevel("0")},
}

const addText = "math::add(std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> > const&, char const*)"

func TestCxx(t *testing.T) {
	const r = 15
	n := counts{
		"round_of_calls":            r,
		"math::add(int, int)":       (1 + 1 + 1 + 1) * r, // itself, deep, twice, Square
		"math::add(double, double)": 2 * r,
		addText:                     r,

		"math::detail::deep": r, "(anonymous namespace)::hidden": r,
		"math::twice<int>": r, "math::twice<double>": r,
		"math::power<3>": r, "math::power<2>": r, "math::power<1>": r,
		"Box<int>::get": r, "Box<long>::get": r, "Box<int>::map<long>": r, "widen": r,

		"Vec::Vec": 3 * r, "Vec::~Vec": 3 * r, "Vec::operator[]": 5 * r, "operator+": r, "Vec::origin": r,
		"Circle::area": r, "Square::area": r,
		"Both::first": r, "Both::second": r, "non-virtual thunk to Both::second(int)": r,
		"use_lambdas": r, "visit": r, "describe[abi:cxx11]": r, "plain_c": r,
	}
	gcc, clang := maps.Clone(n), maps.Clone(n)
	gcc["use_lambdas()::{lambda(int)#1}::operator()"], gcc["use_lambdas()::{lambda()#2}::operator()"] = 4*r, 3*r
	clang["use_lambdas()::$_0::operator()"], clang["use_lambdas()::$_1::operator()"] = 4*r, 3*r
	byGCC, byClang := map[string][]Option{}, map[string][]Option{}
	for label, options := range cppVariants {
		if newVariant(options).compiler == "clang" {
			byClang[label] = options
		} else {
			byGCC[label] = options
		}
	}
	checkTruth(t, "cxx", byGCC, Truth{Counts: gcc}, "--rounds", "15")
	checkTruth(t, "cxx", byClang, Truth{Counts: clang}, "--rounds", "15")
}

func TestExceptions(t *testing.T) {
	const threads, rounds, r = 3, 5, 3 * 5
	n := counts{
		"worker":        threads,
		"catch_through": r, "frame5": 2 * r, "frame4": 4 * r,
		"frame3":         (6 + 1 + 1) * r,              // and from rethrow, carried
		"frame2":         (8 + 2 + 4 + 1 + 1 + 1) * r,  // and from cleanup_inner, callback, no_throw, frame3 above
		"frame1":         (10 + 2 + 4 + 1 + 1 + 1) * r, // those and its own
		"after_catch":    (10 + 1 + 2 + 1 + 1) * r,     // through, rethrown, cleaned, no_throw, carried
		"catch_rethrown": r, "rethrow": r, "in_handler": r,
		"catch_cleaned": r, "cleanup_outer": 2 * r, "cleanup_inner": 2 * r,
		"Note::Note": 6 * r, "Note::~Note": 6 * r, "note_leaf": 6 * r,
		"catch_callback": r, "c_each": r, "callback": 4 * r,
		"no_throw": r, "carried": r,
	}
	returns := maps.Clone(n)
	// each is left by the exceptions that pass through it
	passed := counts{
		"frame5": 1, "frame4": 2, "frame3": 3 + 2, "frame2": 4 + 5, "frame1": 5 + 5,
		"rethrow": 1, "cleanup_outer": 1, "cleanup_inner": 1, "c_each": 1, "callback": 1,
	}
	for name, left := range passed {
		if returns[name] -= left * r; returns[name] == 0 {
			delete(returns, name)
		}
	}
	checkTruth(t, "exceptions", cppVariants, Truth{
		Counts: n, Returns: returns,
		Tree: []Edge{
			{"", "worker", threads},
			{"worker", "catch_through", r}, {"worker", "catch_rethrown", r},
			{"worker", "catch_cleaned", r}, {"worker", "catch_callback", r},
			{"worker", "no_throw", r}, {"worker", "carried", r},
			{"catch_through", "frame5", 2 * r}, {"catch_through", "frame4", 2 * r},
			{"catch_through", "frame3", 2 * r}, {"catch_through", "frame2", 2 * r},
			{"catch_through", "frame1", 2 * r}, {"catch_through", "after_catch", 10 * r},
			{"frame5", "frame4", 2 * r}, {"frame4", "frame3", 4 * r},
			{"frame3", "frame2", 8 * r}, {"frame2", "frame1", 17 * r},
			{"catch_rethrown", "rethrow", r}, {"catch_rethrown", "after_catch", r},
			{"rethrow", "frame3", r}, {"rethrow", "in_handler", r},
			{"catch_cleaned", "cleanup_outer", 2 * r}, {"catch_cleaned", "after_catch", 2 * r},
			{"cleanup_outer", "cleanup_inner", 2 * r},
			{"cleanup_outer", "Note::Note", 2 * r}, {"cleanup_outer", "Note::~Note", 2 * r},
			{"cleanup_inner", "frame2", 2 * r},
			{"cleanup_inner", "Note::Note", 4 * r}, {"cleanup_inner", "Note::~Note", 4 * r},
			{"Note::~Note", "note_leaf", 6 * r},
			{"catch_callback", "c_each", r}, {"c_each", "callback", 4 * r}, {"callback", "frame2", 4 * r},
			{"no_throw", "frame2", r}, {"no_throw", "after_catch", r},
			{"carried", "frame3", r}, {"carried", "after_catch", r},
		},
	}, "--rounds", "5", "--threads", "3")
}

func TestPlugin(t *testing.T) {
	const r = 20
	n := counts{"host_start": r, "host_round": 1, "host_callback": r, "plug_catch": r, "plug_throw": r, "plug_after": r}
	returns := maps.Clone(n)
	returns["host_callback"], returns["plug_throw"] = r/2, r/2 // the others are left by an exception
	checkTruth(t, "plugin", cppVariants, Truth{Counts: n, Returns: returns}, "--rounds", "20")
}
