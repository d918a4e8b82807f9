//! When a verb of the store is carried out.

use crate::clock::RelTime;

/// The moment of a verb, given by whoever calls it. All that unlinks, evicts or expires an item has one at hand, so that
/// what else it should know of its caller (where to tell of the item, say) can join the time here.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// The present second.
    pub now: RelTime,
}

impl At {
    /// At that second.
    #[inline]
    pub fn new(now: RelTime) -> Self {
        At { now }
    }
}
