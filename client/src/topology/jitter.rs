//! Times that are not quite what they were meant to be, so that many clients do not act at once.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// A small generator (splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), seeded
/// differently in each process. Not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// One that no other client has.
    pub(crate) fn random() -> Self {
        Jitter(RandomState::new().hash_one(std::process::id()))
    }

    /// One whose numbers can be had again.
    #[cfg(test)]
    pub(crate) fn seeded(seed: u64) -> Self {
        Jitter(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between nine and eleven tenths of it.
    pub(crate) fn around(&mut self, time: Duration) -> Duration {
        let part = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        time.mul_f64(0.9 + 0.2 * part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_over_a_fifth() {
        let mut jitter = Jitter::random();
        let second = Duration::from_secs(1);
        let times: Vec<f64> = (0..1000)
            .map(|_| jitter.around(second).as_secs_f64())
            .collect();
        assert!(times.iter().all(|time| (0.9..=1.1).contains(time)));
        assert!(times.iter().any(|time| *time < 0.92) && times.iter().any(|time| *time > 1.08));
    }
}
