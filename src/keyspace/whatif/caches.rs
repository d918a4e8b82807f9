//! Five small caches of different sizes, over one table of the keys that are followed.
//!
//! ```text
//!  hash --> key: bytes | place, uses and stamp in each of the five caches
//!  a cache:      hot, warm, main: queues of hash and stamp             the bytes and the number of what it holds
//!                fresh, ghost, late: the same of what it has evicted lately
//! ```
//!
//! S3-FIFO is the store's (`cache/eviction/s3fifo.rs`), with bytes for a small queue's room: two halves of it, and a share that
//! is learned from who comes back just after one of the queues let it go.
//!
//! Ca1. A slot of a queue is a key's if the key is in that place and has that stamp; others are nobody's any more.
//! Ca2. What a cache holds is at most its room, after each store. Its queues of what it holds are at most twice as long as
//!      it has keys, that of ghosts is at most as long, and those of the latest are a sixteenth of that.
//! Ca3. A key is in the table while it is anywhere.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// How many caches there are.
pub const CACHES: usize = 5;
/// What [`Caches::read`] gives if the key was in all of them.
pub const ALL_HIT: u8 = (1 << CACHES) - 1;
/// All of a cache's bytes, as shares are counted; and the share of S3-FIFO's small queue at first, its bounds and steps, as in the
/// store's.
const WHOLE: u32 = 1 << 16;
const SHARE_AT_FIRST: u32 = WHOLE / 10;
const SHARES: [u32; 2] = [WHOLE / 50, WHOLE / 10 * 9];
const STEP: u32 = 2;
const STEP_MAX: u32 = WHOLE / 32;
/// Who comes back within so many evictions, of as many as there are keys, comes just after it.
const LATEST: usize = 16;
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
    /// The small queue has turned it away.
    Ghost,
    /// A moment ago.
    Fresh,
    /// The main queue has evicted it a moment ago.
    Late,
    Hot,
    Warm,
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
        self.places[at] >= Place::Hot
    }

    fn is_nowhere(&self) -> bool {
        self.places == [Place::Nowhere; CACHES]
    }
}

type Slot = (u32, u16);

#[derive(Debug)]
struct Queues {
    hot: VecDeque<Slot>,
    warm: VecDeque<Slot>,
    main: VecDeque<Slot>,
    ghost: VecDeque<Slot>,
    fresh: VecDeque<Slot>,
    late: VecDeque<Slot>,
    hot_bytes: u64,
    warm_bytes: u64,
    main_bytes: u64,
    held: usize,
    /// What `hot` and `warm` may hold together, of [`WHOLE`].
    share: u32,
}

impl Default for Queues {
    fn default() -> Self {
        Queues {
            hot: VecDeque::new(),
            warm: VecDeque::new(),
            main: VecDeque::new(),
            ghost: VecDeque::new(),
            fresh: VecDeque::new(),
            late: VecDeque::new(),
            hot_bytes: 0,
            warm_bytes: 0,
            main_bytes: 0,
            held: 0,
            share: SHARE_AT_FIRST,
        }
    }
}

impl Queues {
    fn queue(&mut self, place: Place) -> (&mut VecDeque<Slot>, &mut u64) {
        match place {
            Place::Main => (&mut self.main, &mut self.main_bytes),
            Place::Warm => (&mut self.warm, &mut self.warm_bytes),
            _ => (&mut self.hot, &mut self.hot_bytes),
        }
    }

    fn enter(&mut self, slot: Slot, place: Place, bytes: u32) {
        let (queue, sum) = self.queue(place);
        queue.push_back(slot);
        *sum += u64::from(bytes);
        self.held += 1;
    }

    fn leave(&mut self, place: Place, bytes: u32) {
        *self.queue(place).1 -= u64::from(bytes);
        self.held -= 1;
    }

    fn bytes(&self) -> u64 {
        self.hot_bytes + self.warm_bytes + self.main_bytes
    }

    fn len(&self) -> usize {
        self.hot.len() + self.warm.len() + self.main.len()
    }

    /// The bytes that `hot` and `warm` should hold.
    fn small_target(&self) -> u64 {
        self.bytes() * u64::from(self.share) / u64::from(WHOLE)
    }

    fn step(&self) -> u32 {
        (STEP * WHOLE / self.held.clamp(1, WHOLE as usize) as u32).min(STEP_MAX)
    }

    fn latest(&self) -> usize {
        (self.held / LATEST).max(1)
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
                queues.queue(key.places[at]).0.push_back((hash, self.stamp));
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
                let sum = queues.queue(place).1;
                *sum = *sum - u64::from(key.bytes) + u64::from(bytes);
                continue;
            }
            self.stamp = self.stamp.wrapping_add(1);
            key.stamps[at] = self.stamp;
            key.uses[at] = 0;
            let [least, most] = SHARES;
            key.places[at] = match (kind, place) {
                (Kind::S3Fifo, Place::Fresh) => {
                    queues.share = (queues.share + queues.step()).min(most);
                    Place::Main
                }
                (Kind::S3Fifo, Place::Ghost) => Place::Main,
                (Kind::S3Fifo, Place::Late) => {
                    queues.share = queues.share.saturating_sub(queues.step()).max(least);
                    Place::Hot
                }
                _ => Place::Hot,
            };
            queues.enter((hash, self.stamp), key.places[at], bytes);
        }
        key.bytes = bytes;
        for (at, room) in rooms.into_iter().enumerate() {
            while self.queues[at].bytes() > room && self.evict(at, kind) {}
            if kind == Kind::S3Fifo {
                while self.warm_one(at) {}
            }
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
        if queues.len() > 2 * queues.held + 64 {
            let keys = &self.keys;
            let is_of = |place| {
                move |&(hash, stamp): &Slot| {
                    keys.get(&hash)
                        .is_some_and(|key| key.places[at] == place && key.stamps[at] == stamp)
                }
            };
            queues.hot.retain(is_of(Place::Hot));
            queues.warm.retain(is_of(Place::Warm));
            queues.main.retain(is_of(Place::Main));
        }
    }

    /// Looks at the next in line; false if there is none.
    fn evict(&mut self, at: usize, kind: Kind) -> bool {
        let queues = &mut self.queues[at];
        let is_small_full = queues.hot_bytes + queues.warm_bytes > queues.small_target();
        let place = match is_small_full || queues.main.is_empty() {
            true if queues.warm.is_empty() => Place::Hot,
            true => Place::Warm,
            false => Place::Main,
        };
        let queue = queues.queue(place).0;
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
            (Kind::S3Fifo, 0, Place::Main) => {
                queues.late.push_back(slot);
                Place::Late
            }
            (Kind::S3Fifo, 0, _) => {
                queues.fresh.push_back(slot);
                Place::Fresh
            }
        };
        if key.is_nowhere() {
            self.keys.remove(&hash);
        }
        self.forget(at);
        true
    }

    /// Moves one from the first half of the small queue to the second, where its reads count from then on; false if that is
    /// as it should be.
    fn warm_one(&mut self, at: usize) -> bool {
        let queues = &mut self.queues[at];
        if queues.hot_bytes * 2 <= queues.small_target() {
            return false;
        }
        let Some((hash, stamp)) = queues.hot.pop_front() else {
            return false;
        };
        if let Some(key) = self.keys.get_mut(&hash)
            && key.places[at] == Place::Hot
            && key.stamps[at] == stamp
        {
            queues.leave(Place::Hot, key.bytes);
            queues.enter((hash, stamp), Place::Warm, key.bytes);
            (key.places[at], key.uses[at]) = (Place::Warm, 0);
        }
        true
    }

    /// Forgets ghosts that are too many.
    fn forget(&mut self, at: usize) {
        let queues = &mut self.queues[at];
        let latest = queues.latest();
        while queues.fresh.len() > latest {
            let slot = queues.fresh.pop_front().expect("it is longer");
            if let Some(key) = self.keys.get_mut(&slot.0)
                && key.places[at] == Place::Fresh
                && key.stamps[at] == slot.1
            {
                key.places[at] = Place::Ghost;
                queues.ghost.push_back(slot);
            }
        }
        loop {
            let (slot, place) = if queues.ghost.len() > queues.held.max(1) {
                (queues.ghost.pop_front(), Place::Ghost)
            } else if queues.late.len() > latest {
                (queues.late.pop_front(), Place::Late)
            } else {
                return;
            };
            let Some((hash, stamp)) = slot else {
                return;
            };
            if let Some(key) = self.keys.get_mut(&hash)
                && key.places[at] == place
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
            for gone in [&mut queues.ghost, &mut queues.fresh, &mut queues.late] {
                gone.retain(|&(hash, _)| is_kept(hash));
            }
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
            let there = queues.hot.capacity() + queues.warm.capacity() + queues.main.capacity();
            let gone = queues.ghost.capacity() + queues.fresh.capacity() + queues.late.capacity();
            there + gone
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
                assert!(queues.len() <= 2 * count + 64 + 1);
                assert!(queues.ghost.len() <= count.max(1));
                assert!(queues.fresh.len().max(queues.late.len()) <= queues.latest());
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
        assert!(caches.queues[0].hot.len() < 100);
        caches.store(3, 10, rooms, Kind::Lru);
        assert_eq!(caches.read(1, Kind::Lru), 0);
        assert_eq!(caches.read(0, Kind::Lru), ALL_HIT);
    }

    /// In S3-FIFO who was read stays, and who comes back soon after it was evicted goes to the main queue, and makes the small
    /// one longer.
    #[test]
    fn who_was_read_stays() {
        let (mut caches, rooms) = (Caches::default(), [1000; CACHES]);
        for hash in 0..100 {
            caches.store(hash, 10, rooms, Kind::S3Fifo);
        }
        // Reads in the second half of the small queue count; those before are of the same occasion.
        let warm = |caches: &Caches| {
            let mut warm = caches.keys.iter();
            *warm
                .find(|(_, key)| key.places[0] == Place::Warm)
                .expect("there are some")
                .0
        };
        let read = warm(&caches);
        caches.read(read, Kind::S3Fifo);
        for hash in 100..200 {
            caches.store(hash, 10, rooms, Kind::S3Fifo);
        }
        assert_eq!(caches.keys[&read].places[0], Place::Main);
        let share = caches.queues[0].share;
        let mut keys = caches.keys.iter();
        let fresh = keys.find(|(_, key)| key.places[0] == Place::Fresh);
        let fresh = *fresh.expect("one was turned away just now").0;
        caches.store(fresh, 10, rooms, Kind::S3Fifo);
        assert_eq!(caches.keys[&fresh].places[0], Place::Main);
        assert!(caches.queues[0].share > share);
    }
}
