//! One request to the node that decides for a key: a read that may win the right to compute the value anew (`mg` with `N` and `R`),
//! and meta commands as the caller wrote them.
//!
//! ```text
//!  ask the node that decides for the key --> its reply
//!       ^                  | failed, and doing it twice does no harm, or it was surely not done
//!       '--- pause, or the node that decides now <-'
//! ```
//!
//! N1. One node decides who wins a lease, the same that decides a CAS: the winner's CAS unique is worth something there.
//! N2. A lease that is asked for twice may have been won the first time: then the answer says that another did, and the lease has
//!     to run out.

use std::time::Instant;

use bytes::Bytes;

use super::{Context, was_not_done};
use crate::error::{Error, Failure, Result};
use crate::expect::Expect;
use crate::meta::MetaRequest;
use crate::metrics::Op;
use crate::reply::{Broken, Reply};
use crate::request::{self, Requests, Wanted};
use crate::{Exchange, Operation, Todo};

/// What is asked.
pub trait Question {
    /// The key that it is about.
    fn key(&self) -> &[u8];
    /// As it is sent.
    fn request(&self) -> (Bytes, Expect);
    /// True if doing it twice does no harm.
    fn is_repeatable(&self) -> bool;
    /// How it is counted.
    fn op(&self) -> Op;
}

/// A read of a key that creates the key if it is missing, empty, and tells one caller to compute its value.
#[derive(Debug)]
pub struct Lease<'a> {
    key: &'a [u8],
    wanted: Wanted,
}

impl<'a> Lease<'a> {
    /// A missing key is created for `lease_s`; a value with less than `recache_s` left is to be computed anew.
    pub fn new(key: &'a [u8], lease_s: i32, recache_s: i32) -> Self {
        let wanted = Wanted {
            cas: true,
            ttl: true,
            lease: Some((lease_s, recache_s)),
            ..Wanted::default()
        };
        Lease { key, wanted }
    }
}

impl Question for Lease<'_> {
    fn key(&self) -> &[u8] {
        self.key
    }

    fn request(&self) -> (Bytes, Expect) {
        let mut request = Requests::new(1, self.key.len() + 64);
        request::get(&mut request, self.key, self.wanted, false);
        request.finish()
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn op(&self) -> Op {
        Op::Lease
    }
}

impl Question for &MetaRequest {
    fn key(&self) -> &[u8] {
        &self.key
    }

    fn request(&self) -> (Bytes, Expect) {
        let MetaRequest {
            verb,
            key,
            flags,
            value,
            ..
        } = self;
        let value_len = value.as_ref().map_or(0, |value| value.len());
        let mut requests = Requests::new(1, key.len() + flags.len() + value_len + 64);
        request::raw(&mut requests, verb, key, flags, value.as_deref());
        requests.finish()
    }

    fn is_repeatable(&self) -> bool {
        MetaRequest::is_repeatable(self)
    }

    fn op(&self) -> Op {
        match self.verb {
            "mg" => Op::Get,
            "md" => Op::Delete,
            "ma" => Op::Count,
            _ => Op::Store,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Ask<Q> {
    context: Context,
    question: Q,
    /// Ask at this time.
    ask_at: Option<Instant>,
    decider: usize,
    attempts: u32,
    exchanges: u32,
    result: Option<Result<Reply>>,
}

impl<Q: Question> Ask<Q> {
    /// Asks `question`, unless its key has a `fault`.
    pub fn new(context: Context, question: Q, fault: Option<Error>) -> Self {
        Ask {
            context,
            question,
            ask_at: None,
            decider: 0,
            attempts: 0,
            exchanges: 0,
            result: fault.map(Err),
        }
    }

    /// The reply, and the node that gave it.
    pub fn finish(self) -> Result<(Reply, usize)> {
        let reply = self.result.unwrap_or(Err(Error::Timeout))?;
        Ok((reply, self.decider))
    }

    fn ask(&mut self, now: Instant, todo: &mut Todo) {
        let Context { ring, options, .. } = &self.context;
        let Some(decider) = ring.writers(self.question.key(), now, options).first() else {
            self.result = Some(Err(Error::NoNode));
            return;
        };
        self.decider = decider;
        let (request, expect) = self.question.request();
        self.exchanges += 1;
        todo.send.push(Exchange {
            id: self.exchanges,
            node: decider,
            request,
            expect,
            deadline: self.context.attempt_deadline(now),
            repeatable: self.question.is_repeatable(),
            must_send: false,
        });
    }
}

impl<Q: Question> Operation for Ask<Q> {
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
        if id != self.exchanges || self.result.is_some() {
            return Ok(());
        }
        self.result = Some(match reply {
            Reply::Refused(refusal) => Err(self.context.refused(self.decider, refusal)),
            Reply::Ok(_) | Reply::Missing | Reply::NotStored | Reply::Exists => Ok(reply),
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
        let again = self.question.is_repeatable() || was_not_done(failure);
        self.ask_at = if self.context.ring.members[self.decider].is_in() {
            self.context.retry_at(self.attempts, now)
        } else {
            // Each node is ejected at most once in the operation's time.
            Some(now)
        };
        if !again || self.ask_at.is_none() {
            self.ask_at = None;
            self.result = Some(Err(self.context.node_error(self.decider, failure)));
        }
    }

    fn deadline(&self) -> Instant {
        self.context.deadline
    }

    fn op(&self) -> Op {
        self.question.op()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::error::KeyFault;
    use crate::options::ClientOptions;
    use crate::reply::Meta;
    use crate::routing::Ring;

    const MS: Duration = Duration::from_millis(1);

    fn context(now: Instant) -> Context {
        let nodes = crate::node::Node::list("a,b,c").expect("these are nodes");
        let options = ClientOptions::default();
        let ring = Ring::new(&nodes, &options, 1);
        Context::new(Arc::new(ring), Arc::new(options), now, 0)
    }

    fn ask<'a>(context: Context, key: &'a [u8], fault: Option<Error>) -> Ask<Lease<'a>> {
        Ask::new(context, Lease::new(key, 5, 11), fault)
    }

    /// The exchange that it sends, if any.
    fn step(lease: &mut Ask<Lease<'_>>, now: Instant) -> (Option<Exchange>, Todo) {
        let mut todo = Todo::default();
        lease.step(now, &mut todo);
        assert!(todo.send.len() <= 1);
        (todo.send.pop(), todo)
    }

    #[test]
    fn asked_and_answered() {
        let now = Instant::now();
        let mut lease = ask(context(now), b"k", None);
        let (sent, todo) = step(&mut lease, now);
        let sent = sent.expect("it asks");
        assert!(sent.request.starts_with(b"mg k v f c t N5 R11 O"));
        assert!(!todo.done && todo.wake_at.is_some());
        assert!(step(&mut lease, now).0.is_none(), "once");
        let meta = Meta {
            won: true,
            cas: 3,
            ..Meta::default()
        };
        let reply = Reply::Ok(meta.clone());
        assert_eq!(lease.on_reply(sent.id, reply, true, now), Ok(()));
        assert!(step(&mut lease, now).1.done);
        let (reply, node) = lease.finish().expect("answered");
        assert!(matches!(reply, Reply::Ok(found) if found == meta));
        assert_eq!(node, sent.node);
    }

    #[test]
    fn asked_again_and_of_another_node_when_the_first_is_ejected() {
        let mut now = Instant::now();
        let mut lease = ask(context(now), b"k", None);
        let mut asked = Vec::new();
        for _ in 0..4 {
            let sent = step(&mut lease, now).0.expect("it asks");
            asked.push(sent.node);
            if asked.len() < 4 {
                lease.on_failure(sent.id, Failure::Closed, now);
                // What comes late is not heard.
                assert_eq!(lease.on_reply(0, Reply::Missing, true, now), Ok(()));
            } else {
                assert_eq!(lease.on_reply(sent.id, Reply::Missing, true, now), Ok(()));
            }
            now += 50 * MS;
        }
        // The third failure in a row ejects.
        assert!(asked[..3].iter().all(|&node| node == asked[0]));
        assert_ne!(asked[3], asked[0]);
        let (reply, node) = lease.finish().expect("answered");
        assert!(matches!(reply, Reply::Missing) && node == asked[3]);
    }

    #[test]
    fn an_end_in_any_case() {
        let mut now = Instant::now();
        let mut lease = ask(context(now), b"k", None);
        assert!(step(&mut lease, now).0.is_some());
        now += Duration::from_secs(1);
        assert!(step(&mut lease, now).1.done);
        assert_eq!(lease.finish().err(), Some(Error::Timeout));
        let fault = Some(Error::Key(KeyFault::Empty));
        let mut lease = ask(context(now), b"", fault);
        assert!(step(&mut lease, now).1.done);
        assert_eq!(lease.finish().err(), Some(Error::Key(KeyFault::Empty)));
    }
}
