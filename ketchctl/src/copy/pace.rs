//! How fast a copy may go.

use std::time::{Duration, Instant};

use super::batch::{Limit, MAX};

/// Limits of a rate, and when the next batch may begin. Time that was not used is not made up for.
#[derive(Debug)]
pub struct Pace {
    items_per_s: Option<f64>,
    bytes_per_s: Option<f64>,
    next: Option<Instant>,
}

impl Pace {
    /// `None` is no limit.
    pub fn new(items_per_s: Option<f64>, bytes_per_s: Option<f64>) -> Self {
        Pace {
            items_per_s,
            bytes_per_s,
            next: None,
        }
    }

    /// How large batches may be so that there are ten in a second.
    pub fn batch_limit(&self) -> Limit {
        let tenth = |rate: Option<f64>, max: f64| rate.map_or(max, |rate| (rate / 10.0).min(max));
        Limit {
            items: tenth(self.items_per_s, MAX.items).max(1.0),
            bytes: tenth(self.bytes_per_s, MAX.bytes),
        }
    }

    /// When a batch of so many items and bytes may begin; it counts from now on.
    pub fn book(&mut self, now: Instant, items: usize, bytes: u64) -> Instant {
        let start = self.next.map_or(now, |next| next.max(now));
        let cost = |count: f64, rate: Option<f64>| rate.map_or(0.0, |rate| count / rate);
        let cost = cost(items as f64, self.items_per_s).max(cost(bytes as f64, self.bytes_per_s));
        self.next = Some(start + Duration::from_secs_f64(cost));
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_limit_counts() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let mut pace = Pace::new(Some(100.0), Some(1000.0));
        assert_eq!(pace.book(now, 10, 0), now);
        assert_eq!(pace.book(now, 1, 500), now + ms(100));
        assert_eq!(pace.book(now, 1, 1), now + ms(600));
        // A pause is not made up for.
        assert_eq!(pace.book(now + ms(5000), 10, 0), now + ms(5000));
        assert_eq!(pace.book(now + ms(5000), 10, 0), now + ms(5100));
        let mut free = Pace::new(None, None);
        free.book(now, 1000, 1 << 40);
        assert_eq!(free.book(now, 1, 1), now);
    }

    #[test]
    fn slow_copies_have_small_batches() {
        let limit = Pace::new(Some(50.0), Some(1e9)).batch_limit();
        assert_eq!((limit.items, limit.bytes), (5.0, MAX.bytes));
        assert_eq!(Pace::new(Some(2.0), None).batch_limit().items, 1.0);
    }
}
