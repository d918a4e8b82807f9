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
//! I4. Header words are atomics. Who has no lock that keeps an item where it is looks at them while the chunk's page is held
//!     to its class (`SlabAllocator::hold_page`), and looks again under a lock before anything is concluded from it.
//! I5. The state word is 0 in a chunk that is free or not yet initialised: `free` clears it first, and the allocator
//!     zeroes it in a chunk it hands out for the first time. So a walk over a page sees only real items.
//! I6. The lifetime `'c` of an owner ([`NewItem`], [`PinnedValue`], [`Spare`]) keeps the arena mapped.
//! I7. What is read or written as bytes lies inside its chunk, whose class the header tells: checked at each access.
//! I8. In a memory file, LINKED says that key and value are whole whenever the process may end: it is set behind the last byte
//!     that is written, and cleared before the first that is overwritten. A value that is changed where it lies is marked
//!     elsewhere meanwhile (`MemoryFile::write_in_place`).
//!
//! This module is one of the three rooms where unsafe code is allowed. Its functions are for `cache` alone; each that reads or
//! writes bytes names the invariant its caller keeps.
#![allow(unsafe_code)]

mod header;
mod new_item;
mod pieces;
mod pinned;
mod salvage;
mod spare;
mod state;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use slab_alloc::{CLASSES_MAX, ChunkHandle, ClassId, REACH_BYTES, SlabAllocator};

pub use self::header::{HEADER_BYTES, Header, LAYOUT_WORDS};
pub use self::new_item::NewItem;
pub use self::pieces::LARGE_VALUE_MIN;
pub use self::pinned::PinnedValue;
pub use self::spare::Spare;
pub use self::state::{Segment, State};
use crate::clock::RelTime;
use crate::packing::Unpacker;

/// Where the CAS unique is.
const CAS: usize = HEADER_BYTES;
/// Bytes of the CAS unique.
const CAS_BYTES: usize = 8;
/// Bytes an item spends before its key: header and CAS unique.
pub const ITEM_HEAD_BYTES: usize = HEADER_BYTES + CAS_BYTES;
const _: () = assert!(
    ITEM_HEAD_BYTES == 32,
    "an item spends 32 bytes before its key"
);
const _: () = assert!(ITEM_HEAD_BYTES <= slab_alloc::HEADER_ZEROED);

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
    /// Values of at least so many bytes are large.
    large_value_min: usize,
    /// Large values are laid in pieces ([`pieces`]).
    in_pieces: bool,
    /// The size of a class's chunks by the class's number, 0 for a number that no class has.
    chunk_bytes: Box<[u32; CLASSES_MAX]>,
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
        let mut chunk_bytes = Box::new([0; CLASSES_MAX]);
        for class in slabs.classes() {
            chunk_bytes[class.index()] = slabs.chunk_bytes(class) as u32;
        }
        let pieces_from = pieces::value_min(&slabs, item_bytes_max);
        Items {
            in_pieces: pieces_from.is_some(),
            large_value_min: pieces_from.unwrap_or(LARGE_VALUE_MIN),
            chunk_bytes,
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

    /// The header of the chunk of any handle.
    #[inline]
    pub fn header(&self, handle: ChunkHandle) -> &Header {
        self.slabs.header(handle, 0)
    }

    /// Asks the processor for the headers of an item's neighbours in its LRU list. Any handle will do.
    #[inline]
    pub fn prefetch_neighbours(&self, handle: ChunkHandle) {
        for link in header::LINKS {
            self.slabs.prefetch_linked(handle, link);
        }
    }

    #[inline]
    fn cas_word(&self, handle: ChunkHandle) -> &AtomicU64 {
        self.slabs.header(handle, CAS)
    }

    /// The CAS unique, 0 with `-C`.
    #[inline]
    pub fn cas(&self, handle: ChunkHandle) -> u64 {
        self.cas_with(handle, self.header(handle).state())
    }

    #[inline(always)]
    fn cas_with(&self, handle: ChunkHandle, bits: State) -> u64 {
        let word = bits.has(State::HAS_CAS).then(|| self.cas_word(handle));
        word.map_or(0, |word| word.load(Relaxed))
    }

    /// Gives the item a CAS unique; nothing happens with `-C`. Under the stripe lock.
    #[inline]
    pub fn set_cas(&self, handle: ChunkHandle, cas: u64) {
        if self.header(handle).state().has(State::HAS_CAS) {
            self.cas_word(handle).store(cas, Relaxed);
        }
    }

    /// The client flags of an item with this header.
    #[inline]
    pub fn client_flags(&self, handle: ChunkHandle, header: &Header) -> u32 {
        let bits = header.state();
        if !bits.has(State::HAS_CLIENT_FLAGS) {
            return 0;
        }
        self.optional_word(handle, flags_offset(bits)).load(Relaxed)
    }

    /// An optional 32-bit field of an item that the caller keeps where it is (I1); its bit of the state word tells that it is
    /// there.
    #[inline]
    fn optional_word(&self, handle: ChunkHandle, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= REACH_BYTES);
        // SAFETY: so near to a handle, the field lies inside the arena (A3 of slab-alloc), and inside the chunk, as its layout
        // was counted when that was chosen. It is 4-aligned, and only ever touched as an atomic while the chunk is an
        // item (I1).
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
        self.optional_word(handle, large_offset(self.header(handle).state()))
    }

    fn chain(&self, handle: ChunkHandle) -> &AtomicU32 {
        self.optional_word(handle, large_offset(self.header(handle).state()) + 4)
    }

    /// The first continuation chunk of a chained item.
    pub fn chain_start(&self, handle: ChunkHandle) -> Option<ChunkHandle> {
        if !self.header(handle).state().has(State::LARGE) {
            return None;
        }
        ChunkHandle::from_raw(self.chain(handle).load(Relaxed))
    }

    /// True if somebody besides the table holds a reference.
    #[inline]
    pub fn is_pinned(&self, handle: ChunkHandle) -> bool {
        self.header(handle).state().has(State::LARGE) && self.refs(handle).load(Acquire) > 1
    }

    // ---- bytes --------------------------------------------------------------------------------------------------

    /// Panics if what ends there would not lie inside the chunk of this header (I7).
    #[inline(always)]
    fn assert_inside(&self, header: &Header, end: usize) {
        let chunk_bytes = self.chunk_bytes[usize::from(header.class_number())];
        assert!(end <= chunk_bytes as usize, "a part behind its chunk's end");
    }

    /// A part of a chunk of an item, which has this header. The caller keeps I3 for as long as it holds the slice.
    #[inline(always)]
    fn part(&self, chunk: ChunkHandle, header: &Header, part: Range<usize>) -> &[u8] {
        self.assert_inside(header, part.end);
        // SAFETY: a linked or owned item's key and value do not change (I1, I3), and the part lies inside the chunk (I7).
        unsafe { self.slabs.bytes(chunk, part.start, part.len()) }
    }

    /// The key; the caller keeps I3 for as long as it holds the slice.
    #[inline]
    pub fn key(&self, handle: ChunkHandle) -> &[u8] {
        let header = self.header(handle);
        let start = key_offset(header.state());
        self.part(handle, header, start..start + header.key_len())
    }

    /// Key and CAS unique of an item with this header. The caller keeps I3 for as long as it holds the slice.
    #[inline(always)]
    pub fn key_and_cas(&self, handle: ChunkHandle, header: &Header) -> (&[u8], u64) {
        let bits = header.state();
        let start = key_offset(bits);
        let key = self.part(handle, header, start..start + header.key_len());
        (key, self.cas_with(handle, bits))
    }

    /// The value of an item with this header, unless it is LARGE. The caller keeps I3.
    #[inline(always)]
    pub fn small_value(&self, handle: ChunkHandle, header: &Header) -> Option<&[u8]> {
        let bits = header.state();
        if bits.has(State::LARGE) {
            return None;
        }
        let start = key_offset(bits) + header.key_len();
        Some(self.part(handle, header, start..start + header.value_len()))
    }

    /// Where in a chunk of an item its part of the value lies: in the head chunk all of it, unless the item is chained.
    #[inline(always)]
    fn value_range(&self, chunk: ChunkHandle) -> Range<usize> {
        let header = self.header(chunk);
        let (bits, len) = (header.state(), header.value_len());
        if !bits.has(State::LARGE | State::CONTINUATION) {
            let start = key_offset(bits) + header.key_len();
            return start..start + len;
        }
        if bits.has(State::CONTINUATION) {
            return HEADER_BYTES..HEADER_BYTES + len;
        }
        let start = key_offset(bits) + header.key_len();
        let room = self.chunk_bytes[usize::from(header.class_number())] as usize - start;
        start..start + len.min(room)
    }

    /// The part of the value that lies in a chunk of an item. The caller keeps I3.
    #[inline(always)]
    fn chunk_value(&self, chunk: ChunkHandle) -> &[u8] {
        self.part(chunk, self.header(chunk), self.value_range(chunk))
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
        if self.header(chunk).state().has(State::CONTINUATION) {
            self.header(chunk).next()
        } else {
            self.chain_start(chunk)
        }
    }

    /// Overwrites the value of a linked item that is not LARGE with one of the same length; the caller holds its stripe
    /// lock.
    pub fn overwrite_value(&self, handle: ChunkHandle, value: &[u8]) {
        assert!(
            value.len() == self.header(handle).value_len()
                && !self.header(handle).state().has(State::LARGE)
        );
        let place = self.value_range(handle);
        self.assert_inside(self.header(handle), place.end);
        // SAFETY: the stripe lock excludes readers (I3), and the value lies inside the chunk (I7).
        unsafe { self.slabs.bytes_mut(handle, place.start, value.len()) }.copy_from_slice(value);
    }

    /// Bytes the item asked for: header, fields, key and value (`bytes`, `mem_requested`).
    #[inline]
    pub fn requested_bytes(&self, handle: ChunkHandle) -> usize {
        let header = self.header(handle);
        let is_large = header.state().has(State::LARGE);
        let chained = is_large.then(|| self.chain_headers_bytes(handle));
        bytes_unchained(header) + chained.unwrap_or(0)
    }

    /// The bytes it takes to keep all of the item in one chunk, of one that is not laid in pieces.
    pub fn bytes_in_one_chunk(&self, handle: ChunkHandle) -> Option<usize> {
        let header = self.header(handle);
        let is_in_pieces = self.in_pieces && header.state().has(State::LARGE);
        (!is_in_pieces).then(|| bytes_unchained(header))
    }

    fn value_pieces_chunks(&self, handle: ChunkHandle) -> impl Iterator<Item = ChunkHandle> {
        std::iter::successors(Some(handle), |&chunk| self.chunk_after(chunk))
    }

    // ---- life ---------------------------------------------------------------------------------------------------

    /// The size of an item as it would lie in one chunk, in bytes.
    pub fn item_bytes(&self, spec: &ItemSpec<'_>) -> usize {
        key_offset(self.state_for(spec)) + spec.key.len() + spec.value_len as usize
    }

    fn state_for(&self, spec: &ItemSpec<'_>) -> State {
        let mut bits = State::ITEM;
        let mut set = |condition, bit| bits = if condition { bits | bit } else { bits };
        set(self.use_cas, State::HAS_CAS);
        set(spec.client_flags != 0, State::HAS_CLIENT_FLAGS);
        set(spec.key_binary, State::KEY_BINARY);
        let value_len = spec.value_len as usize;
        // With small chunks (`-o slab_chunk_max`) a short value is chained too, which takes the field of the chain.
        let in_one_chunk = key_offset(bits) + spec.key.len() + value_len <= self.chunk_bytes_max;
        if value_len >= self.large_value_min || !in_one_chunk {
            bits = bits | State::LARGE;
        }
        bits
    }

    /// The class the (head) chunk of such an item comes from; errors if it is above the item limit.
    pub fn class_for(&self, spec: &ItemSpec<'_>) -> Result<ClassId, AllocError> {
        self.class_for_bytes(self.item_bytes(spec), self.state_for(spec))
    }

    #[inline]
    fn class_for_bytes(&self, bytes: usize, bits: State) -> Result<ClassId, AllocError> {
        if bytes > self.item_bytes_max {
            return Err(AllocError::TooLarge);
        }
        if self.in_pieces && bits.has(State::LARGE) {
            return Ok(self.head_class(bytes));
        }
        Ok(self
            .slabs
            .class_for(bytes)
            .unwrap_or_else(|| self.slabs.largest()))
    }

    /// Pages of a class without which some item could not be made: one, but of the largest class, which long values are
    /// chained from, as many as the largest item takes.
    pub fn pages_for_one(&self, class: ClassId) -> usize {
        if class != self.slabs.largest() {
            return 1;
        }
        let chunks = self.item_bytes_max / (self.chunk_bytes_max - HEADER_BYTES) + 1;
        chunks.div_ceil(self.slabs.page_bytes() / self.chunk_bytes_max)
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
        let bits = self.state_for(spec);
        let key_at = key_offset(bits);
        let value_at = key_at + spec.key.len();
        let class = self.class_for_bytes(value_at + spec.value_len as usize, bits)?;
        let handle = alloc(class).ok_or(AllocError::OutOfMemory)?;
        // It may be a larger one, if there was no other.
        let class = self.slabs.class_of(handle);
        let header = self.header(handle);
        header.begin_item(class, spec.key.len(), spec.value_len, spec.expires_at, bits);
        if bits.has(State::HAS_CAS) {
            self.cas_word(handle).store(0, Relaxed);
        }
        if bits.has(State::HAS_CLIENT_FLAGS) {
            self.optional_word(handle, flags_offset(bits))
                .store(spec.client_flags, Relaxed);
        }
        self.assert_inside(header, value_at);
        // SAFETY: the chunk was just allocated, nobody else knows it (I1), and the key lies inside it (I7).
        unsafe { self.slabs.bytes_mut(handle, key_at, spec.key.len()) }.copy_from_slice(spec.key);
        let value_len = spec.value_len as usize;
        let mut place = value_at..value_at + value_len;
        if bits.has(State::LARGE) {
            self.refs(handle).store(1, Relaxed);
            self.chain(handle).store(0, Relaxed);
            place = self.value_range(handle);
        }
        Ok(NewItem::of(self, handle, value_len, place))
    }

    /// A handle that another process has written down: none if no item can be there.
    fn unpack_handle(&self, from: &mut Unpacker<'_>) -> Option<ChunkHandle> {
        self.found_handle(from.number()?)
    }

    fn found_handle(&self, raw: u32) -> Option<ChunkHandle> {
        let handle = ChunkHandle::from_raw(raw)?;
        let class = self.class_of_found(handle)?;
        (self.header(handle).class() == Some(class)).then_some(handle)
    }

    /// Drops one hold on an item that is not linked (any more): the last one frees its chunks.
    pub fn release(&self, handle: ChunkHandle) {
        if self.header(handle).state().has(State::LARGE) {
            if self.refs(handle).fetch_sub(1, AcqRel) != 1 {
                return;
            }
            let mut next = self.chain_start(handle);
            while let Some(chunk) = next {
                next = self.header(chunk).next();
                self.free_chunk(chunk);
            }
        }
        self.free_chunk(handle);
    }

    fn free_chunk(&self, chunk: ChunkHandle) {
        self.header(chunk).clear();
        // SAFETY: the caller dropped the last hold (I1, I2): no table slot, LRU link or reference names the chunk.
        unsafe { self.slabs.free(chunk) };
    }

    /// Takes a reference on a LARGE item; the caller holds its stripe lock.
    pub fn pin(&self, handle: ChunkHandle) -> PinnedValue<'_> {
        assert!(
            self.header(handle).state().has(State::LARGE),
            "only large items count references"
        );
        self.refs(handle).fetch_add(1, Relaxed);
        if let Some(next) = self.chain_start(handle) {
            // It is looked at when all that is asked for together is written.
            self.slabs.prefetch_header(next);
        }
        PinnedValue::of(self, handle)
    }

    /// Copies an unpinned item whole into `to`, a chunk of the same class (page moves). The caller holds the stripe and
    /// the LRU lock, has yet to change slot and links from `from` to `to`, and then gives `from` back.
    pub fn copy_head(&self, from: ChunkHandle, to: ChunkHandle) {
        let class = self.slabs.class_of(from);
        assert!(class == self.slabs.class_of(to) && !self.is_pinned(from));
        let len = self.slabs.chunk_bytes(class) - HEADER_BYTES;
        // SAFETY: stripe and LRU lock together exclude every reader and writer of a linked, unpinned item (I3); `to`
        // was just allocated and is not yet known to anybody else. Both chunks have the class's size.
        unsafe {
            let source = self.slabs.bytes(from, HEADER_BYTES, len);
            self.slabs
                .bytes_mut(to, HEADER_BYTES, len)
                .copy_from_slice(source);
        }
        // Last: a process that goes on with this memory takes the chunk for an item from now on (I8).
        self.header(to).copy(self.header(from));
        let mut next = self.chain_start(to);
        while let Some(chunk) = next {
            self.header(chunk).set_continued_head(to);
            next = self.header(chunk).next();
        }
    }

    /// Moves continuation chunk `from` of the linked, unpinned item `head` to `to`, and frees `from`. The caller holds
    /// the stripe and the LRU lock. Gives false, leaving `to` to the caller, if the chain does not hold `from`.
    pub fn move_continuation(&self, head: ChunkHandle, from: ChunkHandle, to: ChunkHandle) -> bool {
        let before = self
            .value_pieces_chunks(head)
            .find(|&chunk| self.chunk_after(chunk) == Some(from));
        let Some(before) = before else { return false };
        let len = self.header(from).value_len();
        self.assert_inside(self.header(from), HEADER_BYTES + len);
        assert!(self.slabs.class_of(from) == self.slabs.class_of(to));
        // SAFETY: as in `copy_head`.
        unsafe {
            let source = self.slabs.bytes(from, HEADER_BYTES, len);
            self.slabs
                .bytes_mut(to, HEADER_BYTES, len)
                .copy_from_slice(source);
        }
        self.header(to).copy(self.header(from));
        if before == head {
            self.chain(head).store(to.to_raw(), Relaxed);
        } else {
            self.header(before).set_next(Some(to));
        }
        self.free_chunk(from);
        true
    }

    /// True if `chunk` continues the linked item `head`; the caller holds its LRU lock.
    pub fn owns_chunk(&self, head: ChunkHandle, chunk: ChunkHandle) -> bool {
        self.value_pieces_chunks(head).skip(1).any(|at| at == chunk)
    }

    /// Gives back a chunk that never became an item.
    pub fn give_back(&self, chunk: ChunkHandle) {
        self.free_chunk(chunk);
    }
}

/// Bytes of the item with this header, were it in one chunk.
#[inline]
fn bytes_unchained(header: &Header) -> usize {
    key_offset(header.state()) + header.key_len() + header.value_len()
}

#[inline]
fn flags_offset(bits: State) -> usize {
    HEADER_BYTES
        + if bits.has(State::HAS_CAS) {
            CAS_BYTES
        } else {
            0
        }
}

#[inline]
fn large_offset(bits: State) -> usize {
    flags_offset(bits)
        + if bits.has(State::HAS_CLIENT_FLAGS) {
            4
        } else {
            0
        }
}

#[inline]
fn key_offset(bits: State) -> usize {
    large_offset(bits) + if bits.has(State::LARGE) { 8 } else { 0 }
}
