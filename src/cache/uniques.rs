//! CAS uniques, and the clock of stores. Both are counted by stripe, so that stores on many cores write no line in common.
//!
//! ```text
//!  unique = count of the key's stripe * stripes + number of the stripe      clock: steps of 16 stores, one stripe at a time
//! ```
//!
//! Cu1. The count of a stripe grows with each store to it, under its lock: a unique never comes twice, and those of one key
//!     grow. Those of two keys say nothing of which was stored first.
//! Cu2. No unique above [`Stores::highest`] was given out.
//! Cu3. What clients choose (`E` of the meta commands) moves no count. Clients mark repairs by uniques from 2^63 on; counted
//!     ones never come there: it would take a stripe of the largest table 4 million stores a second for four years.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::table::{KeyHash, StripeGuard, Table};

/// Stores of small values to a stripe of which the clock is told together, so that one in 16 writes its line. Each stripe
/// begins elsewhere, so that it goes evenly.
const STEP: u32 = 16;
/// A value of so many bytes is told of at once: beside copying it, that costs nothing. Where values are large, few of them are
/// many.
const LARGE: usize = 4 << 10;

/// What all stripes' stores make together.
#[derive(Debug, Default)]
pub struct Stores {
    clock: AtomicU64,
    highest: AtomicU64,
}

impl Stores {
    /// Goes on where another process has been.
    pub fn resume(clock: u64) -> Self {
        Stores {
            clock: AtomicU64::new(clock),
            highest: AtomicU64::default(),
        }
    }

    /// Stores to the whole cache, but for the last few of each stripe: the clock that `reclaim` compares classes by.
    #[inline]
    pub fn clock(&self) -> u64 {
        self.clock.load(Relaxed)
    }

    /// A unique that all given out so far do not exceed.
    pub fn highest(&self) -> u64 {
        self.highest.load(Relaxed)
    }

    /// Counts a store of so many bytes to this stripe; gives the unique for its item.
    #[inline]
    pub fn count(&self, guard: &StripeGuard<'_>, value_len: usize) -> u64 {
        let count = guard.count_store();
        if value_len >= LARGE {
            self.step(guard.table(), count, 1);
        } else if guard.count_small().is_multiple_of(STEP) {
            self.step(guard.table(), count, STEP);
        }
        count << guard.table().stripe_bits() | guard.number() as u64
    }

    #[cold]
    #[inline(never)]
    fn step(&self, table: &Table, count: u64, stores: u32) {
        self.clock.fetch_add(stores.into(), Relaxed);
        self.cover(table, count);
    }

    /// The highest unique covers what a stripe of this count gives out before its next step (Cu2).
    fn cover(&self, table: &Table, count: u64) {
        let above = (count + u64::from(STEP) + 1) << table.stripe_bits();
        if self.highest() < above {
            self.highest.fetch_max(above, Relaxed);
        }
    }

    /// Sees to it that no unique up to `last` is given out any more.
    pub fn pass(&self, table: &Table, last: u64) {
        let count = (last >> table.stripe_bits()) + 1;
        self.cover(table, count);
        for stripe in 0..table.stripes() {
            table.lock_stripe(stripe).raise_count(count);
        }
    }
}

/// Stores to the whole cache since this unique was given out to a key of this hash, to judge by the stores to its stripe.
pub fn stores_since(table: &Table, hash: KeyHash, unique: u64) -> u64 {
    let now = table.count_of(hash) << table.stripe_bits();
    now.saturating_sub(unique)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn table() -> Table {
        Table::new(8, 8, true, 1 << 20).unwrap()
    }

    /// Cu1 and Cu2, and a clock that is behind by no more than a step a stripe.
    #[test]
    fn uniques_grow_by_stripe_and_never_come_twice() {
        let (table, stores) = (table(), Stores::default());
        stores.pass(&table, 0);
        let (mut last, mut all) = (HashMap::new(), std::collections::HashSet::new());
        let mut rng = crate::cache::testing::Rng::new(3);
        for n in 1..=50_000u64 {
            // One stripe has half of all stores.
            let stripe = if n.is_multiple_of(2) {
                5
            } else {
                rng.below(256)
            };
            let unique = stores.count(&table.lock_stripe(stripe), 100);
            assert!(all.insert(unique));
            assert!(last.insert(stripe, unique).is_none_or(|last| last < unique));
            assert!(unique <= stores.highest());
            assert!(stores.clock().abs_diff(n) < 256 * u64::from(STEP));
        }
    }

    #[test]
    fn large_values_are_counted_at_once() {
        let (table, stores) = (table(), Stores::default());
        for n in 1..=20 {
            stores.count(&table.lock_stripe(n), LARGE);
            assert_eq!(stores.clock(), n as u64);
        }
    }

    #[test]
    fn what_was_given_out_elsewhere_is_passed_in_all_stripes() {
        let (table, stores) = (table(), Stores::resume(77));
        stores.pass(&table, 1_000_003);
        stores.pass(&table, 5);
        assert_eq!(stores.clock(), 77);
        for stripe in 0..256 {
            let unique = stores.count(&table.lock_stripe(stripe), 100);
            assert!(unique > 1_000_003 && unique < 1_000_003 + 1024);
            assert!(unique <= stores.highest());
        }
    }
}
