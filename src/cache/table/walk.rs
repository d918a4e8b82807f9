//! A walk over all items in the order of the table, in which a key has its place whatever chunk its item lies in: an item
//! that is replaced or moved meanwhile is not missed.
//!
//! ```text
//!  stripe 0: family 0, 1, 2 ..     stripe 1: ..        family: a bucket as it was when the walk came to the stripe, and
//!  \__ so many under one hold of the lock               those that have split off from it since
//! ```
//!
//! Wk1. A key that is in the table from the start of a walk to its end is met once. A bucket only ever splits into itself and
//!     one of the same lower bits of its number, so that a family keeps its keys.

use slab_alloc::ChunkHandle;

use super::{Block, StripeGuard, Table};

/// Where a walk is.
#[derive(Debug, Clone, Copy, Default)]
pub struct TableCursor {
    stripe: usize,
    family: u32,
    /// Level and split of the stripe when the walk came to it.
    shape: Option<(u32, u32)>,
}

impl TableCursor {
    /// At the beginning of a stripe.
    pub fn at_stripe(stripe: usize) -> Self {
        TableCursor {
            stripe,
            ..TableCursor::default()
        }
    }
}

impl Table {
    /// Takes the next items of the walk into `handles`, `wanted` of them or somewhat more, fewer at a stripe's end. Gives
    /// their stripe, still locked; none when the walk is over.
    pub fn walk<'t>(
        &'t self,
        cursor: &mut TableCursor,
        wanted: usize,
        handles: &mut Vec<ChunkHandle>,
    ) -> Option<StripeGuard<'t>> {
        handles.clear();
        if cursor.stripe >= self.stripes.len() {
            return None;
        }
        let guard = self.lock_stripe(cursor.stripe);
        let (level, split) = *cursor
            .shape
            .get_or_insert((guard.state.level, guard.state.split));
        let families = (1 << level) + split;
        while cursor.family < families && handles.len() < wanted {
            let family = cursor.family;
            let bits = if family < split || family >= 1 << level {
                level + 1
            } else {
                level
            };
            guard.take_family(family, bits, handles);
            cursor.family += 1;
        }
        if cursor.family == families {
            *cursor = TableCursor::at_stripe(cursor.stripe + 1);
        }
        Some(guard)
    }
}

impl StripeGuard<'_> {
    /// Adds the items of all buckets whose lower `bits` are `family`.
    fn take_family(&self, family: u32, bits: u32, handles: &mut Vec<ChunkHandle>) {
        let buckets = (1u64 << self.state.level) + u64::from(self.state.split);
        let members = (u64::from(family)..buckets).step_by(1 << bits);
        for local in members {
            let index = (local as usize) << self.table.stripe_bits | self.stripe;
            let home = Block(self.table.buckets.get(index));
            let chain = std::iter::successors(Some(home), |&block| self.after(block));
            for block in chain {
                handles.extend((0..block.slots()).map_while(|slot| block.handle(slot)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::table::KeyHash;
    use std::collections::BTreeMap;

    /// Wk1, while the table grows under the walk to several times its size.
    #[test]
    fn a_walk_meets_each_key_once_while_the_table_grows() {
        let table = Table::new(8, 1, true, 1 << 30).unwrap();
        let hash = |n: u32| table.hash(&n.to_le_bytes());
        let insert = |n: u32| {
            let handle = ChunkHandle::from_raw(n).expect("not 0");
            table.lock(hash(n)).insert(hash(n), handle);
        };
        const FIRST: u32 = 200_000;
        (1..=FIRST).for_each(insert);
        let before = table.shape().buckets;
        let (mut cursor, mut handles) = (TableCursor::default(), Vec::new());
        let mut met: BTreeMap<u32, u32> = BTreeMap::new();
        let mut next = FIRST + 1;
        while let Some(guard) = table.walk(&mut cursor, 16, &mut handles) {
            drop(guard);
            assert!(handles.len() < 16 + 200, "{}", handles.len());
            for handle in &handles {
                *met.entry(handle.to_raw()).or_default() += 1;
            }
            // Some go, of those that have not been met too; and twice as many come as are met.
            for _ in 0..handles.len() * 2 {
                insert(next);
                next += 1;
            }
        }
        assert!(table.shape().buckets > 2 * before);
        assert!((1..=FIRST).all(|n| met.get(&n) == Some(&1)));
        assert!(met.values().all(|&times| times == 1));
    }

    #[test]
    fn a_walk_meets_what_is_replaced_meanwhile() {
        let table = Table::new(4, 1, true, 1 << 30).unwrap();
        let keys: Vec<KeyHash> = (0..5000u32).map(|n| table.hash(&n.to_le_bytes())).collect();
        for (n, &hash) in (1..).zip(&keys) {
            table
                .lock(hash)
                .insert(hash, ChunkHandle::from_raw(n).unwrap());
        }
        let (mut cursor, mut handles) = (TableCursor::default(), Vec::new());
        let mut met = std::collections::BTreeSet::new();
        let mut round = 0;
        while let Some(guard) = table.walk(&mut cursor, 8, &mut handles) {
            drop(guard);
            met.extend(handles.iter().map(|handle| handle.to_raw() % 10_000));
            round += 1;
            // Each key's item goes to another chunk, all the time.
            for (n, &hash) in (1u32..).zip(&keys).skip(round % 7).step_by(7) {
                let mut guard = table.lock(hash);
                let of_key = |handle: ChunkHandle| handle.to_raw() % 10_000 == n;
                let (slot, _) = guard.find(hash, of_key).unwrap();
                let other = n + 10_000 * (round as u32 % 1000 + 1);
                guard.replace(slot, ChunkHandle::from_raw(other).unwrap());
            }
        }
        assert_eq!(met.len(), 5000);
    }
}
