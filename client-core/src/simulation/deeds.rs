//! What clients do with keys, and what they are told.
//!
//! ```text
//!  registers  one writer each, whose values are numbered: get, set, delete, and the batches of these
//!  counters   all clients count up and down
//!  swapped    all clients read a number and store the next by cas
//!  lists      all clients put pieces of their own before or behind
//!  locks      all clients add, and who could deletes after a while
//! ```

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::Operation;
use crate::calls::{self, Call};
use crate::error::Error;
use crate::operation::{Context, Entry, Replaced};
use crate::request::StoreMode;
use crate::routing::Ring;
use crate::value::{Cas, CasUnique, Item, Payload};

/// Keys by number, of each kind.
pub const REGISTERS: Range<usize> = 0..6;
pub const COUNTERS: Range<usize> = 6..8;
pub const SWAPPED: Range<usize> = 8..10;
pub const LISTS: Range<usize> = 10..12;
pub const LOCKS: Range<usize> = 12..14;
/// Keys there are.
pub const KEYS: usize = LOCKS.end;

/// Writes that a register may see in one run, and numbers that a swapped key may have.
pub const VALUES: usize = 3000;
/// Pieces that a client may add in one run.
pub const PIECES: usize = 200;
/// Clients there are at most.
const CLIENTS: usize = 4;
/// What a counter begins with.
pub const BASE: u64 = 1_000_000;

/// Keys and values, which operations borrow.
pub struct Names {
    pub keys: Vec<String>,
    /// By register.
    values: Vec<Vec<String>>,
    numbers: Vec<String>,
    /// By client.
    pieces: Vec<Vec<String>>,
    owners: Vec<String>,
}

pub fn names() -> &'static Names {
    static NAMES: OnceLock<Names> = OnceLock::new();
    NAMES.get_or_init(|| {
        let keys: Vec<String> = (0..KEYS).map(|key| format!("key{key}")).collect();
        let values = |key: &String| (0..VALUES).map(|n| format!("{key}:{n}")).collect();
        let pieces = |client| (0..PIECES).map(|n| format!("<{client}.{n}>")).collect();
        Names {
            values: keys[REGISTERS].iter().map(values).collect(),
            numbers: (0..VALUES).map(|n| n.to_string()).collect(),
            pieces: (0..CLIENTS).map(pieces).collect(),
            owners: (0..CLIENTS).map(|client| format!("of{client}")).collect(),
            keys,
        }
    })
}

impl Names {
    /// The number of a register's value.
    pub fn value(&self, key: usize, text: &str) -> Option<usize> {
        let number = text.strip_prefix(&self.keys[key])?.strip_prefix(':')?;
        number.parse().ok().filter(|&number| number < VALUES)
    }
}

/// One step of a client.
#[derive(Debug, Clone)]
pub enum Deed {
    Get(usize),
    /// Of all registers.
    GetMulti,
    /// The values of these numbers.
    Set(usize, usize),
    SetMulti(Vec<(usize, usize)>),
    Delete(usize),
    DeleteMulti(Vec<usize>),
    /// One up or down; all counters one up, those that are there.
    Count(usize, bool),
    CountMulti,
    Gets(usize),
    /// Stores this number.
    Swap(usize, CasUnique, usize),
    /// Makes a swapped key that is missing.
    First(usize),
    /// Puts the client's piece of this number before or behind.
    Piece(usize, StoreMode, usize),
    Lock(usize),
    Unlock(usize),
}

impl Deed {
    /// The keys, in the order of the outcomes.
    pub fn keys(&self) -> Vec<usize> {
        match self {
            Deed::GetMulti => REGISTERS.collect(),
            Deed::CountMulti => COUNTERS.collect(),
            Deed::SetMulti(values) => values.iter().map(|&(key, _)| key).collect(),
            Deed::DeleteMulti(keys) => keys.clone(),
            &(Deed::Get(key)
            | Deed::Set(key, _)
            | Deed::Delete(key)
            | Deed::Count(key, _)
            | Deed::Gets(key)
            | Deed::Swap(key, ..)
            | Deed::First(key)
            | Deed::Piece(key, ..)
            | Deed::Lock(key)
            | Deed::Unlock(key)) => vec![key],
        }
    }
}

/// What an operation told its caller.
#[derive(Debug)]
pub enum Outcome {
    /// Reads, in the order of the keys.
    Found(Vec<Result<Option<String>, Error>>),
    /// set, delete, add, append: whether there was something to do.
    Wrote(Vec<Result<bool, Error>>),
    Counted(Vec<Result<Option<u64>, Error>>),
    Versioned(Result<Option<(String, CasUnique)>, Error>),
    Swapped(Result<Cas, Error>),
}

/// An operation under way, and what becomes of it.
pub trait Job {
    fn operation(&mut self) -> &mut dyn Operation;
    fn finish(self: Box<Self>) -> Outcome;
}

struct Made<O, F>(O, F);

impl<O: Operation, F: FnOnce(O) -> Outcome> Job for Made<O, F> {
    fn operation(&mut self) -> &mut dyn Operation {
        &mut self.0
    }

    fn finish(self: Box<Self>) -> Outcome {
        (self.1)(self.0)
    }
}

fn job<O, R, F>(call: Call<O, F>, outcome: fn(R) -> Outcome) -> Box<dyn Job>
where
    O: Operation + 'static,
    R: 'static,
    F: FnOnce(O) -> R + 'static,
{
    let finish = call.finish;
    Box::new(Made(call.operation, move |operation| {
        outcome(finish(operation))
    }))
}

/// What comes behind an operation during which the nodes changed; then its outcome is told.
pub fn follow(
    context: Context,
    replaced: Replaced,
    old: Arc<Ring>,
    outcome: Outcome,
) -> Box<dyn Job> {
    // As all that operations borrow here.
    let replaced = Box::leak(Box::new(replaced));
    let write = calls::follow(context, replaced, old);
    Box::new(Made(write, move |_| outcome))
}

fn text(item: Item) -> String {
    String::from_utf8(item.value.to_vec()).expect("text")
}

fn found(found: Result<Option<Item>, Error>) -> Result<Option<String>, Error> {
    found.map(|found| found.map(text))
}

/// The operation of a deed.
pub fn begin(context: Context, client: usize, deed: &Deed) -> Box<dyn Job> {
    let names = names();
    let key = |key: usize| names.keys[key].as_bytes();
    let value = |at: usize, number: usize| Payload::from(names.values[at][number].as_str());
    match deed {
        &Deed::Get(at) => job(calls::get(context, key(at)), |one| {
            Outcome::Found(vec![found(one)])
        }),
        Deed::GetMulti => {
            let keys = REGISTERS.map(key).collect();
            job(calls::get_multi(context, keys), |all| {
                Outcome::Found(all.into_iter().map(found).collect())
            })
        }
        &Deed::Set(at, number) => {
            let call = calls::set(context, key(at), value(at, number), None);
            job(call, |one| Outcome::Wrote(vec![one.map(|_| true)]))
        }
        Deed::SetMulti(values) => {
            let entry = |&(at, number): &(usize, usize)| Entry {
                key: key(at),
                value: value(at, number),
            };
            let entries = values.iter().map(entry).collect();
            job(calls::set_multi(context, entries, None), |all| {
                Outcome::Wrote(all.into_iter().map(|one| one.map(|_| true)).collect())
            })
        }
        &(Deed::Delete(at) | Deed::Unlock(at)) => job(calls::delete(context, key(at)), |one| {
            Outcome::Wrote(vec![one])
        }),
        Deed::DeleteMulti(keys) => {
            let keys = keys.iter().map(|&at| key(at)).collect();
            job(calls::delete_multi(context, keys), Outcome::Wrote)
        }
        &Deed::Count(at, down) => {
            let create = Some((if down { BASE - 1 } else { BASE + 1 }, None));
            let call = calls::count(context, key(at), down, 1, create);
            job(call, |one| Outcome::Counted(vec![one]))
        }
        Deed::CountMulti => {
            let keys = COUNTERS.map(key).collect();
            let call = calls::count_multi(context, keys, false, 1);
            job(call, Outcome::Counted)
        }
        &Deed::Gets(at) => job(calls::gets(context, key(at)), |one| {
            let versioned = |(item, unique)| (text(item), unique);
            Outcome::Versioned(one.map(|found| found.map(versioned)))
        }),
        &Deed::Swap(at, unique, number) => {
            let value = names.numbers[number].as_str().into();
            let call = calls::cas(context, key(at), value, unique, None);
            job(call, Outcome::Swapped)
        }
        &Deed::First(at) => {
            let value = names.numbers[0].as_str().into();
            let call = calls::store(context, key(at), value, StoreMode::Add, None);
            job(call, |one| Outcome::Wrote(vec![one]))
        }
        &Deed::Piece(at, mode, number) => {
            let value = names.pieces[client][number].as_str().into();
            let call = calls::store(context, key(at), value, mode, None);
            job(call, |one| Outcome::Wrote(vec![one]))
        }
        &Deed::Lock(at) => {
            let value = names.owners[client].as_str().into();
            let call = calls::store(context, key(at), value, StoreMode::Add, None);
            job(call, |one| Outcome::Wrote(vec![one]))
        }
    }
}
