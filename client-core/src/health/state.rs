//! What a client remembers of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::error::SignInError;
use crate::notices;
use crate::options::ClientOptions;

#[derive(Debug, Default)]
pub(super) struct UnderWay {
    pub(super) writes: u32,
    /// A delete may have come before them.
    pub(super) overtaken: bool,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Failures in a row, and when the first of them was.
    pub(super) failures: u32,
    pub(super) first_failure: Option<Instant>,
    /// The pause before the next probe.
    pub(super) pause: Duration,
    pub(super) probe_at: Option<Instant>,
    /// Keys in the probe that is under way.
    pub(super) probing: Option<Vec<Box<[u8]>>>,
    pub(super) settled_at: Option<Instant>,
    /// Keys that it was given while it settles.
    pub(super) given: BTreeSet<Box<[u8]>>,
    pub(super) missed: BTreeSet<Box<[u8]>>,
    /// Keys that were written here because their own node was ejected.
    pub(super) strays: BTreeSet<Box<[u8]>>,
    /// Until when a notice about the node is believed.
    pub(super) doubted_until: Option<Instant>,
    /// When the notice about it was set last, and when first, without a gap since.
    pub(super) noticed_at: Option<Instant>,
    pub(super) first_noticed_at: Option<Instant>,
    /// When to look which strays are needed no more.
    pub(super) sweep_at: Option<Instant>,
    /// Failures that nobody waited for, and that are still to be counted.
    pub(super) overlooked: u32,
    /// Keys of writes that are watched, and not answered yet.
    pub(super) under_way: BTreeMap<Box<[u8]>, UnderWay>,
    pub(super) forgot: bool,
    /// Why it did not let the client in when that was tried last, and when it may be tried again.
    pub(super) shut: Option<(SignInError, Instant)>,
    pub(super) shut_for: Duration,
    /// The probe under way is to be followed by another at once, if it fails.
    pub(super) hurried: bool,
}

impl State {
    /// True if something is to be looked at, beside failures.
    pub(super) fn is_unwell(&self) -> bool {
        self.probe_at.is_some()
            || self.sweep_at.is_some()
            || self.overlooked > 0
            || !self.missed.is_empty()
    }

    /// True if others still have the notice that was set last.
    pub(super) fn is_noticed(&self, now: Instant) -> bool {
        let last = self.noticed_at;
        last.is_some_and(|at| now.saturating_duration_since(at) < notices::LASTS)
    }

    pub(super) fn owes(&self, key: &[u8]) -> bool {
        let overtaken = |under_way: &UnderWay| under_way.overtaken;
        self.missed.contains(key) || self.under_way.get(key).is_some_and(overtaken)
    }

    /// A probe under way may delete `key` too early.
    pub(super) fn distrust_probe(&mut self, key: &[u8]) {
        if let Some(probing) = &mut self.probing {
            probing.retain(|other| **other != *key);
        }
    }
}

/// Puts `key` among `keys`, if there is room.
pub(super) fn remember(
    keys: &mut BTreeSet<Box<[u8]>>,
    key: &[u8],
    options: &ClientOptions,
) -> bool {
    keys.contains(key) || (keys.len() < options.missed_keys_max && keys.insert(key.into()))
}
