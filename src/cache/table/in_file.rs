//! The table in a file: where it lies there, and what must be known of it beside its buckets.
//!
//! Buckets get memory from the file in steps, before they are touched. Where the file system has none, they get memory of
//! the process: the table goes on, and who takes the file up builds it anew.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use ahash::RandomState;
use parking_lot::Mutex;
use slab_alloc::{Image, Reserved, sum_of_words};

use super::block::{Bucket, Overflow};
pub use super::overflow::OverflowRecord;
use super::{BUCKETS_LOG2_MAX, BUCKETS_LOG2_MIN, KeyHash, OverflowBuckets, StripeState, Table};

/// Bytes of buckets that get memory at a time, at least; later a part of those there are.
const BACKED_AT_A_TIME: usize = 2 << 20;
const BACKED_PART: usize = 16;
/// Buckets of one part of their sum.
const SUMMED_AT_A_TIME: usize = 1 << 14;

/// Where the table lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TablePlaces {
    /// Where the buckets begin, in bytes.
    pub buckets: usize,
    /// How many there may be, as a power of two.
    pub buckets_log2: u32,
    /// Where the overflow buckets begin, in bytes.
    pub overflow: usize,
    /// How many there may be.
    pub overflow_count: usize,
}

impl TablePlaces {
    /// Room for so many items: six to a bucket, and what overflows. It lies nowhere yet.
    pub fn for_items(items_max: usize) -> Self {
        let wanted = (items_max / 6).max(1).next_power_of_two().ilog2();
        let buckets_log2 = wanted.clamp(BUCKETS_LOG2_MIN, BUCKETS_LOG2_MAX);
        TablePlaces {
            buckets: 0,
            buckets_log2,
            overflow: 0,
            // All of a chain but the last are full, of four items.
            overflow_count: items_max / 4 + (1 << buckets_log2) + 1,
        }
    }

    /// Whether numbers read from a file can be those of a table.
    pub fn is_possible(&self) -> bool {
        (BUCKETS_LOG2_MIN..=BUCKETS_LOG2_MAX).contains(&self.buckets_log2)
            && (1..1 << 31).contains(&self.overflow_count)
    }

    /// Bytes that the buckets take in the file.
    pub fn buckets_bytes(&self) -> usize {
        Reserved::<Bucket>::bytes_for(1 << self.buckets_log2)
    }

    /// Bytes that the overflow buckets take.
    pub fn overflow_bytes(&self) -> usize {
        Reserved::<Overflow>::bytes_for(self.overflow_count)
    }
}

/// What must be known of a table beside its buckets, to go on with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableRecord {
    /// Of each stripe its items, and its shape: `level << 27 | split`.
    pub stripes: Vec<(u32, u32)>,
    /// The overflow buckets.
    pub overflow: OverflowRecord,
}

impl Table {
    /// An empty table in a file of zeros: as [`Table::new`], with these seeds of the hash.
    pub fn create(
        image: &Image,
        places: &TablePlaces,
        seeds: [u64; 4],
        stripe_bits: u32,
        buckets_log2: u32,
        may_grow: bool,
        memory_bytes: usize,
    ) -> io::Result<Self> {
        let log2 = buckets_log2.clamp(BUCKETS_LOG2_MIN, places.buckets_log2);
        let stripes = vec![(0, (log2 - stripe_bits) << 27); 1 << stripe_bits];
        let overflow = OverflowRecord {
            used_mark: 1,
            ..OverflowRecord::default()
        };
        let record = TableRecord { stripes, overflow };
        let table = Self::resume(image, places, seeds, &record, may_grow, memory_bytes)?;
        table.backed.store(0, Relaxed);
        table.back_to(1 << log2)?;
        Ok(table)
    }

    /// Goes on with a table that was left like this. The error says what of the record cannot be.
    pub fn resume(
        image: &Image,
        places: &TablePlaces,
        seeds: [u64; 4],
        record: &TableRecord,
        may_grow: bool,
        memory_bytes: usize,
    ) -> io::Result<Self> {
        let stripes = record.stripes.len();
        let stripe_bits = stripes.checked_ilog2().unwrap_or_default();
        let state = |&(items, shape): &(u32, u32)| StripeState {
            items,
            level: shape >> 27,
            split: shape & ((1 << 27) - 1),
        };
        let fits = |state: &StripeState| {
            let log2 = state.level + stripe_bits;
            (BUCKETS_LOG2_MIN..=places.buckets_log2).contains(&log2)
                && state.split < 1 << state.level
                && (state.split == 0 || log2 < places.buckets_log2)
        };
        let OverflowRecord {
            head, used_mark, ..
        } = record.overflow;
        if !stripes.is_power_of_two()
            || stripe_bits > BUCKETS_LOG2_MIN
            || !record.stripes.iter().map(state).all(|state| fits(&state))
            || used_mark < 1
            || used_mark as usize > places.overflow_count
            || head >= used_mark
        {
            let what = "a table that cannot be";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let buckets = Reserved::in_image(image, places.buckets, 1 << places.buckets_log2);
        let overflow = Reserved::in_image(image, places.overflow, places.overflow_count);
        let overflow = OverflowBuckets::of(overflow, record.overflow);
        let [first, second, third, fourth] = seeds;
        let hasher = RandomState::with_seeds(first, second, third, fourth);
        let used = record.stripes.iter().map(|stripe| state(stripe).buckets());
        let backed = (used.max().unwrap_or(0) as usize) << stripe_bits;
        let parts = (buckets, overflow, hasher);
        let table = Table::of(
            parts,
            record.stripes.iter().map(state),
            may_grow,
            memory_bytes,
        );
        Ok(Table {
            backed: AtomicUsize::new(backed),
            backing: Mutex::default(),
            ..table
        })
    }

    /// Makes what lies at these places zeros, for [`Table::create`].
    pub fn clear(image: &Image, places: &TablePlaces) -> io::Result<()> {
        Reserved::<Bucket>::in_image(image, places.buckets, 1 << places.buckets_log2).clear()?;
        Reserved::<Overflow>::in_image(image, places.overflow, places.overflow_count).clear()
    }

    /// What is to be known to go on with the table; nobody changes it meanwhile.
    pub fn record(&self) -> TableRecord {
        let stripe = |stripe| {
            let guard = self.lock_stripe(stripe);
            guard.items_and_shape()
        };
        TableRecord {
            stripes: (0..self.stripes()).map(stripe).collect(),
            overflow: self.overflow.record(),
        }
    }

    /// The sum of all buckets in use, by so many at a time: each of [`Self::sum_parts`] parts has its own.
    pub fn part_sum(&self, part: usize) -> u64 {
        let first = part * SUMMED_AT_A_TIME;
        let words = |block: &[AtomicU64]| -> u64 {
            sum_of_words(block.iter().map(|word| word.load(Relaxed)))
        };
        let buckets = first..(first + SUMMED_AT_A_TIME).min(self.buckets_end());
        let of_buckets = buckets.map(|index| words(self.buckets.get(index)));
        let overflow = self.overflow.record().used_mark as usize;
        let overflow = first.max(1)..(first + SUMMED_AT_A_TIME).min(overflow);
        let of_overflow = overflow.map(|index| words(self.overflow.get(index as u32).0));
        sum_of_words(of_buckets.chain(of_overflow))
    }

    /// See [`Self::part_sum`].
    pub fn sum_parts(&self) -> usize {
        let overflow = self.overflow.record().used_mark as usize;
        self.buckets_end().max(overflow).div_ceil(SUMMED_AT_A_TIME)
    }

    /// Behind the last bucket in use.
    fn buckets_end(&self) -> usize {
        let buckets =
            |stripe: &crossbeam::utils::CachePadded<super::Stripe>| stripe.lock.lock().buckets();
        let most = self.stripes.iter().map(buckets).max().unwrap_or(0);
        (most as usize) << self.stripe_bits
    }

    /// Makes sure of memory for bucket `local` of a stripe.
    #[inline]
    pub(super) fn back_bucket(&self, local: usize) {
        let end = (local + 1) << self.stripe_bits;
        if end > self.backed.load(Relaxed) {
            let backed = self.back_to(end);
            backed.expect("where the file has no space, the process has memory");
        }
    }

    #[cold]
    fn back_to(&self, end: usize) -> io::Result<()> {
        let _alone = self.backing.lock();
        let backed = self.backed.load(Relaxed);
        if end <= backed {
            return Ok(());
        }
        let more = (BACKED_AT_A_TIME / size_of::<Bucket>()).max(backed / BACKED_PART);
        let to = end.max(backed + more).min(self.buckets.capacity());
        self.buckets.back(backed..to)?;
        self.backed.store(to, Relaxed);
        Ok(())
    }

    /// What the hash makes of a key that all know: whether another process's hash is this one's.
    pub fn hash_probe(&self) -> u64 {
        let probe = |key: &[u8]| u64::from(self.hash(key).0);
        probe(b"ketch") << 32 | probe(b"a key as long as many keys are: user:1234567890")
    }
}

impl KeyHash {
    /// Seeds for a table that begins anew: random, but see [`place_keys_alike`](super::place_keys_alike).
    pub fn seeds() -> [u64; 4] {
        if super::are_alike() {
            return [1, 2, 3, 4];
        }
        std::array::from_fn(|n| RandomState::new().hash_one(n))
    }
}
