//! An item is one chunk (or a chain of them): header, optional fields, key, value, slack.
//!
//! ```text
//!  0      4      8            12            16          20        21      22      24
//!  | next | prev | expires_at | accessed_at | value_len | key_len | class | state |
//!  24       32             ..             ..
//!  | cas u64 | client_flags u32 | refs u32, chain u32 | key bytes | value bytes | slack |
//!   without -C   if not 0          if LARGE
//!
//!  chain: head --chain--> | next | head | .. used @16 .. state @22 | value bytes .. | --next--> ..
//! ```
//!
//! `next` and `prev` are the LRU's links, `accessed_at` the second of the last access. An item is LARGE when its value
//! is long enough to be sent from where it lies, or does not fit one chunk; only then it carries a reference count.
//! What does not fit the largest chunk is continued in further chunks.
//!
//! I1. A handle stays valid from `alloc` to `free`; the class of its chunk does not change meanwhile.
//! I2. LINKED is set exactly while the item is in the table and in one LRU segment; it changes under the lock of the
//!     LRU of the item's class.
//! I3. Key and value of a linked item change only under its key's stripe lock, and never while somebody else holds a
//!     reference (LARGE). Whoever reads them holds the stripe lock, the LRU lock (key only) or a reference.
//! I4. Header words are atomics: a racy look at them (prefetch, crawler) is harmless, and is repeated under a lock
//!     before anything is concluded from it.
//! I5. The state word is 0 in a chunk that is free or not yet initialised: `free` clears it first, and the allocator
//!     zeroes it in a chunk it hands out for the first time. So a walk over a page sees only real items.
//! I6. The lifetime `'c` of an owner ([`NewItem`], [`PinnedValue`]) keeps the arena mapped.
//!
//! This is one of the three rooms where unsafe code is allowed. Its functions are for `cache` alone; each that reads or
//! writes bytes names the invariant its caller keeps.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::atomic::{
    AtomicU8, AtomicU16,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use slab_alloc::{ChunkHandle, ClassId, SlabAllocator};

use crate::clock::RelTime;

const NEXT: usize = 0;
const PREV: usize = 4;
const EXPIRES_AT: usize = 8;
const ACCESSED_AT: usize = 12;
const VALUE_LEN: usize = 16;
const KEY_LEN: usize = 20;
const CLASS: usize = 21;
const STATE: usize = 22;
const CAS: usize = 24;
/// Bytes of the header without the CAS unique.
pub const HEADER_BYTES: usize = 24;
/// Bytes of the CAS unique.
const CAS_BYTES: usize = 8;
/// In a continuation chunk: the head of its item (where an LRU link stands in a head).
const CONTINUED_HEAD: usize = 4;
/// Bytes an item spends before its key: header and CAS unique.
pub const ITEM_HEAD_BYTES: usize = HEADER_BYTES + CAS_BYTES;
const _: () = assert!(
    ITEM_HEAD_BYTES == 32,
    "an item spends 32 bytes before its key"
);
const _: () = assert!(ITEM_HEAD_BYTES <= slab_alloc::HEADER_ZEROED);

/// Values of at least so many bytes are sent from their chunk instead of being copied to the write buffer: about where
/// the bookkeeping of one reference costs as much as the copy.
pub const LARGE_VALUE_MIN: usize = 4096;

/// The end of a chained item may waste this part of its value: less would cost more chunks for each.
const END_WASTE_PART: usize = 32;

/// Bits of the state word.
pub mod state {
    /// In the table and in an LRU segment.
    pub const LINKED: u16 = 1;
    /// Read at least once since it was stored.
    pub const FETCHED: u16 = 1 << 1;
    /// Two bits: reads since the policy last looked, up to three.
    pub const USES_SHIFT: u16 = 2;
    /// Mask of the reads.
    pub const USES: u16 = 3 << USES_SHIFT;
    /// Marked stale by `md I` or `ms I`.
    pub const STALE: u16 = 1 << 4;
    /// Somebody holds the lease to recache it.
    pub const WIN_SENT: u16 = 1 << 5;
    /// The key came in base64 and is shown so.
    pub const KEY_BINARY: u16 = 1 << 6;
    /// The optional client flags are there.
    pub const HAS_CLIENT_FLAGS: u16 = 1 << 7;
    /// The optional reference count and chain are there.
    pub const LARGE: u16 = 1 << 8;
    /// Two bits: the LRU segment.
    pub const SEGMENT_SHIFT: u16 = 9;
    /// Mask of the segment bits.
    pub const SEGMENT: u16 = 3 << SEGMENT_SHIFT;
    /// The optional CAS unique is there.
    pub const HAS_CAS: u16 = 1 << 11;
    /// A continuation chunk of a chained item, not an item.
    pub const CONTINUATION: u16 = 1 << 12;
    /// Set in every initialised head, so that its state is never 0.
    pub const ITEM: u16 = 1 << 13;
    /// Two bits: the flush generation it was stored in.
    pub const FLUSH_GEN_SHIFT: u16 = 14;
    /// Mask of the generation bits.
    pub const FLUSH_GEN: u16 = 3 << FLUSH_GEN_SHIFT;
}

/// Reads that a state word has counted: 0 to 3.
#[inline]
pub fn uses(bits: u16) -> u16 {
    (bits & state::USES) >> state::USES_SHIFT
}

/// What an item is made from.
#[derive(Debug, Clone, Copy)]
pub struct ItemSpec<'k> {
    /// 1 to 250 bytes.
    pub key: &'k [u8],
    /// The client sent the key in base64.
    pub key_binary: bool,
    /// Kept with the value.
    pub client_flags: u32,
    /// When it ends.
    pub expires_at: RelTime,
    /// Bytes of the value.
    pub value_len: u32,
}

/// Why an item could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocError {
    /// Above the item limit (`-I`).
    TooLarge,
    /// No memory, and nothing could be evicted.
    OutOfMemory,
}

/// The arena seen as items.
pub struct Items {
    slabs: SlabAllocator,
    use_cas: bool,
    item_bytes_max: usize,
    /// The size of the largest chunk.
    chunk_bytes_max: usize,
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Items(limit {} bytes)", self.slabs.limit_bytes())
    }
}

impl Items {
    /// A typed view of `slabs`; `use_cas` is off with `-C`, `item_bytes_max` is `-I`.
    pub fn new(slabs: SlabAllocator, use_cas: bool, item_bytes_max: usize) -> Self {
        let chunk_bytes_max = slabs.chunk_bytes(slabs.largest());
        Items {
            slabs,
            use_cas,
            item_bytes_max,
            chunk_bytes_max,
        }
    }

    /// The allocator below.
    pub fn slabs(&self) -> &SlabAllocator {
        &self.slabs
    }

    /// True if items carry CAS uniques.
    pub fn use_cas(&self) -> bool {
        self.use_cas
    }

    /// The largest item, in bytes with header and key.
    pub fn item_bytes_max(&self) -> usize {
        self.item_bytes_max
    }

    // ---- header words -------------------------------------------------------------------------------------------

    #[inline]
    fn word(&self, handle: ChunkHandle, offset: usize) -> &AtomicU32 {
        self.slabs.atomic_u32(handle, offset)
    }

    #[inline]
    fn state_word(&self, handle: ChunkHandle) -> &AtomicU16 {
        self.slabs.atomic_u16(handle, STATE)
    }

    /// The LRU link towards the tail.
    #[inline]
    pub fn next(&self, handle: ChunkHandle) -> Option<ChunkHandle> {
        ChunkHandle::from_raw(self.word(handle, NEXT).load(Relaxed))
    }

    /// Sets the LRU link towards the tail.
    #[inline]
    pub fn set_next(&self, handle: ChunkHandle, next: Option<ChunkHandle>) {
        self.word(handle, NEXT)
            .store(next.map_or(0, ChunkHandle::to_raw), Relaxed);
    }

    /// The LRU link towards the head.
    #[inline]
    pub fn prev(&self, handle: ChunkHandle) -> Option<ChunkHandle> {
        ChunkHandle::from_raw(self.word(handle, PREV).load(Relaxed))
    }

    /// Sets the LRU link towards the head.
    #[inline]
    pub fn set_prev(&self, handle: ChunkHandle, prev: Option<ChunkHandle>) {
        self.word(handle, PREV)
            .store(prev.map_or(0, ChunkHandle::to_raw), Relaxed);
    }

    /// When the item ends.
    #[inline]
    pub fn expires_at(&self, handle: ChunkHandle) -> RelTime {
        RelTime(self.word(handle, EXPIRES_AT).load(Relaxed))
    }

    /// Gives the item another end; under the stripe lock.
    #[inline]
    pub fn set_expires_at(&self, handle: ChunkHandle, time: RelTime) {
        self.word(handle, EXPIRES_AT).store(time.0, Relaxed);
    }

    /// The second of the last access.
    #[inline]
    pub fn accessed_at(&self, handle: ChunkHandle) -> RelTime {
        RelTime(self.word(handle, ACCESSED_AT).load(Relaxed))
    }

    /// Notes an access; under the stripe lock.
    #[inline]
    pub fn set_accessed_at(&self, handle: ChunkHandle, time: RelTime) {
        self.word(handle, ACCESSED_AT).store(time.0, Relaxed);
    }

    /// Bytes of the value.
    #[inline]
    pub fn value_len(&self, handle: ChunkHandle) -> usize {
        self.word(handle, VALUE_LEN).load(Relaxed) as usize
    }

    #[inline]
    fn key_len(&self, handle: ChunkHandle) -> usize {
        usize::from(self.key_len_byte(handle).load(Relaxed))
    }

    #[inline]
    fn key_len_byte(&self, handle: ChunkHandle) -> &AtomicU8 {
        self.slabs.atomic_u8(handle, KEY_LEN)
    }

    /// The slab class of the item's LRU: that of its head chunk.
    #[inline]
    pub fn class(&self, handle: ChunkHandle) -> Option<ClassId> {
        ClassId::new(self.slabs.atomic_u8(handle, CLASS).load(Relaxed))
    }

    /// The state bits.
    #[inline]
    pub fn state(&self, handle: ChunkHandle) -> u16 {
        self.state_word(handle).load(Relaxed)
    }

    /// Sets state bits and gives the bits before.
    #[inline]
    pub fn set_bits(&self, handle: ChunkHandle, bits: u16) -> u16 {
        self.state_word(handle).fetch_or(bits, Relaxed)
    }

    /// Clears state bits and gives the bits before.
    #[inline]
    pub fn clear_bits(&self, handle: ChunkHandle, bits: u16) -> u16 {
        self.state_word(handle).fetch_and(!bits, Relaxed)
    }

    /// Stores a small number in a field of the state word.
    #[inline]
    pub fn set_field(&self, handle: ChunkHandle, mask: u16, shift: u16, value: u16) {
        let word = self.state_word(handle);
        // Two locks guard different bits of this word, so a change is one read-modify-write.
        let set = |old: u16| Some((old & !mask) | (value << shift));
        let _ = word.fetch_update(Relaxed, Relaxed, set);
    }

    /// Counts a read; under the stripe lock.
    #[inline]
    pub fn count_use(&self, handle: ChunkHandle) {
        let bits = self.state(handle);
        if bits & state::FETCHED == 0 {
            self.set_bits(handle, state::FETCHED | 1 << state::USES_SHIFT);
        } else if bits & state::USES != state::USES {
            // Only the stripe's holder counts up, others only set the count lower: it cannot overflow.
            self.state_word(handle)
                .fetch_add(1 << state::USES_SHIFT, Relaxed);
        }
    }

    /// Reads since the policy last looked, up to three.
    #[inline]
    pub fn uses(&self, handle: ChunkHandle) -> u16 {
        uses(self.state(handle))
    }

    /// Sets that count to no more than it is; under the LRU lock.
    #[inline]
    pub fn set_uses(&self, handle: ChunkHandle, uses: u16) {
        self.set_field(handle, state::USES, state::USES_SHIFT, uses);
    }

    /// The CAS unique, 0 with `-C`.
    #[inline]
    pub fn cas(&self, handle: ChunkHandle) -> u64 {
        if self.state(handle) & state::HAS_CAS == 0 {
            return 0;
        }
        self.slabs.atomic_u64(handle, CAS).load(Relaxed)
    }

    /// Gives the item a CAS unique; nothing happens with `-C`. Under the stripe lock.
    #[inline]
    pub fn set_cas(&self, handle: ChunkHandle, cas: u64) {
        if self.state(handle) & state::HAS_CAS != 0 {
            self.slabs.atomic_u64(handle, CAS).store(cas, Relaxed);
        }
    }

    /// The client flags.
    #[inline]
    pub fn client_flags(&self, handle: ChunkHandle) -> u32 {
        let bits = self.state(handle);
        if bits & state::HAS_CLIENT_FLAGS == 0 {
            return 0;
        }
        self.optional_word(handle, flags_offset(bits)).load(Relaxed)
    }

    /// An optional 32-bit field of an initialised item; its bit of the state word tells that it is there.
    #[inline]
    fn optional_word(&self, handle: ChunkHandle, offset: usize) -> &AtomicU32 {
        debug_assert!(offset.is_multiple_of(4) && offset + 4 <= self.chunk_bytes_max);
        // SAFETY: the field lies inside the chunk (its layout was counted when the chunk was chosen), is 4-aligned, and
        // is only ever touched as an atomic while the chunk is an item (I1, I4).
        unsafe {
            &*self
                .slabs
                .ptr(handle)
                .as_ptr()
                .add(offset)
                .cast::<AtomicU32>()
        }
    }

    fn refs(&self, handle: ChunkHandle) -> &AtomicU32 {
        self.optional_word(handle, large_offset(self.state(handle)))
    }

    fn chain(&self, handle: ChunkHandle) -> &AtomicU32 {
        self.optional_word(handle, large_offset(self.state(handle)) + 4)
    }

    /// The first continuation chunk of a chained item.
    pub fn chain_start(&self, handle: ChunkHandle) -> Option<ChunkHandle> {
        if self.state(handle) & state::LARGE == 0 {
            return None;
        }
        ChunkHandle::from_raw(self.chain(handle).load(Relaxed))
    }

    /// True if somebody besides the table holds a reference.
    #[inline]
    pub fn is_pinned(&self, handle: ChunkHandle) -> bool {
        self.state(handle) & state::LARGE != 0 && self.refs(handle).load(Acquire) > 1
    }

    // ---- bytes --------------------------------------------------------------------------------------------------

    /// The key; the caller keeps I3 for as long as it holds the slice.
    #[inline]
    pub fn key(&self, handle: ChunkHandle) -> &[u8] {
        let (offset, len) = (key_offset(self.state(handle)), self.key_len(handle));
        // SAFETY: a linked or owned item's key lies inside its chunk and does not change (I1, I3).
        unsafe { self.slabs.bytes(handle, offset, len) }
    }

    /// The part of the value that lies in the head chunk: all of it unless the item is chained. The caller keeps I3.
    #[inline]
    pub fn head_value(&self, handle: ChunkHandle) -> &[u8] {
        let offset = key_offset(self.state(handle)) + self.key_len(handle);
        let len = self.head_value_len(handle, offset);
        // SAFETY: as for the key; `len` was cut to what the head chunk holds.
        unsafe { self.slabs.bytes(handle, offset, len) }
    }

    #[inline]
    fn head_value_len(&self, handle: ChunkHandle, offset: usize) -> usize {
        let len = self.value_len(handle);
        if self.state(handle) & state::LARGE == 0 {
            len
        } else {
            len.min(self.slabs.chunk_bytes(self.slabs.class_of(handle)) - offset)
        }
    }

    /// The value's pieces in order; the caller keeps I3.
    pub fn value_pieces(&self, handle: ChunkHandle) -> impl Iterator<Item = &[u8]> {
        let mut next = Some(handle);
        std::iter::from_fn(move || {
            let at = next?;
            next = self.chunk_after(at);
            Some(self.chunk_value(at))
        })
    }

    /// The next chunk of the same item.
    fn chunk_after(&self, chunk: ChunkHandle) -> Option<ChunkHandle> {
        if self.state(chunk) & state::CONTINUATION != 0 {
            self.next(chunk)
        } else {
            self.chain_start(chunk)
        }
    }

    /// The value bytes in one chunk of an item.
    fn chunk_value(&self, chunk: ChunkHandle) -> &[u8] {
        if self.state(chunk) & state::CONTINUATION == 0 {
            return self.head_value(chunk);
        }
        // SAFETY: a continuation's bytes follow the same rules as its head's (I3).
        unsafe { self.slabs.bytes(chunk, HEADER_BYTES, self.value_len(chunk)) }
    }

    /// Overwrites the value of a linked item that is not LARGE with one of the same length; the caller holds its stripe
    /// lock.
    pub fn overwrite_value(&self, handle: ChunkHandle, value: &[u8]) {
        assert!(value.len() == self.value_len(handle) && self.state(handle) & state::LARGE == 0);
        let offset = key_offset(self.state(handle)) + self.key_len(handle);
        // SAFETY: the stripe lock excludes readers (I3), and the value lies inside the chunk.
        unsafe { self.slabs.bytes_mut(handle, offset, value.len()) }.copy_from_slice(value);
    }

    /// Bytes the item asked for: header, fields, key and value (`bytes`, `mem_requested`).
    pub fn requested_bytes(&self, handle: ChunkHandle) -> usize {
        let chained = self.value_pieces_chunks(handle).count() - 1;
        self.bytes_in_one_chunk(handle) + chained * HEADER_BYTES
    }

    /// The bytes it would take to keep all of the item in one chunk.
    pub fn bytes_in_one_chunk(&self, handle: ChunkHandle) -> usize {
        key_offset(self.state(handle)) + self.key_len(handle) + self.value_len(handle)
    }

    fn value_pieces_chunks(&self, handle: ChunkHandle) -> impl Iterator<Item = ChunkHandle> {
        std::iter::successors(Some(handle), |&chunk| self.chunk_after(chunk))
    }

    // ---- life ---------------------------------------------------------------------------------------------------

    /// The size of an item as it would lie in one chunk, in bytes.
    pub fn item_bytes(&self, spec: &ItemSpec<'_>) -> usize {
        key_offset(self.state_for(spec)) + spec.key.len() + spec.value_len as usize
    }

    fn state_for(&self, spec: &ItemSpec<'_>) -> u16 {
        let mut bits = state::ITEM;
        let mut set = |condition, bit| bits |= if condition { bit } else { 0 };
        set(self.use_cas, state::HAS_CAS);
        set(spec.client_flags != 0, state::HAS_CLIENT_FLAGS);
        set(spec.key_binary, state::KEY_BINARY);
        let value_len = spec.value_len as usize;
        // With small chunks (`-o slab_chunk_max`) a short value is chained too, which takes the field of the chain.
        let in_one_chunk = key_offset(bits) + spec.key.len() + value_len <= self.chunk_bytes_max;
        if value_len >= LARGE_VALUE_MIN || !in_one_chunk {
            bits |= state::LARGE;
        }
        bits
    }

    /// The class the (head) chunk of such an item comes from; errors if it is above the item limit.
    pub fn class_for(&self, spec: &ItemSpec<'_>) -> Result<ClassId, AllocError> {
        let bytes = self.item_bytes(spec);
        if bytes > self.item_bytes_max {
            return Err(AllocError::TooLarge);
        }
        Ok(self
            .slabs
            .class_for(bytes)
            .unwrap_or_else(|| self.slabs.largest()))
    }

    /// Makes an unlinked item with an unwritten value, all of its chunks at hand; `alloc` finds them.
    pub fn create(
        &self,
        spec: &ItemSpec<'_>,
        mut alloc: impl FnMut(ClassId) -> Option<ChunkHandle>,
    ) -> Result<NewItem<'_>, AllocError> {
        let mut item = self.begin(spec, &mut alloc)?;
        while item.extend(&mut alloc)? {}
        Ok(item)
    }

    /// Makes an unlinked item of which only the first chunk is there yet; [`NewItem::extend`] adds the others.
    pub fn begin(
        &self,
        spec: &ItemSpec<'_>,
        alloc: impl FnOnce(ClassId) -> Option<ChunkHandle>,
    ) -> Result<NewItem<'_>, AllocError> {
        let class = self.class_for(spec)?;
        let handle = alloc(class).ok_or(AllocError::OutOfMemory)?;
        let bits = self.state_for(spec);
        self.set_next(handle, None);
        self.set_prev(handle, None);
        self.set_expires_at(handle, spec.expires_at);
        self.set_accessed_at(handle, RelTime(0));
        self.word(handle, VALUE_LEN).store(spec.value_len, Relaxed);
        self.key_len_byte(handle)
            .store(spec.key.len() as u8, Relaxed);
        self.slabs
            .atomic_u8(handle, CLASS)
            .store(class.get(), Relaxed);
        self.state_word(handle).store(bits, Release);
        if bits & state::HAS_CAS != 0 {
            self.slabs.atomic_u64(handle, CAS).store(0, Relaxed);
        }
        if bits & state::HAS_CLIENT_FLAGS != 0 {
            self.optional_word(handle, flags_offset(bits))
                .store(spec.client_flags, Relaxed);
        }
        let key_at = key_offset(bits);
        // SAFETY: the chunk was just allocated, nobody else knows it (I1), and the key fits: it was counted by
        // `item_bytes`, or the class is the largest, which holds far more than a header and a key.
        unsafe { self.slabs.bytes_mut(handle, key_at, spec.key.len()) }.copy_from_slice(spec.key);
        let mut item = NewItem {
            items: self,
            handle,
            chunk: handle,
            filled: 0,
            last: handle,
            missing: 0,
        };
        if bits & state::LARGE != 0 {
            self.refs(handle).store(1, Relaxed);
            self.chain(handle).store(0, Relaxed);
            item.missing = spec.value_len as usize - self.head_value(handle).len();
        }
        Ok(item)
    }

    /// Drops one hold on an item that is not linked (any more): the last one frees its chunks.
    pub fn release(&self, handle: ChunkHandle) {
        if self.state(handle) & state::LARGE != 0 {
            if self.refs(handle).fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            let mut next = self.chain_start(handle);
            while let Some(chunk) = next {
                next = self.next(chunk);
                self.free_chunk(chunk);
            }
        }
        self.free_chunk(handle);
    }

    fn free_chunk(&self, chunk: ChunkHandle) {
        self.state_word(chunk).store(0, Release);
        // SAFETY: the caller dropped the last hold (I1, I2): no table slot, LRU link or reference names the chunk.
        unsafe { self.slabs.free(chunk) };
    }

    /// Takes a reference on a LARGE item; the caller holds its stripe lock.
    pub fn pin(&self, handle: ChunkHandle) -> PinnedValue<'_> {
        assert!(
            self.state(handle) & state::LARGE != 0,
            "only large items count references"
        );
        self.refs(handle).fetch_add(1, Relaxed);
        PinnedValue {
            items: self,
            handle,
            chunk: Some(handle),
            sent: 0,
        }
    }

    /// Copies an unpinned item whole into `to`, a chunk of the same class (page moves). The caller holds the stripe and
    /// the LRU lock, has yet to change slot and links from `from` to `to`, and then gives `from` back.
    pub fn copy_head(&self, from: ChunkHandle, to: ChunkHandle) {
        let class = self.slabs.class_of(from);
        assert!(class == self.slabs.class_of(to) && !self.is_pinned(from));
        for offset in [NEXT, PREV, EXPIRES_AT, ACCESSED_AT, VALUE_LEN] {
            self.word(to, offset)
                .store(self.word(from, offset).load(Relaxed), Relaxed);
        }
        self.key_len_byte(to)
            .store(self.key_len(from) as u8, Relaxed);
        self.slabs.atomic_u8(to, CLASS).store(class.get(), Relaxed);
        let bits = self.state(from);
        self.state_word(to).store(bits, Relaxed);
        let len = self.slabs.chunk_bytes(class) - HEADER_BYTES;
        // SAFETY: stripe and LRU lock together exclude every reader and writer of a linked, unpinned item (I3); `to`
        // was just allocated and is not yet known to anybody else. Both chunks have the class's size.
        unsafe {
            let source = self.slabs.bytes(from, HEADER_BYTES, len);
            self.slabs
                .bytes_mut(to, HEADER_BYTES, len)
                .copy_from_slice(source);
        }
        let mut next = self.chain_start(to);
        while let Some(chunk) = next {
            self.word(chunk, CONTINUED_HEAD).store(to.to_raw(), Relaxed);
            next = self.next(chunk);
        }
    }

    /// Moves continuation chunk `from` of the linked, unpinned item `head` to `to`, and frees `from`. The caller holds
    /// the stripe and the LRU lock. Gives false, leaving `to` to the caller, if the chain does not hold `from`.
    pub fn move_continuation(&self, head: ChunkHandle, from: ChunkHandle, to: ChunkHandle) -> bool {
        let before = self
            .value_pieces_chunks(head)
            .find(|&chunk| self.chunk_after(chunk) == Some(from));
        let Some(before) = before else { return false };
        for offset in [NEXT, CONTINUED_HEAD, EXPIRES_AT, ACCESSED_AT, VALUE_LEN] {
            self.word(to, offset)
                .store(self.word(from, offset).load(Relaxed), Relaxed);
        }
        self.state_word(to).store(state::CONTINUATION, Relaxed);
        let len = self.value_len(from);
        // SAFETY: as in `copy_head`.
        unsafe {
            let source = self.slabs.bytes(from, HEADER_BYTES, len);
            self.slabs
                .bytes_mut(to, HEADER_BYTES, len)
                .copy_from_slice(source);
        }
        let link = if before == head {
            self.chain(head)
        } else {
            self.word(before, NEXT)
        };
        link.store(to.to_raw(), Relaxed);
        self.free_chunk(from);
        true
    }

    /// True if `chunk` continues the linked item `head`; the caller holds its LRU lock.
    pub fn owns_chunk(&self, head: ChunkHandle, chunk: ChunkHandle) -> bool {
        self.value_pieces_chunks(head).skip(1).any(|at| at == chunk)
    }

    /// The item a continuation chunk says it belongs to: to be checked under a lock.
    pub fn continued_head(&self, chunk: ChunkHandle) -> Option<ChunkHandle> {
        ChunkHandle::from_raw(self.word(chunk, CONTINUED_HEAD).load(Relaxed))
    }

    /// Gives back a chunk that never became an item.
    pub fn give_back(&self, chunk: ChunkHandle) {
        self.free_chunk(chunk);
    }
}

#[inline]
fn flags_offset(bits: u16) -> usize {
    HEADER_BYTES
        + if bits & state::HAS_CAS != 0 {
            CAS_BYTES
        } else {
            0
        }
}

#[inline]
fn large_offset(bits: u16) -> usize {
    flags_offset(bits)
        + if bits & state::HAS_CLIENT_FLAGS != 0 {
            4
        } else {
            0
        }
}

#[inline]
fn key_offset(bits: u16) -> usize {
    large_offset(bits) + if bits & state::LARGE != 0 { 8 } else { 0 }
}

/// An item that only its owner knows: its value is being written, in order. Dropped unlinked, it is freed.
pub struct NewItem<'c> {
    items: &'c Items,
    handle: ChunkHandle,
    /// The chunk being filled, and how far.
    chunk: ChunkHandle,
    filled: usize,
    /// The last chunk of the chain, and the bytes of the value that have no chunk yet.
    last: ChunkHandle,
    missing: usize,
}

impl NewItem<'_> {
    /// Adds the next chunk to the chain; false if all of the value has its place.
    pub fn extend(
        &mut self,
        alloc: impl FnOnce(ClassId) -> Option<ChunkHandle>,
    ) -> Result<bool, AllocError> {
        if self.missing == 0 {
            return Ok(false);
        }
        let (items, slabs) = (self.items, &self.items.slabs);
        let class = self.next_class();
        let chunk = alloc(class).ok_or(AllocError::OutOfMemory)?;
        let len = self.missing.min(slabs.chunk_bytes(class) - HEADER_BYTES);
        items.set_next(chunk, None);
        items
            .word(chunk, CONTINUED_HEAD)
            .store(self.handle.to_raw(), Relaxed);
        items.word(chunk, VALUE_LEN).store(len as u32, Relaxed);
        items.state_word(chunk).store(state::CONTINUATION, Release);
        if self.last == self.handle {
            items.chain(self.handle).store(chunk.to_raw(), Relaxed);
        } else {
            items.set_next(self.last, Some(chunk));
        }
        self.last = chunk;
        self.missing -= len;
        Ok(true)
    }

    /// The class of the next chunk. Few classes serve the ends of chains, those of the powers of two, so that their
    /// pages do not lie half empty: the one that holds all the rest if it wastes little, else the one below it.
    fn next_class(&self) -> ClassId {
        let slabs = &self.items.slabs;
        let rest = HEADER_BYTES + self.missing;
        let fit = rest.next_power_of_two();
        let class_for = |bytes| slabs.class_for(bytes).unwrap_or_else(|| slabs.largest());
        if (fit - rest) * END_WASTE_PART <= self.value_len() {
            class_for(fit)
        } else {
            class_for(fit / 2)
        }
    }

    /// The item's handle.
    pub fn handle(&self) -> ChunkHandle {
        self.handle
    }

    /// Bytes of the whole value.
    pub fn value_len(&self) -> usize {
        self.items.value_len(self.handle)
    }

    /// The class of its (head) chunk.
    pub fn class(&self) -> ClassId {
        self.items.class(self.handle).expect("an item has a class")
    }

    /// The value's pieces in order.
    pub fn value_pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.items.value_pieces(self.handle)
    }

    /// The next unwritten bytes of the value, as many as lie in one piece; empty when the value is complete, or its
    /// next chunk is yet to be added.
    pub fn spare(&mut self) -> &mut [u8] {
        loop {
            let len = self.items.chunk_value(self.chunk).len();
            if self.filled == len
                && let Some(next) = self.items.chunk_after(self.chunk)
            {
                (self.chunk, self.filled) = (next, 0);
                continue;
            }
            let bits = self.items.state(self.chunk);
            let start = if bits & state::CONTINUATION != 0 {
                HEADER_BYTES
            } else {
                key_offset(bits) + self.items.key_len(self.chunk)
            };
            // SAFETY: nobody but the owner knows the item (I1); the range is the value part of the chunk.
            return unsafe {
                self.items
                    .slabs
                    .bytes_mut(self.chunk, start + self.filled, len - self.filled)
            };
        }
    }

    /// Notes that the first `n` bytes of [`NewItem::spare`] are written.
    pub fn advance(&mut self, n: usize) {
        self.filled += n;
        assert!(self.filled <= self.items.chunk_value(self.chunk).len());
    }

    /// Writes the next bytes of the value; gives how many fitted.
    pub fn write(&mut self, mut bytes: &[u8]) -> usize {
        let mut written = 0;
        while !bytes.is_empty() {
            let spare = self.spare();
            let n = spare.len().min(bytes.len());
            if n == 0 {
                break;
            }
            spare[..n].copy_from_slice(&bytes[..n]);
            self.advance(n);
            bytes = &bytes[n..];
            written += n;
        }
        written
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.items.key(self.handle)
    }

    /// Hands the item over to the table and the LRU.
    pub fn into_handle(self) -> ChunkHandle {
        let handle = self.handle;
        std::mem::forget(self);
        handle
    }
}

impl Drop for NewItem<'_> {
    fn drop(&mut self) {
        self.items.release(self.handle);
    }
}

impl fmt::Debug for NewItem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewItem({:?})", self.handle)
    }
}

/// A hold on a large value while it is being sent; the item may be unlinked meanwhile.
pub struct PinnedValue<'c> {
    items: &'c Items,
    handle: ChunkHandle,
    /// The chunk being sent, and how far; none when all is sent.
    chunk: Option<ChunkHandle>,
    sent: usize,
}

impl PinnedValue<'_> {
    /// Up to `max` pieces of what is still to be sent.
    pub fn unsent(&self, max: usize) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.sent;
        std::iter::successors(self.chunk, |&chunk| self.items.chunk_after(chunk))
            .take(max)
            .map(move |chunk| &self.items.chunk_value(chunk)[std::mem::take(&mut skip)..])
    }

    /// Bytes still to be sent.
    pub fn unsent_len(&self) -> usize {
        self.unsent(usize::MAX).map(<[u8]>::len).sum()
    }

    /// Notes that `n` bytes were sent; gives how many of them were beyond this value.
    pub fn advance(&mut self, mut n: usize) -> usize {
        while let Some(chunk) = self.chunk {
            let left = self.items.chunk_value(chunk).len() - self.sent;
            if n < left {
                self.sent += n;
                return 0;
            }
            n -= left;
            self.sent = 0;
            self.chunk = self.items.chunk_after(chunk);
        }
        n
    }

    /// True when all is sent.
    pub fn is_sent(&self) -> bool {
        self.chunk.is_none()
    }
}

impl Drop for PinnedValue<'_> {
    fn drop(&mut self) {
        self.items.release(self.handle);
    }
}

impl fmt::Debug for PinnedValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedValue({:?}, {} sent)", self.handle, self.sent)
    }
}

/// The source of CAS uniques: one count for the whole server, so that a unique never comes twice.
#[derive(Debug, Default)]
pub struct CasSource(AtomicU64);

impl CasSource {
    /// The next unique, never 0.
    #[inline]
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }

    /// The last one given out.
    #[inline]
    pub fn last(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
