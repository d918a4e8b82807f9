//! Moving a page from one class to another.
//!
//! A page can change its class when none of its chunks is used. It is emptied in steps by someone
//! who knows what lies in the chunks; here is only what keeps it from filling up again meanwhile:
//!
//! ```text
//!  begin_drain: off the partial list, its free chunks no longer count as the class's
//!       |        the caller frees or moves what page_chunks names; others free as they like
//!       v
//!  page_used == 0 ? -- finish_drain ----> the pool
//!       |           `- finish_drain_to -> another class, past everyone who waits for a page
//!       `-- cancel_drain: back on the partial list
//! ```

use crate::allocator::SlabAllocator;
use crate::class::ClassId;
use crate::handle::ChunkHandle;
use crate::page::PageId;

impl SlabAllocator {
    /// Chooses the page of `class` with the fewest used chunks and starts to drain it: from now on
    /// no chunk of it is handed out. `None`: the class has no page that is not draining already.
    ///
    /// The search takes no lock, so under traffic the choice is a good one rather than the best.
    pub fn begin_drain(&self, class: ClassId) -> Option<PageId> {
        loop {
            let page = self
                .class_pages(class)
                .min_by_key(|&page| self.page_used(page))?;
            // Between the search and the lock the page may have left the class; then look again.
            if self.begin_drain_of(page, class) {
                return Some(page);
            }
        }
    }

    /// Starts to drain this page. `false`: it has no class or is draining already.
    pub fn begin_drain_page(&self, page: PageId) -> bool {
        self.page_class(page)
            .is_some_and(|class| self.begin_drain_of(page, class))
    }

    fn begin_drain_of(&self, page: PageId, class: ClassId) -> bool {
        let meta = &self.pages[page.index()];
        let slab = self.class(class);
        let mut state = slab.lock();
        if meta.class() != Some(class) || meta.draining() {
            return false;
        }
        if meta.used.get() < slab.chunks_per_page {
            state.partial.remove(&self.pages, page);
        }
        meta.set_draining(true);
        state.draining_pages += 1;
        state.free -= (meta.fresh.get() - meta.used.get()) as usize;
        state.fresh -= (slab.chunks_per_page - meta.fresh.get()) as usize;
        true
    }

    /// Gives a drained page to the pool, or its memory to the kernel when there are more pages than
    /// the limit allows. `false`: the page is not draining, or chunks of it are still used.
    pub fn finish_drain(&self, page: PageId) -> bool {
        let kept = {
            let Some(detached) = self.detach_drained(page) else {
                return false;
            };
            let kept = self.pool.give(&self.pages, page);
            drop(detached);
            kept
        };
        if !kept {
            self.release(page);
        }
        true
    }

    /// Gives a drained page to `class`, so that nobody else can take it. `false`: the page is not
    /// draining, or chunks of it are still used.
    pub fn finish_drain_to(&self, page: PageId, class: ClassId) -> bool {
        let target = self.class(class);
        // The lock of the old class ends here: two classes are never locked at once.
        if self.detach_drained(page).is_none() {
            return false;
        }
        let mut state = target.lock();
        self.attach(page, class, &mut state);
        true
    }

    /// Puts a draining page back into the service of its class, with the chunks freed meanwhile;
    /// when that is all of them, the page goes to the pool, as it would have without the drain.
    pub fn cancel_drain(&self, page: PageId) {
        let meta = &self.pages[page.index()];
        let Some(class) = meta.class() else { return };
        let slab = self.class(class);
        let mut state = slab.lock();
        if meta.class() != Some(class) || !meta.draining() {
            return;
        }
        if meta.used.get() == 0 {
            drop(state);
            self.finish_drain(page);
            return;
        }
        meta.set_draining(false);
        state.draining_pages -= 1;
        state.free += (meta.fresh.get() - meta.used.get()) as usize;
        state.fresh += (slab.chunks_per_page - meta.fresh.get()) as usize;
        if meta.used.get() < slab.chunks_per_page {
            state.partial.push(&self.pages, page);
        }
    }

    /// Takes a drained page off its class, whose lock it returns.
    fn detach_drained(
        &self,
        page: PageId,
    ) -> Option<parking_lot::MutexGuard<'_, crate::allocator::ClassState>> {
        let meta = &self.pages[page.index()];
        let class = meta.class()?;
        let mut state = self.class(class).lock();
        if meta.class() != Some(class) || !meta.draining() || meta.used.get() > 0 {
            return None;
        }
        meta.set_draining(false);
        state.draining_pages -= 1;
        self.detach(page, class, &mut state);
        Some(state)
    }

    /// How many chunks of the page are in someone's hands.
    pub fn page_used(&self, page: PageId) -> u32 {
        self.pages[page.index()].used.get()
    }

    /// The class that the page belongs to, if any.
    #[inline]
    pub fn page_class(&self, page: PageId) -> Option<ClassId> {
        self.pages[page.index()].class()
    }

    /// Every chunk of the page that was ever handed out since it got its class, used or free.
    /// While the page is draining nothing is added; otherwise it is what was true at the call.
    pub fn page_chunks(&self, page: PageId) -> impl Iterator<Item = ChunkHandle> + use<'_> {
        self.page_chunks_from(page, 0)
    }

    /// The same, without the first so many.
    pub fn page_chunks_from(
        &self,
        page: PageId,
        first: usize,
    ) -> impl Iterator<Item = ChunkHandle> + use<'_> {
        let meta = &self.pages[page.index()];
        let (chunk_bytes, handed_out) = match meta.class() {
            None => (0, 0),
            Some(class) => {
                let chunk_bytes = self.chunk_bytes(class);
                // A page that changes its class right now must not lead beyond its end.
                (
                    chunk_bytes,
                    (meta.fresh.get() as usize).min(self.page_bytes() / chunk_bytes),
                )
            }
        };
        (first.min(handed_out)..handed_out)
            .map(move |index| self.arena.chunk_at(page, index * chunk_bytes))
    }

    /// Every page that ever had a class, in the order of their addresses.
    pub fn page_ids(&self) -> impl Iterator<Item = PageId> + use<> {
        self.pool.ever_used()
    }

    /// The pages of a class that are not draining.
    pub fn class_pages(&self, class: ClassId) -> impl Iterator<Item = PageId> + use<'_> {
        self.pool.ever_used().filter(move |page| {
            let meta = &self.pages[page.index()];
            meta.class() == Some(class) && !meta.draining()
        })
    }
}
