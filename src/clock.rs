//! Time in whole seconds, read as one atomic and passed in wherever it is needed.
//!
//! The server has one [`Clock`]; one thread ticks it. Everything else reads [`Clock::now`] once per wakeup and hands the
//! answer down, so that tests (and the `debugtime` command) can move time without waiting.
//!
//! C1. `now` is at least 2 ([`START_S`]), so that in a stored expiry 0 can mean "never" and 1 "already over".
//! C2. `now` follows the monotonic clock: a change of the wall clock does not expire items. What unix time it is, is read
//!     from the wall clock at each tick, so that a date that comes later means what it says.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What `now` begins with, in seconds (C1).
const START_S: i64 = 2;

/// Seconds since two seconds before the server started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct RelTime(pub u32);

impl RelTime {
    /// As an expiry: never.
    pub const NEVER: RelTime = RelTime(0);
    /// As an expiry: already over.
    pub const AT_ONCE: RelTime = RelTime(1);

    /// Seconds from `earlier` to here, 0 if `earlier` is later.
    pub fn since(self, earlier: RelTime) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The coarse clock.
#[derive(Debug)]
pub struct Clock {
    now: AtomicU32,
    started: Instant,
    /// The wall clock's time when it started, since 1970.
    started_unix: Duration,
    /// Unix time of `RelTime(0)`, by the wall clock of the last tick.
    epoch_unix: AtomicI64,
    /// What `debugtime` has added, in seconds.
    shift_s: AtomicI64,
    paused: AtomicBool,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that starts now.
    pub fn new() -> Self {
        let started_unix = wall_clock();
        Clock {
            now: AtomicU32::new(START_S as u32),
            started: Instant::now(),
            started_unix,
            epoch_unix: AtomicI64::new(started_unix.as_secs() as i64 - START_S),
            shift_s: AtomicI64::new(0),
            paused: AtomicBool::new(false),
        }
    }

    /// The second the last tick saw.
    #[inline]
    pub fn now(&self) -> RelTime {
        RelTime(self.now.load(Relaxed))
    }

    /// The same in milliseconds, read anew: for what happens within a second.
    pub fn now_ms(&self) -> u64 {
        if self.paused.load(Relaxed) {
            return u64::from(self.now().0) * 1000;
        }
        let whole_s = START_S + self.shift_s.load(Relaxed);
        let now = self.started.elapsed().as_millis() as i64 + whole_s * 1000;
        now.max(0) as u64
    }

    /// Reads the clocks; called a few times a second by one thread.
    pub fn tick(&self) {
        let elapsed = self.started.elapsed();
        self.follow(elapsed, wall_clock());
        if !self.paused.load(Relaxed) {
            self.set(elapsed.as_secs() as i64 + START_S + self.shift_s.load(Relaxed));
        }
    }

    fn set(&self, now: i64) {
        let now = now.clamp(START_S, u32::MAX.into());
        self.now.store(now as u32, Relaxed);
    }

    /// Notes by how much the wall clock was set since the start. In whole seconds, to the nearest: two clocks that keep
    /// pace stay together though they are not read at the same moment.
    fn follow(&self, elapsed: Duration, unix: Duration) {
        const SECOND_MS: i64 = 1000;
        let set_ms = unix.as_millis() as i64 - (self.started_unix + elapsed).as_millis() as i64;
        let set_s = (set_ms + SECOND_MS / 2).div_euclid(SECOND_MS);
        let epoch_unix = self.started_unix.as_secs() as i64 - START_S + set_s;
        self.epoch_unix.store(epoch_unix, Relaxed);
    }

    /// Moves the clock by `seconds` (for `debugtime` and tests).
    pub fn shift(&self, seconds: i64) {
        self.shift_s.fetch_add(seconds, Relaxed);
        if self.paused.load(Relaxed) {
            self.set(i64::from(self.now.load(Relaxed)) + seconds);
        } else {
            self.tick();
        }
    }

    /// Stops or restarts the clock (for `debugtime`).
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Relaxed);
    }

    /// Seconds the server has been up.
    pub fn uptime_s(&self) -> u32 {
        self.now().0 - START_S as u32
    }

    /// `time` as seconds since 1970.
    pub fn unix(&self, time: RelTime) -> i64 {
        self.epoch_unix.load(Relaxed) + i64::from(time.0)
    }

    /// As an expiry: this unix time. One that is over, or nearly as old as the server, is [`RelTime::AT_ONCE`].
    pub fn expiry_at(&self, unix_s: u32) -> RelTime {
        match i64::from(unix_s) - self.epoch_unix.load(Relaxed) {
            ..START_S => RelTime::AT_ONCE,
            time => RelTime(u32::try_from(time).unwrap_or(u32::MAX)),
        }
    }
}

/// The wall clock's time since 1970.
fn wall_clock() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_times_become_times_of_the_server() {
        let clock = Clock::new();
        for time in [START_S as u32, 500, 2_000_000_000] {
            let unix_s = clock.unix(RelTime(time)) as u32;
            assert_eq!(clock.expiry_at(unix_s), RelTime(time));
        }
        assert_eq!(clock.expiry_at(0), RelTime::AT_ONCE);
        let unix_s = clock.unix(RelTime(1)) as u32;
        assert_eq!(clock.expiry_at(unix_s), RelTime::AT_ONCE);
    }

    #[test]
    fn the_wall_clock_may_be_set_while_the_server_runs() {
        let clock = Clock::new();
        let (elapsed, unix) = (Duration::from_secs(100), clock.started_unix);
        let set_by = |set_s: i64, late_ms: i64| {
            let unix_ms = unix.as_millis() as i64 + (100 + set_s) * 1000 + late_ms;
            clock.follow(elapsed, Duration::from_millis(unix_ms as u64));
            clock.unix(RelTime(102))
        };
        let unix_s = unix.as_secs() as i64 + 100;
        for set_s in [0, 3600, -3600, 1, -1] {
            for late_ms in [0, 20, -20] {
                assert_eq!(set_by(set_s, late_ms), unix_s + set_s);
            }
        }
        set_by(3600, 0);
        assert_eq!(clock.expiry_at((unix_s + 3600 + 50) as u32), RelTime(152));
        assert_eq!(clock.now(), RelTime(2), "what was stored stays");
    }

    #[test]
    fn shifting_moves_now() {
        let clock = Clock::new();
        let before = clock.now();
        clock.shift(60);
        assert!(clock.now().since(before) >= 60);
        clock.pause(true);
        let paused = clock.now();
        clock.shift(5);
        assert_eq!(clock.now().since(paused), 5);
        assert_eq!(clock.now_ms(), u64::from(clock.now().0) * 1000);
    }
}
