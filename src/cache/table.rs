//! The hash table: from a key's hash to the handle of its item.
//!
//! ```text
//!  hash (32 bits):   |      tag (16)      | ..                      |
//!                    | ..        bucket within the stripe  | stripe |
//!
//!  stripe s: lock, level, split     its buckets are s, s + S, s + 2S, ..  (S stripes)
//!
//!  bucket (one cache line):  | 10 tags of 16 bits | next | 10 handles of 32 bits |
//!  piece (half a line):      |  4 tags |     -    | next |  4 handles            |
//!                                                   a further piece of the chain, or 0
//! ```
//!
//! Each stripe grows by itself, one bucket at a time (linear hashing: Litwin, 1980): when it holds more than
//! [`ITEMS_PER_BUCKET_X2`] halves of an item a bucket, an insert splits the next bucket in turn. Nothing is ever rehashed
//! at once, so growth has no pause, and the array needs no copy: its addresses are reserved at the start and touched as
//! they are needed.
//!
//! T1. Buckets and pieces of a stripe change only under the stripe's lock.
//! T2. The slots in use of a chain (bucket and its pieces) are a prefix of it; every piece holds a slot.
//! T3. A slot's tag is the upper half of its item's hash, and the slot lies in the chain that the hash and the stripe's
//!     level name. There are 2^16 buckets at least, so that chain and tag together are the whole hash.
//! T4. Words are atomics: a racy look at them only chooses what to prefetch.
//!
//! Costs: a lookup reads one line, compares all tags of it in a few instructions, and one item in thirty lies in a piece;
//! 11 bytes an item. From a sixteenth of the memory limit on the table is filled further: one item in eight in a piece,
//! 9 bytes an item. The whole hash is compared, so an item is touched only when it is (all but surely) the one asked for.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use ahash::RandomState;
use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use slab_alloc::{ChunkHandle, Reserved};

/// Twice the items a bucket holds on average when the next one is split: while the table is small beside the memory, and
/// when it is not. Bytes an item, on the mean and at worst between two doublings: 10.3 and 10.6; 8.7 and 9.1.
const ITEMS_PER_BUCKET_X2: [u32; 2] = [13, 17];
/// The part of the memory limit from which on the table is filled further.
const SPARSE_PART: usize = 16;

/// Buckets to start with, as a power of two (T3).
const BUCKETS_LOG2_MIN: u32 = 16;
/// The most buckets, as a power of two: 2^27 lines of 64 bytes serve 900 million items.
const BUCKETS_LOG2_MAX: u32 = 27;

type Bucket = [AtomicU64; 8];
const _: () = assert!(size_of::<Bucket>() == 64, "a bucket is a cache line");
type Piece = [AtomicU64; 4];

/// A bucket or a piece: its words. Tags come first, four to a word; then, in the upper half of a word whose lower half
/// the bucket's last tags have, the index of the next piece; then the handles, two to a word.
#[derive(Debug, Clone, Copy)]
struct Block<'t>(&'t [AtomicU64]);

/// 1 in each 16-bit lane.
const LANES: u64 = 0x0001_0001_0001_0001;

/// The highest bit of each 16-bit lane of `word` that is equal to `tag`.
#[inline]
fn lanes_equal(word: u64, tag: u16) -> u64 {
    const LOW: u64 = LANES * 0x7fff;
    let differ = word ^ (LANES * u64::from(tag));
    // The sum carries into the highest bit unless the lower ones are all 0, and never into the next lane.
    !(((differ & LOW) + LOW) | differ | LOW)
}

impl<'t> Block<'t> {
    /// How many slots it has.
    #[inline]
    fn slots(self) -> usize {
        if self.0.len() == 8 { 10 } else { 4 }
    }

    #[inline]
    fn handles_at(self) -> usize {
        self.0.len() - self.slots() / 2
    }

    #[inline]
    fn tag(self, slot: usize) -> u16 {
        (self.0[slot / 4].load(Relaxed) >> (slot % 4 * 16)) as u16
    }

    #[inline]
    fn handle(self, slot: usize) -> Option<ChunkHandle> {
        let word = self.0[self.handles_at() + slot / 2].load(Relaxed);
        ChunkHandle::from_raw((word >> (slot % 2 * 32)) as u32)
    }

    /// Writes a slot, under the stripe's lock (T1).
    #[inline]
    fn set(self, slot: usize, tag: u16, handle: Option<ChunkHandle>) {
        let raw = handle.map_or(0, ChunkHandle::to_raw);
        self.write(slot / 4, slot % 4 * 16, 0xffff, u64::from(tag));
        self.write(
            self.handles_at() + slot / 2,
            slot % 2 * 32,
            0xffff_ffff,
            u64::from(raw),
        );
    }

    #[inline]
    fn write(self, word: usize, shift: usize, mask: u64, value: u64) {
        let kept = self.0[word].load(Relaxed) & !(mask << shift);
        self.0[word].store(kept | value << shift, Relaxed);
    }

    /// The index of the piece behind it, or 0.
    #[inline]
    fn next(self) -> u32 {
        (self.0[self.handles_at() - 1].load(Relaxed) >> 32) as u32
    }

    fn set_next(self, piece: u32) {
        self.write(self.handles_at() - 1, 32, 0xffff_ffff, u64::from(piece));
    }

    /// The first slot of this tag whose handle `is_it`.
    #[inline(always)]
    fn find(self, tag: u16, is_it: impl Fn(ChunkHandle) -> bool) -> Option<(usize, ChunkHandle)> {
        for word in 0..self.slots().div_ceil(4) {
            let mut equal = lanes_equal(self.0[word].load(Relaxed), tag);
            while equal != 0 {
                let slot = word * 4 + equal.trailing_zeros() as usize / 16;
                equal &= equal - 1;
                // The bucket's third word has two tags only.
                if slot < self.slots()
                    && let Some(handle) = self.handle(slot)
                    && is_it(handle)
                {
                    return Some((slot, handle));
                }
            }
        }
        None
    }

    /// Slots in use; they are the first ones (T2).
    fn used(self) -> usize {
        (0..self.slots())
            .take_while(|&slot| self.handle(slot).is_some())
            .count()
    }
}

/// The hash of a key: keyed, random for each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash(pub u32);

impl KeyHash {
    #[inline]
    fn tag(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

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
    pieces: Reserved<Piece>,
    pieces_free: Mutex<PiecesFree>,
}

#[derive(Debug)]
struct Stripe {
    /// `level << 27 | split`, for readers without the lock (T4).
    shape: AtomicU32,
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

/// Pieces not in use: a list through their first word, and the mark above which none was ever used.
#[derive(Debug, Default)]
struct PiecesFree {
    head: u32,
    /// Index 0 means none, so counting starts at 1.
    used_mark: u32,
    in_use: u32,
}

/// What the table looks like (`hash_power_level`, `hash_bytes`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableShape {
    /// Buckets in use.
    pub buckets: usize,
    /// Pieces in use: half lines behind buckets that are full.
    pub pieces: usize,
    /// Pieces ever in use, whose memory stays with the table.
    pub pieces_touched: usize,
    /// Items.
    pub items: usize,
}

impl TableShape {
    /// Bytes of memory taken.
    pub fn bytes(&self) -> usize {
        self.buckets * size_of::<Bucket>() + self.pieces_touched * size_of::<Piece>()
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
        let (buckets, pieces) = loop {
            let reserve = || Ok((Reserved::new(1 << log2_max)?, Reserved::new(1 << log2_max)?));
            match reserve() {
                Ok(reserved) => break reserved,
                Err(error) if log2_max <= 20 => return Err(error),
                Err(_) => log2_max -= 1,
            }
        };
        let level_max = log2_max - stripe_bits;
        let level = (buckets_log2.max(BUCKETS_LOG2_MIN) - stripe_bits).min(level_max);
        let stripe = || {
            let state = StripeState {
                level,
                ..StripeState::default()
            };
            CachePadded::new(Stripe {
                shape: AtomicU32::new(level << 27),
                lock: Mutex::new(state),
            })
        };
        Ok(Table {
            hasher: RandomState::new(),
            stripes: (0..1 << stripe_bits).map(|_| stripe()).collect(),
            stripe_bits,
            level_max,
            may_grow,
            sparse_buckets_max: u32::try_from(
                (memory_bytes / SPARSE_PART / size_of::<Bucket>()) >> stripe_bits,
            )
            .unwrap_or(u32::MAX),
            buckets,
            pieces,
            pieces_free: Mutex::new(PiecesFree {
                used_mark: 1,
                ..PiecesFree::default()
            }),
        })
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
        (hash.0 & ((1 << self.stripe_bits) - 1)) as usize
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

    /// Asks the processor for the bucket of `probe`.
    #[inline]
    pub fn prefetch_bucket(&self, probe: &mut Probe) {
        let index = self.racy_bucket_index(probe.hash);
        probe.bucket = index as u32;
        self.buckets.prefetch(index);
    }

    /// Looks, without the lock, where the item of `probe` most likely is: to be prefetched, and to be tried first under the
    /// lock ([`StripeGuard::find_seen`]). One that lies in a piece is not looked for, but the piece is asked for.
    #[inline]
    pub fn look(&self, probe: &mut Probe) -> Option<ChunkHandle> {
        let index = match probe.bucket {
            UNKNOWN => self.racy_bucket_index(probe.hash),
            index => index as usize,
        };
        let bucket = Block(self.buckets.get(index));
        let found = bucket.find(probe.hash.tag(), |_| true);
        if found.is_none() && bucket.next() != 0 {
            self.pieces.prefetch(bucket.next() as usize);
        }
        let (slot, handle) = found?;
        let slot = Slot::new(index as u32, slot);
        probe.seen = Some((slot, handle));
        Some(handle)
    }

    /// Looks once more for an item that [`Table::look`] did not see: in the piece that was asked for. What is seen there is
    /// good for a prefetch only, as a piece may come to another stripe.
    #[inline]
    pub fn look_behind(&self, probe: &Probe) -> Option<ChunkHandle> {
        if probe.seen.is_some() || probe.bucket == UNKNOWN {
            return None;
        }
        let next = Block(self.buckets.get(probe.bucket as usize)).next();
        if next == 0 {
            return None;
        }
        let (_, handle) = self.piece(next).find(probe.hash.tag(), |_| true)?;
        Some(handle)
    }

    /// Locks the stripe of `hash`.
    #[inline]
    pub fn lock(&self, hash: KeyHash) -> StripeGuard<'_> {
        self.lock_stripe(self.stripe_index(hash))
    }

    /// Locks the stripe of `hash` unless somebody holds it: for those who come against the lock order.
    #[inline]
    pub fn try_lock(&self, hash: KeyHash) -> Option<StripeGuard<'_>> {
        let stripe = self.stripe_index(hash);
        let state = self.stripes[stripe].lock.try_lock()?;
        Some(StripeGuard {
            table: self,
            stripe,
            state,
        })
    }

    /// Asks for huge pages behind the buckets.
    pub fn advise_huge(&self) -> io::Result<()> {
        self.buckets.advise_huge()
    }

    /// How many stripes there are.
    pub fn stripes(&self) -> usize {
        self.stripes.len()
    }

    /// Locks a stripe by number.
    pub fn lock_stripe(&self, stripe: usize) -> StripeGuard<'_> {
        let state = self.stripes[stripe].lock.lock();
        StripeGuard {
            table: self,
            stripe,
            state,
        }
    }

    /// Counts buckets and items, stripe by stripe.
    pub fn shape(&self) -> TableShape {
        let mut shape = TableShape::default();
        for stripe in 0..self.stripes.len() {
            let guard = self.lock_stripe(stripe);
            shape.buckets += (1usize << guard.state.level) + guard.state.split as usize;
            shape.items += guard.state.items as usize;
        }
        let pieces = self.pieces_list();
        shape.pieces = pieces.in_use as usize;
        shape.pieces_touched = pieces.used_mark as usize - 1;
        shape
    }

    fn pieces_list(&self) -> MutexGuard<'_, PiecesFree> {
        self.pieces_free.lock()
    }

    fn piece(&self, index: u32) -> Block<'_> {
        Block(self.pieces.get(index as usize))
    }

    /// A piece without slots in use.
    fn take_piece(&self) -> u32 {
        let mut free = self.pieces_list();
        free.in_use += 1;
        if free.head != 0 {
            let head = free.head;
            free.head = self.pieces.get(head as usize)[0].swap(0, Relaxed) as u32;
            return head;
        }
        let index = free.used_mark;
        free.used_mark += 1;
        index
    }

    fn give_piece(&self, index: u32) {
        let mut free = self.pieces_list();
        free.in_use -= 1;
        let words = self.pieces.get(index as usize);
        words[0].store(u64::from(free.head), Relaxed);
        words[1].store(0, Relaxed);
        free.head = index;
    }
}

/// A locked stripe: the right to read and change its chains.
#[derive(Debug)]
pub struct StripeGuard<'t> {
    table: &'t Table,
    stripe: usize,
    state: MutexGuard<'t, StripeState>,
}

/// Where an item's slot is; good until its stripe changes.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// The index of a bucket, or with [`IN_PIECE`] of a piece.
    block: u32,
    slot: u8,
}

/// A key that is looked for: its hash, and where its item was when the bucket was looked at ahead.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    pub(super) hash: KeyHash,
    /// The bucket's index when it was asked for; [`UNKNOWN`] before.
    bucket: u32,
    seen: Option<(Slot, ChunkHandle)>,
}

/// No bucket's index.
const UNKNOWN: u32 = u32::MAX;

impl Probe {
    /// Nothing is known yet but the hash.
    #[inline]
    pub fn new(hash: KeyHash) -> Self {
        Probe {
            hash,
            bucket: UNKNOWN,
            seen: None,
        }
    }

    /// The item that was seen, most likely the key's.
    #[inline]
    pub(super) fn seen(&self) -> Option<ChunkHandle> {
        self.seen.map(|(_, handle)| handle)
    }
}

impl Default for Probe {
    fn default() -> Self {
        Probe::new(KeyHash(0))
    }
}

impl Slot {
    #[inline]
    fn new(block: u32, slot: usize) -> Self {
        let slot = slot as u8;
        Slot { block, slot }
    }
}

/// Marks a slot in a piece.
const IN_PIECE: u32 = 1 << 31;
const _: () = assert!(1 << BUCKETS_LOG2_MAX < IN_PIECE);

/// A place in a chain.
#[derive(Debug, Clone, Copy)]
struct Place<'t> {
    block: Block<'t>,
    slot: usize,
}

impl<'t> StripeGuard<'t> {
    /// True if `hash` belongs to this stripe.
    pub fn covers(&self, hash: KeyHash) -> bool {
        self.table.stripe_index(hash) == self.stripe
    }

    #[inline]
    fn home_index(&self, hash: KeyHash) -> usize {
        let state = &self.state;
        self.table.bucket_index(hash, state.level, state.split)
    }

    #[inline]
    fn home(&self, hash: KeyHash) -> &'t Bucket {
        self.table.buckets.get(self.home_index(hash))
    }

    #[inline]
    fn after(&self, block: Block<'_>) -> Option<Block<'t>> {
        let index = block.next();
        (index != 0).then(|| self.table.piece(index))
    }

    /// Finds the item of `hash` for which `is_it` holds.
    #[inline]
    pub fn find(
        &self,
        hash: KeyHash,
        is_it: impl Fn(ChunkHandle) -> bool,
    ) -> Option<(Slot, ChunkHandle)> {
        let found_at = |block, (slot, handle)| (Slot::new(block, slot), handle);
        let index = self.home_index(hash);
        let home = Block(self.table.buckets.get(index));
        if let Some(found) = home.find(hash.tag(), &is_it) {
            return Some(found_at(index as u32, found));
        }
        let mut piece = home.next();
        while piece != 0 {
            let block = self.table.piece(piece);
            if let Some(found) = block.find(hash.tag(), &is_it) {
                return Some(found_at(IN_PIECE | piece, found));
            }
            piece = block.next();
        }
        None
    }

    /// Finds the item where it was seen, if `is_it` holds for what is there now.
    #[inline]
    pub fn find_seen(
        &self,
        probe: &Probe,
        is_it: impl Fn(ChunkHandle) -> bool,
    ) -> Option<(Slot, ChunkHandle)> {
        let (slot, handle) = probe.seen?;
        debug_assert!(self.covers(probe.hash));
        // It was seen in a bucket, not in a piece, and a bucket belongs to one stripe for ever. So what its slot holds now,
        // under the lock, is an item of this stripe.
        let block = Block(self.table.buckets.get(slot.block as usize));
        let at = usize::from(slot.slot);
        let same = block.handle(at) == Some(handle) && block.tag(at) == probe.hash.tag();
        (same && is_it(handle)).then_some((slot, handle))
    }

    /// The place of a slot.
    #[inline]
    fn place(&self, slot: Slot) -> Place<'t> {
        let block = if slot.block & IN_PIECE != 0 {
            self.table.piece(slot.block & !IN_PIECE)
        } else {
            Block(self.table.buckets.get(slot.block as usize))
        };
        Place {
            block,
            slot: usize::from(slot.slot),
        }
    }

    /// Adds an item whose key is not in the table, and splits the next bucket if the stripe has become too full.
    pub fn insert(&mut self, hash: KeyHash, handle: ChunkHandle) {
        debug_assert!(self.covers(hash));
        self.append(start(self.home(hash)), hash.tag(), handle);
        self.state.items += 1;
        let buckets = (1u32 << self.state.level) + self.state.split;
        let [sparse, dense] = ITEMS_PER_BUCKET_X2;
        let most = if buckets < self.table.sparse_buckets_max {
            sparse
        } else {
            dense
        };
        let full = self.state.items * 2 > buckets * most;
        if full && self.table.may_grow && self.state.level < self.table.level_max {
            self.split();
        }
    }

    /// Lets a slot lead to another item of the same key.
    #[inline]
    pub fn replace(&mut self, slot: Slot, handle: ChunkHandle) {
        let Place { block, slot } = self.place(slot);
        block.set(slot, block.tag(slot), Some(handle));
    }

    /// Takes a slot out, that of an item of `hash`: the last one of its chain fills the hole (T2).
    pub fn remove(&mut self, hash: KeyHash, slot: Slot) {
        let (mut before, mut last) = (None, Block(self.home(hash)));
        while let Some(next) = self.after(last) {
            before = Some(last);
            last = next;
        }
        let used = last.used();
        let filler = used
            .checked_sub(1)
            .expect("the chain holds at least the slot");
        let Place { block, slot: hole } = self.place(slot);
        block.set(hole, last.tag(filler), last.handle(filler));
        last.set(filler, 0, None);
        if used == 1
            && let Some(before) = before
        {
            self.cut(before);
        }
        self.state.items -= 1;
    }

    /// Frees the (empty) pieces behind `block`.
    fn cut(&self, block: Block<'_>) {
        let mut index = block.next();
        block.set_next(0);
        while index != 0 {
            let next = self.table.piece(index).next();
            self.table.give_piece(index);
            index = next;
        }
    }

    /// Puts an item behind the last one of a chain, given any place in it.
    fn append(&self, mut at: Place<'t>, tag: u16, handle: ChunkHandle) -> Place<'t> {
        loop {
            if at.slot == at.block.slots() {
                at = start(self.after_or_new(at.block).0);
            } else if at.block.handle(at.slot).is_none() {
                at.block.set(at.slot, tag, Some(handle));
                return at;
            } else {
                at.slot += 1;
            }
        }
    }

    /// The piece behind `block`, made if there is none.
    fn after_or_new(&self, block: Block<'_>) -> Block<'t> {
        self.after(block).unwrap_or_else(|| {
            let index = self.table.take_piece();
            block.set_next(index);
            self.table.piece(index)
        })
    }

    /// Splits the bucket in turn: its items part by the next bit of their hash.
    fn split(&mut self) {
        let (level, split) = (self.state.level, self.state.split);
        let bits = self.table.stripe_bits;
        let bucket = |local: usize| self.table.buckets.get(local << bits | self.stripe);
        let old = bucket(split as usize);
        let mut moved = start(bucket((1 << level) + split as usize));
        let (mut stay, mut read) = (start(old), start(old));
        loop {
            if read.slot == read.block.slots() {
                let Some(next) = self.after(read.block) else {
                    break;
                };
                read = start(next.0);
            }
            let Place { block, slot } = read;
            let Some(handle) = block.handle(slot) else {
                break;
            };
            let tag = block.tag(slot);
            block.set(slot, 0, None);
            read.slot += 1;
            // The next bit is one of the tag's (T3).
            if tag >> (level + bits - 16) & 1 == 1 {
                moved = self.append(moved, tag, handle);
            } else {
                stay = self.append(stay, tag, handle);
            }
        }
        self.cut(stay.block);
        self.state.split += 1;
        if self.state.split == 1 << level {
            self.state.level += 1;
            self.state.split = 0;
        }
        let shape = self.state.level << 27 | self.state.split;
        self.table.stripes[self.stripe].shape.store(shape, Relaxed);
    }

    /// The chains of the stripe: the index of each one's bucket, and its blocks.
    fn chains(&self) -> impl Iterator<Item = (usize, impl Iterator<Item = Block<'t>>)> {
        let buckets = (1usize << self.state.level) + self.state.split as usize;
        (0..buckets).map(move |local| {
            let index = local << self.table.stripe_bits | self.stripe;
            let home = Block(self.table.buckets.get(index));
            let blocks = std::iter::successors(Some(home), |&block| self.after(block));
            (index, blocks)
        })
    }

    /// Every item of the stripe.
    pub fn entries(&self) -> Vec<(KeyHash, ChunkHandle)> {
        let mut entries = Vec::with_capacity(self.state.items as usize);
        for (index, blocks) in self.chains() {
            for block in blocks {
                for slot in 0..block.used() {
                    let hash = u32::from(block.tag(slot)) << 16 | index as u32 & 0xffff;
                    let handle = block.handle(slot).expect("a slot in use has a handle");
                    entries.push((KeyHash(hash), handle));
                }
            }
        }
        entries
    }

    /// Checks T2 and T3 and the count.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        let mut items = 0;
        for (index, blocks) in self.chains() {
            let mut ended = false;
            for (nth, block) in blocks.enumerate() {
                assert!(nth == 0 || block.handle(0).is_some(), "T2: an empty piece");
                for slot in 0..block.slots() {
                    let used = block.handle(slot).is_some();
                    assert!(!(ended && used), "T2: a hole in chain {index}");
                    ended |= !used;
                    items += u32::from(used);
                }
            }
        }
        for (hash, _) in self.entries() {
            let state = &self.state;
            let home = self.table.bucket_index(hash, state.level, state.split);
            let listed = Block(self.table.buckets.get(home));
            let found = std::iter::successors(Some(listed), |&block| self.after(block))
                .any(|block| block.find(hash.tag(), |_| true).is_some());
            assert!(found, "T3: a slot in the wrong chain");
        }
        assert_eq!(items, self.state.items);
    }
}

/// The first place of a block.
fn start(words: &[AtomicU64]) -> Place<'_> {
    Place {
        block: Block(words),
        slot: 0,
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
        assert_eq!(table.look(&mut probe), Some(handle(1)));
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
        // One bucket, other tags: ten in the bucket, four in the piece behind it.
        let hashes: Vec<KeyHash> = (1..=14).map(|n| KeyHash(n << 20 | 6)).collect();
        for (n, &hash) in (1..).zip(&hashes) {
            table.lock(hash).insert(hash, handle(n));
        }
        for (n, &hash) in (1..).zip(&hashes) {
            let mut probe = Probe::new(hash);
            assert_eq!(table.look_behind(&probe), None, "not looked for yet");
            table.prefetch_bucket(&mut probe);
            let first = table.look(&mut probe);
            assert_eq!(first, (n <= 10).then(|| handle(n)));
            let second = table.look_behind(&probe);
            assert_eq!(second, (n > 10).then(|| handle(n)));
        }
        let mut absent = Probe::new(KeyHash(15 << 20 | 6));
        table.prefetch_bucket(&mut absent);
        assert_eq!(table.look(&mut absent), None);
        assert_eq!(table.look_behind(&absent), None);
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
        assert_eq!(table.shape().pieces, 0);
    }

    #[test]
    fn equal_lanes_are_found_and_no_others() {
        let tags = [0u16, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
        for lanes in 0..tags.len().pow(4) {
            let lane = |n: usize| tags[lanes / tags.len().pow(n as u32) % tags.len()];
            let word = (0..4).fold(0, |word, n| word | u64::from(lane(n)) << (16 * n));
            for tag in tags {
                let equal = (0..4)
                    .filter(|&n| lane(n) == tag)
                    .fold(0, |bits, n| bits | 0x8000u64 << (16 * n));
                assert_eq!(lanes_equal(word, tag), equal, "{tag:x} in {word:x}");
            }
        }
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
