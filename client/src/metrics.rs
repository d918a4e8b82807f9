//! What the client tells of itself: a trait to plug into whatever counts, and a recorder that is enough for many.
//!
//! ```
//! use std::sync::Arc;
//! use ketch_client::{Client, ClientOptions, metrics::Recorder};
//!
//! let recorder = Arc::new(Recorder::default());
//! let client = Client::new([], ClientOptions::default().metrics(recorder.clone()));
//! assert!(client.get("k").is_err(), "there is no node");
//! // For Prometheus to fetch:
//! print!("{}", recorder.render());
//! ```
//!
//! ```text
//!  histogram, microseconds:  0 1 2 .. 15 | 16 17 .. 31 | 32 34 .. 62 | 64 68 .. 124 | ..   16 buckets a power of two
//! ```
//!
//! M1. Recording takes no lock but a shared one to find the node, and allocates nothing but once a node.
//! M2. A quantile is too large by at most a sixteenth.
//!
//! Costs: 4 KiB a node.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use client_core::error::Failure;
use client_core::feed::Lost;
pub use client_core::metrics::{Followed, Loaded, Metrics, Op};

const OPS: [(Op, &str); 7] = [
    (Op::Get, "get"),
    (Op::Store, "store"),
    (Op::Delete, "delete"),
    (Op::Count, "count"),
    (Op::Touch, "touch"),
    (Op::Lease, "lease"),
    (Op::Ask, "ask"),
];

const LOADS: [(Loaded, &str); 6] = [
    (Loaded::Missing, "missing"),
    (Loaded::Refreshed, "refreshed"),
    (Loaded::Shared, "shared"),
    (Loaded::Failed, "failed"),
    (Loaded::Timeout, "timeout"),
    (Loaded::NotStored, "not_stored"),
];

const LOSSES: [Lost; 12] = [
    Lost::Gap,
    Lost::Epoch,
    Lost::Hole,
    Lost::Silent,
    Lost::Behind,
    Lost::Garbage,
    Lost::LongLine,
    Lost::Closed,
    Lost::Connect,
    Lost::SignIn,
    Lost::Full,
    Lost::NoFeed,
];

const OUTCOMES: [(Result<(), Failure>, &str); 7] = [
    (Ok(()), "ok"),
    (Err(Failure::Connect), "connect"),
    (Err(Failure::SignIn), "sign_in"),
    (Err(Failure::Closed), "closed"),
    (Err(Failure::Timeout), "timeout"),
    (Err(Failure::Garbage), "garbage"),
    (Err(Failure::Busy), "busy"),
];

/// Where `what` stands in a table of all variants.
fn at<T: PartialEq>(table: &[(T, &str)], what: &T) -> usize {
    table.iter().position(|(one, _)| one == what).unwrap_or(0)
}

type Counter = AtomicU64;

fn add(counter: &Counter, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn read(counter: &Counter) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Counts everything, and latencies by node.
#[derive(Debug, Default)]
pub struct Recorder {
    nodes: RwLock<HashMap<Arc<str>, Arc<NodeCounts>>>,
    hits: Counter,
    misses: Counter,
    near_hits: Counter,
    near_misses: Counter,
    loads: [Counter; LOADS.len()],
    dropped_in_flight: Counter,
}

/// The feed of one node.
#[derive(Debug, Default)]
struct FeedCounts {
    /// There was something of it.
    is_followed: AtomicU64,
    is_armed: AtomicU64,
    armed: Counter,
    events: Counter,
    lost: [Counter; LOSSES.len()],
}

#[derive(Debug, Default)]
struct NodeCounts {
    feed: FeedCounts,
    requests: [[Counter; OUTCOMES.len()]; OPS.len()],
    ejections: Counter,
    out: AtomicU64,
    latency: Histogram,
}

impl Recorder {
    fn node(&self, name: &str) -> Arc<NodeCounts> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = nodes.get(name) {
            return counts.clone();
        }
        drop(nodes);
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.entry(name.into()).or_default().clone()
    }

    /// Requests to all nodes: those that were answered, and those that failed.
    pub fn requests(&self) -> (u64, u64) {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let all = nodes.values().flat_map(|counts| counts.requests.iter());
        all.fold((0, 0), |(ok, failed), outcomes| {
            let failures: u64 = outcomes[1..].iter().map(read).sum();
            (ok + read(&outcomes[0]), failed + failures)
        })
    }

    /// Keys looked up, hits and misses.
    pub fn lookups(&self) -> (u64, u64) {
        (read(&self.hits), read(&self.misses))
    }

    /// As [`lookups`](Self::lookups), of the near cache.
    pub fn near_lookups(&self) -> (u64, u64) {
        (read(&self.near_hits), read(&self.near_misses))
    }

    /// How often values were loaded so.
    pub fn loads(&self, how: Loaded) -> u64 {
        read(&self.loads[at(&LOADS, &how)])
    }

    /// Of the feeds that the near cache follows, how many events came, how often one was armed, and how often something was lost.
    pub fn feeds(&self) -> (u64, u64, u64) {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let feeds = nodes.values().map(|counts| &counts.feed);
        feeds.fold((0, 0, 0), |(events, armed, lost), feed| {
            let losses: u64 = feed.lost.iter().map(read).sum();
            (
                events + read(&feed.events),
                armed + read(&feed.armed),
                lost + losses,
            )
        })
    }

    /// How many feeds the near cache has now.
    pub fn feeds_armed(&self) -> u64 {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes
            .values()
            .map(|counts| read(&counts.feed.is_armed))
            .sum()
    }

    /// How often a node's feed was lost so.
    pub fn feed_lost(&self, node: &str, why: Lost) -> u64 {
        let at = LOSSES.iter().position(|one| *one == why);
        at.map_or(0, |at| read(&self.node(node).feed.lost[at]))
    }

    /// How often what was read was not kept near, since an event came in the meantime.
    pub fn near_dropped_in_flight(&self) -> u64 {
        read(&self.dropped_in_flight)
    }

    /// How often a node was ejected.
    pub fn ejections(&self, node: &str) -> u64 {
        read(&self.node(node).ejections)
    }

    /// The latency that the part `quantile` (0.99) of a node's answers had at most; zero if it never answered.
    pub fn latency(&self, node: &str, quantile: f64) -> Duration {
        self.node(node).latency.quantile(quantile)
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let mut nodes: Vec<_> = nodes.iter().collect();
        nodes.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let mut family = |name: &str, kind: &str, samples: String| {
            if !samples.is_empty() {
                // Writing into a String cannot fail.
                let _ = write!(out, "# TYPE ketch_client_{name} {kind}\n{samples}");
            }
        };
        let (mut requests, mut ejections, mut out_now, mut latency) =
            (String::new(), String::new(), String::new(), String::new());
        let mut feeds: [String; 4] = Default::default();
        for (node, counts) in nodes {
            let node = escape(node);
            for ((_, op), outcomes) in OPS.iter().zip(&counts.requests) {
                for ((_, outcome), count) in OUTCOMES.iter().zip(outcomes) {
                    if read(count) > 0 {
                        let labels = format!("node=\"{node}\",op=\"{op}\",outcome=\"{outcome}\"");
                        sample(&mut requests, "requests_total", &labels, read(count));
                    }
                }
            }
            let label = format!("node=\"{node}\"");
            sample(
                &mut ejections,
                "ejections_total",
                &label,
                read(&counts.ejections),
            );
            sample(&mut out_now, "ejected", &label, read(&counts.out));
            counts.latency.render(&mut latency, &label);
            counts.feed.render(&mut feeds, &label);
        }
        family("requests_total", "counter", requests);
        family("request_seconds", "histogram", latency);
        family("ejections_total", "counter", ejections);
        family("ejected", "gauge", out_now);
        for ((name, kind), samples) in FEED_FAMILIES.iter().zip(feeds) {
            family(name, kind, samples);
        }
        if self.feeds().1 + self.feeds().2 > 0 {
            let mut samples = String::new();
            let dropped = self.near_dropped_in_flight();
            let _ = writeln!(
                samples,
                "ketch_client_near_dropped_in_flight_total {dropped}"
            );
            family("near_dropped_in_flight_total", "counter", samples);
        }
        let pairs = |name: &str, (hits, misses): (u64, u64)| {
            let mut samples = String::new();
            sample(&mut samples, name, "outcome=\"hit\"", hits);
            sample(&mut samples, name, "outcome=\"miss\"", misses);
            samples
        };
        family(
            "lookups_total",
            "counter",
            pairs("lookups_total", self.lookups()),
        );
        family(
            "near_lookups_total",
            "counter",
            pairs("near_lookups_total", self.near_lookups()),
        );
        let mut loads = String::new();
        for ((_, how), count) in LOADS.iter().zip(&self.loads) {
            sample(
                &mut loads,
                "loads_total",
                &format!("how=\"{how}\""),
                read(count),
            );
        }
        family("loads_total", "counter", loads);
        out
    }
}

/// What is told of feeds.
const FEED_FAMILIES: [(&str, &str); 4] = [
    ("feed_armed", "gauge"),
    ("feed_armed_total", "counter"),
    ("feed_events_total", "counter"),
    ("feed_lost_total", "counter"),
];

impl FeedCounts {
    fn render(&self, out: &mut [String; 4], label: &str) {
        if read(&self.is_followed) == 0 {
            return;
        }
        let counts = [&self.is_armed, &self.armed, &self.events];
        for ((out, (name, _)), count) in out.iter_mut().zip(FEED_FAMILIES).zip(counts) {
            sample(out, name, label, read(count));
        }
        for (why, count) in LOSSES.iter().zip(&self.lost) {
            if read(count) > 0 {
                let labels = format!("{label},why=\"{}\"", why.word());
                sample(&mut out[3], FEED_FAMILIES[3].0, &labels, read(count));
            }
        }
    }
}

fn sample(out: &mut String, name: &str, labels: &str, value: impl fmt::Display) {
    let _ = writeln!(out, "ketch_client_{name}{{{labels}}} {value}");
}

/// A label's value as Prometheus wants it.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

impl Metrics for Recorder {
    fn request(&self, node: &str, op: Op, outcome: Result<(), Failure>, latency: Duration) {
        let counts = self.node(node);
        add(&counts.requests[at(&OPS, &op)][at(&OUTCOMES, &outcome)], 1);
        if outcome.is_ok() {
            counts.latency.record(latency);
        }
    }

    fn looked_up(&self, hits: u64, misses: u64) {
        add(&self.hits, hits);
        add(&self.misses, misses);
    }

    fn looked_up_near(&self, hits: u64, misses: u64) {
        add(&self.near_hits, hits);
        add(&self.near_misses, misses);
    }

    fn followed(&self, node: &str, what: Followed) {
        let node = self.node(node);
        let feed = &node.feed;
        feed.is_followed.store(1, Ordering::Relaxed);
        match what {
            Followed::Armed => {
                add(&feed.armed, 1);
                feed.is_armed.store(1, Ordering::Relaxed);
            }
            Followed::Events(count) => add(&feed.events, count),
            Followed::Lost(why) => {
                if why.is_over() {
                    feed.is_armed.store(0, Ordering::Relaxed);
                }
                if let Some(at) = LOSSES.iter().position(|one| *one == why) {
                    add(&feed.lost[at], 1);
                }
            }
            // What this version does not know.
            _ => {}
        }
    }

    fn dropped_in_flight(&self) {
        add(&self.dropped_in_flight, 1);
    }

    fn ejected(&self, node: &str) {
        let counts = self.node(node);
        add(&counts.ejections, 1);
        counts.out.store(1, Ordering::Relaxed);
    }

    fn returned(&self, node: &str) {
        self.node(node).out.store(0, Ordering::Relaxed);
    }

    fn loaded(&self, how: Loaded, _took: Duration) {
        add(&self.loads[at(&LOADS, &how)], 1);
    }
}

/// Buckets in a power of two, and below the first of them.
const FINE: u64 = 16;
/// The largest power: 2^26 us is 67 s; what takes longer counts as that.
const POWER_MAX: u32 = 26;
const BUCKETS: usize = (FINE as usize) * (POWER_MAX as usize - 3);

/// See the module.
struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_us: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum_us: Counter::default(),
        }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Histogram(p50 {:?}, p99 {:?})",
            self.quantile(0.5),
            self.quantile(0.99)
        )
    }
}

fn bucket(us: u64) -> usize {
    if us < FINE {
        return us as usize;
    }
    let power = us.ilog2();
    let within = (us >> (power - FINE.ilog2())) - FINE;
    let bucket = u64::from(power - FINE.ilog2() + 1) * FINE + within;
    (bucket as usize).min(BUCKETS - 1)
}

/// The smallest number of microseconds beyond a bucket.
fn bound(bucket: usize) -> u64 {
    let bucket = bucket as u64 + 1;
    if bucket < FINE {
        return bucket;
    }
    (FINE + bucket % FINE) << (bucket / FINE - 1)
}

impl Histogram {
    fn record(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        add(&self.buckets[bucket(us)], 1);
        // Bounded, so that the sum does not wrap.
        add(&self.sum_us, us.min(1 << POWER_MAX));
    }

    fn quantile(&self, quantile: f64) -> Duration {
        let counts: Vec<u64> = self.buckets.iter().map(read).collect();
        let total: u64 = counts.iter().sum();
        let rank = ((total as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut below = 0;
        for (bucket, count) in counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return Duration::from_micros(bound(bucket));
            }
        }
        Duration::ZERO
    }

    /// With a bucket a power of two, from 64 us on.
    fn render(&self, out: &mut String, label: &str) {
        let (mut below, mut next) = (0, 0);
        let seconds = |us: u64| us as f64 / 1e6;
        for power in 6..=POWER_MAX - 2 {
            let until = bucket(1 << power);
            below += self.buckets[next..until].iter().map(read).sum::<u64>();
            next = until;
            let labels = format!("{label},le=\"{}\"", seconds(1 << power));
            sample(out, "request_seconds_bucket", &labels, below);
        }
        below += self.buckets[next..].iter().map(read).sum::<u64>();
        let all = format!("{label},le=\"+Inf\"");
        sample(out, "request_seconds_bucket", &all, below);
        sample(
            out,
            "request_seconds_sum",
            label,
            seconds(read(&self.sum_us)),
        );
        sample(out, "request_seconds_count", label, below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_are_fine() {
        let mut last = 0;
        for us in (0..5000).chain((13..26).map(|power| 1 << power)) {
            let bucket = bucket(us);
            assert!(bucket >= last && bucket < BUCKETS);
            last = bucket;
            let bound = bound(bucket);
            assert!(
                us < bound && bound - us <= (us / FINE).max(1),
                "{us} {bound}"
            );
        }
        assert_eq!(bucket(1 << POWER_MAX), BUCKETS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        (1..=1000).for_each(|ms| histogram.record(Duration::from_millis(ms)));
        for (quantile, ms) in [(0.0, 1), (0.5, 500), (0.99, 990), (1.0, 1000)] {
            let found = histogram.quantile(quantile).as_secs_f64() * 1000.0;
            let ratio = found / f64::from(ms);
            assert!(
                (1.0..=1.0 + 1.0 / 16.0).contains(&ratio),
                "{quantile}: {found}"
            );
        }
    }

    #[test]
    fn what_prometheus_reads() {
        let recorder = Recorder::default();
        recorder.request("a:1", Op::Get, Ok(()), Duration::from_micros(100));
        recorder.request("a:1", Op::Get, Ok(()), Duration::from_secs(1000));
        recorder.request(
            "a:1",
            Op::Store,
            Err(Failure::Timeout),
            Duration::from_secs(1),
        );
        recorder.looked_up(3, 1);
        recorder.ejected("b\"\\:2");
        recorder.loaded(Loaded::Shared, Duration::ZERO);
        let text = recorder.render();
        for line in [
            "# TYPE ketch_client_requests_total counter",
            "ketch_client_requests_total{node=\"a:1\",op=\"get\",outcome=\"ok\"} 2",
            "ketch_client_requests_total{node=\"a:1\",op=\"store\",outcome=\"timeout\"} 1",
            "# TYPE ketch_client_request_seconds histogram",
            "ketch_client_request_seconds_bucket{node=\"a:1\",le=\"0.000064\"} 0",
            "ketch_client_request_seconds_bucket{node=\"a:1\",le=\"0.000128\"} 1",
            "ketch_client_request_seconds_bucket{node=\"a:1\",le=\"16.777216\"} 1",
            "ketch_client_request_seconds_bucket{node=\"a:1\",le=\"+Inf\"} 2",
            "ketch_client_request_seconds_count{node=\"a:1\"} 2",
            "ketch_client_ejections_total{node=\"b\\\"\\\\:2\"} 1",
            "ketch_client_ejected{node=\"b\\\"\\\\:2\"} 1",
            "ketch_client_lookups_total{outcome=\"hit\"} 3",
            "ketch_client_loads_total{how=\"shared\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert_eq!((recorder.requests(), recorder.lookups()), ((2, 1), (3, 1)));
    }
}
