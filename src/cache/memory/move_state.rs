//! The state of page moves: the lock that lets one run at a time, their counts, and the move that a client asked for.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

/// The counts of page moves and the lock that lets one run at a time.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "named as the `stats` keys slab_reassign_*")]
pub struct PageMoves {
    alone: Mutex<()>,
    pub moved: AtomicU64,
    pub rescues: AtomicU64,
    pub chunk_rescues: AtomicU64,
    pub inline_reclaim: AtomicU64,
    pub busy_items: AtomicU64,
    pub busy_nomem: AtomicU64,
    pub running: AtomicBool,
    /// The page looked at last, but for those of tails.
    pub(super) looked_at: AtomicU32,
    /// A move a client asked for: `WANTED | source << 8 | destination`, 0 for none; source 0 is any, destination 0 the
    /// pool.
    pub wanted: AtomicI32,
}

/// Set in a wanted move.
pub(super) const WANTED: i32 = 1 << 16;

/// The counts of page moves, read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the `stats` keys slab_reassign_*")]
pub struct MoveStats {
    pub moved: u64,
    pub rescues: u64,
    pub chunk_rescues: u64,
    pub inline_reclaim: u64,
    pub busy_items: u64,
    pub busy_nomem: u64,
    pub running: bool,
}

/// Why a page move a client asked for cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveError {
    /// One is waiting or running.
    Busy,
    /// No such class.
    BadClass,
    /// The source has at most one page.
    NoSpare,
    /// Source and destination are the same.
    Same,
}

impl PageMoves {
    pub(in crate::cache) fn reset(&self) {
        for count in [
            &self.moved,
            &self.rescues,
            &self.chunk_rescues,
            &self.inline_reclaim,
            &self.busy_items,
            &self.busy_nomem,
        ] {
            count.store(0, Relaxed);
        }
    }

    pub(in crate::cache) fn begin(&self) -> MutexGuard<'_, ()> {
        self.alone.lock()
    }
}
