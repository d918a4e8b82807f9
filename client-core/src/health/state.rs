//! What a client remembers of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::error::SignInError;
use crate::notices;
use crate::options::ClientOptions;
use crate::unawaited::Does;

/// The delete of a key that a node is owed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Debt {
    /// Later ones have higher numbers.
    pub(super) number: u64,
    /// The node may yet take a value that was sent before.
    pub(super) is_awaiting: bool,
}

/// What is under way of a key that nobody waits for (see [`Does`]).
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    pub(super) writes: u32,
    pub(super) adds: u32,
    pub(super) confirms: u32,
    pub(super) clearing: u32,
    /// A delete may have come before writes and adds, which so is owed once more: the number of that debt.
    pub(super) overtaken: Option<u64>,
}

impl UnderWay {
    pub(super) fn count(&mut self, does: Does) -> &mut u32 {
        match does {
            Does::Writes => &mut self.writes,
            Does::Adds => &mut self.adds,
            Does::Confirms => &mut self.confirms,
            Does::Clears => &mut self.clearing,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        !self.stores() && self.confirms + self.clearing == 0
    }

    /// True if it may leave a value.
    pub(super) fn stores(&self) -> bool {
        self.writes + self.adds > 0
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Failures in a row, and when the first of them was.
    pub(super) failures: u32,
    pub(super) first_failure: Option<Instant>,
    /// The pause before the next probe.
    pub(super) pause: Duration,
    pub(super) probe_at: Option<Instant>,
    /// Keys in the probe that is under way, and the numbers of their debts.
    pub(super) probing: Option<Vec<(Box<[u8]>, u64)>>,
    pub(super) settled_at: Option<Instant>,
    /// Keys that it was given while it settles.
    pub(super) given: BTreeSet<Box<[u8]>>,
    pub(super) missed: BTreeMap<Box<[u8]>, Debt>,
    pub(super) last_debt: u64,
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
    /// Copies that a repair has added, with their CAS uniques, and until when they last: whether they were confirmed, nobody knows.
    pub(super) unconfirmed: BTreeMap<Box<[u8]>, (u64, Instant)>,
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

    pub(super) fn is_busy(&self) -> bool {
        !self.under_way.is_empty() || !self.unconfirmed.is_empty()
    }

    pub(super) fn owes(&self, key: &[u8]) -> bool {
        let owes = |under_way: &UnderWay| under_way.overtaken.is_some() || under_way.clearing > 0;
        self.missed.contains_key(key) || self.under_way.get(key).is_some_and(owes)
    }

    /// A delete of `key` is owed; false if there is no room for it. What a probe under way deletes is enough, if `before` is: then what
    /// was missed came before it.
    pub(super) fn owe(
        &mut self,
        key: &[u8],
        (before, is_awaiting): (bool, bool),
        options: &ClientOptions,
    ) -> bool {
        self.owe_as(self.last_debt + 1, key, (before, is_awaiting), options)
    }

    /// The same, for a debt that has this number.
    pub(super) fn owe_as(
        &mut self,
        number: u64,
        key: &[u8],
        (before, is_awaiting): (bool, bool),
        options: &ClientOptions,
    ) -> bool {
        self.last_debt = self.last_debt.max(number);
        if let Some(debt) = self.missed.get_mut(key) {
            debt.is_awaiting |= is_awaiting;
            if !before {
                debt.number = number;
            }
            return true;
        }
        let has_room = self.missed.len() < options.missed_keys_max;
        if has_room {
            let debt = Debt {
                number,
                is_awaiting,
            };
            self.missed.insert(key.into(), debt);
        }
        has_room
    }

    /// A delete of `key` is sent, which may come before what is under way.
    pub(super) fn overtake(&mut self, key: &[u8]) {
        if let Some(under_way) = self.under_way.get_mut(key)
            && under_way.stores()
        {
            self.last_debt += 1;
            under_way.overtaken = Some(self.last_debt);
        }
    }

    /// The number of the debt that is paid by what is written in the place of whatever is there.
    pub(super) fn payable(&self, key: &[u8]) -> Option<u64> {
        let under_way = self.under_way.get(key);
        match (
            self.missed.get(key),
            under_way.and_then(|one| one.overtaken),
        ) {
            (Some(debt), None) if !debt.is_awaiting => Some(debt.number),
            // What is only added comes too late.
            (None, Some(number)) if under_way.is_some_and(|one| one.writes == 0) => Some(number),
            _ => None,
        }
    }

    /// True if what is there under `key` may not be for long, or another will come in its place.
    pub(super) fn is_unsettled(&self, key: &[u8]) -> bool {
        let unsettled = |one: &UnderWay| one.confirms + one.adds > 0;
        self.under_way.get(key).is_some_and(unsettled) || self.is_deleting(key)
    }

    /// True if a delete of `key` is under way that would take away what is written now.
    pub(super) fn is_deleting(&self, key: &[u8]) -> bool {
        let probing = self.probing.iter().flatten();
        let under_way = self.under_way.get(key);
        under_way.is_some_and(|one| one.clearing > 0)
            || probing.into_iter().any(|(one, _)| **one == *key)
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
