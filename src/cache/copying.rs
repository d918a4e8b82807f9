//! All items with their values, handed out step by step: for whoever writes them down while the server goes on.
//!
//! Cp1. A step holds one stripe, for some [`ITEMS_A_STEP`] items: a few microseconds.
//! Cp2. Each item is shown as a whole, and as it is at that moment. A large value is pinned, to be read when the stripe is
//!     let go.
//! Cp3. A key that is there from the first step to the last is shown once (Wk1), whatever is stored meanwhile.

use slab_alloc::ChunkHandle;

use super::ahead::PREFETCH_BYTES_MAX;
use super::item::PinnedValue;
use super::store::{Cache, Lookup};
use super::table::TableCursor;
use super::view::ItemHead;
use crate::clock::RelTime;

/// Items that a step shows, or somewhat more: as many cache misses are under way together.
pub const ITEMS_A_STEP: usize = 32;

/// How far the copying is.
#[derive(Debug, Default)]
pub struct CopyCursor {
    table: TableCursor,
    handles: Vec<ChunkHandle>,
}

impl CopyCursor {
    /// Goes on at the beginning of this stripe ([`Cache::stripes`]).
    pub fn go_to_stripe(&mut self, stripe: usize) {
        self.table = TableCursor::at_stripe(stripe);
    }
}

/// The value of an item that is copied.
#[derive(Debug)]
pub enum CopiedValue<'e, 'c> {
    /// To be copied at once.
    Small(&'e [u8]),
    /// A hold on a large one.
    Large(PinnedValue<'c>),
}

impl Cache {
    /// Shows the next live items to `take`, which should be quick: a stripe is locked. True when all were shown.
    pub fn copy_step<'c>(
        &'c self,
        cursor: &mut CopyCursor,
        now: RelTime,
        mut take: impl FnMut(ItemHead<'_>, CopiedValue<'_, 'c>),
    ) -> bool {
        let CopyCursor { table, handles } = cursor;
        let Some(guard) = self.table.walk(table, ITEMS_A_STEP, handles) else {
            return true;
        };
        for &handle in &*handles {
            self.items.slabs().prefetch(handle, PREFETCH_BYTES_MAX / 4);
        }
        for &handle in &*handles {
            let header = self.items.header(handle);
            if self.life(header, now) != Lookup::Found {
                continue;
            }
            let value = match self.items.small_value(handle, header) {
                Some(value) => CopiedValue::Small(value),
                None => CopiedValue::Large(self.items.pin(handle)),
            };
            take(ItemHead::of(&self.items, handle, header), value);
        }
        drop(guard);
        false
    }

    /// How many stripes there are.
    pub fn stripes(&self) -> usize {
        self.table.stripes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::small_cache;
    use crate::cache::{At, ItemSpec};
    use std::collections::BTreeMap;

    fn store(cache: &Cache, key: &str, value: &[u8], expires_at: RelTime) {
        let spec = ItemSpec {
            key: key.as_bytes(),
            key_binary: false,
            client_flags: 7,
            expires_at,
            value_len: value.len() as u32,
        };
        let at = At::new(RelTime(10));
        let mut item = cache.create(&spec, at).expect("there is room");
        item.write(value);
        cache
            .entry(cache.sought(key.as_bytes()), at)
            .put(item, None);
    }

    #[test]
    fn all_live_items_are_shown_with_their_values() {
        let cache = small_cache(64);
        for n in 0..3000usize {
            let len = if n % 100 == 0 { 40_000 + n } else { n % 300 };
            let value = vec![n as u8; len];
            let expires_at = if n % 10 == 1 {
                RelTime(20)
            } else {
                RelTime::NEVER
            };
            store(&cache, &format!("k{n}"), &value, expires_at);
        }
        let (mut cursor, mut seen) = (CopyCursor::default(), BTreeMap::new());
        let mut pinned = Vec::new();
        while !cache.copy_step(&mut cursor, RelTime(20), |item, value| match value {
            CopiedValue::Small(value) => drop(seen.insert(item.key().to_vec(), value.to_vec())),
            CopiedValue::Large(value) => pinned.push((item.key().to_vec(), value)),
        }) {}
        for (key, value) in pinned {
            let whole: Vec<u8> = value.unsent(usize::MAX).flatten().copied().collect();
            seen.insert(key, whole);
        }
        assert_eq!(seen.len(), 2700, "those that have ended are not shown");
        for (key, value) in &seen {
            let n: usize = std::str::from_utf8(&key[1..]).unwrap().parse().unwrap();
            assert!(value.iter().all(|&byte| byte == n as u8));
        }
        cache.check_invariants();
    }
}
