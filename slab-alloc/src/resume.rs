//! An allocator that lies in a file: made anew there, or taken up again.
//!
//! ```text
//!  create    all zeros                        resume    as it was left: the states of the pages say which chunks are used
//!  salvage   left in the middle of something: the pages and their classes count, nothing else
//!     `-- settle, page by page: the caller says which chunks are used; the rest becomes the page's free list
//! ```
//!
//! Re1. Numbers from the file are checked before they are used; what they claim of the chunks is the caller's to check.
//! Re2. Lists of pages and counts of classes are made anew from the states of the pages, which takes a few nanoseconds a
//!      page.
//! Re3. After `salvage` no chunk is handed out before every page is settled.

use std::io;
use std::sync::atomic::Ordering;

use crate::allocator::SlabAllocator;
use crate::arena::Arena;
use crate::class::Sizes;
use crate::handle::ChunkHandle;
use crate::image::Image;
use crate::page::{PageId, Pages};
use crate::places::Places;
use crate::pool::Pool;
use crate::sum::sum_of_words;

impl SlabAllocator {
    /// A new allocator in a file of zeros. Fails on sizes that make no sense, and where there is no space for the states of
    /// the pages.
    pub fn create(
        image: &Image,
        places: &Places,
        sizes: &Sizes,
        limit_bytes: usize,
    ) -> io::Result<Self> {
        let states = places.states..places.states + places.states_bytes();
        image.back(states)?;
        // What is reached from the last chunk (A3).
        let arena_end = places.arena + places.arena_bytes();
        image.back(places.arena + places.pages * places.page_bytes..arena_end)?;
        Self::found(image, places, sizes, limit_bytes, 0)
    }

    /// Goes on where another process has left off, which gave `states_sum` as [`Self::states_sum`]. The error says what of the
    /// states of the pages cannot be.
    pub fn resume(
        image: &Image,
        places: &Places,
        sizes: &Sizes,
        limit_bytes: usize,
        states_sum: u64,
    ) -> io::Result<Self> {
        let slabs = Self::with_found_pages(image, places, sizes, limit_bytes)?;
        if slabs.states_sum() != states_sum {
            return Err(damaged("states of pages that were changed"));
        }
        for page in slabs.pool.ever_used() {
            slabs.take_up(page)?;
        }
        slabs.put_back_free_pages();
        Ok(slabs)
    }

    /// Takes up the pages of a process that has not ended well, for [`Self::settle`].
    pub fn salvage(
        image: &Image,
        places: &Places,
        sizes: &Sizes,
        limit_bytes: usize,
    ) -> io::Result<Self> {
        let slabs = Self::with_found_pages(image, places, sizes, limit_bytes)?;
        for page in slabs.pool.ever_used() {
            let meta = &slabs.pages[page.index()];
            let fits = |class| {
                slabs.table.classes().any(|known| known == class)
                    && meta.fresh.get() <= slabs.class(class).chunks_per_page
            };
            if !meta.class().is_some_and(fits) {
                meta.set_class(None);
                meta.fresh.set(0);
                meta.touched.set(slabs.page_bytes() as u32);
            }
            meta.reset_lists();
            if meta.is_without_class() {
                slabs.release(page);
            }
        }
        Ok(slabs)
    }

    /// A sum over the states of all pages that were ever used.
    pub fn states_sum(&self) -> u64 {
        let high = self.pool.ever_used().count();
        sum_of_words((0..=high).flat_map(|page| self.pages[page].words()))
    }

    /// A sum over the bytes of a page that were ever written since it got its memory, as its state tells; 0 of a page without
    /// a class, whose bytes nobody reads again.
    ///
    /// # Safety
    /// Nobody writes to the page meanwhile.
    pub unsafe fn page_sum(&self, page: PageId) -> u64 {
        let meta = &self.pages[page.index()];
        let class = meta
            .class()
            .filter(|&class| self.table.classes().any(|known| known == class));
        let Some(class) = class else { return 0 };
        let written = meta.fresh.get() as usize * self.chunk_bytes(class);
        let bytes = written
            .max(meta.touched.get() as usize)
            .min(self.page_bytes());
        let start = self.ptr(self.arena.chunk_at(page, 0)).cast::<u64>();
        // SAFETY: the page lies in the mapping (A1), is aligned to its size (A2), and nobody writes to it, as the caller vouches.
        let words = unsafe { std::slice::from_raw_parts(start.as_ptr(), bytes / 8) };
        sum_of_words(words.iter().copied()).max(1)
    }

    fn with_found_pages(
        image: &Image,
        places: &Places,
        sizes: &Sizes,
        limit_bytes: usize,
    ) -> io::Result<Self> {
        let pages: Pages = Pages::in_image(image, places.states, places.pages);
        let high = pages[0].fresh.get() as usize;
        if high >= places.pages {
            return Err(damaged("more pages than there are"));
        }
        Self::found(image, places, sizes, limit_bytes, high)
    }

    /// Pages 1 to `high` are in no list yet.
    fn found(
        image: &Image,
        places: &Places,
        sizes: &Sizes,
        limit_bytes: usize,
        high: usize,
    ) -> io::Result<Self> {
        let pages = Pages::in_image(image, places.states, places.pages);
        let arena = Arena::in_image(image, places);
        let limit = (limit_bytes / places.page_bytes).clamp(1, arena.pages_max());
        Self::of(arena, pages, Pool::resumed(limit, high), sizes)
    }

    /// Takes a page of a class up as it was left.
    fn take_up(&self, page: PageId) -> io::Result<()> {
        let meta = &self.pages[page.index()];
        if meta.is_without_class() {
            return Ok(());
        }
        let class = meta
            .class()
            .filter(|&class| self.table.classes().any(|known| known == class))
            .ok_or_else(|| damaged("a page of a class that there is not"))?;
        let slab = self.class(class);
        let (used, fresh) = (meta.used.get(), meta.fresh.get());
        let free_in_page = meta
            .free_head()
            .is_none_or(|free| self.arena.page_around(free) == Some(page));
        if used > fresh
            || fresh > slab.chunks_per_page
            || meta.free_head().is_some() != (used < fresh)
            || !free_in_page
        {
            return Err(damaged("a page whose chunks do not add up"));
        }
        meta.reset_lists();
        let mut state = slab.lock();
        state.pages += 1;
        state.used += used as usize;
        state.free += (fresh - used) as usize;
        state.fresh += (slab.chunks_per_page - fresh) as usize;
        self.pool.keep_assigned();
        if used < slab.chunks_per_page {
            state.partial.push(&self.pages, page);
        }
        Ok(())
    }

    /// Takes in the pages that have no class. Those that are too many lose their memory.
    fn put_back_free_pages(&self) {
        for page in self.pool.ever_used() {
            let meta = &self.pages[page.index()];
            if meta.is_without_class() {
                meta.reset_lists();
                if !self.pool.put_back(&self.pages, page) {
                    self.release(page);
                }
            }
        }
    }

    /// Makes the chunks of a salvaged page used for which `is_used` holds, and the others free. A page without used
    /// chunks loses its memory. Pages may be settled by several threads at a time, each page once.
    ///
    /// # Safety
    /// Nobody uses a chunk for which `is_used` does not hold.
    pub unsafe fn settle(&self, page: PageId, mut is_used: impl FnMut(ChunkHandle) -> bool) {
        let meta = &self.pages[page.index()];
        let Some(class) = meta.class() else { return };
        let chunks: Vec<ChunkHandle> = self.page_chunks(page).collect();
        let (mut used, mut free_head) = (0, None);
        // From behind, so that the free list goes up.
        for chunk in chunks.into_iter().rev() {
            if is_used(chunk) {
                used += 1;
                continue;
            }
            let next = free_head.map_or(0, ChunkHandle::to_raw);
            self.link(chunk).store(next, Ordering::Relaxed);
            free_head = Some(chunk);
        }
        let slab = self.class(class);
        let mut state = slab.lock();
        let fresh = meta.fresh.get();
        state.pages += 1;
        meta.used.set(used);
        if used == 0 {
            self.detach(page, class, &mut state);
            drop(state);
            self.release(page);
            return;
        }
        meta.set_free_head(free_head);
        state.used += used as usize;
        state.free += (fresh - used) as usize;
        state.fresh += (slab.chunks_per_page - fresh) as usize;
        self.pool.keep_assigned();
        if used < slab.chunks_per_page {
            state.partial.push(&self.pages, page);
        }
    }
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
