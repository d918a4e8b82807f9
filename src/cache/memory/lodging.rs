//! Items of a class that has no page yet lie in larger chunks, until a page would have paid.
//!
//! ```text
//!  class      a      b      c      d          a has no page: its items go to the next class that has one,
//!  pages      0      0      3      5          at most LARGER_MAX times as large
//!             |------------>|
//!             wasted += c - a                 wasted >= half a page: the next item of a gets a page of its own
//! ```
//!
//! A class that holds anything costs half a page, since one of its pages is being filled. With all sizes in one cache most
//! classes of small items would have a page each for a few kilobytes: of 16 MB, with values of 1 byte to 1 MB, a tenth. So
//! a first page is bought as skis are: one rents until the rents come to half the price. Whatever sizes come, no more is
//! wasted than twice what the best choice in hindsight wastes.
//!
//! Costs: nothing, once a class has a page; before, a store looks at the classes above.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use slab_alloc::{CLASSES_MAX, ClassId};

use super::super::store::Cache;
use crate::knobs::Knob;

/// How much larger a chunk may be than what it is for.
const LARGER_MAX: usize = 4;

/// What the items of each class have wasted in larger chunks since it had no page, in bytes.
#[derive(Debug)]
pub(in crate::cache) struct Lodging([AtomicU32; CLASSES_MAX]);

impl Default for Lodging {
    fn default() -> Self {
        Lodging([const { AtomicU32::new(0) }; CLASSES_MAX])
    }
}

impl Cache {
    /// The class whose chunk serves for one of `class`, which has no page: that itself, if it has earned one.
    pub(super) fn host(&self, class: ClassId) -> ClassId {
        let slabs = self.items.slabs();
        // Where nobody is evicted, what is given back must do for others of the same size.
        let evicts = self.tuning.is_on(Knob::Evictions);
        if class >= slabs.largest() || !slabs.has_closed() || !evicts {
            return class;
        }
        let bytes = slabs.chunk_bytes(class);
        let wasted = &self.lodging.0[class.index()];
        if wasted.load(Relaxed) as usize >= slabs.page_bytes() / 2 {
            wasted.store(0, Relaxed);
            return class;
        }
        let larger = slabs.classes().skip_while(|&larger| larger <= class);
        let host = larger
            .take_while(|&larger| {
                larger <= slabs.largest() && slabs.chunk_bytes(larger) <= bytes * LARGER_MAX
            })
            .find(|&larger| slabs.is_open(larger) && slabs.has_pages(larger));
        let Some(host) = host else {
            return class;
        };
        wasted.fetch_add((slabs.chunk_bytes(host) - bytes) as u32, Relaxed);
        host
    }
}
