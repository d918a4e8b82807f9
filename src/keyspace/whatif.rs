//! What the hit ratio would be with less memory, or more: small caches that see some of the keys.
//!
//! ```text
//!  worker: a request whose hash ends so --(Ring)--> watcher: five caches, for 1/4, 1/2, 1, 2 and 4 times the memory
//!                                                     each as much smaller as there are fewer keys
//!                                                     expected = measured + (hits of that cache - hits of the one for 1)
//! ```
//!
//! After Waldspurger, Saemundsson, Ahmad, Park, "Cache Modeling and Optimization using Miniature Simulations", USENIX ATC
//! 2017, and the sample of keys by hash of "Efficient MRC Construction with SHARDS", FAST 2015, with its correction: reads
//! that the sample has too few of, because the hottest keys are not in it, are hits at any size. A curve of LRU's reuse
//! distances missed the mark by up to 18 points where LRU and the cache's own policy differ (the trace multi3); a small
//! cache of that policy stays within 3. Only the difference of two small caches is used, so that what both get wrong
//! cancels out.
//!
//! Wi1. One key in [`ONE_IN_FIRST`] is followed, until the largest cache holds [`KEYS_SMALL`] keys: then every other one is
//!      let go. So a cache of few keys is followed closely, and from some million on it is one key in [`ONE_IN_LARGE`],
//!      until there are [`KEYS_LARGE`] of these.
//! Wi2. What a cache holds is at most its room; its queues are at most twice as long as it has keys.
//!
//! What it does not see: keys that would have expired in a larger cache count as hits there.
//!
//! Costs: for a worker, a comparison a request, and for a key that is followed two words written. For the watcher some
//! 0.5 us an event. Some 300 bytes a key followed, for all five caches.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// What was learnt weighs so much less each second: half after ten minutes.
pub const FADE_A_SECOND: f64 = 0.998_845;
/// The memory of the caches, in times of what there is.
pub const TIMES: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];
/// The place of 1 in [`TIMES`].
const ONCE: usize = 2;
/// One key in so many is followed at first, and as long as there are few.
pub const ONE_IN_FIRST: u32 = 8;
/// Keys of the largest cache, below one in [`ONE_IN_LARGE`].
const KEYS_SMALL: usize = 8 * 1024;
/// So few keys are followed of a large cache.
const ONE_IN_LARGE: u32 = 256;
/// Keys of the largest cache, from then on.
const KEYS_LARGE: usize = 64 * 1024;
/// Events a worker may be ahead of the watcher, who comes ten times a second.
const RING: usize = 8192;

/// What became of a key that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Deed {
    /// It was read and was there.
    Hit,
    /// It was read and was not there, for want of memory or because it never was.
    Miss,
    /// It was read and would not have been there in any memory: it had expired, or was deleted or flushed.
    Gone,
    /// It was stored.
    Store,
    /// It was deleted.
    Delete,
}

impl Deed {
    const ALL: [Deed; 5] = [Deed::Hit, Deed::Miss, Deed::Gone, Deed::Store, Deed::Delete];
}

/// True if keys of this hash are followed when one in `mask + 1`, a power of two, is.
#[inline(always)]
pub fn is_followed(hash: u32, mask: u32) -> bool {
    // Not the upper bits, which say where in the table an item is: neighbours would all be followed, or none.
    hash & mask == 0
}

/// Events from one worker to the watcher.
#[derive(Debug)]
pub struct Ring {
    words: Box<[AtomicU64]>,
    /// Events ever written, by the worker.
    written: AtomicU64,
    /// Events ever taken, by the watcher.
    taken: AtomicU64,
    lost: AtomicBool,
}

const BYTES_BITS: u32 = 28;

impl Default for Ring {
    fn default() -> Self {
        Ring {
            words: (0..RING).map(|_| AtomicU64::new(0)).collect(),
            written: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            lost: AtomicBool::new(false),
        }
    }
}

impl Ring {
    /// Bytes of memory that a ring takes.
    pub const BYTES: usize = RING * size_of::<AtomicU64>();

    /// Writes an event; only the owning worker may. One that finds no room is lost.
    pub fn push(&self, hash: u32, deed: Deed, bytes: u32) {
        let written = self.written.load(Relaxed);
        if written - self.taken.load(Acquire) == RING as u64 {
            return self.lost.store(true, Relaxed);
        }
        let bytes = u64::from(bytes.min((1 << BYTES_BITS) - 1));
        let word = u64::from(hash) << 32 | (deed as u64) << BYTES_BITS | bytes;
        self.words[written as usize % RING].store(word, Relaxed);
        self.written.store(written + 1, Release);
    }

    /// Takes all events; only one thread may. True if some were lost since the last time.
    pub fn drain(&self, mut event: impl FnMut(u32, Deed, u32)) -> bool {
        let written = self.written.load(Acquire);
        let mut taken = self.taken.load(Relaxed);
        while taken < written {
            let word = self.words[taken as usize % RING].load(Relaxed);
            let deed = Deed::ALL[(word >> BYTES_BITS) as usize & 7];
            let bytes = word as u32 & ((1 << BYTES_BITS) - 1);
            event((word >> 32) as u32, deed, bytes);
            taken += 1;
            self.taken.store(taken, Release);
        }
        self.lost.swap(false, Relaxed)
    }
}

/// How a small cache decides who gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// S3-FIFO, the default policy.
    S3Fifo,
    /// Least recently used; stands in for all other policies.
    Lru,
}

/// The room of S3-FIFO's small queue, in percent, as in the store's.
const SMALL_PCT: u64 = 5;
/// Reads that are counted of an item.
const USES_MAX: u8 = 3;

#[derive(Debug, Clone, Copy)]
struct Entry {
    bytes: u32,
    uses: u8,
    in_main: bool,
    /// A place in a queue with another stamp is none of this entry's any more.
    stamp: u32,
}

/// A small cache.
#[derive(Debug, Default)]
struct Small {
    entries: HashMap<u32, Entry>,
    /// Hash and stamp; the front gives way first.
    small: VecDeque<(u32, u32)>,
    main: VecDeque<(u32, u32)>,
    small_bytes: u64,
    main_bytes: u64,
    ghost: VecDeque<(u32, u32)>,
    ghosts: HashMap<u32, u32>,
    stamp: u32,
    hits: f64,
}

impl Small {
    /// A read; true if it hits.
    fn read(&mut self, hash: u32, kind: Kind) -> bool {
        let stamp = self.next_stamp();
        let Some(entry) = self.entries.get_mut(&hash) else {
            return false;
        };
        entry.uses = (entry.uses + 1).min(USES_MAX);
        if kind == Kind::Lru {
            entry.stamp = stamp;
            let queue = if entry.in_main {
                &mut self.main
            } else {
                &mut self.small
            };
            queue.push_back((hash, stamp));
            self.tidy();
        }
        true
    }

    fn next_stamp(&mut self) -> u32 {
        self.stamp = self.stamp.wrapping_add(1);
        self.stamp
    }

    fn put(&mut self, hash: u32, bytes: u32, room: u64, kind: Kind) {
        if let Some(entry) = self.entries.get_mut(&hash) {
            let sum = if entry.in_main {
                &mut self.main_bytes
            } else {
                &mut self.small_bytes
            };
            *sum = *sum - u64::from(entry.bytes) + u64::from(bytes);
            entry.bytes = bytes;
        } else {
            let in_main = kind == Kind::S3Fifo && self.ghosts.remove(&hash).is_some();
            let stamp = self.next_stamp();
            let entry = Entry {
                bytes,
                uses: 0,
                in_main,
                stamp,
            };
            self.entries.insert(hash, entry);
            self.enqueue(hash, entry);
        }
        while self.small_bytes + self.main_bytes > room && self.evict(kind) {}
    }

    fn enqueue(&mut self, hash: u32, entry: Entry) {
        let (queue, sum) = if entry.in_main {
            (&mut self.main, &mut self.main_bytes)
        } else {
            (&mut self.small, &mut self.small_bytes)
        };
        queue.push_back((hash, entry.stamp));
        *sum += u64::from(entry.bytes);
    }

    fn remove(&mut self, hash: u32) {
        if let Some(entry) = self.entries.remove(&hash) {
            let sum = if entry.in_main {
                &mut self.main_bytes
            } else {
                &mut self.small_bytes
            };
            *sum -= u64::from(entry.bytes);
            self.tidy();
        }
    }

    /// Drops the places in queues that are nobody's, when they are too many.
    fn tidy(&mut self) {
        let most = 2 * self.entries.len() + 64;
        if self.small.len() + self.main.len() > most {
            let entries = &self.entries;
            let is_current = |&(hash, stamp): &(u32, u32)| {
                entries.get(&hash).is_some_and(|entry| entry.stamp == stamp)
            };
            self.small.retain(is_current);
            self.main.retain(is_current);
        }
    }

    /// Looks at the next in line; false if there is none.
    fn evict(&mut self, kind: Kind) -> bool {
        let all_bytes = self.small_bytes + self.main_bytes;
        let from_small = self.small_bytes * 100 > all_bytes * SMALL_PCT || self.main.is_empty();
        let queue = if from_small {
            &mut self.small
        } else {
            &mut self.main
        };
        let Some((hash, stamp)) = queue.pop_front() else {
            return false;
        };
        let Some(&entry) = self.entries.get(&hash) else {
            return true;
        };
        if entry.stamp != stamp {
            return true;
        }
        self.remove(hash);
        if kind == Kind::Lru {
            return true;
        }
        if entry.uses > 0 {
            let stamp = self.next_stamp();
            let kept = Entry {
                // One that moves to main begins anew there.
                uses: if entry.in_main { entry.uses - 1 } else { 0 },
                in_main: true,
                stamp,
                ..entry
            };
            self.entries.insert(hash, kept);
            self.enqueue(hash, kept);
        } else if !entry.in_main {
            self.remember(hash);
        }
        true
    }

    fn remember(&mut self, hash: u32) {
        let stamp = self.next_stamp();
        self.ghosts.insert(hash, stamp);
        self.ghost.push_back((hash, stamp));
        while self.ghost.len() > self.entries.len().max(1) {
            let Some((hash, stamp)) = self.ghost.pop_front() else {
                break;
            };
            if self.ghosts.get(&hash) == Some(&stamp) {
                self.ghosts.remove(&hash);
            }
        }
    }

    fn let_go(&mut self, mask: u32) {
        let gone: Vec<u32> = self.entries.keys().copied().collect();
        for hash in gone.into_iter().filter(|&hash| !is_followed(hash, mask)) {
            self.remove(hash);
        }
        self.ghosts.retain(|&hash, _| is_followed(hash, mask));
        self.ghost.retain(|&(hash, _)| is_followed(hash, mask));
    }
}

/// Reads and hits of all keys: what the sample is held against.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measured {
    /// Reads.
    pub reads: f64,
    /// Of these hits.
    pub hits: f64,
}

/// The small caches, and what they have learnt.
#[derive(Debug)]
pub struct WhatIf {
    caches: [Small; TIMES.len()],
    one_in: u32,
    kind: Kind,
    /// Bytes of items in the cache when it is full.
    full: u64,
    /// Reads that the sample stands for.
    reads: f64,
    measured: Measured,
}

impl Default for WhatIf {
    fn default() -> Self {
        WhatIf {
            caches: Default::default(),
            one_in: ONE_IN_FIRST,
            kind: Kind::S3Fifo,
            full: u64::MAX / 16,
            reads: 0.0,
            measured: Measured::default(),
        }
    }
}

/// A point of the curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// So many times the memory.
    pub times: f64,
    /// The hit ratio, from 0 to 1.
    pub hit_ratio: f64,
}

impl WhatIf {
    /// One key in so many is followed.
    pub fn one_in(&self) -> u32 {
        self.one_in
    }

    /// Bytes of memory that the small caches take, as near as their collections tell.
    pub fn bytes(&self) -> usize {
        /// What a map takes for an entry: a byte beside it, and an eighth of its places free.
        fn map<K, V>(map: &HashMap<K, V>) -> usize {
            map.capacity() * (size_of::<(K, V)>() + 1) * 8 / 7
        }
        let queue = |queue: &VecDeque<(u32, u32)>| queue.capacity() * size_of::<(u32, u32)>();
        let of = |cache: &Small| {
            map(&cache.entries)
                + map(&cache.ghosts)
                + queue(&cache.small)
                + queue(&cache.main)
                + queue(&cache.ghost)
        };
        self.caches.iter().map(of).sum()
    }

    /// How large the cache is and who gives way in it.
    pub fn shape(&mut self, full: u64, kind: Kind) {
        self.full = full;
        self.kind = kind;
    }

    /// Learns from an event. `bytes` is what the item takes, 0 if that is not known.
    pub fn note(&mut self, hash: u32, deed: Deed, bytes: u32) {
        if !is_followed(hash, self.one_in - 1) {
            return;
        }
        let weight = f64::from(self.one_in);
        if matches!(deed, Deed::Hit | Deed::Miss | Deed::Gone) {
            self.reads += weight;
        }
        for (cache, times) in self.caches.iter_mut().zip(TIMES) {
            let room = (self.full as f64 * times / weight) as u64;
            match deed {
                Deed::Hit | Deed::Miss => {
                    if cache.read(hash, self.kind) {
                        cache.hits += weight;
                    } else if deed == Deed::Hit {
                        // Here it was evicted, so that whoever asks would store it again.
                        cache.put(hash, bytes, room, self.kind);
                    }
                }
                Deed::Store => cache.put(hash, bytes, room, self.kind),
                Deed::Gone | Deed::Delete => cache.remove(hash),
            }
        }
        let most = if self.one_in < ONE_IN_LARGE {
            KEYS_SMALL
        } else {
            KEYS_LARGE
        };
        let largest = &self.caches[TIMES.len() - 1];
        if largest.entries.len() > most {
            self.follow_fewer();
        }
    }

    /// Follows half as many keys.
    pub fn follow_fewer(&mut self) {
        self.one_in *= 2;
        for cache in &mut self.caches {
            cache.let_go(self.one_in - 1);
        }
    }

    /// Adds what all keys have done since the last time.
    pub fn measure(&mut self, more: Measured) {
        self.measured.reads += more.reads;
        self.measured.hits += more.hits;
    }

    /// Lets what was learnt weigh so much less.
    pub fn fade(&mut self, factor: f64) {
        self.reads *= factor;
        self.measured.reads *= factor;
        self.measured.hits *= factor;
        for cache in &mut self.caches {
            cache.hits *= factor;
        }
    }

    /// The expected hit ratios at [`TIMES`] the memory; `None` before there is anything to go by.
    pub fn expect(&self) -> Option<[Expected; TIMES.len()]> {
        let reads = self.measured.reads;
        if reads < 1.0 {
            return None;
        }
        let measured = self.measured.hits / reads;
        let small = |at: usize| {
            let hits = self.caches[at].hits + reads - self.reads;
            (hits / reads).clamp(0.0, 1.0)
        };
        Some(std::array::from_fn(|at| Expected {
            times: TIMES[at],
            hit_ratio: (measured + small(at) - small(ONCE)).clamp(0.0, 1.0),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::testing::Rng;

    fn hash_of(key: usize, seed: u64) -> u32 {
        let mut x = (key as u64).wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31) as u32
    }

    /// Keys by a power law, in a cycle, and once: what caches are asked for.
    fn keys(seed: u64, count: usize) -> Vec<usize> {
        let mut rng = Rng::new(seed);
        (0..count)
            .map(|n| match rng.below(10) {
                0..7 => (20_000.0 * rng.unit().powi(4)) as usize,
                7 => 100_000 + n / 10 % 4000,
                _ => 1_000_000 + n,
            })
            .collect()
    }

    /// The hit ratio of a cache that sees all keys.
    fn hit_ratio(keys: &[usize], room: u64, kind: Kind) -> f64 {
        let mut cache = Small::default();
        let mut hits = 0;
        for &key in keys {
            if cache.read(hash_of(key, 1), kind) {
                hits += 1;
            } else {
                cache.put(hash_of(key, 1), 100, room, kind);
            }
        }
        f64::from(hits) / keys.len() as f64
    }

    #[test]
    fn the_sample_tells_what_all_keys_would() {
        let keys = keys(1, 400_000);
        for kind in [Kind::S3Fifo, Kind::Lru] {
            let full = 800_000;
            let measured = hit_ratio(&keys, full, kind);
            let mut what_if = WhatIf::default();
            what_if.shape(full, kind);
            let mut real = Small::default();
            for &key in &keys {
                let hash = hash_of(key, 1);
                if real.read(hash, kind) {
                    what_if.note(hash, Deed::Hit, 100);
                } else {
                    real.put(hash, 100, full, kind);
                    what_if.note(hash, Deed::Miss, 0);
                    what_if.note(hash, Deed::Store, 100);
                }
            }
            let reads = keys.len() as f64;
            let hits = measured * reads;
            what_if.measure(Measured { reads, hits });
            for expected in what_if.expect().expect("there were reads") {
                let room = (full as f64 * expected.times) as u64;
                let real = hit_ratio(&keys, room, kind);
                let off = (expected.hit_ratio - real).abs();
                assert!(off < 0.015, "{kind:?} {}: {off}", expected.times);
            }
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut what_if = WhatIf::default();
        what_if.shape(u64::MAX / 16, Kind::S3Fifo);
        for key in 0..4_000_000 {
            what_if.note(hash_of(key, 3), Deed::Store, 100);
            what_if.note(hash_of(key, 3), Deed::Hit, 100);
        }
        let largest = &what_if.caches[4];
        assert!(largest.entries.len() <= KEYS_LARGE && what_if.one_in() == ONE_IN_LARGE);
        // Reads of one key in an LRU leave no more behind than there are keys.
        let mut lru = Small::default();
        lru.put(1, 10, 100, Kind::Lru);
        (0..10_000).for_each(|_| _ = lru.read(1, Kind::Lru));
        assert!(lru.small.len() < 100);
        for n in 0..1000 {
            lru.put(n, 10, 100, Kind::Lru);
            assert!(lru.small_bytes + lru.main_bytes <= 100);
        }
        assert_eq!(lru.entries.len(), 10);
        (0..1000).for_each(|n| lru.remove(n));
        assert_eq!((lru.small_bytes, lru.main_bytes), (0, 0));
    }

    #[test]
    fn what_no_memory_would_have_helped_is_no_hit() {
        let mut what_if = WhatIf::default();
        what_if.shape(1 << 20, Kind::S3Fifo);
        for _ in 0..100 {
            what_if.note(0, Deed::Store, 100);
            what_if.note(0, Deed::Hit, 100);
            what_if.note(0, Deed::Gone, 0);
        }
        assert!(what_if.expect().is_none(), "nothing was measured");
        // As if one read in four were of this key.
        let (reads, hits) = (800.0, 400.0);
        what_if.measure(Measured { reads, hits });
        let expected = what_if.expect().expect("there were reads");
        assert!(expected.iter().all(|point| point.hit_ratio == 0.5));
    }

    #[test]
    fn events_come_in_order_and_are_lost_when_nobody_takes_them() {
        let ring = Ring::default();
        for n in 0..RING as u32 + 10 {
            ring.push(n, Deed::ALL[n as usize % 5], n * 7);
        }
        let mut taken = Vec::new();
        let lost = ring.drain(|hash, deed, bytes| taken.push((hash, deed, bytes)));
        assert!(lost);
        assert_eq!(taken.len(), RING);
        for (n, &(hash, deed, bytes)) in taken.iter().enumerate() {
            assert_eq!((hash, bytes), (n as u32, n as u32 * 7));
            assert_eq!(deed, Deed::ALL[n % 5]);
        }
        ring.push(5, Deed::Hit, u32::MAX);
        assert!(!ring.drain(|_, _, bytes| assert_eq!(bytes, (1 << BYTES_BITS) - 1)));
    }
}
