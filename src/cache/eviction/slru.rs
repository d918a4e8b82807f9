//! slru: memcached's segmented LRU, HOT, WARM and COLD.
//!
//! ```text
//!   store --> HOT ----------> COLD --> evicted
//!              | active        | active
//!              +----> WARM <---+      WARM's own tail: active --> WARM head, else --> COLD
//! ```
//!
//! An item is active when it was read again after its first read, and after each move must earn that anew by one read.
//! HOT and WARM are kept to a share of the class's items (`hot_lru_pct`, `warm_lru_pct`); what was not read twice when it
//! leaves HOT goes to COLD, so that one scan of the cache does not push out what is used again and again.

use slab_alloc::ChunkHandle;

use super::super::item::{Items, State};
use super::super::segments::{Balance, Segment, Segments};
use super::super::table::KeyHash;
use super::{Eviction, Sight};

/// Active tails that are saved in one search before the next is evicted all the same.
const SAVED: usize = 18;

/// Reads that make an item active.
const ACTIVE: u16 = 2;

#[derive(Debug)]
pub struct Slru;

/// Moves an item, which keeps of its reads that there were any.
fn shift(segments: &mut Segments, items: &Items, handle: ChunkHandle, to: Segment) {
    items
        .header(handle)
        .set_uses(items.header(handle).uses().min(1));
    segments.shift(items, handle, to);
}

impl Eviction for Slru {
    fn place(&mut self, _: &Segments, _: KeyHash, _: Option<Segment>) -> Segment {
        Segment::Hot
    }

    fn victim(&mut self, segments: &mut Segments, sight: &Sight<'_>) -> Option<ChunkHandle> {
        for _ in 0..SAVED {
            let tail = segments.oldest()?;
            let from = sight.items.header(tail).state().segment();
            let active = sight.items.header(tail).uses() >= ACTIVE;
            if !active || from == Segment::Temp || (sight.is_dead)(tail) {
                return Some(tail);
            }
            match from {
                Segment::Cold => segments.counters.moves_to_warm += 1,
                Segment::Warm => segments.counters.moves_within_lru += 1,
                _ => {}
            }
            shift(segments, sight.items, tail, Segment::Warm);
        }
        segments.oldest()
    }

    fn tidy(&mut self, segments: &mut Segments, items: &Items, keep: Balance) -> bool {
        let total = segments.count() - segments.list(Segment::Temp).count;
        let shares = [(Segment::Hot, keep.hot_pct), (Segment::Warm, keep.warm_pct)];
        let over = shares.into_iter().find_map(|(from, pct)| {
            let list = segments.list(from);
            let tail = segments.tail(from)?;
            let too_old = (keep.too_old)(from, tail, segments.tail(Segment::Cold));
            (list.count * 100 > total * pct || too_old).then_some((from, tail))
        });
        let (from, tail) = match over {
            Some(over) => over,
            None if keep.in_background => {
                // An item that was read again is brought to WARM before it gets to the tail's end.
                let active = |tail: &ChunkHandle| items.header(*tail).uses() >= ACTIVE;
                match segments.tail(Segment::Cold).filter(active) {
                    Some(tail) => (Segment::Cold, tail),
                    None => return false,
                }
            }
            None => return false,
        };
        let active = items.header(tail).uses() >= ACTIVE;
        let to = if active { Segment::Warm } else { Segment::Cold };
        match (from, to) {
            (Segment::Warm, Segment::Warm) => segments.counters.moves_within_lru += 1,
            (_, Segment::Warm) => segments.counters.moves_to_warm += 1,
            _ => segments.counters.moves_to_cold += 1,
        }
        shift(segments, items, tail, to);
        true
    }

    fn is_worth_moving(&self, state: State) -> bool {
        state.uses() >= ACTIVE || state.segment() == Segment::Warm
    }
}
