//! The knobs that commands turn while the server runs.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, Ordering::Relaxed};

use super::eviction::Policy;
use super::segments::Balance;
use crate::clock::RelTime;

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

/// Knobs that commands turn while the server runs.
#[derive(Debug)]
#[allow(missing_docs, reason = "each is the option or command of its name")]
pub struct Tuning {
    /// Off with `-M`.
    pub may_evict: AtomicBool,
    /// Off with `lru mode flat`: then a policy of several segments gives way to a flat LRU.
    pub segmented: AtomicBool,
    /// A [`Policy`], as its number.
    pub eviction: AtomicU8,
    pub hot_lru_pct: AtomicU32,
    pub warm_lru_pct: AtomicU32,
    /// An item stays in HOT no longer than this part of COLD's age; in thousandths.
    pub hot_max_factor_milli: AtomicU32,
    /// The same for WARM.
    pub warm_max_factor_milli: AtomicU32,
    /// Items that live no longer than this go to TEMP; seconds, below 0: none do.
    pub temporary_ttl_s: AtomicI32,
    pub slab_reassign: AtomicBool,
    /// See [`Automove`].
    pub slab_automove: AtomicU32,
    pub slab_automove_ratio_milli: AtomicU32,
    pub slab_automove_freeratio_milli: AtomicU32,
    pub slab_automove_window: AtomicU32,
    pub lru_maintainer: AtomicBool,
    pub lru_crawler: AtomicBool,
    pub lru_crawler_sleep_us: AtomicU32,
    pub lru_crawler_tocrawl: AtomicU32,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            may_evict: AtomicBool::new(true),
            segmented: AtomicBool::new(true),
            eviction: AtomicU8::new(Policy::default() as u8),
            hot_lru_pct: AtomicU32::new(20),
            warm_lru_pct: AtomicU32::new(40),
            hot_max_factor_milli: AtomicU32::new(200),
            warm_max_factor_milli: AtomicU32::new(2000),
            temporary_ttl_s: AtomicI32::new(-1),
            slab_reassign: AtomicBool::new(true),
            slab_automove: AtomicU32::new(1),
            slab_automove_ratio_milli: AtomicU32::new(800),
            slab_automove_freeratio_milli: AtomicU32::new(10),
            slab_automove_window: AtomicU32::new(10),
            lru_maintainer: AtomicBool::new(true),
            lru_crawler: AtomicBool::new(true),
            lru_crawler_sleep_us: AtomicU32::new(100),
            lru_crawler_tocrawl: AtomicU32::new(0),
        }
    }
}

impl Tuning {
    /// The eviction policy in force.
    #[inline]
    pub fn policy(&self) -> Policy {
        let policy = Policy::ALL[usize::from(self.eviction.load(Relaxed)) % Policy::ALL.len()];
        if policy.is_segmented() && !self.segmented.load(Relaxed) {
            return Policy::Lru;
        }
        policy
    }

    /// When pages move by themselves.
    #[inline]
    pub(super) fn automove(&self) -> Automove {
        if !self.slab_reassign.load(Relaxed) {
            return Automove::Never;
        }
        match self.slab_automove.load(Relaxed) {
            0 => Automove::Never,
            1 => Automove::OnNeed,
            _ => Automove::Eager,
        }
    }

    /// What a donor's items must cost, at least, for its page to go to a class whose items cost `own`: half of what
    /// `slab_automove_ratio` leaves between the two, since the page makes the one cost less and the other more.
    pub(super) fn automove_threshold(&self, own: u64) -> u64 {
        let ratio = u64::from(self.slab_automove_ratio_milli.load(Relaxed)).clamp(1, 1000);
        let more = u128::from(own) * u128::from(1000 - ratio) / u128::from(2 * ratio);
        own.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
    }

    /// Chunks that the crawler may look at in a step of the maintainer, of which there are `steps_per_s`.
    pub(super) fn crawl_chunks_max(&self, steps_per_s: u32) -> usize {
        let step_us = 1_000_000 / steps_per_s as usize;
        match self.lru_crawler_sleep_us.load(Relaxed) as usize {
            0 => usize::MAX,
            sleep_us => (CRAWLED_A_SLEEP * step_us / sleep_us).max(1),
        }
    }

    /// True if an item that ends then goes to TEMP.
    pub(super) fn is_temporary(&self, expires_at: RelTime, now: RelTime) -> bool {
        let ttl_s = self.temporary_ttl_s.load(Relaxed);
        let short = |ttl_s| expires_at != RelTime::NEVER && expires_at.since(now) <= ttl_s;
        u32::try_from(ttl_s).is_ok_and(short) && self.policy().is_segmented()
    }

    /// How the segments are to be kept when an item is stored.
    #[inline]
    pub(super) fn balance(&self) -> Balance<'static> {
        Balance {
            hot_pct: self.hot_lru_pct.load(Relaxed) as usize,
            warm_pct: self.warm_lru_pct.load(Relaxed) as usize,
            in_background: false,
            too_old: &|_, _, _| false,
        }
    }
}
