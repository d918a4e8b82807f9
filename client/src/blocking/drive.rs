//! Carries out an operation: many nodes at once, in the thread of the caller.
//!
//! ```text
//!  loop:  step -> flights (one an exchange) -> write what goes -> poll all sockets -> replies and failures to the operation
//! ```
//!
//! F1. A flight ends once: with its last reply, a failure, or when the operation is done and the flight is sent.
//! F2. Reading goes on while writing: a request larger than the socket buffers never waits for replies that wait for it.
//! F3. Who holds a connection never waits for another to come free without driving the one it holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::Ready;
use super::pool::{Lease, Pool};
use super::stream::PATIENCE;
use crate::snapshot::Snapshot;
use client_core::error::Failure;
use client_core::metrics::{Metrics, Op};
use client_core::options::ClientOptions;
use client_core::reply::{Broken, Reply};
use client_core::unawaited::Unawaited;
use client_core::{Exchange, FEW, Operation, Todo};

/// How long to wait for a busy pool's connection before looking again, while other flights are driven.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

struct Flight {
    exchange: Exchange,
    /// `None` while the pool is busy.
    lease: Option<Lease>,
    begun: Instant,
    /// When the operation is over.
    limit: Instant,
    /// When its connection must be made, and its replies be there. They are set when it has a connection.
    connect_by: Instant,
    answer_by: Instant,
    /// Its node was not ejected when it began.
    was_in: bool,
    ready: Ready,
    /// Goes with it when the operation is done.
    watch: Option<Unawaited>,
}

/// How a flight goes on.
enum Progress {
    Flying,
    Landed,
    Failed(Failure),
}

/// Drives `operation` until it is done, over the pools of its ring.
pub(super) fn drive(
    operation: &mut impl Operation,
    snapshot: &Snapshot<Pool>,
    options: &ClientOptions,
) {
    let pools = &snapshot.pools[..];
    let metrics = options.metrics.as_deref();
    let (op, limit) = (operation.op(), operation.deadline());
    let mut todo = Todo {
        send: Vec::with_capacity(FEW),
        ..Todo::default()
    };
    let mut flights: Vec<Flight> = Vec::with_capacity(FEW);
    let mut abandoned = false;
    let mut now = Instant::now();
    loop {
        if !todo.done {
            operation.step(now, &mut todo);
            let mut failed = false;
            for exchange in todo.send.drain(..) {
                let id = exchange.id;
                let mut flight = Flight {
                    lease: None,
                    begun: now,
                    limit,
                    connect_by: limit,
                    answer_by: limit,
                    was_in: pools[exchange.node].member.is_in(),
                    exchange,
                    ready: Ready::NOT,
                    watch: None,
                };
                match flight.take_off(pools, now) {
                    Ok(()) => flights.push(flight),
                    Err(failure) => {
                        flight.tell(metrics, pools, op, Err(failure), now);
                        operation.on_failure(id, failure, now);
                        failed = true;
                    }
                }
            }
            if failed && !todo.done {
                continue;
            }
        }
        if todo.done {
            if !std::mem::replace(&mut abandoned, true) {
                for (id, watch) in operation.abandon(now) {
                    let flight = flights.iter_mut().find(|flight| flight.exchange.id == id);
                    flight.expect("what is watched is under way").watch = Some(watch);
                }
            }
            flights.retain_mut(|flight| !flight.abandon(now));
            if flights.is_empty() {
                return;
            }
        }
        if flights.is_empty() {
            // It may wait for what nobody waits for: a probe, a late delete.
            for (node, pool) in pools.iter().enumerate() {
                pool.listen(&snapshot.ring, node, now);
            }
        }
        wait(&mut flights, &todo, pools, now);
        now = Instant::now();
        let mut at = 0;
        while at < flights.len() {
            let flight = &mut flights[at];
            // What is done needs no replies, only to be sent.
            let done = todo.done;
            let id = flight.exchange.id;
            let progress = flight.advance(pools, now, |reply, last| {
                if done {
                    Ok(())
                } else {
                    operation.on_reply(id, reply, last, now)
                }
            });
            match progress {
                Progress::Flying => {
                    at += 1;
                    continue;
                }
                Progress::Landed => {
                    let flight = flights.swap_remove(at);
                    flight.tell(metrics, pools, op, Ok(()), now);
                    if let Some(watch) = flight.watch {
                        watch.answered();
                    }
                    if let Some(lease) = flight.lease {
                        Pool::give_back(lease, now);
                    }
                }
                Progress::Failed(failure) => {
                    let flight = flights.swap_remove(at);
                    flight.tell(metrics, pools, op, Err(failure), now);
                    if let Some(watch) = flight.watch {
                        watch.failed(failure);
                    }
                    if !done {
                        operation.on_failure(id, failure, now);
                    }
                }
            }
        }
    }
}

impl Flight {
    /// Counts how it ended. What is abandoned is not counted.
    fn tell(
        &self,
        metrics: Option<&dyn Metrics>,
        pools: &[Arc<Pool>],
        op: Op,
        outcome: Result<(), Failure>,
        now: Instant,
    ) {
        if let Some(metrics) = metrics {
            let name = &pools[self.exchange.node].member.name;
            metrics.request(name, op, outcome, now.saturating_duration_since(self.begun));
        }
    }

    /// True if the kernel has all of its request.
    fn is_sent(&self) -> bool {
        let lease = self.lease.as_ref();
        lease.is_some_and(|lease| lease.connection.is_sent())
    }

    /// Takes a connection, if one is to be had, and sends what it takes.
    fn take_off(&mut self, pools: &[Arc<Pool>], now: Instant) -> Result<(), Failure> {
        let pool = &pools[self.exchange.node];
        loop {
            let (careful, in_order) = (!self.exchange.repeatable, self.exchange.must_send);
            let Some(mut lease) = pool.checkout(now, careful, in_order)? else {
                return Ok(());
            };
            let begun = lease
                .connection
                .begin(&self.exchange.request, self.exchange.expect);
            match begun {
                Ok(()) => {
                    self.lease = Some(lease);
                    self.connect_by = now + pool.options.connect_timeout;
                    self.answer_by = self.exchange.patience(self.begun).end(now);
                    return Ok(());
                }
                Err(Failure::Closed) if lease.connection.reused && self.exchange.repeatable => {
                    pool.drop_idle()
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Reads and writes what goes without waiting.
    fn advance(
        &mut self,
        pools: &[Arc<Pool>],
        now: Instant,
        on_reply: impl FnMut(Reply, bool) -> Result<(), Broken>,
    ) -> Progress {
        let Some(lease) = &mut self.lease else {
            // Nobody waits for a connection to a node that is not asked any more.
            let gone = self.was_in && !pools[self.exchange.node].member.is_in();
            if gone || now >= self.limit {
                return Progress::Failed(Failure::Busy);
            }
            return match self.take_off(pools, now) {
                Ok(()) => Progress::Flying,
                Err(failure) => Progress::Failed(failure),
            };
        };
        let connection = &mut lease.connection;
        let late = now >= self.answer_by || (connection.is_connecting() && now >= self.connect_by);
        let result = if late {
            // This thread may be what is late.
            connection.look(on_reply)
        } else {
            connection.advance(self.ready, on_reply)
        };
        match result {
            Ok(true) => Progress::Landed,
            Ok(false) if late && connection.is_connecting() => {
                pools[self.exchange.node].doubt();
                Progress::Failed(Failure::Connect)
            }
            // As long as something comes, it has its time.
            Ok(false) if connection.has_progressed() => {
                self.answer_by = self
                    .answer_by
                    .max(self.exchange.patience(self.begun).end(now));
                Progress::Flying
            }
            Ok(false) if now >= self.answer_by => {
                connection.stream.forget_unsent();
                Progress::Failed(Failure::Timeout)
            }
            Ok(false) => Progress::Flying,
            // A connection from the pool that the node had closed: another one, as if it had not been there.
            Err(Failure::Closed)
                if connection.reused && !connection.heard() && self.exchange.repeatable =>
            {
                pools[self.exchange.node].drop_idle();
                self.lease = None;
                match self.take_off(pools, now) {
                    Ok(()) => Progress::Flying,
                    Err(failure) => Progress::Failed(failure),
                }
            }
            Err(failure) => {
                if failure == Failure::Connect {
                    pools[self.exchange.node].doubt();
                }
                Progress::Failed(failure)
            }
        }
    }

    /// Ends the flight if nobody waits for it any more; false if it is still to be sent.
    fn abandon(&mut self, now: Instant) -> bool {
        match self.lease.take() {
            Some(mut lease) if lease.connection.is_sent() => {
                lease.connection.disown(self.watch.take());
                Pool::give_back(lease, now);
                true
            }
            lease => {
                self.lease = lease;
                let over = !self.exchange.must_send || now >= self.answer_by;
                if over
                    && self.lease.is_none()
                    && let Some(watch) = self.watch.take()
                {
                    watch.failed(Failure::Busy);
                }
                over
            }
        }
    }
}

/// Waits until a flight can go on, or it is time to look.
fn wait(flights: &mut [Flight], todo: &Todo, pools: &[Arc<Pool>], now: Instant) {
    let mut until = if todo.done { None } else { todo.wake_at };
    let mut sooner = |at: Instant| until = Some(until.map_or(at, |until| until.min(at)));
    let mut busy = None;
    for flight in flights.iter() {
        sooner(flight.answer_by);
        match &flight.lease {
            Some(lease) if lease.connection.is_connecting() => sooner(flight.connect_by),
            Some(_) => {}
            None => busy = Some(&pools[flight.exchange.node]),
        }
    }
    let mut timeout = until.map_or(BUSY_PAUSE, |until| until.saturating_duration_since(now));
    if let Some(pool) = busy {
        if flights.iter().all(|flight| flight.lease.is_none()) {
            return pool.wait(timeout);
        }
        timeout = timeout.min(BUSY_PAUSE);
    }
    // Where nothing else can happen before a reply, or nothing that matters, there is no need to ask the kernel first
    // whether it is there. The kernel may be late by a tick: no deadline may come that soon.
    let others = todo.done || !todo.all_needed;
    match flights {
        [] => std::thread::sleep(timeout),
        [first, rest @ ..]
            if first.is_sent()
                && timeout >= 2 * PATIENCE
                && (rest.is_empty() || (!others && now < first.begun + PATIENCE)) =>
        {
            first.ready = Ready::Soon;
            rest.iter_mut().for_each(|flight| flight.ready = Ready::NOT);
        }
        _ => poll_all(flights, timeout),
    }
}

/// Asks the kernel which flights can go on.
fn poll_all(flights: &mut [Flight], timeout: Duration) {
    let leases = flights.iter().filter_map(|flight| flight.lease.as_ref());
    let connections = leases.map(|lease| &lease.connection);
    let mut fds: Vec<_> = connections
        .map(|connection| PollFd::new(&connection.stream, connection.interest()))
        .collect();
    let timeout = Timespec {
        tv_sec: timeout.as_secs() as i64,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // An error (a signal) is as good as nothing ready.
    let _ = poll(&mut fds, Some(&timeout));
    let ready: Vec<PollFlags> = fds.iter().map(|fd| fd.revents()).collect();
    let leased = flights.iter_mut().filter(|flight| flight.lease.is_some());
    leased
        .zip(ready)
        .for_each(|(flight, ready)| flight.ready = Ready::Now(ready));
}
