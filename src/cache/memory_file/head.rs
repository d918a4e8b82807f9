//! What the first pages of a memory file say of the rest.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use slab_alloc::{ChunkHandle, ClassId};

use super::layout::{
    self, CLASS_RECORDS, CLASS_WORDS, FORMAT, Geometry, MAGIC, STRIPE_RECORDS, STRIPES,
    SUPERBLOCK_WORDS, State, Sum, WRITE_MARKS, layout_hash, word,
};
use crate::cache::segments::{List, Segment};
use crate::cache::table::{OverflowRecord, TableRecord};
use crate::clock::Moment;

/// The head of a memory file, read and found to be one.
pub struct Head {
    words: Vec<u64>,
    /// Where everything lies.
    pub geometry: Geometry,
    /// The chunk sizes of the classes, from class 1 on.
    pub sizes: Vec<usize>,
}

/// What is found in a file that is to become a memory file.
pub enum Found {
    /// Nothing: it is new.
    Nothing,
    /// It is not ours.
    Foreign,
    /// It is ours, and cannot be used, for this reason.
    Unusable(String),
    /// A memory file.
    Head(Box<Head>),
}

/// What a record says of a class.
#[derive(Debug, Clone, Default)]
pub struct ClassRecord {
    /// Its lists, by segment.
    pub lists: [List; 4],
    /// Bytes that its items asked for.
    pub requested_bytes: u64,
    /// Whether items may go there.
    pub is_open: bool,
}

impl Head {
    /// Looks at what is in a file.
    pub fn find(file: &File) -> io::Result<Found> {
        let len = file.metadata()?.len();
        let mut bytes = vec![0; WRITE_MARKS * 8];
        let there = bytes.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        file.read_exact_at(&mut bytes[..there], 0)?;
        if bytes[..SUPERBLOCK_WORDS * 8].iter().all(|&byte| byte == 0) {
            // Room that somebody has made, or what was left by who began to make it.
            return Ok(Found::Nothing);
        }
        let number = |bytes: &[u8]| u64::from_ne_bytes(*bytes.first_chunk().expect("eight"));
        let words: Vec<u64> = bytes.chunks_exact(8).map(number).collect();
        if words[word::MAGIC] != MAGIC {
            return Ok(Found::Foreign);
        }
        Ok(match Self::check(words, len) {
            Ok(head) => Found::Head(Box::new(head)),
            Err(reason) => Found::Unusable(reason),
        })
    }

    fn check(words: Vec<u64>, len: u64) -> Result<Self, String> {
        let format = words[word::FORMAT];
        if format != FORMAT {
            return Err(format!(
                "it has format {format}, and this version knows {FORMAT}"
            ));
        }
        if words[word::LAYOUT] != layout_hash() {
            return Err("items lie otherwise in memory in the version that made it".to_owned());
        }
        let damaged = || "its first bytes are damaged".to_owned();
        if words[word::GEOMETRY_SUM] != geometry_sum(&words) {
            return Err(damaged());
        }
        let geometry = Geometry::read(&words).ok_or_else(damaged)?;
        let classes = usize::try_from(words[word::CLASSES]).map_err(|_| damaged())?;
        if classes == 0 || classes >= layout::CLASSES {
            return Err(damaged());
        }
        if len < geometry.len as u64 {
            let whole = geometry.len;
            return Err(format!("it was cut: {len} of {whole} bytes are left"));
        }
        let size = |class| words[CLASS_RECORDS + class * CLASS_WORDS] as u32 as usize;
        Ok(Head {
            geometry,
            sizes: (1..=classes).map(size).collect(),
            words,
        })
    }

    /// Whether a process has left it as the records say.
    pub fn state(&self) -> State {
        State::of(self.words[word::STATE])
    }

    /// When the process that had it looked at the clocks for the last time.
    pub fn last_moment(&self) -> Moment {
        Moment {
            now_ms: self.words[word::NOW_MS],
            unix_ms: self.words[word::UNIX_MS],
            boot_ms: self.words[word::BOOT_MS],
            boot_id: self.words[word::BOOT_ID],
        }
    }

    /// The largest CAS unique, as of that moment.
    pub fn cas(&self) -> u64 {
        self.words[word::CAS]
    }

    /// The clock of stores, as of that moment.
    pub fn stores(&self) -> u64 {
        self.words[word::STORES]
    }

    /// The flush mark.
    pub fn flush(&self) -> [u64; 3] {
        [word::FLUSH, word::FLUSH_DUE, word::FLUSHES_IN_A_ROW].map(|at| self.words[at])
    }

    /// Whether the records are whole.
    pub fn has_records(&self) -> bool {
        self.words[word::RECORDS_SUM] == records_sum(&self.words)
    }

    /// The seeds of the hash.
    pub fn seeds(&self) -> [u64; 4] {
        std::array::from_fn(|n| self.words[word::SEEDS + n])
    }

    /// What the hash of the process before made of the key that all know.
    pub fn hash_probe(&self) -> u64 {
        self.words[word::HASH_PROBE]
    }

    /// What it says of the table; none if that cannot be.
    pub fn table(&self) -> Option<TableRecord> {
        let stripe_bits = u32::try_from(self.words[word::STRIPE_BITS]).ok()?;
        let stripes = 1usize.checked_shl(stripe_bits).filter(|&n| n <= STRIPES)?;
        let halves = |word: u64| (word as u32, (word >> 32) as u32);
        let (head, used_mark) = halves(self.words[word::OVERFLOW_LIST]);
        let records = &self.words[STRIPE_RECORDS..STRIPE_RECORDS + stripes];
        Some(TableRecord {
            stripes: records.iter().map(|&word| halves(word)).collect(),
            overflow: OverflowRecord {
                head,
                used_mark,
                in_use: self.words[word::OVERFLOW_IN_USE] as u32,
            },
        })
    }

    /// What it says of a class.
    pub fn class(&self, class: ClassId) -> ClassRecord {
        let at = CLASS_RECORDS + class.index() * CLASS_WORDS;
        let words = &self.words[at..at + CLASS_WORDS];
        let handle = |raw: u64| ChunkHandle::from_raw(raw as u32);
        let list = |segment: Segment| {
            let at = 1 + 2 * segment as usize;
            List {
                head: handle(words[at]),
                tail: handle(words[at] >> 32),
                count: words[at + 1] as usize,
            }
        };
        ClassRecord {
            lists: Segment::ALL.map(list),
            requested_bytes: words[9],
            is_open: words[0] >> 32 != 0,
        }
    }

    /// Whether pages and table have sums; the sum of the page states, and of the table.
    pub fn sums(&self) -> (bool, u64, u64) {
        let [summed, states, table] =
            [word::SUMMED, word::STATES_SUM, word::TABLE_SUM].map(|at| self.words[at]);
        (summed == 1, states, table)
    }

    /// The policy in force, and the bytes that it has left behind the arena.
    pub fn learned(&self) -> (u64, u64) {
        (self.words[word::POLICY], self.words[word::POLICY_BYTES])
    }
}

/// The sum of the words that say where everything lies, and of the chunk sizes.
pub(super) fn geometry_sum(words: &[u64]) -> u64 {
    let sizes = words[CLASS_RECORDS..STRIPE_RECORDS].chunks_exact(CLASS_WORDS);
    let sizes = sizes.map(|record| u64::from(record[0] as u32));
    Sum::of(words[..word::GEOMETRY_SUM].iter().copied().chain(sizes)).0
}

/// The sum of all that is written at the end.
pub(super) fn records_sum(words: &[u64]) -> u64 {
    let live = &words[word::STATE + 1..word::RECORDS_SUM];
    let records = &words[SUPERBLOCK_WORDS..WRITE_MARKS];
    Sum::of(live.iter().chain(records).copied()).0
}
