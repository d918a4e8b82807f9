//! fifo: first in, first out, read or not. A store of a key that is there already counts as new.

use slab_alloc::ChunkHandle;

use super::super::item::{Items, State};
use super::super::segments::{Balance, Segment, Segments};
use super::super::table::KeyHash;
use super::{Eviction, Sight, bring_home};

#[derive(Debug)]
pub struct Fifo;

impl Eviction for Fifo {
    fn place(&mut self, _: &Segments, _: KeyHash, _: Option<Segment>) -> Segment {
        Segment::Cold
    }

    fn victim(&mut self, segments: &mut Segments, _: &Sight<'_>) -> Option<ChunkHandle> {
        segments.oldest()
    }

    fn tidy(&mut self, segments: &mut Segments, items: &Items, _: Balance) -> bool {
        bring_home(segments, items, &[Segment::Cold], Segment::Cold)
    }

    fn is_worth_moving(&self, _: State) -> bool {
        false
    }
}
