//! Which slab classes are open: chunk sizes follow the sizes of the items.
//!
//! ```text
//!  classes   p        f      c        p and c are open, f is not: items of up to f bytes lie in chunks of c
//!            |--------|------|
//!             items here        open f when  items x (c - f)  is a page or more
//! ```
//!
//! A class that holds anything costs half a page, since one of its pages is being filled, and splits one order of eviction
//! into two; a class that is missing costs what its items waste in the next larger one. So a class is opened when the
//! items at hand would waste more than [`OPEN_PAGES`] without it (of full memory [`OPEN_PAGES_WHEN_FULL`]), and closed when they would waste less than
//! [`CLOSE_PAGES`]. A workload of one size gets a class that fits it within a step or two; one of all sizes gets as many
//! as pay.
//!
//! The evidence is a sample of what lies in memory, so no request counts anything for it.
//!
//! Costs: a step reads [`PAGES_A_STEP`] x [`CHUNKS_A_PAGE`] headers, about 50 us.

use std::sync::atomic::Ordering::Relaxed;

use slab_alloc::{CLASSES_MAX, ClassId, PageId};

use super::super::store::Cache;
use super::super::tuning::Automove;
use crate::knobs::Knob;

/// Pages looked at in one step.
const PAGES_A_STEP: usize = 64;
/// Chunks looked at in each.
const CHUNKS_A_PAGE: usize = 8;
/// Pages that must have been looked at before anything is decided, unless there are fewer.
const PAGES_TO_DECIDE: usize = 128;
/// A class opens when it saves so many pages: a half it costs, and the items of its size are in two orders until the older ones
/// are gone. On the traces of docs/eviction.md with mixed sizes of 0.2 to 40 KB, 1, 2 and 4 pages differ by less than 1 % of
/// the misses on the mean, but 1 costs up to 20 % on one.
const OPEN_PAGES: f64 = 2.0;
/// The same while memory is full: the items of a class that opens are few at first and old ones in the next larger class many, so that
/// it takes pages from those that still bring hits. When sizes grow while small values stay valid, 8 miss 4 to 10 % less than 2,
/// and 1 % more when nobody asks for those again; mixed sizes lie less closely.
const OPEN_PAGES_WHEN_FULL: f64 = 4.0;
/// An open class closes when it saves less than this.
const CLOSE_PAGES: f64 = 0.6;
/// Between two steps that stores make lie so many pages that went to classes, as a part of those that classes have, and
/// [`PAGES_BETWEEN_MIN`] at least.
const PART_BETWEEN: usize = 16;
/// The least of them.
const PAGES_BETWEEN_MIN: usize = 2;
/// Pages that the sampled items of a class to be opened must fill: of fewer, the sample may tell nothing.
const SAMPLE_PAGES: f64 = 0.5;

/// The sample so far.
#[derive(Debug, Default)]
pub(in crate::cache) struct Sizing {
    /// Where the next step begins, as a position among the pages.
    next_page: usize,
    pages_seen: usize,
    by_class: Vec<Sampled>,
    /// The classes open at the start: they stay open.
    base: Vec<ClassId>,
}

/// Sampled items by the class that fits them best. A number of items stands for those of the page that were not looked
/// at too.
#[derive(Debug, Clone, Copy, Default)]
struct Sampled {
    items: f64,
    /// Those that lie in chunks of the class that serves their size now; others were stored before that was opened.
    well_placed: f64,
}

impl Cache {
    /// Makes a step where the shares of the classes have changed since the last: so a fast writer, who fills all of memory
    /// between two steps of the maintainer, finds the classes it needs too.
    #[inline]
    pub(in crate::cache) fn follow_sizes(&self) {
        if self.items.slabs().pages_attached() >= self.sizing_due.load(Relaxed) {
            self.step_sizing();
        }
    }

    /// A step, unless somebody else makes one.
    #[cold]
    pub(in crate::cache) fn step_sizing(&self) {
        let Some(mut sizing) = self.sizing.try_lock() else {
            return;
        };
        let slabs = self.items.slabs();
        let between = (slabs.pages_total() / PART_BETWEEN).max(PAGES_BETWEEN_MIN);
        self.sizing_due
            .store(slabs.pages_attached() + between, Relaxed);
        sizing.step(self);
    }
}

impl Sizing {
    /// Looks at some pages; opens and closes classes when enough were seen.
    fn step(&mut self, cache: &Cache) {
        let slabs = cache.items.slabs();
        // A class that is opened where pages do not move may never get one. Where nobody is evicted, what is given back must
        // do for others of the same size, and so must a value for the one that takes its place.
        let evicts = cache.tuning.is_on(Knob::Evictions);
        if cache.tuning.automove() == Automove::Never || !evicts {
            return;
        }
        if self.by_class.is_empty() {
            self.by_class = vec![Sampled::default(); CLASSES_MAX];
            self.base = slabs
                .classes()
                .filter(|&class| slabs.is_open(class))
                .collect();
        }
        if self.base.len() == slabs.classes().count() {
            return;
        }
        let mut looked_at = 0;
        for page in slabs.page_ids().skip(self.next_page).take(PAGES_A_STEP) {
            looked_at += 1;
            self.sample(cache, page);
        }
        self.next_page += looked_at;
        let lap_done = looked_at < PAGES_A_STEP;
        if lap_done {
            self.next_page = 0;
        }
        if self.pages_seen >= PAGES_TO_DECIDE || (lap_done && self.pages_seen > 0) {
            self.decide(cache);
            self.pages_seen = 0;
            self.by_class.fill(Sampled::default());
        }
    }

    fn sample(&mut self, cache: &Cache, page: PageId) {
        let (items, slabs) = (&cache.items, cache.items.slabs());
        let Some(class) = slabs.page_class(page) else {
            return;
        };
        let mut count = 0;
        let mut sizes = [None; CHUNKS_A_PAGE];
        slabs.hold_page(page, class, || {
            let chunks = slabs.page_chunks(page);
            count = chunks.size_hint().0;
            let stride = count.div_ceil(CHUNKS_A_PAGE).max(1);
            for (size, chunk) in sizes.iter_mut().zip(chunks.step_by(stride)) {
                let linked = cache.looks_linked(chunk);
                *size = linked.then(|| items.bytes_in_one_chunk(chunk)).flatten();
            }
        });
        if count == 0 {
            return;
        }
        self.pages_seen += 1;
        let samples = count.div_ceil(count.div_ceil(CHUNKS_A_PAGE));
        let stands_for = count as f64 / samples as f64;
        for bytes in sizes.into_iter().flatten() {
            // What is chained fills its chunks, but for an end.
            let Some(exact) = slabs.exact_class_for(bytes) else {
                continue;
            };
            let sampled = &mut self.by_class[exact.index()];
            sampled.items += stands_for;
            if slabs.class_for(bytes) == Some(class) {
                sampled.well_placed += stands_for;
            }
        }
    }

    fn decide(&self, cache: &Cache) {
        let slabs = cache.items.slabs();
        let page_bytes = slabs.page_bytes() as f64;
        // While memory fills up, what is there stands for what is to come.
        let when_full = slabs.pages_total() - slabs.pool_pages() + slabs.available_pages();
        let scale = (when_full as f64 / self.pages_seen as f64).max(1.0);
        let open_pages = match slabs.available_pages() {
            0 => OPEN_PAGES_WHEN_FULL,
            _ => OPEN_PAGES,
        };
        // The classes of the gap below the next open class, smallest first.
        let mut gap = Vec::new();
        for class in slabs.classes() {
            if !slabs.is_open(class) {
                gap.push(class);
                continue;
            }
            let fits = slabs.chunk_bytes(class);
            let waste = |in_class: ClassId| (fits - slabs.chunk_bytes(in_class)) as f64;
            let (mut items, mut best) = (0.0, None);
            for &candidate in &gap {
                items += self.by_class[candidate.index()].well_placed;
                let saved = items * waste(candidate) * scale / page_bytes;
                let enough = items * fits as f64 >= SAMPLE_PAGES * page_bytes;
                if enough && saved >= open_pages && best.is_none_or(|(most, _)| saved > most) {
                    best = Some((saved, candidate));
                }
            }
            if let Some((_, opened)) = best {
                slabs.set_open(opened, true);
            } else if !self.base.contains(&class) {
                let next = slabs
                    .classes()
                    .find(|&other| other > class && slabs.is_open(other));
                let next = next.expect("the largest class stays open");
                let items: f64 = gap
                    .iter()
                    .chain([&class])
                    .map(|class| self.by_class[class.index()].items)
                    .sum();
                let more = (slabs.chunk_bytes(next) - fits) as f64;
                if items * more * scale / page_bytes < CLOSE_PAGES {
                    slabs.set_open(class, false);
                }
            }
            gap.clear();
        }
    }
}
