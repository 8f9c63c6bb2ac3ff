// SPDX-License-Identifier: Apache-2.0
//! Panics through counted frames: caught, resumed, running destructors, ending a
//! thread. --rounds N --threads N
#[macro_use]
#[path = "../include/truth.rs"]
mod truth;

use std::hint::black_box;
use std::panic::{catch_unwind, resume_unwind};

functions! {
    WORKER = "rustpanics::worker",
    CATCH_THROUGH = "rustpanics::catch_through",
    FRAME5 = "rustpanics::frame5",
    FRAME4 = "rustpanics::frame4",
    FRAME3 = "rustpanics::frame3",
    FRAME2 = "rustpanics::frame2",
    FRAME1 = "rustpanics::frame1",
    AFTER = "rustpanics::after",
    CATCH_RESUMED = "rustpanics::catch_resumed",
    RESUMES = "rustpanics::resumes",
    CATCH_CLEANED = "rustpanics::catch_cleaned",
    CLEANUP = "rustpanics::cleanup",
    NOTE_DROP = "<rustpanics::Note as core::ops::drop::Drop>::drop",
    NOTE_LEAF = "rustpanics::note_leaf",
    DOOMED = "rustpanics::doomed",
}

/// Panics unless n is even.
#[inline(never)]
fn frame1(n: u64) -> u64 {
    let caller = truth::enter(FRAME1);
    if n % 2 == 1 {
        panic!("odd");
    }
    truth::leave(FRAME1, caller);
    n
}

macro_rules! frame {
    ($name:ident, $id:ident, $next:ident) => {
        #[inline(never)]
        fn $name(n: u64) -> u64 {
            let caller = truth::enter($id);
            let value = $next(n) + 1;
            truth::leave($id, caller);
            value
        }
    };
}
frame!(frame2, FRAME2, frame1);
frame!(frame3, FRAME3, frame2);
frame!(frame4, FRAME4, frame3);
frame!(frame5, FRAME5, frame4);

#[inline(never)]
fn after(n: u64) -> u64 {
    let caller = truth::enter(AFTER);
    let value = black_box(n) + 1;
    truth::leave(AFTER, caller);
    value
}

/// Through 1 to 5 frames, each once without a panic and once with one.
#[inline(never)]
fn catch_through(n: u64) -> u64 {
    let caller = truth::enter(CATCH_THROUGH);
    let here = truth::here();
    let frames: [fn(u64) -> u64; 5] = [frame1, frame2, frame3, frame4, frame5];
    let mut sum = n;
    for frame in black_box(frames) {
        for turn in 0..2 {
            sum += catch_unwind(|| frame(turn)).unwrap_or(1);
            truth::resume(here);
            sum += after(sum);
        }
    }
    truth::leave(CATCH_THROUGH, caller);
    sum
}

#[inline(never)]
fn resumes(n: u64) -> u64 {
    let caller = truth::enter(RESUMES);
    let here = truth::here();
    match catch_unwind(|| frame3(1)) {
        Ok(value) => {
            truth::leave(RESUMES, caller);
            value + n
        }
        Err(payload) => {
            truth::resume(here);
            after(n);
            resume_unwind(payload)
        }
    }
}

#[inline(never)]
fn catch_resumed(n: u64) -> u64 {
    let caller = truth::enter(CATCH_RESUMED);
    let here = truth::here();
    let value = catch_unwind(|| resumes(n)).unwrap_or(2);
    truth::resume(here);
    truth::leave(CATCH_RESUMED, caller);
    value
}

#[inline(never)]
fn note_leaf(n: u64) -> u64 {
    let caller = truth::enter(NOTE_LEAF);
    let value = black_box(n);
    truth::leave(NOTE_LEAF, caller);
    value
}

/// Remembers the frame that holds it, which is its caller when it is dropped.
struct Note {
    frame: truth::State,
    n: u64,
}

impl Drop for Note {
    #[inline(never)]
    fn drop(&mut self) {
        truth::resume(self.frame);
        let caller = truth::enter(NOTE_DROP);
        note_leaf(self.n);
        truth::leave(NOTE_DROP, caller);
    }
}

/// Two notes, dropped by return or by panic.
#[inline(never)]
fn cleanup(n: u64) -> u64 {
    let caller = truth::enter(CLEANUP);
    let value = {
        let _one = Note { frame: truth::here(), n };
        let _two = Note { frame: truth::here(), n: n + 1 };
        frame2(n)
    };
    truth::leave(CLEANUP, caller);
    value
}

#[inline(never)]
fn catch_cleaned(n: u64) -> u64 {
    let caller = truth::enter(CATCH_CLEANED);
    let here = truth::here();
    let mut sum = n;
    for turn in 0..2 {
        sum += catch_unwind(|| cleanup(turn)).unwrap_or(3);
        truth::resume(here);
    }
    truth::leave(CATCH_CLEANED, caller);
    sum
}

#[inline(never)]
fn worker(rounds: u64) {
    let caller = truth::enter(WORKER);
    for i in 0..rounds {
        black_box(catch_through(i) + catch_resumed(i) + catch_cleaned(i));
    }
    truth::leave(WORKER, caller);
}

/// The panic ends its thread.
#[inline(never)]
fn doomed(n: u64) -> u64 {
    let caller = truth::enter(DOOMED);
    let value = frame2(n);
    truth::leave(DOOMED, caller);
    value
}

fn main() {
    let rounds = truth::arg("--rounds", 20);
    let threads = truth::arg("--threads", 4);
    std::panic::set_hook(Box::new(|_| ())); // says nothing on stderr
    truth::begin();
    let workers: Vec<_> =
        (0..threads).map(|_| std::thread::spawn(move || worker(rounds))).collect();
    let ended: Vec<_> = (0..threads).map(|_| std::thread::spawn(|| doomed(1))).collect();
    for handle in workers {
        handle.join().expect("worker");
    }
    for handle in ended {
        handle.join().expect_err("a doomed thread came back");
    }
    truth::end(NAMES);
}
