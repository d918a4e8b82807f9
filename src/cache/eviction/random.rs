//! random: any item of the class may go. Where a load goes round over more than fits, no order does better than none.
//!
//! An item is drawn by drawing a page, then a chunk of it; free chunks and pages of other classes lead to the next one.

use slab_alloc::ChunkHandle;

use super::super::item::{Items, State};
use super::super::segments::{Balance, Segment, Segments};
use super::super::table::KeyHash;
use super::{Eviction, Sight, bring_home};

/// Pages looked at to find one of the class, before the oldest item has to do.
const PAGES: usize = 4096;
/// Chunks looked at to find an item.
const CHUNKS: usize = 64;

#[derive(Debug)]
pub struct Random {
    state: u64,
}

impl Default for Random {
    fn default() -> Self {
        Random {
            state: 0x9e37_79b9_7f4a_7c15,
        }
    }
}

impl Random {
    /// A number below `n` (xorshift64*: Marsaglia 2003, Vigna 2016).
    fn below(&mut self, n: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let mixed = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((mixed * n as u64) >> 32) as usize
    }

    fn draw(&mut self, items: &Items, like: ChunkHandle) -> Option<ChunkHandle> {
        let slabs = items.slabs();
        let class = items.header(like).class()?;
        let first = self.below(slabs.pages_total().max(1));
        let pages = slabs
            .page_ids()
            .skip(first)
            .chain(slabs.page_ids().take(first));
        let page = pages
            .take(PAGES)
            .find(|&page| slabs.page_class(page) == Some(class))?;
        let chunks = slabs.page_chunks(page).size_hint().0;
        let first = self.below(chunks.max(1));
        let is_item = |&chunk: &ChunkHandle| {
            items.header(chunk).state().is_linked_head()
                && items.header(chunk).class() == Some(class)
        };
        let drawn = slabs
            .page_chunks(page)
            .skip(first)
            .chain(slabs.page_chunks(page).take(first));
        // A linked item of this class stays one while its LRU is locked (V1), and so does the class of its page.
        drawn
            .take(CHUNKS)
            .find(is_item)
            .filter(|_| slabs.page_class(page) == Some(class))
    }
}

impl Eviction for Random {
    fn place(&mut self, _: &Segments, _: KeyHash, _: Option<Segment>) -> Segment {
        Segment::Cold
    }

    fn victim(&mut self, segments: &mut Segments, sight: &Sight<'_>) -> Option<ChunkHandle> {
        let oldest = segments.oldest()?;
        if (sight.is_dead)(oldest) {
            return Some(oldest);
        }
        Some(self.draw(sight.items, oldest).unwrap_or(oldest))
    }

    fn pass_over(&mut self, segments: &mut Segments, items: &Items, victim: ChunkHandle) {
        // Whoever was drawn is not the next one anyway.
        if segments.oldest() == Some(victim) {
            segments.shift(items, victim, items.header(victim).state().segment());
        }
    }

    fn tidy(&mut self, segments: &mut Segments, items: &Items, _: Balance) -> bool {
        bring_home(segments, items, &[Segment::Cold], Segment::Cold)
    }

    fn is_worth_moving(&self, _: State) -> bool {
        false
    }
}
