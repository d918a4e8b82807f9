//! The head of a file: what it is, and what its reader needs to know before the first block.

use std::fmt;

/// Bytes of a file's head, and of a block's.
pub const HEAD_BYTES: usize = 64;

/// A byte that is no text, the name, and both kinds of line end: what a transfer as text would change.
const MAGIC: [u8; 8] = *b"\x89KETCH\r\n";
/// The layout that this crate reads and writes.
const VERSION: u32 = 1;
/// Where the checksum lies.
pub(crate) const SUM_AT: usize = HEAD_BYTES - 4;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// The items of a cache.
    Snapshot,
    /// What happened to items, in order.
    Log,
}

/// The head of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHead {
    /// What it holds.
    pub kind: FileKind,
    /// Of a log, the number of this segment; of a snapshot, that of the first segment which is newer.
    pub segment: u64,
    /// When it was begun, in seconds since 1970.
    pub created_unix_s: u64,
    /// When a flush that was asked for comes due, in seconds since 1970; 0 if none is.
    pub flush_due_unix_s: u64,
    /// Of a log: what happened before this segment is not all in those before it.
    pub follows_gap: bool,
}

/// Why a file is none that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotOurs {
    /// Shorter than a head.
    Short,
    /// It begins like no file of ketch.
    Magic,
    /// Another layout, with its number.
    Version(u32),
    /// A log where a snapshot was wanted, or the other way round.
    Kind,
    /// The head is damaged.
    Damaged,
}

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotOurs::Short => f.write_str("too short to be a snapshot or a log"),
            NotOurs::Magic => f.write_str("neither a snapshot nor a log of ketch"),
            NotOurs::Version(version) => {
                write!(f, "written in layout {version}; this ketch reads {VERSION}")
            }
            NotOurs::Kind => {
                f.write_str("a log where a snapshot was wanted, or the other way round")
            }
            NotOurs::Damaged => f.write_str("its head is damaged"),
        }
    }
}

impl FileHead {
    /// The head as it lies in the file.
    pub fn to_bytes(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let kind: u32 = match self.kind {
            FileKind::Snapshot => 1,
            FileKind::Log => 2,
        };
        bytes[12..16].copy_from_slice(&kind.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.created_unix_s.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.flush_due_unix_s.to_le_bytes());
        bytes[40] = u8::from(self.follows_gap);
        put_sum(&mut bytes);
        bytes
    }

    /// Reads a head.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotOurs> {
        let bytes: &[u8; HEAD_BYTES] = bytes.first_chunk().ok_or(NotOurs::Short)?;
        if bytes[..8] != MAGIC {
            return Err(NotOurs::Magic);
        }
        if !sum_holds(bytes) {
            return Err(NotOurs::Damaged);
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(NotOurs::Version(u32_at(bytes, 8)));
        }
        Ok(FileHead {
            kind: match u32_at(bytes, 12) {
                1 => FileKind::Snapshot,
                2 => FileKind::Log,
                _ => return Err(NotOurs::Damaged),
            },
            segment: u64_at(bytes, 16),
            created_unix_s: u64_at(bytes, 24),
            flush_due_unix_s: u64_at(bytes, 32),
            follows_gap: bytes[40] != 0,
        })
    }
}

/// Writes the checksum of a head into its last bytes.
pub(crate) fn put_sum(bytes: &mut [u8; HEAD_BYTES]) {
    let sum = crc32c::crc32c(&bytes[..SUM_AT]);
    bytes[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
}

/// True if it is the right one.
pub(crate) fn sum_holds(bytes: &[u8; HEAD_BYTES]) -> bool {
    u32_at(bytes, SUM_AT) == crc32c::crc32c(&bytes[..SUM_AT])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |word| u32::from_le_bytes(*word))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word))
}
