//! How a cache came up: what of its items was kept, what was dropped and why, how long each step took.

use std::time::Duration;

/// How a cache came by its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It began without any.
    Cold,
    /// All is as the process before has left it.
    Attached,
    /// The memory of a process that did not end well was looked through.
    Walked,
    /// The items were stored anew from an older file, which had another layout.
    Imported,
}

impl How {
    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            How::Cold => "cold",
            How::Attached => "attached",
            How::Walked => "walked",
            How::Imported => "imported",
        }
    }
}

/// Why items are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It was being written.
    Unfinished,
    /// Its time has run out.
    Expired,
    /// Its header says what cannot be.
    Damaged,
    /// There is a newer one of the same key.
    Older,
    /// There was no memory for it.
    NoMemory,
}

impl Dropped {
    /// All of them, by number.
    pub const ALL: [Dropped; 5] = [
        Dropped::Unfinished,
        Dropped::Expired,
        Dropped::Damaged,
        Dropped::Older,
        Dropped::NoMemory,
    ];

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Dropped::Unfinished => "unfinished",
            Dropped::Expired => "expired",
            Dropped::Damaged => "damaged",
            Dropped::Older => "older",
            Dropped::NoMemory => "no_memory",
        }
    }
}

/// How a cache came up.
#[derive(Debug, Clone)]
pub struct Restart {
    /// How it came by its items.
    pub how: How,
    /// Why it is not simply as it was left; empty if it is.
    pub reason: String,
    /// Items kept.
    pub kept: u64,
    /// Items dropped, by [`Dropped`].
    pub dropped: [u64; Dropped::ALL.len()],
    /// Milliseconds from the last sign of life of the process before.
    pub down_ms: u64,
    /// The steps of the start, and how long each took.
    pub steps: Vec<(&'static str, Duration)>,
}

impl Restart {
    /// A start without items, for this reason.
    pub fn cold(reason: impl Into<String>) -> Self {
        Restart {
            how: How::Cold,
            reason: reason.into(),
            kept: 0,
            dropped: [0; Dropped::ALL.len()],
            down_ms: 0,
            steps: Vec::new(),
        }
    }
}
