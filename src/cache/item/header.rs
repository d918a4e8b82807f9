//! The header of an item or of a continuation chunk, and the bits of its state word.
//!
//! All of it is atomics, so that others may look while an owner writes. Whose header it is, and what must not change
//! meanwhile, is named by invariants I2 to I5 of the parent module.

use std::mem::offset_of;
use std::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32,
    Ordering::{Relaxed, Release},
};

use slab_alloc::{Atomics, ChunkHandle, ClassId};

use crate::clock::RelTime;

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

/// Bytes of the header without the CAS unique.
pub const HEADER_BYTES: usize = size_of::<Header>();
const _: () = assert!(
    HEADER_BYTES == 24,
    "an item spends 24 bytes and its CAS unique"
);

/// The words every item has.
#[derive(Debug)]
#[repr(C)]
pub struct Header {
    next: AtomicU32,
    prev: AtomicU32,
    expires_at: AtomicU32,
    accessed_at: AtomicU32,
    value_len: AtomicU32,
    key_len: AtomicU8,
    class: AtomicU8,
    state: AtomicU16,
}

/// Where the LRU's links are.
pub(super) const LINKS: [usize; 2] = [offset_of!(Header, next), offset_of!(Header, prev)];

// SAFETY: atomics alone, without padding (the fields' sizes add up to that of the whole).
unsafe impl Atomics for Header {}

fn load(word: &AtomicU32) -> Option<ChunkHandle> {
    ChunkHandle::from_raw(word.load(Relaxed))
}

fn store(word: &AtomicU32, handle: Option<ChunkHandle>) {
    word.store(handle.map_or(0, ChunkHandle::to_raw), Relaxed);
}

impl Header {
    /// The LRU link towards the tail; in a continuation, the next chunk.
    #[inline]
    pub fn next(&self) -> Option<ChunkHandle> {
        load(&self.next)
    }

    /// Sets the LRU link towards the tail; in a continuation, the next chunk.
    #[inline]
    pub fn set_next(&self, next: Option<ChunkHandle>) {
        store(&self.next, next);
    }

    /// The LRU link towards the head.
    #[inline]
    pub fn prev(&self) -> Option<ChunkHandle> {
        load(&self.prev)
    }

    /// Sets the LRU link towards the head.
    #[inline]
    pub fn set_prev(&self, prev: Option<ChunkHandle>) {
        store(&self.prev, prev);
    }

    /// In a continuation, where a head has an LRU link: the head of its item.
    pub fn continued_head(&self) -> Option<ChunkHandle> {
        load(&self.prev)
    }

    /// Sets the head of a continuation's item.
    pub fn set_continued_head(&self, head: ChunkHandle) {
        store(&self.prev, Some(head));
    }

    /// When the item ends.
    #[inline]
    pub fn expires_at(&self) -> RelTime {
        RelTime(self.expires_at.load(Relaxed))
    }

    /// Gives the item another end; under the stripe lock.
    #[inline]
    pub fn set_expires_at(&self, time: RelTime) {
        self.expires_at.store(time.0, Relaxed);
    }

    /// The second of the last access.
    #[inline]
    pub fn accessed_at(&self) -> RelTime {
        RelTime(self.accessed_at.load(Relaxed))
    }

    /// Notes an access; under the stripe lock.
    #[inline]
    pub fn set_accessed_at(&self, time: RelTime) {
        self.accessed_at.store(time.0, Relaxed);
    }

    /// Bytes of the value; in a continuation, of the part that lies there.
    #[inline]
    pub fn value_len(&self) -> usize {
        self.value_len.load(Relaxed) as usize
    }

    /// Bytes of the key.
    #[inline]
    pub fn key_len(&self) -> usize {
        usize::from(self.key_len.load(Relaxed))
    }

    /// The slab class of the item's LRU: that of its head chunk.
    #[inline]
    pub fn class(&self) -> Option<ClassId> {
        ClassId::new(self.class.load(Relaxed))
    }

    /// The number of that class; in a continuation, of its own chunk's.
    #[inline]
    pub(super) fn class_number(&self) -> u8 {
        self.class.load(Relaxed)
    }

    /// The state bits.
    #[inline]
    pub fn state(&self) -> u16 {
        self.state.load(Relaxed)
    }

    /// Sets state bits and gives the bits before.
    #[inline]
    pub fn set_bits(&self, bits: u16) -> u16 {
        self.state.fetch_or(bits, Relaxed)
    }

    /// Clears state bits and gives the bits before.
    #[inline]
    pub fn clear_bits(&self, bits: u16) -> u16 {
        self.state.fetch_and(!bits, Relaxed)
    }

    /// Stores a small number in a field of the state word.
    #[inline]
    pub fn set_field(&self, mask: u16, shift: u16, value: u16) {
        // Two locks guard different bits of this word, so a change is one read-modify-write.
        let set = |old: u16| Some((old & !mask) | (value << shift));
        let _ = self.state.fetch_update(Relaxed, Relaxed, set);
    }

    /// Counts a read; under the stripe lock.
    #[inline]
    pub fn count_use(&self) {
        if self.state() & state::FETCHED == 0 {
            self.set_bits(state::FETCHED);
        }
        self.count_write();
    }

    /// Counts a change of the value, which is a use but shows it to nobody; under the stripe lock.
    #[inline]
    pub fn count_write(&self) {
        if self.state() & state::USES != state::USES {
            // Only the stripe's holder counts up, others only set the count lower: it cannot overflow.
            self.state.fetch_add(1 << state::USES_SHIFT, Relaxed);
        }
    }

    /// Reads since the policy last looked, up to three.
    #[inline]
    pub fn uses(&self) -> u16 {
        uses(self.state())
    }

    /// Sets that count to no more than it is; under the LRU lock.
    #[inline]
    pub fn set_uses(&self, uses: u16) {
        self.set_field(state::USES, state::USES_SHIFT, uses);
    }

    /// Makes a chunk an unlinked item of these bits, never accessed.
    pub(super) fn begin_item(
        &self,
        class: ClassId,
        key_len: usize,
        value_len: u32,
        expires_at: RelTime,
        bits: u16,
    ) {
        self.set_next(None);
        self.set_prev(None);
        self.set_expires_at(expires_at);
        self.set_accessed_at(RelTime(0));
        self.value_len.store(value_len, Relaxed);
        self.key_len.store(key_len as u8, Relaxed);
        self.class.store(class.get(), Relaxed);
        // Last: a walk over the page takes it for an item from now on (I5).
        self.state.store(bits, Release);
    }

    /// Makes a chunk the last continuation of `head`'s item, for so many bytes of the value.
    pub(super) fn begin_continuation(&self, class: ClassId, head: ChunkHandle, value_len: usize) {
        self.set_next(None);
        self.class.store(class.get(), Relaxed);
        self.set_continued_head(head);
        self.value_len.store(value_len as u32, Relaxed);
        self.state.store(state::CONTINUATION, Release);
    }

    /// Makes the chunk nothing (I5).
    pub(super) fn clear(&self) {
        self.state.store(0, Release);
    }

    /// Takes over what `from` says.
    pub(super) fn copy(&self, from: &Header) {
        let words = |header| {
            let Header {
                next,
                prev,
                expires_at,
                accessed_at,
                value_len,
                ..
            }: &Header = header;
            [next, prev, expires_at, accessed_at, value_len]
        };
        for (to, from) in words(self).into_iter().zip(words(from)) {
            to.store(from.load(Relaxed), Relaxed);
        }
        self.key_len.store(from.key_len.load(Relaxed), Relaxed);
        self.class.store(from.class.load(Relaxed), Relaxed);
        self.state.store(from.state(), Release);
    }
}
