//! The kinds of operations, as state machines.
//!
//! | machine | for | rule |
//! | --- | --- | --- |
//! | [`Read`] | get, gets, get_multi | one copy after the other, or two at once when hedged; a hit repairs the copies that missed |
//! | [`Write`] | set, delete, and their batches | all copies at once; done when enough have answered |
//! | [`ViaDecider`] | what depends on the present value | the first live copy decides, the others follow by a `Write` |
//! | [`Ask`] | reads that may win the right to load ([`Lease`]), a meta command of the caller's | the node that decides for the key, until it answers |
//! | [`Together`] | incr_multi: many of those above | what goes to a node at the same time is one request |
//! | [`ForEachNode`] | stats, version, flush_all | every node once |
//!
//! An attempt that failed is repeated on the same node, after a pause, until the node is ejected or the attempts are used
//! up; on an ejected node's behalf the next node clockwise is asked (rehash) or none (fail-fast). Reads that have another
//! copy to ask do not pause.

mod ask;
mod for_each_node;
mod read;
mod together;
mod via_decider;
mod write;

pub use ask::{Ask, Lease};
pub use for_each_node::ForEachNode;
pub use read::{Hit, Read, Recache};
pub use together::Together;
pub use via_decider::{Decision, Verdict, ViaDecider};
pub use write::{Command, Entry, Replaced, Write};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::health::unit;
use super::options::{ClientOptions, Reads};
use super::reply::Refusal;
use super::routing::Ring;
use crate::error::{Error, Failure};

/// How long an operation whose result is there waits for what comes behind it, at least.
const PATIENCE: Duration = Duration::from_millis(10);
/// How long a write waits before it looks again whether its node has taken a delete that it must not overtake.
const BLOCKED_PAUSE: Duration = Duration::from_millis(1);

/// What every operation is given.
#[derive(Debug, Clone)]
pub struct Context {
    /// The nodes, as they were when it began.
    pub ring: Arc<Ring>,
    /// The policy.
    pub options: Arc<ClientOptions>,
    /// When the operation is over, done or not.
    pub deadline: Instant,
    /// Wall-clock seconds at the start, for times to live above 30 days.
    pub unix_s: u64,
    /// Set while a failure is told that counts against its node already, of several operations that are one (see [`Together`]).
    is_counted: Option<Arc<AtomicBool>>,
}

impl Context {
    /// What an operation is given that begins now, and may take [`request_timeout`](ClientOptions::request_timeout).
    pub fn new(ring: Arc<Ring>, options: Arc<ClientOptions>, now: Instant, unix_s: u64) -> Self {
        let deadline = now + options.request_timeout;
        Context {
            ring,
            options,
            deadline,
            unix_s,
            is_counted: None,
        }
    }

    /// With the first copy asked first, which is the one that decides.
    pub(crate) fn of_decider(&self) -> Self {
        let mut context = self.clone();
        if context.options.reads != Reads::First {
            let options = ClientOptions::clone(&context.options).reads(Reads::First);
            context.options = Arc::new(options);
        }
        context
    }

    fn name(&self, node: usize) -> Arc<str> {
        self.ring.members[node].name.clone()
    }

    fn node_error(&self, node: usize, failure: Failure) -> Error {
        let member = &self.ring.members[node];
        let reason = match failure {
            Failure::SignIn => member.sign_in_error(),
            _ => None,
        };
        Error::Node {
            node: member.name.clone(),
            failure,
            reason,
        }
    }

    fn refused(&self, node: usize, refusal: Refusal) -> Error {
        let node = self.name(node);
        match refusal {
            Refusal::TooLarge => Error::TooLarge { node },
            Refusal::Full => Error::Full { node },
            Refusal::NotANumber => Error::NotANumber,
            Refusal::Server(line) | Refusal::Client(line) => {
                let line = String::from_utf8_lossy(&line).into();
                Error::Refused { node, line }
            }
        }
    }

    /// Until when an attempt that begins now may take.
    fn attempt_deadline(&self, now: Instant) -> Instant {
        (now + self.options.attempt_timeout).min(self.deadline)
    }

    /// How long the operation is under way.
    fn took(&self, now: Instant) -> Duration {
        let left = self.deadline.saturating_duration_since(now);
        self.options.request_timeout.saturating_sub(left)
    }

    /// Until when it waits for what comes behind its result, which is there now: for this many times as long as it took.
    fn patience(&self, now: Instant, times: u32) -> Instant {
        (now + PATIENCE.max(self.took(now) * times)).min(self.deadline)
    }

    fn worked(&self, node: usize) {
        self.ring.worked(node, &self.options);
    }

    fn failed(&self, node: usize, failure: Failure, now: Instant) {
        let is_counted = self.is_counted.as_ref();
        let is_counted = is_counted.is_some_and(|counted| counted.load(Ordering::Relaxed));
        if failure.counts() && !is_counted {
            self.ring.failed(node, now, &self.options);
        }
    }

    /// When the node that failed for the `attempt`th time, from 1, is asked again; `None` if it is not.
    fn retry_at(&self, attempt: u32, now: Instant) -> Option<Instant> {
        if attempt > self.options.retries {
            return None;
        }
        let pause = self.options.retry_pause * (1 << (attempt - 1).min(16));
        let at = now + pause.mul_f64(0.5 + 0.5 * unit(self.ring.random()));
        (at < self.deadline).then_some(at)
    }
}

/// True if the request surely was not carried out.
fn was_not_done(failure: Failure) -> bool {
    matches!(failure, Failure::Connect | Failure::SignIn | Failure::Busy)
}

/// What is to be repeated, and when.
#[derive(Debug)]
struct Later<T>(Vec<(Instant, T)>);

impl<T: Copy> Later<T> {
    fn new() -> Self {
        Later(Vec::new())
    }

    fn push(&mut self, at: Instant, what: T) {
        self.0.push((at, what));
    }

    /// Moves what is due into `due`.
    fn take(&mut self, now: Instant, due: &mut Vec<T>) {
        self.0.retain(|&(at, what)| {
            if at <= now {
                due.push(what);
            }
            at > now
        });
    }

    /// When the next falls due.
    fn next(&self) -> Option<Instant> {
        self.0.iter().map(|&(at, _)| at).min()
    }
}
