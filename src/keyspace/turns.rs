//! How long turns take: one in 128 is timed, request by request, and those that may be slow are looked at.
//!
//! ```text
//!  a turn ends: counts down --> 0: Turns::close     sampled: the next turn is timed
//!                                                   timed: shared out over its requests --> histograms
//!                                                   suspect: was it slow?
//!  suspect: a stage took long (slow::spent)         others' turns took long before it (Turns::begins)
//! ```
//!
//! Tm1. A timed turn stands for `weight` turns: 1 while there are few ([`TURNS_STOCK`]), so that counts are exact then, else
//!      the mean of the gaps. The counts add up to the number of requests, on average.
//! Tm2. A turn that is neither timed nor suspect reads no clock. So what is slow for no stage's sake is only seen if it is
//!      timed, or if others had to wait for it.
//!
//! Costs: some five instructions a turn, and as many to wake.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::latency::{GROUPS, Group, Histogram};
use super::sampler::{Countdown, Gaps};
use super::turns_left::{self, SLOW_NS};
use crate::sys;

/// Turns in a row that are all timed.
const TURNS_STOCK: u32 = 128;
/// Requests of a turn that are timed one by one.
const TIMED_MAX: usize = 256;

/// The turns of one worker, which alone writes to it.
#[derive(Debug)]
pub(super) struct Turns {
    /// When the worker woke, in ticks; 0 if nobody has to know.
    woke: AtomicU64,
    /// When the turn in progress began, where there are several.
    began: AtomicU64,
    /// What is slow, in ticks.
    slow: AtomicU64,
    /// The requests of this turn are timed one by one.
    is_timing: AtomicBool,
    pub latency: [Histogram; GROUPS],
    pub wait: Histogram,
    /// Never waited for: no other thread takes it.
    timed: Mutex<Timed>,
}

/// The turn that is timed.
#[derive(Debug)]
struct Timed {
    gaps: Gaps,
    requests: Vec<(Group, u64)>,
    /// All requests of the turn, those too that were too many.
    counts: [u32; GROUPS],
    /// When it began, and when its last request was done.
    began_ns: u64,
    mark_ns: u64,
    /// Requests until the next one is looked at.
    gap_left: u32,
}

/// A turn that is over, and was slow; by the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowTurn {
    /// When its worker woke, or since when it is known to have been at it.
    pub woke_ns: u64,
    /// When the turns before it were over; `woke_ns` for the first.
    pub began_ns: u64,
    /// Its end.
    pub ended_ns: u64,
}

impl Turns {
    pub fn new(seed: u32) -> Self {
        Turns {
            woke: AtomicU64::new(0),
            began: AtomicU64::new(0),
            slow: AtomicU64::new(sys::ticks_of(SLOW_NS)),
            is_timing: AtomicBool::new(false),
            latency: Default::default(),
            wait: Histogram::default(),
            timed: Mutex::new(Timed {
                gaps: Gaps::new(seed, TURNS_STOCK),
                requests: Vec::with_capacity(TIMED_MAX),
                counts: [0; GROUPS],
                began_ns: 0,
                mark_ns: 0,
                gap_left: 1,
            }),
        }
    }

    /// Goes by a new measure of the ticks.
    pub fn adjust(&self) {
        self.slow.store(sys::ticks_of(SLOW_NS), Relaxed);
    }

    /// The worker has found something to do, for several connections or for one.
    #[inline(always)]
    pub fn woke(&self, is_for_several: bool) {
        let is_known = is_for_several || self.is_timing();
        let woke = if is_known { sys::ticks() } else { 0 };
        self.woke.store(woke, Relaxed);
    }

    /// A turn begins of which there are several.
    #[inline(always)]
    pub fn begins(&self) {
        let now = sys::ticks();
        self.began.store(now, Relaxed);
        if now.wrapping_sub(self.woke.load(Relaxed)) > self.slow.load(Relaxed) {
            turns_left::suspect();
        }
    }

    #[inline(always)]
    pub fn is_timing(&self) -> bool {
        self.is_timing.load(Relaxed)
    }

    /// A turn is over; true if [`Turns::close`] is to see to it.
    #[inline(always)]
    pub fn is_to_close() -> bool {
        turns_left::count()
    }

    /// Sees to a turn that is over, in second `now_s`: times it or the next one, and tells if it was slow. `requests` counts
    /// down to the next request that is looked at.
    #[cold]
    #[inline(never)]
    pub fn close(&self, now_s: u32, requests: &Countdown) -> Option<SlowTurn> {
        let (now_ns, now) = (sys::monotonic_ns(), sys::ticks());
        let at = |then: u64| now_ns.saturating_sub(sys::ns_of(now.saturating_sub(then)));
        let long_since_ns = turns_left::long_since();
        let woke_ns = match self.woke.load(Relaxed) {
            0 => long_since_ns.unwrap_or(now_ns),
            woke => at(woke),
        };
        let began_ns = at(self.began.load(Relaxed)).max(woke_ns);
        match turns_left::take_put_off() {
            0 | 1 => {
                let timed = &mut *self.timed.lock();
                if self.is_timing() {
                    self.finish(timed, woke_ns, now_ns, now_s, requests);
                } else {
                    self.begin(timed, now_ns, requests);
                }
            }
            left => turns_left::set(left - 1),
        }
        let slow = SlowTurn {
            woke_ns,
            began_ns,
            ended_ns: now_ns,
        };
        (now_ns - woke_ns > SLOW_NS).then_some(slow)
    }

    /// The next turn is timed request by request.
    fn begin(&self, timed: &mut Timed, now_ns: u64, requests: &Countdown) {
        turns_left::set(1);
        timed.requests.clear();
        timed.counts = [0; GROUPS];
        timed.gap_left = requests.left();
        timed.began_ns = now_ns;
        timed.mark_ns = 0;
        requests.set(1);
        self.is_timing.store(true, Relaxed);
    }

    /// Times a request of the turn in progress. True if it is about a key, and to be looked at.
    #[cold]
    #[inline(never)]
    pub fn time(&self, group: Group) -> bool {
        let timed = &mut *self.timed.lock();
        timed.counts[group as usize] += 1;
        // Those that are too many share what is left of the turn.
        if timed.requests.len() < TIMED_MAX {
            let now_ns = sys::monotonic_ns();
            if timed.mark_ns == 0 {
                let woke = self.woke.load(Relaxed);
                if woke > 0 {
                    let awake = sys::ticks().saturating_sub(woke);
                    let woke_ns = now_ns.saturating_sub(sys::ns_of(awake));
                    timed.began_ns = timed.began_ns.max(woke_ns);
                }
                timed.mark_ns = timed.began_ns;
            }
            let took_ns = now_ns.saturating_sub(timed.mark_ns);
            timed.requests.push((group, took_ns));
            timed.mark_ns = now_ns;
        }
        if group == Group::Other {
            return false;
        }
        timed.gap_left = timed.gap_left.saturating_sub(1);
        timed.gap_left == 0
    }

    /// While a turn is timed, so many of its requests pass before one is looked at.
    pub fn look_after(&self, requests: u32) {
        self.timed.lock().gap_left = requests;
    }

    fn finish(
        &self,
        timed: &mut Timed,
        woke_ns: u64,
        now_ns: u64,
        now_s: u32,
        requests: &Countdown,
    ) {
        let is_empty = timed.requests.is_empty();
        let gap = if is_empty {
            timed.gaps.redraw(now_s)
        } else {
            let drawn = timed.gaps.draw(now_s);
            self.wait.add(timed.began_ns.saturating_sub(woke_ns), 1);
            self.share_out(timed, now_ns, drawn.weight);
            drawn.gap
        };
        let gap_left = timed.gap_left.max(1);
        requests.set(gap_left);
        if gap == 1 {
            return self.begin(timed, now_ns, requests);
        }
        self.is_timing.store(false, Relaxed);
        turns_left::set(gap - 1);
    }

    /// Counts the requests of the timed turn, each `weight` times. What is left of the turn was spent for all of them,
    /// reading what they asked and sending what they got; or for those that were too many.
    fn share_out(&self, timed: &Timed, now_ns: u64, weight: u32) {
        let weight = u64::from(weight);
        let mut untimed = timed.counts;
        for &(group, _) in &timed.requests {
            untimed[group as usize] -= 1;
        }
        let rest_ns = now_ns.saturating_sub(timed.mark_ns);
        let too_many: u32 = untimed.iter().sum();
        let sharers = if too_many > 0 {
            u64::from(too_many)
        } else {
            timed.requests.len() as u64
        };
        let each_ns = rest_ns / sharers;
        for &(group, ns) in &timed.requests {
            let more_ns = if too_many > 0 { 0 } else { each_ns };
            self.latency[group as usize].add(ns + more_ns, weight);
        }
        for (histogram, count) in self.latency.iter().zip(untimed) {
            if count > 0 {
                histogram.add(each_ns, u64::from(count) * weight);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::slow;
    use crate::keyspace::testing::Rng;

    /// Turns of so many gets, and one other request, each.
    fn serve(turns: &Turns, requests: &Countdown, gets: impl IntoIterator<Item = u32>) {
        for gets in gets {
            turns.woke(false);
            for _ in 0..gets {
                if requests.is_due() {
                    requests.set(1);
                    if !turns.is_timing() || turns.time(Group::Get) {
                        match turns.is_timing() {
                            true => turns.look_after(50),
                            false => requests.set(50),
                        }
                    }
                }
            }
            if turns.is_timing() {
                turns.time(Group::Other);
            }
            if Turns::is_to_close() {
                turns.close(5, requests);
            }
        }
    }

    fn count(turns: &Turns, group: Group) -> u64 {
        Histogram::sum([&turns.latency[group as usize]]).count()
    }

    /// What a turn reads and sends is shared out, and of few turns no request is lost or counted twice.
    #[test]
    fn few_turns_are_timed_exactly() {
        let (turns, requests) = (Turns::new(1), Countdown::default());
        // The first turn of all is not timed. Now and then there are more requests than are timed one by one.
        let gets = |turn: u32| {
            if turn.is_multiple_of(10) {
                700
            } else {
                turn % 7
            }
        };
        serve(
            &turns,
            &requests,
            (0..=u32::min(100, TURNS_STOCK)).map(gets),
        );
        let all: u32 = (1..=100).map(gets).sum();
        assert_eq!(count(&turns, Group::Get), u64::from(all));
        assert_eq!(count(&turns, Group::Other), 100);
        assert_eq!(count(&turns, Group::Set), 0);
        assert_eq!(Histogram::sum([&turns.wait]).count(), 100);
    }

    #[test]
    fn of_many_turns_one_in_128_stands_for_all() {
        let (turns, requests) = (Turns::new(2), Countdown::default());
        let mut rng = Rng::new(3);
        let gets: Vec<u32> = (0..200_000).map(|_| rng.below(9) as u32).collect();
        let all: u32 = gets.iter().sum();
        serve(&turns, &requests, gets);
        let off = count(&turns, Group::Get) as f64 / f64::from(all);
        assert!((0.93..1.07).contains(&off), "{off}");
        let off = count(&turns, Group::Other) as f64 / 200_000.0;
        assert!((0.93..1.07).contains(&off), "{off}");
        let timed = Histogram::sum([&turns.wait]).count();
        assert!((1500..1850).contains(&timed), "{timed}");
    }

    /// Turns without a whole request do not make others count for more.
    #[test]
    fn turns_without_requests_stand_for_nothing() {
        let (turns, requests) = (Turns::new(4), Countdown::default());
        for n in 0..300_000 {
            turns.woke(false);
            if n % 3 == 0 && turns.is_timing() {
                turns.time(Group::Other);
            }
            if Turns::is_to_close() {
                turns.close(5, &requests);
            }
        }
        let off = count(&turns, Group::Other) as f64 / 100_000.0;
        assert!((0.9..1.1).contains(&off), "{off}");
    }

    /// Spends more time than is slow.
    fn dawdle() {
        let began_ns = sys::monotonic_ns();
        while sys::monotonic_ns() - began_ns < SLOW_NS + SLOW_NS / 10 {
            std::hint::spin_loop();
        }
    }

    fn close(turns: &Turns, requests: &Countdown) -> Option<SlowTurn> {
        Turns::is_to_close().then(|| turns.close(5, requests))?
    }

    #[test]
    fn a_turn_with_a_slow_stage_is_told_of() {
        let (turns, requests) = (Turns::new(5), Countdown::default());
        serve(&turns, &requests, vec![1; 1000]);
        for _ in 0..3 {
            turns.woke(false);
            slow::timed(slow::Stage::Lock, dawdle);
            let slow = close(&turns, &requests).expect("it was slow");
            assert!(slow.ended_ns - slow.woke_ns > SLOW_NS);
            let (stage, ns) = slow::longest(slow.woke_ns, slow.ended_ns);
            assert!(stage == slow::Stage::Lock && ns > SLOW_NS);
            // And no other for it.
            turns.woke(false);
            assert_eq!(close(&turns, &requests), None);
        }
        // The next one to be timed comes when it would have.
        serve(&turns, &requests, vec![1; 200_000]);
        let off = count(&turns, Group::Other) as f64 / 201_000.0;
        assert!((0.9..1.1).contains(&off), "{off}");
    }

    #[test]
    fn who_waited_for_others_is_told_of() {
        let (turns, requests) = (Turns::new(6), Countdown::default());
        serve(&turns, &requests, vec![1; 1000]);
        turns.woke(true);
        turns.begins();
        dawdle();
        let _ = close(&turns, &requests);
        for _ in 0..2 {
            turns.begins();
            let slow = close(&turns, &requests).expect("it waited");
            assert!(slow.began_ns - slow.woke_ns > SLOW_NS);
            assert!(slow.ended_ns >= slow.began_ns);
        }
        turns.woke(true);
        turns.begins();
        assert_eq!(close(&turns, &requests), None);
    }
}
