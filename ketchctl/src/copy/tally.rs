//! What became of the keys.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::units;

/// The most different errors that are remembered; of further ones, only their number.
const COMPLAINTS_MAX: usize = 16;

/// Counts of a copy; each listed key is in one of those from `copied` on.
#[derive(Debug, Default)]
pub struct Tally {
    pub listed: AtomicU64,
    pub copied: AtomicU64,
    /// Bytes of the values of those copied.
    pub bytes: AtomicU64,
    /// A target had it.
    pub present: AtomicU64,
    /// Expired, evicted or deleted between listing and fetching.
    pub gone: AtomicU64,
    /// Stale, or a placeholder of a lease.
    pub unfinished: AtomicU64,
    /// Its owner among the targets is the source.
    pub stays: AtomicU64,
    pub failed: AtomicU64,
    /// Nothing can come of going on.
    pub hopeless: AtomicBool,
    complaints: Mutex<Vec<(String, u64)>>,
}

impl Tally {
    pub fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Relaxed);
    }

    /// Items that could not be copied, and why.
    pub fn fail(&self, count: usize, why: String) {
        Tally::add(&self.failed, count);
        self.complain(count, why);
    }

    /// Something went wrong, for so many items or, with 0, at all.
    pub fn complain(&self, count: usize, why: String) {
        let mut complaints = self.lock();
        let full = complaints.len() >= COMPLAINTS_MAX;
        let at = complaints.iter().position(|(text, _)| *text == why);
        match at {
            Some(at) => complaints[at].1 += count as u64,
            None if full => {
                let (text, counted) = complaints.last_mut().expect("it is full");
                "other errors".clone_into(text);
                *counted += count as u64;
            }
            None => complaints.push((why, count as u64)),
        }
    }

    /// Counts that are dealt with.
    pub fn done(&self) -> u64 {
        let all = [
            &self.copied,
            &self.present,
            &self.gone,
            &self.unfinished,
            &self.stays,
            &self.failed,
        ];
        all.map(|counter| counter.load(Relaxed)).iter().sum()
    }

    /// A line on all of it.
    pub fn summary(&self, took: Duration) -> String {
        let grouped = |counter: &AtomicU64| units::grouped(counter.load(Relaxed));
        format!(
            "copied {} items, {} in {:.1}s; {} were there already, {} gone meanwhile, {} stale or leased, {} stay where they are, {} failed",
            grouped(&self.copied),
            units::bytes(self.bytes.load(Relaxed) as f64),
            took.as_secs_f64(),
            grouped(&self.present),
            grouped(&self.gone),
            grouped(&self.unfinished),
            grouped(&self.stays),
            grouped(&self.failed),
        )
    }

    /// A line for each kind of error.
    pub fn complaints(&self) -> Vec<String> {
        let complaints = self.lock();
        let lines = complaints.iter().map(|(why, count)| match count {
            0 => why.clone(),
            1 => format!("{why} (1 item)"),
            _ => format!("{why} ({} items)", units::grouped(*count)),
        });
        lines.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(String, u64)>> {
        self.complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_kind() {
        let tally = Tally::default();
        tally.fail(2, "a: full".into());
        tally.complain(0, "b: the list broke off".into());
        tally.fail(1998, "a: full".into());
        assert_eq!(
            tally.complaints(),
            ["a: full (2,000 items)", "b: the list broke off"]
        );
        for kind in 0..1000 {
            tally.fail(1, format!("{kind}"));
        }
        let complaints = tally.complaints();
        assert_eq!(complaints.len(), COMPLAINTS_MAX);
        assert_eq!(complaints.last().unwrap(), "other errors (987 items)");
        assert_eq!((tally.done(), tally.failed.load(Relaxed)), (3000, 3000));
    }
}
