//! What a relay tells of itself: a line now and then, and figures for a collector.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::state::State;
use crate::units;

/// What was counted since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Events that were read.
    pub read: AtomicU64,
    /// Of those, which ask nothing of the target: evictions, what another relay has done, ..
    pub passed: AtomicU64,
    /// Events whose key waited already.
    pub coalesced: AtomicU64,
    pub deleted: AtomicU64,
    pub stored: AtomicU64,
    /// Attempts that failed, each of which was, or will be, tried again.
    pub failed: AtomicU64,
    /// Keys that no node can have.
    pub refused: AtomicU64,
    pub spooled: AtomicU64,
    pub overflows: AtomicU64,
    pub gaps: AtomicU64,
    pub flushes: AtomicU64,
    pub purges: AtomicU64,
    pub purged: AtomicU64,
    pub reconnects: AtomicU64,
    /// The cursor could not be written.
    pub cursor_failures: AtomicU64,
    /// The longest between reading an event and its end in the target, since it was told last, in microseconds.
    pub slowest_us: AtomicU64,
}

/// The figures at one moment.
#[derive(Debug)]
pub struct Figures {
    lag: Duration,
    waiting: usize,
    spool_records: u64,
    spool_bytes: u64,
    sources: usize,
    purge_owed: bool,
}

impl Figures {
    pub fn of(state: &State, now: Instant) -> Self {
        Figures {
            lag: state.lag(now),
            waiting: state.queue.len(),
            spool_records: state.spool.as_ref().map_or(0, |spool| spool.len()),
            spool_bytes: state.spool.as_ref().map_or(0, |spool| spool.bytes()),
            sources: state
                .sources
                .iter()
                .filter(|source| !source.is_gone)
                .count(),
            purge_owed: state.purge.is_owed(),
        }
    }
}

/// A line for people. `before` is how much was applied when the last one was written, `since` ago.
pub fn line(counts: &Counts, figures: &Figures, before: u64, since: Duration) -> String {
    let number = |counter: &AtomicU64| units::grouped(counter.load(Relaxed));
    let applied = applied(counts);
    let rate = (applied - before) as f64 / since.as_secs_f64().max(1e-3);
    let slowest = Duration::from_micros(counts.slowest_us.swap(0, Relaxed));
    let mut line = format!(
        "lag {:.0} ms (slowest {:.0} ms)  applied {} ({}/s)  coalesced {}  waiting {}  spooled {}  gaps {}  failed {}",
        figures.lag.as_secs_f64() * 1000.0,
        slowest.as_secs_f64() * 1000.0,
        units::grouped(applied),
        units::count(rate),
        number(&counts.coalesced),
        units::grouped(figures.waiting as u64),
        units::grouped(figures.spool_records),
        number(&counts.gaps),
        number(&counts.failed),
    );
    if figures.purge_owed {
        line.push_str("  PURGE OWED");
    }
    line
}

/// What was done in the target.
pub fn applied(counts: &Counts) -> u64 {
    counts.deleted.load(Relaxed) + counts.stored.load(Relaxed)
}

/// The figures in Prometheus' text format, into a file that is replaced as a whole: for the textfile collector of its node exporter.
pub fn save_metrics(path: &Path, counts: &Counts, figures: &Figures) -> io::Result<()> {
    let mut text = String::new();
    let mut put = |name: &str, kind: &str, help: &str, value: String| {
        text.push_str(&format!(
            "# HELP ketch_relay_{name} {help}\n# TYPE ketch_relay_{name} {kind}\nketch_relay_{name} {value}\n"
        ));
    };
    for (name, help, counter) in [
        ("events_total", "Events that were read.", &counts.read),
        (
            "events_passed_total",
            "Events that ask nothing of the target.",
            &counts.passed,
        ),
        (
            "events_coalesced_total",
            "Events whose key waited already.",
            &counts.coalesced,
        ),
        (
            "deleted_total",
            "Keys deleted in the target.",
            &counts.deleted,
        ),
        (
            "stored_total",
            "Values stored in the target.",
            &counts.stored,
        ),
        (
            "failed_total",
            "Attempts that failed and are repeated.",
            &counts.failed,
        ),
        (
            "refused_total",
            "Keys that the target cannot have.",
            &counts.refused,
        ),
        (
            "spooled_total",
            "Events that went to disk.",
            &counts.spooled,
        ),
        (
            "spool_overflows_total",
            "Times that the spool was given up.",
            &counts.overflows,
        ),
        (
            "gaps_total",
            "Times that something was missed.",
            &counts.gaps,
        ),
        ("flushes_total", "Flushes of sources.", &counts.flushes),
        (
            "purges_total",
            "Purges that were carried out.",
            &counts.purges,
        ),
        ("purged_total", "Keys that purges deleted.", &counts.purged),
        (
            "reconnects_total",
            "Connections to sources that were lost.",
            &counts.reconnects,
        ),
        (
            "cursor_failures_total",
            "Times that the cursor could not be written.",
            &counts.cursor_failures,
        ),
    ] {
        put(name, "counter", help, counter.load(Relaxed).to_string());
    }
    for (name, help, value) in [
        (
            "lag_seconds",
            "Age of the oldest event not carried over.",
            format!("{:.3}", figures.lag.as_secs_f64()),
        ),
        ("waiting", "Keys in memory.", figures.waiting.to_string()),
        (
            "spool_records",
            "Events on disk.",
            figures.spool_records.to_string(),
        ),
        (
            "spool_bytes",
            "Bytes on disk.",
            figures.spool_bytes.to_string(),
        ),
        (
            "sources",
            "Nodes that are followed.",
            figures.sources.to_string(),
        ),
        (
            "purge_owed",
            "1 while something that was missed is not yet deleted.",
            u8::from(figures.purge_owed).to_string(),
        ),
    ] {
        put(name, "gauge", help, value);
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}
