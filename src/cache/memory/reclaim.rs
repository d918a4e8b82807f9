//! Where a chunk comes from when there is no free one: from the dead, from the least used, or from another class.
//!
//! ```text
//!  free chunk or page of the pool
//!    else: another class's items cost clearly more --> empty one of its pages, take it
//!    else: evict the own victim
//!    else: take a page from the class whose items cost most
//!    else: beyond the memory limit, if the class has none: its first page
//!    else: a free chunk of a class that is a little larger
//! ```
//!
//! Memory goes to slab classes in pages, so that a policy can only choose among the items of one class. Between classes
//! decides what an item costs: its bytes times how long it keeps its place without being asked for
//! (`ClassLru::cost`). As long as the odds of being asked for fall with the time since the last request, roughly as one
//! over it, the classes together miss least when the cost of all is the same: a large item must be asked for as many
//! times more often as it takes the room of many small ones. Where popularity lasts, odds fall more slowly, and size must
//! count for more: how much so, the part of a class's items tells that were read when their turn to be evicted had come. It
//! makes small items cost less, so that a cache full of what nobody reads gives way to any size.
//! Time is counted in stores, so that neither a pause nor a
//! burst changes the shares. So a class that evicts takes a page from the class whose items cost most, if they would
//! still cost more than its own without the page (else it would soon go back). After a change of sizes the class that is
//! stored to no more gives page after page, until what is left of it is asked for so often that it costs less than the
//! others' items. What is read often in the page, or young, is moved to other chunks of its class (rescued) in exchange
//! for that class's own victims; the rest is evicted.
//!
//! Where pages do not move (`slab_automove=0`, `-M`) a class that has no page would never get one, and each store of its
//! sizes would be refused. So its first page may lie beyond the limit, as in memcached: a page a class at most, and of the
//! largest class, whose chunks make up chained items, as many as the largest item takes.

use std::sync::atomic::Ordering::Relaxed;

use slab_alloc::{ChunkHandle, ClassId};

use super::super::at::At;
use super::super::store::Cache;
use super::super::tuning::Automove;
use crate::keyspace::slow::{self, Stage};
use crate::knobs::Knob;

/// How often an allocation tries to make room before it gives up: a chained item may free chunks of other classes only.
const ROUNDS: usize = 256;
/// Rounds before it waits for a page move that is in its way.
const ROUNDS_UNHURRIED: usize = 8;
/// Rounds without any progress before it gives up.
const ROUNDS_IN_VAIN: usize = 3;
/// How much larger a chunk of another class may be, if there is none of the own.
const LARGER_MAX: usize = 2;
/// A class that has evicted so many bytes asks whether it should get a page. The first number holds after it got one, so
/// that a change of sizes is followed at once; after each refusal it is doubled, up to the second, so that the question
/// costs nothing while the shares are right.
const EVIDENCE_BYTES: [usize; 2] = [4 << 10, 256 << 10];

impl Cache {
    /// A chunk of `class`, whatever it takes.
    #[inline]
    pub(in crate::cache) fn alloc_chunk(&self, class: ClassId, at: At) -> Option<ChunkHandle> {
        self.follow_sizes();
        self.items
            .slabs()
            .alloc_but_first(class)
            .or_else(|| self.alloc_by_force(class, at))
    }

    /// A chunk of `class` for somebody who holds a stripe: a free one, or the tail's. A page cannot be moved meanwhile,
    /// since any may hold items of that stripe.
    pub(in crate::cache) fn alloc_at_hand(&self, class: ClassId, at: At) -> Option<ChunkHandle> {
        let slabs = self.items.slabs();
        let evict = || {
            self.evict_tail(class, at)
                .then(|| slabs.alloc(class))
                .flatten()
        };
        slabs
            .alloc(class)
            .or_else(evict)
            .or_else(|| self.alloc_larger(class))
    }

    /// A free chunk of a class above, at most [`LARGER_MAX`] times as large. Where nobody may be evicted there is no other
    /// way for an item to follow its predecessor, which lies in such a class if its own was opened since.
    fn alloc_larger(&self, class: ClassId) -> Option<ChunkHandle> {
        let slabs = self.items.slabs();
        let bytes_max = slabs.chunk_bytes(class) * LARGER_MAX;
        slabs
            .classes()
            .skip_while(|&larger| larger <= class)
            .take_while(|&larger| slabs.chunk_bytes(larger) <= bytes_max)
            .find_map(|larger| slabs.alloc_without_page(larger))
    }

    #[cold]
    fn alloc_by_force(&self, class: ClassId, at: At) -> Option<ChunkHandle> {
        let slabs = self.items.slabs();
        let mut class = class;
        if !slabs.has_pages(class) {
            class = self.host(class);
            if let Some(chunk) = slabs.alloc(class) {
                return Some(chunk);
            }
        }
        let mut in_vain = 0;
        for round in 1..=ROUNDS {
            let progress = self.get_deserved_page(class, at)
                || self.evict_tail(self.class_to_evict_from(class), at)
                || slow::timed(Stage::PageMove, || self.take_page(class, at, true))
                || self.evict_chain(class, at);
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
                if in_vain == ROUNDS_IN_VAIN || !self.tuning.is_on(Knob::Evictions) {
                    break;
                }
                // What others have in hands, or under a stripe's lock, they may have let go of.
                std::thread::yield_now();
            }
        }
        // Nobody gives way.
        let last = slabs
            .alloc_beyond_limit(class, self.items.pages_for_one(class))
            .or_else(|| self.alloc_larger(class));
        if last.is_none() {
            self.counters.malloc_fails.fetch_add(1, Relaxed);
        }
        last
    }

    /// Takes a page for a class that has evicted enough to ask for one, if others can better do without.
    fn get_deserved_page(&self, class: ClassId, at: At) -> bool {
        let [least, most] = EVIDENCE_BYTES;
        let asked_after = {
            let mut lru = self.lru(class);
            // What is to be evicted next counts: with one large item, all may be lost.
            let evidence = lru.evicted_bytes + self.items.slabs().chunk_bytes(class);
            let waits = self.tuning.automove() != Automove::Eager;
            if waits && evidence < lru.ask_after_bytes {
                return false;
            }
            lru.evicted_bytes = 0;
            lru.ask_after_bytes
        };
        let got = slow::timed(Stage::PageMove, || self.take_page(class, at, false));
        self.lru(class).ask_after_bytes = if got {
            least
        } else {
            (asked_after * 2).clamp(least, most)
        };
        got
    }

    /// The class whose item gives way for a chunk of `class`: itself, but for pieces of the items that are larger, which their
    /// pieces come from too. Of all these the dearest.
    fn class_to_evict_from(&self, class: ClassId) -> ClassId {
        let slabs = self.items.slabs();
        if class != slabs.largest() {
            return class;
        }
        let twins = slabs.classes().skip_while(|&twin| twin < class);
        let has_items = |&class: &ClassId| self.lru(class).segments.count() > 0;
        let dearest = twins
            .filter(has_items)
            .max_by_key(|&class| self.cost(class));
        dearest.unwrap_or(class)
    }

    /// Frees one item of the class: a dead one, or the least used.
    fn evict_tail(&self, class: ClassId, at: At) -> bool {
        self.evict_tail_of(&mut self.lru(class), class, at)
    }

    /// Evicts a chained item, if `class` holds ends of such: they are in no list of their own.
    fn evict_chain(&self, class: ClassId, at: At) -> bool {
        let slabs = self.items.slabs();
        let ends = slabs.class_stats(class).used_chunks > self.lru(class).segments.count();
        let heads = self.chaining_class().filter(|&heads| heads != class);
        ends && heads.is_some_and(|heads| self.evict_tail(heads, at))
    }
}
