//! `-o snapshot`, `-o log` and what belongs to them.

use std::path::PathBuf;

/// The cache in a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// `snapshot`: where it is kept.
    pub file: Option<PathBuf>,
    /// `snapshot_interval`: seconds from one to the next; 0 takes them only when asked for and at the end.
    pub interval_s: u32,
    /// `snapshot_rate`: bytes a second at most; 0 is as fast as it goes.
    pub rate_bytes: usize,
    /// `snapshot_compress`: blocks are LZ4.
    pub compressed: bool,
}

/// When what was logged is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogSync {
    /// Before it is acknowledged.
    Always,
    /// A second later.
    #[default]
    Second,
    /// When the system thinks so.
    None,
}

/// What happened since the snapshot, in a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// `log`: where its segments are, whose names end with a number.
    pub file: Option<PathBuf>,
    /// `log_sync`.
    pub sync: LogSync,
}
