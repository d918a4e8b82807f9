//! What goes on among the keys, watched by each worker for itself and put together when somebody asks.
//!
//! ```text
//!  worker: a request is done --(Observer::note)--> counts down            one in 64 --> tables: hot keys, prefixes
//!                                                  hash ends so                     --> ring to the watcher
//!          a turn is done --(turn_done)--> histograms by command group; what was slow --> ring of slow requests
//!  watcher thread, once a second --(Keyspace::tick)--> hot list, hot now, what-if      read by whoever reports
//! ```
//!
//! Ks1. No worker waits for anybody: where it shares a table with the watcher it only tries the lock, and a request that
//!      finds it taken is not looked at.
//! Ks2. An [`Observer`] has one worker that writes to it.
//!
//! The room is a leaf: it has heard of keys, hashes and bytes, and of nothing that stores or serves them.

pub mod by_prefix;
pub mod hot_keys;
pub mod latency;
pub mod misses;
mod prefixes;
mod sampler;
pub mod slow;
mod space_saving;
#[cfg(test)]
mod testing;
pub mod whatif;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use by_prefix::{ByPrefix, Did, Prefix, Walked, prefix_of};
use hot_keys::{HotKeys, HotList, HotNow, Merge};
use latency::{GROUPS, Group, Histogram, Times};
use misses::Miss;
use sampler::{Countdown, Gaps};
use slow::{Slow, SlowRing, Stage};
use whatif::{Deed, Expected, Kind, Measured, Ring, TIMES, WhatIf};

use crate::sys::monotonic_ns;

pub use prefixes::Prefixes;

/// A turn that takes longer than this is slow: ten times what the slowest of a thousand takes on a busy server.
const SLOW_NS: u64 = 10_000_000;
/// One turn in so many is timed request by request.
const TIMED_ONE_IN: u32 = 64;
/// Requests of a turn that are timed one by one.
const TIMED_MAX: usize = 256;

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

/// What one worker sees.
#[derive(Debug)]
pub struct Observer {
    delimiter: u8,
    countdown: Countdown,
    /// Requests of the turn in progress, by group.
    in_turn: [AtomicU32; GROUPS],
    /// The requests of this turn are timed one by one.
    timing: AtomicBool,
    turns_left: AtomicU32,
    /// When the worker last woke, and when what is timed now began; in nanoseconds.
    woke_ns: AtomicU64,
    mark_ns: AtomicU64,
    /// Less than [`WhatIf::one_in`] by one.
    follow_mask: AtomicU32,
    ring: Ring,
    latency: [Histogram; GROUPS],
    wait: Histogram,
    timed: Mutex<Timed>,
    close: Mutex<Close>,
}

/// The turn that is timed request by request. Its lock is never waited for: no other thread takes it.
#[derive(Debug)]
struct Timed {
    requests: Vec<(Group, u64)>,
    /// Requests until the next one is looked at.
    gap_left: u32,
}

/// What a worker shares with the watcher.
#[derive(Debug)]
struct Close {
    gaps: Gaps,
    hot: HotKeys,
    prefixes: ByPrefix,
    slow: SlowRing,
}

/// Adds to a count that one thread writes.
#[inline(always)]
fn add(count: &AtomicU32) {
    count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
}

impl Observer {
    fn new(index: usize, delimiter: u8) -> Self {
        Observer {
            delimiter,
            countdown: Countdown::default(),
            in_turn: Default::default(),
            timing: AtomicBool::new(false),
            turns_left: AtomicU32::new(TIMED_ONE_IN),
            woke_ns: AtomicU64::new(0),
            mark_ns: AtomicU64::new(0),
            follow_mask: AtomicU32::new(whatif::ONE_IN_FIRST - 1),
            ring: Ring::default(),
            latency: Default::default(),
            wait: Histogram::default(),
            timed: Mutex::new(Timed {
                requests: Vec::with_capacity(TIMED_MAX),
                gap_left: 0,
            }),
            close: Mutex::new(Close {
                gaps: Gaps::new(index as u32 + 1),
                hot: HotKeys::default(),
                prefixes: ByPrefix::default(),
                slow: SlowRing::default(),
            }),
        }
    }

    /// Sees a request that is done, in second `now_s`. `ended` is asked only if the request is looked at.
    #[inline(always)]
    pub fn note(&self, asked: Asked<'_>, now_s: u32, ended: impl FnOnce() -> Ended) {
        add(&self.in_turn[asked.group as usize]);
        let is_followed = whatif::is_followed(asked.hash, self.follow_mask.load(Relaxed));
        if self.countdown.is_due() | is_followed {
            self.see(asked, now_s, is_followed, ended());
        }
    }

    /// Sees a request that is about no key.
    #[inline]
    pub fn note_other(&self) {
        add(&self.in_turn[Group::Other as usize]);
    }

    #[cold]
    #[inline(never)]
    fn see(&self, asked: Asked<'_>, now_s: u32, is_followed: bool, ended: Ended) {
        if is_followed {
            self.follow(asked.hash, ended);
        }
        if self.countdown.left() == 0 {
            self.look(asked, ended, now_s);
        }
    }

    fn follow(&self, hash: u32, ended: Ended) {
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

    fn look(&self, asked: Asked<'_>, ended: Ended, now_s: u32) {
        let is_timing = self.timing.load(Relaxed);
        if is_timing {
            // All requests of the turn come here, those between the gaps only to be timed.
            self.countdown.set(1);
            let mut timed = self.timed.lock();
            self.time_one(asked.group, &mut timed.requests);
            timed.gap_left = timed.gap_left.saturating_sub(1);
            if timed.gap_left > 0 {
                return;
            }
        }
        let Some(mut close) = self.close.try_lock() else {
            return self.next_after(sampler::ONE_IN, is_timing);
        };
        let drawn = close.gaps.draw(now_s);
        self.next_after(drawn.gap, is_timing);
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
    fn next_after(&self, gap: u32, is_timing: bool) {
        if is_timing {
            self.timed.lock().gap_left = gap;
        } else {
            self.countdown.set(gap);
        }
    }

    fn time_one(&self, group: Group, timed: &mut Vec<(Group, u64)>) {
        // Those that are too many share what is left of the turn.
        if timed.len() == TIMED_MAX {
            return;
        }
        let now_ns = monotonic_ns();
        let took_ns = now_ns.saturating_sub(self.mark_ns.load(Relaxed));
        self.mark_ns.store(now_ns, Relaxed);
        timed.push((group, took_ns));
    }

    /// The worker has found something to do, at `now_ns` of the monotonic clock.
    #[inline]
    pub fn woke(&self, now_ns: u64) {
        self.woke_ns.store(now_ns, Relaxed);
        self.mark_ns.store(now_ns, Relaxed);
    }

    /// A connection's turn is over, at `now_ns`. It began when the one before was over, or when the worker woke; its time
    /// is shared out over its requests. If it was slow it says when it began, for [`Observer::note_slow`].
    #[inline]
    pub fn turn_done(&self, now_ns: u64) -> Option<u64> {
        let began_ns = self.mark_ns.load(Relaxed);
        if self.timing.load(Relaxed) {
            self.timed_turn_done(now_ns);
        } else {
            let took_ns = now_ns.saturating_sub(began_ns);
            let counts = self.take_counts();
            let requests: u32 = counts.iter().sum();
            // No whole request came in this turn.
            if requests > 0 {
                let each_ns = match requests {
                    1 => took_ns,
                    more => took_ns / u64::from(more),
                };
                for (histogram, &count) in self.latency.iter().zip(&counts) {
                    if count > 0 {
                        histogram.add(each_ns, u64::from(count));
                    }
                }
                let left = self.turns_left.load(Relaxed) - 1;
                self.turns_left.store(left, Relaxed);
                if left == 0 {
                    self.begin_timing();
                }
            }
        }
        self.mark_ns.store(now_ns, Relaxed);
        let is_slow = now_ns.saturating_sub(self.woke_ns.load(Relaxed)) > SLOW_NS;
        is_slow.then_some(began_ns)
    }

    #[inline(always)]
    fn take_counts(&self) -> [u32; GROUPS] {
        let mut counts = [0; GROUPS];
        for (count, of_group) in counts.iter_mut().zip(&self.in_turn) {
            *count = of_group.load(Relaxed);
            of_group.store(0, Relaxed);
        }
        counts
    }

    /// The next turn is timed request by request.
    #[cold]
    fn begin_timing(&self) {
        self.turns_left.store(TIMED_ONE_IN, Relaxed);
        let mut timed = self.timed.lock();
        timed.requests.clear();
        timed.gap_left = self.countdown.left();
        self.countdown.set(1);
        self.timing.store(true, Relaxed);
    }

    #[cold]
    fn timed_turn_done(&self, now_ns: u64) {
        let counts = self.take_counts();
        if counts.iter().all(|&count| count == 0) {
            // No whole request came: the next turn is timed instead.
            return;
        }
        self.timing.store(false, Relaxed);
        let mut timed = self.timed.lock();
        self.countdown.set(timed.gap_left.max(1));
        let mut untimed = counts;
        let mut timed_ns = 0;
        for &(group, ns) in &timed.requests {
            untimed[group as usize] = untimed[group as usize].saturating_sub(1);
            timed_ns += ns;
        }
        let woke_ns = self.woke_ns.load(Relaxed);
        let mark_ns = self.mark_ns.load(Relaxed);
        self.wait.add(mark_ns.saturating_sub(woke_ns + timed_ns), 1);
        // What is left was spent for all of them, reading what they asked and sending what they got; or for those that
        // were too many, or about no key.
        let rest_ns = now_ns.saturating_sub(mark_ns);
        let sharers = match untimed.iter().sum::<u32>() {
            0 => timed.requests.len() as u64,
            untimed => u64::from(untimed),
        };
        let each_ns = rest_ns / sharers.max(1);
        let is_shared = untimed.iter().all(|&count| count == 0);
        for &(group, ns) in &timed.requests {
            let more_ns = if is_shared { each_ns } else { 0 };
            self.latency[group as usize].add(ns + more_ns, 1);
        }
        for (histogram, count) in self.latency.iter().zip(untimed) {
            if count > 0 {
                histogram.add(each_ns, u64::from(count));
            }
        }
        timed.requests.clear();
    }

    /// Remembers a reply that its peer took only after a while.
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
    pub fn note_slow(&self, began_ns: u64, now_ns: u64, input: &[u8], now_s: u32) {
        let woke_ns = self.woke_ns.load(Relaxed);
        if began_ns > woke_ns {
            slow::spent(Stage::Turn, woke_ns, began_ns);
        }
        let (stage, stage_ns) = slow::longest(woke_ns, now_ns);
        let line = input.split(|&byte| byte == b'\r' || byte == b'\n').next();
        let line = line.unwrap_or_default();
        let word = line.split(|&byte| byte == b' ').next().unwrap_or_default();
        let known = Group::of_word(word);
        let slow = Slow {
            at_s: now_s,
            group: known.unwrap_or(Group::Other),
            line: if known.is_some() { line } else { b"" }.to_vec(),
            total_ns: now_ns.saturating_sub(woke_ns),
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

/// What all workers see together.
#[derive(Debug)]
pub struct Keyspace {
    workers: Box<[CachePadded<Observer>]>,
    /// Which keys are hot now, for whoever has a key's hash.
    pub hot_now: HotNow,
    hot: Mutex<Arc<HotList>>,
    walked: Mutex<Arc<Walked>>,
    what_if: Mutex<WhatIf>,
    /// Bytes that it took at the last tick.
    what_if_bytes: AtomicU64,
    /// What was counted before the last reset, by group and then of waiting.
    before: Mutex<Vec<Times>>,
}

/// What the watcher tells at each tick.
#[derive(Debug, Clone, Copy)]
pub struct Tick {
    /// The server's second.
    pub now_s: u32,
    /// Reads and hits since the last tick.
    pub measured: Measured,
    /// Bytes of items in the cache when it is full.
    pub full_bytes: u64,
    /// How the cache decides who gives way.
    pub kind: Kind,
}

impl Keyspace {
    /// Observers for so many workers, that cut prefixes at `delimiter`.
    pub fn new(workers: usize, delimiter: u8) -> Self {
        let observer = |index| CachePadded::new(Observer::new(index, delimiter));
        Keyspace {
            workers: (0..workers).map(observer).collect(),
            hot_now: HotNow::default(),
            hot: Mutex::default(),
            walked: Mutex::default(),
            what_if: Mutex::default(),
            what_if_bytes: AtomicU64::new(0),
            before: Mutex::new(vec![Times::default(); GROUPS + 1]),
        }
    }

    /// The observer of worker `index`, for it alone to write.
    pub fn observer(&self, index: usize) -> &Observer {
        &self.workers[index]
    }

    /// Takes what the workers follow; several times a second, by one thread.
    pub fn drain(&self) {
        let mut what_if = self.what_if.lock();
        let mut lost = false;
        for worker in &self.workers {
            let note = |hash, deed, bytes| what_if.note(hash, deed, bytes);
            lost |= worker.ring.drain(note);
        }
        if lost {
            what_if.follow_fewer();
        }
        for worker in &self.workers {
            worker.follow_mask.store(what_if.one_in() - 1, Relaxed);
        }
    }

    /// Puts the workers' tables together; once a second, by the same thread.
    pub fn tick(&self, tick: Tick) {
        self.drain();
        let mut merge = Merge::default();
        for worker in &self.workers {
            merge.take(&mut worker.close.lock().hot, tick.now_s);
        }
        let list = merge.finish();
        self.hot_now.publish(&list);
        *self.hot.lock() = Arc::new(list);
        let mut what_if = self.what_if.lock();
        what_if.fade(whatif::FADE_A_SECOND);
        what_if.measure(tick.measured);
        what_if.shape(tick.full_bytes, tick.kind);
        self.what_if_bytes.store(what_if.bytes() as u64, Relaxed);
    }

    /// Bytes of memory that all of it takes.
    pub fn bytes(&self) -> u64 {
        let worker = size_of::<Observer>()
            + Ring::BYTES
            + (GROUPS + 1) * Histogram::BYTES
            + HotKeys::BYTES
            + ByPrefix::BYTES;
        (self.workers.len() * worker) as u64 + self.what_if_bytes.load(Relaxed)
    }

    /// The hottest keys of the last second.
    pub fn hot(&self) -> Arc<HotList> {
        self.hot.lock().clone()
    }

    /// What is done by prefix, and what the last walk found.
    pub fn prefixes(&self) -> Vec<Prefix> {
        let walked = self.walked();
        let copy = |worker: &CachePadded<Observer>| worker.close.lock().prefixes.clone();
        let tables: Vec<ByPrefix> = self.workers.iter().map(copy).collect();
        by_prefix::merge(&tables, &walked)
    }

    /// The last complete walk.
    pub fn walked(&self) -> Arc<Walked> {
        self.walked.lock().clone()
    }

    /// Shows what a walk has found, now that it is complete.
    pub fn show_walk(&self, walked: Walked) {
        *self.walked.lock() = Arc::new(walked);
    }

    /// The latest slow requests of all workers, the newest last.
    pub fn slow(&self) -> Vec<Slow> {
        let mut all = Vec::new();
        for worker in &self.workers {
            all.extend(worker.close.lock().slow.iter().cloned());
        }
        all.sort_by_key(|slow| slow.at_s);
        all
    }

    /// How long the requests of a group took, since the start or the last reset.
    pub fn latency(&self, group: Group) -> Times {
        self.latency_ever(group)
            .since(&self.before.lock()[group as usize])
    }

    /// How long requests that had come waited for their turn: of one turn in 64.
    pub fn wait(&self) -> Times {
        self.wait_ever().since(&self.before.lock()[GROUPS])
    }

    fn latency_ever(&self, group: Group) -> Times {
        let workers = self.workers.iter();
        Histogram::sum(workers.map(|worker| &worker.latency[group as usize]))
    }

    fn wait_ever(&self) -> Times {
        Histogram::sum(self.workers.iter().map(|worker| &worker.wait))
    }

    /// Expected hit ratios with other amounts of memory; see [`WhatIf::expect`].
    pub fn expect(&self) -> Option<[Expected; TIMES.len()]> {
        self.what_if.lock().expect()
    }

    /// Forgets times, prefixes, hot keys and slow requests (`stats reset`).
    pub fn reset(&self) {
        let mut ever: Vec<Times> = Group::ALL.map(|group| self.latency_ever(group)).into();
        ever.push(self.wait_ever());
        *self.before.lock() = ever;
        for worker in &self.workers {
            let mut close = worker.close.lock();
            close.hot.clear();
            close.prefixes.clear();
            close.slow.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(observer: &Observer, key: &str, outcome: Outcome) {
        let asked = Asked {
            group: Group::Get,
            hash: space_saving::hash_name(key.as_bytes()),
            key: key.as_bytes(),
        };
        let bytes = 100;
        observer.note(asked, 5, || Ended { outcome, bytes });
    }

    fn tick(now_s: u32) -> Tick {
        Tick {
            now_s,
            measured: Measured::default(),
            full_bytes: 1 << 20,
            kind: Kind::S3Fifo,
        }
    }

    #[test]
    fn few_requests_are_counted_exactly() {
        let keyspace = Keyspace::new(2, b':');
        for n in 0..100 {
            let observer = keyspace.observer(n % 2);
            note(observer, "user:1", Outcome::Hit);
            note(observer, "user:2", Outcome::Miss(Miss::Expired));
            note(observer, "plain", Outcome::Stored);
        }
        keyspace.tick(tick(6));
        let hot = keyspace.hot();
        assert_eq!(hot.reads[0].count, 100);
        assert_eq!(hot.writes[0].key, b"plain");
        let prefixes = keyspace.prefixes();
        assert_eq!(prefixes.len(), 1);
        let counts = prefixes[0].counts;
        assert_eq!((counts.reads, counts.hits), (200, 100));
        assert_eq!(counts.misses[Miss::Expired as usize], 100);
        keyspace.reset();
        assert!(keyspace.prefixes().is_empty());
        assert_eq!(keyspace.latency(Group::Get).count(), 0);
    }

    /// A turn's time is shared out, whether it is timed as a whole or one by one, and no request is lost or counted twice.
    #[test]
    fn every_request_is_timed_once() {
        let keyspace = Keyspace::new(1, b':');
        let observer = keyspace.observer(0);
        let (mut requests, mut others) = (0, 0);
        for turn in 0..1000u32 {
            observer.woke(monotonic_ns());
            // Now and then more than are timed one by one.
            let count = if turn % 100 == 0 { 700 } else { turn % 7 };
            for _ in 0..count {
                note(observer, "key", Outcome::Hit);
                requests += 1;
            }
            observer.note_other();
            others += 1;
            observer.turn_done(monotonic_ns());
        }
        let times = keyspace.latency(Group::Get);
        assert_eq!(times.count(), requests);
        assert_eq!(keyspace.latency(Group::Other).count(), others);
        assert_eq!(keyspace.latency(Group::Set).count(), 0);
        let waits = keyspace.wait().count();
        assert!((10..=16).contains(&waits), "{waits}");
    }

    #[test]
    fn a_turn_that_waited_long_is_slow_for_that() {
        let keyspace = Keyspace::new(1, b':');
        let observer = keyspace.observer(0);
        observer.woke(1000);
        assert_eq!(observer.turn_done(40_000_000), Some(1000));
        let began_ns = observer.turn_done(50_005_000).expect("it was slow");
        observer.note_slow(began_ns, 50_005_000, b"get a\r\nget b\r\n", 7);
        observer.note_slow(began_ns, 50_005_000, b"a secret value", 7);
        let slow = keyspace.slow();
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
        let slow = keyspace.slow();
        assert_eq!((slow.len(), slow[2].stage), (3, Stage::Socket));
    }
}
