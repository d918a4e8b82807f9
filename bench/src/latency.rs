//! How long commands took, in nanoseconds, to three significant digits.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer than a run waits for any reply; what exceeds it is counted as this.
const MAX_NS: u64 = 100_000_000_000;

/// A histogram of durations.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_NS, 3);
        Latency(histogram.expect("the bounds and the precision are in range"))
    }
}

impl Latency {
    /// Counts `times` commands that took `duration`.
    #[inline]
    pub fn record(&mut self, duration: Duration, times: u64) {
        self.0
            .saturating_record_n(duration.as_nanos() as u64, times);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// Adds what another thread counted.
    pub fn add(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// How many commands were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time in microseconds that `quantile` (0 to 1) of all commands did not exceed.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        // The upper edge of a histogram's step may lie beyond the maximum.
        self.0.value_at_quantile(quantile).min(self.0.max()) as f64 / 1000.0
    }

    /// The longest in microseconds.
    pub fn max_us(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }

    /// The mean in microseconds.
    pub fn mean_us(&self) -> f64 {
        self.0.mean() / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near_to_what_was_recorded() {
        let mut low = Latency::default();
        let mut high = Latency::default();
        for us in 1..=500 {
            low.record(Duration::from_micros(us), 2);
            high.record(Duration::from_micros(us + 500), 2);
        }
        low.add(&high);
        assert_eq!(low.count(), 2000);
        for (quantile, us) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
            let seen = low.quantile_us(quantile);
            assert!((seen / us - 1.0).abs() < 0.002, "{quantile}: {seen}");
        }
        assert!((low.max_us() / 1000.0 - 1.0).abs() < 0.002);
        low.clear();
        assert_eq!((low.count(), low.max_us()), (0, 0.0));
    }

    #[test]
    fn what_is_too_long_is_kept_as_the_longest() {
        let mut latency = Latency::default();
        latency.record(Duration::from_secs(1000), 1);
        assert!(latency.max_us() >= MAX_NS as f64 / 1000.0 * 0.999);
    }
}
