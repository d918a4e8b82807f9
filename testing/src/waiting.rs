//! Waiting for a state, never for a time.

use std::thread;
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Polls `done` until it is true; fails when that takes longer than [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, done: impl FnMut() -> bool) {
    wait_within(what, PATIENCE, done);
}

/// Polls `done` until it is true; fails when that takes longer than `patience`.
#[track_caller]
pub fn wait_within(what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < until, "not within {patience:?}: {what}");
        thread::sleep(PAUSE);
    }
}
