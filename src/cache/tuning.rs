//! The knobs in force, and what they mean to the cache (their table is `src/knobs.rs`).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::eviction::Policy;
use super::segments::Balance;
use crate::clock::RelTime;
use crate::knobs::{Knob, Knobs, OFF};

/// Items that memcached's crawler looks at between two sleeps of `lru_crawler_sleep`.
const CRAWLED_A_SLEEP: usize = 1000;

/// When pages move between classes by themselves: `slab_automove`, as `slab_reassign` lets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Automove {
    /// Never: a class keeps its pages, and a store that finds no memory in its own class evicts there or is refused.
    Never,
    /// When a class has shown that it wants a page, and another can do without.
    OnNeed,
    /// At each eviction, if another class's items cost more at all.
    Eager,
}

/// The knobs in force, which commands turn while the server runs.
#[derive(Debug)]
pub struct Tuning([AtomicU32; Knob::COUNT]);

impl Default for Tuning {
    fn default() -> Self {
        Tuning(Knob::ALL.map(|knob| AtomicU32::new(knob.row().default)))
    }
}

impl Tuning {
    /// The value of a knob, as its row of the table says.
    #[inline]
    pub fn get(&self, knob: Knob) -> u32 {
        self.0[knob as usize].load(Relaxed)
    }

    /// Whether a switch is on.
    #[inline]
    pub fn is_on(&self, knob: Knob) -> bool {
        self.get(knob) != 0
    }

    /// Turns a knob.
    pub fn set(&self, knob: Knob, number: u32) {
        self.0[knob as usize].store(number, Relaxed);
    }

    /// Turns all of them.
    pub fn set_all(&self, knobs: &Knobs) {
        for knob in Knob::ALL {
            self.set(knob, knobs.get(knob));
        }
    }

    /// All knobs as they are.
    pub fn all(&self) -> Knobs {
        let mut knobs = Knobs::default();
        for knob in Knob::ALL {
            knobs.set(knob, self.get(knob));
        }
        knobs
    }

    /// The eviction policy in force.
    #[inline]
    pub fn policy(&self) -> Policy {
        let policy = Policy::ALL.get(self.get(Knob::Eviction) as usize);
        let policy = policy.copied().unwrap_or_default();
        if policy.is_segmented() && !self.is_on(Knob::LruSegmented) {
            return Policy::Lru;
        }
        policy
    }

    /// When pages move by themselves.
    #[inline]
    pub(super) fn automove(&self) -> Automove {
        if !self.is_on(Knob::SlabReassign) {
            return Automove::Never;
        }
        match self.get(Knob::SlabAutomove) {
            0 => Automove::Never,
            1 => Automove::OnNeed,
            _ => Automove::Eager,
        }
    }

    /// What a donor's items must cost, at least, for its page to go to a class whose items cost `own`: half of what
    /// `slab_automove_ratio` leaves between the two, since the page makes the one cost less and the other more.
    pub(super) fn automove_threshold(&self, own: u64) -> u64 {
        let ratio = u64::from(self.get(Knob::SlabAutomoveRatio)).clamp(1, 1000);
        let more = u128::from(own) * u128::from(1000 - ratio) / u128::from(2 * ratio);
        own.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
    }

    /// Chunks that the crawler may look at in a step of the maintainer, of which there are `steps_per_s`.
    pub(super) fn crawl_chunks_max(&self, steps_per_s: u32) -> usize {
        let step_us = 1_000_000 / steps_per_s as usize;
        match self.get(Knob::LruCrawlerSleep) as usize {
            0 => usize::MAX,
            sleep_us => (CRAWLED_A_SLEEP * step_us / sleep_us).max(1),
        }
    }

    /// True if an item that ends then goes to TEMP.
    pub(super) fn is_temporary(&self, expires_at: RelTime, now: RelTime) -> bool {
        let ttl_s = self.get(Knob::TemporaryTtl);
        let short = || expires_at != RelTime::NEVER && expires_at.since(now) <= ttl_s;
        ttl_s != OFF && short() && self.policy().is_segmented()
    }

    /// How the segments are to be kept when an item is stored.
    #[inline]
    pub(super) fn balance(&self) -> Balance<'static> {
        Balance {
            hot_pct: self.get(Knob::HotLruPct) as usize,
            warm_pct: self.get(Knob::WarmLruPct) as usize,
            in_background: false,
            too_old: &|_, _, _| false,
        }
    }
}
