//! Where a chunk comes from when there is no free one: from the dead, from the least used, or from another class.
//!
//! ```text
//!  free chunk or page of the pool
//!    else: another class is clearly older or far richer --> empty one of its pages, take it
//!    else: evict the own tail
//!    else: take a page from whoever is oldest
//! ```
//!
//! A cache that was filled with items of one size must take items of another at once, not after they have fought over
//! the one page their class got first. So a class that evicts compares its tail's age with the other classes' tails,
//! and takes a page from the one whose items are older. What is read often in that page is moved to other chunks of
//! its class (rescued) in exchange for that class's own tail; the rest is evicted.
//!
//! R1. Everybody here comes from the LRU's side, against the lock order: stripes are only tried, and an item whose
//!     stripe is busy is passed over.
//! R2. One page moves at a time ([`PageMoves`]'s lock, taken before any LRU's).
//! R3. Chunks in hands (a body being received, a value being sent) are never touched; a page that holds one stays.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use slab_alloc::{ChunkHandle, ClassId, PageId};

use super::item::state;
use super::lru::{ClassLru, Segment};
use super::store::{Cache, Lookup};
use crate::clock::RelTime;

/// How often an allocation tries to make room before it gives up: a chained item may free chunks of other classes only.
const ROUNDS: usize = 256;
/// Tails looked at for one eviction; the last few are evicted even if they are active.
const TAILS: usize = 24;
/// A class that has evicted so many bytes since it last got a page asks whether it should get one: often enough to
/// follow a change of sizes within a few pages, seldom enough that the question costs nothing.
const EVIDENCE_BYTES: usize = 64 << 10;
/// With tails of the same age, the class with so many times the pages gives one.
const RICHER: usize = 4;
/// Pages tried before a move is given up.
const PAGE_TRIES: usize = 3;
/// Passes over a page: what was in hands at the first may be linked at the second.
const PASSES: usize = 2;

/// The counts of page moves and the lock that lets one run at a time.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "named as the `stats` keys slab_reassign_*")]
pub struct PageMoves {
    alone: Mutex<()>,
    pub moved: AtomicU64,
    pub rescues: AtomicU64,
    pub chunk_rescues: AtomicU64,
    pub inline_reclaim: AtomicU64,
    pub busy_items: AtomicU64,
    pub busy_nomem: AtomicU64,
    pub running: AtomicBool,
    /// A move a client asked for: `source << 8 | destination`, -1 for none; source 0 is any, destination 0 the pool.
    pub wanted: AtomicI32,
    pub wanted_set: AtomicBool,
}

/// The counts of page moves, read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the `stats` keys slab_reassign_*")]
pub struct MoveStats {
    pub moved: u64,
    pub rescues: u64,
    pub chunk_rescues: u64,
    pub inline_reclaim: u64,
    pub busy_items: u64,
    pub busy_nomem: u64,
    pub running: bool,
}

/// Why a page move a client asked for cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveError {
    /// One is waiting or running.
    Busy,
    /// No such class.
    BadClass,
    /// The source has at most one page.
    NoSpare,
    /// Source and destination are the same.
    Same,
}

impl PageMoves {
    pub(super) fn reset(&self) {
        for count in [
            &self.moved,
            &self.rescues,
            &self.chunk_rescues,
            &self.inline_reclaim,
            &self.busy_items,
            &self.busy_nomem,
        ] {
            count.store(0, Relaxed);
        }
    }

    fn begin(&self) -> MutexGuard<'_, ()> {
        self.alone.lock().expect("no holder of the page move lock panics")
    }
}

impl Cache {
    /// A chunk of `class`, whatever it takes.
    #[inline]
    pub(super) fn alloc_chunk(&self, class: ClassId, now: RelTime) -> Option<ChunkHandle> {
        self.items.slabs().alloc(class).or_else(|| self.alloc_by_force(class, now))
    }

    #[cold]
    fn alloc_by_force(&self, class: ClassId, now: RelTime) -> Option<ChunkHandle> {
        let slabs = self.items.slabs();
        for _ in 0..ROUNDS {
            let progress = (self.wants_page(class) && self.take_page(class, now, false))
                || self.evict_tail(class, now)
                || self.take_page(class, now, true)
                // A class that holds only ends of chained items is freed by evicting those.
                || self.evict_tail(slabs.largest(), now);
            if let Some(chunk) = slabs.alloc(class) {
                self.lru(class).counters.direct_reclaims += 1;
                return Some(chunk);
            }
            if !progress {
                break;
            }
        }
        self.counters.malloc_fails.fetch_add(1, Relaxed);
        None
    }

    fn wants_page(&self, class: ClassId) -> bool {
        let chunk_bytes = self.items.slabs().chunk_bytes(class);
        let mut lru = self.lru(class);
        // A class of big chunks has evicted as much with one item as others with hundreds.
        let wants = lru.evicted_bytes >= EVIDENCE_BYTES.min(chunk_bytes * 64);
        if wants {
            lru.evicted_bytes = 0;
        }
        wants
    }

    /// Frees one item of the class: a dead one, or the least used.
    fn evict_tail(&self, class: ClassId, now: RelTime) -> bool {
        self.evict_tail_of(&mut self.lru(class), class, now)
    }

    fn evict_tail_of(&self, lru: &mut ClassLru, class: ClassId, now: RelTime) -> bool {
        let items = &self.items;
        let may_evict = self.tuning.may_evict.load(Relaxed);
        let segmented = self.tuning.segmented.load(Relaxed);
        for left in (0..TAILS).rev() {
            let order = [Segment::Cold, Segment::Warm, Segment::Hot, Segment::Temp];
            let Some((from, tail)) = order.iter().find_map(|&from| Some((from, lru.tail(from)?))) else {
                return false;
            };
            let bits = items.state(tail);
            let dead = self.life(tail, now) != Lookup::Found;
            if !dead && !may_evict {
                return false;
            }
            if !dead && bits & state::ACTIVE != 0 && from != Segment::Temp && left > TAILS / 4 {
                let to = if segmented { Segment::Warm } else { Segment::Cold };
                lru.counters.moves_to_warm += u64::from(from == Segment::Cold && segmented);
                lru.counters.moves_within_lru += u64::from(from == to);
                lru.shift(items, tail, to);
                continue;
            }
            let expires_at = items.expires_at(tail);
            let idle_s = now.since(items.accessed_at(tail));
            if !self.unlink_from_tail(lru, tail) {
                lru.counters.lrutail_reflocked += 1;
                lru.shift(items, tail, from);
                continue;
            }
            let counters = &mut lru.counters;
            let unfetched = bits & state::FETCHED == 0;
            if dead {
                counters.reclaimed += 1;
                counters.expired_unfetched += u64::from(unfetched);
            } else {
                counters.evicted += 1;
                counters.evicted_nonzero += u64::from(expires_at != RelTime::NEVER);
                counters.evicted_time = u64::from(idle_s);
                counters.evicted_unfetched += u64::from(unfetched);
                counters.evicted_active += u64::from(bits & state::ACTIVE != 0);
                lru.evicted_bytes += items.slabs().chunk_bytes(class);
            }
            return true;
        }
        false
    }

    /// Unlinks an item from the LRU's side; the caller holds its LRU lock. False if its stripe is busy, or a reader
    /// holds its value, so that no memory would come free.
    fn unlink_from_tail(&self, lru: &mut ClassLru, handle: ChunkHandle) -> bool {
        if self.items.is_pinned(handle) {
            return false;
        }
        let hash = self.table.hash(self.items.key(handle));
        let Some(mut stripe) = self.table.try_lock(hash) else { return false };
        let (slot, _) = stripe.find(hash, |at| at == handle).expect("a linked item is in the table");
        stripe.remove(slot);
        lru.unlink(&self.items, handle);
        self.items.release(handle);
        true
    }

    /// Unlinks `handle` if it is a linked item of `class` that has died; for the crawler.
    pub(super) fn unlink_if_dead(&self, handle: ChunkHandle, class: ClassId, now: RelTime) -> bool {
        let lru = &mut self.lru(class);
        let bits = self.items.state(handle);
        let dead = bits & state::LINKED != 0
            && self.items.class(handle) == Some(class)
            && self.life(handle, now) != Lookup::Found
            && self.unlink_from_tail(lru, handle);
        if dead {
            lru.counters.crawler_reclaimed += 1;
            lru.counters.expired_unfetched += u64::from(bits & state::FETCHED == 0);
        }
        dead
    }

    // ---- pages ----------------------------------------------------------------------------------------------------

    /// Gives `class` a page of another class. Unless `pressing`, only if the other's tail is older, or as old with far
    /// more pages.
    pub(super) fn take_page(&self, class: ClassId, now: RelTime, pressing: bool) -> bool {
        if !self.tuning.slab_reassign.load(Relaxed) {
            return false;
        }
        let _alone = self.moves.begin();
        if self.items.slabs().available_pages() > 0 {
            return true;
        }
        for _ in 0..PAGE_TRIES {
            let Some(donor) = self.donor_for(class, now, pressing) else { return false };
            if self.move_page(donor, Some(class), now) {
                self.moves.inline_reclaim.fetch_add(1, Relaxed);
                return true;
            }
        }
        false
    }

    /// The class that should give a page: one with a page's worth of free chunks, else the one with the oldest tail.
    fn donor_for(&self, class: ClassId, now: RelTime, pressing: bool) -> Option<ClassId> {
        let slabs = self.items.slabs();
        let own_pages = slabs.class_stats(class).total_pages;
        let own_age = self.lru(class).oldest_access(&self.items).map(|at| now.since(at));
        let mut oldest: Option<(u32, usize, ClassId)> = None;
        for other in slabs.classes().filter(|&other| other != class) {
            let stats = slabs.class_stats(other);
            let pages = stats.total_pages - stats.draining_pages;
            if pages == 0 {
                continue;
            }
            if pages > 1 && stats.free_chunks + stats.fresh_chunks >= stats.chunks_per_page {
                return Some(other);
            }
            // A class of chain ends only is as old as the chained items.
            let age = self.lru(other).oldest_access(&self.items);
            let age = age.or_else(|| self.lru(slabs.largest()).oldest_access(&self.items));
            let candidate = (age.map_or(0, |at| now.since(at)), pages, other);
            if pages > usize::from(!pressing) && Some(candidate) > oldest {
                oldest = Some(candidate);
            }
        }
        if !self.tuning.may_evict.load(Relaxed) {
            return None;
        }
        let (age, pages, donor) = oldest?;
        let own_age = own_age.unwrap_or(0);
        let older = age > own_age + 1 + own_age / 4;
        let richer = age >= own_age && pages > RICHER * own_pages.max(1);
        (pressing || older || richer).then_some(donor)
    }

    /// Empties the page of `donor` that holds least and hands it on: to a class, or to the pool (which returns the
    /// memory if the limit was lowered). The caller holds the page move lock.
    fn move_page(&self, donor: ClassId, to: Option<ClassId>, now: RelTime) -> bool {
        let slabs = self.items.slabs();
        let Some(page) = slabs.begin_drain(donor) else { return false };
        self.moves.running.store(true, Relaxed);
        let emptied = self.empty_page(page, donor, now);
        let moved = emptied
            && match to {
                Some(class) => slabs.finish_drain_to(page, class),
                None => slabs.finish_drain(page),
            };
        if moved {
            self.moves.moved.fetch_add(1, Relaxed);
        } else {
            slabs.cancel_drain(page);
        }
        self.moves.running.store(false, Relaxed);
        moved
    }

    fn empty_page(&self, page: PageId, class: ClassId, now: RelTime) -> bool {
        let slabs = self.items.slabs();
        for _ in 0..PASSES {
            for chunk in slabs.page_chunks(page) {
                let bits = self.items.state(chunk);
                if bits & state::CONTINUATION != 0 {
                    self.vacate_continuation(chunk, class, now);
                } else if bits & state::LINKED != 0 {
                    self.vacate_item(chunk, class, now);
                }
            }
            if slabs.page_used(page) == 0 {
                return true;
            }
        }
        self.moves.busy_items.fetch_add(1, Relaxed);
        false
    }

    /// Moves one item of a draining page to another chunk of its class, or evicts it.
    fn vacate_item(&self, chunk: ChunkHandle, class: ClassId, now: RelTime) {
        let (items, slabs) = (&self.items, self.items.slabs());
        let lru = &mut self.lru(class);
        let linked = |bits: u16| bits & state::LINKED != 0 && bits & state::CONTINUATION == 0;
        if !linked(items.state(chunk)) || items.is_pinned(chunk) {
            return;
        }
        if self.life(chunk, now) != Lookup::Found {
            if self.unlink_from_tail(lru, chunk) {
                lru.counters.reclaimed += 1;
            }
            return;
        }
        let bits = items.state(chunk);
        let precious = bits & state::ACTIVE != 0 || Segment::of(bits) == Segment::Warm;
        let mut room = slabs.alloc(class);
        if room.is_none() && precious && self.evict_tail_of(lru, class, now) {
            if !linked(items.state(chunk)) {
                // It was itself the tail.
                return;
            }
            room = slabs.alloc(class);
        }
        let Some(room) = room else {
            if self.tuning.may_evict.load(Relaxed) {
                let unfetched = bits & state::FETCHED == 0;
                if self.unlink_from_tail(lru, chunk) {
                    lru.counters.evicted += 1;
                    lru.counters.evicted_unfetched += u64::from(unfetched);
                    lru.counters.evicted_active += u64::from(bits & state::ACTIVE != 0);
                }
            } else {
                self.moves.busy_nomem.fetch_add(1, Relaxed);
            }
            return;
        };
        let hash = self.table.hash(items.key(chunk));
        let Some(mut stripe) = self.table.try_lock(hash) else {
            items.give_back(room);
            return;
        };
        // Pins are taken under the stripe's lock, so from here on the item stays as it is.
        if items.is_pinned(chunk) {
            items.give_back(room);
            return;
        }
        let (slot, _) = stripe.find(hash, |at| at == chunk).expect("a linked item is in the table");
        items.copy_head(chunk, room);
        stripe.replace(slot, room);
        lru.replace(items, chunk, room);
        items.give_back(chunk);
        self.moves.rescues.fetch_add(1, Relaxed);
    }

    /// Moves one continuation chunk of a draining page, or evicts the item it belongs to.
    fn vacate_continuation(&self, chunk: ChunkHandle, class: ClassId, now: RelTime) {
        let (items, slabs) = (&self.items, self.items.slabs());
        let largest = slabs.largest();
        let lru = &mut self.lru(largest);
        // Under the LRU's lock a linked head stays one; whether the chunk is really its own, the chain tells.
        let Some(head) = items.continued_head(chunk) else { return };
        if items.state(chunk) & state::CONTINUATION == 0
            || items.state(head) & (state::LINKED | state::LARGE) != state::LINKED | state::LARGE
            || slabs.page_class(slabs.page_of(head)) != Some(largest)
            || items.is_pinned(head)
        {
            return;
        }
        let room = if self.life(head, now) == Lookup::Found { slabs.alloc(class) } else { None };
        let Some(room) = room else {
            if self.tuning.may_evict.load(Relaxed)
                && items.owns_chunk(head, chunk)
                && self.unlink_from_tail(lru, head)
            {
                lru.counters.evicted += 1;
            }
            return;
        };
        let hash = self.table.hash(items.key(head));
        let stripe = self.table.try_lock(hash);
        if stripe.is_none() || items.is_pinned(head) || !items.move_continuation(head, chunk, room) {
            items.give_back(room);
            return;
        }
        self.moves.chunk_rescues.fetch_add(1, Relaxed);
    }

    /// Drains pages while there are more of them than the limit allows; at most one a call.
    pub(super) fn shrink_to_limit(&self, now: RelTime) {
        if self.items.slabs().over_limit() == 0 {
            return;
        }
        let _alone = self.moves.begin();
        let any = ClassId::new(1).expect("class 1 exists");
        // `donor_for` leaves out the class that asks; class 1 asks unless it is the only one with pages.
        let donor = self.donor_for(any, now, true).or(Some(any));
        if let Some(donor) = donor {
            self.move_page(donor, None, now);
        }
    }

    /// Asks for a page to be moved from `source` (0 any) to `destination` (0 the pool); the maintainer does it.
    pub fn request_page_move(&self, source: i32, destination: i32) -> Result<(), MoveError> {
        let known = |class: i32| u8::try_from(class).is_ok_and(|class| self.has_class(class));
        if (source != -1 && source != 0 && !known(source)) || (destination != 0 && !known(destination)) {
            return Err(MoveError::BadClass);
        }
        if source == destination {
            return Err(MoveError::Same);
        }
        if source > 0
            && let Some(class) = ClassId::new(source as u8)
            && self.items.slabs().class_stats(class).total_pages < 2
        {
            return Err(MoveError::NoSpare);
        }
        if self.moves.wanted_set.swap(true, Relaxed) {
            return Err(MoveError::Busy);
        }
        self.moves.wanted.store(source.max(0) << 8 | destination, Relaxed);
        Ok(())
    }

    /// Does the page move a client asked for, if any.
    pub(super) fn serve_page_move(&self, now: RelTime) {
        if !self.moves.wanted_set.load(Relaxed) {
            return;
        }
        let wanted = self.moves.wanted.load(Relaxed);
        let to = ClassId::new((wanted & 0xff) as u8);
        {
            let _alone = self.moves.begin();
            let asking = to.unwrap_or_else(|| self.items.slabs().largest());
            let source = ClassId::new((wanted >> 8) as u8);
            if let Some(donor) = source.or_else(|| self.donor_for(asking, now, true)) {
                self.move_page(donor, to, now);
            }
        }
        self.moves.wanted_set.store(false, Relaxed);
    }

    /// The counts of page moves.
    pub fn move_stats(&self) -> MoveStats {
        let moves = &self.moves;
        MoveStats {
            moved: moves.moved.load(Relaxed),
            rescues: moves.rescues.load(Relaxed),
            chunk_rescues: moves.chunk_rescues.load(Relaxed),
            inline_reclaim: moves.inline_reclaim.load(Relaxed),
            busy_items: moves.busy_items.load(Relaxed),
            busy_nomem: moves.busy_nomem.load(Relaxed),
            running: moves.running.load(Relaxed) || moves.wanted_set.load(Relaxed),
        }
    }
}

impl Cache {
    /// Unlinks dead items from the ends of the segments; the caller holds the LRU lock.
    pub(super) fn reclaim_dead_tails(&self, lru: &mut ClassLru, now: RelTime) {
        for segment in Segment::ALL {
            for _ in 0..TAILS {
                let Some(tail) = lru.tail(segment) else { break };
                let unfetched = self.items.state(tail) & state::FETCHED == 0;
                if self.life(tail, now) == Lookup::Found || !self.unlink_from_tail(lru, tail) {
                    break;
                }
                lru.counters.reclaimed += 1;
                lru.counters.expired_unfetched += u64::from(unfetched);
            }
        }
    }
}
