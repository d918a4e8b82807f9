//! Items of a process that did not end well, looked through where they are: table and LRU are made anew from the headers.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use slab_alloc::{CLASSES_MAX, ChunkHandle, ClassId, PageId, SlabAllocator};

use super::super::eviction::Policy;
use super::super::flush::FlushMark;
use super::super::item::{Items, Segment};
use super::super::lru::ClassLru;
use super::super::memory_file::{Dropped, How, MemoryFile};
use super::super::segments::{List, Segments};
use super::super::store::{Cache, Parts};
use super::super::table::{KeyHash, Probe, Table};
use super::super::uniques::Stores;
use super::{CAS_MAX, CAS_SINCE_TICK, Reviver};
use crate::clock::RelTime;

/// Pages that a thread takes at a time.
const PAGES_A_TURN: usize = 8;
/// Items whose buckets are on their way while the first of them is put in.
const AHEAD: usize = 16;

impl Reviver<'_> {
    /// Looks through the items where they are.
    pub(super) fn walk(&mut self, memory_file: MemoryFile, reason: String) -> io::Result<Cache> {
        let place = self.place;
        log::warn!("{place}: {reason}: its items are looked through");
        let (config, geometry) = (self.config, self.head.geometry);
        let (image, limit_bytes) = (memory_file.image(), config.slabs.limit_bytes);
        let unfinished = memory_file.write_marks();
        memory_file.open()?;
        let slabs =
            SlabAllocator::salvage(image, &geometry.slabs, &config.slabs.sizes, limit_bytes)?;
        let chunks = |page| slabs.page_chunks(page).size_hint().0;
        let items_max: usize = slabs.page_ids().map(chunks).sum();
        Table::clear(image, &geometry.table)?;
        let seeds = KeyHash::seeds();
        let table = Table::create(
            image,
            &geometry.table,
            seeds,
            config.stripe_bits(),
            (items_max / 6).max(1).ilog2().max(config.buckets_log2()),
            config.hash_expand,
            limit_bytes,
        )?;
        let items = Items::new(slabs, config.use_cas, config.item_bytes_max);
        self.drop_changed_pages(&memory_file, &items);
        let parts = Parts {
            items,
            table,
            seeds,
            lrus: Vec::new(),
            flush: FlushMark::resume(self.head.flush()),
            stores: Stores::resume(self.head.stores()),
            memory_file: Some(memory_file),
        };
        let cache = Cache::of(parts, config);
        cache.pass_cas(self.head.cas() + CAS_SINCE_TICK);
        self.restart.how = How::Walked;
        self.restart.reason = reason;
        self.step_done("map");
        self.look_through(&cache, None, unfinished);
        Ok(cache)
    }

    /// Takes the pages away that are not as their sums say, if they have such.
    pub(super) fn drop_changed_pages(&mut self, memory_file: &MemoryFile, items: &Items) {
        // Whoever opens a file takes its sums away. So who has damaged the mark that it is clean is seen as well.
        if !self.head.sums().0 {
            return;
        }
        for page in memory_file.changed_pages(items) {
            let used = u64::from(items.slabs().page_used(page));
            self.restart.dropped[Dropped::Damaged as usize] += used;
            items.give_page_back(page);
        }
    }

    /// Brings the items of all pages into `cache`: those that lie in it, or those of `old`.
    pub(super) fn look_through(
        &mut self,
        cache: &Cache,
        old: Option<&Items>,
        unfinished: Vec<u32>,
    ) {
        let source = old.unwrap_or(&cache.items);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let walk = Walk {
            cache,
            source,
            is_import: old.is_some(),
            unfinished,
            now: RelTime((self.now_ms / 1000) as u32),
            cas_base: self.head.cas().saturating_sub(1 << 31),
            pages: source.slabs().page_ids().collect(),
            next: AtomicUsize::new(0),
            left: Vec::new(),
            older: Mutex::default(),
        };
        let walk = Walk {
            left: walk.pages.iter().map(|_| AtomicI32::new(UNSEEN)).collect(),
            ..walk
        };
        let shares = on_threads(threads, || walk.look_through());
        self.step_done(if walk.is_import { "import" } else { "walk" });
        if !walk.is_import {
            walk.next.store(0, Relaxed);
            on_threads(threads, || walk.settle());
            self.step_done("settle");
        }
        let mut cas_max = 0;
        for share in &shares {
            cas_max = cas_max.max(share.cas_max);
            for (all, own) in self.restart.dropped.iter_mut().zip(share.dropped) {
                *all += own;
            }
        }
        cache.pass_cas(cas_max);
        self.restart.kept = walk.link(shares, threads, self.config.policy());
        self.step_done("order");
    }
}

/// Runs the same on so many threads, and gives what each of them gives.
fn on_threads<R: Send>(threads: usize, work: impl Fn() -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(&work)).collect();
        let mut results = vec![work()];
        results.extend(others.into_iter().map(|other| match other.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
        results
    })
}

/// An item that was found, and how old it is: the second of its last access, and in it the order of the stores.
type Aged = (u64, ChunkHandle);

/// What one thread has found.
struct Share {
    /// Items by class and segment.
    lists: Vec<Vec<Aged>>,
    dropped: [u64; Dropped::ALL.len()],
    cas_max: u64,
}

/// A way through all pages, for several threads at a time.
pub(super) struct Walk<'w> {
    pub(super) cache: &'w Cache,
    /// Where the items lie: in the cache, or in an older file.
    pub(super) source: &'w Items,
    is_import: bool,
    /// Items that were being changed where they lie.
    unfinished: Vec<u32>,
    now: RelTime,
    /// Uniques are counted from here, so that 32 bits tell them apart.
    cas_base: u64,
    pages: Vec<PageId>,
    next: AtomicUsize,
    /// For an import: of each page the continuations that are not read yet, or [`UNSEEN`] before the page was looked at, less
    /// those that were read already.
    pub(super) left: Vec<AtomicI32>,
    /// Items that were found, and for which a newer one of the same key was found later.
    older: Mutex<Vec<ChunkHandle>>,
}

/// See [`Walk::left`].
const UNSEEN: i32 = 1 << 30;

impl Walk<'_> {
    /// The next pages that no thread has taken, by their position.
    fn turn(&self) -> Option<std::ops::Range<usize>> {
        let first = self.next.fetch_add(PAGES_A_TURN, Relaxed);
        let end = (first + PAGES_A_TURN).min(self.pages.len());
        (first < end).then_some(first..end)
    }

    fn look_through(&self) -> Share {
        let mut share = Share {
            lists: (0..CLASSES_MAX * Segment::ALL.len())
                .map(|_| Vec::new())
                .collect(),
            dropped: [0; Dropped::ALL.len()],
            cas_max: 0,
        };
        while let Some(turn) = self.turn() {
            for nth in turn {
                self.look_through_page(nth, &mut share);
            }
        }
        for list in &mut share.lists {
            list.sort_unstable_by_key(|&(age, _)| age);
        }
        share
    }

    fn look_through_page(&self, nth: usize, share: &mut Share) {
        let (page, slabs) = (self.pages[nth], self.source.slabs());
        let Some(class) = slabs.page_class(page) else {
            return;
        };
        let mut ahead: Vec<(ChunkHandle, Probe)> = Vec::with_capacity(AHEAD);
        let mut continuations = 0;
        for chunk in slabs.page_chunks(page) {
            if !self.source.claims_item(chunk) {
                continuations += i32::from(self.source.is_continuation(chunk));
                continue;
            }
            if let Some(why) = self.why_not(chunk, class) {
                share.dropped[why as usize] += 1;
                self.source.disown(chunk, why != Dropped::Damaged);
                continue;
            }
            let mut probe = Probe::new(self.cache.table.hash(self.source.key(chunk)));
            self.cache.table.prefetch_bucket(&mut probe);
            ahead.push((chunk, probe));
            if ahead.len() == AHEAD {
                self.keep_all(&mut ahead, share);
            }
        }
        self.keep_all(&mut ahead, share);
        if self.is_import {
            self.count_left(page, continuations - UNSEEN);
        }
    }

    /// Why what claims to be an item is not kept; none if it is.
    fn why_not(&self, chunk: ChunkHandle, class: ClassId) -> Option<Dropped> {
        if !self.source.is_sound(chunk, class) {
            return Some(Dropped::Damaged);
        }
        if self.unfinished.contains(&chunk.to_raw()) {
            return Some(Dropped::Unfinished);
        }
        let expires_at = self.source.header(chunk).expires_at();
        (expires_at != RelTime::NEVER && expires_at <= self.now).then_some(Dropped::Expired)
    }

    fn keep_all(&self, ahead: &mut Vec<(ChunkHandle, Probe)>, share: &mut Share) {
        for (chunk, probe) in ahead.drain(..) {
            let kept = if self.is_import {
                let stored = self.store_anew(chunk);
                self.source.chunks(chunk).skip(1).for_each(|part| {
                    self.count_left(self.source.slabs().page_of(part), -1);
                });
                self.source.disown(chunk, true);
                stored
            } else {
                Some(chunk)
            };
            match kept {
                Some(kept) => self.put(kept, probe.hash(), share),
                None => share.dropped[Dropped::NoMemory as usize] += 1,
            }
        }
    }

    /// Puts an item into the table, and notes it for its list, unless there is a newer one of its key (Rv2).
    fn put(&self, handle: ChunkHandle, hash: KeyHash, share: &mut Share) {
        let items = &self.cache.items;
        let newness = |handle| (items.cas(handle), items.header(handle).accessed_at());
        let mut guard = self.cache.table.lock(hash);
        match guard.find(hash, |other| items.key(other) == items.key(handle)) {
            None => guard.insert(hash, handle),
            Some((_, other)) if newness(other) >= newness(handle) => {
                share.dropped[Dropped::Older as usize] += 1;
                return self.drop_item(handle);
            }
            Some((slot, other)) => {
                guard.replace(slot, handle);
                share.dropped[Dropped::Older as usize] += 1;
                self.older.lock().push(other);
                if !self.is_import {
                    self.source.disown(other, true);
                }
            }
        }
        drop(guard);
        let header = items.header(handle);
        let cas = items.cas(handle);
        // Beyond, it is damage.
        let cas = if cas < CAS_MAX { cas } else { 0 };
        share.cas_max = share.cas_max.max(cas);
        let order = cas.saturating_sub(self.cas_base).min(u64::from(u32::MAX));
        let age = u64::from(header.accessed_at().0) << 32 | order;
        let segment = header.state().segment() as usize;
        let class = self.cache.class_of(handle).index();
        share.lists[class * Segment::ALL.len() + segment].push((age, handle));
    }

    fn drop_item(&self, handle: ChunkHandle) {
        if self.is_import {
            self.cache.items.release(handle);
        } else {
            self.source.disown(handle, true);
        }
    }

    fn settle(&self) {
        while let Some(turn) = self.turn() {
            for nth in turn {
                self.source.settle(self.pages[nth]);
            }
        }
    }

    /// Makes the LRU of each class from the lists of all threads; gives how many items there are.
    fn link(&self, mut shares: Vec<Share>, threads: usize, policy: Policy) -> u64 {
        let items = &self.cache.items;
        let mut older = std::mem::take(&mut *self.older.lock());
        older.sort_unstable();
        let mut kept = 0;
        for class in items.slabs().classes() {
            let mut lists = [List::default(); 4];
            let mut requested_bytes = 0;
            for segment in Segment::ALL {
                let at = class.index() * Segment::ALL.len() + segment as usize;
                let mut all: Vec<Aged> = Vec::new();
                for share in &mut shares {
                    all.append(&mut share.lists[at]);
                }
                if !older.is_empty() {
                    all.retain(|(_, handle)| older.binary_search(handle).is_err());
                }
                // Runs that are in order already, one a thread.
                all.sort_by_key(|&(age, _)| age);
                requested_bytes += self.link_list(&all, threads);
                lists[segment as usize] = List {
                    head: all.last().map(|&(_, handle)| handle),
                    tail: all.first().map(|&(_, handle)| handle),
                    count: all.len(),
                };
                kept += all.len() as u64;
            }
            if requested_bytes > 0 {
                let segments = Segments::resume(lists);
                *self.cache.lru(class) = ClassLru::resume(items, segments, requested_bytes, policy);
            }
        }
        if self.is_import {
            // Not before: another item would get the handle, and be taken for this one.
            older.into_iter().for_each(|handle| items.release(handle));
        }
        kept
    }

    /// Links the items of one list, the oldest first; gives the bytes that they asked for.
    fn link_list(&self, all: &[Aged], threads: usize) -> u64 {
        let part = all.len().div_ceil(threads).max(4096);
        let parts = AtomicUsize::new(0);
        let work = || {
            let mut requested = 0;
            loop {
                let first = parts.fetch_add(1, Relaxed) * part;
                if first >= all.len() {
                    return requested;
                }
                for at in first..(first + part).min(all.len()) {
                    requested += self.link_item(all, at);
                }
            }
        };
        if all.len() <= part {
            return work();
        }
        on_threads(threads, work).into_iter().sum()
    }

    fn link_item(&self, all: &[Aged], at: usize) -> u64 {
        let items = &self.cache.items;
        if let Some(&(_, later)) = all.get(at + AHEAD) {
            items.slabs().prefetch_header(later);
        }
        let neighbour = |at: usize| all.get(at).map(|&(_, handle)| handle);
        let handle = all[at].1;
        let header = items.header(handle);
        header.set_next(at.checked_sub(1).and_then(neighbour));
        header.set_prev(neighbour(at + 1));
        items.mark_linked(handle);
        items.requested_bytes(handle) as u64
    }
}
