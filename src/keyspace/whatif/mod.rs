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
//! Wi1. One key in [`ONE_IN_FIRST`] is followed, until the largest cache holds [`KEYS_FIRST`] keys: then every other one is
//!      let go, and again at [`KEYS_SMALL`]. From one key in [`ONE_IN_LARGE`] on, it may hold [`KEYS_LARGE`]. So a cache of
//!      some thousand keys is followed closely, as chance weighs most there.
//!
//! What it does not see: keys that would have expired in a larger cache count as hits there.
//!
//! Costs: for a worker, a comparison a request, and for a key that is followed a word written; for the watcher some 60
//! instructions an event. Some 100 bytes a key followed, for all five caches.

mod caches;
mod ring;

use caches::{ALL_HIT, CACHES, Caches};

pub use caches::Kind;
pub use ring::{Deed, Ring};

/// What was learnt weighs so much less each second: half after ten minutes.
pub const FADE_A_SECOND: f64 = 0.998_845;
/// The memory of the caches, in times of what there is.
pub const TIMES: [f64; CACHES] = [0.25, 0.5, 1.0, 2.0, 4.0];
/// The place of 1 in [`TIMES`].
const ONCE: usize = 2;
/// One key in so many is followed at first, and as long as there are few.
pub const ONE_IN_FIRST: u32 = 2;
/// Keys of the largest cache then: enough for the recorded trace with the fewest keys.
const KEYS_FIRST: usize = 3072;
/// Keys of the largest cache from then on, below one in [`ONE_IN_LARGE`].
const KEYS_SMALL: usize = 2048;
/// So few keys are followed of a large cache.
const ONE_IN_LARGE: u32 = 256;
/// Keys of the largest cache then.
const KEYS_LARGE: usize = 64 * 1024;

/// True if keys of this hash are followed when one in `mask + 1`, a power of two, is.
#[inline(always)]
pub fn is_followed(hash: u32, mask: u32) -> bool {
    // Not the upper bits, which say where in the table an item is: neighbours would all be followed, or none.
    hash & mask == 0
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
    caches: Caches,
    /// What hit in each cache, beside what hit in all.
    hits: [f64; CACHES],
    hits_of_all: f64,
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
            caches: Caches::default(),
            hits: [0.0; CACHES],
            hits_of_all: 0.0,
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
        self.caches.bytes()
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
        match deed {
            Deed::Hit | Deed::Miss => {
                let hit = self.caches.read(hash, self.kind);
                if hit == ALL_HIT {
                    self.hits_of_all += weight;
                    return;
                }
                for (at, hits) in self.hits.iter_mut().enumerate() {
                    *hits += if hit >> at & 1 == 1 { weight } else { 0.0 };
                }
                // Where it was evicted whoever asked would have stored it again.
                if deed == Deed::Hit {
                    self.store(hash, bytes);
                }
            }
            Deed::Store => self.store(hash, bytes),
            Deed::Gone | Deed::Delete => self.caches.remove(hash),
        }
    }

    fn store(&mut self, hash: u32, bytes: u32) {
        let rooms = TIMES.map(|times| (self.full as f64 * times / f64::from(self.one_in)) as u64);
        self.caches.store(hash, bytes, rooms, self.kind);
        let most = match self.one_in {
            ONE_IN_FIRST => KEYS_FIRST,
            ..ONE_IN_LARGE => KEYS_SMALL,
            _ => KEYS_LARGE,
        };
        if self.caches.held(CACHES - 1) > most {
            self.follow_fewer();
        }
    }

    /// Follows half as many keys.
    pub fn follow_fewer(&mut self) {
        self.one_in *= 2;
        self.caches
            .let_go(|hash| is_followed(hash, self.one_in - 1));
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
        self.hits_of_all *= factor;
        for hits in &mut self.hits {
            *hits *= factor;
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
            let hits = self.hits[at] + self.hits_of_all + reads - self.reads;
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
        let mut cache = Caches::default();
        let mut hits = 0;
        for &key in keys {
            if cache.read(hash_of(key, 1), kind) == ALL_HIT {
                hits += 1;
            } else {
                cache.store(hash_of(key, 1), 100, [room; CACHES], kind);
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
            let mut real = Caches::default();
            for &key in &keys {
                let hash = hash_of(key, 1);
                if real.read(hash, kind) == ALL_HIT {
                    what_if.note(hash, Deed::Hit, 100);
                } else {
                    real.store(hash, 100, [full; CACHES], kind);
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
        assert!(what_if.caches.held(CACHES - 1) <= KEYS_LARGE);
        assert_eq!(what_if.one_in(), ONE_IN_LARGE);
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
}
