//! A meta command as the caller wrote it, to the node that decides for its key.
//!
//! ```text
//!  ask the node that decides --> its reply
//!       ^        | failed, and doing it twice does no harm, or it was surely not done
//!       '-- pause <-'
//! ```

use std::time::Instant;

use super::{Context, was_not_done};
use crate::error::{Error, Failure, Result};
use crate::meta::MetaRequest;
use crate::metrics::Op;
use crate::reply::{Broken, Reply};
use crate::request::{self, Requests};
use crate::{Exchange, Operation, Todo};

/// See the module.
#[derive(Debug)]
pub struct Raw<'a> {
    context: Context,
    request: &'a MetaRequest,
    ask_at: Option<Instant>,
    decider: usize,
    attempts: u32,
    exchanges: u32,
    result: Option<Result<Reply>>,
}

impl<'a> Raw<'a> {
    /// Sends `request`, unless its key has a `fault`.
    pub fn new(context: Context, request: &'a MetaRequest, fault: Option<Error>) -> Self {
        Raw {
            context,
            request,
            ask_at: None,
            decider: 0,
            attempts: 0,
            exchanges: 0,
            result: fault.map(Err),
        }
    }

    /// The result.
    pub fn finish(self) -> Result<Reply> {
        self.result.unwrap_or(Err(Error::Timeout))
    }

    fn ask(&mut self, now: Instant, todo: &mut Todo) {
        let Context { ring, options, .. } = &self.context;
        let Some(decider) = ring.writers(&self.request.key, now, options).first() else {
            self.result = Some(Err(Error::NoNode));
            return;
        };
        self.decider = decider;
        let MetaRequest {
            verb,
            key,
            flags,
            value,
            ..
        } = self.request;
        let value_len = value.as_ref().map_or(0, |value| value.len());
        let mut requests = Requests::new(1, key.len() + flags.len() + value_len + 64);
        request::raw(&mut requests, verb, key, flags, value.as_deref());
        let (request, expect) = requests.finish();
        self.exchanges += 1;
        todo.send.push(Exchange {
            id: self.exchanges,
            node: decider,
            request,
            expect,
            deadline: self.context.attempt_deadline(now),
            repeatable: self.request.is_repeatable(),
            must_send: false,
        });
    }
}

impl Operation for Raw<'_> {
    fn step(&mut self, now: Instant, todo: &mut Todo) {
        todo.wake_at = None;
        if self.result.is_none() {
            if now >= self.context.deadline {
                self.result = Some(Err(Error::Timeout));
            } else if self.exchanges == 0 || self.ask_at.is_some_and(|at| at <= now) {
                self.ask_at = None;
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
        if id == self.exchanges && self.result.is_none() {
            self.result = Some(match reply {
                Reply::Refused(refusal) => Err(self.context.refused(self.decider, refusal)),
                Reply::Ok(_) | Reply::Missing | Reply::NotStored | Reply::Exists => Ok(reply),
                _ => return Err(Broken),
            });
            self.context.worked(self.decider);
        }
        Ok(())
    }

    fn on_failure(&mut self, id: u32, failure: Failure, now: Instant) {
        if id != self.exchanges || self.result.is_some() {
            return;
        }
        self.context.failed(self.decider, failure, now);
        self.attempts += 1;
        let again = self.request.is_repeatable() || was_not_done(failure);
        self.ask_at = match self.context.retry_at(self.attempts, now) {
            Some(at) if again => Some(at),
            _ => {
                self.result = Some(Err(self.context.node_error(self.decider, failure)));
                None
            }
        };
    }

    fn deadline(&self) -> Instant {
        self.context.deadline
    }

    fn op(&self) -> Op {
        match self.request.verb {
            "mg" => Op::Get,
            "md" => Op::Delete,
            "ma" => Op::Count,
            _ => Op::Store,
        }
    }
}
