package targets

import (
	"maps"
	"testing"
)

// rustVariants are how every Rust target must build and tell the same truth.
var rustVariants = map[string][]Option{
	"default": nil,
	"O0":      {OptLevel("0")},
	"no-pie":  {NoPIE()},
	"static":  {Static()},
	"strip":   {Strip()},
}

func TestRustcalls(t *testing.T) {
	const threads, rounds, r = 3, 7, 3 * 7
	n := counts{
		"rustcalls::worker": threads, "rustcalls::round": r,
		"<rustcalls::shapes::Circle as rustcalls::shapes::Shape>::area": 2 * r,
		"<rustcalls::shapes::Square as rustcalls::shapes::Shape>::area": r,
		"<rustcalls::Money as core::fmt::Display>::fmt":                 r,
		"<rustcalls::Guard as core::ops::drop::Drop>::drop":             r,
		"rustcalls::apply": r, "rustcalls::depth": 21 * r,
	}
	legacy, v0 := maps.Clone(n), maps.Clone(n)
	legacy["rustcalls::shapes::Shape::doubled"] = r
	legacy["rustcalls::shapes::Circle::new"] = r
	legacy["rustcalls::largest"] = 2 * r // two instances
	legacy["rustcalls::largest_of_text"] = r
	legacy["rustcalls::Stack<T>::push"] = 3 * r
	legacy["rustcalls::Stack<T>::pop"] = 4 * r
	legacy["rustcalls::round::{{closure}}"] = 5 * r
	checkTruth(t, "rustcalls", rustVariants, Truth{Counts: legacy, Returns: legacy}, "--rounds", "7", "--threads", "3")

	v0["<rustcalls::shapes::Circle as rustcalls::shapes::Shape>::doubled"] = r
	v0["<rustcalls::shapes::Circle>::new"] = r
	v0["rustcalls::largest::<i32>"] = r
	v0["rustcalls::largest::<f64>"] = r
	v0["rustcalls::largest_of_text::<&str>"] = r
	v0["<rustcalls::Stack<u64>>::push"] = 3 * r
	v0["<rustcalls::Stack<u64>>::pop"] = 4 * r
	v0["rustcalls::round::{closure#0}"] = 5 * r
	checkTruth(t, "rustcalls", map[string][]Option{"v0": rustV0}, Truth{Counts: v0, Returns: v0}, "--rounds", "7", "--threads", "3")
}

// rustV0 selects the v0 symbol mangling, and the names that go with it.
var rustV0 = []Option{Flags("-Csymbol-mangling-version=v0", "--cfg", "v0")}

func TestRustpanics(t *testing.T) {
	const threads, rounds, r = 3, 5, 3 * 5
	p := func(name string) string { return "rustpanics::" + name }
	const noteDrop = "<rustpanics::Note as core::ops::drop::Drop>::drop"
	n := counts{
		p("worker"): threads, p("doomed"): threads,
		p("catch_through"): r, p("frame5"): 2 * r, p("frame4"): 4 * r,
		p("frame3"):        (6 + 1) * r,          // and from resumes
		p("frame2"):        (8+1+2)*r + threads,  // and from cleanup, doomed
		p("frame1"):        (10+1+2)*r + threads, //
		p("after"):         (10 + 1) * r,         // and from resumes
		p("catch_resumed"): r, p("resumes"): r,   //
		p("catch_cleaned"): r, p("cleanup"): 2 * r, noteDrop: 4 * r, p("note_leaf"): 4 * r,
	}
	passed := counts{ // panics that pass through
		p("frame5"): r, p("frame4"): 2 * r, p("frame3"): (3 + 1) * r, p("frame2"): (4+1+1)*r + threads,
		p("frame1"): (5+1+1)*r + threads, p("resumes"): r, p("cleanup"): r, p("doomed"): threads,
	}
	returns := maps.Clone(n)
	for name, left := range passed {
		if returns[name] -= left; returns[name] == 0 {
			delete(returns, name)
		}
	}
	checkTruth(t, "rustpanics", rustVariants, Truth{
		Counts: n, Returns: returns,
		Tree: []Edge{
			{"", p("worker"), threads}, {p("worker"), p("catch_through"), r}, {p("worker"), p("catch_resumed"), r},
			{p("worker"), p("catch_cleaned"), r}, {"", p("doomed"), threads}, {p("doomed"), p("frame2"), threads},
			{p("catch_through"), p("frame5"), 2 * r}, {p("catch_through"), p("frame4"), 2 * r},
			{p("catch_through"), p("frame3"), 2 * r}, {p("catch_through"), p("frame2"), 2 * r},
			{p("catch_through"), p("frame1"), 2 * r}, {p("catch_through"), p("after"), 10 * r},
			{p("frame5"), p("frame4"), 2 * r}, {p("frame4"), p("frame3"), 4 * r}, {p("frame3"), p("frame2"), 7 * r},
			{p("frame2"), p("frame1"), 11*r + threads},
			{p("catch_resumed"), p("resumes"), r}, {p("resumes"), p("frame3"), r}, {p("resumes"), p("after"), r},
			{p("catch_cleaned"), p("cleanup"), 2 * r}, {p("cleanup"), p("frame2"), 2 * r},
			{p("cleanup"), noteDrop, 4 * r}, {noteDrop, p("note_leaf"), 4 * r},
		},
	}, "--rounds", "5", "--threads", "3")
}

func TestRustsvc(t *testing.T) {
	const requests, r = 80, 80 / 4 // a quarter of each kind
	n := counts{
		"rustsvc::serve": 1, "rustsvc::handle": requests, "rustsvc::reply": requests,
		"rustsvc_store::parse": requests, "rustsvc_store::Store::put": r, "rustsvc_store::Store::get": 2 * r,
		"rustsvc_store::Store::evict": r - 10, "rustsvc_store::hash": 3 * r,
	}
	checkTruth(t, "rustsvc", rustVariants, Truth{Counts: n, Returns: n}, "--requests", "80")
}
