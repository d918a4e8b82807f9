//! Carries out an operation: many nodes at once, in the task of the caller.
//!
//! ```text
//!  loop:  step -> exchanges -> lanes of their nodes -> mailbox -> replies and failures to the operation
//! ```
//!
//! D1. A flight ends once: with its last reply or a failure.
//! D2. An exchange that its lane lost is submitted once more, if it surely did not reach the node or may be repeated. One that
//!     waits behind another that is late is submitted again, as often as that takes.
//! D3. Dropped at any point, nothing is left behind but tickets whose replies nobody wants, and watches over writes.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::tokio::sync::OwnedSemaphorePermit;
use ::tokio::time::{Sleep, sleep_until};

use super::mailbox::{Event, Mailbox, Times, What};
use super::now;
use super::pool::{Pool, Submitted};
use client_core::error::Failure;
use client_core::metrics::Op;
use client_core::options::ClientOptions;
use client_core::reply::Broken;
use client_core::{Exchange, Operation, Todo};

/// An exchange under way.
struct Flight {
    exchange: Exchange,
    stage: Stage,
    begun: Instant,
    /// When the operation is over.
    limit: Instant,
    /// It may be begun anew while it is under way.
    movable: bool,
    /// Its node was not ejected when it began.
    was_in: bool,
    resent: bool,
}

/// How long one waits for its turn before it looks whether its node is still asked.
const TURN_PAUSE: Duration = Duration::from_millis(50);

impl Flight {
    /// Gives it to a lane, or has it wait for its turn.
    fn take_off(&mut self, pools: &[Arc<Pool>], mailbox: &Arc<Mailbox>, now: Instant) {
        let (exchange, times) = (&self.exchange, self.times());
        let pool = &pools[exchange.node];
        if let Some(submitted) = pool.begin_solo(exchange, times, mailbox, now) {
            self.stage = Stage::Submitted(submitted);
            return;
        }
        self.stage = match pool.try_permit() {
            Some(permit) => Stage::Submitted(pool.submit(exchange, times, permit, mailbox)),
            None => Stage::Waiting(Box::pin(pool.clone().permit())),
        };
    }

    fn times(&self) -> Times {
        Times {
            patience: self.exchange.patience(self.begun),
            limit: self.limit,
            movable: self.movable,
        }
    }

    /// True if its node was ejected since it began.
    fn is_gone(&self, pools: &[Arc<Pool>]) -> bool {
        self.was_in && !pools[self.exchange.node].member.is_in()
    }
}

enum Stage {
    New,
    /// Too many are outstanding: it waits for its turn.
    Waiting(Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>),
    Submitted(Submitted),
}

/// An operation and its mailbox, seen to when the result is there, or the caller has gone away.
struct Driven<'a, O: Operation> {
    operation: &'a mut O,
    flights: Vec<Flight>,
    mailbox: Arc<Mailbox>,
    done: bool,
}

impl<O: Operation> Drop for Driven<'_, O> {
    fn drop(&mut self) {
        if !self.done {
            self.mailbox.close(self.operation.abandon(now()));
        }
        // What still waits for its turn is not sent.
        for flight in &self.flights {
            if let Stage::Waiting(_) = flight.stage {
                let id = flight.exchange.id;
                let what = What::Failed(Failure::Busy);
                self.mailbox.post(Event { id, what });
            }
        }
    }
}

/// Drives `operation` until it is done, over the pools of its ring.
pub(super) async fn drive(
    operation: &mut impl Operation,
    pools: &[Arc<Pool>],
    options: &ClientOptions,
) {
    let (op, limit) = (operation.op(), operation.deadline());
    // Counts how a flight ended. What is abandoned is not counted.
    let tell = |flight: &Flight, outcome: Result<(), Failure>, at: Instant| {
        if let Some(metrics) = &options.metrics {
            let name = &pools[flight.exchange.node].member.name;
            metrics.request(
                name,
                op,
                outcome,
                at.saturating_duration_since(flight.begun),
            );
        }
    };
    let mut driven = Driven {
        operation,
        flights: Vec::new(),
        mailbox: Arc::default(),
        done: false,
    };
    let Driven {
        operation,
        flights,
        mailbox,
        done,
    } = &mut driven;
    let mailbox = &*mailbox;
    let mut todo = Todo::default();
    let mut events = Vec::new();
    let mut timer = None;
    let mut at = now();
    loop {
        if !todo.done {
            operation.step(at, &mut todo);
            for exchange in todo.send.drain(..) {
                let mut flight = Flight {
                    stage: Stage::New,
                    begun: at,
                    limit,
                    movable: op == Op::Get && exchange.repeatable && !exchange.must_send,
                    was_in: pools[exchange.node].member.is_in(),
                    exchange,
                    resent: false,
                };
                flight.take_off(pools, mailbox, at);
                flights.push(flight);
            }
        }
        if todo.done {
            if !std::mem::replace(done, true) {
                mailbox.close(operation.abandon(at));
            }
            // What lanes have, they send.
            flights.retain(|flight| {
                matches!(flight.stage, Stage::Waiting(_))
                    && flight.exchange.must_send
                    && at < flight.limit
            });
            if flights.is_empty() {
                return;
            }
        }
        let until = until(flights, &todo, at);
        wait(flights, pools, mailbox, &mut events, &mut timer, until).await;
        at = now();
        for Event { id, what } in events.drain(..) {
            let found = flights.iter().position(|flight| flight.exchange.id == id);
            let (Some(found), false) = (found, todo.done) else {
                continue;
            };
            let flight = &mut flights[found];
            let mut on_reply = |reply, last| operation.on_reply(id, reply, last, at);
            let told = match what {
                What::Reply(reply) => on_reply(reply, true).map_err(|Broken| Failure::Garbage),
                What::Replies(replies) => {
                    let count = replies.len();
                    let mut replies = replies.into_iter().enumerate();
                    let told = replies.try_for_each(|(at, reply)| on_reply(reply, at + 1 == count));
                    told.map_err(|Broken| Failure::Garbage)
                }
                // It is stepped, and ends.
                What::Over => continue,
                What::Moved if !flight.is_gone(pools) => {
                    flight.take_off(pools, mailbox, at);
                    continue;
                }
                What::Lost { sent }
                    if !flight.resent
                        && (flight.exchange.repeatable || !sent)
                        && at < flight.limit
                        && !flight.is_gone(pools) =>
                {
                    flight.resent = true;
                    flight.take_off(pools, mailbox, at);
                    continue;
                }
                What::Lost { .. } | What::Moved => Err(Failure::Closed),
                What::Failed(failure) => Err(failure),
            };
            let flight = flights.swap_remove(found);
            tell(&flight, told, at);
            if let Err(failure) = told {
                // The lane says what makes no sense.
                if let (Failure::Garbage, Stage::Submitted(lane)) = (failure, &flight.stage) {
                    lane.gauge.condemn();
                }
                operation.on_failure(id, failure, at);
            }
        }
        flights.retain(|flight| {
            let busy = matches!(flight.stage, Stage::Waiting(_))
                && (at >= flight.limit || flight.is_gone(pools));
            let id = flight.exchange.id;
            if busy && !todo.done {
                tell(flight, Err(Failure::Busy), at);
                operation.on_failure(id, Failure::Busy, at);
            } else if busy {
                let what = What::Failed(Failure::Busy);
                mailbox.post(Event { id, what });
            }
            !busy
        });
    }
}

/// When to look even if nothing happens. Lanes tell when the time of what they have is over; only what comes before, or is on
/// no lane, needs a timer.
fn until(flights: &[Flight], todo: &Todo, now: Instant) -> Option<Instant> {
    let waits = |flight: &Flight| matches!(flight.stage, Stage::Waiting(_));
    let limit = flights.iter().filter(|flight| !waits(flight));
    let limit = limit.map(|flight| flight.limit).min();
    let wake_at = if todo.done { None } else { todo.wake_at };
    let wake_at = wake_at.filter(|&at| limit.is_none_or(|limit| at < limit));
    let turn = flights.iter().filter(|flight| waits(flight));
    let turn = turn.map(|flight| flight.limit.min(now + TURN_PAUSE)).min();
    wake_at.into_iter().chain(turn).min()
}

/// Waits for an event, for the turn of a flight that waits, or until it is time to look.
async fn wait(
    flights: &mut [Flight],
    pools: &[Arc<Pool>],
    mailbox: &Arc<Mailbox>,
    events: &mut Vec<Event>,
    timer: &mut Option<Pin<Box<Sleep>>>,
    until: Option<Instant>,
) {
    if let Some(until) = until {
        match timer {
            Some(timer) => timer.as_mut().reset(until.into()),
            None => *timer = Some(Box::pin(sleep_until(until.into()))),
        }
    }
    poll_fn(|cx: &mut Context<'_>| {
        let mut poll = drive_solos(flights, mailbox, events, cx);
        for flight in &mut *flights {
            if let Stage::Waiting(turn) = &mut flight.stage
                && let Poll::Ready(permit) = turn.as_mut().poll(cx)
            {
                let pool = &pools[flight.exchange.node];
                let submitted = pool.submit(&flight.exchange, flight.times(), permit, mailbox);
                flight.stage = Stage::Submitted(submitted);
                poll = Poll::Ready(());
            }
        }
        if until.is_some()
            && let Some(timer) = timer
            && timer.as_mut().poll(cx).is_ready()
        {
            poll = Poll::Ready(());
        }
        poll
    })
    .await
}

/// Takes the events that have come, after those that are the caller's own to fetch.
fn drive_solos(
    flights: &mut [Flight],
    mailbox: &Mailbox,
    events: &mut Vec<Event>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut all_solo = !flights.is_empty();
    for flight in flights {
        let solo = match &mut flight.stage {
            Stage::Submitted(Submitted { solo, .. }) => solo.as_mut(),
            Stage::New | Stage::Waiting(_) => None,
        };
        all_solo &= solo.is_some_and(|solo| solo.poll(cx).is_pending());
    }
    // Nothing comes but by their own doing.
    if all_solo {
        return Poll::Pending;
    }
    mailbox.poll_take(events, cx)
}
