// SPDX-License-Identifier: Apache-2.0
//! A key-value store: the library crate of the project. Counting is the
//! program's affair, so each function takes what counts it.
use std::collections::BTreeMap;
use std::hint::black_box;

/// Count is told of each call: true when it begins, false when it returns.
pub type Count = fn(Function, bool);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Parse,
    Get,
    Put,
    Hash,
    Evict,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    Get(&'a str),
    Put(&'a str, u64),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    Empty,
    Unknown,
    Number,
}

pub struct Store {
    items: BTreeMap<u64, u64>,
    limit: usize,
    count: Count,
}

impl Store {
    pub fn new(limit: usize, count: Count) -> Self {
        Store { items: BTreeMap::new(), limit, count }
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    #[inline(never)]
    pub fn get(&self, key: &str) -> Option<u64> {
        (self.count)(Function::Get, true);
        let value = self.items.get(&hash(key, self.count)).copied();
        (self.count)(Function::Get, false);
        value
    }

    #[inline(never)]
    pub fn put(&mut self, key: &str, value: u64) {
        (self.count)(Function::Put, true);
        self.items.insert(hash(key, self.count), value);
        if self.items.len() > self.limit {
            self.evict();
        }
        (self.count)(Function::Put, false);
    }

    #[inline(never)]
    fn evict(&mut self) {
        (self.count)(Function::Evict, true);
        self.items.pop_first();
        (self.count)(Function::Evict, false);
    }
}

#[inline(never)]
fn hash(key: &str, count: Count) -> u64 {
    count(Function::Hash, true);
    let value = key.bytes().fold(14695981039346656037, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(1099511628211)
    });
    count(Function::Hash, false);
    black_box(value)
}

#[inline(never)]
pub fn parse(text: &str, count: Count) -> Result<Command<'_>, Error> {
    count(Function::Parse, true);
    let mut words = text.split_whitespace();
    let command = match (words.next(), words.next(), words.next()) {
        (None, ..) => Err(Error::Empty),
        (Some("get"), Some(key), None) => Ok(Command::Get(key)),
        (Some("put"), Some(key), Some(value)) => {
            value.parse().map(|value| Command::Put(key, value)).map_err(|_| Error::Number)
        }
        _ => Err(Error::Unknown),
    };
    count(Function::Parse, false);
    command
}
