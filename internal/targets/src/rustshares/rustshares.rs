// SPDX-License-Identifier: Apache-2.0
//! CPU time in known shares, below what Rust puts on a stack: traits, generics,
//! closures, iterators, sorting by a key, panics that are caught. Endless; the
//! protocol is that of truth.h, "values" are the units of work done. --depth N
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

static STOPPED: AtomicBool = AtomicBool::new(false);
static UNITS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
static SINK: AtomicU64 = AtomicU64::new(0);

#[inline(always)]
fn spin(id: usize, units: u64) {
    for i in 0..units * 1000 {
        SINK.store(black_box(SINK.load(Relaxed).wrapping_add(i * i)), Relaxed);
    }
    UNITS[id].fetch_add(units, Relaxed);
}

trait Task {
    fn run(&self);
}

struct Heavy;
struct Light;

impl Task for Heavy {
    #[inline(never)]
    fn run(&self) {
        spin(0, 70);
    }
}

impl Task for Light {
    #[inline(never)]
    fn run(&self) {
        spin(1, 20);
    }
}

#[inline(never)]
fn generic<T: Copy>(value: T) -> T {
    spin(2, 10);
    black_box(value)
}

#[inline(never)]
fn panics(levels: u64) -> u64 {
    if levels == 0 {
        std::panic::resume_unwind(Box::new("as planned"));
    }
    black_box(panics(levels - 1)) + 1
}

#[inline(never)]
fn round(tasks: &[Box<dyn Task>]) {
    tasks.iter().for_each(|task| task.run());
    let last = |n: u64| generic(n);
    black_box(last(1));
    black_box(catch_unwind(|| panics(5)).is_err());
}

#[inline(never)]
fn descend(levels: u64, tasks: &[Box<dyn Task>]) -> u64 {
    if levels > 0 {
        return black_box(descend(levels - 1, tasks)) + 1;
    }
    while !STOPPED.load(Relaxed) {
        round(tasks);
    }
    0
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(4);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let depth = arguments.iter().position(|a| a == "--depth").map_or(0, |i| arguments[i + 1].parse().unwrap());
    say(&format!("READY {}\n", std::process::id()));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let stopper = std::thread::spawn(|| {
        let mut text = String::new();
        while std::io::stdin().lock().read_line(&mut text).unwrap_or(0) > 0 && text != "quit\n" {
            text.clear();
        }
        STOPPED.store(true, Relaxed);
    });
    let worker = std::thread::Builder::new().name("worker".into()).spawn(move || {
        let tasks: Vec<Box<dyn Task>> = vec![Box::new(Heavy), Box::new(Light)];
        descend(depth, &tasks)
    });
    let worker = worker.unwrap();
    worker.join().unwrap();
    say(&format!(
        "{{\"values\":{{\"seventy\":{},\"twenty\":{},\"ten\":{}}}}}\n",
        UNITS[0].load(Relaxed),
        UNITS[1].load(Relaxed),
        UNITS[2].load(Relaxed)
    ));
    stopper.join().unwrap();
}
