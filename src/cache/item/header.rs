//! The header of an item or of a continuation chunk.
//!
//! All of it is atomics, so that others may look while an owner writes. Whose header it is, and what must not change
//! meanwhile, is named by invariants I2 to I5 of the parent module.

use std::mem::offset_of;
use std::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32,
    Ordering::{Relaxed, Release},
};

use slab_alloc::{Atomics, ChunkHandle, ClassId};

use super::state::{Segment, State};
use crate::clock::RelTime;

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

const _: () = assert!(offset_of!(Header, next) == 0 && offset_of!(Header, prev) == 4);
const _: () = assert!(offset_of!(Header, expires_at) == 8);
const _: () = assert!(offset_of!(Header, accessed_at) == 12);
const _: () = assert!(offset_of!(Header, value_len) == 16 && offset_of!(Header, key_len) == 20);
const _: () = assert!(offset_of!(Header, class) == 21 && offset_of!(Header, state) == 22);

/// Where the LRU's links are.
pub(super) const LINKS: [usize; 2] = [offset_of!(Header, next), offset_of!(Header, prev)];

/// Where everything is, for whoever finds items in a file.
pub const LAYOUT_WORDS: [u64; 10] = [
    HEADER_BYTES as u64,
    offset_of!(Header, next) as u64,
    offset_of!(Header, prev) as u64,
    offset_of!(Header, expires_at) as u64,
    offset_of!(Header, accessed_at) as u64,
    offset_of!(Header, value_len) as u64,
    offset_of!(Header, key_len) as u64,
    offset_of!(Header, class) as u64,
    offset_of!(Header, state) as u64,
    State::LAYOUT,
];

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

    /// The state word.
    #[inline]
    pub fn state(&self) -> State {
        State::from_raw(self.state.load(Relaxed))
    }

    /// Sets state bits: behind all that was written before (I8).
    #[inline]
    pub fn set_bits(&self, bits: State) {
        self.state.fetch_or(bits.to_raw(), Release);
    }

    /// Clears state bits.
    #[inline]
    pub fn clear_bits(&self, bits: State) {
        self.state.fetch_and(!bits.to_raw(), Relaxed);
    }

    /// Puts `bits` into a field of the state word, whose bits are `field`.
    #[inline]
    fn set_field(&self, field: State, bits: State) {
        // What is right already costs no locked instruction.
        if self.state().to_raw() & field.to_raw() == bits.to_raw() {
            return;
        }
        // Two locks guard different bits of this word, so a change is one read-modify-write.
        let set = |old: u16| Some((old & !field.to_raw()) | bits.to_raw());
        let _ = self.state.fetch_update(Relaxed, Relaxed, set);
    }

    /// Names the segment the item is in; under the LRU lock.
    #[inline]
    pub fn set_segment(&self, segment: Segment) {
        self.set_field(State::SEGMENT, State::of_segment(segment));
    }

    /// Counts a read; under the stripe lock.
    #[inline]
    pub fn count_use(&self) {
        if !self.state().is_fetched() {
            self.set_bits(State::FETCHED);
        }
        self.count_write();
    }

    /// Counts a change of the value, which is a use but shows it to nobody; under the stripe lock.
    #[inline]
    pub fn count_write(&self) {
        if self.state().uses() < 3 {
            // Only the stripe's holder counts up, others only set the count lower: it cannot overflow.
            self.state.fetch_add(State::of_uses(1).to_raw(), Relaxed);
        }
    }

    /// Reads since the policy last looked, up to three.
    #[inline]
    pub fn uses(&self) -> u16 {
        self.state().uses()
    }

    /// Sets that count to no more than it is; under the LRU lock.
    #[inline]
    pub fn set_uses(&self, uses: u16) {
        self.set_field(State::USES, State::of_uses(uses));
    }

    /// Makes a chunk an unlinked item of this state, never accessed.
    pub(super) fn begin_item(
        &self,
        class: ClassId,
        key_len: usize,
        value_len: u32,
        expires_at: RelTime,
        state: State,
    ) {
        self.set_next(None);
        self.set_prev(None);
        self.set_expires_at(expires_at);
        self.set_accessed_at(RelTime(0));
        self.value_len.store(value_len, Relaxed);
        self.key_len.store(key_len as u8, Relaxed);
        self.class.store(class.get(), Relaxed);
        // Last: a walk over the page takes it for an item from now on (I5).
        self.state.store(state.to_raw(), Release);
    }

    /// Makes a chunk the last continuation of `head`'s item, for so many bytes of the value.
    pub(super) fn begin_continuation(&self, class: ClassId, head: ChunkHandle, value_len: usize) {
        self.set_next(None);
        self.class.store(class.get(), Relaxed);
        self.set_continued_head(head);
        self.value_len.store(value_len as u32, Relaxed);
        self.state.store(State::CONTINUATION.to_raw(), Release);
    }

    /// Takes over what an item's state says of it beside its layout: how it was used, where it was in the LRU, its marks.
    pub(super) fn take_over_bits(&self, from: State) {
        let field = State::FETCHED
            | State::USES
            | State::STALE
            | State::WIN_SENT
            | State::SEGMENT
            | State::GENERATION;
        self.set_field(field, from.only(field));
    }

    /// Makes the chunk nothing (I5).
    pub(super) fn clear(&self) {
        self.state.store(State::NOTHING.to_raw(), Release);
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
        self.state.store(from.state().to_raw(), Release);
    }
}
