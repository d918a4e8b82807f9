//! How much may be asked: a token bucket that all workers share.
//!
//! ```text
//!  full_at: when the bucket is full again.   take n: full_at = max(full_at, now) + n / rate, unless that is later than now + burst / rate
//! ```
//!
//! One number says it all, so one atomic is the bucket (the generic cell rate algorithm of ATM networks, ITU-T I.371).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::file::Rate;

/// See the module.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) rate: Rate,
    begun: Instant,
    /// Nanoseconds from `begun`.
    full_at: AtomicU64,
    /// What was refused.
    pub(super) refused: AtomicU64,
}

impl Bucket {
    pub(super) fn new(rate: Rate) -> Self {
        Bucket {
            rate,
            begun: Instant::now(),
            full_at: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Takes `count` tokens, or none. More than the bucket holds are taken when it is full, so that a long list of keys comes through.
    pub(super) fn take(&self, count: usize, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.begun).as_nanos() as u64;
        let each = 1e9 / self.rate.per_s;
        let count = (count as f64).min(self.rate.burst.floor().max(1.0));
        let (cost, room) = ((count * each) as u64, (self.rate.burst * each) as u64);
        let take = |full_at: u64| {
            let after = full_at.max(now) + cost;
            (after <= now + room).then_some(after)
        };
        let taken = self.full_at.fetch_update(Relaxed, Relaxed, take).is_ok();
        if !taken {
            self.refused.fetch_add(1, Relaxed);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let bucket = Bucket::new(Rate {
            per_s: 10.0,
            burst: 3.0,
        });
        let at = |ms| bucket.begun + Duration::from_millis(ms);
        let taken = |ms| (0..10).filter(|_| bucket.take(1, at(ms))).count();
        assert_eq!(taken(0), 3);
        assert_eq!(taken(50), 0);
        assert_eq!(taken(100), 1);
        assert_eq!(taken(350), 2);
        assert_eq!(taken(10_000), 3, "it never holds more");
        assert!(!bucket.take(50, at(10_200)), "two of three are there");
        assert!(bucket.take(50, at(10_300)), "it is full");
        assert_eq!(taken(10_300), 0);
        assert!(bucket.refused.load(Relaxed) > 30);
    }
}
