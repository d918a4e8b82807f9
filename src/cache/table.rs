//! The hash table: from a key's hash to the handle of its item.
//!
//! ```text
//!  hash (32 bits):   | ..        bucket within the stripe        .. | stripe |
//!
//!  stripe s: lock, level, split     its buckets are s, s + S, s + 2S, ..  (S stripes)
//!
//!  bucket (one cache line):  | slot 0 | slot 1 | .. | slot 6 | overflow |
//!                              hash:32, handle:32              index of a further bucket, or 0
//! ```
//!
//! Each stripe grows by itself, one bucket at a time (linear hashing: Litwin, 1980): when it holds more than
//! [`ITEMS_PER_BUCKET`] items a bucket, an insert splits the next bucket in turn. Nothing is ever rehashed at once, so
//! growth has no pause, and the array needs no copy: its addresses are reserved at the start and touched as they are
//! needed.
//!
//! T1. Buckets and overflow buckets of a stripe change only under the stripe's lock.
//! T2. The slots in use of a chain (bucket and its overflow) are a prefix of it; every overflow bucket holds a slot.
//! T3. A slot's hash is its item's hash; the slot lies in the chain that the hash and the stripe's level name.
//! T4. Slots are atomics: a racy look at them only chooses what to prefetch.
//!
//! Costs: a lookup reads one line, and about one chain in ten has a second; 14 bytes an item. The whole hash is in the
//! slot, so an item is touched only when it is (all but surely) the one asked for.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, TryLockError};

use ahash::RandomState;
use crossbeam::utils::CachePadded;
use slab_alloc::{ChunkHandle, Reserved};

/// Items a bucket holds on average when the next one is split: of 7 slots, so that 13 % of the chains overflow in the
/// mean between splits, and an item costs 64 / 4.5 = 14 bytes of table.
const ITEMS_PER_BUCKET_X2: u32 = 9;

/// Slots of a bucket.
const SLOTS: usize = 7;
/// The word that leads to the overflow bucket.
const OVERFLOW: usize = 7;

/// The most buckets, as a power of two: 2^27 lines of 64 bytes serve 600 million items.
const BUCKETS_LOG2_MAX: u32 = 27;

type Bucket = [AtomicU64; 8];
const _: () = assert!(size_of::<Bucket>() == 64, "a bucket is a cache line");

/// The hash of a key: keyed, random for each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash(pub u32);

/// The table.
#[derive(Debug)]
pub struct Table {
    hasher: RandomState,
    stripes: Box<[CachePadded<Stripe>]>,
    stripe_bits: u32,
    /// Levels above this would leave the reserved array.
    level_max: u32,
    may_grow: bool,
    buckets: Reserved<Bucket>,
    overflow: Reserved<Bucket>,
    overflow_free: Mutex<OverflowFree>,
}

#[derive(Debug)]
struct Stripe {
    /// `level << 27 | split`, for readers without the lock (T4).
    shape: AtomicU32,
    lock: Mutex<StripeState>,
}

/// What a stripe's lock guards besides its buckets.
#[derive(Debug, Default)]
struct StripeState {
    items: u32,
    /// The stripe has `2^level + split` buckets.
    level: u32,
    split: u32,
}

/// Overflow buckets not in use: a list through their first word, and the mark above which none was ever used.
#[derive(Debug, Default)]
struct OverflowFree {
    head: u32,
    /// Index 0 means none, so counting starts at 1.
    used_mark: u32,
    in_use: u32,
}

/// What the table looks like (`hash_power_level`, `hash_bytes`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableShape {
    /// Buckets in use.
    pub buckets: usize,
    /// Overflow buckets in use.
    pub overflow_buckets: usize,
    /// Items.
    pub items: usize,
}

impl TableShape {
    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        (self.buckets + self.overflow_buckets) * size_of::<Bucket>()
    }
}

fn slot(hash: KeyHash, handle: ChunkHandle) -> u64 {
    u64::from(hash.0) << 32 | u64::from(handle.to_raw())
}

fn slot_hash(slot: u64) -> KeyHash {
    KeyHash((slot >> 32) as u32)
}

fn slot_handle(slot: u64) -> Option<ChunkHandle> {
    ChunkHandle::from_raw(slot as u32)
}

/// Position of `hash` among the `2^level + split` buckets of its stripe.
#[inline]
fn local_index(hash: u32, level: u32, split: u32) -> u32 {
    let low = hash & ((1 << level) - 1);
    if low < split {
        hash & ((2 << level) - 1)
    } else {
        low
    }
}

impl Table {
    /// A table of `2^stripe_bits` stripes that starts with about `2^buckets_log2` buckets and grows if `may_grow`.
    pub fn new(stripe_bits: u32, buckets_log2: u32, may_grow: bool) -> io::Result<Self> {
        let mut log2_max = BUCKETS_LOG2_MAX;
        let (buckets, overflow) = loop {
            let reserve = || Ok((Reserved::new(1 << log2_max)?, Reserved::new(1 << log2_max)?));
            match reserve() {
                Ok(reserved) => break reserved,
                Err(error) if log2_max <= 20 => return Err(error),
                Err(_) => log2_max -= 1,
            }
        };
        let level_max = log2_max - stripe_bits;
        let level = buckets_log2.saturating_sub(stripe_bits).min(level_max);
        let stripe = || {
            let state = StripeState {
                level,
                ..StripeState::default()
            };
            CachePadded::new(Stripe {
                shape: AtomicU32::new(level << 27),
                lock: Mutex::new(state),
            })
        };
        Ok(Table {
            hasher: RandomState::new(),
            stripes: (0..1 << stripe_bits).map(|_| stripe()).collect(),
            stripe_bits,
            level_max,
            may_grow,
            buckets,
            overflow,
            overflow_free: Mutex::new(OverflowFree {
                used_mark: 1,
                ..OverflowFree::default()
            }),
        })
    }

    /// Hashes a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        KeyHash(hasher.finish() as u32)
    }

    #[inline]
    fn stripe_index(&self, hash: KeyHash) -> usize {
        (hash.0 & ((1 << self.stripe_bits) - 1)) as usize
    }

    #[inline]
    fn bucket_index(&self, hash: KeyHash, level: u32, split: u32) -> usize {
        let local = local_index(hash.0 >> self.stripe_bits, level, split);
        (local as usize) << self.stripe_bits | self.stripe_index(hash)
    }

    #[inline]
    fn racy_bucket_index(&self, hash: KeyHash) -> usize {
        let shape = self.stripes[self.stripe_index(hash)].shape.load(Relaxed);
        self.bucket_index(hash, shape >> 27, shape & ((1 << 27) - 1))
    }

    /// Asks the processor for the bucket of `hash`.
    #[inline]
    pub fn prefetch_bucket(&self, hash: KeyHash) {
        self.buckets.prefetch(self.racy_bucket_index(hash));
    }

    /// The item that `hash` most likely names, to be prefetched: nothing may be concluded from it.
    #[inline]
    pub fn racy_find(&self, hash: KeyHash) -> Option<ChunkHandle> {
        let bucket = self.buckets.get(self.racy_bucket_index(hash));
        let found = bucket[..SLOTS].iter().map(|slot| slot.load(Relaxed));
        found
            .filter(|&slot| slot_hash(slot) == hash)
            .find_map(slot_handle)
    }

    /// Locks the stripe of `hash`.
    #[inline]
    pub fn lock(&self, hash: KeyHash) -> StripeGuard<'_> {
        self.lock_stripe(self.stripe_index(hash))
    }

    /// Locks the stripe of `hash` unless somebody holds it: for those who come against the lock order.
    #[inline]
    pub fn try_lock(&self, hash: KeyHash) -> Option<StripeGuard<'_>> {
        let stripe = self.stripe_index(hash);
        match self.stripes[stripe].lock.try_lock() {
            Ok(state) => Some(StripeGuard {
                table: self,
                stripe,
                state: Some(state),
            }),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => panic!("a holder of the stripe panicked"),
        }
    }

    /// How many stripes there are.
    pub fn stripes(&self) -> usize {
        self.stripes.len()
    }

    /// Locks a stripe by number.
    pub fn lock_stripe(&self, stripe: usize) -> StripeGuard<'_> {
        let state = self.stripes[stripe]
            .lock
            .lock()
            .expect("no holder of a stripe panics");
        StripeGuard {
            table: self,
            stripe,
            state: Some(state),
        }
    }

    /// Counts buckets and items, stripe by stripe.
    pub fn shape(&self) -> TableShape {
        let mut shape = TableShape::default();
        for stripe in 0..self.stripes.len() {
            let guard = self.lock_stripe(stripe);
            shape.buckets += (1usize << guard.state().level) + guard.state().split as usize;
            shape.items += guard.state().items as usize;
        }
        shape.overflow_buckets = self.overflow_list().in_use as usize;
        shape
    }

    fn overflow_list(&self) -> MutexGuard<'_, OverflowFree> {
        self.overflow_free
            .lock()
            .expect("no holder of the overflow list panics")
    }

    fn take_overflow(&self) -> u32 {
        let mut free = self.overflow_list();
        free.in_use += 1;
        if let Some(head) = std::num::NonZeroU32::new(free.head) {
            let word = &self.overflow.get(head.get() as usize)[0];
            free.head = word.swap(0, Relaxed) as u32;
            return head.get();
        }
        let index = free.used_mark;
        free.used_mark += 1;
        index
    }

    fn give_overflow(&self, index: u32) {
        let mut free = self.overflow_list();
        free.in_use -= 1;
        let bucket = self.overflow.get(index as usize);
        bucket[0].store(u64::from(free.head), Relaxed);
        free.head = index;
    }
}

/// A locked stripe: the right to read and change its chains.
#[derive(Debug)]
pub struct StripeGuard<'t> {
    table: &'t Table,
    stripe: usize,
    /// Absent only while [`StripeGuard::unlocked`] runs.
    state: Option<MutexGuard<'t, StripeState>>,
}

/// Where an item's slot is; good until its stripe changes.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'t>(&'t AtomicU64);

/// A place in a chain.
#[derive(Clone, Copy)]
struct Cursor<'t> {
    bucket: &'t Bucket,
    slot: usize,
}

impl<'t> StripeGuard<'t> {
    #[inline]
    fn state(&self) -> &StripeState {
        self.state.as_ref().expect("the stripe is locked")
    }

    #[inline]
    fn state_mut(&mut self) -> &mut StripeState {
        self.state.as_mut().expect("the stripe is locked")
    }

    /// Lets the stripe go while `work` runs, and locks it again: every slot known before may have changed.
    pub fn unlocked<R>(&mut self, work: impl FnOnce() -> R) -> R {
        self.state = None;
        let done = work();
        *self = self.table.lock_stripe(self.stripe);
        done
    }

    /// True if `hash` belongs to this stripe.
    pub fn covers(&self, hash: KeyHash) -> bool {
        self.table.stripe_index(hash) == self.stripe
    }

    fn home(&self, hash: KeyHash) -> Cursor<'t> {
        let index = self
            .table
            .bucket_index(hash, self.state().level, self.state().split);
        Cursor {
            bucket: self.table.buckets.get(index),
            slot: 0,
        }
    }

    fn overflow_of(&self, bucket: &Bucket) -> Option<&'t Bucket> {
        let index = bucket[OVERFLOW].load(Relaxed) as usize;
        (index != 0).then(|| self.table.overflow.get(index))
    }

    /// Finds the item of `hash` for which `is_it` holds.
    #[inline]
    pub fn find(
        &self,
        hash: KeyHash,
        is_it: impl Fn(ChunkHandle) -> bool,
    ) -> Option<(Slot<'t>, ChunkHandle)> {
        let mut bucket = self.home(hash).bucket;
        loop {
            for word in &bucket[..SLOTS] {
                let slot = word.load(Relaxed);
                if slot_hash(slot) == hash
                    && let Some(handle) = slot_handle(slot)
                    && is_it(handle)
                {
                    return Some((Slot(word), handle));
                }
            }
            bucket = self.overflow_of(bucket)?;
        }
    }

    /// Adds an item whose key is not in the table, and splits the next bucket if the stripe has become too full.
    pub fn insert(&mut self, hash: KeyHash, handle: ChunkHandle) {
        debug_assert!(self.covers(hash));
        self.append(self.home(hash), slot(hash, handle));
        self.state_mut().items += 1;
        let buckets = (1u32 << self.state().level) + self.state().split;
        let full = self.state().items * 2 > buckets * ITEMS_PER_BUCKET_X2;
        if full && self.table.may_grow && self.state().level < self.table.level_max {
            self.split();
        }
    }

    /// Lets a slot lead to another item of the same key.
    #[inline]
    pub fn replace(&mut self, slot: Slot<'t>, handle: ChunkHandle) {
        let hash = slot_hash(slot.0.load(Relaxed));
        slot.0.store(self::slot(hash, handle), Relaxed);
    }

    /// Takes a slot out: the last one of its chain fills the hole (T2).
    pub fn remove(&mut self, slot: Slot<'t>) {
        let hash = slot_hash(slot.0.load(Relaxed));
        let mut before = None;
        let mut bucket = self.home(hash).bucket;
        while let Some(next) = self.overflow_of(bucket) {
            before = Some(bucket);
            bucket = next;
        }
        let used = bucket[..SLOTS]
            .iter()
            .take_while(|slot| slot.load(Relaxed) != 0)
            .count();
        let last = &bucket[used
            .checked_sub(1)
            .expect("the chain holds at least the slot")];
        slot.0.store(last.load(Relaxed), Relaxed);
        last.store(0, Relaxed);
        if used == 1
            && let Some(before) = before
        {
            self.cut(before);
        }
        self.state_mut().items -= 1;
    }

    /// Frees the (empty) overflow behind `bucket`.
    fn cut(&self, bucket: &Bucket) {
        let mut index = bucket[OVERFLOW].swap(0, Relaxed) as u32;
        while index != 0 {
            let next = self.table.overflow.get(index as usize)[OVERFLOW].swap(0, Relaxed) as u32;
            self.table.give_overflow(index);
            index = next;
        }
    }

    /// Puts a slot behind the last one of a chain, given any place in it.
    fn append(&self, mut at: Cursor<'t>, slot: u64) -> Cursor<'t> {
        loop {
            if at.slot == SLOTS {
                at = self.next_bucket(at.bucket);
            } else if at.bucket[at.slot].load(Relaxed) == 0 {
                at.bucket[at.slot].store(slot, Relaxed);
                return at;
            } else {
                at.slot += 1;
            }
        }
    }

    /// The overflow bucket behind `bucket`, made if there is none.
    fn next_bucket(&self, bucket: &Bucket) -> Cursor<'t> {
        let next = self.overflow_of(bucket).unwrap_or_else(|| {
            let index = self.table.take_overflow();
            bucket[OVERFLOW].store(u64::from(index), Relaxed);
            self.table.overflow.get(index as usize)
        });
        Cursor {
            bucket: next,
            slot: 0,
        }
    }

    /// Splits the bucket in turn: its items part by the next bit of their hash.
    fn split(&mut self) {
        let (level, split) = (self.state().level, self.state().split);
        let bits = self.table.stripe_bits;
        let bucket = |local: usize| self.table.buckets.get(local << bits | self.stripe);
        let old = bucket(split as usize);
        let mut moved = Cursor {
            bucket: bucket((1 << level) + split as usize),
            slot: 0,
        };
        let mut stay = Cursor {
            bucket: old,
            slot: 0,
        };
        let mut read = Cursor {
            bucket: old,
            slot: 0,
        };
        loop {
            if read.slot == SLOTS {
                let Some(next) = self.overflow_of(read.bucket) else {
                    break;
                };
                read = Cursor {
                    bucket: next,
                    slot: 0,
                };
            }
            let slot = read.bucket[read.slot].swap(0, Relaxed);
            read.slot += 1;
            if slot == 0 {
                break;
            }
            if (slot_hash(slot).0 >> bits) >> level & 1 == 1 {
                moved = self.append(moved, slot);
            } else {
                stay = self.append(stay, slot);
            }
        }
        self.cut(stay.bucket);
        self.state_mut().split += 1;
        if self.state().split == 1 << level {
            self.state_mut().level += 1;
            self.state_mut().split = 0;
        }
        let shape = self.state().level << 27 | self.state().split;
        self.table.stripes[self.stripe].shape.store(shape, Relaxed);
    }

    /// Every item of the stripe.
    pub fn entries(&self) -> Vec<(KeyHash, ChunkHandle)> {
        let mut entries = Vec::with_capacity(self.state().items as usize);
        for local in 0..(1usize << self.state().level) + self.state().split as usize {
            let mut next = Some(
                self.table
                    .buckets
                    .get(local << self.table.stripe_bits | self.stripe),
            );
            while let Some(bucket) = next {
                let slots = bucket[..SLOTS].iter().map(|slot| slot.load(Relaxed));
                entries
                    .extend(slots.filter_map(|slot| Some((slot_hash(slot), slot_handle(slot)?))));
                next = self.overflow_of(bucket);
            }
        }
        entries
    }

    /// Checks T2 and T3 and the count.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        let mut items = 0;
        for local in 0..(1usize << self.state().level) + self.state().split as usize {
            let index = local << self.table.stripe_bits | self.stripe;
            let mut next = Some(self.table.buckets.get(index));
            let mut ended = false;
            while let Some(bucket) = next {
                for word in &bucket[..SLOTS] {
                    let slot = word.load(Relaxed);
                    assert!(!(ended && slot != 0), "T2: a hole in chain {index}");
                    ended |= slot == 0;
                    if slot != 0 {
                        let hash = slot_hash(slot);
                        let home =
                            self.table
                                .bucket_index(hash, self.state().level, self.state().split);
                        assert_eq!(home, index, "T3: a slot in the wrong chain");
                        items += 1;
                    }
                }
                next = self.overflow_of(bucket);
                if let Some(next) = next {
                    assert_ne!(next[0].load(Relaxed), 0, "T2: an empty overflow bucket");
                }
            }
        }
        assert_eq!(items, self.state().items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn handle(n: u32) -> ChunkHandle {
        ChunkHandle::from_raw(n).unwrap()
    }

    fn check(table: &Table) {
        for stripe in 0..table.stripes() {
            table.lock_stripe(stripe).check_invariants();
        }
    }

    /// Random inserts, replacements and removals against a `HashMap` from hash to handle.
    fn model(seed: u64, steps: u32, hash_mask: u32, may_grow: bool) {
        println!("seed {seed}");
        let mut rng = crate::cache::testing::Rng::new(seed);
        let table = Table::new(2, 3, may_grow).unwrap();
        let mut model: HashMap<u32, u32> = HashMap::new();
        for step in 1..=steps {
            let raw = (rng.next() as u32).wrapping_mul(0x9e37_79b9) & hash_mask;
            let hash = KeyHash(raw);
            let mut guard = table.lock(hash);
            let found = guard.find(hash, |_| true);
            assert_eq!(
                found.map(|(_, handle)| handle.to_raw()),
                model.get(&raw).copied()
            );
            match (found, rng.next() % 3) {
                (None, _) => {
                    guard.insert(hash, handle(step));
                    model.insert(raw, step);
                }
                (Some((slot, _)), 0) => {
                    guard.replace(slot, handle(step));
                    model.insert(raw, step);
                }
                (Some((slot, _)), _) => {
                    guard.remove(slot);
                    model.remove(&raw);
                }
            }
            guard.check_invariants();
        }
        check(&table);
        assert_eq!(table.shape().items, model.len());
        for (&raw, &at) in &model {
            let hash = KeyHash(raw);
            assert_eq!(table.lock(hash).find(hash, |_| true).unwrap().1, handle(at));
        }
    }

    #[test]
    fn behaves_like_a_map_while_it_grows() {
        for seed in 1..4 {
            model(seed, 3000, 0x0fff, true);
        }
    }

    #[test]
    fn behaves_like_a_map_with_long_chains() {
        model(9, 2000, 0xff, false);
    }

    #[test]
    fn equal_hashes_are_told_apart_by_the_key() {
        let table = Table::new(1, 1, true).unwrap();
        let hash = KeyHash(6);
        let mut guard = table.lock(hash);
        for n in 1..=30 {
            guard.insert(hash, handle(n));
        }
        for n in 1..=30 {
            assert_eq!(guard.find(hash, |at| at == handle(n)).unwrap().1, handle(n));
        }
        for n in 1..=30 {
            let (slot, _) = guard.find(hash, |at| at == handle(n)).unwrap();
            guard.remove(slot);
            guard.check_invariants();
        }
        drop(guard);
        assert_eq!(table.shape().overflow_buckets, 0);
    }

    #[test]
    fn a_million_items_cost_at_most_16_bytes_each() {
        let table = Table::new(10, 14, true).unwrap();
        for n in 1..=1_000_000u32 {
            let hash = table.hash(&n.to_le_bytes());
            table.lock(hash).insert(hash, handle(n));
        }
        check(&table);
        let shape = table.shape();
        assert_eq!(shape.items, 1_000_000);
        assert!(shape.bytes() <= 17_000_000, "{shape:?}");
    }
}
