//! The client without sockets, threads and clock: what to send where, and what the answers mean.
//!
//! ```text
//!  front                                   core
//!  an operation begins  ----------------->  operation::{Read, Write, ViaDecider, Ask, ForEachNode}: one state machine a kind
//!  sends, waits until `wake_at`  <-------   step(now) -> Todo { send: [Exchange], wake_at, done }
//!  bytes of a connection <--> Link  ----->  on_reply(id, reply) | on_failure(id, failure)
//!  the result  <--------------------------  finish()
//!  carries out probes  <---------------->   Member::probe_due / probe_answered / probe_failed
//! ```
//!
//! C1. A front sends every exchange of `Todo::send` to its node, on a connection of which it is the only user until the
//!     last reply, or on one that hands out replies in the order of the exchanges, and reports exactly one end of it: the last
//!     reply, or a failure.
//! C2. A front closes a connection whose exchange failed, and one whose replies it does not want to wait for unless all of
//!     the request is sent: then [`Link::disown`](link::Link::disown) lets the connection be used again.
//! C3. Once an operation says `done` its result is there. What it still has to send (`Exchange::must_send`) is sent, but
//!     not waited for. Its [`Unawaited`], if it has one, goes with it, and is told of the last reply or dropped.
//! C4. Operations hold one snapshot of the ring from their start to their end.
//!
//! Types that callers of ketch-client see live here, and what the fronts do with them is public to another crate: there is no visibility
//! between "this crate" and "everybody". Such items are `#[doc(hidden)]`, and no promise to anybody but the fronts.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod calls;
#[cfg(feature = "lz4")]
pub mod compression;
#[cfg(feature = "serde")]
pub mod config;
pub mod continuum;
pub mod error;
pub mod expect;
pub mod feed;
pub mod health;
pub mod link;
pub mod meta;
pub mod metrics;
pub mod node;
pub mod notices;
pub mod operation;
pub mod options;
mod repairs;
pub mod reply;
pub mod request;
pub mod routing;
// Some of it only the tests of this crate use.
#[cfg(any(test, feature = "simulation"))]
#[cfg_attr(not(test), allow(dead_code))]
pub mod simulation;
pub mod states;
pub mod ttl;
pub mod unawaited;
pub mod value;

use std::time::{Duration, Instant};

use bytes::Bytes;

use error::Failure;
use expect::Expect;
use metrics::Op;
use operation::Replaced;
use reply::{Broken, Reply};
use unawaited::Unawaited;

/// A request to one node, and the replies it will have.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Names it in the events of its operation.
    pub id: u32,
    /// The node's index in the ring.
    pub node: usize,
    /// The bytes to send.
    pub request: Bytes,
    /// What ends the replies to it.
    pub expect: Expect,
    /// When the front gives up and reports a failure, if the exchange did not have to wait for its turn: that time is no
    /// fault of the node, and comes on top, up to the operation's [`deadline`](Operation::deadline).
    pub deadline: Instant,
    /// True if doing it twice does no harm, so that a front may send it again on a new connection when one from the pool
    /// turns out to be dead.
    pub repeatable: bool,
    /// True if it is to be sent even when the operation is done.
    pub must_send: bool,
}

impl Exchange {
    /// How long its node may take, if it was made at `begun`.
    #[inline]
    pub fn patience(&self, begun: Instant) -> Patience {
        Patience {
            begun,
            deadline: self.deadline,
        }
    }
}

/// How long a node may take for an exchange, whenever its turn comes.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    begun: Instant,
    deadline: Instant,
}

impl Patience {
    /// How long it is.
    pub fn len(self) -> Duration {
        self.deadline.saturating_duration_since(self.begun)
    }

    /// When it ends, if the node has been silent since `at`, when its turn came or something came last.
    #[inline]
    pub fn end(self, at: Instant) -> Instant {
        if at == self.begun {
            return self.deadline.max(at);
        }
        // Who hardly waited keeps to the operation's time, so that its failure is noticed before that is over.
        if at.saturating_duration_since(self.begun) < self.len() / 8 {
            self.deadline
        } else {
            at + self.len()
        }
    }
}

/// Room for the exchanges of most operations, so that lists of them need not grow.
pub const FEW: usize = 2;

/// What an operation wants of its front.
#[derive(Debug, Default)]
pub struct Todo {
    /// To be sent now. The front takes them out.
    pub send: Vec<Exchange>,
    /// When to call `step` again if nothing happens before.
    pub wake_at: Option<Instant>,
    /// Every exchange under way is needed for the result: it does not matter which is heard of first.
    pub all_needed: bool,
    /// The result is there.
    pub done: bool,
}

impl Todo {
    /// Asks to be woken at this time, or earlier if it asked for that before.
    pub fn wake(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// A state machine that a front carries out.
pub trait Operation {
    /// What to do at `now`, which is the start, after an event, or the time it asked to be woken at.
    fn step(&mut self, now: Instant, todo: &mut Todo);
    /// A reply to an exchange, the last one or not. An error means that the reply is none to what was asked: the front
    /// closes the connection and reports [`Failure::Garbage`].
    fn on_reply(&mut self, id: u32, reply: Reply, last: bool, now: Instant) -> Result<(), Broken>;
    /// An exchange ended without its replies.
    fn on_failure(&mut self, id: u32, failure: Failure, now: Instant);
    /// It is done, or nobody waits for the result any more: nothing more is stepped or told, only what was sent is carried
    /// out. Gives, by exchange, what watches over those whose failure matters.
    fn abandon(&mut self, now: Instant) -> Vec<(u32, Unawaited)> {
        let _ = now;
        Vec::new()
    }
    /// What it may have put in the place of other values, on the nodes of its ring alone: see [`follow`](crate::calls::follow).
    fn replaced(&self) -> Option<Replaced> {
        None
    }
    /// What it is counted as.
    fn op(&self) -> Op;
    /// When it is over, done or not.
    fn deadline(&self) -> Instant;
}
