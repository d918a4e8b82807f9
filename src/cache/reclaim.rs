//! Where a chunk comes from when there is no free one: from the dead, from the least used, or from another class.
//!
//! ```text
//!  free chunk or page of the pool
//!    else: another class's items cost clearly more --> empty one of its pages, take it
//!    else: evict the own victim
//!    else: take a page from the class whose items cost most
//! ```
//!
//! Memory goes to slab classes in pages, so that a policy can only choose among the items of one class. Between classes
//! decides what an item costs: its bytes times how long it keeps its place without being asked for (the lease,
//! [`ClassLru::lease`]). As long as the odds of being asked for fall with the time since the last request, roughly as one
//! over it, the classes together miss least when the lease of all is the same: a large item must be asked for as many
//! times more often as it takes the room of many small ones. Time is counted in stores, so that neither a pause nor a
//! burst changes the shares. So a class that evicts takes a page from the class of the longest lease, if that would
//! still be longer than its own without the page (else it would soon go back). After a change of sizes the class that is
//! stored to no more gives page after page, until what is left of it is asked for so often that it costs less than the
//! others' items. What is read often in the page, or young, is moved to other chunks of its class (rescued) in exchange
//! for that class's own victims; the rest is evicted.
//!
//! R1. Everybody here comes from the LRU's side, against the lock order: stripes are only tried, and an item whose
//!     stripe is busy is passed over.
//! R2. One page moves at a time ([`PageMoves`]'s lock, taken before any LRU's).
//! R3. Chunks in hands (a body being received, a value being sent) are never touched; a page that holds one stays.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use slab_alloc::{ChunkHandle, ClassId, PageId};

use super::crawler::ClassMask;
use super::eviction::Sight;
use super::item::{state, uses};
use super::lru::{ClassLru, Segment};
use super::store::{Cache, Lookup};
use crate::clock::RelTime;

/// How often an allocation tries to make room before it gives up: a chained item may free chunks of other classes only.
const ROUNDS: usize = 256;
/// Rounds before it waits for a page move that is in its way.
const ROUNDS_UNHURRIED: usize = 8;
/// Rounds without any progress before it gives up.
const ROUNDS_IN_VAIN: usize = 3;
/// Victims tried for one eviction: stripes may be busy, values on their way.
const VICTIMS: usize = 24;
/// Tails evicted to make room for a better item elsewhere; dead tails of a segment taken at one time.
const TAILS: usize = 24;
/// A class that has evicted so many bytes asks whether it should get a page. The first number holds after it got one, so
/// that a change of sizes is followed at once; after each refusal it is doubled, up to the second, so that the question
/// costs nothing while the shares are right.
const EVIDENCE_BYTES: [usize; 2] = [4 << 10, 256 << 10];
/// Chained items evicted so that a better one's end can leave its page: their ends may be of another class.
const TAILS_FOR_END: usize = 2;
/// Bytes of pages looked at before a move is given up: each page may hold a chunk that is in hands.
const TRIED_BYTES: usize = 128 << 20;
/// Bytes of chunks vacated in vain before a move is given up: one chunk in a page may keep it all from moving.
const IN_VAIN_BYTES: usize = 2 << 20;
/// Pages that go in one step of the maintainer when the limit was lowered: about a millisecond each, so that 80 MB go in
/// a second.
const PAGES_SHRUNK: usize = 8;
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
    /// The page looked at last, but for those of tails.
    looked_at: AtomicU32,
    /// A move a client asked for: `WANTED | source << 8 | destination`, 0 for none; source 0 is any, destination 0 the
    /// pool.
    pub wanted: AtomicI32,
}

/// Set in a wanted move.
const WANTED: i32 = 1 << 16;

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

/// How long ago an item was used, and how many items were stored since it was: within one second, only the second
/// number tells. It comes from the CAS unique, and is 0 without those.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    seconds: u32,
    stores: u64,
}

impl Age {
    /// Clearly among the younger ones of a class whose tail is `oldest`.
    fn is_below_half_of(self, oldest: Age) -> bool {
        // Of a few seconds, half is nothing to go by.
        match oldest.seconds {
            0..4 => self.stores < oldest.stores / 2,
            seconds => self.seconds < seconds / 2,
        }
    }
}

/// A class that may give a page.
struct Donor {
    class: ClassId,
    pages: usize,
    /// What its evictions tell of the use it makes of memory ([`ClassLru::lease`]).
    lease: u64,
    /// It has a page's worth of free chunks.
    has_spare_page: bool,
}

/// What a search for a page has tried in vain.
struct Tried {
    pages: HashSet<PageId, ahash::RandomState>,
    classes: ClassMask,
    /// Bytes of the chunks that were vacated in pages that could not be emptied.
    in_vain: usize,
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
        self.alone
            .lock()
            .expect("no holder of the page move lock panics")
    }
}

impl Cache {
    /// How old the item is that `lru` would evict next.
    fn tail_age(&self, lru: &ClassLru, now: RelTime) -> Option<Age> {
        lru.segments.oldest().map(|tail| self.age(tail, now))
    }

    fn age(&self, handle: ChunkHandle, now: RelTime) -> Age {
        let stores = self.cas.last().saturating_sub(self.items.cas(handle));
        Age {
            seconds: now.since(self.items.accessed_at(handle)),
            stores,
        }
    }

    /// A chunk of `class`, whatever it takes.
    #[inline]
    pub(super) fn alloc_chunk(&self, class: ClassId, now: RelTime) -> Option<ChunkHandle> {
        self.items
            .slabs()
            .alloc(class)
            .or_else(|| self.alloc_by_force(class, now))
    }

    /// A chunk of `class` for somebody who holds a stripe: a free one, or the tail's. A page cannot be moved meanwhile,
    /// since any may hold items of that stripe.
    pub(super) fn alloc_at_hand(&self, class: ClassId, now: RelTime) -> Option<ChunkHandle> {
        let slabs = self.items.slabs();
        let evict = || {
            self.evict_tail(class, now)
                .then(|| slabs.alloc(class))
                .flatten()
        };
        slabs.alloc(class).or_else(evict)
    }

    #[cold]
    fn alloc_by_force(&self, class: ClassId, now: RelTime) -> Option<ChunkHandle> {
        let slabs = self.items.slabs();
        let mut in_vain = 0;
        for round in 1..=ROUNDS {
            let progress = self.get_deserved_page(class, now)
                || self.evict_tail(class, now)
                || self.take_page(class, now, true)
                || self.evict_chain(class, now);
            if round % ROUNDS_UNHURRIED == 0 && slabs.class_stats(class).draining_pages > 0 {
                // The tails lie in the page that is being emptied, and come free for whom it is emptied.
                drop(self.moves.begin());
            }
            if let Some(chunk) = slabs.alloc(class) {
                self.lru(class).segments.counters.direct_reclaims += 1;
                return Some(chunk);
            }
            if !progress {
                in_vain += 1;
                if in_vain == ROUNDS_IN_VAIN || !self.tuning.may_evict.load(Relaxed) {
                    break;
                }
                // What others have in hands, or under a stripe's lock, they may have let go of.
                std::thread::yield_now();
            }
        }
        self.counters.malloc_fails.fetch_add(1, Relaxed);
        None
    }

    /// Takes a page for a class that has evicted enough to ask for one, if others can better do without.
    fn get_deserved_page(&self, class: ClassId, now: RelTime) -> bool {
        let [least, most] = EVIDENCE_BYTES;
        let asked_after = {
            let mut lru = self.lru(class);
            // What is to be evicted next counts: with one large item, all may be lost.
            let evidence = lru.evicted_bytes + self.items.slabs().chunk_bytes(class);
            if evidence < lru.ask_after_bytes {
                return false;
            }
            lru.evicted_bytes = 0;
            lru.ask_after_bytes
        };
        let got = self.take_page(class, now, false);
        self.lru(class).ask_after_bytes = if got {
            least
        } else {
            (asked_after * 2).clamp(least, most)
        };
        got
    }

    /// Frees one item of the class: a dead one, or the least used.
    fn evict_tail(&self, class: ClassId, now: RelTime) -> bool {
        self.evict_tail_of(&mut self.lru(class), class, now)
    }

    /// Evicts a chained item, if `class` holds ends of such: they are in no list of their own.
    fn evict_chain(&self, class: ClassId, now: RelTime) -> bool {
        let slabs = self.items.slabs();
        let ends = slabs.class_stats(class).used_chunks > self.lru(class).segments.count();
        ends && class != slabs.largest() && self.evict_tail(slabs.largest(), now)
    }

    fn evict_tail_of(&self, lru: &mut ClassLru, class: ClassId, now: RelTime) -> bool {
        let items = &self.items;
        let is_dead = |handle| self.life(handle, now) != Lookup::Found;
        let hash = |handle| self.table.hash(items.key(handle));
        let sight = Sight {
            items,
            is_dead: &is_dead,
            hash: &hash,
        };
        lru.follow(items, self.tuning.policy());
        for _ in 0..VICTIMS {
            let Some(victim) = lru.victim(&sight, self.cas.last()) else {
                return false;
            };
            let dead = is_dead(victim);
            if !dead && !self.tuning.may_evict.load(Relaxed) {
                return false;
            }
            let (bits, hash) = (items.state(victim), hash(victim));
            let expires_at = items.expires_at(victim);
            let idle_s = now.since(items.accessed_at(victim));
            if !self.unlink_from_tail(lru, victim) {
                lru.pass_over(items, victim);
                continue;
            }
            let counters = &mut lru.segments.counters;
            let unfetched = bits & state::FETCHED == 0;
            if dead {
                counters.reclaimed += 1;
                counters.expired_unfetched += u64::from(unfetched);
            } else {
                counters.evicted += 1;
                counters.evicted_nonzero += u64::from(expires_at != RelTime::NEVER);
                counters.evicted_time = u64::from(idle_s);
                counters.evicted_unfetched += u64::from(unfetched);
                counters.evicted_active += u64::from(uses(bits) > 1);
                lru.evicted_bytes += items.slabs().chunk_bytes(class);
                lru.note_evicted(hash, Segment::of(bits));
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
        let Some(mut stripe) = self.table.try_lock(hash) else {
            return false;
        };
        // A tail is in the table; only what a walk found in a page that changed its class twice meanwhile may not be.
        let Some((slot, _)) = stripe.find(hash, |at| at == handle) else {
            return false;
        };
        stripe.remove(slot);
        lru.unlink(&self.items, handle);
        self.items.release(handle);
        true
    }

    /// True if `handle` is a linked item of `class`; the caller holds the class's LRU lock, so that it stays one.
    pub(super) fn is_linked(&self, handle: ChunkHandle, class: ClassId) -> bool {
        // A page may change its class while it holds no linked item; what is read then are another item's bytes.
        self.is_chunk_of(handle, class)
            && self.items.state(handle) & (state::LINKED | state::CONTINUATION) == state::LINKED
            && self.items.class(handle) == Some(class)
            && self.is_chunk_of(handle, class)
    }

    /// True if the chunk was handed out since its page got `class`: if not, its header is what others left there.
    fn is_chunk_of(&self, chunk: ChunkHandle, class: ClassId) -> bool {
        let slabs = self.items.slabs();
        let page = slabs.page_of(chunk);
        let mut chunks = slabs.page_chunks(page);
        let handed_out = chunks.size_hint().0;
        let Some(first) = chunks.next() else {
            return false;
        };
        let offset = (chunk.to_raw() - first.to_raw()) as usize * slabs.granule_bytes();
        slabs.page_class(page) == Some(class) && offset < handed_out * slabs.chunk_bytes(class)
    }

    /// Unlinks `handle` if it is a linked item of `class` that has died; for the crawler.
    pub(super) fn unlink_if_dead(&self, handle: ChunkHandle, class: ClassId, now: RelTime) -> bool {
        let lru = &mut self.lru(class);
        let bits = self.items.state(handle);
        let dead = self.is_linked(handle, class)
            && self.life(handle, now) != Lookup::Found
            && self.unlink_from_tail(lru, handle);
        if dead {
            lru.segments.counters.crawler_reclaimed += 1;
            lru.segments.counters.expired_unfetched += u64::from(bits & state::FETCHED == 0);
        }
        dead
    }

    // ---- pages ----------------------------------------------------------------------------------------------------

    /// Gives `class` a page of another class; unless `pressing`, only if the other's lease is longer.
    pub(super) fn take_page(&self, class: ClassId, now: RelTime, pressing: bool) -> bool {
        if !self.tuning.slab_reassign.load(Relaxed) {
            return false;
        }
        let _alone = self.moves.begin();
        let stats = self.items.slabs().class_stats(class);
        if self.items.slabs().available_pages() > 0 || stats.free_chunks + stats.fresh_chunks > 0 {
            // Whoever held the lock before has brought it.
            return true;
        }
        let moved = self.move_some_page(Some(class), now, |tried| {
            self.donor_for(class, pressing, tried)
        });
        self.moves
            .inline_reclaim
            .fetch_add(u64::from(moved), Relaxed);
        moved
    }

    /// The class that should give a page to `class`.
    fn donor_for(&self, class: ClassId, pressing: bool, tried: &Tried) -> Option<ClassId> {
        let donor = self.donor(Some(class), pressing, tried)?;
        if pressing || donor.has_spare_page {
            return Some(donor.class);
        }
        let own = self.lease(class);
        let without_a_page = donor.lease - donor.lease / donor.pages as u64;
        // More than what changes from one moment to the next.
        (without_a_page > own.saturating_add(own / 8)).then_some(donor.class)
    }

    /// The lease of a class's items; a class of chain ends only has that of the chained items.
    pub(super) fn lease(&self, class: ClassId) -> u64 {
        let of = |class| {
            let lru = self.lru(class);
            (lru.segments.count() > 0).then(|| lru.lease(self.cas.last()))
        };
        of(class)
            .or_else(|| of(self.items.slabs().largest()))
            .unwrap_or_default()
    }

    /// The class that can best do without a page: one with a page's worth of free chunks, else the one with the oldest
    /// tail. Its last page it gives only if `pressing`.
    fn donor(&self, but: Option<ClassId>, pressing: bool, tried: &Tried) -> Option<Donor> {
        let slabs = self.items.slabs();
        let mut longest: Option<Donor> = None;
        for other in slabs
            .classes()
            .filter(|&other| Some(other) != but && !tried.classes.has(other))
        {
            let stats = slabs.class_stats(other);
            let pages = stats.total_pages - stats.draining_pages;
            if pages == 0 {
                continue;
            }
            // Fresh chunks do not count: a page that the class just got is still to be filled.
            if stats.free_chunks >= stats.chunks_per_page {
                return Some(Donor {
                    class: other,
                    pages,
                    lease: u64::MAX,
                    has_spare_page: true,
                });
            }
            let lease = self.lease(other);
            let longer = longest
                .as_ref()
                .is_none_or(|longest| (lease, pages) > (longest.lease, longest.pages));
            // A class that gets no items any more needs no page either.
            let keeps = usize::from(!pressing && slabs.is_open(other));
            if pages > keeps && longer {
                longest = Some(Donor {
                    class: other,
                    pages,
                    lease,
                    has_spare_page: false,
                });
            }
        }
        longest.filter(|_| self.tuning.may_evict.load(Relaxed))
    }

    /// Moves a page of the class that `donor` names, or names next when there was none to be had; false if all was in
    /// vain. The caller holds the page move lock.
    fn move_some_page(
        &self,
        to: Option<ClassId>,
        now: RelTime,
        donor: impl Fn(&Tried) -> Option<ClassId>,
    ) -> bool {
        let mut tried = Tried {
            pages: HashSet::default(),
            classes: ClassMask::NONE,
            in_vain: 0,
        };
        while tried.pages.len() < TRIED_BYTES / self.items.slabs().page_bytes()
            && tried.in_vain < IN_VAIN_BYTES
        {
            let Some(donor) = donor(&tried) else {
                return false;
            };
            if self.move_page(donor, to, now, &mut tried) {
                return true;
            }
        }
        false
    }

    /// Empties the page of `donor` that holds least and hands it on: to a class, or to the pool (which returns the
    /// memory if the limit was lowered).
    fn move_page(
        &self,
        donor: ClassId,
        to: Option<ClassId>,
        now: RelTime,
        tried: &mut Tried,
    ) -> bool {
        let slabs = self.items.slabs();
        let pages = slabs
            .class_pages(donor)
            .filter(|page| !tried.pages.contains(page));
        // Of pages equally full, that of the tail, since those around it may be as old; then in turn, since those looked
        // at before may still be held.
        let oldest = self
            .lru(donor)
            .segments
            .oldest()
            .map(|tail| slabs.page_of(tail));
        let last = self.moves.looked_at.load(Relaxed);
        let turn = |page: PageId| {
            (
                slabs.page_used(page),
                Some(page) != oldest,
                page.get().wrapping_sub(last + 1),
            )
        };
        let Some(page) = pages.min_by_key(|&page| turn(page)) else {
            tried.classes = tried.classes.with(donor);
            return false;
        };
        if Some(page) != oldest {
            self.moves.looked_at.store(page.get(), Relaxed);
        }
        tried.pages.insert(page);
        // What is not worth emptying is seen before anything is evicted for it.
        if !slabs.begin_drain_page(page) {
            return false;
        }
        if slabs.page_class(page) != Some(donor)
            || slabs.page_chunks(page).any(|chunk| self.is_in_hands(chunk))
        {
            self.moves.busy_items.fetch_add(1, Relaxed);
            slabs.cancel_drain(page);
            return false;
        }
        self.moves.running.store(true, Relaxed);
        let used = slabs.page_used(page);
        let emptied = self.empty_page(page, donor, now);
        if !emptied {
            tried.in_vain +=
                used.saturating_sub(slabs.page_used(page)) as usize * slabs.chunk_bytes(donor);
        }
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

    /// True if a chunk of a draining page is in somebody's hands: a racy look.
    fn is_in_hands(&self, chunk: ChunkHandle) -> bool {
        let items = &self.items;
        let continued = items.state(chunk) & state::CONTINUATION != 0;
        let head = if continued {
            items.continued_head(chunk)
        } else {
            Some(chunk)
        };
        let Some(head) = head else { return false };
        let bits = items.state(head);
        bits & state::ITEM != 0 && (bits & state::LINKED == 0 || items.is_pinned(head))
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
        let items = &self.items;
        let lru = &mut self.lru(class);
        if !self.is_linked(chunk, class) || items.is_pinned(chunk) {
            return;
        }
        if self.life(chunk, now) != Lookup::Found {
            if self.unlink_from_tail(lru, chunk) {
                lru.segments.counters.reclaimed += 1;
            }
            return;
        }
        let Some(room) = self.room_elsewhere(lru, chunk, class, now) else {
            return self.evict_for_page(lru, chunk, class);
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
        let (slot, _) = stripe
            .find(hash, |at| at == chunk)
            .expect("a linked item is in the table");
        items.copy_head(chunk, room);
        stripe.replace(slot, room);
        lru.replace(items, chunk, room);
        items.give_back(chunk);
        self.moves.rescues.fetch_add(1, Relaxed);
    }

    /// A chunk of `class` for one of the item `head`, which has to leave its page. For an item that is worth it, older
    /// ones of its own `lru` make room.
    fn room_elsewhere(
        &self,
        lru: &mut ClassLru,
        head: ChunkHandle,
        class: ClassId,
        now: RelTime,
    ) -> Option<ChunkHandle> {
        let (items, slabs) = (&self.items, self.items.slabs());
        let head_class = self.class_of(head);
        let bits = items.state(head);
        let oldest = self.tail_age(lru, now).unwrap_or_default();
        let worth_it = lru.is_worth_moving(bits) || self.age(head, now).is_below_half_of(oldest);
        // A tail that makes no room lies in the same page, and would have to leave it anyway.
        let tails = if class == head_class {
            TAILS
        } else {
            TAILS_FOR_END
        };
        let mut room = slabs.alloc_without_page(class);
        for _ in 0..tails {
            if room.is_some() || !worth_it {
                break;
            }
            if !self.evict_tail_of(lru, head_class, now) || !self.is_linked(head, head_class) {
                return None;
            }
            room = slabs.alloc_without_page(class);
        }
        room
    }

    /// Evicts an item that found no room elsewhere; nothing happens if it has been evicted already.
    fn evict_for_page(&self, lru: &mut ClassLru, head: ChunkHandle, class: ClassId) {
        if !self.tuning.may_evict.load(Relaxed) {
            self.moves.busy_nomem.fetch_add(1, Relaxed);
            return;
        }
        if !self.is_linked(head, class) {
            return;
        }
        let bits = self.items.state(head);
        if self.unlink_from_tail(lru, head) {
            lru.segments.counters.evicted += 1;
            lru.segments.counters.evicted_unfetched += u64::from(bits & state::FETCHED == 0);
            lru.segments.counters.evicted_active += u64::from(uses(bits) > 1);
        }
    }

    /// Moves one continuation chunk of a draining page, or evicts the item it belongs to.
    fn vacate_continuation(&self, chunk: ChunkHandle, class: ClassId, now: RelTime) {
        let items = &self.items;
        let largest = items.slabs().largest();
        let lru = &mut self.lru(largest);
        // Under the LRU's lock a linked head stays one; whether the chunk is really its own, the chain tells.
        let Some(head) = items.continued_head(chunk) else {
            return;
        };
        if items.state(chunk) & state::CONTINUATION == 0
            || !self.is_linked(head, largest)
            || items.is_pinned(head)
            || !items.owns_chunk(head, chunk)
        {
            return;
        }
        if self.life(head, now) != Lookup::Found {
            if self.unlink_from_tail(lru, head) {
                lru.segments.counters.reclaimed += 1;
            }
            return;
        }
        let Some(room) = self.room_elsewhere(lru, head, class, now) else {
            return self.evict_for_page(lru, head, largest);
        };
        let hash = self.table.hash(items.key(head));
        let stripe = self.table.try_lock(hash);
        if stripe.is_none() || items.is_pinned(head) || !items.move_continuation(head, chunk, room)
        {
            items.give_back(room);
            return;
        }
        self.moves.chunk_rescues.fetch_add(1, Relaxed);
    }

    /// Drains pages while there are more of them than the limit allows, a few a call.
    pub(super) fn shrink_to_limit(&self, now: RelTime) {
        for _ in 0..PAGES_SHRUNK {
            if self.items.slabs().over_limit() == 0 {
                return;
            }
            let _alone = self.moves.begin();
            if !self.move_some_page(None, now, |tried| {
                Some(self.donor(None, true, tried)?.class)
            }) {
                return;
            }
        }
    }

    /// Asks for a page to be moved from `source` (0 any) to `destination` (0 the pool); the maintainer does it.
    pub fn request_page_move(&self, source: i32, destination: i32) -> Result<(), MoveError> {
        let known = |class: i32| u8::try_from(class).is_ok_and(|class| self.has_class(class));
        if (source != -1 && source != 0 && !known(source))
            || (destination != 0 && !known(destination))
        {
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
        let wanted = WANTED | source.max(0) << 8 | destination;
        let free = self
            .moves
            .wanted
            .compare_exchange(0, wanted, Relaxed, Relaxed);
        free.map(drop).map_err(|_| MoveError::Busy)
    }

    /// Does the page move a client asked for, if any.
    pub(super) fn serve_page_move(&self, now: RelTime) {
        let wanted = self.moves.wanted.load(Relaxed);
        if wanted == 0 {
            return;
        }
        let class = |number: i32| ClassId::new((number & 0xff) as u8);
        let (source, to) = (class(wanted >> 8), class(wanted));
        {
            let _alone = self.moves.begin();
            self.move_some_page(to, now, |tried| match source {
                Some(source) => Some(source).filter(|&source| !tried.classes.has(source)),
                None => Some(self.donor(to, true, tried)?.class),
            });
        }
        self.moves.wanted.store(0, Relaxed);
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
            running: moves.running.load(Relaxed) || moves.wanted.load(Relaxed) != 0,
        }
    }
}

impl Cache {
    /// Unlinks dead items from the ends of the segments; the caller holds the LRU lock.
    pub(super) fn reclaim_dead_tails(&self, lru: &mut ClassLru, now: RelTime) {
        for segment in Segment::ALL {
            for _ in 0..TAILS {
                let Some(tail) = lru.segments.tail(segment) else {
                    break;
                };
                let unfetched = self.items.state(tail) & state::FETCHED == 0;
                if self.life(tail, now) == Lookup::Found || !self.unlink_from_tail(lru, tail) {
                    break;
                }
                lru.segments.counters.reclaimed += 1;
                lru.segments.counters.expired_unfetched += u64::from(unfetched);
            }
        }
    }
}
