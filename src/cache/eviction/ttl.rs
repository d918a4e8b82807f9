//! ttl: what ends soonest goes first, read or not; what never ends goes last, in the order of use.
//!
//! Every change of an end has to be told (`Entry::touch` does, under the LRU lock), so ttl is chosen before the first touch:
//! the tree would keep an end that was changed while another policy gave way to this one.
//!
//! Costs: a tree entry of some 12 bytes for each item that ends, beside the item memory; a store or touch of such an
//! item is a step down that tree, and a touch takes the LRU lock.

use std::collections::BTreeSet;

use slab_alloc::ChunkHandle;

use super::super::item::Items;
use super::super::segments::{Balance, Segment, Segments};
use super::super::table::KeyHash;
use super::lru::Lru;
use super::{Eviction, Sight};
use crate::clock::RelTime;

/// What an entry of the tree takes, about.
const ENTRY_BYTES: usize = 12;

#[derive(Debug, Default)]
pub struct Ttl {
    /// End and handle of every linked item that ends.
    ends: BTreeSet<(RelTime, u32)>,
    /// Victims in a row that could not be unlinked.
    passed_over: usize,
}

fn end(items: &Items, handle: ChunkHandle) -> Option<(RelTime, u32)> {
    let at = items.header(handle).expires_at();
    (at != RelTime::NEVER).then_some((at, handle.to_raw()))
}

impl Eviction for Ttl {
    fn place(&mut self, segments: &Segments, hash: KeyHash, replaced: Option<Segment>) -> Segment {
        Lru.place(segments, hash, replaced)
    }

    fn victim(&mut self, segments: &mut Segments, sight: &Sight<'_>) -> Option<ChunkHandle> {
        let soonest = self.ends.iter().nth(self.passed_over);
        match soonest.and_then(|&(_, raw)| ChunkHandle::from_raw(raw)) {
            Some(soonest) => Some(soonest),
            None => Lru.victim(segments, sight),
        }
    }

    fn pass_over(&mut self, segments: &mut Segments, items: &Items, victim: ChunkHandle) {
        if end(items, victim).is_some() {
            self.passed_over += 1;
        } else {
            Lru.pass_over(segments, items, victim);
        }
    }

    fn tidy(&mut self, segments: &mut Segments, items: &Items, keep: Balance) -> bool {
        Lru.tidy(segments, items, keep)
    }

    fn bytes(&self) -> usize {
        self.ends.len() * ENTRY_BYTES
    }

    fn linked(&mut self, items: &Items, handle: ChunkHandle) {
        self.ends.extend(end(items, handle));
    }

    fn unlinking(&mut self, items: &Items, handle: ChunkHandle) {
        self.passed_over = 0;
        if let Some(end) = end(items, handle) {
            let known = self.ends.remove(&end);
            debug_assert!(known, "an item's end changes under the LRU lock");
        }
    }

    fn moved(&mut self, items: &Items, old: ChunkHandle, new: ChunkHandle) {
        let at = items.header(new).expires_at();
        self.ends.remove(&(at, old.to_raw()));
        self.linked(items, new);
    }
}
