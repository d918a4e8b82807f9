//! What a client tells of itself, and to whom.

use std::fmt;
use std::time::Duration;

use crate::error::Failure;
use crate::feed::Lost;

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// get, gets, get_multi, get_and_touch, and the repair of copies that missed.
    Get,
    /// set, set_multi, add, replace, append, prepend, cas.
    Store,
    /// delete, delete_multi.
    Delete,
    /// incr, decr.
    Count,
    /// touch.
    Touch,
    /// The first read of get_or_load.
    Lease,
    /// flush_all, stats, version.
    Ask,
}

/// How a get_or_load that did not just use what the node had came to its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Loaded {
    /// It called its loader, since there was no value.
    Missing,
    /// It called its loader before the value's time was over, or behind it.
    Refreshed,
    /// It waited for another call's loader.
    Shared,
    /// It called its loader, which failed.
    Failed,
    /// It waited in vain.
    Timeout,
    /// No node took what the loader brought (it was too large, or the node full), so that the next caller loads again. Counted
    /// beside [`Missing`](Loaded::Missing) or [`Refreshed`](Loaded::Refreshed).
    NotStored,
}

/// What a near cache that follows has of a node's feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Followed {
    /// The node tells what happens, from now on.
    Armed,
    /// So many events came.
    Events(u64),
    /// Something was missed, or may have been: what came from the node was dropped.
    Lost(Lost),
}

/// Is told what happens. Methods are called in the midst of operations: they must be quick, and must not call the client.
pub trait Metrics: fmt::Debug + Send + Sync {
    /// A node answered a request, which may be a batch of keys, or failed to.
    fn request(&self, node: &str, op: Op, outcome: Result<(), Failure>, latency: Duration) {
        let _ = (node, op, outcome, latency);
    }

    /// Keys were looked up, after all copies and retries.
    fn looked_up(&self, hits: u64, misses: u64) {
        let _ = (hits, misses);
    }

    /// Of keys that were looked up, so many were in the near cache, and so many were not.
    fn looked_up_near(&self, hits: u64, misses: u64) {
        let _ = (hits, misses);
    }

    /// The near cache follows a node's feed, and this is what it has of it.
    fn followed(&self, node: &str, what: Followed) {
        let _ = (node, what);
    }

    /// What was read was not kept near, since an event of its key, or of a key like it, came in the meantime.
    fn dropped_in_flight(&self) {}

    /// A node failed too often: it is not asked for now.
    fn ejected(&self, node: &str) {
        let _ = node;
    }

    /// An ejected node answers again.
    fn returned(&self, node: &str) {
        let _ = node;
    }

    /// A value was loaded or waited for, and it took so long.
    fn loaded(&self, how: Loaded, took: Duration) {
        let _ = (how, took);
    }
}
