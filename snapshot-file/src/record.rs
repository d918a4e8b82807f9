//! Records: an item with its value, or what happened to one.

use crate::block::BlockKind;
use crate::head::{u32_at, u64_at};

/// Bytes of a record before its key.
pub const RECORD_BYTES: usize = 32;
/// The longest key.
pub const KEY_LEN_MAX: usize = 250;

/// Where a record tells how many bytes of value follow its key.
const PART_LEN_AT: usize = 12;

const ITEM: u8 = 1;
const PART: u8 = 2;
const DELETE: u8 = 3;
const TOUCH: u8 = 4;
const FLUSH: u8 = 5;

/// What is marked of an item: bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(pub u16);

impl Marks {
    /// The client sent the key in base64.
    pub const KEY_BINARY: u16 = 1;
    /// It was read since it was stored.
    pub const FETCHED: u16 = 1 << 1;
    /// It was marked stale.
    pub const STALE: u16 = 1 << 2;
    /// A client holds the lease to fetch it anew.
    pub const WIN_SENT: u16 = 1 << 3;

    /// True if one of these bits is set.
    pub fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    /// With the number of its LRU segment, 0 to 3, and its count of uses, 0 to 3.
    pub fn with_place(self, segment: u8, uses: u8) -> Marks {
        Marks(self.0 | u16::from(segment & 3) << 8 | u16::from(uses & 3) << 10)
    }

    /// The number of its LRU segment.
    pub fn segment(self) -> u8 {
        (self.0 >> 8 & 3) as u8
    }

    /// Its count of uses.
    pub fn uses(self) -> u8 {
        (self.0 >> 10 & 3) as u8
    }
}

/// What is known of an item besides key and value. Times are seconds since the block's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// What is marked of it.
    pub marks: Marks,
    /// The client flags.
    pub client_flags: u32,
    /// The CAS unique, 0 if it has none.
    pub cas: u64,
    /// When it ends; 0 is never.
    pub expires_at: u32,
    /// When it was last asked for.
    pub accessed_at: u32,
}

/// One record of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'b> {
    /// An item as it is, or has become.
    Item {
        /// 1 to 250 bytes.
        key: &'b [u8],
        /// What is known of it.
        meta: Meta,
        /// Bytes of the whole value.
        value_len: u32,
        /// The value, or its beginning, if it goes on in the next block.
        value: &'b [u8],
    },
    /// More of the last item's value.
    Part {
        /// Where in the value.
        offset: u32,
        /// So much of it.
        value: &'b [u8],
    },
    /// The item is gone.
    Delete {
        /// Its key.
        key: &'b [u8],
        /// The CAS unique it had.
        cas: u64,
    },
    /// All but the value of an item has changed.
    Touch {
        /// Its key.
        key: &'b [u8],
        /// What is known of it now.
        meta: Meta,
    },
    /// All items not asked for since are gone.
    Flush {
        /// From this moment on; 0 is at once.
        at: u32,
    },
}

/// A value in pieces.
pub trait Pieces<'p>: Iterator<Item = &'p [u8]> {}
impl<'p, I: Iterator<Item = &'p [u8]>> Pieces<'p> for I {}

/// Writes a record's head and key: its kind, its key, its item's value length and the part of it that follows.
#[inline]
fn push_head(out: &mut Vec<u8>, kind: u8, key: &[u8], meta: &Meta, value_len: u32, part_len: u32) {
    debug_assert!(key.len() <= KEY_LEN_MAX);
    let mut head = [0; RECORD_BYTES];
    head[0] = kind;
    head[1] = key.len() as u8;
    head[2..4].copy_from_slice(&meta.marks.0.to_le_bytes());
    head[4..8].copy_from_slice(&meta.client_flags.to_le_bytes());
    head[8..12].copy_from_slice(&value_len.to_le_bytes());
    head[12..16].copy_from_slice(&part_len.to_le_bytes());
    head[16..24].copy_from_slice(&meta.cas.to_le_bytes());
    head[24..28].copy_from_slice(&meta.expires_at.to_le_bytes());
    head[28..32].copy_from_slice(&meta.accessed_at.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(key);
}

/// Adds records to bytes.
pub mod push {
    use super::{
        DELETE, FLUSH, ITEM, Meta, PART, PART_LEN_AT, Pieces, RECORD_BYTES, TOUCH, push_head,
    };

    /// An item with all of its value.
    #[inline]
    pub fn item<'p>(
        out: &mut Vec<u8>,
        key: &[u8],
        meta: &Meta,
        value_len: u32,
        value: impl Pieces<'p>,
    ) {
        out.reserve(RECORD_BYTES + key.len() + value_len as usize);
        push_head(out, ITEM, key, meta, value_len, value_len);
        for piece in value {
            out.extend_from_slice(piece);
        }
    }

    /// The first record of a block: an item whose value is yet to be added, or a part of it.
    pub(crate) fn begun(out: &mut Vec<u8>, key: &[u8], meta: &Meta, value_len: u32) {
        push_head(out, ITEM, key, meta, value_len, 0);
    }

    /// The first record of a block: more of a value, which is yet to be added.
    pub(crate) fn part(out: &mut Vec<u8>, offset: u32) {
        push_head(out, PART, b"", &Meta::default(), offset, 0);
    }

    /// Says how many bytes of a value were added to the first record.
    pub(crate) fn set_part_len(out: &mut [u8], len: u32) {
        out[PART_LEN_AT..PART_LEN_AT + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// An item that is gone.
    pub fn delete(out: &mut Vec<u8>, key: &[u8], cas: u64) {
        let meta = Meta {
            cas,
            ..Meta::default()
        };
        push_head(out, DELETE, key, &meta, 0, 0);
    }

    /// An item of which all but the value has changed.
    pub fn touch(out: &mut Vec<u8>, key: &[u8], meta: &Meta) {
        push_head(out, TOUCH, key, meta, 0, 0);
    }

    /// The end of all items.
    pub fn flush(out: &mut Vec<u8>, at: u32) {
        let meta = Meta {
            expires_at: at,
            ..Meta::default()
        };
        push_head(out, FLUSH, b"", &meta, 0, 0);
    }
}

/// An item whose record may be longer than a block, taken from the beginning of bytes that [`push`] wrote.
#[derive(Debug, Clone, Copy)]
pub struct LongRecord<'b> {
    /// All bytes of it.
    pub bytes: &'b [u8],
    /// Its key, what is known of it, and its value.
    pub item: Option<(&'b [u8], Meta, &'b [u8])>,
}

/// Splits the first record off bytes that [`push`] wrote; panics if those are others.
pub fn split_long(bytes: &[u8]) -> (LongRecord<'_>, &[u8]) {
    let (key_len, part_len) = (usize::from(bytes[1]), u32_at(bytes, PART_LEN_AT) as usize);
    let (record, rest) = bytes.split_at(RECORD_BYTES + key_len + part_len);
    let item = (record[0] == ITEM).then(|| {
        let (key, value) = record[RECORD_BYTES..].split_at(key_len);
        (key, meta(record), value)
    });
    let bytes = record;
    (LongRecord { bytes, item }, rest)
}

fn meta(record: &[u8]) -> Meta {
    Meta {
        marks: Marks(u16::from_le_bytes([record[2], record[3]])),
        client_flags: u32_at(record, 4),
        cas: u64_at(record, 16),
        expires_at: u32_at(record, 24),
        accessed_at: u32_at(record, 28),
    }
}

/// The records of a block, one after the other; ends at the first that is none.
#[derive(Debug, Clone)]
pub struct Records<'b> {
    rest: &'b [u8],
}

impl<'b> Records<'b> {
    pub(crate) fn new(raw: &'b [u8]) -> Self {
        Records { rest: raw }
    }

    /// True if `raw` is `count` records that may stand in a block of this kind, and nothing else.
    pub(crate) fn hold(raw: &'b [u8], kind: BlockKind, count: u32) -> bool {
        let mut records = Records::new(raw);
        let mut seen = 0;
        while let Some(record) = records.next() {
            seen += 1;
            let fits = match (kind, record) {
                (BlockKind::End, _) => false,
                (BlockKind::Continued, record) => matches!(record, Record::Part { .. }),
                (BlockKind::Records, Record::Part { .. }) => false,
                (
                    BlockKind::Records,
                    Record::Item {
                        value, value_len, ..
                    },
                ) => value.len() == value_len as usize || records.rest.is_empty(),
                _ => true,
            };
            if !fits {
                return false;
            }
        }
        records.rest.is_empty() && seen == count
    }
}

impl<'b> Iterator for Records<'b> {
    type Item = Record<'b>;

    #[inline]
    fn next(&mut self) -> Option<Record<'b>> {
        let (head, behind) = self.rest.split_at_checked(RECORD_BYTES)?;
        let (key, behind) = behind.split_at_checked(usize::from(head[1]))?;
        let (value, behind) = behind.split_at_checked(u32_at(head, PART_LEN_AT) as usize)?;
        let value_len = u32_at(head, 8);
        let has_key = (1..=KEY_LEN_MAX).contains(&key.len());
        let record = match head[0] {
            ITEM if has_key && value.len() <= value_len as usize => Record::Item {
                key,
                meta: meta(head),
                value_len,
                value,
            },
            PART if key.is_empty() => Record::Part {
                offset: value_len,
                value,
            },
            DELETE if has_key && value.is_empty() => Record::Delete {
                key,
                cas: u64_at(head, 16),
            },
            TOUCH if has_key && value.is_empty() => Record::Touch {
                key,
                meta: meta(head),
            },
            FLUSH if key.is_empty() && value.is_empty() => Record::Flush {
                at: u32_at(head, 24),
            },
            _ => return None,
        };
        self.rest = behind;
        Some(record)
    }
}
