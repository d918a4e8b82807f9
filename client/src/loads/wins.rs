//! The right to load a value, which a node gave to one caller of all processes.
//!
//! ```text
//!  node says W -> Win --spend--> what was loaded is stored under its CAS unique
//!                  | dropped: its caller was, in the middle of loading
//!                  '--> left --reclaim--> Win of the next caller in this process to hear from the node that
//!                                         "another" loads this very version: that other was this process
//! ```
//!
//! Wn1. A win is had by one caller, or left, or neither: once it is spent, or a newer one of its key was left.
//! Wn2. Left wins are bounded by `LEFT_MAX`. What is lost costs others the rest of the lease, no more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client_core::value::CasUnique;

/// The most wins that are kept for whoever comes next: some 100 bytes each, and the key.
const LEFT_MAX: usize = 4096;

/// The wins that were left. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wins(Arc<Mutex<HashMap<Arc<[u8]>, Lease>>>);

/// What the node gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    /// What it was won for: the value's version, or the empty item's.
    pub(crate) unique: CasUnique,
    pub(crate) since: Instant,
    /// Others wait for so long.
    pub(crate) time: Duration,
    /// There is a value.
    pub(crate) refresh: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Win {
    wins: Wins,
    key: Arc<[u8]>,
    lease: Lease,
    spent: bool,
}

impl Wins {
    /// A node gave `lease` to this caller.
    pub(crate) fn won(&self, key: &Arc<[u8]>, lease: Lease) -> Win {
        Win {
            wins: self.clone(),
            key: key.clone(),
            lease,
            spent: false,
        }
    }

    /// Another caller was given the lease of this version: if it left that, it is this caller's now.
    pub(crate) fn reclaim(&self, key: &Arc<[u8]>, unique: CasUnique) -> Option<Win> {
        // Whatever was left for another version is over.
        let lease = self.left().remove(key)?;
        (lease.unique == unique).then(|| self.won(key, lease))
    }

    fn left(&self) -> MutexGuard<'_, HashMap<Arc<[u8]>, Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, key: &Arc<[u8]>, lease: Lease) {
        let mut left = self.left();
        if left.len() >= LEFT_MAX {
            left.retain(|_, old| lease.since.saturating_duration_since(old.since) < old.time);
        }
        if left.len() < LEFT_MAX {
            left.insert(key.clone(), lease);
        }
    }
}

impl Win {
    /// Uses it up.
    pub(crate) fn spend(mut self) -> Lease {
        self.spent = true;
        self.lease
    }
}

impl Drop for Win {
    fn drop(&mut self) {
        if !self.spent {
            self.wins.leave(&self.key, self.lease);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn lease(number: u64, since: Instant) -> Lease {
        Lease {
            unique: CasUnique { number, node: 7 },
            since,
            time: 5 * S,
            refresh: false,
        }
    }

    #[test]
    fn what_is_dropped_is_reclaimed_once_and_for_its_version_only() {
        let (wins, now) = (Wins::default(), Instant::now());
        let (a, b): (Arc<[u8]>, Arc<[u8]>) = (b"a"[..].into(), b"b"[..].into());
        let unique = lease(1, now).unique;
        assert!(wins.reclaim(&a, unique).is_none());
        drop(wins.won(&a, lease(1, now)));
        assert!(wins.reclaim(&b, unique).is_none());
        let again = wins.reclaim(&a, unique).expect("left");
        assert!(wins.reclaim(&a, unique).is_none());
        drop(again);
        let spent = wins.reclaim(&a, unique).expect("left again").spend();
        assert_eq!((spent.unique, spent.since), (unique, now));
        assert!(wins.reclaim(&a, unique).is_none());
        drop(wins.won(&a, lease(2, now)));
        assert!(wins.reclaim(&a, unique).is_none());
    }

    #[test]
    fn they_are_bounded_and_make_room_when_they_are_over() {
        let (wins, now) = (Wins::default(), Instant::now());
        let leave = |range: std::ops::Range<usize>, at| {
            for i in range {
                drop(wins.won(&i.to_string().into_bytes().into(), lease(1, at)));
            }
        };
        leave(0..LEFT_MAX + 10, now);
        assert_eq!(wins.left().len(), LEFT_MAX);
        leave(LEFT_MAX + 10..LEFT_MAX + 11, now + 5 * S);
        assert_eq!(wins.left().len(), 1);
    }
}
