//! What is done with keys on each copy.

use crate::request::{self, Count, Requests, StoreMode};
use crate::value::Payload;

/// What is done with each key.
#[derive(Debug, Clone, Copy)]
pub enum Command {
    /// set, or what follows a decision.
    Store {
        /// When a copy takes it.
        mode: StoreMode,
        /// The time to live, as it is sent.
        exptime: i32,
    },
    /// delete.
    Delete {
        /// Only what has this CAS unique.
        compare: Option<u64>,
    },
    /// touch, as what follows a decision.
    Touch {
        /// The time to live, as it is sent.
        exptime: i32,
    },
    /// incr and decr, as what follows a decision.
    Count(Count),
}

/// What places before a change of the ring are told (W4).
pub(super) const DELETE: Command = Command::Delete { compare: None };

/// A key and, for stores, its value.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// As it is sent.
    pub key: &'a [u8],
    /// Empty where there is none.
    pub value: Payload<'a>,
}

impl<'a> Entry<'a> {
    /// Bytes of key and value.
    pub fn byte_count(&self) -> usize {
        self.key.len() + self.value.bytes.len()
    }

    /// A key without a value.
    pub fn key(key: &'a [u8]) -> Self {
        let value = Payload {
            bytes: b"",
            flags: 0,
        };
        Entry { key, value }
    }
}

/// A key, its value and the client flags.
pub(super) type Kept = (Box<[u8]>, Box<[u8]>, u32);

/// What a write has put in the place of other values, kept beyond it.
#[derive(Debug, Clone)]
pub struct Replaced {
    pub(super) command: Command,
    pub(super) entries: Vec<Kept>,
    pub(super) exptimes: Vec<i32>,
}

impl Command {
    /// True if doing it twice does no harm.
    pub(super) fn is_repeatable(self) -> bool {
        match self {
            Command::Store { mode, .. } => matches!(mode, StoreMode::Set),
            Command::Delete { .. } | Command::Touch { .. } => true,
            Command::Count(_) => false,
        }
    }

    pub(super) fn is_delete(self) -> bool {
        matches!(self, Command::Delete { .. })
    }

    /// True if nothing is left of what was there before, wherever it is done.
    pub(super) fn replaces(self) -> bool {
        match self {
            Command::Store { mode, .. } => mode.replaces(),
            Command::Delete { compare } => compare.is_none(),
            Command::Touch { .. } | Command::Count(_) => false,
        }
    }

    pub(super) fn encode(self, out: &mut Requests, entry: &Entry<'_>) {
        match self {
            Command::Store { mode, exptime } => {
                let value = (entry.value.bytes, entry.value.flags);
                // An `add` may have to be taken back.
                let want_cas = mode == StoreMode::Add;
                request::store(out, entry.key, value, exptime, mode, None, want_cas);
            }
            Command::Delete { compare } => request::delete(out, entry.key, compare),
            Command::Touch { exptime } => request::touch(out, entry.key, exptime),
            Command::Count(count) => request::count(out, entry.key, count, false),
        }
    }
}
