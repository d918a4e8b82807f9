//! The head of a block.

use crate::head::{HEAD_BYTES, put_sum, sum_holds, u32_at, u64_at};

/// Bytes of records in a block at most, before they are compressed.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;

/// How a block's head begins.
pub(crate) const MAGIC: [u8; 4] = *b"\xb5BLK";

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BlockKind {
    /// Records that stand for themselves, but for the value of the last, which may go on.
    Records = 1,
    /// More of the value that the block before ends with.
    Continued = 2,
    /// Nothing: the file was written to its end.
    End = 3,
}

/// The head of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHead {
    /// What it holds.
    pub kind: BlockKind,
    /// The payload is LZ4.
    pub compressed: bool,
    /// Its number in the file.
    pub nth: u64,
    /// How many records it has.
    pub count: u32,
    /// Bytes of the records.
    pub raw_len: u32,
    /// Bytes of the payload.
    pub stored_len: u32,
    /// The earliest last access of its items, as their records tell it.
    pub oldest: u32,
    /// The latest one.
    pub newest: u32,
    /// The moment that the times of its records count from, in seconds since 1970.
    pub epoch_unix_s: i64,
    /// The last CAS unique that was given out when it was written.
    pub cas_last: u64,
}

impl BlockHead {
    /// The head as it lies before this payload, whose checksum it gets. Its other fields are the caller's affair.
    pub fn before(self, payload: &[u8]) -> [u8; HEAD_BYTES] {
        self.to_bytes(crc32c::crc32c(payload))
    }

    fn to_bytes(self, payload_sum: u32) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = u8::from(self.compressed);
        bytes[5] = self.kind as u8;
        bytes[8..16].copy_from_slice(&self.nth.to_le_bytes());
        let words = [
            self.count,
            self.raw_len,
            self.stored_len,
            self.oldest,
            self.newest,
        ];
        for (at, word) in (16..).step_by(4).zip(words) {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes[40..48].copy_from_slice(&self.epoch_unix_s.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.cas_last.to_le_bytes());
        bytes[56..60].copy_from_slice(&payload_sum.to_le_bytes());
        put_sum(&mut bytes);
        bytes
    }

    /// Reads a head and the checksum of its payload; `None` if that is none, or damaged.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, u32)> {
        let bytes: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        if bytes[..4] != MAGIC || !sum_holds(bytes) {
            return None;
        }
        let head = BlockHead {
            compressed: bytes[4] != 0,
            kind: match bytes[5] {
                1 => BlockKind::Records,
                2 => BlockKind::Continued,
                3 => BlockKind::End,
                _ => return None,
            },
            nth: u64_at(bytes, 8),
            count: u32_at(bytes, 16),
            raw_len: u32_at(bytes, 20),
            stored_len: u32_at(bytes, 24),
            oldest: u32_at(bytes, 28),
            newest: u32_at(bytes, 32),
            epoch_unix_s: i64::from_le_bytes(*bytes[40..].first_chunk()?),
            cas_last: u64_at(bytes, 48),
        };
        let fits = head.raw_len as usize <= BLOCK_BYTES_MAX
            && head.stored_len <= head.raw_len
            && (head.compressed || head.stored_len == head.raw_len);
        fits.then_some((head, u32_at(bytes, 56)))
    }
}
