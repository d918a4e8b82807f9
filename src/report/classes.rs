//! `stats items` and `stats slabs`, a class at a time.

use std::fmt::Display;
use std::sync::atomic::Ordering::Relaxed;

use protocol::reply;

use super::lines::fields;
use crate::cache::{ClassId, ClassReport, LruCounters, Segment};
use crate::state::Ctx;
use crate::stats::Sums;

/// Lines whose keys begin with a class: `items:5:`, `5:`.
struct ClassLines<'o> {
    out: &'o mut Vec<u8>,
    prefix: &'static str,
    class: ClassId,
}

impl ClassLines<'_> {
    fn stat(&mut self, key: &str, value: impl Display) {
        let (prefix, class) = (self.prefix, self.class.get());
        reply::stat(self.out, format_args!("{prefix}{class}:{key}"), value);
    }
}

pub(crate) fn item_lines(ctx: Ctx<'_>, sums: &Sums, report: &ClassReport, out: &mut Vec<u8>) {
    if items_of(report) == 0 {
        return;
    }
    let temp = ctx.cache.tuning.temporary_ttl_s.load(Relaxed) >= 0;
    let count = |segment: Segment| report.counts[segment as usize];
    let age = |segment: Segment| report.ages_s[segment as usize];
    let mut lines = ClassLines {
        out,
        prefix: "items:",
        class: report.class,
    };
    lines.stat("number", items_of(report));
    lines.stat("number_hot", count(Segment::Hot));
    lines.stat("number_warm", count(Segment::Warm));
    lines.stat("number_cold", count(Segment::Cold));
    if temp {
        lines.stat("number_temp", count(Segment::Temp));
    }
    lines.stat("age_hot", age(Segment::Hot));
    lines.stat("age_warm", age(Segment::Warm));
    // Of the oldest, wherever the policy keeps it: in memcached COLD has it, as all items come there in time.
    lines.stat("age", report.ages_s.into_iter().max().unwrap_or_default());
    lines.stat("mem_requested", report.mem_requested);
    let lru: LruCounters = report.lru;
    fields!(lines, lru, evicted evicted_nonzero evicted_time outofmemory);
    // Nothing is ever taken from a reader that holds it too long.
    lines.stat("tailrepairs", 0);
    fields!(lines, lru, reclaimed expired_unfetched evicted_unfetched evicted_active
        crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm
        moves_within_lru direct_reclaims);
    let hits = &sums.classes[report.class.index()];
    fields!(lines, hits, hits_to_hot hits_to_warm hits_to_cold hits_to_temp);
}

pub(crate) fn slab_lines(sums: &Sums, report: &ClassReport, out: &mut Vec<u8>) {
    let slabs = report.slabs;
    let total_chunks = slabs.total_pages * slabs.chunks_per_page;
    let mut lines = ClassLines {
        out,
        prefix: "",
        class: report.class,
    };
    lines.stat("chunk_size", slabs.chunk_bytes);
    lines.stat("chunks_per_page", slabs.chunks_per_page);
    lines.stat("total_pages", slabs.total_pages);
    lines.stat("total_chunks", total_chunks);
    lines.stat("used_chunks", slabs.used_chunks);
    lines.stat(
        "free_chunks",
        total_chunks.saturating_sub(slabs.used_chunks),
    );
    // Those never used count as free, as in every memcached since 1.4.
    lines.stat("free_chunks_end", 0);
    let hits = &sums.classes[report.class.index()];
    fields!(lines, hits, get_hits cmd_set delete_hits incr_hits decr_hits cas_hits cas_badval
        touch_hits);
}

/// How many items the class holds.
pub(crate) fn items_of(report: &ClassReport) -> usize {
    report.counts.iter().sum()
}
