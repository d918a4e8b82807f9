//! Time in whole seconds, read as one atomic and passed in wherever it is needed.
//!
//! The server has one [`Clock`]; one thread ticks it. Everything else reads [`Clock::now`] once per wakeup and hands the
//! answer down, so that tests (and the `debugtime` command) can move time without waiting.
//!
//! A server that goes on with the items of another, from a memory file, goes on with its clock as well: the times that the
//! items have stay what they are.
//!
//! C1. `now` is at least 2 (`START_S`), so that in a stored expiry 0 can mean "never" and 1 "already over".
//! C2. `now` follows the monotonic clock: a change of the wall clock does not expire items. What unix time it is, is read
//!     from the wall clock at each tick, so that a date that comes later means what it says.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sys;

/// What `now` begins with, in seconds (C1).
const START_S: i64 = 2;
/// Seconds before the start that a clock with a past can tell of: some eight years.
const PAST_S: i64 = 1 << 28;

/// Seconds since two seconds before the server started, or the first of those whose items it goes on with.
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
    /// What `now` began with, in milliseconds.
    base_ms: u64,
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
        Self::resume(START_S as u64 * 1000)
    }

    /// A clock that starts now and has times for what happened before: for items that another server has written down.
    pub fn with_past() -> Self {
        Self::resume((START_S + PAST_S) as u64 * 1000)
    }

    /// A clock on which it is now `now_ms`.
    pub fn resume(now_ms: u64) -> Self {
        let base_ms = now_ms.max(START_S as u64 * 1000);
        let started_unix = wall_clock();
        let epoch_ms = started_unix.as_millis() as i64 - base_ms as i64;
        Clock {
            now: AtomicU32::new(u32::try_from(base_ms / 1000).unwrap_or(u32::MAX)),
            started: Instant::now(),
            base_ms,
            started_unix,
            epoch_unix: AtomicI64::new(epoch_ms.div_euclid(1000)),
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
        let shift_ms = self.shift_s.load(Relaxed) * 1000;
        let now = self.started.elapsed().as_millis() as i64 + self.base_ms as i64 + shift_ms;
        now.max(0) as u64
    }

    /// Reads the clocks; called a few times a second by one thread.
    pub fn tick(&self) {
        let elapsed = self.started.elapsed();
        self.follow(elapsed, wall_clock());
        if !self.paused.load(Relaxed) {
            let now_s = (self.base_ms + elapsed.as_millis() as u64) / 1000;
            self.set(now_s as i64 + self.shift_s.load(Relaxed));
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
        let epoch_ms = self.started_unix.as_millis() as i64 - self.base_ms as i64;
        let epoch_unix = epoch_ms.div_euclid(SECOND_MS) + set_s;
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
        self.now().0.saturating_sub((self.base_ms / 1000) as u32)
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

/// What the clocks say at one moment, the server's own and the machine's: enough to tell in another process how long ago
/// that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds on the server's clock.
    pub now_ms: u64,
    /// Milliseconds since 1970, by a clock that may be set.
    pub unix_ms: u64,
    /// Milliseconds since the machine was started.
    pub boot_ms: u64,
    /// Which start of the machine that is; 0 if nobody knows.
    pub boot_id: u64,
}

impl Moment {
    /// Now, on a server's clock that says `now_ms`.
    pub fn read(now_ms: u64, boot_id: u64) -> Self {
        Moment {
            now_ms,
            unix_ms: wall_clock().as_millis() as u64,
            boot_ms: sys::boot_ms(),
            boot_id,
        }
    }

    /// Milliseconds from `before` to here. A machine that was not started again knows it exactly, whoever has set the wall
    /// clock; else that clock tells, and if it was set back, no time has passed.
    pub fn since_ms(&self, before: &Moment) -> u64 {
        if self.boot_id != 0 && self.boot_id == before.boot_id && self.boot_ms >= before.boot_ms {
            return self.boot_ms - before.boot_ms;
        }
        self.unix_ms.saturating_sub(before.unix_ms)
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
    fn a_clock_goes_on_where_another_was() {
        let clock = Clock::resume(5_000_900);
        assert_eq!(clock.now(), RelTime(5000));
        assert_eq!(clock.uptime_s(), 0);
        let first = Clock::new();
        let apart = first.unix(RelTime(2)) - clock.unix(RelTime(5000));
        assert!((0..=1).contains(&apart), "{apart}");
        clock.tick();
        assert!(clock.now_ms() >= 5_000_900);
        let unix_s = clock.unix(RelTime(6000)) as u32;
        assert_eq!(clock.expiry_at(unix_s), RelTime(6000));
        assert_eq!(Clock::resume(0).now(), RelTime(2), "C1");
    }

    #[test]
    fn time_while_nobody_ran_is_told_by_the_clock_that_nobody_sets() {
        let before = Moment {
            now_ms: 7000,
            unix_ms: 1_000_000,
            boot_ms: 50_000,
            boot_id: 9,
        };
        let at = |unix_ms, boot_ms, boot_id| Moment {
            now_ms: 0,
            unix_ms,
            boot_ms,
            boot_id,
        };
        assert_eq!(at(1_005_000, 55_000, 9).since_ms(&before), 5000);
        assert_eq!(
            at(99_005_000, 55_000, 9).since_ms(&before),
            5000,
            "set ahead"
        );
        assert_eq!(at(5000, 55_000, 9).since_ms(&before), 5000, "set back");
        assert_eq!(
            at(1_060_000, 1000, 10).since_ms(&before),
            60_000,
            "another start"
        );
        assert_eq!(
            at(5000, 1000, 10).since_ms(&before),
            0,
            "another start, set back"
        );
        assert_eq!(at(1_005_000, 55_000, 0).since_ms(&before), 5000);
    }

    #[test]
    fn a_clock_with_a_past_tells_what_was_before_its_start() {
        let clock = Clock::with_past();
        assert_eq!(clock.uptime_s(), 0);
        let unix_s = clock.unix(clock.now());
        assert!((wall_clock().as_secs() as i64 - unix_s).abs() <= 1);
        let year_ago = RelTime(clock.now().0 - 365 * 24 * 3600);
        assert_eq!(clock.unix(year_ago), unix_s - 365 * 24 * 3600);
        clock.tick();
        assert!(clock.uptime_s() <= 1);
        assert!(clock.expiry_at(unix_s as u32 - 10) <= clock.now(), "over");
        assert_eq!(clock.expiry_at(unix_s as u32 + 10).since(clock.now()), 10);
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
