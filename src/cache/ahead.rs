//! Looking ahead: a key's cache lines come from memory while other requests are dealt with.
//!
//! ```text
//!  begin        hash; asks for the bucket
//!  1st step     reads the bucket; asks for the item, or for the overflow bucket if the item is not there
//!  2nd step     reads the overflow bucket; asks for the item in it. Of an item that may be unlinked: for its neighbours
//!  further      nothing
//! ```
//!
//! Each step reads what the one before has asked for, so that it pays to take a step of several keys in turn. Nothing here
//! takes a lock: what is seen is only prefetched, and tried first under the lock later.

use super::item::Items;
use super::store::Cache;
use super::table::{Probe, Sought, Table};

/// Of an item to be read this much is fetched ahead, in bytes: from there on the processor sees by itself where a copy
/// goes.
pub(super) const PREFETCH_BYTES_MAX: usize = 1024;

/// A key that is looked for ahead of its request.
#[derive(Debug, Clone, Copy)]
pub struct Ahead {
    probe: Probe,
    next: Step,
    unlinks: bool,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Item,
    Behind,
    Done,
}

impl Cache {
    /// Begins to look for a key: the bucket is asked for. `unlinks` says that its request may take the item out.
    #[inline(always)]
    pub fn look_ahead(&self, key: &[u8], unlinks: bool) -> Ahead {
        let mut probe = self.probe(key);
        self.table.prefetch_bucket(&mut probe);
        Ahead {
            probe,
            next: Step::Item,
            unlinks,
        }
    }

    /// Begins to look for a key, by hashing it.
    #[inline]
    pub fn probe(&self, key: &[u8]) -> Probe {
        Probe::new(self.table.hash(key))
    }

    /// A key to be looked for now.
    #[inline]
    pub fn sought<'k>(&self, key: &'k [u8]) -> Sought<'k> {
        self.probe(key).of(key)
    }
}

impl Default for Ahead {
    fn default() -> Self {
        Ahead {
            probe: Probe::default(),
            next: Step::Done,
            unlinks: false,
        }
    }
}

impl Ahead {
    /// Steps that are worth taking.
    pub const STEPS: usize = 2;

    /// Takes the next step, if one is left. Inlined, as it is little and each request takes two.
    #[inline(always)]
    pub fn step(&mut self, cache: &Cache) {
        self.step_in(&cache.table, &cache.items);
    }

    #[inline(always)]
    fn step_in(&mut self, table: &Table, items: &Items) {
        match self.next {
            Step::Item => {
                if let Some(handle) = table.probe(&mut self.probe) {
                    items.slabs().prefetch(handle, PREFETCH_BYTES_MAX);
                }
                self.next = Step::Behind;
            }
            Step::Behind => {
                if let Some(handle) = table.probe_overflow(&self.probe) {
                    items.slabs().prefetch(handle, PREFETCH_BYTES_MAX);
                }
                if self.unlinks
                    && let Some(seen) = self.probe.seen()
                {
                    items.prefetch_neighbours(seen);
                }
                self.next = Step::Done;
            }
            Step::Done => {}
        }
    }

    /// What has been found out, for the request itself.
    #[inline]
    pub fn probe(&self) -> Probe {
        self.probe
    }
}
