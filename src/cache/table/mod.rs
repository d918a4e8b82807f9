//! The hash table: from a key's hash to the handle of its item.
//!
//! ```text
//!  hash (32 bits):   |      tag (16)      | ..                      |
//!                    | ..        bucket within the stripe  | stripe |
//!
//!  stripe s: lock, level, split     its buckets are s, s + S, s + 2S, ..  (S stripes)
//!
//!  bucket (one cache line):  | 10 tags of 16 bits | next | 10 handles of 32 bits |
//!  overflow bucket (half):   |  4 tags |     -    | next |  4 handles            |
//!                                                   a further overflow bucket of the chain, or 0
//! ```
//!
//! Each stripe grows by itself, one bucket at a time (linear hashing: Litwin, 1980): when it holds more than
//! [`ITEMS_PER_BUCKET_X2`] halves of an item a bucket, an insert splits the next bucket in turn. Nothing is ever rehashed
//! at once, so growth has no pause, and the array needs no copy: its addresses are reserved at the start and touched as
//! they are needed.
//!
//! T1. Buckets and overflow buckets of a stripe change only under the stripe's lock.
//! T2. The slots in use of a chain (a bucket and its overflow buckets) are a prefix of it; every overflow bucket holds an
//!     item.
//! T3. A slot's tag is the upper half of its item's hash, and the slot lies in the chain that the hash and the stripe's
//!     level name. There are 2^16 buckets at least, so that chain and tag together are the whole hash.
//! T4. Words are atomics: a racy look at them only chooses what to prefetch.
//!
//! Costs: a lookup reads one line, compares all tags of it in a few instructions, and one item in thirty lies in an overflow bucket;
//! 11 bytes an item. From a sixteenth of the memory limit on the table is filled further: one item in eight in an overflow bucket,
//! 9 bytes an item. The whole hash is compared, so an item is touched only when it is (all but surely) the one asked for.

mod block;
mod in_file;
mod overflow;
mod probe;
mod stripe;
mod walk;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use ahash::RandomState;
use crossbeam::utils::CachePadded;
use parking_lot::Mutex;
use slab_alloc::{ChunkHandle, Reserved};

pub use block::LAYOUT;
use block::{Block, Bucket, Overflow};
pub use in_file::{OverflowRecord, TablePlaces, TableRecord};
use overflow::OverflowBuckets;
use probe::UNKNOWN;
pub use probe::{KeyHash, Probe, Slot, Sought};
pub use stripe::StripeGuard;
pub use walk::TableCursor;

/// Twice the items a bucket holds on average when the next one is split: while the table is small beside the memory, and
/// when it is not. Bytes an item, on the mean and at worst between two doublings: 10.3 and 10.6; 8.7 and 9.1.
const ITEMS_PER_BUCKET_X2: [u32; 2] = [13, 17];
/// The part of the memory limit from which on the table is filled further.
const SPARSE_PART: usize = 16;

/// Buckets to start with, as a power of two (T3).
const BUCKETS_LOG2_MIN: u32 = 16;
/// The most buckets, as a power of two: 2^27 lines of 64 bytes serve 900 million items.
const BUCKETS_LOG2_MAX: u32 = 27;
const _: () = assert!(1 << BUCKETS_LOG2_MAX < probe::IN_OVERFLOW);

/// The table.
#[derive(Debug)]
pub struct Table {
    hasher: RandomState,
    stripes: Box<[CachePadded<Stripe>]>,
    stripe_bits: u32,
    /// Levels above this would leave the reserved array.
    level_max: u32,
    may_grow: bool,
    /// Buckets of a stripe from which on they are filled further.
    sparse_buckets_max: u32,
    buckets: Reserved<Bucket>,
    /// Buckets below this index have memory.
    backed: AtomicUsize,
    /// Taken to get memory for more.
    backing: Mutex<()>,
    overflow: OverflowBuckets,
}

#[derive(Debug)]
struct Stripe {
    /// `level << 27 | split`, for readers without the lock (T4).
    shape: AtomicU32,
    /// Stores counted so far; written under the lock, read by all.
    stores: AtomicU64,
    /// Those of small values; likewise.
    small: AtomicU32,
    lock: Mutex<StripeState>,
}

/// What a stripe's lock guards besides its buckets.
#[derive(Debug, Default)]
struct StripeState {
    items: u32,
    /// The stripe has `2^level + split` buckets.
    level: u32,
    split: u32,
}

impl StripeState {
    /// Without items, of `2^level` buckets.
    fn empty(level: u32) -> Self {
        StripeState {
            level,
            ..StripeState::default()
        }
    }

    fn shape(&self) -> u32 {
        self.level << 27 | self.split
    }

    fn buckets(&self) -> u32 {
        (1 << self.level) + self.split
    }
}

/// What the table looks like (`hash_power_level`, `hash_bytes`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableShape {
    /// Buckets in use.
    pub buckets: usize,
    /// Overflow buckets in use: half lines behind buckets that are full.
    pub overflow: usize,
    /// Overflow buckets ever in use, whose memory stays with the table.
    pub overflow_touched: usize,
    /// Items.
    pub items: usize,
}

impl TableShape {
    /// Bytes of memory taken.
    pub fn bytes(&self) -> usize {
        self.buckets * size_of::<Bucket>() + self.overflow_touched * size_of::<Overflow>()
    }
}

/// Position of `hash` among the `2^level + split` buckets of its stripe.
#[inline]
fn local_index(hash: u32, level: u32, split: u32) -> u32 {
    let low = hash & ((1 << level) - 1);
    if low < split {
        hash & ((2 << level) - 1)
    } else {
        low
    }
}

/// See [`place_keys_alike`].
static ALIKE: AtomicBool = AtomicBool::new(false);

/// From now on all tables of this process that begin anew place keys alike: for tests that compare the CAS uniques of two caches, in which
/// the stripe of a key shows. Never for a server: who knows where keys lie can crowd one place.
pub fn place_keys_alike() {
    ALIKE.store(true, Relaxed);
}

fn are_alike() -> bool {
    cfg!(test) || ALIKE.load(Relaxed)
}

impl Table {
    /// A table of `2^stripe_bits` stripes (2^16 at most) that starts with about `2^buckets_log2` buckets, 2^16 at least,
    /// and grows if `may_grow`. It is for so many bytes of items as `memory_bytes` says.
    pub fn new(
        stripe_bits: u32,
        buckets_log2: u32,
        may_grow: bool,
        memory_bytes: usize,
    ) -> io::Result<Self> {
        let mut log2_max = BUCKETS_LOG2_MAX;
        // Room for later growth is taken where it leaves addresses to others: `ulimit -v` may grant few.
        while log2_max > BUCKETS_LOG2_MIN && !Reserved::<Bucket>::has_room_for_two(2 << log2_max) {
            log2_max -= 1;
        }
        let overflow = OverflowBuckets::new(1 << log2_max)?;
        let buckets = Reserved::new(1 << log2_max)?;
        let level = (buckets_log2.max(BUCKETS_LOG2_MIN) - stripe_bits).min(log2_max - stripe_bits);
        let stripes = (0..1 << stripe_bits).map(|_| StripeState::empty(level));
        let [first, second, third, fourth] = KeyHash::seeds();
        let hasher = RandomState::with_seeds(first, second, third, fourth);
        let parts = (buckets, overflow, hasher);
        Ok(Table::of(parts, stripes, may_grow, memory_bytes))
    }

    /// The table of these parts, for stripes in this state, as many as a power of two.
    fn of(
        (buckets, overflow, hasher): (Reserved<Bucket>, OverflowBuckets, RandomState),
        stripes: impl Iterator<Item = StripeState>,
        may_grow: bool,
        memory_bytes: usize,
    ) -> Self {
        let stripe = |(number, state): (u32, StripeState)| {
            CachePadded::new(Stripe {
                shape: AtomicU32::new(state.shape()),
                stores: AtomicU64::default(),
                small: AtomicU32::new(number),
                lock: Mutex::new(state),
            })
        };
        let stripes: Box<[_]> = (0..).zip(stripes).map(stripe).collect();
        let stripe_bits = stripes.len().ilog2();
        Table {
            hasher,
            stripes,
            stripe_bits,
            level_max: buckets.capacity().ilog2() - stripe_bits,
            may_grow,
            sparse_buckets_max: u32::try_from(
                (memory_bytes / SPARSE_PART / size_of::<Bucket>()) >> stripe_bits,
            )
            .unwrap_or(u32::MAX),
            buckets,
            backed: AtomicUsize::new(usize::MAX),
            backing: Mutex::default(),
            overflow,
        }
    }

    /// Hashes a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        KeyHash(hasher.finish() as u32)
    }

    #[inline]
    fn stripe_index(&self, hash: KeyHash) -> usize {
        // Their number is a power of two.
        hash.0 as usize & (self.stripes.len() - 1)
    }

    #[inline]
    fn bucket_index(&self, hash: KeyHash, level: u32, split: u32) -> usize {
        let local = local_index(hash.0 >> self.stripe_bits, level, split);
        (local as usize) << self.stripe_bits | self.stripe_index(hash)
    }

    #[inline]
    fn racy_bucket_index(&self, hash: KeyHash) -> usize {
        let shape = self.stripes[self.stripe_index(hash)].shape.load(Relaxed);
        self.bucket_index(hash, shape >> 27, shape & ((1 << 27) - 1))
    }

    /// Grows as so many items would have it grow, before they come.
    pub fn expect(&self, items: usize) {
        let each = u32::try_from(items >> self.stripe_bits).unwrap_or(u32::MAX / 4);
        for stripe in 0..self.stripes() {
            self.lock_stripe(stripe).expect(each.min(u32::MAX / 4));
        }
    }

    /// Asks the processor for the bucket of `probe`.
    #[inline]
    pub fn prefetch_bucket(&self, probe: &mut Probe) {
        let index = self.racy_bucket_index(probe.hash);
        probe.bucket = index as u32;
        self.buckets.prefetch(index);
    }

    /// Looks, without the lock, where the item of `probe` most likely is: to be prefetched, and to be tried first under the
    /// lock ([`StripeGuard::find_seen`]). One that lies in an overflow bucket is not looked for, but that
    /// bucket is asked for.
    #[inline]
    pub fn probe(&self, probe: &mut Probe) -> Option<ChunkHandle> {
        let index = match probe.bucket {
            UNKNOWN => self.racy_bucket_index(probe.hash),
            index => index as usize,
        };
        let bucket = Block(self.buckets.get(index));
        let found = bucket.find(probe.hash.tag(), |_| true);
        if found.is_none() && bucket.next() != 0 {
            self.overflow.prefetch(bucket.next());
        }
        let (slot, handle) = found?;
        let slot = Slot::new(index as u32, slot);
        probe.seen = Some((slot, handle));
        Some(handle)
    }

    /// Looks once more for an item that [`Table::probe`] did not see: in the overflow bucket that was asked for. What
    /// is seen there is good for a prefetch only, as an overflow bucket may come to another stripe.
    #[inline]
    pub fn probe_overflow(&self, probe: &Probe) -> Option<ChunkHandle> {
        if probe.seen.is_some() || probe.bucket == UNKNOWN {
            return None;
        }
        let next = Block(self.buckets.get(probe.bucket as usize)).next();
        if next == 0 {
            return None;
        }
        let (_, handle) = self.overflow.get(next).find(probe.hash.tag(), |_| true)?;
        Some(handle)
    }

    /// Asks for huge pages behind the buckets.
    pub fn advise_huge(&self) -> io::Result<()> {
        self.buckets.advise_huge()
    }

    /// How many stripes there are, as a power of two.
    #[inline]
    pub fn stripe_bits(&self) -> u32 {
        self.stripe_bits
    }

    /// Stores counted by the stripe of `hash`.
    pub fn count_of(&self, hash: KeyHash) -> u64 {
        self.stripes[self.stripe_index(hash)].stores.load(Relaxed)
    }

    /// How many stripes there are.
    pub fn stripes(&self) -> usize {
        self.stripes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const MEMORY: usize = 1 << 30;

    fn handle(n: u32) -> ChunkHandle {
        ChunkHandle::from_raw(n).unwrap()
    }

    fn check(table: &Table) {
        for stripe in 0..table.stripes() {
            table.lock_stripe(stripe).check_invariants();
        }
    }

    /// Random inserts, replacements and removals against a `HashMap` from hash to handle, in stripes of 16 buckets;
    /// hashes differ in the bits of `hash_mask`.
    fn model(seed: u64, steps: u32, hash_mask: u32, may_grow: bool, memory: usize) {
        println!("seed {seed}");
        let mut rng = crate::cache::testing::Rng::new(seed);
        let table = Table::new(12, 3, may_grow, memory).unwrap();
        let mut model: HashMap<u32, u32> = HashMap::new();
        for step in 1..=steps {
            let raw = (rng.next() as u32).wrapping_mul(0x9e37_79b9) & hash_mask;
            let hash = KeyHash(raw);
            let mut guard = table.lock(hash);
            let found = guard.find(hash, |_| true);
            assert_eq!(
                found.map(|(_, handle)| handle.to_raw()),
                model.get(&raw).copied()
            );
            match (found, rng.next() % 3) {
                (None, _) => {
                    guard.insert(hash, handle(step));
                    model.insert(raw, step);
                }
                (Some((slot, _)), 0) => {
                    guard.replace(slot, handle(step));
                    model.insert(raw, step);
                }
                (Some((slot, _)), _) => {
                    guard.remove(hash, slot);
                    model.remove(&raw);
                }
            }
            guard.check_invariants();
        }
        check(&table);
        assert_eq!(table.shape().items, model.len());
        let buckets = table.shape().buckets;
        assert_eq!(buckets > 1 << 16, may_grow, "it grows when it may");
        for (&raw, &at) in &model {
            let hash = KeyHash(raw);
            assert_eq!(table.lock(hash).find(hash, |_| true).unwrap().1, handle(at));
            let entries = table.lock(hash).entries();
            assert!(entries.contains(&(hash, handle(at))), "{raw:x}");
        }
    }

    #[test]
    fn behaves_like_a_map_while_it_grows() {
        for seed in 1..4 {
            model(seed, 3000, 0x03ff_f007, true, MEMORY);
            model(seed, 3000, 0xf00f_f007, true, 0);
        }
    }

    #[test]
    fn behaves_like_a_map_with_long_chains() {
        model(9, 2000, 0x0ff0_0000, false, MEMORY);
    }

    #[test]
    fn what_was_seen_ahead_is_believed_only_while_it_is_there() {
        let table = Table::new(4, 1, true, MEMORY).unwrap();
        let hash = KeyHash(0x7007_0006);
        let any = |_| true;
        table.lock(hash).insert(hash, handle(1));
        let mut probe = Probe::new(hash);
        assert!(table.lock(hash).find_seen(&probe, any).is_none());
        assert_eq!(table.probe(&mut probe), Some(handle(1)));
        let mut guard = table.lock(hash);
        let (slot, seen) = guard.find_seen(&probe, any).unwrap();
        assert_eq!(seen, handle(1));
        assert!(guard.find_seen(&probe, |at| at != handle(1)).is_none());
        guard.replace(slot, handle(2));
        assert!(guard.find_seen(&probe, any).is_none(), "another item");
        guard.replace(slot, handle(1));
        assert!(guard.find_seen(&probe, any).is_some());
        guard.remove(hash, slot);
        assert!(guard.find_seen(&probe, any).is_none(), "no item");
        // The same bucket and slot, but another key's.
        let other = KeyHash(hash.0 ^ 0x4000_0000);
        assert_eq!(
            table.racy_bucket_index(other),
            table.racy_bucket_index(hash)
        );
        guard.insert(other, handle(1));
        assert!(guard.find_seen(&probe, any).is_none(), "another tag");
    }

    #[test]
    fn what_lies_behind_a_full_bucket_is_seen_at_the_second_look() {
        let table = Table::new(4, 1, false, MEMORY).unwrap();
        // One bucket, other tags: ten in the bucket, four in the overflow bucket behind it.
        let hashes: Vec<KeyHash> = (1..=14).map(|n| KeyHash(n << 20 | 6)).collect();
        for (n, &hash) in (1..).zip(&hashes) {
            table.lock(hash).insert(hash, handle(n));
        }
        for (n, &hash) in (1..).zip(&hashes) {
            let mut probe = Probe::new(hash);
            assert_eq!(table.probe_overflow(&probe), None, "not looked for yet");
            table.prefetch_bucket(&mut probe);
            let first = table.probe(&mut probe);
            assert_eq!(first, (n <= 10).then(|| handle(n)));
            let second = table.probe_overflow(&probe);
            assert_eq!(second, (n > 10).then(|| handle(n)));
        }
        let mut absent = Probe::new(KeyHash(15 << 20 | 6));
        table.prefetch_bucket(&mut absent);
        assert_eq!(table.probe(&mut absent), None);
        assert_eq!(table.probe_overflow(&absent), None);
    }

    #[test]
    fn equal_hashes_are_told_apart_by_the_key() {
        let table = Table::new(1, 1, true, MEMORY).unwrap();
        let hash = KeyHash(6);
        let mut guard = table.lock(hash);
        for n in 1..=30 {
            guard.insert(hash, handle(n));
        }
        for n in 1..=30 {
            assert_eq!(guard.find(hash, |at| at == handle(n)).unwrap().1, handle(n));
        }
        for n in 1..=30 {
            let (slot, _) = guard.find(hash, |at| at == handle(n)).unwrap();
            guard.remove(hash, slot);
        }
        guard.check_invariants();
        drop(guard);
        assert_eq!(table.shape().overflow, 0);
    }

    /// Bytes of table for an item, at worst, while so many are put in.
    fn worst_bytes_each(items: u32, memory: usize) -> f64 {
        let table = Table::new(10, 14, true, memory).unwrap();
        let mut worst = 0f64;
        for n in 1..=items {
            let hash = table.hash(&n.to_le_bytes());
            table.lock(hash).insert(hash, handle(n));
            if n > items / 2 && n.is_multiple_of(items / 16) {
                let shape = table.shape();
                assert_eq!(shape.items, n as usize);
                worst = worst.max(shape.bytes() as f64 / f64::from(n));
            }
        }
        check(&table);
        worst
    }

    #[test]
    fn a_table_that_is_large_beside_the_memory_is_filled_further() {
        let (sparse, dense) = (
            worst_bytes_each(2_000_000, MEMORY),
            worst_bytes_each(2_000_000, 1 << 20),
        );
        assert!(sparse < 11.0 && dense < 9.2, "{sparse} and {dense}");
    }
}
