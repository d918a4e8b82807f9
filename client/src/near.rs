//! A cache in the process, before the nodes: for the few keys that are read all the time.
//!
//! ```text
//!  get: near cache --hit--> value            a write or delete is done: epoch of the key's group + 1, entry removed
//!            | miss
//!            '--> node --> kept if the group's epoch is what it was before the node was asked
//! ```
//!
//! Ne1. Once a write or a delete through this client (or a clone) has returned, none of its reads gives the old value from
//!     here. What others write is seen after [`NearCache::new`]'s time at most, and no value outlives its time to live by
//!     more than the second that nodes count in.
//! Ne2. Memory is bounded by [`NearCache::bytes_max`]: keys, values, and 160 bytes each.
//!
//! The crate quick_cache evicts, by its variant of Clock-PRO. It brings two crates along where moka brings a dozen.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

pub use client_core::options::NearCache;
use client_core::value::Item;

/// What an entry costs beside key and value: its handles and the cache's own bookkeeping, about.
const ENTRY_BYTES: usize = 160;
/// Groups of keys that share an epoch. With more, a write keeps fewer others from being kept.
const EPOCHS: usize = 256;

#[derive(Debug, Clone)]
struct Entry {
    item: Item,
    until: Instant,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Box<[u8]>, Entry> for ByBytes {
    fn weight(&self, key: &Box<[u8]>, entry: &Entry) -> u64 {
        (key.len() + entry.item.value.len() + ENTRY_BYTES) as u64
    }
}

/// See the module.
pub(crate) struct Near {
    options: NearCache,
    cache: Cache<Box<[u8]>, Entry, ByBytes>,
    hasher: RandomState,
    /// An entry is put in and taken out under its group's lock, so that none is ever in view that is older than a write.
    epochs: Box<[Mutex<u64>]>,
}

/// What is to be had before the node is asked, for [`Near::keep`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch(u64);

impl Near {
    pub(crate) fn new(options: NearCache) -> Self {
        let items = (options.bytes_max / (ENTRY_BYTES as u64 + 256)).clamp(16, 1 << 20) as usize;
        Near {
            cache: Cache::with_weighter(items, options.bytes_max, ByBytes),
            options,
            hasher: RandomState::new(),
            epochs: (0..EPOCHS).map(|_| Mutex::new(0)).collect(),
        }
    }

    fn group(&self, key: &[u8]) -> MutexGuard<'_, u64> {
        let group = &self.epochs[self.hasher.hash_one(key) as usize % EPOCHS];
        group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &[u8], now: Instant) -> Option<Item> {
        let entry = self.cache.get(key)?;
        if entry.until <= now {
            self.cache.remove(key);
            return None;
        }
        Some(entry.item)
    }

    /// To be called before the node is asked.
    pub(crate) fn epoch(&self, key: &[u8]) -> Epoch {
        Epoch(*self.group(key))
    }

    /// Keeps what the node said, unless the key was written since `epoch`. `left` is its time to live as the node tells it,
    /// -1 without end.
    pub(crate) fn keep(&self, key: &[u8], item: &Item, left: i64, epoch: Epoch, now: Instant) {
        let left = match left {
            -1 => self.options.ttl,
            left => self
                .options
                .ttl
                .min(Duration::from_secs(left.max(0).unsigned_abs())),
        };
        if item.value.len() > self.options.value_bytes_max || left.is_zero() {
            return;
        }
        // A value of a batch would keep the whole batch in memory.
        let value = Bytes::copy_from_slice(&item.value);
        let entry = Entry {
            item: Item { value, ..*item },
            until: now + left,
        };
        let now = self.group(key);
        if *now == epoch.0 {
            self.cache.insert(key.into(), entry);
        }
    }

    /// To be called when `key` was written.
    pub(crate) fn forget(&self, key: &[u8]) {
        let mut epoch = self.group(key);
        *epoch += 1;
        self.cache.remove(key);
    }

    /// To be called when everything was written.
    pub(crate) fn clear(&self) {
        for epoch in &self.epochs {
            *epoch.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
        self.cache.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn kept_for_the_shorter_time() {
        let (near, now) = (Near::new(NearCache::new(5 * S)), Instant::now());
        let item = Item::from("v");
        for (key, left, kept) in [("a", -1, 5), ("b", 60, 5), ("c", 2, 2), ("d", 0, 0)] {
            let key = key.as_bytes();
            near.keep(key, &item, left, near.epoch(key), now);
            let almost = now + S * kept - Duration::from_nanos(u64::from(kept > 0));
            assert_eq!(near.get(key, almost).is_some(), kept > 0);
            assert_eq!(near.get(key, now + S * kept), None);
        }
    }

    #[test]
    fn a_write_between_read_and_keeping_wins() {
        let (near, now) = (Near::new(NearCache::new(S)), Instant::now());
        let epoch = near.epoch(b"k");
        near.forget(b"k");
        near.keep(b"k", &"old".into(), -1, epoch, now);
        assert_eq!(near.get(b"k", now), None);
        near.keep(b"k", &"new".into(), -1, near.epoch(b"k"), now);
        assert_eq!(near.get(b"k", now), Some("new".into()));
        let epoch = near.epoch(b"k");
        near.clear();
        assert_eq!(near.get(b"k", now), None);
        near.keep(b"k", &"old".into(), -1, epoch, now);
        assert_eq!(near.get(b"k", now), None);
    }

    #[test]
    fn memory_is_bounded() {
        let bytes_max = 1 << 20;
        let near = Near::new(NearCache::new(S).bytes_max(bytes_max).value_bytes_max(2000));
        let (now, value) = (Instant::now(), vec![0; 2000]);
        for i in 0..10_000_u32 {
            let key = i.to_string();
            near.keep(
                key.as_bytes(),
                &value.clone().into(),
                -1,
                near.epoch(key.as_bytes()),
                now,
            );
        }
        assert!(near.cache.weight() <= bytes_max);
        assert!(near.cache.len() > 300, "{}", near.cache.len());
        near.keep(
            b"large",
            &vec![0; 2001].into(),
            -1,
            near.epoch(b"large"),
            now,
        );
        assert_eq!(near.get(b"large", now), None);
    }
}
