//! lru: one list a class; what was read since it got its place gets another round, everything else goes in its turn.
//!
//! Reads take no lock and move nothing, so this is the approximation known as second chance, or CLOCK (Corbató, 1968):
//! an item's place in the order is that of its first read in a round.

use slab_alloc::ChunkHandle;

use super::super::item::Items;
use super::super::segments::{Balance, Segment, Segments};
use super::super::table::KeyHash;
use super::{Eviction, LOOKS, Sight, bring_home};

#[derive(Debug)]
pub struct Lru;

impl Eviction for Lru {
    fn place(&mut self, _: &Segments, _: KeyHash, _: Option<Segment>) -> Segment {
        Segment::Cold
    }

    fn victim(&mut self, segments: &mut Segments, sight: &Sight<'_>) -> Option<ChunkHandle> {
        for _ in 0..LOOKS {
            let tail = segments.oldest()?;
            let temporary = sight.items.header(tail).state().segment() == Segment::Temp;
            if sight.items.header(tail).uses() == 0 || temporary || (sight.is_dead)(tail) {
                return Some(tail);
            }
            sight.items.header(tail).set_uses(0);
            segments.counters.moves_within_lru += 1;
            segments.shift(sight.items, tail, Segment::Cold);
        }
        segments.oldest()
    }

    fn tidy(&mut self, segments: &mut Segments, items: &Items, _: Balance) -> bool {
        bring_home(segments, items, &[Segment::Cold], Segment::Cold)
    }
}
