//! Items in a file: the format of snapshots and of the segments of a log. Bytes only; it has never heard of a cache or a clock.
//!
//! ```text
//!  file:    | FileHead 64 | block | block | ..                                  | End block |
//!  block:   | BlockHead 64 | payload: records, plain or as LZ4 |
//!  record:  | kind, key_len, marks, client_flags, value_len, part_len, cas, expires_at, accessed_at: 32 | key | value |
//! ```
//!
//! Numbers are little-endian. Times of records are seconds since the moment that the head of their block names, so that they
//! mean the same on another host and after another start. A value that does not fit its block goes on in Continued
//! blocks right behind it.
//!
//! What a log has not written to a segment yet lies in rings, whose file is drawn in `ring.rs`.
//!
//! Sf1. Heads and payloads have checksums (CRC-32C). A block is taken whole or not at all: before its records are shown, its
//!     sums hold, its payload has the length the head tells, and each record lies inside it.
//! Sf2. Blocks are numbered. Where one is damaged, the reader looks for the next head whose sum holds, and the numbers tell
//!     how many are lost.
//! Sf3. No length in a file makes a reader allocate more than [`BLOCK_BYTES_MAX`] at a time.
//! Sf4. A file that was not written to its end lacks the End block, and is read up to its last whole block.

#![forbid(unsafe_code)]

mod block;
mod head;
mod reader;
mod record;
mod ring;
#[cfg(test)]
mod tests;
mod writer;

pub use block::{BLOCK_BYTES_MAX, BlockHead, BlockKind};
pub use head::{FileHead, FileKind, HEAD_BYTES, NotOurs};
pub use reader::{Block, Found, Reader, Tally};
pub use record::{
    KEY_LEN_MAX, LongRecord, Marks, Meta, Pieces, RECORD_BYTES, Record, Records, push, split_long,
};
pub use ring::{RingEvent, RingHead, cas_of, event_head, goes_on_at_beginning};
pub use writer::{Batch, Stamp, Writer};
