//! One class's items in the order of their use: four segments, each a doubly linked list of handles.
//!
//! ```text
//!   store --> HOT ----------> COLD --> evicted        store with a short TTL --> TEMP --> expires
//!              | ACTIVE        | ACTIVE
//!              +----> WARM <---+      WARM's own tail: ACTIVE --> WARM head, else --> COLD
//! ```
//!
//! A hit only sets bits in the item's header (FETCHED, then ACTIVE); items move when a store or the maintainer looks at
//! a tail. So a read never takes this lock. HOT and WARM are kept to a share of the class's items; new items pass
//! through HOT, so that one scan of the cache does not push out what is used again and again.
//!
//! L1. An item is in exactly one segment while it is LINKED, the one its state word names.
//! L2. Links and counts change only under the class's lock.
//! L3. A flat LRU (`lru mode flat`) uses COLD alone; an ACTIVE tail gets a second round.
//!
//! Costs: 8 bytes of links an item; linking takes one lock and looks at no more than [`BALANCE_STEPS`] tails.

use slab_alloc::ChunkHandle;

use super::item::{Items, state};

/// Tails looked at when an item is linked: two, so that HOT and WARM shrink faster than stores can fill them.
const BALANCE_STEPS: usize = 2;

/// A part of the LRU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "memcached's names, drawn above")]
pub enum Segment {
    Hot = 0,
    Warm = 1,
    Cold = 2,
    Temp = 3,
}

impl Segment {
    /// All of them, by number.
    pub const ALL: [Segment; 4] = [Segment::Hot, Segment::Warm, Segment::Cold, Segment::Temp];

    /// The segment a state word names.
    #[inline]
    pub fn of(state_word: u16) -> Segment {
        Segment::ALL[usize::from((state_word & state::SEGMENT) >> state::SEGMENT_SHIFT)]
    }
}

/// One list.
#[derive(Debug, Default, Clone, Copy)]
pub struct List {
    head: Option<ChunkHandle>,
    tail: Option<ChunkHandle>,
    /// Items in it.
    pub count: usize,
}

/// How the segments are kept, from the tuning in force.
#[derive(Debug, Clone, Copy)]
pub struct Balance {
    /// Segmented, or one flat list.
    pub segmented: bool,
    /// The share of the class's items HOT may hold, in percent.
    pub hot_pct: usize,
    /// The same for WARM.
    pub warm_pct: usize,
}

/// What a class counts under its LRU lock; the names are those of `stats items`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the `stats items` key of its name")]
pub struct LruCounters {
    pub total_items: u64,
    pub evicted: u64,
    pub evicted_nonzero: u64,
    /// Seconds since its last access of the item evicted last.
    pub evicted_time: u64,
    pub outofmemory: u64,
    pub reclaimed: u64,
    pub expired_unfetched: u64,
    pub evicted_unfetched: u64,
    pub evicted_active: u64,
    pub crawler_reclaimed: u64,
    pub crawler_items_checked: u64,
    pub lrutail_reflocked: u64,
    pub moves_to_cold: u64,
    pub moves_to_warm: u64,
    pub moves_within_lru: u64,
    pub direct_reclaims: u64,
}

/// The LRU of one class; it lives inside its lock.
#[derive(Debug, Default)]
pub struct ClassLru {
    lists: [List; 4],
    /// Bytes the linked items asked for.
    pub requested_bytes: u64,
    /// What happened here.
    pub counters: LruCounters,
    /// Bytes of chunks evicted since the class last asked for a page: the evidence that it wants one.
    pub evicted_bytes: usize,
    /// How much evidence it takes to ask again.
    pub ask_after_bytes: usize,
}

impl ClassLru {
    /// A segment's list.
    pub fn list(&self, segment: Segment) -> &List {
        &self.lists[segment as usize]
    }

    /// Items in all segments.
    pub fn count(&self) -> usize {
        self.lists.iter().map(|list| list.count).sum()
    }

    /// The oldest item of a segment.
    #[inline]
    pub fn tail(&self, segment: Segment) -> Option<ChunkHandle> {
        self.lists[segment as usize].tail
    }

    /// Puts a new item at the head of a segment.
    pub fn link(&mut self, items: &Items, handle: ChunkHandle, segment: Segment) {
        self.push(items, handle, segment);
        items.set_bits(handle, state::LINKED);
        self.requested_bytes += items.requested_bytes(handle) as u64;
        self.counters.total_items += 1;
    }

    /// Takes an item out.
    pub fn unlink(&mut self, items: &Items, handle: ChunkHandle) {
        self.take(items, handle);
        items.clear_bits(handle, state::LINKED);
        self.requested_bytes -= items.requested_bytes(handle) as u64;
    }

    /// Lets `new`, already a copy of `old`'s header, stand in `old`'s place (page moves).
    pub fn replace(&mut self, items: &Items, old: ChunkHandle, new: ChunkHandle) {
        let list = &mut self.lists[Segment::of(items.state(new)) as usize];
        match items.prev(new) {
            Some(prev) => items.set_next(prev, Some(new)),
            None => list.head = Some(new),
        }
        match items.next(new) {
            Some(next) => items.set_prev(next, Some(new)),
            None => list.tail = Some(new),
        }
        debug_assert_ne!(list.head, Some(old));
    }

    /// Moves an item to the head of a segment, and clears its ACTIVE bit: there it must earn it anew.
    pub fn shift(&mut self, items: &Items, handle: ChunkHandle, to: Segment) {
        self.take(items, handle);
        items.clear_bits(handle, state::ACTIVE);
        self.push(items, handle, to);
    }

    fn push(&mut self, items: &Items, handle: ChunkHandle, segment: Segment) {
        let list = &mut self.lists[segment as usize];
        items.set_prev(handle, None);
        items.set_next(handle, list.head);
        match list.head {
            Some(head) => items.set_prev(head, Some(handle)),
            None => list.tail = Some(handle),
        }
        list.head = Some(handle);
        list.count += 1;
        items.set_field(handle, state::SEGMENT, state::SEGMENT_SHIFT, segment as u16);
    }

    fn take(&mut self, items: &Items, handle: ChunkHandle) {
        let list = &mut self.lists[Segment::of(items.state(handle)) as usize];
        let (prev, next) = (items.prev(handle), items.next(handle));
        match prev {
            Some(prev) => items.set_next(prev, next),
            None => list.head = next,
        }
        match next {
            Some(next) => items.set_prev(next, prev),
            None => list.tail = prev,
        }
        list.count -= 1;
    }

    /// A few steps towards the segments' shares.
    #[inline]
    pub fn balance(&mut self, items: &Items, keep: Balance) {
        for _ in 0..BALANCE_STEPS {
            if !self.balance_step(items, keep) {
                break;
            }
        }
    }

    /// Moves one tail out of a segment that is above its share; false if none is.
    pub fn balance_step(&mut self, items: &Items, keep: Balance) -> bool {
        let total = self.count() - self.lists[Segment::Temp as usize].count;
        let over = |list: &List, pct: usize| list.count > 0 && list.count * 100 > total * pct;
        let flat = !keep.segmented;
        if over(self.list(Segment::Hot), if flat { 0 } else { keep.hot_pct }) {
            self.retire_tail(items, Segment::Hot, flat)
        } else if over(
            self.list(Segment::Warm),
            if flat { 0 } else { keep.warm_pct },
        ) {
            self.retire_tail(items, Segment::Warm, flat)
        } else {
            false
        }
    }

    /// Moves the tail of HOT or WARM on: to WARM if it was used, else to COLD.
    pub fn retire_tail(&mut self, items: &Items, from: Segment, flat: bool) -> bool {
        let Some(tail) = self.tail(from) else {
            return false;
        };
        let active = items.state(tail) & state::ACTIVE != 0 && !flat;
        let to = if active { Segment::Warm } else { Segment::Cold };
        match (from, to) {
            (Segment::Warm, Segment::Warm) => self.counters.moves_within_lru += 1,
            (_, Segment::Warm) => self.counters.moves_to_warm += 1,
            _ => self.counters.moves_to_cold += 1,
        }
        self.shift(items, tail, to);
        true
    }

    /// The item that would be evicted next.
    pub fn oldest(&self) -> Option<ChunkHandle> {
        let order = [Segment::Cold, Segment::Warm, Segment::Hot, Segment::Temp];
        order.into_iter().find_map(|segment| self.tail(segment))
    }

    /// Checks L1 and the counts.
    #[cfg(test)]
    pub fn check_invariants(&self, items: &Items) {
        let mut requested = 0;
        for segment in Segment::ALL {
            let list = self.list(segment);
            let (mut prev, mut at, mut count) = (None, list.head, 0);
            while let Some(handle) = at {
                let bits = items.state(handle);
                assert!(
                    bits & state::LINKED != 0 && bits & state::ITEM != 0,
                    "L1: {bits:#x}"
                );
                assert_eq!(Segment::of(bits), segment, "L1");
                assert_eq!(items.prev(handle), prev);
                requested += items.requested_bytes(handle) as u64;
                (prev, at, count) = (at, items.next(handle), count + 1);
            }
            assert_eq!(list.tail, prev);
            assert_eq!(list.count, count);
        }
        assert_eq!(self.requested_bytes, requested);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::{Rng, small_items};
    use crate::cache::{AllocError, ItemSpec};
    use crate::clock::RelTime;
    use std::collections::VecDeque;

    fn item(items: &Items) -> ChunkHandle {
        let spec = ItemSpec {
            key: b"k",
            key_binary: false,
            client_flags: 0,
            expires_at: RelTime::NEVER,
            value_len: 3,
        };
        let new = items.create(&spec, |class| items.slabs().alloc(class));
        new.map_err(|error: AllocError| format!("{error:?}"))
            .unwrap()
            .into_handle()
    }

    /// Random links, shifts and unlinks against one `VecDeque` a segment.
    #[test]
    fn behaves_like_lists() {
        let items = small_items(4);
        for seed in 1..4 {
            println!("seed {seed}");
            let mut rng = Rng::new(seed);
            let mut lru = ClassLru::default();
            let mut model: [VecDeque<ChunkHandle>; 4] = Default::default();
            for _ in 0..2000 {
                let from = (rng.next() % 4) as usize;
                let to = Segment::ALL[(rng.next() % 4) as usize];
                match rng.next() % 3 {
                    0 => {
                        let handle = item(&items);
                        lru.link(&items, handle, to);
                        model[to as usize].push_front(handle);
                    }
                    1 if !model[from].is_empty() => {
                        let at = rng.next() as usize % model[from].len();
                        let handle = model[from].remove(at).unwrap();
                        lru.shift(&items, handle, to);
                        model[to as usize].push_front(handle);
                    }
                    2 if !model[from].is_empty() => {
                        assert_eq!(lru.tail(Segment::ALL[from]), model[from].back().copied());
                        let handle = model[from].pop_back().unwrap();
                        lru.unlink(&items, handle);
                        items.release(handle);
                    }
                    _ => {}
                }
                lru.check_invariants(&items);
            }
            for handle in model.iter().flatten() {
                lru.unlink(&items, *handle);
                items.release(*handle);
            }
            assert_eq!(lru.requested_bytes, 0);
        }
    }

    #[test]
    fn an_active_tail_is_kept_warm_and_an_idle_one_goes_cold() {
        let items = small_items(4);
        let mut lru = ClassLru::default();
        let keep = Balance {
            segmented: true,
            hot_pct: 20,
            warm_pct: 40,
        };
        let handles: Vec<_> = (0..10).map(|_| item(&items)).collect();
        for (n, &handle) in handles.iter().enumerate() {
            lru.link(&items, handle, Segment::Hot);
            if n == 0 {
                items.set_bits(handle, state::FETCHED | state::ACTIVE);
            }
        }
        while lru.balance_step(&items, keep) {}
        assert_eq!(lru.list(Segment::Hot).count, 2);
        assert_eq!(lru.tail(Segment::Warm), Some(handles[0]));
        assert_eq!(lru.list(Segment::Cold).count, 7);
        assert_eq!(lru.tail(Segment::Cold), Some(handles[1]));
        for handle in handles {
            lru.unlink(&items, handle);
            items.release(handle);
        }
    }
}
