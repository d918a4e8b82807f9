//! Who drives a lane in place of its task; see [`solo`](super::solo).

use std::task::Waker;

/// The caller that drives a line.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) id: u64,
    /// `None` before its first poll.
    pub(super) waker: Option<Waker>,
}
