//! What to do with an answer of the node. No I/O, no clock, no chance: they are passed in.
//!
//! ```text
//!  stored                       ttl ends          ttl + stale ends
//!    |-- use ---------------------|-- use, one refreshes --|-- missing: one loads, the others wait
//!                     |-- gap ----|
//!                     one refreshes early
//! ```
//!
//! The gap is drawn anew for each call, as XFetch does it: `delta * beta * -ln(random)`, with delta the time that loading
//! took (Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", 2015, section 3). It goes to
//! the node as `R`, so that the node compares it with the time left and lets one caller win, in one round trip. The node
//! counts whole seconds; a fraction is carried by chance, so that the mean is kept.

use std::time::{Duration, Instant};

use super::LoadOptions;
use client_core::health::unit;
use client_core::ttl::whole_seconds as seconds;

/// The most seconds that a node takes for a time from now; more are a moment since 1970.
const RELATIVE_MAX_S: f64 = 30.0 * 24.0 * 3600.0;

/// The first pause of a caller that waits for another process, and the longest.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// An answer, as far as it matters here.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// There is only the empty item that stands for a value.
    pub placeholder: bool,
    pub won: bool,
    pub won_by_other: bool,
    /// How long this process has seen that another caller loads this value.
    pub won_for: Duration,
    /// It is the mark that there is nothing, nobody has invalidated it, and it has so many seconds left, -1 without end.
    pub mark: Option<i64>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The value is good.
    Use,
    /// The value may be used, and this caller is to load it anew.
    Refresh,
    /// The value may be used, but who was to load it anew seems to be dead: free its lease, and ask again.
    TakeOver,
    /// This caller is to load, and has the lease.
    Load,
    /// This caller is to load, for its process only.
    LoadAlone,
    /// Another caller loads: ask again then.
    Wait(Instant),
    /// Another caller loads, and there is no time left.
    GiveUp,
}

/// One call's way to its value.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) lease: Duration,
    /// The values' stale time in seconds; `None` if they live without end.
    stale_s: Option<u64>,
    /// What was asked last: a value with less than this left, its stale time not counted, is to be loaded anew.
    gap_s: i64,
    beta: f64,
    deadline: Instant,
    pause: Duration,
    took_over: bool,
}

impl Rules {
    pub(crate) fn new(options: &LoadOptions, now: Instant) -> Self {
        Rules {
            lease: Duration::from_secs(seconds(options.lease).max(1)),
            stale_s: options.ttl.duration().map(|_| seconds(options.stale)),
            gap_s: 0,
            beta: options.beta,
            deadline: now + options.wait,
            pause: PAUSE,
            took_over: false,
        }
    }

    /// The seconds of `N` and `R` to ask with, when loading takes `delta`. Of chance two numbers.
    pub(crate) fn ask(&mut self, delta: Duration, chance: [u64; 2]) -> (i32, i32) {
        let lease = i32::try_from(self.lease.as_secs()).unwrap_or(i32::MAX);
        let Some(stale_s) = self.stale_s else {
            return (lease, 0);
        };
        // From 0 exclusive, so that the logarithm is finite.
        let random = 1.0 - unit(chance[0]);
        let gap = delta.as_secs_f64() * self.beta * -random.ln();
        // With `t` whole seconds left, what is left is t less some fraction. The node lets win below R.
        let gap = (gap + unit(chance[1])).floor() + 1.0;
        let recache = stale_s as f64 + gap;
        self.gap_s = gap as i64;
        (lease, recache.min(RELATIVE_MAX_S) as i32)
    }

    /// How long a value with `left` seconds, -1 without end, is not stale yet.
    pub(crate) fn fresh(&self, left: i64) -> i64 {
        match (left, self.stale_s) {
            (0.., Some(stale_s)) => left.saturating_sub_unsigned(stale_s).max(0),
            _ => left,
        }
    }

    /// What to do with an answer; `None` if the node failed, or does not have the key in spite of `N`.
    pub(crate) fn answer(&mut self, seen: Option<Seen>, now: Instant, chance: u64) -> Next {
        let Some(seen) = seen else {
            return Next::LoadAlone;
        };
        match seen {
            Seen {
                won: true,
                placeholder: true,
                ..
            } => Next::Load,
            // The node compares as for a value, which is kept for its stale time as well. A mark is not.
            Seen {
                won: true,
                mark: Some(left),
                ..
            } if !(0..self.gap_s).contains(&left) => Next::Use,
            Seen { won: true, .. } => Next::Refresh,
            Seen {
                won_by_other: true,
                placeholder: true,
                ..
            } => self.wait(now, chance),
            Seen {
                won_by_other: true,
                won_for,
                mark: None,
                ..
            } if won_for > self.lease && !self.took_over => {
                self.took_over = true;
                Next::TakeOver
            }
            _ => Next::Use,
        }
    }

    fn wait(&mut self, now: Instant, chance: u64) -> Next {
        if now >= self.deadline {
            return Next::GiveUp;
        }
        let pause = self.pause.mul_f64(0.5 + 0.5 * unit(chance));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Next::Wait((now + pause).min(self.deadline))
    }

    /// True if the lease of a load that began then is over, so that the empty item is gone without anyone having deleted it.
    pub(crate) fn is_over(&self, begun: Instant, now: Instant) -> bool {
        // The node's seconds begin up to one earlier than ours.
        now.saturating_duration_since(begun) + Duration::from_secs(1) >= self.lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const S: Duration = Duration::from_secs(1);

    fn rules(options: LoadOptions) -> (Rules, Instant) {
        let now = Instant::now();
        (Rules::new(&options, now), now)
    }

    #[test]
    fn answers() {
        let options = LoadOptions::new(10 * S).lease(2 * S);
        let value = Seen::default();
        let won = Seen { won: true, ..value };
        let other = Seen {
            won_by_other: true,
            ..value
        };
        let empty = |seen| Seen {
            placeholder: true,
            ..seen
        };
        let marked = |seen, left| Seen {
            mark: Some(left),
            ..seen
        };
        for (seen, next) in [
            (None, Next::LoadAlone),
            (Some(value), Next::Use),
            (Some(won), Next::Refresh),
            (Some(other), Next::Use),
            (
                Some(Seen {
                    won_for: 2 * S,
                    ..other
                }),
                Next::Use,
            ),
            (
                Some(Seen {
                    won_for: 3 * S,
                    ..other
                }),
                Next::TakeOver,
            ),
            (Some(empty(won)), Next::Load),
            // Nobody who asks wins a mark's last second, since the first to ask has won it before that.
            (Some(marked(won, 9)), Next::Use),
            (Some(marked(won, -1)), Next::Use),
            (Some(marked(won, 0)), Next::Refresh),
            (
                Some(Seen {
                    won_for: 3 * S,
                    ..marked(other, 0)
                }),
                Next::Use,
            ),
        ] {
            let (mut rules, now) = rules(options.clone());
            rules.ask(Duration::ZERO, [0, 0]);
            assert_eq!(rules.answer(seen, now, 0), next, "{seen:?}");
        }
    }

    #[test]
    fn waiting_is_bounded_and_ever_less_eager() {
        let (mut rules, mut now) = rules(LoadOptions::new(S).wait(2 * S));
        let begun = now;
        let waits = Some(Seen {
            placeholder: true,
            won_by_other: true,
            ..Seen::default()
        });
        let mut asked = 0;
        while let Next::Wait(at) = rules.answer(waits, now, u64::MAX) {
            assert!(at > now && at <= begun + 2 * S);
            now = at;
            asked += 1;
        }
        assert_eq!(now, begun + 2 * S);
        assert!((20..40).contains(&asked), "{asked}");
        assert_eq!(rules.answer(waits, now, 0), Next::GiveUp);
    }

    #[test]
    fn a_lease_is_taken_over_once_a_call() {
        let (mut rules, now) = rules(LoadOptions::new(S));
        let dead = Some(Seen {
            won_by_other: true,
            won_for: 60 * S,
            ..Seen::default()
        });
        assert_eq!(rules.answer(dead, now, 0), Next::TakeOver);
        assert_eq!(rules.answer(dead, now, 0), Next::Use);
    }

    #[test]
    fn what_the_node_is_asked() {
        let half = u64::MAX / 2;
        for (options, delta, sent) in [
            (LoadOptions::new(None), S, (5, 0)),
            (LoadOptions::new(10 * S), Duration::ZERO, (5, 1)),
            (
                LoadOptions::new(10 * S).stale(30 * S),
                Duration::ZERO,
                (5, 31),
            ),
            (
                LoadOptions::new(10 * S).lease(S / 2),
                Duration::ZERO,
                (1, 1),
            ),
            // -ln(1/2) is 0.69, and the second chance adds a half.
            (LoadOptions::new(10 * S), S, (5, 2)),
            (LoadOptions::new(10 * S).beta(2.0), 10 * S, (5, 15)),
            (LoadOptions::new(10 * S).beta(0.0), 10 * S, (5, 1)),
        ] {
            let (mut rules, _) = rules(options.clone());
            assert_eq!(
                rules.ask(delta, [half, half]),
                sent,
                "{options:?} {delta:?}"
            );
        }
        let (mut rules, _) = rules(LoadOptions::new(S));
        for chance in [0, u64::MAX] {
            assert!(rules.ask(Duration::MAX, [chance; 2]).1 >= 1);
        }
    }

    /// The mean of the gap is beta times delta, whatever the clock's seconds make of it.
    #[test]
    fn the_gap_keeps_its_mean() {
        let mut jitter = crate::topology::jitter::Jitter::seeded(7);
        for (delta_ms, beta) in [(50, 1.0), (300, 1.0), (2000, 1.0), (500, 3.0)] {
            let (mut rules, _) = rules(LoadOptions::new(60 * S).beta(beta));
            let delta = Duration::from_millis(delta_ms);
            let draws = 100_000;
            let sum: i64 = (0..draws)
                .map(|_| i64::from(rules.ask(delta, [jitter.next(), jitter.next()]).1) - 1)
                .sum();
            let mean = sum as f64 / f64::from(draws);
            let wanted = delta.as_secs_f64() * beta;
            assert!((mean / wanted - 1.0).abs() < 0.05, "{mean} for {wanted}");
        }
    }

    /// Callers by the thousand over one simulated node: values are refreshed by one at a time, mostly before they expire.
    #[test]
    fn a_simulated_node_sees_one_load_at_a_time() {
        let mut jitter = crate::topology::jitter::Jitter::seeded(1);
        let start = Instant::now();
        let options = LoadOptions::new(10 * S).lease(2 * S);
        let load_time = Duration::from_millis(400);
        // Key to (is a placeholder, expires at, token sent), with a clock of whole seconds.
        let mut node: HashMap<u8, (bool, u64, bool)> = HashMap::new();
        let mut loading: Option<Instant> = None;
        let (mut loads, mut waits, mut uses) = (0, 0, 0);
        let mut now = start;
        while now < start + 200 * S {
            now += Duration::from_millis(2);
            let second = now.duration_since(start).as_secs();
            if loading.is_some_and(|until| until <= now) {
                loading = None;
                node.insert(0, (false, second + 10, false));
            }
            let mut rules = Rules::new(&options, now);
            let (lease, recache) = rules.ask(load_time, [jitter.next(), jitter.next()]);
            node.retain(|_, item| item.1 > second);
            let is_new = !node.contains_key(&0);
            let item = node
                .entry(0)
                .or_insert((true, second + lease as u64, false));
            let wins = !item.2 && (is_new || ((item.1 - second) as i32) < recache);
            let seen = Seen {
                placeholder: item.0,
                won: wins,
                won_by_other: item.2,
                ..Seen::default()
            };
            item.2 |= wins;
            match rules.answer(Some(seen), now, jitter.next()) {
                Next::Load | Next::Refresh => {
                    assert!(loading.is_none(), "one at a time");
                    loading = Some(now + load_time);
                    loads += 1;
                }
                Next::Wait(_) => waits += 1,
                Next::Use => uses += 1,
                next => panic!("{next:?}"),
            }
        }
        // 10 s to live, refreshed within the last three.
        assert!((20..=30).contains(&loads), "{loads}");
        // Only the first load had nothing to use meanwhile.
        assert!(waits <= 250, "{waits}");
        assert!(uses > 99_000, "{uses}");
    }
}
