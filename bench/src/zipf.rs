//! Zipf's law: the key of rank r (from 1) is asked for in proportion to 1 / r^theta.
//!
//! Rejection-inversion (Hörmann and Derflinger, "Rejection-inversion to generate variates from
//! monotone discrete distributions", 1996): the histogram of weights lies under the curve x^-theta,
//! a point under the curve is drawn by inverting its integral H, and the few points that fall
//! outside the histogram are drawn again. No table, any theta above 0, and fewer than 1.1 tries a
//! rank for the thetas of caches.

use crate::rng::Rng;

/// Draws ranks in `0..n`.
#[derive(Clone, Debug)]
pub struct Zipf {
    n: f64,
    theta: f64,
    /// H at the left edge of rank 1, shifted so that rank 1 is always accepted there.
    h_first: f64,
    /// H at the right edge of rank n.
    h_last: f64,
    /// Points this near to the middle of a rank are accepted without computing its weight.
    near: f64,
}

impl Zipf {
    /// Ranks in `0..n`, with exponent `theta`, which is above 0.
    pub fn new(n: u64, theta: f64) -> Self {
        assert!(n > 0 && theta > 0.0, "ranks {n}, theta {theta}");
        let mut zipf = Zipf {
            n: n as f64,
            theta,
            h_first: 0.0,
            h_last: 0.0,
            near: 0.0,
        };
        zipf.h_first = zipf.h(1.5) - 1.0;
        zipf.h_last = zipf.h(zipf.n + 0.5);
        zipf.near = 2.0 - zipf.h_inverse(zipf.h(2.5) - zipf.weight(2.0));
        zipf
    }

    /// A rank in `0..n`; 0 is the most popular.
    pub fn rank(&self, rng: &mut Rng) -> u64 {
        loop {
            let u = self.h_last + rng.unit() * (self.h_first - self.h_last);
            let x = self.h_inverse(u);
            let k = (x + 0.5).floor().clamp(1.0, self.n);
            if k - x <= self.near || u >= self.h(k + 0.5) - self.weight(k) {
                return k as u64 - 1;
            }
        }
    }

    fn weight(&self, x: f64) -> f64 {
        (-self.theta * x.ln()).exp()
    }

    /// The integral of x^-theta, up to a constant: (x^(1-theta) - 1) / (1 - theta), or ln x.
    fn h(&self, x: f64) -> f64 {
        let log = x.ln();
        log * expm1_ratio((1.0 - self.theta) * log)
    }

    fn h_inverse(&self, u: f64) -> f64 {
        let t = (u * (1.0 - self.theta)).max(-1.0);
        (u * ln1p_ratio(t)).exp()
    }
}

/// (e^x - 1) / x, which is 1 at 0.
fn expm1_ratio(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        x.exp_m1() / x
    } else {
        1.0 + x / 2.0
    }
}

/// ln(1 + x) / x, which is 1 at 0.
fn ln1p_ratio(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        x.ln_1p() / x
    } else {
        1.0 - x / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws beside the law itself, for thetas below, at and above 1.
    #[test]
    fn ranks_follow_the_law() {
        const DRAWS: u32 = 400_000;
        for theta in [0.5, 0.99, 1.0, 1.4] {
            let n = 1000;
            let zipf = Zipf::new(n, theta);
            let mut rng = Rng::new(7);
            let mut counts = vec![0u32; n as usize];
            for _ in 0..DRAWS {
                counts[zipf.rank(&mut rng) as usize] += 1;
            }
            let total: f64 = (1..=n).map(|r| (r as f64).powf(-theta)).sum();
            let expected = |ranks: std::ops::Range<u64>| -> f64 {
                ranks.map(|r| ((r + 1) as f64).powf(-theta)).sum::<f64>() / total
            };
            for ranks in [0..1, 1..2, 2..3, 3..10, 10..100, 100..500, 500..1000] {
                let seen = ranks.clone().map(|r| counts[r as usize]).sum::<u32>();
                let want = expected(ranks.clone()) * f64::from(DRAWS);
                // Five standard deviations of a count.
                let slack = 5.0 * want.sqrt();
                assert!(
                    (f64::from(seen) - want).abs() < slack,
                    "{theta} {ranks:?}: {seen}, {want}"
                );
            }
        }
    }

    #[test]
    fn one_rank_is_always_drawn() {
        let zipf = Zipf::new(1, 0.99);
        let mut rng = Rng::new(3);
        assert!((0..1000).all(|_| zipf.rank(&mut rng) == 0));
    }
}
