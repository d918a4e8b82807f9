//! Writing to the store behind the cache together with the cache: through it, or behind its back.
//!
//! ```text
//!  write-through:   set --> Writer::write --> cache           done when both have it; the store comes first
//!  write-behind:    set --> queue, cache  --> done
//!                             '--(delay; newest change of each key; batches; retries)--> Writer::write
//! ```
//!
//! [`WriteThrough`] is for what must not be lost. [`WriteBehind`] is for what is written often and may be lost with the
//! process: counters, positions, "last seen". Reading through is [`get_or_load`](crate::Client::get_or_load).
//!
//! ```no_run
//! use std::io::Error;
//! use ketch_client::write::{Change, WriteBehind, WriteBehindOptions, Writer};
//! use ketch_client::{Client, ClientOptions, Node};
//!
//! struct Table;
//!
//! impl Writer for Table {
//!     type Error = Error;
//!     fn write(&self, changes: &[Change]) -> Result<(), Error> {
//!         for Change { key, item } in changes {
//!             // INSERT .. ON CONFLICT UPDATE, or DELETE where `item` is None; best in one transaction.
//!             println!("{key:?} is now {item:?}");
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let client = Client::new(Node::list("cache1,cache2")?, ClientOptions::default());
//! let seen = WriteBehind::new(client, Table, WriteBehindOptions::default());
//! seen.set("last-seen:7", "2026-11-30T12:00:00Z", None)?;
//! seen.flush();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! W1. Changes of a key reach the store in the order in which this process made them, and never two at a time.
//! W2. A change is either written, or superseded by a newer one of its key, or counted as lost.
//! W3. A key that waits to be written is read as it will be: [`WriteBehind::get`] and
//!     [`WriteBehind::get_or_load`] look into the queue before they look into the store.
//!
//! Several processes that write the same keys have no order between them, in the store or in the cache.

mod behind;
pub(crate) mod key_locks;
pub(crate) mod queue;
mod threads;
mod through;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

#[cfg(feature = "tokio")]
pub use behind::AsyncWriteBehind;
pub use behind::WriteBehind;
use client_core::value::Item;
#[cfg(feature = "tokio")]
pub use through::AsyncWriteThrough;
pub use through::WriteThrough;

/// What is to be written to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key, as the cache has it.
    pub key: Bytes,
    /// The new value; `None` if the key was deleted.
    pub item: Option<Item>,
}

/// The store behind the cache.
pub trait Writer: Send + Sync + 'static {
    /// Why it could not be written.
    type Error: fmt::Display;

    /// Writes `changes`, each of another key, all or none of them. What fails may be written again, alone or together with other
    /// changes; so writing a change twice must do no harm.
    fn write(&self, changes: &[Change]) -> Result<(), Self::Error>;
}

/// The store behind the cache, for tasks.
#[cfg(feature = "tokio")]
pub trait AsyncWriter: Send + Sync + 'static {
    /// Why it could not be written.
    type Error: fmt::Display + Send;

    /// As [`Writer::write`].
    fn write(
        &self,
        changes: &[Change],
    ) -> impl Future<Output = std::result::Result<(), Self::Error>> + Send;
}

/// Why a write did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError<E> {
    /// The store refused it, and the cache was not touched.
    Store(E),
    /// The store has it, or will have it; the cache may have the old value, the new one or none.
    Cache(crate::Error),
    /// The queue was full for as long as a caller may wait: nothing was done.
    Full,
    /// The queue is closed: nothing was done.
    Closed,
}

impl<E: fmt::Display> fmt::Display for WriteError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Store(error) => write!(f, "the store: {error}"),
            WriteError::Cache(error) => write!(f, "the cache: {error}"),
            WriteError::Full => f.write_str("too many changes wait to be written"),
            WriteError::Closed => f.write_str("the queue of changes is closed"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for WriteError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WriteError::Store(error) => Some(error),
            WriteError::Cache(error) => Some(error),
            WriteError::Full | WriteError::Closed => None,
        }
    }
}

/// How changes wait for the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "options are of use where they are given to something"]
pub struct WriteBehindOptions {
    queue_max: usize,
    batch_max: usize,
    delay: Duration,
    attempts: u32,
    retry_pause: Duration,
    retry_pause_max: Duration,
    pub(crate) full_timeout: Duration,
    pub(crate) close_timeout: Duration,
}

impl Default for WriteBehindOptions {
    fn default() -> Self {
        WriteBehindOptions {
            queue_max: 10_000,
            batch_max: 100,
            delay: Duration::from_millis(100),
            attempts: 10,
            retry_pause: Duration::from_millis(100),
            retry_pause_max: Duration::from_secs(10),
            full_timeout: Duration::from_secs(1),
            close_timeout: Duration::from_secs(10),
        }
    }
}

impl WriteBehindOptions {
    /// Keys that may wait; 10,000.
    pub fn queue_max(mut self, keys: usize) -> Self {
        self.queue_max = keys.max(1);
        self
    }

    /// Changes in one call of the writer, at most; 100.
    pub fn batch_max(mut self, changes: usize) -> Self {
        self.batch_max = changes.max(1);
        self
    }

    /// How long a change waits for later ones of its key, and for others to go with it; 100 ms.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// How often a batch is tried before its changes are tried once more one by one, and those that fail then are lost; 10.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The pause before a batch is tried again, doubled each time; 100 ms, 10 s at most.
    pub fn retry_pause(mut self, first: Duration, max: Duration) -> Self {
        (self.retry_pause, self.retry_pause_max) = (first, max.max(first));
        self
    }

    /// How long a caller waits for room in a full queue before [`WriteError::Full`]; 1 s.
    pub fn full_timeout(mut self, timeout: Duration) -> Self {
        self.full_timeout = timeout;
        self
    }

    /// How long the last clone, when it is dropped, waits for what is still to be written; 10 s. What is left is lost, and counted.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }
}

/// What became of the changes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteBehindStats {
    /// Changes that were made.
    pub changes: u64,
    /// Of them, those that a newer one of the same key has superseded before they were written.
    pub coalesced: u64,
    /// Changes that are in the store.
    pub written: u64,
    /// Calls of the writer that failed.
    pub failures: u64,
    /// Changes that were given up.
    pub lost: u64,
    /// Keys that wait.
    pub waiting: u64,
}
