//! The machine's clock is set, by hours and at once, while the server runs (libfaketime stands between it and the clock).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ketch_testing::{Conn, PATIENCE, Server, is_ketch, wait_within};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// A clock for servers, which is set by hours.
pub struct FakeClock(PathBuf);

impl FakeClock {
    #[track_caller]
    pub fn new(name: &str) -> Self {
        assert!(
            Path::new(LIBRARY).exists(),
            "scripts/test installs libfaketime"
        );
        let name = format!("ketch-test-{}-{name}", std::process::id());
        let clock = FakeClock(std::env::temp_dir().join(name));
        clock.set(0);
        clock
    }

    /// Sets it so many hours from the machine's.
    pub fn set(&self, hours: i64) {
        fs::write(&self.0, format!("{hours:+}h\n")).expect("a file for the time");
    }

    /// The environment of a server that goes by it.
    pub fn environment(&self) -> [(&str, &str); 5] {
        [
            ("LD_PRELOAD", LIBRARY),
            ("FAKETIME_TIMESTAMP_FILE", self.0.to_str().expect("UTF-8")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ]
    }
}

impl Drop for FakeClock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn unix_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs() as i64
}

/// Seconds that a key has left.
fn left_s(conn: &mut Conn, key: &str) -> Option<i64> {
    let line = conn.ask(format!("mg {key} t\r\n"));
    line.strip_prefix("HD t")
        .map(|left| left.parse().expect("a number"))
}

#[track_caller]
fn has_about(conn: &mut Conn, key: &str, wanted_s: i64) {
    let left = left_s(conn, key);
    let slack = PATIENCE.as_secs() as i64;
    assert!(
        left.is_some_and(|left| (wanted_s - slack..=wanted_s + 1).contains(&left)),
        "{key} has {left:?} seconds, not about {wanted_s}"
    );
}

#[test]
fn a_clock_that_is_set_expires_nothing_and_later_dates_mean_what_they_say() {
    if !is_ketch() {
        // memcached takes the time of its start for granted: dates are off by the step from then on.
        return;
    }
    let clock = FakeClock::new("clock");
    let server = Server::start_in(&clock.environment(), &["-t", "1"]);
    let mut conn = server.connect();
    let mut store = |key: &str, exptime: i64| {
        conn.round(format!("set {key} 0 {exptime} 1\r\n1\r\n"), "STORED\r\n")
    };
    store("seconds", 1000);
    store("never", 0);
    store("date", unix_s() + 5000);
    for (round, hours) in [3, -5, 0].into_iter().enumerate() {
        clock.set(hours);
        let set_to = unix_s() + hours * 3600;
        // The clock is read twenty times a second.
        wait_within(
            "the server knows the new time",
            Duration::from_secs(10),
            || (conn.stat("time") as i64 - set_to).abs() < 60,
        );
        has_about(&mut conn, "seconds", 1000);
        has_about(&mut conn, "date", 5000);
        assert_eq!(left_s(&mut conn, "never"), Some(-1));
        let key = format!("later{round}");
        conn.round(
            format!("set {key} 0 {} 1\r\n1\r\n", set_to + 300),
            "STORED\r\n",
        );
        has_about(&mut conn, &key, 300);
        // A date that is over by the clock as it stands now.
        conn.round(
            format!("set over 0 {} 1\r\n1\r\n", set_to - 10),
            "STORED\r\n",
        );
        assert_eq!(left_s(&mut conn, "over"), None);
        assert!(
            conn.stat("uptime") < 600,
            "a clock that is set is no time that has passed"
        );
    }
}
