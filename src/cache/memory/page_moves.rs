//! Pages that change their class: which class gives one, and how it is emptied.
//!
//! ```text
//!  donor: a page's worth of free chunks, else the highest cost    page of it: the emptiest, of equals the tail's
//!  each chunk:  dead --> freed     read often, or young --> another chunk of its class, for its own victims     else evicted
//! ```
//!
//! Why pages move is told by `reclaim`, which asks for them; so do the maintainer and clients (`slabs reassign`).
//!
//! M1. One page moves at a time ([`super::PageMoves`]'s lock, taken before any LRU's and never under a stripe).
//! M2. Chunks in hands (a body being received, a value being sent) are never touched; a page that holds one stays.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use slab_alloc::{ChunkHandle, ClassId, PageId};

use super::super::at::At;
use super::super::class_mask::ClassMask;
use super::super::item::State;
use super::super::lru::ClassLru;
use super::super::store::{Cache, Lookup};
use super::super::tuning::Automove;
use super::super::uniques::stores_since;
use super::move_state::{MoveError, MoveStats, WANTED};
use crate::events::{Audience, Shown};
use crate::keyspace::misses::Gone;
use crate::knobs::Knob;

/// Tails evicted to make room for a better item elsewhere.
const TAILS: usize = 24;
/// A donor's oldest items that are asked whether they were read: a page's worth, and so many at least.
const ASKED_MIN: usize = 16;
/// The most of them, where a page holds many: about a tenth of a millisecond.
const TAILS_MAX: usize = 1024;
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

/// How long ago an item was used, and how many items were stored since it was: within one second, only the second
/// number tells. It comes from the CAS unique, and is the same for all without those.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
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
    /// What its evictions tell of the use it makes of memory (`ClassLru::cost`).
    cost: u64,
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

impl Cache {
    /// Gives `class` a page of another class; unless `pressing`, only if the other's items cost more.
    pub(in crate::cache) fn take_page(&self, class: ClassId, at: At, pressing: bool) -> bool {
        if self.tuning.automove() == Automove::Never {
            return false;
        }
        let _alone = self.moves.begin();
        let stats = self.items.slabs().class_stats(class);
        if self.items.slabs().available_pages() > 0 || stats.free_chunks + stats.fresh_chunks > 0 {
            // Whoever held the lock before has brought it.
            return true;
        }
        let moved = self.move_some_page(Some(class), at, |tried| {
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
        let own = self.cost(class);
        if self.tuning.automove() == Automove::Eager {
            return (donor.cost > own).then_some(donor.class);
        }
        let without_a_page = donor.cost - donor.cost / donor.pages as u64;
        // More than what changes from one moment to the next.
        if without_a_page <= self.tuning.automove_threshold(own) {
            return None;
        }
        let stats = self.items.slabs().class_stats(donor.class);
        let count = stats.chunks_per_page.max(ASKED_MIN);
        let mut lru = self.lru(donor.class);
        (!lru.earns_its_keep(&self.items, count, self.stores.clock())).then_some(donor.class)
    }

    /// What a class's items cost; a class of chain ends only has the cost of the chained items.
    pub(in crate::cache) fn cost(&self, class: ClassId) -> u64 {
        let of = |class| {
            let lru = self.lru(class);
            (lru.segments.count() > 0).then(|| lru.cost(self.stores.clock()))
        };
        of(class)
            .or_else(|| of(self.chaining_class()?))
            .unwrap_or_default()
    }

    /// The class whose items have most bytes among those that may be chained.
    pub(in crate::cache) fn chaining_class(&self) -> Option<ClassId> {
        let classes = self.items.head_classes();
        let bytes = |class| self.lru(class).requested_bytes;
        let (bytes, class) = classes.map(|class| (bytes(class), class)).max()?;
        (bytes > 0).then_some(class)
    }

    /// The class that can best do without a page: one with a page's worth of free chunks, else the one whose items cost
    /// most. Its last page it gives only if `pressing`.
    fn donor(&self, but: Option<ClassId>, pressing: bool, tried: &Tried) -> Option<Donor> {
        let slabs = self.items.slabs();
        let mut dearest: Option<Donor> = None;
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
                    cost: u64::MAX,
                    has_spare_page: true,
                });
            }
            let cost = self.cost(other);
            let dearer = dearest
                .as_ref()
                .is_none_or(|dearest| (cost, pages) > (dearest.cost, dearest.pages));
            // A class that gets no items any more needs no page either.
            let keeps = usize::from(!pressing && slabs.is_open(other));
            if pages > keeps && dearer {
                dearest = Some(Donor {
                    class: other,
                    pages,
                    cost,
                    has_spare_page: false,
                });
            }
        }
        dearest.filter(|_| self.tuning.is_on(Knob::Evictions))
    }

    /// Moves a page of the class that `donor` names, or names next when there was none to be had; false if all was in
    /// vain. The caller holds the page move lock.
    fn move_some_page(
        &self,
        to: Option<ClassId>,
        at: At,
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
            if self.move_page(donor, to, at, &mut tried) {
                return true;
            }
        }
        false
    }

    /// Empties the page of `donor` that holds least and hands it on: to a class, or to the pool (which returns the
    /// memory if the limit was lowered).
    fn move_page(&self, donor: ClassId, to: Option<ClassId>, at: At, tried: &mut Tried) -> bool {
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
        let emptied = self.empty_page(page, donor, at);
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
        if self.events.audience().has(Audience::SYSEVENTS) {
            self.show_page_move(donor, to, moved, at);
        }
        moved
    }

    #[cold]
    fn show_page_move(&self, from: ClassId, to: Option<ClassId>, moved: bool, at: At) {
        let (to, state) = (
            to.map_or(0, ClassId::get),
            if moved { "ok" } else { "fail" },
        );
        let text = format!("type=slab_move src={} dst={to} state={state}", from.get());
        let text = text.as_bytes();
        self.events.sights.show(at.by.ring, &Shown::System { text });
    }

    /// How old the item is that `lru` would evict next.
    fn tail_age(&self, lru: &ClassLru, at: At) -> Option<Age> {
        lru.segments.oldest().map(|tail| self.age(tail, at))
    }

    fn age(&self, handle: ChunkHandle, at: At) -> Age {
        let hash = self.table.hash(self.items.key(handle));
        let stores = stores_since(&self.table, hash, self.items.cas(handle));
        Age {
            seconds: at.now.since(self.items.header(handle).accessed_at()),
            stores,
        }
    }

    /// True if a chunk of a draining page is in somebody's hands, as far as can be told from here: it may be let go of, or
    /// pinned, at any time. The page keeps its class while it drains.
    fn is_in_hands(&self, chunk: ChunkHandle) -> bool {
        let items = &self.items;
        let header = items.header(chunk);
        let state = header.state();
        if !state.has(State::CONTINUATION) {
            return state.has(State::ITEM) && (!state.has(State::LINKED) || items.is_pinned(chunk));
        }
        header
            .continued_head()
            .is_some_and(|head| match self.class_around(head) {
                // The head lies in a page that may change its class, unless it is linked.
                Some(class) => {
                    let _lru = self.lru(class);
                    !self.is_linked(head, class) || items.is_pinned(head)
                }
                None => true,
            })
    }

    /// The class of the page that a chunk lies in, which may have changed by now unless somebody holds it there.
    fn class_around(&self, chunk: ChunkHandle) -> Option<ClassId> {
        let slabs = self.items.slabs();
        slabs.page_class(slabs.page_of(chunk))
    }

    fn empty_page(&self, page: PageId, class: ClassId, at: At) -> bool {
        let slabs = self.items.slabs();
        for _ in 0..PASSES {
            for chunk in slabs.page_chunks(page) {
                let state = self.items.header(chunk).state();
                if state.has(State::CONTINUATION) {
                    self.vacate_continuation(chunk, class, at);
                } else if state.has(State::LINKED) {
                    self.vacate_item(chunk, class, at);
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
    fn vacate_item(&self, chunk: ChunkHandle, class: ClassId, at: At) {
        let items = &self.items;
        let lru = &mut self.lru(class);
        if !self.is_linked(chunk, class) || items.is_pinned(chunk) {
            return;
        }
        let life = self.life(self.items.header(chunk), at.now);
        if life != Lookup::Found {
            let unfetched = !items.header(chunk).state().is_fetched();
            if self.unlink_from_tail(lru, chunk, life.gone(), at) {
                lru.segments.counters.count_reclaimed(unfetched);
            }
            return;
        }
        let Some(room) = self.room_elsewhere(lru, chunk, class, at) else {
            return self.evict_for_page(lru, chunk, class, at);
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
        at: At,
    ) -> Option<ChunkHandle> {
        let (items, slabs) = (&self.items, self.items.slabs());
        let head_class = self.class_of(head);
        let state = items.header(head).state();
        let oldest = self.tail_age(lru, at).unwrap_or_default();
        let worth_it = lru.is_worth_moving(state) || self.age(head, at).is_below_half_of(oldest);
        // A tail that makes no room lies in the same page, and would have to leave it anyway; so may all of that page.
        let tails = if class == head_class {
            (self.items.slabs().page_bytes() / slabs.chunk_bytes(class)).clamp(TAILS, TAILS_MAX)
        } else {
            TAILS_FOR_END
        };
        let mut room = slabs.alloc_without_page(class);
        for _ in 0..tails {
            if room.is_some() || !worth_it {
                break;
            }
            if !self.evict_tail_of(lru, head_class, at) || !self.is_linked(head, head_class) {
                return None;
            }
            room = slabs.alloc_without_page(class);
        }
        room
    }

    /// Evicts an item that found no room elsewhere; nothing happens if it has been evicted already.
    fn evict_for_page(&self, lru: &mut ClassLru, head: ChunkHandle, class: ClassId, at: At) {
        if !self.tuning.is_on(Knob::Evictions) {
            self.moves.busy_nomem.fetch_add(1, Relaxed);
            return;
        }
        if !self.is_linked(head, class) {
            return;
        }
        let state = self.items.header(head).state();
        if self.unlink_from_tail(lru, head, Gone::Evicted, at) {
            lru.segments.counters.evicted += 1;
            lru.segments.counters.evicted_unfetched += u64::from(!state.is_fetched());
            lru.segments.counters.evicted_active += u64::from(state.uses() > 1);
        }
    }

    /// Moves one continuation chunk of a draining page, or evicts the item it belongs to.
    fn vacate_continuation(&self, chunk: ChunkHandle, class: ClassId, at: At) {
        let items = &self.items;
        let Some(head) = items.header(chunk).continued_head() else {
            return;
        };
        let Some(head_class) = self.class_around(head) else {
            return;
        };
        let lru = &mut self.lru(head_class);
        // Under the LRU's lock a linked head stays one; whether the chunk is really its own, the chain tells.
        if !items.header(chunk).state().has(State::CONTINUATION)
            || !self.is_linked(head, head_class)
            || items.is_pinned(head)
            || !items.owns_chunk(head, chunk)
        {
            return;
        }
        let life = self.life(self.items.header(head), at.now);
        if life != Lookup::Found {
            let unfetched = !items.header(head).state().is_fetched();
            if self.unlink_from_tail(lru, head, life.gone(), at) {
                lru.segments.counters.count_reclaimed(unfetched);
            }
            return;
        }
        let Some(room) = self.room_elsewhere(lru, head, class, at) else {
            return self.evict_for_page(lru, head, head_class, at);
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
    pub(in crate::cache) fn shrink_to_limit(&self, at: At) {
        for _ in 0..PAGES_SHRUNK {
            if self.items.slabs().over_limit() == 0 {
                return;
            }
            let _alone = self.moves.begin();
            if !self.move_some_page(None, at, |tried| Some(self.donor(None, true, tried)?.class)) {
                return;
            }
        }
    }

    /// Asks for a page to be moved from `source` (0 any) to `destination` (0 the pool); the maintainer does it.
    pub fn request_page_move(&self, source: i32, destination: i32) -> Result<(), MoveError> {
        if source == destination {
            return Err(MoveError::Same);
        }
        let known = |class: i32| u8::try_from(class).is_ok_and(|class| self.has_class(class));
        if (source != -1 && source != 0 && !known(source))
            || (destination != 0 && !known(destination))
        {
            return Err(MoveError::BadClass);
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
    pub(in crate::cache) fn serve_page_move(&self, at: At) {
        let wanted = self.moves.wanted.load(Relaxed);
        if wanted == 0 {
            return;
        }
        let class = |number: i32| ClassId::new((number & 0xff) as u8);
        let (source, to) = (class(wanted >> 8), class(wanted));
        {
            let _alone = self.moves.begin();
            self.move_some_page(to, at, |tried| match source {
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
