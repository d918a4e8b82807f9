//! Random steps on a cache and on a `HashMap`. The model learns of evictions by absence: each must have been counted.

use std::collections::HashMap;

use super::*;
use crate::cache::Policy;
use crate::cache::testing::{Rng, cache_in_small_pages, small_cache};
use crate::cache::{ClassMask, Lookup, Maintainer, PinnedValue};
use crate::knobs::Knob;

/// What the model knows of an item.
#[derive(Debug, Clone)]
struct Known {
    stamp: u64,
    len: usize,
    client_flags: u32,
    expires_at: RelTime,
    accessed_at: RelTime,
    cas: u64,
    stale: bool,
    win_sent: bool,
    fetched: bool,
}

/// One random life of a cache.
struct Life<'c> {
    cache: &'c Cache,
    maintainer: Maintainer,
    rng: Rng,
    now: RelTime,
    known: HashMap<Vec<u8>, Known>,
    keys: usize,
    pinned: Vec<(PinnedValue<'c>, Vec<u8>)>,
    /// The second of a delayed flush that has not come.
    flush_due: Option<RelTime>,
    stamps: u64,
    /// Live items that were missing.
    lost: u64,
    refused: usize,
    /// Memory may be short: pins are held, or the limit was lowered.
    short: bool,
}

impl<'c> Life<'c> {
    fn new(cache: &'c Cache, seed: u64, keys: usize) -> Self {
        println!("seed {seed}");
        Life {
            cache,
            maintainer: Maintainer::default(),
            rng: Rng::new(seed),
            now: RelTime(2),
            known: HashMap::new(),
            keys,
            pinned: Vec::new(),
            flush_due: None,
            stamps: 0,
            lost: 0,
            refused: 0,
            // A class keeps to the pages it has, which long values may find too few.
            short: !cache.tuning.is_on(Knob::SlabReassign),
        }
    }

    fn may_evict(&self) -> bool {
        self.cache.tuning.is_on(Knob::Evictions)
    }

    fn key(&mut self) -> Vec<u8> {
        let n = self.rng.below(self.keys);
        let mut key = format!("key {n}").into_bytes();
        // Keys of all lengths; the number decides, so that a key is found again.
        key.resize(key.len() + n * 7 % 200, b'.');
        key
    }

    /// Mostly small, up to 500 KB; each order of magnitude is about as likely.
    fn len(&mut self) -> usize {
        let bits = self.rng.below(20);
        (self.rng.below(1 << bits) + 1).min(500 << 10)
    }

    fn expiry(&mut self) -> RelTime {
        match self.rng.below(4) {
            0 => RelTime(self.now.0 + self.rng.below(40) as u32),
            _ => RelTime::NEVER,
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..45 => self.put(),
            45..65 => self.look(),
            65..72 => self.change(),
            72..80 => self.remove(),
            80..84 => self.pin(),
            84..88 => self.unpin(),
            88..94 => self.maintainer.step(self.cache, At::new(self.now)),
            94..96 => self.pass_time(),
            96 => self.request(),
            97 => self.cache.request_crawl(ClassMask::ALL),
            98 => self.change_limit(),
            _ => self.flush(),
        }
    }

    /// Opens a key; what it shows must be what the model knows.
    fn open(&mut self, key: &[u8]) -> crate::cache::Entry<'c> {
        let entry = self.cache.entry(self.cache.sought(key), At::new(self.now));
        let known = self.known.get(key).filter(|known| self.lives(known));
        match (entry.item(), known) {
            (Some(item), Some(known)) => {
                let found: Vec<u8> = item.value_pieces().collect::<Vec<_>>().concat();
                assert!(
                    found == value(known.stamp, known.len),
                    "another value of {} bytes",
                    known.len
                );
                assert_eq!(item.key(), key);
                assert_eq!(item.value_len(), known.len);
                assert_eq!(item.client_flags(), known.client_flags);
                assert_eq!(item.expires_at(), known.expires_at);
                assert_eq!(item.accessed_at(), known.accessed_at);
                assert_eq!(item.cas(), known.cas);
                assert_eq!(item.is_stale(), known.stale);
                assert_eq!(item.is_win_sent(), known.win_sent);
                assert_eq!(item.is_fetched(), known.fetched);
                assert_eq!(entry.lookup(), Lookup::Found);
            }
            (Some(_), None) => panic!("{:?} should be gone", self.known.get(key)),
            (None, Some(_)) => {
                self.lost += 1;
                let evicted = evicted(self.cache);
                assert!(
                    self.lost <= evicted,
                    "{} items lost, {evicted} evicted",
                    self.lost
                );
                self.known.remove(key);
            }
            (None, None) => {
                assert_ne!(entry.lookup(), Lookup::Found);
                self.known.remove(key);
            }
        }
        entry
    }

    fn lives(&self, known: &Known) -> bool {
        known.expires_at == RelTime::NEVER || known.expires_at > self.now
    }

    fn put(&mut self) {
        let (key, len, expires_at) = (self.key(), self.len(), self.expiry());
        self.stamps += 1;
        let client_flags = if self.rng.below(2) == 0 {
            0
        } else {
            self.rng.next() as u32
        };
        let spec = ItemSpec {
            client_flags,
            expires_at,
            ..spec(&key, len)
        };
        let new = match create(self.cache, &spec, &value(self.stamps, len), self.now) {
            Ok(new) => new,
            Err(error) => {
                assert_eq!(error, AllocError::OutOfMemory);
                assert!(self.short || !self.may_evict(), "{len} bytes found no room");
                self.refused += 1;
                return;
            }
        };
        if self.rng.below(20) == 0 {
            return; // Its client went away.
        }
        let accessed_at = self.now;
        let cas = self.open(&key).put(new, None).cas();
        let known = Known {
            stamp: self.stamps,
            len,
            client_flags,
            expires_at,
            accessed_at,
            cas,
            stale: false,
            win_sent: false,
            fetched: false,
        };
        self.known.insert(key, known);
    }

    fn look(&mut self) {
        let key = self.key();
        let mut entry = self.open(&key);
        if let Some(known) = self.known.get_mut(&key) {
            for _ in 0..1 + self.rng.below(2) {
                entry.found().unwrap().bump();
            }
            (known.fetched, known.accessed_at) = (true, self.now);
        }
    }

    fn change(&mut self) {
        let (key, expires_at) = (self.key(), self.expiry());
        let mut entry = self.open(&key);
        let (Some(known), Some(mut hit)) = (self.known.get_mut(&key), entry.found()) else {
            return;
        };
        match self.rng.below(5) {
            0 => {
                hit.touch(expires_at);
                known.expires_at = expires_at;
            }
            1 => {
                hit.mark_stale();
                (known.stale, known.win_sent) = (true, false);
            }
            2 => {
                hit.mark_win_sent();
                known.win_sent = true;
            }
            3 => {
                hit.set_cas(None);
                assert!(hit.cas() > std::mem::replace(&mut known.cas, hit.cas()));
            }
            _ if !hit.is_large() => {
                self.stamps += 1;
                known.stamp = self.stamps;
                hit.overwrite(&value(known.stamp, known.len), None);
                assert!(hit.cas() > std::mem::replace(&mut known.cas, hit.cas()));
            }
            _ => {}
        }
    }

    fn remove(&mut self) {
        let key = self.key();
        self.open(&key).remove();
        self.known.remove(&key);
    }

    fn pin(&mut self) {
        let key = self.key();
        let mut entry = self.open(&key);
        if let Some(hit) = entry.found().filter(|hit| hit.is_large())
            && self.pinned.len() < 4
        {
            let known = &self.known[&key];
            self.pinned.push((hit.pin(), value(known.stamp, known.len)));
            self.short = true;
        }
    }

    fn unpin(&mut self) {
        if self.pinned.is_empty() {
            return;
        }
        let at = self.rng.below(self.pinned.len());
        let (pinned, bytes) = self.pinned.swap_remove(at);
        assert_eq!(pinned.unsent_len(), bytes.len());
        assert!(
            pinned.unsent(usize::MAX).collect::<Vec<_>>().concat() == bytes,
            "a pinned value changed"
        );
    }

    fn pass_time(&mut self) {
        self.now.0 += self.rng.below(8) as u32;
        if self.flush_due.is_some_and(|due| due <= self.now) {
            let due = self.flush_due.take().unwrap();
            self.known.retain(|_, known| known.accessed_at >= due);
        }
    }

    fn request(&mut self) {
        let class = |rng: &mut Rng| rng.below(30) as i32;
        let (source, destination) = (class(&mut self.rng) - 1, class(&mut self.rng));
        let _ = self.cache.request_page_move(source, destination);
    }

    fn change_limit(&mut self) {
        self.cache.set_limit_bytes((3 + self.rng.below(12)) << 20);
        self.short = true;
    }

    fn flush(&mut self) {
        match self.rng.below(6) {
            0 => {
                self.cache.flush_now(At::new(self.now));
                self.known.clear();
                self.flush_due = None;
            }
            1 => {
                let due = RelTime(self.now.0 + 1 + self.rng.below(10) as u32);
                self.cache.flush_at(due, At::new(self.now));
                self.flush_due = Some(due);
            }
            _ => {}
        }
    }

    /// Everything there is agrees, and goes without a trace.
    fn end(mut self) {
        for key in self.known.keys().cloned().collect::<Vec<_>>() {
            drop(self.open(&key));
        }
        self.cache.check_invariants();
        while !self.pinned.is_empty() {
            self.unpin();
        }
        println!(
            "{} items, {} lost, {} evicted, {} refused, {:?}",
            self.known.len(),
            self.lost,
            evicted(self.cache),
            self.refused,
            self.cache.move_stats()
        );
        empty(self.cache);
    }
}

/// Random steps with everything in them.
fn live(seed: u64, megabytes: usize, keys: usize, steps: usize, tune: impl Fn(&Cache)) {
    // In small pages, values from 2 KB on lie in pieces.
    let cache = match seed % 2 {
        0 => cache_in_small_pages(megabytes),
        _ => small_cache(megabytes),
    };
    tune(&cache);
    let mut life = Life::new(&cache, seed, keys);
    for step in 0..steps {
        life.step();
        if step % 50 == 0 {
            cache.check_invariants();
            cache.items.slabs().check_invariants();
        }
        if life.pinned.is_empty() && step % 200 == 0 {
            check(&cache);
        }
    }
    life.end();
}

#[test]
fn behaves_like_a_map_with_evictions() {
    for seed in 1..=u64::from(ketch_testing::rounds(2, 6)) {
        live(seed, 12, 1500, 6000, |_| {});
    }
}

#[test]
fn behaves_like_a_map_with_few_keys() {
    live(11, 8, 12, 4000, |_| {});
}

#[test]
fn behaves_like_a_map_with_a_flat_lru() {
    live(21, 12, 1500, 6000, |cache| {
        cache.tuning.set(Knob::LruSegmented, 0)
    });
}

#[test]
fn behaves_like_a_map_with_each_policy() {
    for (seed, policy) in (22..).zip(Policy::ALL) {
        live(seed, 12, 1500, 3000, |cache| {
            cache.tuning.set(Knob::Eviction, policy as u32)
        });
    }
}

#[test]
fn behaves_like_a_map_when_all_is_temporary() {
    live(31, 12, 1500, 6000, |cache| {
        cache.tuning.set(Knob::TemporaryTtl, 40)
    });
}

#[test]
fn behaves_like_a_map_when_pages_stay_where_they_are() {
    live(41, 24, 1500, 6000, |cache| {
        cache.tuning.set(Knob::SlabReassign, 0)
    });
}

#[test]
fn without_evictions_nothing_is_lost() {
    let cache = small_cache(7);
    cache.tuning.set(Knob::Evictions, 0);
    let mut life = Life::new(&cache, 51, 1500);
    for step in 0..6000 {
        life.step();
        if step % 50 == 0 {
            cache.check_invariants();
        }
    }
    assert_eq!((life.lost, evicted(&cache)), (0, 0));
    assert!(
        life.refused > 10,
        "only {} stores found the cache full",
        life.refused
    );
    life.end();
}
