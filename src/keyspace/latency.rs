//! How long requests take: histograms whose buckets are 3 % wide.
//!
//! ```text
//!  nanoseconds  0 1 2 .. 63 | 64 .. 127: by 2 | 128 .. 255: by 4 | ..     32 buckets from one power of two to the next
//! ```
//!
//! La1. A value and the one that stands for its bucket differ by 1.6 % at most, from 64 ns up; below, not at all.
//! La2. A [`Histogram`] has one writer, as the counters do.
//!
//! Costs: 8 KB a histogram; six instructions and one count for a value.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets in a power of two, as a power of two.
const SUB_BITS: u32 = 5;
const SUBS: usize = 1 << SUB_BITS;
/// Longer times, in nanoseconds as a power of two, count as this long: 69 seconds.
const BITS_MAX: u32 = 36;
const BUCKETS: usize = (BITS_MAX - SUB_BITS + 1) as usize * SUBS;

/// The commands that are timed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Group {
    /// get, gets, gat, gats, mg, and what answers to them in binary.
    Get,
    /// set, add, replace, append, prepend, cas, ms.
    Set,
    /// delete, md.
    Delete,
    /// incr, decr, ma.
    Arith,
    /// touch.
    Touch,
    /// All others.
    Other,
}

/// How many groups there are.
pub const GROUPS: usize = 6;

impl Group {
    /// All groups, in the order of their numbers.
    pub const ALL: [Group; GROUPS] = [
        Group::Get,
        Group::Set,
        Group::Delete,
        Group::Arith,
        Group::Touch,
        Group::Other,
    ];

    /// The group of a command in text; `None` for words that are no command for a key.
    pub fn of_word(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"get" | b"gets" | b"gat" | b"gats" | b"mg" => Group::Get,
            b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" | b"ms" => Group::Set,
            b"delete" | b"md" => Group::Delete,
            b"incr" | b"decr" | b"ma" => Group::Arith,
            b"touch" => Group::Touch,
            _ => return None,
        })
    }

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Group::Get => "get",
            Group::Set => "set",
            Group::Delete => "delete",
            Group::Arith => "arith",
            Group::Touch => "touch",
            Group::Other => "other",
        }
    }
}

#[inline]
fn bucket(ns: u64) -> usize {
    let ns = ns.min((1 << BITS_MAX) - 1);
    // With fewer bits than this the value is its own bucket.
    let shift = (64 - SUB_BITS - 1).saturating_sub((ns | SUBS as u64).leading_zeros());
    shift as usize * SUBS + (ns >> shift) as usize
}

/// The least value that is not in the bucket any more.
fn end_of(bucket: usize) -> u64 {
    let (shift, sub) = match bucket / SUBS {
        0 => (0, bucket),
        octave => (octave - 1, bucket - (octave - 1) * SUBS),
    };
    (sub as u64 + 1) << shift
}

/// What stands for the values of a bucket: its middle.
fn middle_of(bucket: usize) -> u64 {
    let end = end_of(bucket);
    let width = if bucket < 2 * SUBS {
        1
    } else {
        1 << (bucket / SUBS - 1)
    };
    end - width / 2 - width % 2
}

/// Counts by time.
#[derive(Debug)]
pub struct Histogram {
    counts: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum_ns: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Bytes of memory that its buckets take.
    pub const BYTES: usize = BUCKETS * size_of::<AtomicU64>();

    /// Counts `requests` that took `ns` nanoseconds each; only the owning thread may call it.
    #[inline]
    pub fn add(&self, ns: u64, requests: u64) {
        let add = |count: &AtomicU64, n| count.store(count.load(Relaxed).wrapping_add(n), Relaxed);
        add(&self.counts[bucket(ns)], requests);
        add(&self.sum_ns, ns.wrapping_mul(requests));
    }

    /// The counts of several threads' histograms together.
    pub fn sum<'h>(histograms: impl IntoIterator<Item = &'h Histogram>) -> Times {
        let mut times = Times::default();
        for histogram in histograms {
            for (sum, count) in times.counts.iter_mut().zip(&histogram.counts) {
                *sum += count.load(Relaxed);
            }
            times.sum_ns = times.sum_ns.wrapping_add(histogram.sum_ns.load(Relaxed));
        }
        times
    }
}

/// A histogram's counts at one moment.
#[derive(Debug, Clone)]
pub struct Times {
    counts: Vec<u64>,
    /// All times together, in nanoseconds.
    pub sum_ns: u64,
}

impl Default for Times {
    fn default() -> Self {
        Times {
            counts: vec![0; BUCKETS],
            sum_ns: 0,
        }
    }
}

impl Times {
    /// How many requests.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Times) {
        for (sum, more) in self.counts.iter_mut().zip(&other.counts) {
            *sum += more;
        }
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
    }

    /// What was counted since `before`; all of it where there is less now, as after `stats reset`.
    pub fn since(&self, before: &Times) -> Times {
        let pairs = self.counts.iter().zip(&before.counts);
        let is_less = |(now, then): (&u64, &u64)| now < then;
        if pairs.clone().any(is_less) {
            return self.clone();
        }
        Times {
            counts: pairs.map(|(now, then)| now - then).collect(),
            sum_ns: self.sum_ns.wrapping_sub(before.sum_ns),
        }
    }

    /// The time, in nanoseconds, that so much of the requests (0.0 to 1.0) stayed within; 0 if there were none.
    pub fn quantile(&self, part: f64) -> u64 {
        let wanted = ((self.count() as f64 * part).ceil() as u64).max(1);
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= wanted {
                return middle_of(bucket);
            }
        }
        0
    }

    /// The longest time, in nanoseconds.
    pub fn max_ns(&self) -> u64 {
        let last = self.counts.iter().rposition(|&count| count > 0);
        last.map_or(0, middle_of)
    }

    /// Requests that took at most so many nanoseconds, as exactly as the buckets are; `bounds_ns` grow.
    pub fn at_most<const N: usize>(&self, bounds_ns: [u64; N]) -> [u64; N] {
        let (mut bucket, mut below) = (0, 0);
        bounds_ns.map(|ns| {
            while bucket < BUCKETS && end_of(bucket) <= ns + 1 {
                below += self.counts[bucket];
                bucket += 1;
            }
            below
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::testing::Rng;

    #[test]
    fn buckets_are_in_order_and_three_per_cent_wide() {
        let mut last = 0;
        for ns in 0..200_000u64 {
            let bucket = bucket(ns);
            assert!(bucket == last || bucket == last + 1, "{ns}");
            last = bucket;
            assert!(ns < end_of(bucket), "{ns}");
            assert!(bucket == 0 || ns >= end_of(bucket - 1), "{ns}");
        }
        let mut rng = Rng::new(1);
        for _ in 0..100_000 {
            let ns = rng.next() >> (28 + rng.below(36));
            let stands = middle_of(bucket(ns));
            let off = (stands as f64 - ns as f64).abs() / ns.max(1) as f64;
            assert!(off < 0.016, "{ns} {stands}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket(0), 0);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let (mine, other) = (Histogram::default(), Histogram::default());
        let mut rng = Rng::new(2);
        let mut exact = Vec::new();
        for n in 0..100_000 {
            // From 200 ns to some milliseconds, with a long tail.
            let ns = (200.0 / (1.0 - rng.unit()).powf(0.9)) as u64;
            if n % 2 == 0 { &mine } else { &other }.add(ns, 1);
            exact.push(ns);
        }
        exact.sort_unstable();
        let times = Histogram::sum([&mine, &other]);
        assert_eq!(times.count(), 100_000);
        assert_eq!(times.sum_ns, exact.iter().sum::<u64>());
        for part in [0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let value = exact[((100_000.0 * part) as usize).max(1) - 1] as f64;
            let told = times.quantile(part) as f64;
            assert!(
                (told - value).abs() / value < 0.03,
                "{part}: {told} {value}"
            );
        }
        assert_eq!(times.max_ns(), times.quantile(1.0));
        let within = exact.iter().filter(|&&ns| ns <= 10_000).count() as f64;
        let [none, told] = times.at_most([1, 10_000]).map(|count| count as f64);
        assert_eq!(none, 0.0);
        assert!((told - within).abs() / within < 0.03, "{told} {within}");
    }

    #[test]
    fn what_came_since_then_is_told_apart() {
        let histogram = Histogram::default();
        histogram.add(1000, 10);
        let before = Histogram::sum([&histogram]);
        histogram.add(5000, 3);
        let since = Histogram::sum([&histogram]).since(&before);
        assert_eq!((since.count(), since.sum_ns), (3, 15_000));
        assert!((4900..5100).contains(&since.quantile(0.5)));
        assert_eq!(Times::default().quantile(0.99), 0);
    }

    #[test]
    fn after_a_reset_all_is_new() {
        let (before, after) = (Histogram::default(), Histogram::default());
        before.add(1_000, 5);
        before.add(1_000_000, 1);
        after.add(1_000, 2);
        let since = Histogram::sum([&after]).since(&Histogram::sum([&before]));
        assert_eq!((since.count(), since.sum_ns), (2, 2_000));
        assert!(since.quantile(0.99) < 1_100);
    }
}
