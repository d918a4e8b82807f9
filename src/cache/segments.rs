//! One class's items in order: four segments, each a doubly linked list of handles.
//!
//! ```text
//!   store --> HOT, WARM, COLD: what they are for is the policy's (eviction/)     store with a short TTL --> TEMP
//! ```
//!
//! L1. An item is in exactly one segment while it is LINKED, the one its state word names.
//! L2. Links and counts change only under the class's lock.
//!
//! Costs: 8 bytes of links an item.

use slab_alloc::ChunkHandle;

use super::item::Items;
pub use super::item::Segment;

/// One list.
#[derive(Debug, Default, Clone, Copy)]
pub struct List {
    pub(super) head: Option<ChunkHandle>,
    pub(super) tail: Option<ChunkHandle>,
    /// Items in it.
    pub count: usize,
}

/// How the segments are to be kept, from the tuning in force.
#[derive(Clone, Copy)]
pub struct Balance<'a> {
    /// The share of the class's items HOT may hold, in percent.
    pub hot_pct: usize,
    /// The same for WARM.
    pub warm_pct: usize,
    /// It is the maintainer who asks, and not a store that waits.
    pub in_background: bool,
    /// True if the tail of a segment is too old for it, given COLD's tail.
    pub too_old: &'a dyn Fn(Segment, ChunkHandle, Option<ChunkHandle>) -> bool,
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

impl LruCounters {
    /// Counts a dead item whose memory or place went to a store, or was taken before a store had to ask for it.
    pub(super) fn count_reclaimed(&mut self, unfetched: bool) {
        self.reclaimed += 1;
        self.expired_unfetched += u64::from(unfetched);
    }

    /// Items that were moved on when their turn to be evicted had come.
    pub(super) fn kept(&self) -> u64 {
        self.moves_to_cold + self.moves_to_warm + self.moves_within_lru
    }
}

/// The lists of one class, and what is counted on their way.
#[derive(Debug, Default)]
pub struct Segments {
    lists: [List; 4],
    /// What happened here.
    pub counters: LruCounters,
}

impl Segments {
    /// Goes on with lists that were left like this.
    pub(super) fn resume(lists: [List; 4]) -> Self {
        let counters = LruCounters::default();
        Segments { lists, counters }
    }

    /// A segment's list.
    pub fn list(&self, segment: Segment) -> &List {
        &self.lists[segment as usize]
    }

    /// Items in all segments.
    pub fn count(&self) -> usize {
        self.lists.iter().map(|list| list.count).sum()
    }

    /// The item of a segment that entered it first.
    #[inline]
    pub fn tail(&self, segment: Segment) -> Option<ChunkHandle> {
        self.lists[segment as usize].tail
    }

    /// The tail of the segment that is evicted from first, if all else is equal.
    pub fn oldest(&self) -> Option<ChunkHandle> {
        let order = [Segment::Cold, Segment::Warm, Segment::Hot, Segment::Temp];
        order.into_iter().find_map(|segment| self.tail(segment))
    }

    /// Moves an item to the head of a segment.
    pub fn shift(&mut self, items: &Items, handle: ChunkHandle, to: Segment) {
        self.take(items, handle);
        self.push(items, handle, to);
    }

    pub(super) fn push(&mut self, items: &Items, handle: ChunkHandle, segment: Segment) {
        let (list, header) = (&mut self.lists[segment as usize], items.header(handle));
        let next = list.head.replace(handle);
        header.set_prev(None);
        header.set_next(next);
        match next {
            Some(next) => items.header(next).set_prev(Some(handle)),
            None => list.tail = Some(handle),
        }
        list.count += 1;
        header.set_segment(segment);
    }

    pub(super) fn take(&mut self, items: &Items, handle: ChunkHandle) {
        let header = items.header(handle);
        let list = &mut self.lists[header.state().segment() as usize];
        let (prev, next) = (header.prev(), header.next());
        match prev {
            Some(prev) => items.header(prev).set_next(next),
            None => list.head = next,
        }
        match next {
            Some(next) => items.header(next).set_prev(prev),
            None => list.tail = prev,
        }
        list.count -= 1;
    }

    pub(super) fn replace(&mut self, items: &Items, old: ChunkHandle, new: ChunkHandle) {
        let list = &mut self.lists[items.header(new).state().segment() as usize];
        match items.header(new).prev() {
            Some(prev) => items.header(prev).set_next(Some(new)),
            None => list.head = Some(new),
        }
        match items.header(new).next() {
            Some(next) => items.header(next).set_prev(Some(new)),
            None => list.tail = Some(new),
        }
        debug_assert_ne!(list.head, Some(old));
    }

    pub(super) fn handles(&self, items: &Items) -> impl Iterator<Item = ChunkHandle> {
        let walk =
            |list: &List| std::iter::successors(list.head, |&handle| items.header(handle).next());
        self.lists.iter().flat_map(walk)
    }
}
