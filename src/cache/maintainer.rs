//! The work nobody waits for: segments kept to their shares, the expired reclaimed, pages moved where they are needed.
//!
//! One thread calls [`Maintainer::step`] about [`STEPS_PER_S`] times a second. A step does a bounded slice of each kind
//! of work, and holds no lock for longer than a few hundred items.

use std::sync::atomic::Ordering::Relaxed;

use super::at::At;
use super::class_mask::ClassMask;
use super::crawler::{Walk, WalkCursor};
use super::segments::{Balance, Segment};
use super::store::Cache;
use super::tuning::Automove;
use crate::clock::RelTime;
use crate::knobs::Knob;

/// Steps a second.
pub const STEPS_PER_S: u32 = 10;
/// A whole pass of the crawler is spread over so many seconds: with the pause of a pass, what has expired is gone
/// within a minute.
const PASS_S: usize = 30;
/// The least a crawl slice does, in chunks.
const CRAWL_SLICE_MIN: usize = 2000;
/// Items of one class looked at under one hold of its lock.
const LRU_SLICE: usize = 200;
/// Rounds of a step in which a class's dead tails are taken, its lock let go after each: some thousand items, more than
/// the crawler passes in the same step.
const DEAD_TAIL_ROUNDS: usize = 100;

/// A file system that had no space is asked again after so many seconds.
const ASK_FOR_MEMORY_S: u32 = 5;

/// What the maintainer remembers between steps.
#[derive(Debug, Default)]
pub struct Maintainer {
    pass: WalkCursor,
    /// The crawl that clients asked for, and how far it is.
    asked: Option<(ClassMask, WalkCursor)>,
    automove_at: RelTime,
    evicted_before: Vec<u64>,
    asked_for_memory: RelTime,
    /// The delayed flush that was told of.
    flush_told: Option<RelTime>,
}

impl Maintainer {
    /// One slice of all work.
    pub fn step(&mut self, cache: &Cache, at: At) {
        let flushed = cache.flush.came_due(at.now);
        if flushed.is_some() && flushed != self.flush_told {
            cache.events.flush_came(at.by);
        }
        self.flush_told = flushed;
        cache.departed.prepare();
        cache.serve_page_move(at);
        cache.shrink_to_limit(at);
        if cache.tuning.is_on(Knob::LruMaintainer) {
            cache.tend_lrus(at);
            cache.counters.lru_maintainer_juggles.fetch_add(1, Relaxed);
        }
        cache.step_sizing();
        if let Some(memory_file) = cache.memory_file() {
            memory_file.take_up_learned(cache);
            if at.now.since(self.asked_for_memory) >= ASK_FOR_MEMORY_S {
                self.asked_for_memory = at.now;
                cache.items.slabs().ask_for_memory_again();
            }
        }
        self.crawl(cache, at);
        let is_due = match cache.tuning.automove() {
            Automove::Never => false,
            Automove::OnNeed => at.now != self.automove_at,
            Automove::Eager => true,
        };
        if is_due {
            self.automove_at = at.now;
            self.automove(cache, at);
        }
    }

    fn crawl(&mut self, cache: &Cache, at: At) {
        let most = cache.tuning.crawl_chunks_max(STEPS_PER_S);
        let wanted = cache.take_crawl_request();
        if wanted != ClassMask::NONE {
            // One walk for all that is asked for; what is asked for meanwhile begins it anew.
            let (classes, cursor) = self.asked.get_or_insert_default();
            (*classes, *cursor) = (classes.or(wanted), WalkCursor::default());
        }
        if let Some((classes, cursor)) = &mut self.asked
            && crawl_slices(cache, cursor, *classes, most, at) == Walk::Done
        {
            self.asked = None;
            cache.end_crawl();
        }
        if cache.tuning.is_on(Knob::LruCrawler) {
            let items = cache
                .items
                .slabs()
                .classes()
                .map(|class| cache.items.slabs().class_stats(class));
            // A walk passes free chunks too.
            let walked = |stats: slab_alloc::ClassStats| {
                stats.used_chunks + stats.free_chunks + stats.total_pages
            };
            let chunks: usize = items.map(walked).sum();
            let budget = (chunks / (PASS_S * STEPS_PER_S as usize)).max(CRAWL_SLICE_MIN);
            let budget = budget.min(most);
            if crawl_slices(cache, &mut self.pass, ClassMask::ALL, budget, at) == Walk::Done {
                self.pass = WalkCursor::default();
                cache.counters.lru_crawler_starts.fetch_add(1, Relaxed);
            }
        }
    }

    /// Once a second, or more often if that is asked for: gives a page to the class that evicts the youngest items, if another's are older or lie empty.
    fn automove(&mut self, cache: &Cache, at: At) {
        let slabs = cache.items.slabs();
        self.evicted_before.resize(slab_alloc::CLASSES_MAX, 0);
        let mut neediest = None;
        for class in slabs.classes() {
            let evicted = cache.lru(class).segments.counters.evicted;
            let before = std::mem::replace(&mut self.evicted_before[class.index()], evicted);
            let cost = cache.cost(class);
            if evicted > before && neediest.is_none_or(|(least, _)| cost < least) {
                neediest = Some((cost, class));
            }
        }
        if let Some((_, class)) = neediest {
            cache.take_page(class, at, false);
        }
    }
}

/// Crawls over so many chunks, in slices between which others get a turn.
fn crawl_slices(
    cache: &Cache,
    cursor: &mut WalkCursor,
    classes: ClassMask,
    mut left: usize,
    at: At,
) -> Walk {
    while left > 0 {
        let slice = left.min(CRAWL_SLICE_MIN);
        left -= slice;
        if cache.crawl_slice(cursor, classes, slice, at) == Walk::Done {
            return Walk::Done;
        }
        std::thread::yield_now();
    }
    Walk::More
}

impl Cache {
    /// Moves tails that are above their segment's share or too old for it, and reclaims dead tails.
    fn tend_lrus(&self, at: At) {
        let hot_milli = u64::from(self.tuning.get(Knob::HotMaxFactor));
        let warm_milli = u64::from(self.tuning.get(Knob::WarmMaxFactor));
        let age = |tail| u64::from(at.now.since(self.items.header(tail).accessed_at()));
        // HOT is held to a part of COLD's age, so that it cannot become the older of the two.
        let too_old = |segment, tail, cold_tail: Option<_>| {
            let milli = if segment == Segment::Hot {
                hot_milli
            } else {
                warm_milli
            };
            let cold_age = cold_tail.map_or(0, age);
            age(tail) * 1000 > cold_age * milli && cold_age > 0
        };
        let keep = Balance {
            in_background: true,
            too_old: &too_old,
            ..self.tuning.balance()
        };
        for class in self.items.slabs().classes() {
            let mut lru = self.lru(class);
            if lru.segments.count() == 0 {
                continue;
            }
            lru.follow(&self.items, self.tuning.policy());
            for _ in 0..LRU_SLICE {
                if !lru.tidy_step(&self.items, keep) {
                    break;
                }
            }
            let mut more = self.reclaim_dead_tails(&mut lru, at);
            drop(lru);
            // Items that end together lie together. What is taken here need not be found by the crawler.
            for _ in 0..DEAD_TAIL_ROUNDS {
                if !more {
                    break;
                }
                more = self.reclaim_dead_tails(&mut self.lru(class), at);
            }
        }
    }
}
