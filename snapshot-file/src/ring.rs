//! The rings of a log: records that were told and are not in a segment yet.
//!
//! ```text
//!  file:    | RingHead 64 .. 4096 | positions of ring 0: told, moved .. 4096 | .. | ring 0 | ring 1 | ..
//!  event:   | number 8 | length of the record 4 | sum 4 | record, filled up to 8 |       number 0: on at the ring's beginning
//! ```
//!
//! Rg1. Positions count bytes since the ring was made; an event lies whole between two multiples of the ring's length.
//! Rg2. The sum of an event (CRC-32C) is over its number, its length and its record: what is left of an earlier round, or
//!     was never written, is no event.

use crate::block::BlockKind;
use crate::head::{HEAD_BYTES, SUM_AT, put_sum, sum_holds, u32_at, u64_at};
use crate::record::Records;

const MAGIC: [u8; 8] = *b"\x89KETCHR\n";
const VERSION: u32 = 1;
/// What is written by itself lies on pages of its own.
const PAGE_BYTES: u64 = 4096;
/// More rings are no server's.
const RINGS_MAX: u32 = 1 << 16;
/// Bytes of an event before its record.
const EVENT_BYTES: usize = 16;

/// How a file of rings begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingHead {
    /// How many rings there are.
    pub rings: u32,
    /// Bytes of each, a power of two.
    pub ring_bytes: u32,
    /// Which start of the machine it was written in.
    pub boot_id: u64,
    /// The number of the last event that was moved to a segment.
    pub moved: u64,
    /// The moment that the times of records count from, in seconds since 1970.
    pub epoch_unix_s: i64,
}

impl RingHead {
    /// The head as it lies in the file.
    pub fn to_bytes(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.rings.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.ring_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.boot_id.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.moved.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.epoch_unix_s.to_le_bytes());
        put_sum(&mut bytes);
        bytes
    }

    /// Reads the head of a file of so many bytes; none if it is no file of rings, or another layout.
    pub fn parse(bytes: &[u8], file_bytes: u64) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        if bytes[..8] != MAGIC || !sum_holds(bytes) || u32_at(bytes, 8) != VERSION {
            return None;
        }
        const _: () = assert!(48 <= SUM_AT);
        let head = RingHead {
            rings: u32_at(bytes, 12),
            ring_bytes: u32_at(bytes, 16),
            boot_id: u64_at(bytes, 24),
            moved: u64_at(bytes, 32),
            epoch_unix_s: u64_at(bytes, 40) as i64,
        };
        let fits = head.rings <= RINGS_MAX && head.ring_bytes.is_power_of_two();
        (fits && head.file_bytes() == file_bytes).then_some(head)
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.ring_at(self.rings)
    }

    /// Where ring `nth` says how far it is: two words, told and moved.
    pub fn positions_at(&self, nth: u32) -> u64 {
        PAGE_BYTES * (1 + u64::from(nth))
    }

    /// Where ring `nth` begins.
    pub fn ring_at(&self, nth: u32) -> u64 {
        self.positions_at(self.rings) + u64::from(nth) * u64::from(self.ring_bytes)
    }
}

/// What stands before an event's record.
#[inline]
pub fn event_head(number: u64, record: &[u8]) -> [u8; EVENT_BYTES] {
    let len = record.len() as u32;
    let mut head = [0; EVENT_BYTES];
    head[..8].copy_from_slice(&number.to_le_bytes());
    head[8..12].copy_from_slice(&len.to_le_bytes());
    head[12..].copy_from_slice(&event_sum(number, record).to_le_bytes());
    head
}

fn event_sum(number: u64, record: &[u8]) -> u32 {
    let seed = number as u32 ^ (number >> 32) as u32 ^ record.len() as u32;
    crc32c::crc32c_append(seed, record)
}

/// An event in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingEvent<'r> {
    /// Its number.
    pub number: u64,
    /// What was told.
    pub record: &'r [u8],
    sum: u32,
}

impl<'r> RingEvent<'r> {
    /// The event that `bytes` begin with, and what lies behind it; none if none does, or the ring goes on at its beginning. Its
    /// sum may not hold.
    #[inline]
    pub fn split(bytes: &'r [u8]) -> Option<(Self, &'r [u8])> {
        let (head, behind) = bytes.split_at_checked(EVENT_BYTES)?;
        let (number, len) = (u64_at(head, 0), u32_at(head, 8) as usize);
        let (record, _) = behind.split_at_checked(len)?;
        let rest = behind.get(len.next_multiple_of(8)..)?;
        let event = RingEvent {
            number,
            record,
            sum: u32_at(head, 12),
        };
        (number != 0).then_some((event, rest))
    }

    /// Whether it is what was written: one record.
    pub fn holds(&self) -> bool {
        self.sum == event_sum(self.number, self.record)
            && Records::hold(self.record, BlockKind::Records, 1)
    }
}

/// The CAS unique that a record tells of; 0 if none.
pub fn cas_of(record: &[u8]) -> u64 {
    u64_at(record, 16)
}

/// True if the rest of a ring's events begins at its beginning.
pub fn goes_on_at_beginning(bytes: &[u8]) -> bool {
    bytes.first_chunk() == Some(&[0; 8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_events_come_back() {
        let head = RingHead {
            rings: 3,
            ring_bytes: 8192,
            boot_id: 7,
            moved: 9,
            epoch_unix_s: -5,
        };
        let bytes = head.to_bytes();
        assert_eq!(head.file_bytes(), 4 * 4096 + 3 * 8192);
        assert_eq!(RingHead::parse(&bytes, head.file_bytes()), Some(head));
        assert_eq!(RingHead::parse(&bytes, head.file_bytes() + 1), None);
        for at in 0..bytes.len() {
            let mut other = bytes;
            other[at] ^= 1;
            assert_eq!(RingHead::parse(&other, head.file_bytes()), None);
        }
        let mut ring = Vec::new();
        let records = ["a", "bcd", "0123456"].map(|key| {
            let mut record = Vec::new();
            crate::push::delete(&mut record, key.as_bytes(), 7);
            record
        });
        for (number, record) in (1..).zip(&records) {
            ring.extend(event_head(number, record));
            ring.extend(record);
            ring.resize(ring.len().next_multiple_of(8), 0);
        }
        let whole = ring.clone();
        ring.extend([0; 8]);
        let (mut rest, mut seen) = (&ring[..], Vec::new());
        while let Some((event, behind)) = RingEvent::split(rest) {
            assert!(event.holds());
            assert_eq!(cas_of(event.record), 7);
            seen.push((event.number, event.record.to_vec()));
            rest = behind;
        }
        let told: Vec<(u64, Vec<u8>)> = (1..).zip(records).collect();
        assert_eq!(seen, told);
        assert!(goes_on_at_beginning(rest));
        for at in 0..EVENT_BYTES + 33 {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert!(RingEvent::split(&other).is_none_or(|(event, _)| !event.holds()));
        }
        assert_eq!(RingEvent::split(&whole[..15]), None);
        assert_eq!(RingEvent::split(&whole[..48]), None);
    }
}
