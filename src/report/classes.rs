//! `stats items` and `stats slabs`, a class at a time.

use super::figures::{Figures, counts};
use super::sink::{Of, Sink};
use crate::cache::{ClassReport, LruCounters, Segment};
use crate::knobs::{Knob, OFF};
use crate::state::Ctx;
use crate::stats::Sums;

/// A class of `stats items`, if it holds any.
pub(super) fn items(ctx: Ctx<'_>, sums: &Sums, report: &ClassReport, sink: &mut dyn Sink) {
    if items_of(report) == 0 {
        return;
    }
    let temp = ctx.cache.tuning.get(Knob::TemporaryTtl) != OFF;
    let count = |segment: Segment| report.counts[segment as usize];
    let age_s = |segment: Segment| report.ages_s[segment as usize];
    let of = Of::Items(report.class.get());
    let mut figures = Figures { of, sink };
    figures.count("number", items_of(report));
    figures.count("number_hot", count(Segment::Hot));
    figures.count("number_warm", count(Segment::Warm));
    figures.count("number_cold", count(Segment::Cold));
    if temp {
        figures.count("number_temp", count(Segment::Temp));
    }
    figures.seconds("age_hot", age_s(Segment::Hot));
    figures.seconds("age_warm", age_s(Segment::Warm));
    // Of the oldest, wherever the policy keeps it: in memcached COLD has it, as all items come there in time.
    figures.seconds("age", report.ages_s.into_iter().max().unwrap_or_default());
    figures.bytes("mem_requested", report.mem_requested);
    let lru: LruCounters = report.lru;
    counts!(figures, lru, evicted evicted_nonzero);
    figures.seconds("evicted_time", lru.evicted_time);
    counts!(figures, lru, outofmemory);
    // Nothing is ever taken from a reader that holds it too long.
    figures.zeros(&["tailrepairs"]);
    counts!(figures, lru, reclaimed expired_unfetched evicted_unfetched evicted_active
        crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm
        moves_within_lru direct_reclaims);
    let hits = &sums.classes[report.class.index()];
    counts!(figures, hits, hits_to_hot hits_to_warm hits_to_cold hits_to_temp);
}

/// A class of `stats slabs`.
pub(super) fn slab(sums: &Sums, report: &ClassReport, sink: &mut dyn Sink) {
    let slabs = report.slabs;
    let total_chunks = slabs.total_pages * slabs.chunks_per_page;
    let of = Of::Slab(report.class.get());
    let mut figures = Figures { of, sink };
    figures.bytes("chunk_size", slabs.chunk_bytes);
    figures.count("chunks_per_page", slabs.chunks_per_page);
    figures.count("total_pages", slabs.total_pages);
    figures.count("total_chunks", total_chunks);
    figures.count("used_chunks", slabs.used_chunks);
    figures.count(
        "free_chunks",
        total_chunks.saturating_sub(slabs.used_chunks),
    );
    // Those never used count as free, as in every memcached since 1.4.
    figures.zeros(&["free_chunks_end"]);
    let hits = &sums.classes[report.class.index()];
    counts!(figures, hits, get_hits cmd_set delete_hits incr_hits decr_hits cas_hits cas_badval
        touch_hits);
}

/// How many items the class holds.
pub(super) fn items_of(report: &ClassReport) -> usize {
    report.counts.iter().sum()
}
