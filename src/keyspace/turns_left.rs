//! How many turns of this thread are left until one is looked at.
//!
//! It is the thread's, not the worker's: whoever takes long deep in the cache knows of no worker.
//!
//! Tf1. A turn that becomes suspect is the next that is looked at. The others are not put off by it.

use std::cell::Cell;

/// A turn that takes longer than this is slow: ten times what the slowest of a thousand takes on a busy server.
pub(super) const SLOW_NS: u64 = 10_000_000;
/// A stage that takes longer than this makes its turn suspect: a tenth, as there may be several.
const LONG_NS: u64 = SLOW_NS / 10;

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(1) };
    /// What was left when the turn in progress became suspect; 0 if it is not.
    static PUT_OFF: Cell<u32> = const { Cell::new(0) };
    /// When the first long stage began since [`long_since`] was asked; 0 if there was none.
    static LONG_SINCE: Cell<u64> = const { Cell::new(0) };
}

/// Counts a turn; true if it is to be looked at.
#[inline(always)]
pub(super) fn count() -> bool {
    let left = LEFT.get().wrapping_sub(1);
    LEFT.set(left);
    left == 0
}

/// The one that comes after so many is to be looked at.
pub(super) fn set(turns: u32) {
    LEFT.set(turns);
}

/// Has the turn in progress looked at when it is over.
pub(super) fn suspect() {
    if PUT_OFF.get() == 0 {
        PUT_OFF.set(LEFT.replace(1));
    }
}

/// Notes a stage of the turn in progress, by the monotonic clock.
pub(super) fn stage(began_ns: u64, ended_ns: u64) {
    if ended_ns.saturating_sub(began_ns) >= LONG_NS {
        if LONG_SINCE.get() == 0 {
            LONG_SINCE.set(began_ns);
        }
        suspect();
    }
}

/// What was left before the turn that is looked at became suspect; 0 if it did not.
pub(super) fn take_put_off() -> u32 {
    PUT_OFF.replace(0)
}

/// When the first stage began that took long, since this was asked last.
pub(super) fn long_since() -> Option<u64> {
    Some(LONG_SINCE.replace(0)).filter(|&since_ns| since_ns > 0)
}
