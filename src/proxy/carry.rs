//! The client's core on a worker: its operations as futures that never wait by themselves.
//!
//! ```text
//!  async fn of verbs/ -- carry(operation) --exchanges--> Seat --> lanes
//!                                '--<--replies, failures--- Seat <-- lanes
//! ```
//!
//! The desk polls a future when something has come for it, or its time has. No runtime is needed: a future is here what lets
//! an operation own the keys that it borrows.
//!
//! Cy1. An exchange ends once, with its last reply or a failure. What comes for one that its operation has left is dropped.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use client_core::error::Failure;
use client_core::health::Member;
use client_core::operation::Context;
use client_core::options::ClientOptions;
use client_core::reply::Reply;
use client_core::unawaited::Unawaited;
use client_core::{Exchange, Operation, Todo};

use super::plan::{Pool, PoolNow};

/// What has come for an exchange.
#[derive(Debug)]
pub(super) enum Event {
    Reply(Reply, bool),
    Failed(Failure),
}

/// An exchange on its way to a lane to one of this pool's nodes.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) flight: u32,
    pub(super) pool: Arc<Pool>,
    /// By the ring that the operation knows, which may not be the pool's any more.
    pub(super) member: Arc<Member>,
    pub(super) exchange: Exchange,
}

/// Where a future and the desk meet.
#[derive(Debug)]
pub(super) struct Seat(RefCell<Table>);

#[derive(Debug)]
struct Table {
    now: Instant,
    unix_s: u64,
    /// How much of its time had gone when it began.
    ago: Duration,
    next_flight: u32,
    departures: Vec<Departure>,
    events: Vec<(u32, Event)>,
    wake_at: Option<Instant>,
    /// Flights whose lane makes no sense.
    condemned: Vec<u32>,
    watches: Vec<(u32, Unawaited)>,
}

/// A pool as an operation sees it.
#[derive(Debug, Clone)]
pub(super) struct Over {
    pub(super) pool: Arc<Pool>,
    pub(super) now: Arc<PoolNow>,
    /// Those of the pool, or those for who has another pool to ask.
    pub(super) options: Arc<ClientOptions>,
}

impl Seat {
    /// That of a request which came so long `ago`.
    pub(super) fn new(now: Instant, unix_s: u64, ago: Duration) -> Rc<Self> {
        Rc::new(Seat(RefCell::new(Table {
            now,
            unix_s,
            ago,
            next_flight: 0,
            departures: Vec::new(),
            events: Vec::new(),
            wake_at: None,
            condemned: Vec::new(),
            watches: Vec::new(),
        })))
    }

    pub(super) fn set_now(&self, now: Instant) {
        self.0.borrow_mut().now = now;
    }

    pub(super) fn tell(&self, flight: u32, event: Event) {
        self.0.borrow_mut().events.push((flight, event));
    }

    pub(super) fn take_departures(&self) -> Vec<Departure> {
        std::mem::take(&mut self.0.borrow_mut().departures)
    }

    pub(super) fn take_condemned(&self) -> Vec<u32> {
        std::mem::take(&mut self.0.borrow_mut().condemned)
    }

    pub(super) fn take_watches(&self) -> Vec<(u32, Unawaited)> {
        std::mem::take(&mut self.0.borrow_mut().watches)
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.0.borrow().wake_at
    }

    /// What an operation is given that begins now.
    pub(super) fn context(&self, over: &Over) -> Context {
        let table = self.0.borrow();
        let options = over.options.clone();
        let ring = over.now.ring.clone();
        let mut context = Context::new(ring, options, table.now, table.unix_s);
        let left = over.options.request_timeout.saturating_sub(table.ago);
        context.deadline = table.now + left.max(over.options.attempt_timeout);
        context
    }

    /// Wall-clock seconds, when the request began.
    pub(super) fn unix_s(&self) -> u64 {
        self.0.borrow().unix_s
    }

    pub(super) fn now(&self) -> Instant {
        self.0.borrow().now
    }

    /// Waits for an event, or for this time. A time that is over by `now` comes with the worker's next turn: in this one nothing
    /// would be otherwise, and the worker has others to serve.
    async fn wait(&self, until: Option<Instant>, now: Instant, events: &mut Vec<(u32, Event)>) {
        poll_fn(|_| {
            let mut table = self.0.borrow_mut();
            events.append(&mut table.events);
            let has_come = |at: Instant| table.now >= at && table.now > now;
            if !events.is_empty() || until.is_some_and(has_come) {
                table.wake_at = None;
                return Poll::Ready(());
            }
            table.wake_at = until;
            Poll::Pending
        })
        .await
    }
}

/// Carries out an operation over a pool, until it is done.
pub(super) async fn carry<O: Operation>(seat: &Seat, over: &Over, operation: &mut O) {
    let mut todo = Todo::default();
    // The flight of each exchange that is under way, and its id.
    let mut flights: Vec<(u32, u32)> = Vec::new();
    let mut events = Vec::new();
    loop {
        let now = seat.now();
        operation.step(now, &mut todo);
        {
            let mut table = seat.0.borrow_mut();
            for exchange in todo.send.drain(..) {
                let flight = table.next_flight;
                table.next_flight += 1;
                flights.push((flight, exchange.id));
                table.departures.push(Departure {
                    flight,
                    pool: over.pool.clone(),
                    member: over.now.ring.members[exchange.node].clone(),
                    exchange,
                });
            }
            if todo.done {
                for (id, watch) in operation.abandon(now) {
                    let flight = flights.iter().find(|(_, other)| *other == id);
                    let (flight, _) = flight.expect("what is watched is under way");
                    table.watches.push((*flight, watch));
                }
                return;
            }
        }
        seat.wait(todo.wake_at, now, &mut events).await;
        let now = seat.now();
        for (flight, event) in events.drain(..) {
            let Some(at) = flights.iter().position(|(other, _)| *other == flight) else {
                continue;
            };
            let id = flights[at].1;
            let failure = match event {
                Event::Failed(failure) => failure,
                Event::Reply(reply, last) => match operation.on_reply(id, reply, last, now) {
                    Ok(()) if last => {
                        flights.swap_remove(at);
                        continue;
                    }
                    Ok(()) => continue,
                    Err(_) => {
                        seat.0.borrow_mut().condemned.push(flight);
                        Failure::Garbage
                    }
                },
            };
            flights.swap_remove(at);
            operation.on_failure(id, failure, now);
        }
    }
}
