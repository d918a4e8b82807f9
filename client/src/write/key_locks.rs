//! Keeps the writes of one key in one order, in the store or queue and in the cache.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

const LOCKS: usize = 64;

/// Locks, each for a part of the keys; `L` is a mutex of whatever kind.
#[derive(Debug)]
pub(crate) struct KeyLocks<L> {
    hasher: RandomState,
    locks: [L; LOCKS],
}

/// Those of threads.
pub(super) type Order = KeyLocks<Mutex<()>>;

impl<L: Default> Default for KeyLocks<L> {
    fn default() -> Self {
        KeyLocks {
            hasher: RandomState::new(),
            locks: std::array::from_fn(|_| L::default()),
        }
    }
}

impl<L> KeyLocks<L> {
    /// The lock of a key, which other keys may share.
    pub(crate) fn of(&self, key: &[u8]) -> &L {
        &self.locks[self.hasher.hash_one(key) as usize % LOCKS]
    }
}

impl Order {
    /// Waits until nobody else writes the key.
    pub(super) fn lock(&self, key: &[u8]) -> MutexGuard<'_, ()> {
        let lock = self.of(key).lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }
}
