// SPDX-License-Identifier: Apache-2.0
//! A small service of two crates, built by cargo: commands go through a channel
//! to a thread that owns the store. --requests N
#[macro_use]
#[path = "../../include/truth.rs"]
mod truth;

use rustsvc_store::{parse, Command, Error, Function, Store};
use std::cell::RefCell;
use std::sync::mpsc;

functions! {
    SERVE = "rustsvc::serve",
    HANDLE = "rustsvc::handle",
    REPLY = "rustsvc::reply",
    PARSE = "rustsvc_store::parse",
    GET = "rustsvc_store::Store::get",
    PUT = "rustsvc_store::Store::put",
    EVICT = "rustsvc_store::Store::evict",
    HASH = "rustsvc_store::hash",
}

thread_local! {
    static OPEN: RefCell<Vec<truth::State>> = const { RefCell::new(Vec::new()) };
}

/// count counts for the library.
fn count(function: Function, begins: bool) {
    let id = match function {
        Function::Parse => PARSE,
        Function::Get => GET,
        Function::Put => PUT,
        Function::Evict => EVICT,
        Function::Hash => HASH,
    };
    OPEN.with_borrow_mut(|open| {
        if begins {
            open.push(truth::enter(id));
        } else {
            truth::leave(id, open.pop().expect("a return without a call"));
        }
    });
}

#[inline(never)]
fn reply(result: Result<Option<u64>, Error>) -> String {
    let caller = truth::enter(REPLY);
    let text = match result {
        Ok(Some(value)) => value.to_string(),
        Ok(None) => "none".to_string(),
        Err(error) => format!("error: {error:?}"),
    };
    truth::leave(REPLY, caller);
    text
}

#[inline(never)]
fn handle(store: &mut Store, text: &str) -> String {
    let caller = truth::enter(HANDLE);
    let result = parse(text, count).map(|command| match command {
        Command::Get(key) => store.get(key),
        Command::Put(key, value) => {
            store.put(key, value);
            Some(value)
        }
    });
    let text = reply(result);
    truth::leave(HANDLE, caller);
    text
}

#[inline(never)]
fn serve(requests: mpsc::Receiver<String>, replies: mpsc::Sender<String>) {
    let caller = truth::enter(SERVE);
    let mut store = Store::new(10, count);
    for request in requests {
        if replies.send(handle(&mut store, &request)).is_err() {
            break;
        }
    }
    truth::leave(SERVE, caller);
}

/// The n-th request: put, get, get of what is missing, nonsense.
fn request(n: u64) -> String {
    match n % 4 {
        0 => format!("put key{} {n}", n / 4),
        1 => format!("get key{}", n / 4),
        2 => "get missing".to_string(),
        _ => "nonsense".to_string(),
    }
}

fn main() {
    let requests = truth::arg("--requests", 400);
    truth::begin();
    let (to_server, from_client) = mpsc::channel();
    let (to_client, from_server) = mpsc::channel();
    let server = std::thread::spawn(move || serve(from_client, to_client));
    for n in 0..requests {
        to_server.send(request(n)).expect("server ended");
        let answer = from_server.recv().expect("server ended");
        let expected = match n % 4 {
            0 => n.to_string(),
            2 => "none".to_string(),
            3 => "error: Unknown".to_string(),
            _ => answer.clone(), // the item may have been evicted at once
        };
        assert_eq!(answer, expected, "request {n}");
    }
    drop(to_server);
    server.join().expect("server");
    truth::end(NAMES);
}
