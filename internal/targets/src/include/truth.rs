// SPDX-License-Identifier: Apache-2.0
//! Counting inside the traced functions themselves; the protocol and the meaning
//! of what is printed are those of truth.h.
//!
//! A program lists its counted functions with the names a tracer prints,
//!
//!     functions! { OUTER = "prog::outer", INNER = "prog::inner" }
//!
//! and marks each of them:
//!
//!     #[inline(never)]
//!     fn outer() { let caller = truth::enter(OUTER); ...; truth::leave(OUTER, caller); }

use std::cell::Cell;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// MAX bounds the number of functions of a program, with the root at 0.
pub const MAX: usize = 64;

static CALLS: [AtomicU64; MAX] = [const { AtomicU64::new(0) }; MAX];
static RETURNS: [AtomicU64; MAX] = [const { AtomicU64::new(0) }; MAX];
static MAXDEPTH: [AtomicU64; MAX] = [const { AtomicU64::new(0) }; MAX];
static EDGES: [[AtomicU64; MAX]; MAX] = [const { [const { AtomicU64::new(0) }; MAX] }; MAX];
static AUTO: AtomicBool = AtomicBool::new(false);

/// State is what a thread is in: its innermost counted function and its depth.
#[derive(Clone, Copy)]
pub struct State {
    function: usize,
    depth: u64,
}

thread_local! {
    static NOW: Cell<State> = const { Cell::new(State { function: 0, depth: 0 }) };
}

/// enter counts one call and returns what leave has to restore.
#[inline(always)]
pub fn enter(id: usize) -> State {
    let caller = NOW.get();
    let depth = caller.depth + 1;
    NOW.set(State { function: id, depth });
    CALLS[id].fetch_add(1, Relaxed);
    EDGES[caller.function][id].fetch_add(1, Relaxed);
    MAXDEPTH[id].fetch_max(depth, Relaxed);
    caller
}

/// leave counts a return.
#[inline(always)]
pub fn leave(id: usize, caller: State) {
    RETURNS[id].fetch_add(1, Relaxed);
    NOW.set(caller);
}

/// here and resume bring the state back after a panic was caught.
#[inline(always)]
#[allow(dead_code)]
pub fn here() -> State {
    NOW.get()
}

#[inline(always)]
#[allow(dead_code)]
pub fn resume(state: State) {
    NOW.set(state);
}

/// functions numbers the counted functions and defines NAMES.
#[macro_export]
macro_rules! functions {
    ($($id:ident = $name:expr),* $(,)?) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Number { ROOT, $($id),* }
        $(const $id: usize = Number::$id as usize;)*
        const NAMES: &[&str] = &["", $($name),*];
        const _: () = assert!(NAMES.len() <= truth::MAX && Number::ROOT as usize == 0);
    };
}

/// arg is the number after name on the command line, or fallback.
pub fn arg(name: &str, fallback: u64) -> u64 {
    let mut arguments = std::env::args();
    while let Some(argument) = arguments.next() {
        if argument == name {
            return arguments.next().and_then(|value| value.parse().ok()).unwrap_or(fallback);
        }
    }
    fallback
}

fn line() -> Option<String> {
    let mut text = String::new();
    match std::io::stdin().lock().read_line(&mut text) {
        Ok(n) if n > 0 => Some(text.trim_end().to_string()),
        _ => None,
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(4);
    }
}

/// begin says READY and waits for "go"; with --auto it returns at once.
pub fn begin() {
    if std::env::args().any(|argument| argument == "--auto") {
        AUTO.store(true, Relaxed);
        return;
    }
    say(&format!("READY {}\n", std::process::id()));
    if line().as_deref() != Some("go") {
        eprintln!("expected \"go\" on stdin");
        std::process::exit(3);
    }
}

/// by_name adds up functions that share a name: instances of a generic function,
/// where the symbols do not tell them apart.
fn by_name<'a, K: PartialEq + Copy>(
    pairs: impl Iterator<Item = (K, u64)> + 'a,
    join: fn(u64, u64) -> u64,
) -> Vec<(K, u64)> {
    let mut sums: Vec<(K, u64)> = Vec::new();
    for (key, value) in pairs.filter(|&(_, value)| value > 0) {
        match sums.iter_mut().find(|(known, _)| *known == key) {
            Some((_, sum)) => *sum = join(*sum, value),
            None => sums.push((key, value)),
        }
    }
    sums
}

fn object(key: &str, names: &[&str], values: &[AtomicU64], join: fn(u64, u64) -> u64) -> String {
    let pairs = names.iter().zip(values).map(|(&name, value)| (name, value.load(Relaxed)));
    let members: Vec<String> =
        by_name(pairs, join).iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("\"{}\":{{{}}}", key, members.join(","))
}

/// end prints the truth, then waits for "quit" or end of file.
pub fn end(names: &[&str]) {
    let pairs = names.iter().zip(&EDGES).flat_map(|(&parent, row)| {
        names.iter().zip(row).map(move |(&child, count)| ((parent, child), count.load(Relaxed)))
    });
    let edges: Vec<String> = by_name(pairs, |a, b| a + b)
        .iter()
        .map(|((parent, child), count)| {
            format!("{{\"parent\":\"{parent}\",\"child\":\"{child}\",\"count\":{count}}}")
        })
        .collect();
    say(&format!(
        "{{{},{},{},\"tree\":[{}]}}\n",
        object("counts", names, &CALLS, |a, b| a + b),
        object("returns", names, &RETURNS, |a, b| a + b),
        object("maxdepth", names, &MAXDEPTH, u64::max),
        edges.join(",")
    ));
    if AUTO.load(Relaxed) {
        return;
    }
    while let Some(text) = line() {
        if text == "quit" {
            return;
        }
    }
}
