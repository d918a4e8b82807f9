//! How an item is taken out from the LRU's side: to be evicted, or because it has died. `reclaim` and `page_moves` stand on
//! this.
//!
//! R1. Everybody here and in `page_moves` comes from the LRU's side, against the lock order: stripes are only tried, and
//!     an item whose stripe is busy is passed over.

use slab_alloc::{ChunkHandle, ClassId};

use super::super::ahead::PREFETCH_BYTES_MAX;
use super::super::at::At;
use super::super::eviction::Sight;
use super::super::lru::ClassLru;
use super::super::segments::Segment;
use super::super::store::{Cache, Lookup};
use super::super::table::KeyHash;
use crate::clock::RelTime;
use crate::events::{Audience, Shown, What};
use crate::keyspace::misses::Gone;
use crate::knobs::Knob;

/// Victims tried for one eviction: stripes may be busy, values on their way.
const VICTIMS: usize = 24;

/// Dead tails of a segment taken at one time.
const DEAD_TAILS: usize = 24;

impl Cache {
    pub(in crate::cache) fn evict_tail_of(
        &self,
        lru: &mut ClassLru,
        class: ClassId,
        at: At,
    ) -> bool {
        let items = &self.items;
        let is_dead = |handle| self.life(self.items.header(handle), at.now) != Lookup::Found;
        let hash = |handle| self.table.hash(items.key(handle));
        let sight = Sight {
            items,
            is_dead: &is_dead,
            hash: &hash,
        };
        lru.follow(items, self.tuning.policy());
        for _ in 0..VICTIMS {
            let Some(victim) = lru.victim(&sight, self.stores.clock()) else {
                return false;
            };
            let life = self.life(items.header(victim), at.now);
            let dead = life != Lookup::Found;
            if !dead && !self.tuning.is_on(Knob::Evictions) {
                return false;
            }
            let (state, hash) = (items.header(victim).state(), hash(victim));
            let expires_at = items.header(victim).expires_at();
            let idle_s = at.now.since(items.header(victim).accessed_at());
            if !self.unlink_hashed(lru, victim, hash, life.gone(), at) {
                lru.pass_over(items, victim);
                continue;
            }
            let counters = &mut lru.segments.counters;
            let unfetched = !state.is_fetched();
            if dead {
                counters.count_reclaimed(unfetched);
            } else {
                counters.evicted += 1;
                counters.evicted_nonzero += u64::from(expires_at != RelTime::NEVER);
                counters.evicted_time = u64::from(idle_s);
                counters.evicted_unfetched += u64::from(unfetched);
                counters.evicted_active += u64::from(state.uses() > 1);
                lru.evicted_bytes += items.slabs().chunk_bytes(class);
                lru.note_evicted(hash, state.segment());
            }
            self.prefetch_victims(lru, state.segment());
            return true;
        }
        false
    }

    /// Asks for what the next evictions from `segment` will need: the bucket of its tail, and the item before, whose
    /// chunk is written to anew.
    fn prefetch_victims(&self, lru: &ClassLru, segment: Segment) {
        let Some(tail) = lru.segments.tail(segment) else {
            return;
        };
        self.look_ahead(self.items.key(tail), false);
        if let Some(before) = self.items.header(tail).prev() {
            self.items.slabs().prefetch(before, PREFETCH_BYTES_MAX);
        }
    }

    /// Unlinks an item from the LRU's side, and notes what became of it; the caller holds its LRU lock. False if its stripe
    /// is busy, or a reader holds its value, so that no memory would come free.
    pub(in crate::cache) fn unlink_from_tail(
        &self,
        lru: &mut ClassLru,
        handle: ChunkHandle,
        gone: Gone,
        at: At,
    ) -> bool {
        let hash = self.table.hash(self.items.key(handle));
        self.unlink_hashed(lru, handle, hash, gone, at)
    }

    /// The same for who has the hash of its key.
    fn unlink_hashed(
        &self,
        lru: &mut ClassLru,
        handle: ChunkHandle,
        hash: KeyHash,
        gone: Gone,
        at: At,
    ) -> bool {
        if self.items.is_pinned(handle) {
            return false;
        }
        let Some(mut stripe) = self.table.try_lock(hash) else {
            return false;
        };
        // A tail is in the table; only what a walk found in a page that changed its class twice meanwhile may not be.
        let Some((slot, _)) = stripe.find(hash, |other| other == handle) else {
            return false;
        };
        self.departed.note(hash.0, gone);
        self.tell_gone(handle, gone, at);
        stripe.remove(hash, slot);
        lru.unlink(&self.items, handle);
        self.items.release(handle);
        true
    }

    /// Tells that an item goes which nobody asked to go; its stripe is locked. Of flushed ones the flush has told.
    pub(in crate::cache) fn tell_gone(&self, handle: ChunkHandle, gone: Gone, at: At) {
        let audience = self.events.audience();
        if gone != Gone::Flushed && audience.has(Audience::FEED.with(Audience::EVICTIONS)) {
            self.tell_gone_now(audience, handle, gone, at);
        }
    }

    #[cold]
    fn tell_gone_now(&self, audience: Audience, handle: ChunkHandle, gone: Gone, at: At) {
        let (items, header) = (&self.items, self.items.header(handle));
        let (key, what) = match gone {
            Gone::Evicted => (items.key(handle), What::Evict),
            _ => (items.key(handle), What::Expire),
        };
        self.events.gone(at.by, what, key, items.cas(handle));
        if what == What::Evict && audience.has(Audience::EVICTIONS) {
            let ttl = match header.expires_at() {
                RelTime::NEVER => -1,
                ends => i64::from(ends.0) - i64::from(at.now.0),
            };
            let eviction = Shown::Eviction {
                key,
                fetched: header.state().is_fetched(),
                ttl,
                idle: at.now.since(header.accessed_at()),
                class: self.class_of(handle).get(),
                size: header.value_len() as u32,
            };
            self.events.sights.show(at.by.ring, &eviction);
        }
    }

    /// True if `handle` is a linked item of `class`; the caller holds the class's LRU lock, so that it stays one.
    pub(in crate::cache) fn is_linked(&self, handle: ChunkHandle, class: ClassId) -> bool {
        let slabs = self.items.slabs();
        let page = slabs.page_of(handle);
        // A page may change its class while it holds no linked item, and then others' bytes lie where the header was.
        let linked = slabs.hold_page(page, class, || {
            let chunks = slabs.page_chunks(page);
            let handed_out = chunks.size_hint().0;
            let offset = slabs.offset_in_page(handle);
            offset < handed_out * slabs.chunk_bytes(class) && self.looks_linked(handle)
        });
        linked == Some(true)
    }

    /// True if the header is that of a linked item; the caller holds its page to its class.
    pub(in crate::cache) fn looks_linked(&self, handle: ChunkHandle) -> bool {
        self.items.header(handle).state().is_linked_head()
    }

    /// Unlinks `handle` if it is a linked item of `class` that has died; for the crawler.
    pub(in crate::cache) fn unlink_if_dead(
        &self,
        handle: ChunkHandle,
        class: ClassId,
        at: At,
    ) -> bool {
        let lru = &mut self.lru(class);
        if !self.is_linked(handle, class) {
            return false;
        }
        let state = self.items.header(handle).state();
        let life = self.life(self.items.header(handle), at.now);
        let dead = life != Lookup::Found && self.unlink_from_tail(lru, handle, life.gone(), at);
        if dead {
            lru.segments.counters.crawler_reclaimed += 1;
            lru.segments.counters.expired_unfetched += u64::from(!state.is_fetched());
        }
        dead
    }

    /// Unlinks dead items from the ends of the segments; the caller holds the LRU lock. True if there are likely more.
    pub(in crate::cache) fn reclaim_dead_tails(&self, lru: &mut ClassLru, at: At) -> bool {
        let mut more = false;
        for segment in Segment::ALL {
            let mut taken = 0;
            while taken < DEAD_TAILS
                && let Some(tail) = lru.segments.tail(segment)
            {
                let unfetched = !self.items.header(tail).state().is_fetched();
                let life = self.life(self.items.header(tail), at.now);
                if life == Lookup::Found || !self.unlink_from_tail(lru, tail, life.gone(), at) {
                    break;
                }
                lru.segments.counters.count_reclaimed(unfetched);
                taken += 1;
            }
            more |= taken == DEAD_TAILS;
        }
        more
    }
}
