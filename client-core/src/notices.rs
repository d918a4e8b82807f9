//! What clients tell each other of nodes that they cannot reach: a notice is a small key that lives for a moment.
//!
//! ```text
//!  client A cannot reach node D, writes around it --sets ketch:out:D--> witnesses of D: the next three nodes in the order of their names
//!  client B reads from D, but asks the witnesses of all nodes ten times a second: it believes D last from then on
//! ```
//!
//! With several copies only: with one there is nobody else to believe. An ordinary item on any memcached.
//!
//! M1. A write that goes around a node is done when its notice is at the witnesses and [`HOLD`] has passed since; if its deadline
//!     comes before, it is an error. A read begins with what the witnesses say, if it was not asked for [`EVERY`]. So who reads after
//!     the write was acknowledged knows of it.
//! M2. A notice is set again as long as its client owes the node deletes and is used. It is never deleted, it expires.
//! M4. A node that does not answer takes most of a write's time before it is ejected. So the notice is set when it has failed
//!     [`FAILURES`] times in a row, and the write need not be held any more when it comes to go around the node.
//! M3. A notice changes whom a read believes first, nothing else: writes go to the node as before, and who spreads a false notice costs
//!     others no more than the reads of one copy.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often witnesses are asked.
pub const EVERY: Duration = Duration::from_millis(100);
/// How long a read waits for what they say.
pub const PATIENCE: Duration = Duration::from_millis(5);
/// How long after its notice a write around a node is acknowledged.
pub const HOLD: Duration = Duration::from_millis(150);
/// How long a notice is believed after it was seen.
pub const BELIEVED: Duration = Duration::from_millis(500);
/// How often in a row a node fails before there is one.
pub const FAILURES: u32 = 2;
/// How long it surely lives: nodes count whole seconds.
pub const LASTS: Duration = Duration::from_secs(2);
/// After how long it is set again.
pub const AGAIN: Duration = Duration::from_millis(500);
/// A notice's time to live, in seconds.
pub const TTL_S: i32 = 3;
/// On how many nodes it is.
pub const WITNESSES: usize = 3;

/// The key of the notice about a node.
pub fn key(identity: u64) -> String {
    format!("ketch:out:{identity:016x}")
}

/// When witnesses were asked last, for all operations of a client.
#[derive(Debug, Default)]
pub struct Notices {
    /// When somebody wanted to know first.
    begun: OnceLock<Instant>,
    /// In milliseconds since, and one more; 0 never.
    asked_ms: AtomicU64,
}

impl Notices {
    /// True if it is the caller's turn to ask.
    pub fn is_due(&self, now: Instant) -> bool {
        let begun = *self.begun.get_or_init(|| now);
        let now_ms = now.saturating_duration_since(begun).as_millis() as u64 + 1;
        let asked_ms = self.asked_ms.load(Ordering::Relaxed);
        let due = asked_ms == 0 || now_ms >= asked_ms + EVERY.as_millis() as u64;
        due && self
            .asked_ms
            .compare_exchange(asked_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}
