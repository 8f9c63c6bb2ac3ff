// SPDX-License-Identifier: Apache-2.0
//! Modules, generics, traits, closures, recursion, threads. --rounds N --threads N
//!
//! In the legacy mangling the instances of a generic function share one name; a
//! build with --cfg v0 has the names of the v0 mangling.
#[macro_use]
#[path = "../include/truth.rs"]
mod truth;

use std::hint::black_box;

macro_rules! either {
    ($legacy:literal, $v0:literal) => {
        if cfg!(v0) { $v0 } else { $legacy }
    };
}

functions! {
    WORKER = "rustcalls::worker",
    ROUND = "rustcalls::round",
    AREA_CIRCLE = "<rustcalls::shapes::Circle as rustcalls::shapes::Shape>::area",
    AREA_SQUARE = "<rustcalls::shapes::Square as rustcalls::shapes::Shape>::area",
    DOUBLED = either!("rustcalls::shapes::Shape::doubled", "<rustcalls::shapes::Circle as rustcalls::shapes::Shape>::doubled"),
    NEW = either!("rustcalls::shapes::Circle::new", "<rustcalls::shapes::Circle>::new"),
    LARGEST = either!("rustcalls::largest", "rustcalls::largest::<i32>"),
    LARGEST_FLOAT = either!("rustcalls::largest", "rustcalls::largest::<f64>"),
    LARGEST_TEXT = either!("rustcalls::largest_of_text", "rustcalls::largest_of_text::<&str>"),
    STACK_PUSH = either!("rustcalls::Stack<T>::push", "<rustcalls::Stack<u64>>::push"),
    STACK_POP = either!("rustcalls::Stack<T>::pop", "<rustcalls::Stack<u64>>::pop"),
    APPLY = "rustcalls::apply",
    CLOSURE = either!("rustcalls::round::{{closure}}", "rustcalls::round::{closure#0}"),
    DEPTH = "rustcalls::depth",
    FORMAT = "<rustcalls::Money as core::fmt::Display>::fmt",
    DROP = "<rustcalls::Guard as core::ops::drop::Drop>::drop",
}

mod shapes {
    use super::{truth, AREA_CIRCLE, AREA_SQUARE, DOUBLED, NEW};
    use std::hint::black_box;

    pub trait Shape {
        fn area(&self) -> i64;

        /// A provided method, called on circles only.
        #[inline(never)]
        fn doubled(&self) -> i64 {
            let caller = truth::enter(DOUBLED);
            let value = 2 * self.area();
            truth::leave(DOUBLED, caller);
            value
        }
    }

    pub struct Circle(i64);
    pub struct Square(pub i64);

    impl Circle {
        #[inline(never)]
        pub fn new(radius: i64) -> Self {
            let caller = truth::enter(NEW);
            let circle = Circle(black_box(radius));
            truth::leave(NEW, caller);
            circle
        }
    }

    impl Shape for Circle {
        #[inline(never)]
        fn area(&self) -> i64 {
            let caller = truth::enter(AREA_CIRCLE);
            let value = black_box(3 * self.0 * self.0);
            truth::leave(AREA_CIRCLE, caller);
            value
        }
    }

    impl Shape for Square {
        #[inline(never)]
        fn area(&self) -> i64 {
            let caller = truth::enter(AREA_SQUARE);
            let value = black_box(self.0 * self.0);
            truth::leave(AREA_SQUARE, caller);
            value
        }
    }
}

use shapes::{Circle, Shape, Square};

#[inline(never)]
fn largest<T: PartialOrd + Copy>(list: &[T]) -> T {
    let id = if size_of::<T>() == 4 { LARGEST } else { LARGEST_FLOAT };
    let caller = truth::enter(id);
    let mut best = list[0];
    for &item in list {
        if item > best {
            best = item;
        }
    }
    truth::leave(id, caller);
    best
}

#[inline(never)]
fn largest_of_text<T: AsRef<str>>(list: &[T]) -> usize {
    let caller = truth::enter(LARGEST_TEXT);
    let mut best = 0;
    for item in list {
        best = best.max(item.as_ref().len());
    }
    truth::leave(LARGEST_TEXT, caller);
    best
}

struct Stack<T> {
    items: Vec<T>,
}

impl<T> Stack<T> {
    #[inline(never)]
    fn push(&mut self, item: T) {
        let caller = truth::enter(STACK_PUSH);
        self.items.push(item);
        truth::leave(STACK_PUSH, caller);
    }

    #[inline(never)]
    fn pop(&mut self) -> Option<T> {
        let caller = truth::enter(STACK_POP);
        let item = self.items.pop();
        truth::leave(STACK_POP, caller);
        item
    }
}

struct Money(u64);

impl std::fmt::Display for Money {
    #[inline(never)]
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let caller = truth::enter(FORMAT);
        let result = write!(out, "{}.{:02}", self.0 / 100, self.0 % 100);
        truth::leave(FORMAT, caller);
        result
    }
}

struct Guard<'a>(&'a mut u64);

impl Drop for Guard<'_> {
    #[inline(never)]
    fn drop(&mut self) {
        let caller = truth::enter(DROP);
        *self.0 += 1;
        truth::leave(DROP, caller);
    }
}

#[inline(never)]
fn apply(times: u64, function: &dyn Fn(u64) -> u64) -> u64 {
    let caller = truth::enter(APPLY);
    let mut sum = 0;
    for i in 0..times {
        sum += function(i);
    }
    truth::leave(APPLY, caller);
    sum
}

#[inline(never)]
fn depth(n: u64) -> u64 {
    let caller = truth::enter(DEPTH);
    let value = if n == 0 { 0 } else { depth(n - 1) + 1 };
    truth::leave(DEPTH, caller);
    value
}

#[inline(never)]
fn round(n: u64) -> u64 {
    let caller = truth::enter(ROUND);
    let circle = Circle::new(n as i64);
    let shapes: [&dyn Shape; 2] = [&circle, &Square(n as i64)];
    let mut sum = 0;
    for shape in black_box(shapes) {
        sum += shape.area() as u64;
    }
    sum += circle.doubled() as u64;
    sum += largest(black_box(&[1, 5, 3])) as u64;
    sum += largest(black_box(&[1.5, 0.5])) as u64;
    sum += largest_of_text(black_box(&["a", "longer"])) as u64;
    let mut stack = Stack { items: Vec::new() };
    for i in 0..3 {
        stack.push(i + n);
    }
    while let Some(item) = stack.pop() {
        sum += item;
    }
    let closure = |x: u64| {
        let caller = truth::enter(CLOSURE);
        let value = black_box(x + n);
        truth::leave(CLOSURE, caller);
        value
    };
    sum += apply(5, black_box(&closure));
    sum += depth(20);
    sum += black_box(Money(n)).to_string().len() as u64;
    let mut dropped = 0;
    drop(Guard(black_box(&mut dropped)));
    truth::leave(ROUND, caller);
    sum + dropped
}

#[inline(never)]
fn worker(rounds: u64) {
    let caller = truth::enter(WORKER);
    for i in 0..rounds {
        black_box(round(i));
    }
    truth::leave(WORKER, caller);
}

fn main() {
    let rounds = truth::arg("--rounds", 100);
    let threads = truth::arg("--threads", 4);
    truth::begin();
    let handles: Vec<_> =
        (0..threads).map(|_| std::thread::spawn(move || worker(rounds))).collect();
    for handle in handles {
        handle.join().expect("worker");
    }
    truth::end(NAMES);
}
