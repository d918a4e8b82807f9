//! Which requests are looked at closely: one in 128 on average, and all of them while there are few.
//!
//! The gaps are drawn at random, from 1 to 255: whoever asks for 128 keys in turn is not seen as asking for one. A stock
//! of requests ([`STOCK_MAX`]), filled up by [`STOCK_A_SECOND`], is looked at without gaps. So on a server with little to do the
//! counts are exact, and on one with much to do the stock is soon gone.
//!
//! Sa1. A request that is looked at stands for `weight` requests; the weights add up to the number of requests, on average.
//!
//! Costs: a count down a request.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Requests that one stands for, on average.
pub const ONE_IN: u32 = 128;
/// Requests in a row that are all looked at.
pub const STOCK_MAX: u32 = 1024;
/// How many the stock grows by in a second.
const STOCK_A_SECOND: u32 = 8;

/// What every request does: counts down.
#[derive(Debug)]
pub struct Countdown(AtomicU32);

impl Default for Countdown {
    fn default() -> Self {
        Countdown(AtomicU32::new(1))
    }
}

impl Countdown {
    /// Counts one request; true if it is to be looked at. Only the owning thread may call it.
    #[inline(always)]
    pub fn is_due(&self) -> bool {
        let left = self.0.load(Relaxed).wrapping_sub(1);
        self.0.store(left, Relaxed);
        left == 0
    }

    /// Requests until the next one that is looked at.
    pub fn left(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// After so many requests the next one is looked at.
    pub fn set(&self, requests: u32) {
        self.0.store(requests, Relaxed);
    }
}

/// What draws the gaps.
#[derive(Debug)]
pub struct Gaps {
    random: u32,
    stock_max: u32,
    stock: u32,
    second: u32,
}

/// What a request that is looked at is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// So many requests it stands for.
    pub weight: u32,
    /// After so many the next one is looked at.
    pub gap: u32,
}

impl Gaps {
    /// Gaps that differ from those of another seed, behind a stock of so many.
    pub fn new(seed: u32, stock_max: u32) -> Self {
        Gaps {
            random: seed.wrapping_mul(0x9e37_79b9) | 1,
            stock_max,
            stock: stock_max,
            second: 0,
        }
    }

    fn fill(&mut self, now_s: u32) {
        let passed_s = now_s.saturating_sub(self.second);
        if passed_s > 0 {
            self.second = now_s;
            let more = passed_s.saturating_mul(STOCK_A_SECOND);
            self.stock = self.stock.saturating_add(more).min(self.stock_max);
        }
    }

    /// Draws a gap where there was nothing to look at, which takes nothing from the stock.
    pub fn redraw(&mut self, now_s: u32) -> u32 {
        self.fill(now_s);
        if self.stock > 0 { 1 } else { self.gap() }
    }

    /// Draws for a request in second `now_s`.
    pub fn draw(&mut self, now_s: u32) -> Drawn {
        self.fill(now_s);
        if self.stock > 0 {
            self.stock -= 1;
            let gap = if self.stock > 0 { 1 } else { self.gap() };
            return Drawn { weight: 1, gap };
        }
        Drawn {
            weight: ONE_IN,
            gap: self.gap(),
        }
    }

    /// From 1 to 127, all as likely.
    fn gap(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        let below = u64::from(2 * ONE_IN - 1);
        1 + ((u64::from(self.random) * below) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many requests in a second; gives how many were looked at, and their weights.
    fn second(gaps: &mut Gaps, countdown: &Countdown, now_s: u32, requests: u32) -> (u32, u32) {
        let (mut looked_at, mut weights) = (0, 0);
        for _ in 0..requests {
            if countdown.is_due() {
                let drawn = gaps.draw(now_s);
                countdown.set(drawn.gap);
                looked_at += 1;
                weights += drawn.weight;
            }
        }
        (looked_at, weights)
    }

    #[test]
    fn few_are_all_looked_at_and_of_many_one_in_128() {
        let (mut gaps, countdown) = (Gaps::new(3, STOCK_MAX), Countdown::default());
        assert_eq!(second(&mut gaps, &countdown, 2, 1000), (1000, 1000));
        let (looked_at, weights) = second(&mut gaps, &countdown, 3, 10_000_000);
        assert!((77_000..79_500).contains(&looked_at), "{looked_at}");
        assert!((9_850_000..10_150_000).contains(&weights), "{weights}");
        // A pause fills the stock, a busy second does not.
        let (looked_at, _) = second(&mut gaps, &countdown, 4, 128_000);
        assert!((900..1150).contains(&looked_at), "{looked_at}");
        let (looked_at, _) = second(&mut gaps, &countdown, 200, 2000);
        assert!((1000..1060).contains(&looked_at), "{looked_at}");
    }

    /// Whoever asks in a circle of 128 is seen to ask for all 128.
    #[test]
    fn a_circle_is_not_taken_for_a_point() {
        let (mut gaps, countdown) = (Gaps::new(5, STOCK_MAX), Countdown::default());
        let mut seen = [0u32; 128];
        for n in 0..25_600_000 {
            if countdown.is_due() {
                let drawn = gaps.draw(2);
                countdown.set(drawn.gap);
                seen[n % 128] += drawn.weight;
            }
        }
        let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
        assert!(*least > 170_000 && *most < 230_000, "{least} {most}");
    }
}
