//! Walks over all items, page by page: the crawler that reclaims the expired, and the dumps (`metadump`, `mgdump`).
//!
//! A walk reads headers in the order they lie in memory, a few at a time with their page held to its class, and takes the LRU
//! lock only for an item it wants to touch: so a pass costs a few nanoseconds an item, and no list is held up.
//!
//! Cr1. A header is read without its item's locks first; under the LRU lock of the page's class it is read again (a page that
//!     changes its class meanwhile holds no linked item of the old one).
//! Cr2. A walk sees every item that is there from its start to its end, except one that a page move carries behind it.

use std::sync::atomic::Ordering::Relaxed;

use parking_lot::MutexGuard;

use slab_alloc::{CLASSES_MAX, ChunkHandle, ClassId};

use super::at::At;
use super::class_mask::ClassMask;
use super::item::Header;
use super::store::{Cache, Lookup};
use super::view::ItemHead;
use crate::clock::RelTime;
use crate::packing::{Packer, Unpacker};

/// Headers read under one hold of a page: while it lasts, its class neither gives nor takes back a chunk. About a
/// microsecond.
const HELD_CHUNKS: usize = 32;

/// Where a walk is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalkCursor {
    page: usize,
    chunk: usize,
}

impl WalkCursor {
    /// Writes it down.
    pub fn pack(&self, to: &mut Packer) {
        to.size(self.page).size(self.chunk);
    }

    /// Where another process was, which had the same pages.
    pub fn unpack(from: &mut Unpacker<'_>) -> Option<Self> {
        Some(WalkCursor {
            page: from.number()?,
            chunk: from.number()?,
        })
    }
}

/// How a slice of a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    More,
    Done,
}

impl Cache {
    /// Goes over up to `budget` chunks of the classes in `mask`, and on from there at the next call. Of the linked items,
    /// `visit` gets those that `is_wanted`, with their class; the first is asked while the page is held to its class, the
    /// second when it no longer is. `visit` may stop the slice by answering false.
    pub(super) fn walk_slice(
        &self,
        cursor: &mut WalkCursor,
        mask: ClassMask,
        mut budget: usize,
        mut is_wanted: impl FnMut(&Header, ClassId) -> bool,
        mut visit: impl FnMut(ChunkHandle, ClassId) -> bool,
    ) -> Walk {
        let slabs = self.items.slabs();
        let mut wanted = Vec::with_capacity(HELD_CHUNKS);
        for page in slabs.page_ids().skip(cursor.page) {
            let class = slabs.page_class(page).filter(|&class| mask.has(class));
            while let Some(class) = class {
                if budget == 0 {
                    return Walk::More;
                }
                let (first, most) = (cursor.chunk, budget.min(HELD_CHUNKS));
                let passed = slabs.hold_page(page, class, || {
                    let chunks = slabs.page_chunks_from(page, first).take(most);
                    let passed = chunks.size_hint().0;
                    for (nth, chunk) in chunks.enumerate() {
                        if self.looks_linked(chunk) && is_wanted(self.items.header(chunk), class) {
                            wanted.push((nth, chunk));
                        }
                    }
                    passed
                });
                // What was there has gone, and what lies there now has other borders; or there is no more.
                let Some(passed) = passed.filter(|&passed| passed > 0) else {
                    break;
                };
                for (nth, chunk) in wanted.drain(..) {
                    if !visit(chunk, class) {
                        cursor.chunk = first + nth + 1;
                        return Walk::More;
                    }
                }
                cursor.chunk = first + passed;
                budget -= passed;
            }
            cursor.page += 1;
            cursor.chunk = 0;
            budget = budget.saturating_sub(1);
            if budget == 0 {
                return Walk::More;
            }
        }
        Walk::Done
    }

    /// Shows live items of the classes in `mask` to `show`, which answers false when it has enough for now; true when
    /// all were shown. Between calls the cursor keeps the place.
    pub fn show_items(
        &self,
        cursor: &mut WalkCursor,
        mask: ClassMask,
        budget: usize,
        now: RelTime,
        mut show: impl FnMut(ItemHead<'_>) -> bool,
    ) -> bool {
        let show = |handle, class| {
            let _lru = self.lru(class);
            !self.is_linked(handle, class)
                || self.life(self.items.header(handle), now) != Lookup::Found
                || show(ItemHead::new(&self.items, handle))
        };
        self.walk_slice(cursor, mask, budget, |_, _| true, show) == Walk::Done
    }

    /// Shows one live item in `one_in` to `show`, of up to `budget` chunks; true when the walk is through.
    pub fn sample_items(
        &self,
        cursor: &mut WalkCursor,
        budget: usize,
        one_in: usize,
        now: RelTime,
        mut show: impl FnMut(ItemHead<'_>),
    ) -> bool {
        let mut nth = 0;
        let is_wanted = |_: &Header, _| {
            nth += 1;
            nth % one_in == 0
        };
        let show = |handle, class| {
            let _lru = self.lru(class);
            if self.is_linked(handle, class)
                && self.life(self.items.header(handle), now) == Lookup::Found
            {
                show(ItemHead::new(&self.items, handle));
            }
            true
        };
        self.walk_slice(cursor, ClassMask::ALL, budget, is_wanted, show) == Walk::Done
    }

    /// One slice of the crawler's work: unlinks the dead among the next chunks.
    pub(super) fn crawl_slice(
        &self,
        cursor: &mut WalkCursor,
        mask: ClassMask,
        budget: usize,
        at: At,
    ) -> Walk {
        let mut checked = [0u64; CLASSES_MAX];
        let is_dead = |header: &Header, class: ClassId| {
            checked[class.index()] += 1;
            self.life(header, at.now) != Lookup::Found
        };
        let unlink = |handle, class| {
            self.unlink_if_dead(handle, class, at);
            true
        };
        let walked = self.walk_slice(cursor, mask, budget, is_dead, unlink);
        for class in self.items.slabs().classes() {
            let checked = checked[class.index()];
            if checked > 0 {
                self.lru(class).segments.counters.crawler_items_checked += checked;
            }
        }
        walked
    }

    /// Asks the maintainer to crawl these classes at once. From here on the crawler counts as running, as clients wait until it
    /// does no more.
    pub fn request_crawl(&self, mask: ClassMask) {
        let mut wanted = self.crawl_wanted();
        *wanted = wanted.or(mask);
        self.tell_crawls(*wanted != ClassMask::NONE);
    }

    /// Says that all that was asked for is done, unless more was asked for meanwhile.
    pub(super) fn end_crawl(&self) {
        let wanted = self.crawl_wanted();
        self.tell_crawls(*wanted != ClassMask::NONE);
    }

    fn tell_crawls(&self, crawls: bool) {
        self.counters.lru_crawler_running.store(crawls, Relaxed);
    }

    fn crawl_wanted(&self) -> MutexGuard<'_, ClassMask> {
        self.crawl_wanted.lock()
    }

    /// Takes the request.
    pub(super) fn take_crawl_request(&self) -> ClassMask {
        std::mem::take(&mut self.crawl_wanted())
    }
}
