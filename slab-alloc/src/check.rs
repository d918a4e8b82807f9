//! The facts the compiler cannot hold, checked by tests after each step.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::allocator::SlabAllocator;
use crate::class::ClassId;
use crate::handle::ChunkHandle;
use crate::page::PageId;

impl SlabAllocator {
    /// Panics when an invariant is broken. To be called while no other thread uses the allocator;
    /// walks every page and every free list.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        let assigned: usize = self.classes().map(|class| self.check_class(class)).sum();
        assert_eq!(assigned, self.pool.assigned(), "pages with a class");
        self.pool.check_invariants(&self.pages);
    }

    /// Checks a class and returns the number of its pages.
    fn check_class(&self, class: ClassId) -> usize {
        let slab = self.class(class);
        let state = slab.lock();
        let per_page = slab.chunks_per_page as usize;
        assert!(
            per_page * self.chunk_bytes(class) <= self.page_bytes(),
            "S3"
        );

        let of_class = |page: &PageId| self.page_class(*page) == Some(class);
        let pages: Vec<PageId> = self.pool.ever_used().filter(of_class).collect();
        let partial: Vec<PageId> = state.partial.iter(&self.pages).collect();
        let (mut draining, mut used, mut free, mut fresh) = (0, 0, 0, 0);
        for &page in &pages {
            let meta = &self.pages[page.index()];
            let page_used = meta.used.get() as usize;
            let page_mark = meta.fresh.get() as usize;
            assert!(
                page_used <= page_mark && page_mark <= per_page,
                "P2 of {page:?}"
            );
            let page_free = self.check_free_list(page, class);
            assert_eq!(
                page_used + page_free,
                page_mark,
                "P2: used and free of {page:?}"
            );

            let listed = partial.iter().filter(|&&other| other == page).count();
            let gives = page_used < per_page && !meta.draining();
            assert_eq!(listed, usize::from(gives), "S2: {page:?} of {class:?}");
            used += page_used;
            if meta.draining() {
                draining += 1;
            } else {
                free += page_free;
                fresh += per_page - page_mark;
            }
        }
        assert!(
            partial.iter().all(of_class),
            "S2: strangers in the list of {class:?}"
        );
        for pair in partial.windows(2) {
            assert_eq!(
                self.pages[pair[1].index()].prev(),
                Some(pair[0]),
                "links both ways"
            );
        }
        assert_eq!(
            (
                state.pages,
                state.draining_pages,
                state.used,
                state.free,
                state.fresh
            ),
            (pages.len(), draining, used, free, fresh),
            "pages, draining, used, free, fresh of {class:?}"
        );
        pages.len()
    }

    /// Checks the free list of a page and returns its length.
    fn check_free_list(&self, page: PageId, class: ClassId) -> usize {
        let meta = &self.pages[page.index()];
        let chunk_bytes = self.chunk_bytes(class);
        let mut seen = HashSet::new();
        let mut head = meta.free_head();
        while let Some(chunk) = head {
            assert_eq!(self.page_of(chunk), page, "a free list stays in its page");
            let offset = self.arena.offset_in_page(chunk);
            assert!(offset.is_multiple_of(chunk_bytes), "S3: {chunk:?}");
            assert!(
                offset / chunk_bytes < meta.fresh.get() as usize,
                "P2: {chunk:?}"
            );
            assert!(seen.insert(chunk), "a free list that bites its tail");
            head =
                ChunkHandle::from_raw(self.header::<AtomicU32>(chunk, 0).load(Ordering::Relaxed));
        }
        seen.len()
    }
}
