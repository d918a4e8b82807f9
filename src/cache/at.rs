//! When a verb of the store is carried out, and for whom.

use crate::clock::RelTime;
use crate::events::{By, Cause, RingId};

/// The moment of a verb, and who carries it out, given by whoever calls it.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// The present second.
    pub now: RelTime,
    /// As what it is told.
    pub by: By,
}

impl At {
    /// At that second, by a thread without a ring of its own, which nobody has asked to.
    #[inline]
    pub fn new(now: RelTime) -> Self {
        let by = By {
            ring: RingId::COMMON,
            origin: 0,
            cause: Cause::Upkeep,
        };
        At { now, by }
    }
}
