//! What one worker sees of its requests.
//!
//! Ob1. An [`Observer`] has one worker that writes to it.
//! Ob2. A request that is neither looked at nor of a key that is followed costs two comparisons.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;

use super::by_prefix::{ByPrefix, Did, prefix_of};
use super::hot_keys::HotKeys;
use super::latency::Group;
use super::misses::Miss;
use super::sampler::{self, Countdown, Gaps};
use super::slow::{self, Slow, SlowRing, Stage};
use super::turns::{SlowTurn, Turns};
use super::turns_left::SLOW_NS;
use super::whatif::{self, Deed, Ring};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A read that hit.
    Hit,
    /// A read that missed.
    Miss(Miss),
    /// A store that was done.
    Stored,
    /// The item is gone.
    Deleted,
    /// Anything else: it says nothing of the keys.
    Other,
}

/// What a request was about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'k> {
    /// What was asked.
    pub group: Group,
    /// The key's hash in the cache.
    pub hash: u32,
    /// The key.
    pub key: &'k [u8],
}

/// What became of it.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes of the item with header and key, 0 if there is none.
    pub bytes: u32,
}

/// What is to be told of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// That it was; no more.
    Nothing,
    /// All, by [`Observer::look`].
    Look,
    /// How it ended, by [`Observer::follow`]: its key is one of those that are followed.
    Follow,
}

/// What one worker sees.
#[derive(Debug)]
pub struct Observer {
    delimiter: u8,
    countdown: Countdown,
    /// Less than [`whatif::WhatIf::one_in`] by one.
    pub(super) follow_mask: AtomicU32,
    pub(super) turns: Turns,
    pub(super) ring: Ring,
    pub(super) close: Mutex<Close>,
}

/// What a worker shares with the watcher.
#[derive(Debug)]
pub(super) struct Close {
    gaps: Gaps,
    pub hot: HotKeys,
    pub prefixes: ByPrefix,
    pub slow: SlowRing,
}

impl Observer {
    pub(super) fn new(index: usize, delimiter: u8) -> Self {
        let seed = index as u32 + 1;
        Observer {
            delimiter,
            countdown: Countdown::default(),
            follow_mask: AtomicU32::new(whatif::ONE_IN_FIRST - 1),
            turns: Turns::new(seed),
            ring: Ring::default(),
            close: Mutex::new(Close {
                gaps: Gaps::new(seed, sampler::STOCK_MAX),
                hot: HotKeys::default(),
                prefixes: ByPrefix::default(),
                slow: SlowRing::default(),
            }),
        }
    }

    /// Counts a request that is done, about a key of this hash, and says what is to be told of it.
    #[inline(always)]
    pub fn wants(&self, hash: u32) -> Wanted {
        if self.countdown.is_due() {
            Wanted::Look
        } else if self.is_followed(hash) {
            Wanted::Follow
        } else {
            Wanted::Nothing
        }
    }

    /// Sees a request that is about no key.
    #[inline]
    pub fn note_other(&self) {
        if self.turns.is_timing() {
            self.turns.time(Group::Other);
        }
    }

    #[inline(always)]
    fn is_followed(&self, hash: u32) -> bool {
        whatif::is_followed(hash, self.follow_mask.load(Relaxed))
    }

    /// Tells of a request that [`Wanted::Follow`] asks for.
    pub fn follow(&self, hash: u32, ended: Ended) {
        let deed = match ended.outcome {
            Outcome::Hit => Deed::Hit,
            Outcome::Miss(Miss::NeverSeen | Miss::Evicted) => Deed::Miss,
            Outcome::Miss(_) => Deed::Gone,
            Outcome::Stored => Deed::Store,
            Outcome::Deleted => Deed::Delete,
            Outcome::Other => return,
        };
        self.ring.push(hash, deed, ended.bytes);
    }

    /// The same of a read that hit an item of so many bytes, which most are.
    #[inline(always)]
    pub fn follow_hit(&self, hash: u32, bytes: u32) {
        self.ring.push(hash, Deed::Hit, bytes);
    }

    /// Looks at a request that [`Wanted::Look`] asks for, in second `now_s`.
    pub fn look(&self, asked: Asked<'_>, ended: Ended, now_s: u32) {
        if self.is_followed(asked.hash) {
            self.follow(asked.hash, ended);
        }
        let is_timing = self.turns.is_timing();
        if is_timing {
            // All requests of the turn come here, those between the gaps only to be timed.
            self.countdown.set(1);
            if !self.turns.time(asked.group) {
                return;
            }
        }
        let Some(mut close) = self.close.try_lock() else {
            // Whoever freezes it is done soon: the next request stands in for this one.
            return self.look_after(1, is_timing);
        };
        let drawn = close.gaps.draw(now_s);
        self.look_after(drawn.gap, is_timing);
        let (is_read, did) = match ended.outcome {
            Outcome::Hit => (true, Some(Did::Hit)),
            Outcome::Miss(miss) => (true, Some(Did::Missed(miss))),
            Outcome::Stored => (false, Some(Did::Stored)),
            Outcome::Deleted => (false, None),
            Outcome::Other => return,
        };
        let close = &mut *close;
        let weight = drawn.weight;
        close
            .hot
            .add(asked.hash, asked.key, is_read, ended.bytes, weight);
        if let Some(did) = did
            && let Some(prefix) = prefix_of(asked.key, self.delimiter)
        {
            close.prefixes.add(prefix, did, weight);
        }
    }

    /// After so many requests the next one is looked at.
    fn look_after(&self, gap: u32, is_timing: bool) {
        if is_timing {
            self.turns.look_after(gap);
        } else {
            self.countdown.set(gap);
        }
    }

    /// The worker has found something to do, for several connections or for one.
    #[inline(always)]
    pub fn woke(&self, is_for_several: bool) {
        self.turns.woke(is_for_several);
    }

    /// The turn of one of several connections begins.
    #[inline(always)]
    pub fn turn_begins(&self) {
        self.turns.begins();
    }

    /// A connection's turn is over, in second `now_s`. If it was slow this tells of it, for [`Observer::note_slow`].
    #[inline(always)]
    pub fn turn_done(&self, now_s: u32) -> Option<SlowTurn> {
        if Turns::is_to_close() {
            return self.turns.close(now_s, &self.countdown);
        }
        None
    }

    /// Remembers a reply that its peer took only after a while: from a moment of the monotonic clock to another.
    #[cold]
    pub fn note_untaken(&self, since_ns: u64, now_ns: u64, now_s: u32) {
        let total_ns = now_ns.saturating_sub(since_ns);
        if total_ns > SLOW_NS {
            let slow = Slow {
                at_s: now_s,
                group: Group::Other,
                line: Vec::new(),
                total_ns,
                stage: Stage::Socket,
                stage_ns: total_ns,
            };
            self.push_slow(slow);
        }
    }

    /// Remembers the turn that has just been slow. `input` is what the turn read first, if it read anything: a line that
    /// begins with a command is shown.
    #[cold]
    pub fn note_slow(&self, turn: SlowTurn, input: &[u8], now_s: u32) {
        let SlowTurn {
            woke_ns,
            began_ns,
            ended_ns,
        } = turn;
        if began_ns > woke_ns {
            slow::spent(Stage::Turn, woke_ns, began_ns);
        }
        let (stage, stage_ns) = slow::longest(woke_ns, ended_ns);
        let line = input.split(|&byte| byte == b'\r' || byte == b'\n').next();
        let line = line.unwrap_or_default();
        let word = line.split(|&byte| byte == b' ').next().unwrap_or_default();
        let known = Group::of_word(word);
        let slow = Slow {
            at_s: now_s,
            group: known.unwrap_or(Group::Other),
            line: if known.is_some() { line } else { b"" }.to_vec(),
            total_ns: ended_ns.saturating_sub(woke_ns),
            stage,
            stage_ns,
        };
        self.push_slow(slow);
    }

    fn push_slow(&self, slow: Slow) {
        if let Some(mut close) = self.close.try_lock() {
            close.slow.push(slow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_waited_long_is_slow_for_that() {
        let observer = Observer::new(0, b':');
        let turn = SlowTurn {
            woke_ns: 1000,
            began_ns: 40_000_000,
            ended_ns: 50_005_000,
        };
        observer.note_slow(turn, b"get a\r\nget b\r\n", 7);
        observer.note_slow(turn, b"a secret value", 7);
        let slow: Vec<Slow> = observer.close.lock().slow.iter().cloned().collect();
        assert_eq!(
            (&slow[0].line[..], slow[0].group),
            (b"get a".as_slice(), Group::Get)
        );
        assert_eq!(
            (&slow[1].line[..], slow[1].group),
            (b"".as_slice(), Group::Other)
        );
        assert_eq!((slow[0].stage, slow[0].at_s), (Stage::Turn, 7));
        assert_eq!(slow[0].total_ns, 50_004_000);
        observer.note_untaken(1000, 2000, 8);
        observer.note_untaken(1000, 20_001_000, 8);
        let slow: Vec<Slow> = observer.close.lock().slow.iter().cloned().collect();
        assert_eq!((slow.len(), slow[2].stage), (3, Stage::Socket));
    }
}
