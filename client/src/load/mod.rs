//! One load for many callers: `get_or_load`.
//!
//! ```text
//!  callers of a key --> near cache --> mg key s v f t c N<lease> R<recache>        at the node that decides for the key
//!                                        |  a value                --> use it
//!                                        |  a value, W (won)       --> load anew, and meanwhile the old one is good
//!                                        |  empty, W               --> load: this process flies, its other callers wait
//!                                        |  empty, Z (another won) --> wait, ask again
//!  stored by the winner only if nobody wrote or deleted meanwhile (its CAS unique still holds)
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `rules` | what to do with an answer: a state machine without I/O, clock or chance of its own |
//! | `find` | everything before a loader is asked |
//! | `loader` | the loader, and what becomes of what it brings |
//! | `loading` | which keys a thread loads just now, so that a loader does not wait for itself |
//! | `costs` | how long loading took, and since when someone else loads: bounded tables of this process |
//! | `flights` | the callers of one process that wait for one load |
//! | `wins` | the right to load, and such that was left unused |
//!
//! S1. Of the callers of a missing key, in all processes, one loads, as long as it does so within the lease. The others
//!     wait, for [`LoadOptions::wait`] at most.
//! S2. A loader that fails, panics or dies keeps no other process from loading for longer than the lease. The callers
//!     that waited for it in its own process get an error at once: they do not try one after the other.
//! S3. What was loaded before a write or a delete is not stored after it, unless loading took longer than the lease.
//! S4. Without a node that answers, each process loads once at a time, for all its callers of the key.
//! S5. A caller that is dropped in the middle leaves its place to one that waits, and its lease to whoever asks next in its
//!     process. What its loader has brought already is stored, and shared, all the same.
//! S6. A value that no node takes (it is too large) is given to those that wait, and the lease is given back.
//!
//! The stored value is plain: any client reads it. How long loading took is not kept with it, since the upper bits of the
//! client flags mean something to other clients (spymemcached, php-memcached) and an envelope would hide the value from
//! them; each process learns it from its own loads, and for a key it never loaded takes the mean of the others.
//!
//! While a missing key is loaded, an empty item with client flags 0 stands for it, for the lease. Classic `get` of other
//! clients sees that empty value; meta `mg` shows `W` or `Z` with it, and this client's reads take it for a miss. A loaded
//! value that is empty and has flags 0 works, but is loaded without a stale value to fall back on.

mod find;
mod loader;
mod loading;
mod rules;
#[cfg(test)]
mod simulation;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::front::Front;
pub use crate::packed::NEGATIVE_FLAGS;
use client_core::error::Error;
use client_core::health::unit;
use client_core::ttl::Ttl;
pub(crate) use loader::{get_or_load, get_or_load_detached};

/// How values are loaded and kept. A time to live alone has the defaults for the rest.
#[derive(Debug, Clone)]
#[must_use = "options are of use where they are given to something"]
pub struct LoadOptions {
    pub(crate) ttl: Ttl,
    pub(crate) stale: Duration,
    pub(crate) negative: Option<Duration>,
    pub(crate) lease: Duration,
    pub(crate) wait: Duration,
    pub(crate) beta: f64,
}

impl LoadOptions {
    /// Values live for `ttl`. What lives without end is not refreshed.
    pub fn new(ttl: impl Into<Ttl>) -> Self {
        LoadOptions {
            ttl: ttl.into(),
            stale: Duration::ZERO,
            negative: None,
            lease: Duration::from_secs(5),
            wait: Duration::from_secs(10),
            beta: 1.0,
        }
    }

    /// For how long after its time to live a value may still be used, while one caller loads it anew (not at all). The
    /// node keeps it for both times together, so that plain reads see it for both.
    pub fn stale(mut self, stale: Duration) -> Self {
        self.stale = stale;
        self
    }

    /// For how long it is remembered that the loader found nothing (not at all: it is asked each time). There is no stale
    /// time after it, whatever [`stale`](Self::stale) says. Other clients see an empty value with [`NEGATIVE_FLAGS`].
    pub fn negative(mut self, ttl: Duration) -> Self {
        self.negative = Some(ttl).filter(|ttl| !ttl.is_zero());
        self
    }

    /// How long loading may take, in whole seconds (5 s). After that, another caller may load. Shorter than the loader
    /// takes, and several load at once; longer, and a caller that dies is waited for that long.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long a caller waits for the load of another before it fails with [`LoadError::Timeout`] (10 s). Longer than
    /// the lease, it outlives a loader that died.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How eagerly values are loaded anew before their time is over (1; 0 for never). The larger, and the longer loading
    /// took, the earlier: `beta * took * -ln(random)` before it, which is XFetch of Vattani, Chierichetti and Lowenstein.
    pub fn beta(mut self, beta: f64) -> Self {
        self.beta = if beta.is_finite() { beta.max(0.0) } else { 1.0 };
        self
    }

    /// With the time to live as the client's options have it.
    fn resolved(mut self, front: &impl Front) -> Self {
        let options = front.options();
        let chance = unit(front.ring().random());
        self.ttl = self
            .ttl
            .resolve(options.default_ttl, options.ttl_jitter, chance);
        self
    }

    /// What the node is told a value lives for.
    pub(crate) fn kept(&self) -> Option<Duration> {
        let ttl = self.ttl.duration()?;
        Some(ttl.saturating_add(self.stale))
    }
}

macro_rules! from_ttl {
    ($($type:ty)*) => {
        $(impl From<$type> for LoadOptions {
            fn from(ttl: $type) -> Self {
                LoadOptions::new(ttl)
            }
        })*
    };
}

from_ttl!(Ttl Duration Option<Duration> u32 u64 i32 i64);

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The loader of this call failed, and there was no old value to use.
    Loader(E),
    /// The call that loaded for this one, in the same process, failed: its words.
    Elsewhere(Arc<str>),
    /// Another caller did not finish loading in time, see [`LoadOptions::wait`].
    Timeout,
    /// The loader of this key asks for this key, so that it would wait for itself.
    OwnKey,
    /// The key or the value cannot be sent. Nodes that fail are no error here: then the loader is asked.
    Cache(Error),
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Loader(error) => error.fmt(f),
            LoadError::Elsewhere(words) => {
                write!(f, "the load that was waited for failed: {words}")
            }
            LoadError::Timeout => f.write_str("the load that was waited for takes too long"),
            LoadError::OwnKey => f.write_str("the loader asks for the key that it loads"),
            LoadError::Cache(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for LoadError<E> {}
