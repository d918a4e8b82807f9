//! Keeps the keyspace's figures up to date: what the workers cannot do, each for itself.
//!
//! ```text
//!  ten times a second: takes what workers follow     a slice of the walk that counts bytes by prefix
//!  once a second:      puts hot keys together, tells the small caches of the large one
//! ```

use std::sync::atomic::Ordering::Relaxed;

use crate::cache::{Policy, WalkCursor};
use crate::clock::RelTime;
use crate::keyspace::Tick;
use crate::keyspace::by_prefix::Walked;
use crate::keyspace::latency::{Group, Times};
use crate::keyspace::whatif::{Kind, Measured};
use crate::state::{Row, Shared};
use crate::stats::Sums;

/// Steps that a walk over a large cache takes: half a minute.
const WALK_STEPS: usize = 300;
/// Chunks of a step at least: a walk over a small cache is one step.
const WALK_CHUNKS_MIN: usize = 20_000;
/// Steps from the end of a walk to the next.
const WALK_PAUSE: u32 = 20;
/// Items that a walk looks at: each takes the lock of its class for a moment.
const WALK_ITEMS: usize = 64 * 1024;

/// The state of the thread.
#[derive(Debug, Default)]
pub struct Watcher {
    ticked: RelTime,
    reads: u64,
    hits: u64,
    cursor: WalkCursor,
    walked: Walked,
    one_in: usize,
    pause: u32,
    /// What was counted up to the last second.
    counted: [u64; 11],
    times: Times,
    is_counted: bool,
}

impl Watcher {
    /// A tenth of a second's work.
    pub fn step(&mut self, shared: &Shared) {
        self.walk(shared);
        let now = shared.clock.now();
        if now == self.ticked {
            return shared.keyspace.drain();
        }
        self.ticked = now;
        let sums = shared.stats.read();
        let (hits, misses) = (sums.over_classes().get_hits, sums.general.get_misses);
        let reads = hits + misses;
        // After `stats reset` they are less than before.
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now) as f64;
        let measured = Measured {
            reads: since(reads, self.reads),
            hits: since(hits, self.hits),
        };
        (self.reads, self.hits) = (reads, hits);
        let kind = match shared.cache.tuning.policy() {
            Policy::S3Fifo => Kind::S3Fifo,
            _ => Kind::Lru,
        };
        self.record(shared, &sums);
        shared.keyspace.tick(Tick {
            now_s: now.0,
            measured,
            full_bytes: shared.cache.bytes_when_full(now),
            kind,
        });
    }

    /// Adds the second that is over to the record.
    fn record(&mut self, shared: &Shared, sums: &Sums) {
        let (general, classes) = (sums.general, sums.over_classes());
        let reports = shared.cache.class_reports(shared.clock.now());
        let counts = &shared.connections.counts;
        let mut times = Times::default();
        for group in Group::ALL {
            times.add(&shared.keyspace.latency(group));
        }
        let counted = [
            classes.get_hits,
            general.get_misses,
            classes.cmd_set,
            classes.delete_hits + general.delete_misses,
            general.cmd_touch,
            reports.iter().map(|class| class.lru.evicted).sum(),
            general.bytes_read,
            general.bytes_written,
            counts.total_connections.load(Relaxed),
            general.conn_yields,
            times.count(),
        ];
        let mut row = Row {
            unix_s: shared.clock.unix(shared.clock.now()),
            ..Row::default()
        };
        // After `stats reset` they are less than before.
        let since = |(now, before): (&u64, &u64)| now.checked_sub(*before).unwrap_or(*now);
        let of_second = counted.iter().zip(&self.counted).map(since);
        let there = [
            times.since(&self.times).quantile(0.99),
            shared.connections.counts.curr_connections.load(Relaxed),
            reports.iter().flat_map(|class| class.counts).sum::<usize>() as u64,
            reports.iter().map(|class| class.mem_requested).sum(),
        ];
        for (place, value) in row.values.iter_mut().zip(of_second.chain(there)) {
            *place = value;
        }
        // What was counted before the first second is none of it.
        if self.is_counted {
            shared.record.push(row);
        }
        (self.counted, self.times, self.is_counted) = (counted, times, true);
    }

    fn walk(&mut self, shared: &Shared) {
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        let cache = &shared.cache;
        if self.cursor == WalkCursor::default() {
            let items: usize = class_items(shared);
            self.one_in = items.div_ceil(WALK_ITEMS).max(1);
        }
        let chunks = cache.arena_bytes() / LEAST_CHUNK_BYTES;
        let budget = (chunks / WALK_STEPS).max(WALK_CHUNKS_MIN);
        let (one_in, delimiter) = (self.one_in, shared.settings.prefix_delimiter);
        let walked = &mut self.walked;
        let now = shared.clock.now();
        let is_through = cache.sample_items(&mut self.cursor, budget, one_in, now, |item| {
            let bytes = item.item_bytes();
            walked.add(item.key(), delimiter, bytes, one_in, !item.is_fetched());
        });
        if is_through {
            self.cursor = WalkCursor::default();
            self.pause = WALK_PAUSE;
            shared.keyspace.show_walk(std::mem::take(&mut self.walked));
        }
    }
}

/// Bytes of the smallest chunk.
const LEAST_CHUNK_BYTES: usize = 48;

fn class_items(shared: &Shared) -> usize {
    let reports = shared.cache.class_reports(shared.clock.now());
    let items = reports
        .iter()
        .map(|report| report.counts.iter().sum::<usize>());
    items.sum()
}
