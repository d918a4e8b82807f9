//! A locked stripe: the right to read and change its chains.

use slab_alloc::ChunkHandle;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

use super::block::{Block, Bucket};
use super::probe::{IN_OVERFLOW, KeyHash, Probe, Slot};
use super::{ITEMS_PER_BUCKET_X2, StripeState, Table, TableShape};
use crate::keyspace::slow::{self, Stage};

/// A locked stripe: the right to read and change its chains.
#[derive(Debug)]
pub struct StripeGuard<'t> {
    pub(super) table: &'t Table,
    pub(super) stripe: usize,
    pub(super) state: MutexGuard<'t, StripeState>,
}

impl Table {
    /// Locks the stripe of `hash`.
    #[inline]
    pub fn lock(&self, hash: KeyHash) -> StripeGuard<'_> {
        self.lock_stripe(self.stripe_index(hash))
    }

    /// Locks the stripe of `hash` unless somebody holds it: for those who come against the lock order.
    #[inline]
    pub fn try_lock(&self, hash: KeyHash) -> Option<StripeGuard<'_>> {
        let stripe = self.stripe_index(hash);
        let state = self.stripes[stripe].lock.try_lock()?;
        Some(StripeGuard {
            table: self,
            stripe,
            state,
        })
    }

    /// Locks a stripe by number.
    #[inline]
    pub fn lock_stripe(&self, stripe: usize) -> StripeGuard<'_> {
        let lock = &self.stripes[stripe].lock;
        StripeGuard {
            table: self,
            stripe,
            state: lock.try_lock().unwrap_or_else(|| wait_for(lock)),
        }
    }

    /// Counts buckets and items, stripe by stripe.
    pub fn shape(&self) -> TableShape {
        let mut shape = TableShape::default();
        for stripe in 0..self.stripes.len() {
            let guard = self.lock_stripe(stripe);
            shape.buckets += guard.state.buckets() as usize;
            shape.items += guard.state.items as usize;
        }
        (shape.overflow, shape.overflow_touched) = self.overflow.counts();
        shape
    }
}

/// Locks a stripe that somebody else holds.
#[cold]
fn wait_for(lock: &Mutex<StripeState>) -> MutexGuard<'_, StripeState> {
    slow::timed(Stage::Lock, || lock.lock())
}

/// A position in a chain: a slot of one of its blocks.
#[derive(Debug, Clone, Copy)]
struct Position<'t> {
    block: Block<'t>,
    slot: usize,
}

impl<'t> StripeGuard<'t> {
    /// True if `hash` belongs to this stripe.
    pub fn covers(&self, hash: KeyHash) -> bool {
        self.table.stripe_index(hash) == self.stripe
    }

    /// The table.
    #[inline]
    pub fn table(&self) -> &'t Table {
        self.table
    }

    /// Counts a store; gives how many there were, this one too.
    #[inline]
    pub fn count_store(&self) -> u64 {
        let stores = &self.table.stripes[self.stripe].stores;
        let count = stores.load(Relaxed) + 1;
        stores.store(count, Relaxed);
        count
    }

    /// Counts a store of a small value likewise, from the number of the stripe on.
    #[inline]
    pub fn count_small(&self) -> u32 {
        let small = &self.table.stripes[self.stripe].small;
        let count = small.load(Relaxed).wrapping_add(1);
        small.store(count, Relaxed);
        count
    }

    /// Goes on counting stores from `count` at least.
    pub fn raise_count(&self, count: u64) {
        self.table.stripes[self.stripe]
            .stores
            .fetch_max(count, Relaxed);
    }

    /// How many items it has, and its shape.
    pub(super) fn items_and_shape(&self) -> (u32, u32) {
        (self.state.items, self.state.shape())
    }

    /// The number of the stripe.
    pub fn number(&self) -> usize {
        self.stripe
    }

    #[inline]
    fn home_index(&self, hash: KeyHash) -> usize {
        let state = &self.state;
        self.table.bucket_index(hash, state.level, state.split)
    }

    #[inline]
    fn home(&self, hash: KeyHash) -> &'t Bucket {
        self.table.buckets.get(self.home_index(hash))
    }

    #[inline]
    pub(super) fn after(&self, block: Block<'_>) -> Option<Block<'t>> {
        let index = block.next();
        (index != 0).then(|| self.table.overflow.get(index))
    }

    /// Finds the item of `hash` for which `is_it` holds.
    #[inline]
    pub fn find(
        &self,
        hash: KeyHash,
        is_it: impl Fn(ChunkHandle) -> bool,
    ) -> Option<(Slot, ChunkHandle)> {
        let found_at = |block, (slot, handle)| (Slot::new(block, slot), handle);
        let index = self.home_index(hash);
        let home = Block(self.table.buckets.get(index));
        if let Some(found) = home.find(hash.tag(), &is_it) {
            return Some(found_at(index as u32, found));
        }
        let mut overflow = home.next();
        while overflow != 0 {
            let block = self.table.overflow.get(overflow);
            if let Some(found) = block.find(hash.tag(), &is_it) {
                return Some(found_at(IN_OVERFLOW | overflow, found));
            }
            overflow = block.next();
        }
        None
    }

    /// Finds the item where it was seen, if `is_it` holds for what is there now.
    #[inline(always)]
    pub fn find_seen(
        &self,
        probe: &Probe,
        is_it: impl Fn(ChunkHandle) -> bool,
    ) -> Option<(Slot, ChunkHandle)> {
        let (slot, handle) = probe.seen?;
        debug_assert!(self.covers(probe.hash));
        // It was seen in a bucket that is no overflow bucket, and such a bucket belongs to one stripe for ever. So what its slot holds now,
        // under the lock, is an item of this stripe.
        let block = Block(self.table.buckets.get(slot.block as usize));
        let at = usize::from(slot.slot);
        let same = block.handle(at) == Some(handle) && block.tag(at) == probe.hash.tag();
        (same && is_it(handle)).then_some((slot, handle))
    }

    /// The position of a slot.
    #[inline]
    fn position(&self, slot: Slot) -> Position<'t> {
        let block = if slot.block & IN_OVERFLOW != 0 {
            self.table.overflow.get(slot.block & !IN_OVERFLOW)
        } else {
            Block(self.table.buckets.get(slot.block as usize))
        };
        Position {
            block,
            slot: usize::from(slot.slot),
        }
    }

    /// Adds an item whose key is not in the table, and splits the next bucket if the stripe has become too full.
    pub fn insert(&mut self, hash: KeyHash, handle: ChunkHandle) {
        debug_assert!(self.covers(hash));
        self.append(start(self.home(hash)), hash.tag(), handle);
        self.state.items += 1;
        if self.is_small_for(self.state.items) {
            self.split();
        }
    }

    /// Whether a bucket is to be split for so many items, and can be.
    #[inline]
    fn is_small_for(&self, items: u32) -> bool {
        let buckets = self.state.buckets();
        let [sparse, dense] = ITEMS_PER_BUCKET_X2;
        let most = if buckets < self.table.sparse_buckets_max {
            sparse
        } else {
            dense
        };
        items * 2 > buckets * most && self.table.may_grow && self.state.level < self.table.level_max
    }

    /// Grows as `items` would have it grow, before they come: what has not come need not be moved.
    pub(super) fn expect(&mut self, items: u32) {
        while self.is_small_for(items) {
            self.split();
        }
    }

    /// Lets a slot lead to another item of the same key.
    #[inline]
    pub fn replace(&mut self, slot: Slot, handle: ChunkHandle) {
        let Position { block, slot } = self.position(slot);
        block.set_handle(slot, Some(handle));
    }

    /// Takes a slot out, that of an item of `hash`: the last one of its chain fills the hole (T2).
    pub fn remove(&mut self, hash: KeyHash, slot: Slot) {
        let (mut before, mut last) = (None, Block(self.home(hash)));
        while let Some(next) = self.after(last) {
            before = Some(last);
            last = next;
        }
        let used = last.used();
        let filler = used
            .checked_sub(1)
            .expect("the chain holds at least the slot");
        let Position { block, slot: hole } = self.position(slot);
        block.set(hole, last.tag(filler), last.handle(filler));
        last.set(filler, 0, None);
        if used == 1
            && let Some(before) = before
        {
            self.cut(before);
        }
        self.state.items -= 1;
    }

    /// Frees the (empty) overflow buckets behind `block`.
    fn cut(&self, block: Block<'_>) {
        let mut index = block.next();
        block.set_next(0);
        while index != 0 {
            let next = self.table.overflow.get(index).next();
            self.table.overflow.give(index);
            index = next;
        }
    }

    /// Puts an item behind the last one of a chain, given any position in it.
    fn append(&self, mut at: Position<'t>, tag: u16, handle: ChunkHandle) -> Position<'t> {
        loop {
            if at.slot == at.block.slots() {
                at = start(self.after_or_new(at.block).0);
            } else if at.block.handle(at.slot).is_none() {
                at.block.set(at.slot, tag, Some(handle));
                return at;
            } else {
                at.slot += 1;
            }
        }
    }

    /// The overflow bucket behind `block`, made if there is none.
    fn after_or_new(&self, block: Block<'_>) -> Block<'t> {
        self.after(block).unwrap_or_else(|| {
            let index = self.table.overflow.take();
            block.set_next(index);
            self.table.overflow.get(index)
        })
    }

    /// Splits the bucket in turn: its items part by the next bit of their hash.
    fn split(&mut self) {
        let (level, split) = (self.state.level, self.state.split);
        let bits = self.table.stripe_bits;
        self.table.back_bucket((1 << level) + split as usize);
        let bucket = |local: usize| self.table.buckets.get(local << bits | self.stripe);
        let old = bucket(split as usize);
        let new = bucket((1 << level) + split as usize);
        // Zeros, unless somebody has written into a file while nobody had it.
        new.iter().for_each(|word| word.store(0, Relaxed));
        let mut moved = start(new);
        let (mut stay, mut read) = (start(old), start(old));
        loop {
            if read.slot == read.block.slots() {
                let Some(next) = self.after(read.block) else {
                    break;
                };
                read = start(next.0);
            }
            let Position { block, slot } = read;
            let Some(handle) = block.handle(slot) else {
                break;
            };
            let tag = block.tag(slot);
            block.set(slot, 0, None);
            read.slot += 1;
            // The next bit is one of the tag's (T3).
            if tag >> (level + bits - 16) & 1 == 1 {
                moved = self.append(moved, tag, handle);
            } else {
                stay = self.append(stay, tag, handle);
            }
        }
        self.cut(stay.block);
        self.state.split += 1;
        if self.state.split == 1 << level {
            self.state.level += 1;
            self.state.split = 0;
        }
        let shape = self.state.shape();
        self.table.stripes[self.stripe].shape.store(shape, Relaxed);
    }

    /// The chains of the stripe: the index of each one's bucket, and its blocks.
    fn chains(&self) -> impl Iterator<Item = (usize, impl Iterator<Item = Block<'t>>)> {
        let buckets = self.state.buckets() as usize;
        (0..buckets).map(move |local| {
            let index = local << self.table.stripe_bits | self.stripe;
            let home = Block(self.table.buckets.get(index));
            let blocks = std::iter::successors(Some(home), |&block| self.after(block));
            (index, blocks)
        })
    }

    /// Every item of the stripe.
    pub fn entries(&self) -> Vec<(KeyHash, ChunkHandle)> {
        let mut entries = Vec::with_capacity(self.state.items as usize);
        for (index, blocks) in self.chains() {
            for block in blocks {
                for slot in 0..block.used() {
                    let hash = u32::from(block.tag(slot)) << 16 | index as u32 & 0xffff;
                    let handle = block.handle(slot).expect("a slot in use has a handle");
                    entries.push((KeyHash(hash), handle));
                }
            }
        }
        entries
    }

    /// Checks T2 and T3 and the count.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        let mut items = 0;
        for (index, blocks) in self.chains() {
            let mut ended = false;
            for (nth, block) in blocks.enumerate() {
                assert!(
                    nth == 0 || block.handle(0).is_some(),
                    "T2: an empty overflow bucket"
                );
                for slot in 0..block.slots() {
                    let used = block.handle(slot).is_some();
                    assert!(!(ended && used), "T2: a hole in chain {index}");
                    ended |= !used;
                    items += u32::from(used);
                }
            }
        }
        for (hash, _) in self.entries() {
            let state = &self.state;
            let home = self.table.bucket_index(hash, state.level, state.split);
            let listed = Block(self.table.buckets.get(home));
            let found = std::iter::successors(Some(listed), |&block| self.after(block))
                .any(|block| block.find(hash.tag(), |_| true).is_some());
            assert!(found, "T3: a slot in the wrong chain");
        }
        assert_eq!(items, self.state.items);
    }
}

/// The first position of a block.
fn start(words: &[AtomicU64]) -> Position<'_> {
    Position {
        block: Block(words),
        slot: 0,
    }
}
