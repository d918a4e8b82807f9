//! Time in whole seconds, read as one atomic and passed in wherever it is needed.
//!
//! The server has one [`Clock`]; one thread ticks it. Everything else reads [`Clock::now`] once per wakeup and hands the
//! answer down, so that tests (and the `debugtime` command) can move time without waiting.
//!
//! C1. `now` is at least 2, so that in a stored expiry 0 can mean "never" and 1 "already over".
//! C2. `now` follows the monotonic clock: a change of the wall clock does not expire items.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

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

/// A client's exptime above this is an absolute unix time: thirty days, in seconds (protocol.txt, "Expiration times").
pub const RELATIVE_EXPTIME_MAX_S: i64 = 60 * 60 * 24 * 30;

/// The coarse clock.
#[derive(Debug)]
pub struct Clock {
    now: AtomicU32,
    started: Instant,
    /// Unix time of `RelTime(0)`.
    epoch_unix: i64,
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
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs() as i64);
        Clock {
            now: AtomicU32::new(2),
            started: Instant::now(),
            epoch_unix: unix - 2,
            shift_s: AtomicI64::new(0),
            paused: AtomicBool::new(false),
        }
    }

    /// The second the last tick saw.
    #[inline]
    pub fn now(&self) -> RelTime {
        RelTime(self.now.load(Relaxed))
    }

    /// Reads the monotonic clock; called a few times a second by one thread.
    pub fn tick(&self) {
        if !self.paused.load(Relaxed) {
            let now = self.started.elapsed().as_secs() as i64 + 2 + self.shift_s.load(Relaxed);
            self.now
                .store(now.clamp(2, u32::MAX as i64) as u32, Relaxed);
        }
    }

    /// Moves the clock by `seconds` (for `debugtime` and tests).
    pub fn shift(&self, seconds: i64) {
        self.shift_s.fetch_add(seconds, Relaxed);
        if self.paused.load(Relaxed) {
            let now = i64::from(self.now.load(Relaxed)) + seconds;
            self.now
                .store(now.clamp(2, u32::MAX as i64) as u32, Relaxed);
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
        self.now().0 - 2
    }

    /// `time` as seconds since 1970.
    pub fn unix(&self, time: RelTime) -> i64 {
        self.epoch_unix + i64::from(time.0)
    }

    /// What a client's exptime means at `now`: 0 never, below 0 at once, above thirty days an absolute unix time, else
    /// seconds from now.
    pub fn expires_at(&self, exptime: i32, now: RelTime) -> RelTime {
        let exptime = i64::from(exptime);
        if exptime == 0 {
            RelTime::NEVER
        } else if exptime < 0 {
            RelTime::AT_ONCE
        } else if exptime > RELATIVE_EXPTIME_MAX_S {
            let relative = exptime - self.epoch_unix;
            if relative <= 1 {
                RelTime::AT_ONCE
            } else {
                RelTime(relative as u32)
            }
        } else {
            RelTime((exptime + i64::from(now.0)) as u32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exptimes_resolve_as_the_protocol_says() {
        let clock = Clock::new();
        let now = RelTime(100);
        assert_eq!(clock.expires_at(0, now), RelTime::NEVER);
        assert_eq!(clock.expires_at(-1, now), RelTime::AT_ONCE);
        assert_eq!(clock.expires_at(10, now), RelTime(110));
        assert_eq!(clock.expires_at(2_592_000, now), RelTime(2_592_100));
        assert_eq!(clock.expires_at(2_592_001, now), RelTime::AT_ONCE);
        let unix = clock.unix(RelTime(500)) as i32;
        assert_eq!(clock.expires_at(unix, now), RelTime(500));
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
    }
}
