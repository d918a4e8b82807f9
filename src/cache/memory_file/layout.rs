//! What lies where in a memory file; docs/memory.md draws it.
//!
//! All numbers are little-endian words of 64 bits, as the machine writes them: a file is for the machine it was made on, and
//! one of another order fails the magic. Places follow from the words of the first line and never change.

use std::sync::atomic::AtomicU64;

use slab_alloc::{Places, Reserved};

use super::super::item::{HEADER_BYTES, ITEM_HEAD_BYTES, LAYOUT_WORDS};
use super::super::table::TablePlaces;

/// The file's first bytes: "ketchmem" as a word.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ketchmem");
/// The number of the format that docs/memory.md describes.
pub const FORMAT: u64 = 1;

/// Words of the superblock by their number: word 0 is at byte 0, word 1 at byte 8.
pub mod word {
    /// [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`super::FORMAT`].
    pub const FORMAT: usize = 1;
    /// [`super::layout_hash`].
    pub const LAYOUT: usize = 2;
    /// Bytes of a page.
    pub const PAGE_BYTES: usize = 3;
    /// Bytes of a granule.
    pub const GRANULE: usize = 4;
    /// Pages of the arena, with page 0.
    pub const PAGES: usize = 5;
    /// Buckets there may be, as a power of two.
    pub const BUCKETS_LOG2: usize = 6;
    /// Overflow buckets there may be.
    pub const OVERFLOW: usize = 7;
    /// Slab classes.
    pub const CLASSES: usize = 8;
    /// Of the words before and the chunk sizes.
    pub const GEOMETRY_SUM: usize = 9;

    /// [`super::State`].
    pub const STATE: usize = 16;
    /// Milliseconds on the server's clock, at its last tick.
    pub const NOW_MS: usize = 17;
    /// Milliseconds since 1970 at that tick.
    pub const UNIX_MS: usize = 18;
    /// Milliseconds since the machine started at that tick.
    pub const BOOT_MS: usize = 19;
    /// Which start of the machine that was.
    pub const BOOT_ID: usize = 20;
    /// The largest CAS unique at that tick.
    pub const CAS: usize = 21;
    /// The mark of the last flush: second and generation.
    pub const FLUSH: usize = 22;
    /// The second of the delayed flush.
    pub const FLUSH_DUE: usize = 23;
    /// Flushes in the second of the mark.
    pub const FLUSHES_IN_A_ROW: usize = 24;
    /// The clock of stores at that tick.
    pub const STORES: usize = 25;

    /// The hash's seeds, four words.
    pub const SEEDS: usize = 32;
    /// What that hash makes of a key that all know.
    pub const HASH_PROBE: usize = 36;
    /// Stripes, as a power of two.
    pub const STRIPE_BITS: usize = 37;
    /// The first free overflow bucket, and in the upper half the first that was never used.
    pub const OVERFLOW_LIST: usize = 38;
    /// Overflow buckets in chains.
    pub const OVERFLOW_IN_USE: usize = 39;
    /// The eviction policy's number.
    pub const POLICY: usize = 40;
    /// Bytes behind the arena that the policy left.
    pub const POLICY_BYTES: usize = 41;
    /// 1 if all pages and the table have sums.
    pub const SUMMED: usize = 42;
    /// Of the states of the pages.
    pub const STATES_SUM: usize = 43;
    /// Of the buckets.
    pub const TABLE_SUM: usize = 44;
    /// Of the words from SEEDS on, the live ones, and all records.
    pub const RECORDS_SUM: usize = 48;
}

/// Whether the file can be gone on with, in [`word::STATE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum State {
    /// Being made: there is nothing in it.
    Empty = 0,
    /// A process has it, or had it and did not end well: what is in it has to be looked through.
    Open = 1,
    /// All of it is as the records say.
    Clean = 2,
}

impl State {
    /// The state of that number; whatever is no number of a state may be in the middle of anything.
    pub fn of(number: u64) -> State {
        match number {
            0 => State::Empty,
            2 => State::Clean,
            _ => State::Open,
        }
    }
}

/// Words of the superblock.
pub const SUPERBLOCK_WORDS: usize = 512;
/// Where the records of the classes begin, in words, and how many words each has.
pub const CLASS_RECORDS: usize = SUPERBLOCK_WORDS;
/// Words of a class's record.
pub const CLASS_WORDS: usize = 16;
/// Classes there may be, and the unused number 0.
pub const CLASSES: usize = slab_alloc::CLASSES_MAX;
/// Where the records of the stripes begin, a word each.
pub const STRIPE_RECORDS: usize = 8192;
/// Stripes there may be.
pub const STRIPES: usize = 1 << 14;
/// Where the marks of the stripes begin, a word each: the item that is being changed where it lies.
pub const WRITE_MARKS: usize = STRIPE_RECORDS + STRIPES;
/// Bytes of all that.
pub const HEAD_BYTES: usize = (WRITE_MARKS + STRIPES) * 8;

const _: () = assert!(word::RECORDS_SUM < SUPERBLOCK_WORDS);
const _: () = assert!(SUPERBLOCK_WORDS * 8 == 4096, "the superblock is 4096 bytes");
const _: () = assert!(CLASS_RECORDS * 8 == 4096 && CLASS_WORDS * 8 == 128);
const _: () = assert!(CLASS_RECORDS + CLASSES * CLASS_WORDS <= STRIPE_RECORDS);
const _: () = assert!(STRIPE_RECORDS * 8 == 65_536 && WRITE_MARKS * 8 == 196_608);
const _: () = assert!(HEAD_BYTES == 327_680, "five pieces of 64 KB");
const _: () = assert!(
    word::STATE * 8 == 128 && word::SEEDS * 8 == 256,
    "lines of their own"
);
const _: () = assert!(HEADER_BYTES == 24 && ITEM_HEAD_BYTES == 32);

/// Bytes that the arena and the buckets are aligned to: what the kernel keeps in one piece.
const ALIGN: usize = 2 << 20;

/// Where everything lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Pages and arena.
    pub slabs: Places,
    /// Where the sums of the pages begin, a word each.
    pub sums: usize,
    /// Buckets.
    pub table: TablePlaces,
    /// Bytes of the whole.
    pub len: usize,
}

impl Geometry {
    /// Of a new file whose arena is cut like this, of chunks that have `chunk_min` bytes at least.
    pub fn for_items(slabs: Places, chunk_min: usize) -> Self {
        let items_max = slabs.bytes_max() / chunk_min;
        Self::of(slabs, TablePlaces::for_items(items_max))
    }

    /// Lays the parts one behind the other.
    fn of(mut slabs: Places, mut table: TablePlaces) -> Self {
        slabs.states = HEAD_BYTES;
        let sums = slabs.states + slabs.states_bytes();
        table.buckets = (sums + Self::sums_bytes(&slabs)).next_multiple_of(ALIGN);
        table.overflow = table.buckets + table.buckets_bytes();
        slabs.arena = (table.overflow + table.overflow_bytes()).next_multiple_of(ALIGN);
        let len = slabs.arena + slabs.arena_bytes();
        Geometry {
            slabs,
            sums,
            table,
            len,
        }
    }

    /// Bytes that the sums of the pages take.
    fn sums_bytes(slabs: &Places) -> usize {
        Reserved::<AtomicU64>::bytes_for(slabs.pages)
    }

    /// What a superblock says; none if that cannot be.
    pub fn read(words: &[u64]) -> Option<Self> {
        let number = |at: usize| usize::try_from(words[at]).ok();
        let slabs = Places {
            states: 0,
            arena: 0,
            pages: number(word::PAGES)?,
            page_bytes: number(word::PAGE_BYTES)?,
            granule: number(word::GRANULE)?,
        };
        let table = TablePlaces {
            buckets: 0,
            buckets_log2: u32::try_from(words[word::BUCKETS_LOG2]).ok()?,
            overflow: 0,
            overflow_count: number(word::OVERFLOW)?,
        };
        (slabs.is_possible() && table.is_possible()).then(|| Self::of(slabs, table))
    }

    /// Writes it into a superblock.
    pub fn write(&self, words: &mut [u64]) {
        words[word::PAGE_BYTES] = self.slabs.page_bytes as u64;
        words[word::GRANULE] = self.slabs.granule as u64;
        words[word::PAGES] = self.slabs.pages as u64;
        words[word::BUCKETS_LOG2] = u64::from(self.table.buckets_log2);
        words[word::OVERFLOW] = self.table.overflow_count as u64;
    }
}

/// A number that is another one where any struct that lies in the file is laid out otherwise.
pub const fn layout_hash() -> u64 {
    let mut sum = Sum::NEW;
    let mut at = 0;
    while at < LAYOUT_WORDS.len() {
        sum = sum.with(LAYOUT_WORDS[at]);
        at += 1;
    }
    sum.with(slab_alloc::HEADER_BYTES as u64)
        .with(slab_alloc::STATE_LAYOUT)
        .with(super::super::table::LAYOUT)
        .0
}

/// A sum over words: FNV-1a, a word at a time, with its upper half folded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum(pub u64);

impl Sum {
    /// Of nothing.
    pub const NEW: Sum = Sum(0xcbf2_9ce4_8422_2325);

    /// The sum with one word more.
    #[must_use]
    pub const fn with(self, word: u64) -> Sum {
        let mixed = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        Sum((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9))
    }

    /// The sum of these words.
    pub fn of(words: impl IntoIterator<Item = u64>) -> Sum {
        words.into_iter().fold(Sum::NEW, Sum::with)
    }
}
