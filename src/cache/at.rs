//! When a verb of the store is carried out.

use crate::clock::RelTime;
use crate::events::RingId;

/// The moment of a verb, and who carries it out, given by whoever calls it.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// The present second.
    pub now: RelTime,
    /// Where to tell of it.
    pub ring: RingId,
}

impl At {
    /// At that second, by a thread without a ring of its own.
    #[inline]
    pub fn new(now: RelTime) -> Self {
        At::of(now, RingId::COMMON)
    }

    /// At that second, by the thread of this ring.
    #[inline]
    pub fn of(now: RelTime, ring: RingId) -> Self {
        At { now, ring }
    }
}
