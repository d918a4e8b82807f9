//! Snapshots and the log as commands and reports see them: what is asked for, and what came of it.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Why a snapshot is not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotBegun {
    /// The server was started without a file for it.
    NotEnabled,
    /// One is being written.
    Running,
}

/// What is known of the snapshots so far.
#[derive(Debug, Clone, Default)]
pub struct SavingReport {
    /// One is being written.
    pub is_running: bool,
    /// How many were written.
    pub written: u64,
    /// How many failed.
    pub failed: u64,
    /// When the last one was complete, in seconds since 1970; 0 before the first.
    pub last_unix_s: u64,
    /// Its items.
    pub last_items: u64,
    /// Its bytes.
    pub last_bytes: u64,
    /// How long it took.
    pub last_time: Duration,
    /// Why the last one failed that did; empty if a later one was written.
    pub last_error: String,
}

#[derive(Debug, Default)]
struct Inner {
    report: SavingReport,
    is_asked: bool,
    /// Nobody takes snapshots any more.
    is_over: bool,
}

/// Where snapshots are asked for.
#[derive(Debug, Default)]
pub struct Saving {
    is_enabled: bool,
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Saving {
    /// With a thread that takes them, if it is enabled.
    pub fn new(is_enabled: bool) -> Self {
        Saving {
            is_enabled,
            ..Saving::default()
        }
    }

    /// True if there is a file for them.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Asks for one, which begins soon.
    pub fn ask(&self) -> Result<(), NotBegun> {
        if !self.is_enabled {
            return Err(NotBegun::NotEnabled);
        }
        let mut inner = self.inner.lock();
        if inner.is_asked || inner.report.is_running {
            return Err(NotBegun::Running);
        }
        inner.is_asked = true;
        self.changed.notify_all();
        Ok(())
    }

    /// Waits until one is asked for or `until` has come, and takes it on: false if there are to be no more.
    pub fn wait(&self, until: Option<Instant>) -> bool {
        let mut inner = self.inner.lock();
        while !inner.is_asked && !inner.is_over {
            match until {
                None => self.changed.wait(&mut inner),
                Some(until) => {
                    if self.changed.wait_until(&mut inner, until).timed_out() {
                        break;
                    }
                }
            }
        }
        inner.is_asked = false;
        inner.report.is_running = !inner.is_over;
        !inner.is_over
    }

    /// Ends the waiting.
    pub fn close(&self) {
        self.inner.lock().is_over = true;
        self.changed.notify_all();
    }

    /// True from [`Saving::close`] on.
    pub fn is_over(&self) -> bool {
        self.inner.lock().is_over
    }

    /// Notes what came of one.
    pub fn done(&self, note: impl FnOnce(&mut SavingReport)) {
        let mut inner = self.inner.lock();
        inner.report.is_running = false;
        note(&mut inner.report);
    }

    /// What is known.
    pub fn report(&self) -> SavingReport {
        self.inner.lock().report.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_asked_for_at_a_time() {
        assert_eq!(Saving::new(false).ask(), Err(NotBegun::NotEnabled));
        let saving = Saving::new(true);
        assert_eq!(saving.ask(), Ok(()));
        assert_eq!(saving.ask(), Err(NotBegun::Running));
        assert!(saving.wait(None));
        assert_eq!(saving.ask(), Err(NotBegun::Running));
        saving.done(|report| report.written += 1);
        assert_eq!(saving.ask(), Ok(()));
        saving.close();
        assert!(!saving.wait(None));
        assert_eq!(saving.report().written, 1);
    }

    #[test]
    fn who_waits_goes_on_when_its_time_has_come() {
        let saving = Saving::new(true);
        assert!(saving.wait(Some(Instant::now())));
        assert!(saving.report().is_running);
    }
}

/// What is known of the log.
#[derive(Debug, Clone, Default)]
pub struct LogReport {
    /// Events are written.
    pub is_on: bool,
    /// The number of the segment that is written to.
    pub segment: u64,
    /// Bytes of it so far.
    pub segment_bytes: u64,
    /// Bytes written since the start.
    pub bytes: u64,
    /// Writes, each with what all workers had told.
    pub commits: u64,
    /// How often it was synced.
    pub syncs: u64,
    /// How often it was stopped by an error.
    pub stops: u64,
    /// The error that it is stopped by; empty while it is on.
    pub last_error: String,
}
