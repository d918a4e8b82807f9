//! What is known about a page beside its content: which class cuts it into chunks, which of them
//! are taken, and which come next.
//!
//! ```text
//!  chunk   0      1      2      3      4      5 ..                 chunks_per_page
//!          | used | free | used | free | used | never handed out .. | tail |
//!                    |             ^      fresh mark ^
//!                    `-- link -----'-- free_head         used = 3, in the free list = fresh - used
//! ```
//!
//! P1. All fields are written under the lock of the page's class, or, for a page of no class, under
//!     the lock of the pool; they are atomics so that anyone may look without a lock.
//! P2. Chunks below the fresh mark were handed out since the page got its class: each is used or in
//!     the free list. Chunks from the mark on have never been, and hold what the page held before.
//! P3. The header of a chunk is zeroed before the fresh mark passes it; who sees the mark (acquire)
//!     sees the zeros.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::class::ClassId;
use crate::handle::ChunkHandle;
use crate::reserved::{Atomics, Reserved};

/// The number of a page in the arena, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageId(NonZeroU32);

impl PageId {
    /// The page of that number; 0 is none.
    #[inline]
    pub(crate) fn from_raw(raw: u32) -> Option<Self> {
        NonZeroU32::new(raw).map(Self)
    }

    /// The number, from 1.
    #[inline]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0.get() as usize
    }
}

/// A number that its lock's holder writes and anyone may read (P1).
#[repr(transparent)]
pub(crate) struct Word(AtomicU32);

impl Word {
    #[inline]
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn set(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }
}

/// The state of one page. All zero: a page that was never used.
#[repr(C)]
pub(crate) struct PageMeta {
    class: Word,
    draining: Word,
    /// Chunks in someone's hands.
    pub(crate) used: Word,
    /// Chunks ever handed out since the page got its class: the fresh mark (P2).
    pub(crate) fresh: Word,
    free_head: Word,
    /// Neighbours in the one list that the page may be in.
    prev: Word,
    next: Word,
    /// Bytes from the page's start that its former classes may have written.
    pub(crate) touched: Word,
}

const _: () = assert!(size_of::<PageMeta>() == 32);

/// What the state of a page is, in one number, for whoever finds it in a file.
pub const STATE_LAYOUT: u64 = {
    use std::mem::offset_of;
    (offset_of!(PageMeta, class)
        | offset_of!(PageMeta, used) << 8
        | offset_of!(PageMeta, fresh) << 16
        | offset_of!(PageMeta, free_head) << 24
        | offset_of!(PageMeta, touched) << 32
        | size_of::<PageMeta>() << 40) as u64
};

// SAFETY: made of `AtomicU32` alone.
unsafe impl Atomics for PageMeta {}

impl PageMeta {
    #[inline]
    pub(crate) fn class(&self) -> Option<ClassId> {
        ClassId::new(self.class.get() as u8)
    }

    pub(crate) fn set_class(&self, class: Option<ClassId>) {
        self.class
            .set(class.map_or(0, |class| u32::from(class.get())));
    }

    /// All of it as words, to be summed.
    pub(crate) fn words(&self) -> [u64; 4] {
        let pair = |low: &Word, high: &Word| u64::from(high.get()) << 32 | u64::from(low.get());
        [
            pair(&self.class, &self.draining),
            pair(&self.used, &self.fresh),
            pair(&self.free_head, &self.prev),
            pair(&self.next, &self.touched),
        ]
    }

    /// False also for a number that no class can have, as may be found in a file.
    pub(crate) fn is_without_class(&self) -> bool {
        self.class.get() == 0
    }

    /// Takes the page out of whatever list or drain it is found in.
    pub(crate) fn reset_lists(&self) {
        self.draining.set(0);
        self.prev.set(0);
        self.next.set(0);
        if self.is_without_class() {
            self.used.set(0);
            self.set_free_head(None);
            self.fresh.set(0);
        }
    }

    #[inline]
    pub(crate) fn draining(&self) -> bool {
        self.draining.get() != 0
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.draining.set(u32::from(draining));
    }

    #[inline]
    pub(crate) fn free_head(&self) -> Option<ChunkHandle> {
        ChunkHandle::from_raw(self.free_head.get())
    }

    #[inline]
    pub(crate) fn set_free_head(&self, chunk: Option<ChunkHandle>) {
        self.free_head.set(chunk.map_or(0, ChunkHandle::to_raw));
    }

    #[inline]
    pub(crate) fn next(&self) -> Option<PageId> {
        PageId::from_raw(self.next.get())
    }

    pub(crate) fn prev(&self) -> Option<PageId> {
        PageId::from_raw(self.prev.get())
    }
}

/// The state of all pages, by page number.
pub(crate) type Pages = Reserved<PageMeta>;

/// A doubly linked list of pages, newest first. Its lock is that of whoever owns it.
#[derive(Default)]
pub(crate) struct PageList {
    head: Option<PageId>,
}

impl PageList {
    #[inline]
    pub(crate) fn head(&self) -> Option<PageId> {
        self.head
    }

    pub(crate) fn push(&mut self, pages: &Pages, page: PageId) {
        let meta = &pages[page.index()];
        meta.prev.set(0);
        meta.next.set(raw(self.head));
        if let Some(head) = self.head {
            pages[head.index()].prev.set(page.get());
        }
        self.head = Some(page);
    }

    pub(crate) fn remove(&mut self, pages: &Pages, page: PageId) {
        let meta = &pages[page.index()];
        let (prev, next) = (meta.prev(), meta.next());
        match prev {
            Some(prev) => pages[prev.index()].next.set(raw(next)),
            None => {
                debug_assert_eq!(self.head, Some(page), "a page is removed from its own list");
                self.head = next;
            }
        }
        if let Some(next) = next {
            pages[next.index()].prev.set(raw(prev));
        }
        meta.prev.set(0);
        meta.next.set(0);
    }

    pub(crate) fn pop(&mut self, pages: &Pages) -> Option<PageId> {
        let head = self.head?;
        self.remove(pages, head);
        Some(head)
    }

    /// The pages of the list, for checking.
    pub(crate) fn iter<'a>(&self, pages: &'a Pages) -> impl Iterator<Item = PageId> + use<'a> {
        std::iter::successors(self.head, |page| pages[page.index()].next())
    }
}

fn raw(page: Option<PageId>) -> u32 {
    page.map_or(0, PageId::get)
}
