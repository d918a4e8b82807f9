//! What has to be done before replies leave.

use std::fmt;

use super::shared::Shared;

/// Whoever writes down what clients were told, before they are told it.
pub trait Settle: fmt::Debug + Send + Sync {
    /// Is done, when it returns, with all events that the calling thread has told.
    fn settle(&self, shared: &Shared);

    /// What it has done so far.
    fn report(&self) -> LogReport;
}

/// What is known of the log.
#[derive(Debug, Clone, Default)]
pub struct LogReport {
    /// Events are written.
    pub is_on: bool,
    /// The number of the segment that is written to.
    pub segment: u64,
    /// Bytes of it so far.
    pub segment_bytes: u64,
    /// Bytes written since the start.
    pub bytes: u64,
    /// Writes, each with what all workers had told.
    pub commits: u64,
    /// How often it was synced.
    pub syncs: u64,
    /// How often it was stopped by an error.
    pub stops: u64,
    /// The error that it is stopped by; empty while it is on.
    pub last_error: String,
}
