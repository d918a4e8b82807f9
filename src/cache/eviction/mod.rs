//! Who gives way when a class is full: the policies behind `-o eviction=`, each in a file of its own.
//!
//! ```text
//!              place            victim: looks at tails, gives one, moves on those that are to stay
//!  store ---> [segment] ... [segment] ---> evicted ---> (some policies remember the hash)
//!                 ^ a hit only counts in the item's header (`USES`), without a lock
//! ```
//!
//! | name   | file      | choose it when |
//! | ---    | ---       | --- |
//! | s3fifo | s3fifo.rs | always, unless one of the others fits better: scans and one-time keys cost little |
//! | slru   | slru.rs   | memcached's own segments are wanted, with `hot_lru_pct`, `lru tune` and all |
//! | lru    | lru.rs    | what was used last matters and nothing else; as `lru mode flat` |
//! | lfu    | lfu.rs    | popularity changes slowly and a few keys are asked for all the time |
//! | fifo   | fifo.rs   | every item should live equally long, read or not |
//! | random | random.rs | accesses go round and round over more than fits, where any order is the worst |
//! | ttl    | ttl.rs    | what ends soonest is worth least, whether it is read or not |
//!
//! V1. A policy is called under its class's LRU lock, has one instance a class, and orders items only: whether a victim
//!     can be unlinked, and what becomes of it, is decided in `reclaim`.
//! V2. It copes with items in any segment, so that the policy can change while the server runs (but not to ttl).
//! V3. `victim` looks at a bounded number of items.

mod fifo;
mod ghost;
mod lfu;
mod lru;
mod random;
mod s3fifo;
mod sketch;
mod slru;
#[cfg(test)]
mod tests;
mod ttl;

use std::fmt::Debug;

use slab_alloc::ChunkHandle;

use super::item::{Items, State};
use super::segments::{Balance, Segment, Segments};
use super::table::KeyHash;

/// Tails a policy may move on before it has to name a victim. Each costs the item a read that was counted, so that on
/// average there are no more of them than reads; this bounds the wait of a single store to some 20 microseconds.
const LOOKS: usize = 512;

/// The policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
#[allow(missing_docs, reason = "described in the table above")]
pub enum Policy {
    #[default]
    S3Fifo,
    Slru,
    Lru,
    Lfu,
    Fifo,
    Random,
    Ttl,
}

impl Policy {
    /// All of them, by number.
    pub const ALL: [Policy; 7] = [
        Policy::S3Fifo,
        Policy::Slru,
        Policy::Lru,
        Policy::Lfu,
        Policy::Fifo,
        Policy::Random,
        Policy::Ttl,
    ];

    /// The name that `-o eviction=` knows.
    pub fn name(self) -> &'static str {
        match self {
            Policy::S3Fifo => "s3fifo",
            Policy::Slru => "slru",
            Policy::Lru => "lru",
            Policy::Lfu => "lfu",
            Policy::Fifo => "fifo",
            Policy::Random => "random",
            Policy::Ttl => "ttl",
        }
    }

    /// The policy of that name.
    pub fn from_name(name: &str) -> Option<Policy> {
        Policy::ALL.into_iter().find(|policy| policy.name() == name)
    }

    /// True if it keeps several segments, for which `lru mode flat` puts a flat LRU.
    pub fn is_segmented(self) -> bool {
        matches!(self, Policy::S3Fifo | Policy::Slru | Policy::Lfu)
    }

    /// True if a policy that starts has to be told of each item: others go on with the lists they find.
    pub(super) fn wants_items(self) -> bool {
        self == Policy::Ttl
    }

    pub(super) fn start(self) -> Box<dyn Eviction> {
        match self {
            Policy::S3Fifo => Box::<s3fifo::S3Fifo>::default(),
            Policy::Slru => Box::new(slru::Slru),
            Policy::Lru => Box::new(lru::Lru),
            Policy::Lfu => Box::<lfu::Lfu>::default(),
            Policy::Fifo => Box::new(fifo::Fifo),
            Policy::Random => Box::<random::Random>::default(),
            Policy::Ttl => Box::<ttl::Ttl>::default(),
        }
    }
}

/// What a policy may ask about items.
pub(super) struct Sight<'a> {
    pub items: &'a Items,
    /// Its time has run out.
    pub is_dead: &'a dyn Fn(ChunkHandle) -> bool,
    /// The hash of its key.
    pub hash: &'a dyn Fn(ChunkHandle) -> KeyHash,
}

/// A policy at work on one class.
pub(super) trait Eviction: Debug + Send {
    /// The segment a new item starts in. `replaced` is where the item of the same key was that it stands in for.
    fn place(&mut self, segments: &Segments, hash: KeyHash, replaced: Option<Segment>) -> Segment;

    /// The item that should give way, a dead one if it meets one on its way.
    fn victim(&mut self, segments: &mut Segments, sight: &Sight<'_>) -> Option<ChunkHandle>;

    /// The victim could not be unlinked just now: it is not to be the next one again.
    fn pass_over(&mut self, segments: &mut Segments, items: &Items, victim: ChunkHandle) {
        let segment = items.header(victim).state().segment();
        segments.shift(items, victim, segment);
    }

    /// An item that was alive gave way; `room` is how many the class holds.
    fn evicted(&mut self, _hash: KeyHash, _from: Segment, _room: usize) {}

    /// A little work towards the shares of the segments, when an item was linked or the maintainer comes by; false if
    /// none is left to do.
    fn tidy(&mut self, _segments: &mut Segments, _items: &Items, _keep: Balance) -> bool {
        false
    }

    /// True if an item of this state is worth a better place when its page is emptied.
    fn is_worth_moving(&self, state: State) -> bool {
        state.uses() > 0
    }

    /// An item was linked; also called for each that is there when the policy starts.
    fn linked(&mut self, _items: &Items, _handle: ChunkHandle) {}

    /// An item is about to be unlinked, or to get another end.
    fn unlinking(&mut self, _items: &Items, _handle: ChunkHandle) {}

    /// Bytes it keeps beside the items.
    fn bytes(&self) -> usize {
        0
    }

    /// What it has learned beside the order of the items, as bytes: for another process.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes up what [`Eviction::save`] gave; bytes may be anything.
    fn restore(&mut self, _bytes: &[u8]) {}

    /// `new` took the place of `old`.
    fn moved(&mut self, _items: &Items, _old: ChunkHandle, _new: ChunkHandle) {}
}

/// Moves the tail of a segment that the policy does not use on to `home`; false if all are empty.
fn bring_home(segments: &mut Segments, items: &Items, home: &[Segment], to: Segment) -> bool {
    let strange = [Segment::Hot, Segment::Warm, Segment::Cold];
    let tail = strange
        .into_iter()
        .filter(|segment| !home.contains(segment))
        .find_map(|segment| segments.tail(segment));
    if let Some(tail) = tail {
        segments.shift(items, tail, to);
    }
    tail.is_some()
}
