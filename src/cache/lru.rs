//! The LRU of one class: its segments, and the policy that deals with them.
//!
//! A hit only counts in the item's header; items move when a store or the maintainer looks at a tail. So a read never
//! takes this lock.
//!
//! Costs: linking takes one lock and moves no more than [`TIDY_STEPS`] other items.

use slab_alloc::ChunkHandle;

use super::eviction::{Eviction, Policy, Sight};
use super::item::{Items, State};
use super::segments::{Balance, Segment, Segments};
use super::table::KeyHash;
use super::turnover::Turnover;

/// Steps of tidying when an item is linked: two, so that HOT and WARM shrink faster than stores can fill them.
const TIDY_STEPS: usize = 2;

/// Whose items are read costs less, the smaller they are: by their part of so many bytes,
const LARGE_BYTES: f64 = 1_048_576.0;
/// to this power, times the part of the items that were read when their turn to be evicted had come. See `reclaim`.
const READ_POWER: f64 = 0.6;

/// A new item, to be linked.
#[derive(Debug, Clone, Copy)]
pub struct Newcomer {
    /// The item.
    pub handle: ChunkHandle,
    /// Of its key.
    pub hash: KeyHash,
    /// Where the item was that it stands in for.
    pub replaced: Option<Segment>,
    /// That one, if any, was of another class.
    pub arrives: bool,
    /// It lives so shortly that it goes to TEMP.
    pub is_temporary: bool,
}

/// The LRU of one class; it lives inside its lock.
#[derive(Debug)]
pub struct ClassLru {
    /// The lists.
    pub segments: Segments,
    policy: Policy,
    eviction: Box<dyn Eviction>,
    turnover: Turnover,
    /// Bytes the linked items asked for.
    pub requested_bytes: u64,
    /// Bytes of chunks evicted since the class last asked for a page: the evidence that it wants one.
    pub evicted_bytes: usize,
    /// How much evidence it takes to ask again.
    pub ask_after_bytes: usize,
}

impl Default for ClassLru {
    fn default() -> Self {
        ClassLru {
            segments: Segments::default(),
            policy: Policy::default(),
            eviction: Policy::default().start(),
            turnover: Turnover::default(),
            requested_bytes: 0,
            evicted_bytes: 0,
            ask_after_bytes: 0,
        }
    }
}

impl ClassLru {
    /// Goes on with lists that were left like this, whose items asked for so many bytes.
    pub fn resume(items: &Items, segments: Segments, requested_bytes: u64, policy: Policy) -> Self {
        let mut lru = ClassLru {
            segments,
            requested_bytes,
            ..ClassLru::default()
        };
        if policy.wants_items() {
            lru.follow(items, policy);
        } else {
            (lru.policy, lru.eviction) = (policy, policy.start());
        }
        lru
    }

    /// What the policy has learned, and how often the class goes round, for another process.
    pub fn learned(&self) -> (Policy, Vec<u8>, Vec<u64>) {
        (self.policy, self.eviction.save(), self.turnover.words())
    }

    /// Takes up what [`ClassLru::learned`] gave, unless it has begun to learn anew.
    pub fn take_up(&mut self, policy: Policy, learned: &[u8], turnover: &[u64]) {
        if self.policy == policy && self.eviction.bytes() == 0 {
            self.eviction.restore(learned);
        }
        self.turnover.take_up(turnover);
    }

    /// Goes on with this policy, if it was another.
    #[inline]
    pub fn follow(&mut self, items: &Items, policy: Policy) {
        if self.policy != policy {
            self.policy = policy;
            self.eviction = policy.start();
            for handle in self.segments.handles(items) {
                self.eviction.linked(items, handle);
            }
        }
    }

    /// Puts a new item at the head of the segment that the policy names. `stores` counts those to the whole cache.
    pub fn link(&mut self, items: &Items, new: Newcomer, stores: u64) {
        if new.arrives {
            self.turnover.step(1, self.segments.count(), stores);
        }
        let segment = if new.is_temporary {
            Segment::Temp
        } else {
            self.eviction.place(&self.segments, new.hash, new.replaced)
        };
        self.segments.push(items, new.handle, segment);
        items.header(new.handle).set_bits(State::LINKED);
        self.eviction.linked(items, new.handle);
        self.requested_bytes += items.requested_bytes(new.handle) as u64;
        self.segments.counters.total_items += 1;
    }

    /// Takes an item out.
    pub fn unlink(&mut self, items: &Items, handle: ChunkHandle) {
        self.eviction.unlinking(items, handle);
        self.segments.take(items, handle);
        items.header(handle).clear_bits(State::LINKED);
        self.requested_bytes -= items.requested_bytes(handle) as u64;
    }

    /// Lets `new`, already a copy of `old`'s header, stand in `old`'s place (page moves).
    pub fn replace(&mut self, items: &Items, old: ChunkHandle, new: ChunkHandle) {
        self.segments.replace(items, old, new);
        self.eviction.moved(items, old, new);
    }

    /// Gives a linked item another end.
    pub fn touch(&mut self, items: &Items, handle: ChunkHandle, set_end: impl FnOnce()) {
        self.eviction.unlinking(items, handle);
        set_end();
        self.eviction.linked(items, handle);
    }

    /// The item that should give way. `stores` counts those to the whole cache.
    pub fn victim(&mut self, sight: &Sight<'_>, stores: u64) -> Option<ChunkHandle> {
        let before = self.segments.counters.kept();
        let victim = self.eviction.victim(&mut self.segments, sight);
        let kept = self.segments.counters.kept() - before;
        self.turnover.step(kept, self.segments.count(), stores);
        victim
    }

    /// The victim could not be unlinked: another one, next time.
    pub fn pass_over(&mut self, items: &Items, victim: ChunkHandle) {
        self.segments.counters.lrutail_reflocked += 1;
        self.eviction.pass_over(&mut self.segments, items, victim);
    }

    /// A live item was evicted from `from`.
    pub fn note_evicted(&mut self, hash: KeyHash, from: Segment) {
        self.eviction.evicted(hash, from, self.segments.count());
    }

    /// What an item of the class costs on average: its bytes times how long it keeps its place without being asked for, in
    /// stores to the whole cache, of which there were `stores`; less, if it is small and such are read. See `reclaim`.
    pub fn cost(&self, stores: u64) -> u64 {
        let items = self.segments.count();
        let round = self.turnover.round(items, stores) as f64;
        let bytes = self.requested_bytes as f64 / items.max(1) as f64;
        let counters = &self.segments.counters;
        let read = counters.kept() as f64 / (counters.kept() + counters.total_items).max(1) as f64;
        // What is beyond the largest number becomes that.
        (round * bytes * (bytes / LARGE_BYTES).powf(READ_POWER * read)) as u64
    }

    /// Bytes that the policy keeps beside the items.
    pub fn policy_bytes(&self) -> usize {
        self.eviction.bytes()
    }

    /// True if an item of this state should be moved, rather than evicted, when its page is emptied.
    pub fn is_worth_moving(&self, state: State) -> bool {
        self.eviction.is_worth_moving(state)
    }

    /// True if at least half of so many of the oldest items were read. Those get another round, which lowers the cost:
    /// the hand of a class that nobody stores to stands still, and does not know how often its items are asked for.
    pub fn earns_its_keep(&mut self, items: &Items, count: usize, stores: u64) -> bool {
        let older = |&handle: &ChunkHandle| items.header(handle).prev();
        let mut oldest: Vec<_> = std::iter::successors(self.segments.oldest(), older)
            .take(count)
            .collect();
        oldest.retain(|&handle| {
            let state = items.header(handle).state();
            state.uses() > 0 && self.is_worth_moving(state)
        });
        let earns = oldest.len() * 2 >= count;
        if earns {
            self.turnover
                .step(oldest.len() as u64, self.segments.count(), stores);
            for handle in oldest {
                items.header(handle).set_uses(0);
                // Where all policies keep what has shown that it is asked for, or everything.
                self.segments.shift(items, handle, Segment::Cold);
            }
        }
        earns
    }

    /// A few steps towards the segments' shares.
    #[inline]
    pub fn tidy(&mut self, items: &Items, keep: Balance<'_>) {
        for _ in 0..TIDY_STEPS {
            if !self.tidy_step(items, keep) {
                break;
            }
        }
    }

    /// One such step; false if nothing is left to do.
    pub fn tidy_step(&mut self, items: &Items, keep: Balance<'_>) -> bool {
        self.eviction.tidy(&mut self.segments, items, keep)
    }

    /// Checks L1 and the counts.
    #[cfg(test)]
    pub fn check_invariants(&self, items: &Items) {
        let mut requested = 0;
        for segment in Segment::ALL {
            let list = self.segments.list(segment);
            let (mut prev, mut at, mut count) = (None, list.head, 0);
            while let Some(handle) = at {
                let state = items.header(handle).state();
                assert!(
                    state.has(State::LINKED) && state.has(State::ITEM),
                    "L1: {state:?}"
                );
                assert_eq!(state.segment(), segment, "L1");
                assert_eq!(items.header(handle).prev(), prev);
                requested += items.requested_bytes(handle) as u64;
                (prev, at, count) = (at, items.header(handle).next(), count + 1);
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
        let mut new = new
            .map_err(|error: AllocError| format!("{error:?}"))
            .unwrap();
        new.write(b"abc");
        new.into_handle()
    }

    fn link(lru: &mut ClassLru, items: &Items, handle: ChunkHandle, to: Segment) {
        let new = Newcomer {
            handle,
            hash: KeyHash(1),
            replaced: None,
            arrives: true,
            is_temporary: false,
        };
        lru.link(items, new, 1);
        lru.segments.shift(items, handle, to);
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
                        link(&mut lru, &items, handle, to);
                        model[to as usize].push_front(handle);
                    }
                    1 if !model[from].is_empty() => {
                        let at = rng.next() as usize % model[from].len();
                        let handle = model[from].remove(at).unwrap();
                        lru.segments.shift(&items, handle, to);
                        model[to as usize].push_front(handle);
                    }
                    2 if !model[from].is_empty() => {
                        assert_eq!(
                            lru.segments.tail(Segment::ALL[from]),
                            model[from].back().copied()
                        );
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
}
