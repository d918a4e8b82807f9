//! A node's standing: may it be asked, may it be asked first, what has it missed.
//!
//! ```text
//!            k failures in a row, within the window
//!   live  ------------------------------------------>  ejected -- a probe fails: twice the pause, up to a bound --.
//!    ^                                                  |     ^                                                   |
//!    |   the settling time is over                      |     '---------------------------------------------------'
//!   settling (written to, read last,  <-----------------'  a probe is answered, which has also deleted what was missed
//!             given what others have)
//! ```
//!
//! H1. A probe is a request of its own that no caller waits for. It deletes the keys that were written elsewhere while
//!     the node could not be reached; only when none is left the node is back. A live node that missed a write is probed
//!     as well, for the deletes.
//! H2. A node that is owed the delete of a key is not asked for that key: see [`Member::owes`]. So whatever the node holds
//!     in the meantime, this client does not see it.
//! H3. A write that nobody waited for, and that failed, is told to the member when that is noticed (see [`Unawaited`]): it counts
//!     as any failure, and its keys are deleted as any that were missed.
//! H7. A node that a key has left is owed its delete while that is under way, too: it may be the key's own again by then. What is
//!     written there waits for it ([`Member::is_cleared`]), or it would be deleted in its place.
//! H4. At most a share of the nodes is ejected at a time, and never the last (see [`Ring::failed`]): callers try on.
//! H5. A node that does not let the client in (TLS, login) is left alone for a while, with the same pauses as a probe; who asks for
//!     it meanwhile is told why.
//! H6. The keys remembered are bounded; beyond the bound they are forgotten, and the log says so.

mod sign_in;
mod state;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::notices;
use super::options::ClientOptions;
use super::request::{self, NOOP, Requests};
#[cfg(doc)]
use super::routing::Ring;
use super::unawaited::Does;
#[cfg(doc)]
use super::unawaited::Unawaited;
use crate::node::Node;
use state::{State, remember};

/// Deletes in one probe.
const DELETES_MAX: usize = 500;

/// What a node may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is asked.
    Live,
    /// Came back a moment ago: written to, given what is read elsewhere, but read last.
    Settling,
    /// It failed too often: it is probed, and not asked.
    Ejected,
}

/// Whether a node can be given a CAS unique, as memcached before 1.6.27 cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// It was not asked yet.
    Unknown,
    /// It can.
    Taken,
    /// It cannot.
    Refused,
}

/// A node and what this client knows of its health, kept from snapshot to snapshot.
#[derive(Debug)]
pub struct Member {
    /// As the list of nodes has it.
    pub node: Node,
    /// `host:port`.
    pub name: Arc<str>,
    /// A hash of the name.
    pub identity: u64,
    standing: AtomicU8,
    /// Something is to be looked at: failures to forget, a probe that falls due, a settling time that ends.
    unwell: AtomicBool,
    /// There are keys under way.
    busy: AtomicBool,
    /// There are keys that it missed.
    owing: AtomicBool,
    /// There are keys here of nodes that are ejected.
    standing_in: AtomicBool,
    /// Another client has it ejected.
    doubted: AtomicBool,
    /// See [`Marks`].
    marks: AtomicU8,
    state: Mutex<State>,
}

impl Member {
    /// Live, as far as is known.
    pub fn new(node: Node) -> Self {
        let name: Arc<str> = node.address().into();
        Member {
            identity: fnv(name.as_bytes()),
            name,
            node,
            standing: AtomicU8::new(Standing::Live as u8),
            unwell: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            owing: AtomicBool::new(false),
            standing_in: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
            marks: AtomicU8::new(Marks::Unknown as u8),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Standing`].
    #[inline]
    pub fn standing(&self, now: Instant) -> Standing {
        match self.standing.load(Ordering::Relaxed) {
            0 => Standing::Live,
            1 => self.settling(now),
            _ => Standing::Ejected,
        }
    }

    #[cold]
    fn settling(&self, now: Instant) -> Standing {
        let mut state = self.state();
        if state.settled_at.is_some_and(|at| now < at) {
            return Standing::Settling;
        }
        state.settled_at = None;
        self.standing.store(Standing::Live as u8, Ordering::Relaxed);
        Standing::Live
    }

    /// True if it may be asked.
    #[inline]
    pub fn is_in(&self) -> bool {
        self.standing.load(Ordering::Relaxed) != Standing::Ejected as u8
    }

    /// An exchange ended well; true if the node had failed so often that it would have been ejected.
    #[inline]
    pub fn worked(&self, options: &ClientOptions) -> bool {
        self.unwell.load(Ordering::Relaxed) && self.recovered(options)
    }

    #[cold]
    fn recovered(&self, options: &ClientOptions) -> bool {
        let mut state = self.state();
        let failures = std::mem::take(&mut state.failures);
        state.shut = None;
        let unwell = state.is_unwell();
        self.unwell.store(unwell, Ordering::Relaxed);
        self.is_in() && failures >= options.eject_after.max(1)
    }

    /// What kept the node away may be over: it is probed with the next operation.
    pub fn hurry(&self, options: &ClientOptions) {
        let mut state = self.state();
        if state.probing.is_some() {
            state.hurried = true;
        } else if state.probe_at.is_some() {
            state.pause = options.probe_after;
            state.probe_at = state.first_failure.or(state.probe_at);
        }
    }

    /// An exchange failed by the node's fault; true if that ejects it, which it does only if it `may_go`. `chance` is any number.
    pub fn failed(
        &self,
        now: Instant,
        options: &ClientOptions,
        chance: u64,
        may_go: impl FnOnce() -> bool,
    ) -> bool {
        let mut state = self.state();
        self.unwell.store(true, Ordering::Relaxed);
        let fresh = state
            .first_failure
            .is_some_and(|first| now.saturating_duration_since(first) <= options.eject_window);
        if state.failures == 0 || !fresh {
            (state.failures, state.first_failure) = (0, Some(now));
        }
        state.failures = state.failures.saturating_add(1);
        let after = options.eject_after.max(1);
        let ejected = self.is_in() && state.failures >= after && may_go();
        if !ejected && self.is_in() && state.failures == after {
            log::warn!("{} fails, but so do others: it is not ejected", self.name);
        }
        if ejected {
            log::warn!("{} is ejected after {} failures", self.name, state.failures);
            state.pause = options.probe_after;
            state.probe_at = Some(now + spread(state.pause, chance));
            state.settled_at = None;
            self.standing
                .store(Standing::Ejected as u8, Ordering::Relaxed);
        }
        ejected
    }

    /// `key` was written or deleted without this node.
    pub fn missed(&self, key: &[u8], now: Instant, options: &ClientOptions) {
        self.owe_soon(key, (true, false), now, options);
    }

    /// Whether this node has written or deleted `key`, nobody knows: perhaps it is about to.
    pub fn unsure(&self, key: &[u8], now: Instant, options: &ClientOptions) {
        self.owe_soon(key, (false, true), now, options);
    }

    /// Whether this node has deleted `key`, which had its place here before, nobody knows.
    pub(super) fn not_left(&self, key: &[u8], now: Instant, options: &ClientOptions) {
        self.owe_soon(key, (false, false), now, options);
    }

    fn owe_soon(&self, key: &[u8], how: (bool, bool), now: Instant, options: &ClientOptions) {
        let state = &mut *self.state();
        if self.owe(state, key, how, options) {
            if state.probe_at.is_none() {
                state.pause = options.probe_after;
                state.probe_at = Some(now + options.probe_after);
            }
            self.unwell.store(true, Ordering::Relaxed);
        }
    }

    /// Puts `key` among those that were missed, if there is room.
    fn owe(
        &self,
        state: &mut State,
        key: &[u8],
        how: (bool, bool),
        options: &ClientOptions,
    ) -> bool {
        let remembered = state.owe(key, how, options);
        if remembered {
            self.owing.store(true, Ordering::Release);
        } else if !std::mem::replace(&mut state.forgot, true) {
            self.warn_of_missed();
        }
        remembered
    }

    /// What was done to `keys` without anybody waiting for it was not answered, by the node's fault if that `counts`; each with whether
    /// the node may yet take a value of it. Who learns of that has no clock: [`tend`](Self::tend) does the rest.
    pub(super) fn overlooked<'k>(
        &self,
        keys: impl Iterator<Item = (&'k Box<[u8]>, bool)>,
        counts: bool,
        options: &ClientOptions,
    ) {
        let state = &mut *self.state();
        state.overlooked += u32::from(counts);
        for (key, is_awaiting) in keys {
            self.owe(state, key, (false, is_awaiting), options);
        }
        self.unwell.store(true, Ordering::Relaxed);
    }

    /// Writes of `keys` are answered that deletes have overtaken.
    pub(super) fn overtaken(&self, keys: &[(Box<[u8]>, u64)], options: &ClientOptions) {
        let state = &mut *self.state();
        for (key, number) in keys {
            if state.owe_as(*number, key, (false, false), options) {
                self.owing.store(true, Ordering::Release);
            } else if !std::mem::replace(&mut state.forgot, true) {
                self.warn_of_missed();
            }
        }
        self.unwell.store(true, Ordering::Relaxed);
    }

    /// The number of the debt that a write of `key` pays which is sent now: what was there before is gone with it.
    #[inline]
    pub(super) fn debt(&self, key: &[u8]) -> Option<u64> {
        let is_well = !self.busy.load(Ordering::Relaxed) && !self.owing.load(Ordering::Acquire);
        match is_well {
            true => None,
            false => self.state().payable(key),
        }
    }

    /// That write was acknowledged.
    pub(super) fn paid(&self, key: &[u8], number: u64) {
        let state = &mut *self.state();
        if state.payable(key) != Some(number) {
            return;
        }
        if let Some(under_way) = state.under_way.get_mut(key) {
            under_way.overtaken = None;
        }
        state.missed.remove(key);
        self.owing
            .store(!state.missed.is_empty(), Ordering::Release);
    }

    /// True if `key` is yet to be deleted here, so that what this node says of it is worth nothing.
    #[inline]
    pub fn owes(&self, key: &[u8]) -> bool {
        (self.owing.load(Ordering::Acquire) || self.busy.load(Ordering::Relaxed))
            && self.state().owes(key)
    }

    /// Something is done to `keys` that nobody waits for.
    pub(super) fn under_way(&self, keys: &[(Box<[u8]>, Does)]) {
        let state = &mut *self.state();
        for (key, does) in keys {
            let under_way = state.under_way.entry(key.clone()).or_default();
            *under_way.count(*does) += 1;
        }
        self.busy.store(true, Ordering::Relaxed);
    }

    /// True if no delete of `key` is under way that would take away what is written now.
    #[inline]
    pub(super) fn is_cleared(&self, key: &[u8]) -> bool {
        let is_well = !self.busy.load(Ordering::Relaxed) && !self.owing.load(Ordering::Acquire);
        is_well || !self.state().is_deleting(key)
    }

    /// True if what is there under `key` stays: nothing of it is under way that nobody waits for.
    #[inline]
    pub(super) fn is_settled_for(&self, key: &[u8]) -> bool {
        let is_well = !self.busy.load(Ordering::Relaxed) && !self.owing.load(Ordering::Acquire);
        is_well || !self.state().is_unsettled(key)
    }

    /// A repair has added `key`, with this CAS unique. It ends by `until`, unless it is confirmed, which nobody waits for.
    pub(super) fn is_not_confirmed(
        &self,
        key: &[u8],
        unique: u64,
        (now, until): (Instant, Instant),
        options: &ClientOptions,
    ) {
        let state = &mut *self.state();
        state.unconfirmed.retain(|_, (_, until)| now < *until);
        if state.unconfirmed.len() < options.missed_keys_max {
            state.unconfirmed.insert(key.into(), (unique, until));
            self.busy.store(true, Ordering::Relaxed);
        }
    }

    /// The CAS unique of what is there under `key`, if that may end at any moment.
    pub(super) fn take_unconfirmed(&self, key: &[u8], now: Instant) -> Option<u64> {
        if !self.busy.load(Ordering::Relaxed) {
            return None;
        }
        let state = &mut *self.state();
        let (unique, until) = state.unconfirmed.remove(key)?;
        state.unconfirmed.retain(|_, (_, until)| now < *until);
        self.busy.store(state.is_busy(), Ordering::Relaxed);
        (now < until).then_some(unique)
    }

    /// A delete of `key` is sent, which may overtake what is under way.
    #[inline]
    pub fn overtakes(&self, key: &[u8]) {
        if self.busy.load(Ordering::Relaxed) {
            self.state().overtake(key);
        }
    }

    /// It is done, or has failed. Gives those that may have been overtaken, and by which debts.
    pub(super) fn arrived(&self, keys: &[(Box<[u8]>, Does)]) -> Vec<(Box<[u8]>, u64)> {
        let state = &mut *self.state();
        let mut overtaken = Vec::new();
        for (key, does) in keys {
            let Some(under_way) = state.under_way.get_mut(key) else {
                continue;
            };
            *under_way.count(*does) -= 1;
            if !under_way.stores()
                && let Some(number) = under_way.overtaken.take()
            {
                overtaken.push((key.clone(), number));
            }
            if under_way.is_over() {
                state.under_way.remove(key);
            }
        }
        self.busy.store(state.is_busy(), Ordering::Relaxed);
        overtaken
    }

    /// Counts the failures that nobody waited for, by `failed`, and has their keys deleted; true if that ejects the node. To be called
    /// before [`probe_due`](Self::probe_due).
    pub fn tend(&self, now: Instant, options: &ClientOptions, failed: impl Fn() -> bool) -> bool {
        let overlooked = std::mem::take(&mut self.state().overlooked);
        let ejected = (0..overlooked).fold(false, |ejected, _| ejected | failed());
        let state = &mut *self.state();
        if state.probe_at.is_none() && !state.missed.is_empty() {
            state.pause = options.probe_after;
            state.probe_at = Some(now + options.probe_after);
        }
        ejected
    }

    fn warn_of_missed(&self) {
        log::warn!(
            "{} missed too many writes to remember: old values may come back",
            self.name
        );
    }

    /// Another client has the node ejected: its notice was seen.
    pub(super) fn doubt(&self, until: Instant) {
        self.state().doubted_until = Some(until);
        self.doubted.store(true, Ordering::Release);
    }

    /// True if another client has it ejected.
    #[inline]
    pub(super) fn is_doubted(&self, now: Instant) -> bool {
        self.doubted.load(Ordering::Acquire) && {
            let doubted = self.state().doubted_until.is_some_and(|until| now < until);
            self.doubted.store(doubted, Ordering::Release);
            doubted
        }
    }

    /// Whether it takes marks is known from now on.
    pub(super) fn takes_marks(&self, takes: bool) {
        let marks = if takes { Marks::Taken } else { Marks::Refused };
        self.marks.store(marks as u8, Ordering::Relaxed);
    }

    /// Whether what a repair stores here can be marked (see [`repair_mark`](crate::value::repair_mark)).
    #[inline]
    pub(super) fn marks(&self) -> Marks {
        match self.marks.load(Ordering::Relaxed) {
            0 => Marks::Unknown,
            1 => Marks::Taken,
            _ => Marks::Refused,
        }
    }

    /// True if this client owes it deletes.
    pub(super) fn is_owed(&self) -> bool {
        self.owing.load(Ordering::Acquire)
    }

    /// True if it has failed so often in a row that others are told before it is ejected.
    #[inline]
    pub(super) fn is_failing(&self, now: Instant, options: &ClientOptions) -> bool {
        let is_failing = |state: &State| {
            let first = state.first_failure;
            let since = first.map(|first| now.saturating_duration_since(first));
            state.failures >= notices::FAILURES
                && since.is_some_and(|since| since <= options.eject_window)
        };
        self.unwell.load(Ordering::Relaxed) && is_failing(&self.state())
    }

    /// True if others are to be told, once more, that they cannot rely on the node. Whoever is told so by this tells them.
    pub(super) fn is_to_be_noticed(&self, now: Instant) -> bool {
        let fresh = |at: Instant| now.saturating_duration_since(at) < notices::AGAIN;
        if self.state().noticed_at.is_some_and(fresh) {
            return false;
        }
        self.noticed(now);
        true
    }

    /// Others are told now.
    pub(super) fn noticed(&self, now: Instant) {
        let state = &mut *self.state();
        if !state.is_noticed(now) {
            state.first_noticed_at = Some(now);
        }
        state.noticed_at = Some(now);
    }

    /// Until when writes around the node are held; `None` if others do not know of it, or not any more.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        let state = self.state();
        let first = state.first_noticed_at.filter(|_| state.is_noticed(now))?;
        Some(first + notices::HOLD)
    }

    /// True if the node, which settles, is to be given `key`: that is once for a while.
    pub fn is_to_be_given(&self, key: &[u8], options: &ClientOptions) -> bool {
        let state = &mut *self.state();
        !state.given.contains(key) && remember(&mut state.given, key, options)
    }

    /// `key` was written here in the place of a node that is ejected.
    pub(super) fn strayed(&self, key: &[u8], options: &ClientOptions) {
        let state = &mut *self.state();
        if remember(&mut state.strays, key, options) {
            self.standing_in.store(true, Ordering::Release);
        } else if !std::mem::replace(&mut state.forgot, true) {
            log::warn!(
                "{} has too many keys of others to remember: old values may come back",
                self.name
            );
        }
    }

    /// True if `key` was written here in the place of an ejected node, and not deleted since.
    #[inline]
    pub(super) fn stands_in(&self, key: &[u8]) -> bool {
        self.standing_in.load(Ordering::Acquire) && self.state().strays.contains(key)
    }

    /// At `at`, or before, it is to be looked which strays are needed no more.
    pub(super) fn sweep_by(&self, at: Instant) {
        if self.standing_in.load(Ordering::Acquire) {
            let state = &mut *self.state();
            state.sweep_at = Some(state.sweep_at.map_or(at, |earlier| earlier.min(at)));
            self.unwell.store(true, Ordering::Relaxed);
        }
    }

    /// The strays, if it is time to look at them.
    pub(super) fn sweep_due(&self, now: Instant) -> Vec<Box<[u8]>> {
        let state = &mut *self.state();
        if state.sweep_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        state.sweep_at = None;
        state.strays.iter().cloned().collect()
    }

    /// `key` is no stray any more: it is the node's own.
    pub(super) fn settled_in(&self, key: &[u8]) {
        let state = &mut *self.state();
        state.strays.remove(key);
        let strays = !state.strays.is_empty();
        self.standing_in.store(strays, Ordering::Release);
    }

    /// True if a probe may fall due: a cheap look before [`probe_due`](Self::probe_due).
    #[inline]
    pub fn is_unwell(&self) -> bool {
        self.unwell.load(Ordering::Relaxed)
    }

    /// The request of a probe that is due, which ends with `mn`. The front reports how it ended.
    pub fn probe_due(&self, now: Instant) -> Option<Bytes> {
        let mut state = self.state();
        if state.probing.is_some() || state.probe_at.is_none_or(|at| now < at) {
            return None;
        }
        let keys = state.missed.iter().take(DELETES_MAX);
        let keys: Vec<_> = keys.map(|(key, debt)| (key.clone(), debt.number)).collect();
        let mut out = Requests::new(keys.len(), 0);
        for (key, _) in &keys {
            request::delete(&mut out, key, None);
            state.overtake(key);
        }
        state.probing = Some(keys);
        let (deletes, _) = out.finish();
        Some([&deletes, NOOP].concat().into())
    }

    /// The probe was answered; true if that ends an ejection.
    pub(super) fn probe_answered(&self, now: Instant, options: &ClientOptions) -> bool {
        let mut state = self.state();
        for (key, number) in state.probing.take().into_iter().flatten() {
            if state
                .missed
                .get(&key)
                .is_some_and(|debt| debt.number == number)
            {
                state.missed.remove(&key);
            }
        }
        if !state.missed.is_empty() {
            state.probe_at = Some(now);
            return false;
        }
        self.owing.store(false, Ordering::Release);
        (state.probe_at, state.shut) = (None, None);
        state.failures = 0;
        state.forgot = false;
        let unwell = state.is_unwell();
        self.unwell.store(unwell, Ordering::Relaxed);
        let back = !self.is_in();
        if back {
            log::info!("{} is back", self.name);
            state.settled_at = Some(now + options.settle);
            state.given.clear();
            self.standing
                .store(Standing::Settling as u8, Ordering::Relaxed);
        }
        back
    }

    /// This process is a child of the one that began a probe: nobody will tell how it ends.
    pub fn part(&self) {
        self.state().probing = None;
    }

    /// The probe was not answered. The next comes after twice the pause, but not later than `at_most`.
    pub fn probe_failed(
        &self,
        now: Instant,
        options: &ClientOptions,
        chance: u64,
        at_most: Duration,
    ) {
        let mut state = self.state();
        state.probing = None;
        state.pause = (state.pause * 2).min(options.probe_after_max).min(at_most);
        if std::mem::take(&mut state.hurried) {
            state.pause = options.probe_after;
            state.probe_at = Some(now);
            return;
        }
        state.probe_at = Some(now + spread(state.pause, chance));
    }
}

/// `pause`, a quarter more or less.
fn spread(pause: Duration, chance: u64) -> Duration {
    pause.mul_f64(0.75 + 0.5 * unit(chance))
}

/// A number from 0 to 1 made of random bits.
pub fn unit(chance: u64) -> f64 {
    (chance >> 11) as f64 / (1u64 << 53) as f64
}

/// FNV-1a: the identity of a node must not change with the process.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
