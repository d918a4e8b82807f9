//! A read that may win the right to compute the value anew: `mg` with `N` and `R`.
//!
//! ```text
//!  ask the node that decides for the key --> value, and whether the caller won (W), another did (Z), or it is stale (X)
//!       ^                  | failed
//!       '--- pause, or the node that decides now <-'
//! ```
//!
//! N1. One node decides who wins, the same that decides a CAS: the winner's CAS unique is worth something there.
//! N2. A request that is repeated may have won the first time: then the answer says that another did, and the lease has
//!     to run out.

use std::time::Instant;

use super::Context;
use crate::core::link::Expect;
use crate::core::reply::{Broken, Meta, Reply};
use crate::core::request::{self, Wanted};
use crate::core::{Exchange, Operation, Todo};
use crate::error::{Error, Failure, Result};
use crate::metrics::Op;

/// What the node said; `None` if the key is not there, which no node says that knows `N`.
type Leased = Option<(Meta, usize)>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Lease<'a> {
    context: Context,
    key: &'a [u8],
    wanted: Wanted,
    /// Ask at this time.
    ask_at: Option<Instant>,
    begun: bool,
    decider: usize,
    attempts: u32,
    exchanges: u32,
    result: Option<Result<Leased>>,
}

impl<'a> Lease<'a> {
    /// Reads `key`, which was checked. A missing key is created, empty, for `lease_s`; a value with less than `recache_s`
    /// left is to be computed anew.
    pub(crate) fn new(context: Context, key: &'a [u8], lease_s: i32, recache_s: i32) -> Self {
        Lease {
            context,
            key,
            wanted: Wanted {
                cas: true,
                ttl: true,
                lease: Some((lease_s, recache_s)),
                ..Wanted::default()
            },
            ask_at: None,
            begun: false,
            decider: 0,
            attempts: 0,
            exchanges: 0,
            result: None,
        }
    }

    /// Nothing is to be read, because of this error.
    pub(crate) fn refuse(&mut self, error: Error) {
        self.result = Some(Err(error));
    }

    /// The result.
    pub(crate) fn finish(self) -> Result<Leased> {
        self.result.unwrap_or(Err(Error::Timeout))
    }

    fn ask(&mut self, now: Instant, todo: &mut Todo) {
        let Context { ring, options, .. } = &self.context;
        let Some(decider) = ring.writers(self.key, now, options).first() else {
            self.result = Some(Err(Error::NoNode));
            return;
        };
        self.decider = decider;
        let mut request = Vec::new();
        request::get(&mut request, self.key, self.wanted, None);
        self.exchanges += 1;
        todo.send.push(Exchange {
            id: self.exchanges,
            node: decider,
            request: request.into(),
            expect: Expect::Count(1),
            deadline: self.context.attempt_deadline(now),
            repeatable: true,
            must_send: false,
        });
    }
}

impl Operation for Lease<'_> {
    fn step(&mut self, now: Instant, todo: &mut Todo) {
        todo.wake_at = None;
        if self.result.is_none() {
            if now >= self.context.deadline {
                self.result = Some(Err(Error::Timeout));
            } else if !self.begun || self.ask_at.is_some_and(|at| at <= now) {
                (self.begun, self.ask_at) = (true, None);
                self.ask(now, todo);
            }
        }
        if let Some(at) = self.ask_at {
            todo.wake(at);
        }
        todo.wake(self.context.deadline);
        todo.done = self.result.is_some();
    }

    fn on_reply(
        &mut self,
        id: u32,
        reply: Reply,
        _last: bool,
        _now: Instant,
    ) -> std::result::Result<(), Broken> {
        if id != self.exchanges || self.result.is_some() {
            return Ok(());
        }
        self.result = Some(match reply {
            Reply::Ok(meta) => Ok(Some((meta, self.decider))),
            Reply::Missing => Ok(None),
            Reply::Refused(refusal) => Err(self.context.refused(self.decider, refusal)),
            _ => return Err(Broken),
        });
        self.context.worked(self.decider);
        Ok(())
    }

    fn on_failure(&mut self, id: u32, failure: Failure, now: Instant) {
        if id != self.exchanges || self.result.is_some() {
            return;
        }
        self.context.failed(self.decider, failure, now);
        self.attempts += 1;
        let at = if self.context.ring.members[self.decider].is_in() {
            self.context.retry_at(self.attempts, now)
        } else {
            // Each node is ejected at most once in the operation's time.
            Some(now)
        };
        match at {
            Some(_) => self.ask_at = at,
            None => self.result = Some(Err(self.context.node_error(self.decider, failure))),
        }
    }

    fn op(&self) -> Op {
        Op::Lease
    }
}
