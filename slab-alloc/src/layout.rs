//! The sizes that chunks and pages have in common.

/// The largest page: what a class gets at a time, and the largest a chunk can be.
pub const PAGE_BYTES_MAX: usize = 1 << 20;

/// The part at the start of each chunk that is only accessed through atomics (S4).
pub const HEADER_BYTES: usize = 32;

/// What can be reached from any handle inside the arena: the header, and as much behind it.
pub const REACH_BYTES: usize = 2 * HEADER_BYTES;

/// How many bytes at the start of a chunk are zero when it is handed out for the first time since
/// its page got its class. Later, what its last owner left there is found again, except for the
/// first 4 bytes.
pub const HEADER_ZEROED: usize = HEADER_BYTES;
