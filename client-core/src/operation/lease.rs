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
use crate::error::{Error, Failure, Result};
use crate::metrics::Op;
use crate::reply::{Broken, Meta, Reply};
use crate::request::{self, Requests, Wanted};
use crate::{Exchange, Operation, Todo};

/// What the node said; `None` if the key is not there, which no node says that knows `N`.
type Leased = Option<(Meta, usize)>;

/// See the module.
#[derive(Debug)]
pub struct Lease<'a> {
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
    pub fn new(context: Context, key: &'a [u8], lease_s: i32, recache_s: i32) -> Self {
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
    pub fn refuse(&mut self, error: Error) {
        self.result = Some(Err(error));
    }

    /// The result.
    pub fn finish(self) -> Result<Leased> {
        self.result.unwrap_or(Err(Error::Timeout))
    }

    fn ask(&mut self, now: Instant, todo: &mut Todo) {
        let Context { ring, options, .. } = &self.context;
        let Some(decider) = ring.writers(self.key, now, options).first() else {
            self.result = Some(Err(Error::NoNode));
            return;
        };
        self.decider = decider;
        let mut request = Requests::new(1, self.key.len() + 64);
        request::get(&mut request, self.key, self.wanted, false);
        let (request, expect) = request.finish();
        self.exchanges += 1;
        todo.send.push(Exchange {
            id: self.exchanges,
            node: decider,
            request,
            expect,
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

    fn deadline(&self) -> Instant {
        self.context.deadline
    }

    fn op(&self) -> Op {
        Op::Lease
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::error::KeyFault;
    use crate::options::ClientOptions;
    use crate::routing::Ring;

    const MS: Duration = Duration::from_millis(1);

    fn context(now: Instant) -> Context {
        let nodes = crate::node::Node::list("a,b,c").expect("these are nodes");
        let options = ClientOptions::default();
        let ring = Ring::new(&nodes, &options, 1);
        Context::new(Arc::new(ring), Arc::new(options), now, 0)
    }

    /// The exchange that it sends, if any.
    fn step(lease: &mut Lease<'_>, now: Instant) -> (Option<Exchange>, Todo) {
        let mut todo = Todo::default();
        lease.step(now, &mut todo);
        assert!(todo.send.len() <= 1);
        (todo.send.pop(), todo)
    }

    #[test]
    fn asked_and_answered() {
        let now = Instant::now();
        let mut lease = Lease::new(context(now), b"k", 5, 11);
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
        assert_eq!(lease.finish(), Ok(Some((meta, sent.node))));
    }

    #[test]
    fn asked_again_and_of_another_node_when_the_first_is_ejected() {
        let mut now = Instant::now();
        let mut lease = Lease::new(context(now), b"k", 5, 11);
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
        assert_eq!(lease.finish(), Ok(None));
    }

    #[test]
    fn an_end_in_any_case() {
        let mut now = Instant::now();
        let mut lease = Lease::new(context(now), b"k", 5, 11);
        assert!(step(&mut lease, now).0.is_some());
        now += Duration::from_secs(1);
        assert!(step(&mut lease, now).1.done);
        assert_eq!(lease.finish(), Err(Error::Timeout));
        let mut lease = Lease::new(context(now), b"", 5, 11);
        lease.refuse(Error::Key(KeyFault::Empty));
        assert!(step(&mut lease, now).1.done);
        assert_eq!(lease.finish(), Err(Error::Key(KeyFault::Empty)));
    }
}
