//! What a process remembers of keys it loads: how long that took, and since when someone else is at it.
//!
//! ```text
//!  hash of the key -> slot | tag | number |      a fixed number of slots; keys that share one take it from each other
//! ```
//!
//! T1. A slot is read as its key's only if the tag fits; a wrong guess costs a refresh too early or too late, no more.
//!
//! Costs: 8 bytes a slot for loading times, 24 for the leases of others; no allocation after the start.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keys whose loading time is remembered (32 KiB), and whose lease of another (24 KiB).
const DELTAS: usize = 4096;
const LEASES: usize = 1024;

/// See the module.
pub(crate) struct Costs {
    hasher: RandomState,
    /// The upper half is the tag, the lower the microseconds.
    deltas: Box<[AtomicU64]>,
    /// A mean over all keys, in microseconds, newer loads counting more.
    mean_us: AtomicU64,
    leases: Mutex<Box<[Option<Lease>]>>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    tag: u32,
    cas: u64,
    since: Instant,
}

impl Costs {
    pub(crate) fn new() -> Self {
        Costs {
            hasher: RandomState::new(),
            deltas: (0..DELTAS).map(|_| AtomicU64::new(0)).collect(),
            mean_us: AtomicU64::new(0),
            leases: Mutex::new(vec![None; LEASES].into()),
        }
    }

    /// Slot of so many, and tag, which is never 0.
    fn place(&self, key: &[u8], slots: usize) -> (usize, u32) {
        let hash = self.hasher.hash_one(key);
        (hash as usize % slots, (hash >> 32) as u32 | 1)
    }

    /// Loading `key` took so long.
    pub(crate) fn took(&self, key: &[u8], delta: Duration) {
        let us = u32::try_from(delta.as_micros()).unwrap_or(u32::MAX).max(1);
        let (slot, tag) = self.place(key, DELTAS);
        self.deltas[slot].store(u64::from(tag) << 32 | u64::from(us), Ordering::Relaxed);
        let mean = self.mean_us.load(Ordering::Relaxed);
        let mean = if mean == 0 {
            u64::from(us)
        } else {
            (mean * 7 + u64::from(us)) / 8
        };
        self.mean_us.store(mean, Ordering::Relaxed);
    }

    /// How long loading `key` took last, or takes in the mean; zero if nothing was loaded yet.
    pub(crate) fn delta(&self, key: &[u8]) -> Duration {
        let (slot, tag) = self.place(key, DELTAS);
        let known = self.deltas[slot].load(Ordering::Relaxed);
        let us = if (known >> 32) as u32 == tag {
            known & u64::from(u32::MAX)
        } else {
            self.mean_us.load(Ordering::Relaxed)
        };
        Duration::from_micros(us)
    }

    /// Somebody else loads the value of `key` that has this CAS unique: for how long this has been so, as far as is known.
    pub(crate) fn lease_of_other(&self, key: &[u8], cas: u64, now: Instant) -> Duration {
        let (slot, tag) = self.place(key, LEASES);
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        match leases[slot] {
            Some(lease) if (lease.tag, lease.cas) == (tag, cas) => {
                now.saturating_duration_since(lease.since)
            }
            _ => {
                leases[slot] = Some(Lease {
                    tag,
                    cas,
                    since: now,
                });
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn loading_times() {
        let costs = Costs::new();
        assert_eq!(costs.delta(b"a"), Duration::ZERO);
        costs.took(b"a", 80 * MS);
        assert_eq!(costs.delta(b"a"), 80 * MS);
        assert_eq!(costs.delta(b"b"), 80 * MS, "the mean");
        costs.took(b"a", 160 * MS);
        assert_eq!((costs.delta(b"a"), costs.delta(b"b")), (160 * MS, 90 * MS));
        costs.took(b"a", Duration::MAX);
        assert_eq!(costs.delta(b"a"), Duration::from_micros(u32::MAX.into()));
    }

    #[test]
    fn leases_of_others() {
        let (costs, now) = (Costs::new(), Instant::now());
        assert_eq!(costs.lease_of_other(b"a", 1, now), Duration::ZERO);
        assert_eq!(costs.lease_of_other(b"a", 1, now + MS), MS);
        assert_eq!(costs.lease_of_other(b"a", 2, now + 2 * MS), Duration::ZERO);
        assert_eq!(costs.lease_of_other(b"a", 2, now + 5 * MS), 3 * MS);
    }
}
