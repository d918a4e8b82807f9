//! Five small caches of different sizes, over one table of the keys that are followed.
//!
//! ```text
//!  hash --> key: bytes | place, uses and stamp in each of the five caches
//!  a cache:      small, main, ghost: queues of hash and stamp          the bytes and the number of what it holds
//! ```
//!
//! Ca1. A slot of a queue is a key's if the key is in that place and has that stamp; others are nobody's any more.
//! Ca2. What a cache holds is at most its room, after each store. Its queues of what it holds are at most twice as long as
//!      it has keys, that of ghosts is at most as long.
//! Ca3. A key is in the table while it is anywhere.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// How many caches there are.
pub const CACHES: usize = 5;
/// What [`Caches::read`] gives if the key was in all of them.
pub const ALL_HIT: u8 = (1 << CACHES) - 1;
/// The room of S3-FIFO's small queue, in percent, as in the store's.
const SMALL_PCT: u64 = 5;
/// Reads that are counted of an item.
const USES_MAX: u8 = 3;

/// How a cache decides who gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// S3-FIFO, the default policy.
    S3Fifo,
    /// Least recently used; stands in for all other policies.
    Lru,
}

/// Where a key is in a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Place {
    #[default]
    Nowhere,
    /// It was evicted lately.
    Ghost,
    Small,
    Main,
}

#[derive(Debug, Clone, Copy, Default)]
struct Key {
    bytes: u32,
    stamps: [u16; CACHES],
    places: [Place; CACHES],
    uses: [u8; CACHES],
}

impl Key {
    fn is_in(&self, at: usize) -> bool {
        self.places[at] >= Place::Small
    }

    fn is_nowhere(&self) -> bool {
        self.places == [Place::Nowhere; CACHES]
    }
}

type Slot = (u32, u16);

#[derive(Debug, Default)]
struct Queues {
    small: VecDeque<Slot>,
    main: VecDeque<Slot>,
    ghost: VecDeque<Slot>,
    small_bytes: u64,
    main_bytes: u64,
    held: usize,
}

impl Queues {
    fn enter(&mut self, slot: Slot, place: Place, bytes: u32) {
        let (queue, sum) = match place {
            Place::Main => (&mut self.main, &mut self.main_bytes),
            _ => (&mut self.small, &mut self.small_bytes),
        };
        queue.push_back(slot);
        *sum += u64::from(bytes);
        self.held += 1;
    }

    fn leave(&mut self, place: Place, bytes: u32) {
        *self.sum(place) -= u64::from(bytes);
        self.held -= 1;
    }

    fn sum(&mut self, place: Place) -> &mut u64 {
        match place {
            Place::Main => &mut self.main_bytes,
            _ => &mut self.small_bytes,
        }
    }

    fn bytes(&self) -> u64 {
        self.small_bytes + self.main_bytes
    }
}

/// The keys' hashes are as good as random but for the bits that all who are followed have in common.
#[derive(Debug, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, word: u32) {
        let mixed = (self.0 ^ u64::from(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// The caches.
#[derive(Debug, Default)]
pub struct Caches {
    keys: HashMap<u32, Key, BuildHasherDefault<Mix>>,
    queues: [Queues; CACHES],
    stamp: u16,
}

impl Caches {
    /// A read: a bit for each cache, set where it hits.
    #[inline]
    pub fn read(&mut self, hash: u32, kind: Kind) -> u8 {
        let Some(key) = self.keys.get_mut(&hash) else {
            return 0;
        };
        let mut hit = 0;
        for at in 0..CACHES {
            let is_in = key.is_in(at);
            hit |= u8::from(is_in) << at;
            key.uses[at] = (key.uses[at] + u8::from(is_in)).min(USES_MAX);
        }
        if kind == Kind::Lru {
            self.renew(hash);
        }
        hit
    }

    /// To the end of the queues it stands in.
    fn renew(&mut self, hash: u32) {
        for at in 0..CACHES {
            self.stamp = self.stamp.wrapping_add(1);
            if let Some(key) = self.keys.get_mut(&hash)
                && key.is_in(at)
            {
                key.stamps[at] = self.stamp;
                let queues = &mut self.queues[at];
                let queue = match key.places[at] {
                    Place::Main => &mut queues.main,
                    _ => &mut queues.small,
                };
                queue.push_back((hash, self.stamp));
                self.tidy(at);
            }
        }
    }

    /// A store, into caches with room for so many bytes.
    pub fn store(&mut self, hash: u32, bytes: u32, rooms: [u64; CACHES], kind: Kind) {
        let key = self.keys.entry(hash).or_default();
        for (at, queues) in self.queues.iter_mut().enumerate() {
            let place = key.places[at];
            if key.is_in(at) {
                let sum = queues.sum(place);
                *sum = *sum - u64::from(key.bytes) + u64::from(bytes);
                continue;
            }
            self.stamp = self.stamp.wrapping_add(1);
            key.stamps[at] = self.stamp;
            key.uses[at] = 0;
            key.places[at] = match (kind, place) {
                (Kind::S3Fifo, Place::Ghost) => Place::Main,
                _ => Place::Small,
            };
            queues.enter((hash, self.stamp), key.places[at], bytes);
        }
        key.bytes = bytes;
        for (at, room) in rooms.into_iter().enumerate() {
            while self.queues[at].bytes() > room && self.evict(at, kind) {}
        }
    }

    /// Takes a key out of all caches.
    pub fn remove(&mut self, hash: u32) {
        let Some(key) = self.keys.get_mut(&hash) else {
            return;
        };
        for (at, queues) in self.queues.iter_mut().enumerate() {
            if key.is_in(at) {
                queues.leave(key.places[at], key.bytes);
                key.places[at] = Place::Nowhere;
            }
        }
        if key.is_nowhere() {
            self.keys.remove(&hash);
        }
        for at in 0..CACHES {
            self.tidy(at);
            self.forget(at);
        }
    }

    /// Drops the slots that are nobody's, when they are too many.
    fn tidy(&mut self, at: usize) {
        let queues = &mut self.queues[at];
        if queues.small.len() + queues.main.len() > 2 * queues.held + 64 {
            let keys = &self.keys;
            let is_of = |place| {
                move |&(hash, stamp): &Slot| {
                    keys.get(&hash)
                        .is_some_and(|key| key.places[at] == place && key.stamps[at] == stamp)
                }
            };
            queues.small.retain(is_of(Place::Small));
            queues.main.retain(is_of(Place::Main));
        }
    }

    /// Looks at the next in line; false if there is none.
    fn evict(&mut self, at: usize, kind: Kind) -> bool {
        let queues = &mut self.queues[at];
        let is_small_full = queues.small_bytes * 100 > queues.bytes() * SMALL_PCT;
        let (queue, place) = if is_small_full || queues.main.is_empty() {
            (&mut queues.small, Place::Small)
        } else {
            (&mut queues.main, Place::Main)
        };
        let Some((hash, stamp)) = queue.pop_front() else {
            return false;
        };
        let Some(key) = self.keys.get_mut(&hash) else {
            return true;
        };
        if key.places[at] != place || key.stamps[at] != stamp {
            return true;
        }
        queues.leave(place, key.bytes);
        self.stamp = self.stamp.wrapping_add(1);
        key.stamps[at] = self.stamp;
        let slot = (hash, self.stamp);
        key.places[at] = match (kind, key.uses[at], place) {
            (Kind::Lru, ..) => Place::Nowhere,
            (Kind::S3Fifo, 1.., _) => {
                // One that moves to main begins anew there.
                let uses = key.uses[at];
                key.uses[at] = if place == Place::Main { uses - 1 } else { 0 };
                queues.enter(slot, Place::Main, key.bytes);
                Place::Main
            }
            (Kind::S3Fifo, 0, Place::Small) => {
                queues.ghost.push_back(slot);
                Place::Ghost
            }
            (Kind::S3Fifo, 0, _) => Place::Nowhere,
        };
        if key.is_nowhere() {
            self.keys.remove(&hash);
        }
        self.forget(at);
        true
    }

    /// Forgets ghosts that are too many.
    fn forget(&mut self, at: usize) {
        let queues = &mut self.queues[at];
        while queues.ghost.len() > queues.held.max(1) {
            let Some((hash, stamp)) = queues.ghost.pop_front() else {
                return;
            };
            if let Some(key) = self.keys.get_mut(&hash)
                && key.places[at] == Place::Ghost
                && key.stamps[at] == stamp
            {
                key.places[at] = Place::Nowhere;
                if key.is_nowhere() {
                    self.keys.remove(&hash);
                }
            }
        }
    }

    /// Keeps only keys of these hashes.
    pub fn let_go(&mut self, is_kept: impl Fn(u32) -> bool) {
        let gone: Vec<u32> = self.keys.keys().copied().collect();
        for hash in gone.into_iter().filter(|&hash| !is_kept(hash)) {
            self.remove(hash);
            self.keys.remove(&hash);
        }
        for queues in &mut self.queues {
            queues.ghost.retain(|&(hash, _)| is_kept(hash));
        }
        (0..CACHES).for_each(|at| self.forget(at));
        // Room that is not wanted again so soon.
        self.keys.shrink_to(2 * self.keys.len());
    }

    /// Keys that one of them holds.
    pub fn held(&self, at: usize) -> usize {
        self.queues[at].held
    }

    /// Bytes of memory that all of it takes, as near as the collections tell.
    pub fn bytes(&self) -> usize {
        // A map has a byte beside each entry, and an eighth of its places free.
        let map = self.keys.capacity() * (size_of::<(u32, Key)>() + 1) * 8 / 7;
        let slots = |queues: &Queues| {
            queues.small.capacity() + queues.main.capacity() + queues.ghost.capacity()
        };
        let slots: usize = self.queues.iter().map(slots).sum();
        map + slots * size_of::<Slot>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::testing::Rng;

    impl Caches {
        fn check(&self, rooms: [u64; CACHES]) {
            for (at, queues) in self.queues.iter().enumerate() {
                let there = self.keys.values().filter(|key| key.is_in(at));
                let (count, bytes) = there.fold((0, 0), |(count, bytes), key| {
                    (count + 1, bytes + u64::from(key.bytes))
                });
                assert_eq!((queues.held, queues.bytes()), (count, bytes));
                assert!(bytes <= rooms[at]);
                assert!(queues.small.len() + queues.main.len() <= 2 * count + 64 + 1);
                assert!(queues.ghost.len() <= count.max(1));
            }
            assert!(self.keys.values().all(|key| !key.is_nowhere()));
        }
    }

    /// Whatever is done, sums are those of the keys, and nothing grows beyond its bounds.
    #[test]
    fn what_is_held_is_what_is_counted() {
        for kind in [Kind::S3Fifo, Kind::Lru] {
            let (mut caches, mut rng) = (Caches::default(), Rng::new(7));
            let rooms = [500, 1000, 2000, 4000, 8000];
            for step in 0..20_000 {
                let hash = (rng.below(40) * rng.below(40) * 4) as u32;
                match rng.below(10) {
                    0..5 => _ = caches.read(hash, kind),
                    5..9 => caches.store(hash, 1 + rng.below(100) as u32, rooms, kind),
                    _ => caches.remove(hash),
                }
                if step % 5000 == 4999 {
                    caches.let_go(|hash| hash.is_multiple_of(8));
                }
                caches.check(rooms);
            }
            assert!(caches.keys.len() > 20);
            let all: Vec<u32> = caches.keys.keys().copied().collect();
            all.into_iter().for_each(|hash| caches.remove(hash));
            assert_eq!(caches.queues.iter().map(Queues::bytes).sum::<u64>(), 0);
        }
    }

    /// Reads of one key in an LRU leave no more behind than there are keys.
    #[test]
    fn who_is_read_last_goes_last() {
        let (mut caches, rooms) = (Caches::default(), [30; CACHES]);
        for hash in 0..3 {
            caches.store(hash, 10, rooms, Kind::Lru);
        }
        for _ in 0..10_000 {
            assert_eq!(caches.read(0, Kind::Lru), ALL_HIT);
        }
        assert!(caches.queues[0].small.len() < 100);
        caches.store(3, 10, rooms, Kind::Lru);
        assert_eq!(caches.read(1, Kind::Lru), 0);
        assert_eq!(caches.read(0, Kind::Lru), ALL_HIT);
    }

    /// In S3-FIFO who was read stays, and who comes back soon after it was evicted goes to the main queue.
    #[test]
    fn who_was_read_stays() {
        let (mut caches, rooms) = (Caches::default(), [30; CACHES]);
        for hash in 0..3 {
            caches.store(hash, 10, rooms, Kind::S3Fifo);
        }
        caches.read(0, Kind::S3Fifo);
        caches.store(3, 10, rooms, Kind::S3Fifo);
        assert_eq!(caches.read(1, Kind::S3Fifo), 0);
        assert_eq!(caches.keys[&0].places[0], Place::Main);
        assert_eq!(caches.keys[&1].places[0], Place::Ghost);
        caches.store(1, 10, rooms, Kind::S3Fifo);
        assert_eq!(caches.keys[&1].places[0], Place::Main);
    }
}
