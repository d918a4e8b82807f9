//! Keys that their nodes say are hot: their copies share the reads.
//!
//! ```text
//!  mg key v f P O81  -->  VA .. P437     437 of a thousand reads at that node are of this key: noted for `HOT_FOR`
//! ```
//!
//! Ho1. At most [`KEYS_MAX`] keys are remembered: no node has more than a few hundred with half a per cent of its reads, and
//!      those that are hottest are told most often.
//!
//! Costs: while nothing is hot, a load a read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long a node's word counts. Each read of a hot key brings another.
const HOT_FOR: Duration = Duration::from_secs(2);
/// A word is not noted again before half of that is over.
const NOTED_AGAIN: Duration = Duration::from_secs(1);
/// Keys that are remembered.
const KEYS_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hot {
    any: AtomicBool,
    /// Keys, and until when they are hot.
    keys: RwLock<Vec<(Box<[u8]>, Instant)>>,
}

impl Hot {
    /// A node said so.
    pub fn note(&self, key: &[u8], now: Instant) {
        if self.left(key, now) > HOT_FOR - NOTED_AGAIN {
            return;
        }
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|(other, until)| *until > now && **other != *key);
        if keys.len() < KEYS_MAX {
            keys.push((key.into(), now + HOT_FOR));
        }
        self.any.store(!keys.is_empty(), Ordering::Relaxed);
    }

    /// True if it is hot.
    #[inline]
    pub fn is_hot(&self, key: &[u8], now: Instant) -> bool {
        self.any.load(Ordering::Relaxed) && !self.left(key, now).is_zero()
    }

    /// How long it is hot, from now on.
    fn left(&self, key: &[u8], now: Instant) -> Duration {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let found = keys.iter().find(|(other, _)| **other == *key);
        found.map_or(Duration::ZERO, |(_, until)| {
            until.saturating_duration_since(now)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_word_counts_for_a_while() {
        let (hot, now) = (Hot::default(), Instant::now());
        assert!(!hot.is_hot(b"a", now));
        hot.note(b"a", now);
        assert!(hot.is_hot(b"a", now + S) && !hot.is_hot(b"b", now));
        assert!(!hot.is_hot(b"a", now + HOT_FOR));
        hot.note(b"a", now + S);
        hot.note(b"a", now + S * 3 / 2);
        assert!(hot.is_hot(b"a", now + S * 5 / 2) && !hot.is_hot(b"a", now + S * 3));
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (hot, now) = (Hot::default(), Instant::now());
        for n in 0..1000u32 {
            hot.note(&n.to_be_bytes(), now);
        }
        assert_eq!(hot.keys.read().unwrap().len(), KEYS_MAX);
        hot.note(b"later", now + HOT_FOR);
        assert_eq!(hot.keys.read().unwrap().len(), 1);
    }
}
