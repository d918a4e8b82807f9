//! The arena: one stretch of address space, and the arithmetic that turns a handle into an address.
//!
//! ```text
//!  mapping start                                                            mapping end
//!  | page 0: never used | page 1 | page 2 | ..  touched as used  .. | reserved, untouched |
//!                       ^ chunk handle = byte offset from the mapping start / granule
//! ```
//!
//! The address space is reserved at once and far beyond the limit, so raising the limit later moves
//! nothing; the kernel backs it with memory page by page, when it is first written.
//!
//! A2. `start` is aligned to the system page, pages to their own size from it, chunks to the granule
//!     (at least 8 bytes): a word inside a chunk is as aligned as its offset in the chunk.
//! A3. A handle below `handle_end` has at least `REACH_BYTES` bytes of the mapping after it, so its
//!     header words, and the words right behind them, can be reached whatever the number; whether
//!     it names a chunk, and whose, is the caller's to know.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::handle::ChunkHandle;
use crate::image::Image;
use crate::layout::{HEADER_BYTES, REACH_BYTES};
use crate::mapping::{Mapping, prefetch};
use crate::page::PageId;
use crate::places::Places;
use crate::reserved::Atomics;

/// What the processor fetches at once, in bytes.
const LINE_BYTES: usize = 64;

/// The smallest granule, in bytes: what 32-bit handles count in up to 32 GB.
pub(crate) const GRANULE_MIN: usize = 8;

/// The coarsest granule, in bytes: 4 TB of reach. Beyond it small items would waste too much.
pub(crate) const GRANULE_MAX: usize = 1024;

/// How many pages handles reach at a granule, page 0 included.
pub(crate) fn reach_pages(granule: usize, page_bytes: usize) -> usize {
    (granule << 32) / page_bytes
}

/// The mapping cut into pages, and the meaning of handles in it.
pub(crate) struct Arena {
    mapping: Mapping,
    /// A handle shifted left by this is a byte offset.
    granule_shift: u32,
    /// A byte offset shifted right by this is a page's number.
    page_shift: u32,
    /// How many pages there are, page 0 not counted.
    pages_max: usize,
    /// Handles below this have a header in the last page at the latest, and [`REACH_BYTES`] in the mapping (A3).
    handle_end: u64,
    /// Whether the memory has been locked; a locked page must be unlocked before it is released.
    locked: AtomicBool,
}

impl Arena {
    /// Reserves an arena for `limit_pages`: as far as handles reach, or less when the system
    /// refuses that much address space, but never less than the limit.
    pub(crate) fn reserve(
        page_bytes: usize,
        limit_pages: usize,
        reserve_pages_max: usize,
    ) -> io::Result<Self> {
        let mut granule = GRANULE_MIN;
        while reach_pages(granule, page_bytes) < limit_pages && granule < GRANULE_MAX {
            granule *= 2;
        }
        // One page more for page 0; at exactly the reach there is one usable page less.
        let least = (limit_pages + 1).min(reach_pages(granule, page_bytes));
        let mut pages = reach_pages(granule, page_bytes)
            .min(reserve_pages_max)
            .max(least);
        // What is reached from the last chunk may lie behind its page (A3).
        let bytes = |pages| pages * page_bytes + REACH_BYTES;
        // What is reserved beyond the limit leaves as much to everything else that wants addresses.
        while pages > least && !Mapping::has_room_for_two(bytes(pages)) {
            pages = (pages / 2).max(least);
        }
        let mapping = Mapping::reserve(bytes(pages), page_bytes)?;
        Ok(Self::of(mapping, pages, page_bytes, granule))
    }

    /// The arena that lies in a file.
    pub(crate) fn in_image(image: &Image, places: &Places) -> Self {
        let bytes = places.pages * places.page_bytes;
        let mapping = image.part(places.arena..places.arena + bytes + REACH_BYTES);
        Self::of(mapping, places.pages, places.page_bytes, places.granule)
    }

    /// The mapping holds so many pages and [`REACH_BYTES`] behind them.
    fn of(mapping: Mapping, pages: usize, page_bytes: usize, granule: usize) -> Self {
        let granule_shift = granule.trailing_zeros();
        let handle_end = ((pages * page_bytes - HEADER_BYTES) >> granule_shift) as u64 + 1;
        Self {
            granule_shift,
            page_shift: page_bytes.trailing_zeros(),
            pages_max: mapping.len() / page_bytes - 1,
            mapping,
            handle_end,
            locked: AtomicBool::new(false),
        }
    }

    /// The granule, in bytes.
    pub(crate) fn granule(&self) -> usize {
        1 << self.granule_shift
    }

    /// The size of a page, in bytes.
    #[inline]
    pub(crate) fn page_bytes(&self) -> usize {
        1 << self.page_shift
    }

    /// How many pages fit in the reservation, page 0 not counted.
    #[inline]
    pub(crate) fn pages_max(&self) -> usize {
        self.pages_max
    }

    /// The chunk that begins `offset` bytes into `page`.
    #[inline]
    pub(crate) fn chunk_at(&self, page: PageId, offset: usize) -> ChunkHandle {
        debug_assert!(offset < self.page_bytes() && offset.is_multiple_of(self.granule()));
        let raw = ((page.index() << self.page_shift) + offset) >> self.granule_shift;
        ChunkHandle::from_raw(raw as u32).expect("pages are numbered from 1, so no offset is 0")
    }

    /// The page a chunk lies in.
    #[inline]
    pub(crate) fn page_of(&self, chunk: ChunkHandle) -> PageId {
        self.page_around(chunk).expect("no chunk lies in page 0")
    }

    /// The page that any handle would lie in, if there is such a page.
    #[inline]
    pub(crate) fn page_around(&self, handle: ChunkHandle) -> Option<PageId> {
        let page = PageId::from_raw(handle.to_raw() >> (self.page_shift - self.granule_shift));
        page.filter(|page| page.index() <= self.pages_max())
    }

    /// How far into its page a chunk begins, in bytes.
    pub(crate) fn offset_in_page(&self, chunk: ChunkHandle) -> usize {
        self.offset(chunk) % self.page_bytes()
    }

    #[inline]
    fn offset(&self, chunk: ChunkHandle) -> usize {
        (chunk.to_raw() as usize) << self.granule_shift
    }

    /// The address of a chunk. Panics when the handle lies outside of the arena.
    #[inline]
    pub(crate) fn ptr(&self, chunk: ChunkHandle) -> NonNull<u8> {
        assert!(
            u64::from(chunk.to_raw()) < self.handle_end,
            "handle outside of the arena"
        );
        // SAFETY: the offset lies inside the mapping (A3, just checked).
        unsafe { self.mapping.start().add(self.offset(chunk)) }
    }

    /// A part of a chunk's header.
    #[inline]
    pub(crate) fn header<T: Atomics>(&self, chunk: ChunkHandle, offset: usize) -> &T {
        const { assert!(align_of::<T>() <= GRANULE_MIN) };
        assert!(offset + size_of::<T>() <= HEADER_BYTES && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: inside the mapping for as long as `self` lives (A1, A3), aligned (A2). For
        // `Atomics` any bytes are a value; whoever makes plain
        // references into a chunk has promised that no header word is used under them (S4).
        unsafe { self.ptr(chunk).add(offset).cast::<T>().as_ref() }
    }

    /// Asks for the cache lines of a chunk's first `bytes` bytes. Any handle will do.
    #[inline]
    pub(crate) fn prefetch(&self, chunk: ChunkHandle, bytes: usize) {
        let arena = self.mapping.start().as_ptr();
        let start = arena.wrapping_add(self.offset(chunk));
        let end = start.wrapping_add(bytes);
        // Chunks need not begin where a line does.
        let mut line = start.wrapping_sub(start.addr() % LINE_BYTES);
        while line < end {
            prefetch(line);
            line = line.wrapping_add(LINE_BYTES);
        }
    }

    /// Asks for the chunk that a header word of `chunk` names. Any handle will do: the word is only
    /// read to be prefetched from, behind the compiler's back, so that it does not matter whose it
    /// is by now, nor who writes to it at the same time.
    #[inline]
    pub(crate) fn prefetch_linked(&self, chunk: ChunkHandle, offset: usize) {
        assert!(offset + 4 <= HEADER_BYTES);
        let word = self.ptr(chunk).as_ptr().wrapping_add(offset);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the word lies in the mapping (A3), so that the load cannot fault; a prefetch faults on no address. Nothing
        // of what was read leaves the block: for the program it does nothing.
        unsafe {
            std::arch::asm!(
                "mov {link:e}, dword ptr [{word}]",
                "shl {link}, cl",
                "prefetcht0 [{start} + {link}]",
                link = out(reg) _,
                word = in(reg) word,
                start = in(reg) self.mapping.start().as_ptr(),
                in("cl") self.granule_shift as u8,
                options(nostack, readonly),
            );
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = word;
    }

    pub(crate) fn advise_huge(&self) -> io::Result<()> {
        self.mapping.advise_huge()
    }

    /// Locks the whole reservation, or where that is more than the process may lock, the pages
    /// that the limit allows.
    pub(crate) fn lock(&self, limit_pages: usize) -> io::Result<()> {
        let limit_end = ((limit_pages + 1) * self.page_bytes()).min(self.mapping.len());
        self.mapping
            .lock_on_fault(0..self.mapping.len())
            .or_else(|_| self.mapping.lock_on_fault(0..limit_end))?;
        self.locked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes sure of memory for a page that has none, before it is touched.
    pub(crate) fn back_page(&self, page: PageId) -> io::Result<()> {
        let start = page.index() * self.page_bytes();
        self.mapping.back(start..start + self.page_bytes())
    }

    /// Has the memory of a page at hand before it is touched.
    pub(crate) fn populate_page(&self, page: PageId) {
        let start = page.index() * self.page_bytes();
        self.mapping.populate(start..start + self.page_bytes());
    }

    /// Whether pages without memory have to be backed.
    pub(crate) fn wants_backing(&self) -> bool {
        self.mapping.wants_backing()
    }

    /// Gives the memory of a page back to the kernel. Where the kernel refuses, it stays resident,
    /// and nothing else comes of it: what a recycled page holds is never relied upon.
    ///
    /// # Safety
    /// No chunk of the page may be in anyone's hands.
    pub(crate) unsafe fn release_page(&self, page: PageId) {
        let start = page.index() * self.page_bytes();
        let range = start..start + self.page_bytes();
        let locked = self.locked.load(Ordering::Relaxed);
        // SAFETY: no chunk, so no reference into the page; pages are whole system pages (A2).
        let _ = unsafe { self.mapping.release(range, locked) };
    }
}
