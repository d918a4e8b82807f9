//! Operations of the client's core, which go on when something has come for them.

use std::cmp::Reverse;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use client_core::error::Failure;

use super::parts::{Client, Clients, Op, Read, ms, wake};
use super::{Desk, Place};
use crate::command::Output;
use crate::proxy::carry::{Departure, Event, Over, Seat};
use crate::proxy::course::{Course, Warm};
use crate::proxy::frame::{self, Progress, Shape};
use crate::proxy::lane::{Owner, Replies, Ticket};
use crate::proxy::replies::{LARGE, Owed};
use crate::proxy::routes::Moving;
use crate::proxy::verbs::{self, Job};
use crate::state::ConnId;

/// Operations that nobody waits for, of a worker, and the bytes of their requests: what is more is left out.
const BESIDES_MAX: usize = 256;
const BESIDE_BYTES_MAX: usize = 4 << 20;

impl Desk {
    /// A pool as operations see it. `is_hasty`: another pool is asked when a node of it fails.
    fn over(&self, pool: usize, is_hasty: bool) -> Over {
        let view = &self.views[pool];
        Over {
            pool: view.pool.clone(),
            now: view.now.clone(),
            options: match is_hasty {
                true => view.pool.hasty.clone(),
                false => view.pool.options.clone(),
            },
        }
    }

    /// What a route does with keys that are there.
    pub(in crate::proxy) fn course(&self, place: Place) -> Course {
        let route = &self.plan.routes[place.route];
        let spec = &route.spec;
        let is_hasty = spec.gutter.is_some();
        let over = |pool| self.over(pool, is_hasty);
        let mut course = Course {
            gutter: spec.gutter.map(|gutter| self.over(gutter.pool, false)),
            split: spec.split,
            route: Some(route.clone()),
            ..Course::over(over(spec.pool), self.control.clone())
        };
        course.warm = spec.warm.map(|pool| Warm {
            over: self.over(pool, false),
            keeps: true,
        });
        if let Some(migration) = spec.migration {
            let old = std::mem::replace(&mut course.main, over(migration.to));
            match place.moving {
                Moving::Moved => {
                    course.warm = Some(Warm {
                        over: old,
                        keeps: false,
                    });
                }
                Moving::Soon => course.deletes = vec![std::mem::replace(&mut course.main, old)],
                Moving::Stays => course.main = old,
            }
        }
        if spec.delete_ack {
            course.told = spec
                .delete_to
                .iter()
                .map(|&pool| self.over(pool, false))
                .collect();
        }
        course
    }

    /// All pools, as operations see them, that `flush_all` empties: but for those whose routes are read only.
    pub(in crate::proxy) fn pools_to_flush(&self) -> Vec<Over> {
        let pools = 0..self.views.len();
        let is_flushed = |pool: &usize| {
            let mut routes = self
                .plan
                .routes
                .iter()
                .filter(|route| route.spec.uses(*pool));
            let is_unused = routes.clone().next().is_none();
            is_unused || routes.any(|route| !route.spec.read_only)
        };
        pools
            .filter(is_flushed)
            .map(|pool| self.over(pool, false))
            .collect()
    }

    /// All pools, as operations see them.
    pub(in crate::proxy) fn all_pools(&self) -> Vec<Over> {
        (0..self.views.len())
            .map(|pool| self.over(pool, false))
            .collect()
    }

    /// A pool and no other.
    pub(in crate::proxy) fn course_over(&self, over: Over) -> Course {
        Course::over(over, self.control.clone())
    }

    /// Begins an operation for a client; gives the reply if it is there at once.
    pub(in crate::proxy) fn begin(
        &mut self,
        course: Course,
        job: Job,
        (conn, number): (ConnId, u32),
    ) -> Option<Output<'static>> {
        let client = Client {
            conn,
            number,
            part: None,
        };
        self.begin_for(course, job, Some(client), Duration::ZERO)
    }

    /// Begins one for a client whose reply is that, or a part of it.
    pub(in crate::proxy) fn begin_part(
        &mut self,
        course: Course,
        job: Job,
        (conn, number, part): (ConnId, u32, Option<u16>),
        owed: &mut Owed<'_>,
    ) {
        let client = Client { conn, number, part };
        if let Some(output) = self.begin_for(course, job, Some(client), Duration::ZERO) {
            self.put_answer(client, output, owed);
        }
    }

    /// Begins one that nobody waits for.
    pub(in crate::proxy) fn begin_unawaited(&mut self, course: Course, job: Job) {
        self.begin_for(course, job, None, Duration::ZERO);
    }

    /// Sends a request to a pool beside its own, without waiting: false if too much of that is under way.
    pub(in crate::proxy) fn beside(&mut self, pool: usize, job: Job) -> bool {
        let fits = self.besides < BESIDES_MAX && self.beside_bytes + job.len() <= BESIDE_BYTES_MAX;
        if fits {
            let course = self.course_over(self.over(pool, false));
            self.begin_unawaited(course, job);
        }
        fits
    }

    /// Begins an operation whose request came so long ago.
    pub(super) fn begin_for(
        &mut self,
        course: Course,
        job: Job,
        client: Option<Client>,
        ago: Duration,
    ) -> Option<Output<'static>> {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seat = Seat::new(self.now, unix.unwrap_or_default().as_secs(), ago);
        self.generation = self.generation.wrapping_add(1);
        let bytes = job.len();
        self.op_bytes += bytes;
        if client.is_none() {
            self.besides += 1;
            self.beside_bytes += bytes;
        }
        let op = self.ops.insert(Op {
            generation: self.generation,
            future: Box::pin(verbs::serve(seat.clone(), course, job)),
            seat,
            client,
            bytes,
            flights: Vec::new(),
            is_due: false,
        });
        self.poll(op)
    }

    /// Goes on with an operation as far as it goes.
    fn poll(&mut self, at: usize) -> Option<Output<'static>> {
        let op = &mut self.ops[at];
        op.is_due = false;
        op.seat.set_now(self.now);
        let polled = op
            .future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        for departure in op.seat.take_departures() {
            self.depart(at, departure);
        }
        let op = &mut self.ops[at];
        let generation = op.generation;
        for (flight, watch) in op.seat.take_watches() {
            let lane = op.flights.iter().find(|(other, _)| *other == flight);
            let lane = lane.map(|(_, lane)| *lane);
            let tickets = lane.and_then(|lane| self.lanes.get_mut(lane));
            let is_of = |ticket: &&mut Ticket| matches!(ticket.owner, Owner::Flight { op, generation: of, flight: other } if (op, of, other) == (at, generation, flight));
            let ticket = tickets.and_then(|lane| lane.tickets.iter_mut().find(is_of));
            match ticket {
                Some(ticket) => ticket.watch = Some(watch),
                None => watch.failed(Failure::Closed),
            }
        }
        let op = &mut self.ops[at];
        let condemned: Vec<usize> = op
            .seat
            .take_condemned()
            .into_iter()
            .filter_map(|flight| op.flights.iter().find(|(other, _)| *other == flight))
            .map(|(_, lane)| *lane)
            .collect();
        let result = match polled {
            Poll::Ready(output) => {
                let op = self.ops.remove(at);
                self.op_bytes -= op.bytes;
                if op.client.is_none() {
                    self.besides -= 1;
                    self.beside_bytes -= op.bytes;
                }
                Some(output)
            }
            Poll::Pending => {
                if let Some(wake_at) = op.seat.wake_at() {
                    self.timers.push(Reverse((wake_at, at, generation)));
                }
                None
            }
        };
        for lane in condemned {
            // Its clients hear of it with the next tick.
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.is_broken = true;
            }
        }
        result
    }

    /// Puts an exchange of an operation on its way.
    fn depart(&mut self, at: usize, departure: Departure) {
        let Departure {
            flight,
            pool,
            member,
            exchange,
        } = departure;
        let op = &self.ops[at];
        let (generation, client) = (op.generation, op.client);
        let conn = ConnId {
            slot: client.map_or(0, |client| client.conn.slot),
            generation: 0,
        };
        // The operation may know pools and nodes that are not there any more.
        let Some((view, node)) = self.node_of(&pool, &member) else {
            self.ops[at].seat.tell(flight, Event::Failed(Failure::Busy));
            return self.make_due(at);
        };
        let lane = self.lane_to(view, node, conn, false);
        if client.is_none() && self.lanes[lane].is_full() {
            self.ops[at].seat.tell(flight, Event::Failed(Failure::Busy));
            return self.make_due(at);
        }
        let out = self.out(lane);
        match exchange.request.len() {
            LARGE.. => out.shared(exchange.request),
            _ => out.bytes(&exchange.request),
        }
        let left = exchange.deadline.saturating_duration_since(self.now);
        let owner = Owner::Flight {
            op: at,
            generation,
            flight,
        };
        let due_ms = self.now_ms + ms(left).max(1);
        self.push(lane, Replies::Some(exchange.expect), owner, due_ms);
        self.ops[at].flights.push((flight, lane));
    }

    pub(super) fn make_due(&mut self, at: usize) {
        if let Some(op) = self.ops.get_mut(at)
            && !op.is_due
        {
            op.is_due = true;
            self.due.push(at);
        }
    }

    /// Goes on with all operations for which something has come.
    pub(super) fn run<'c>(&mut self, clients: &mut impl Clients<'c>) {
        while let Some(at) = self.due.pop() {
            let Some(op) = self.ops.get_mut(at) else {
                continue;
            };
            let client = op.client;
            if let (Some(output), Some(client)) = (self.poll(at), client) {
                self.answer(client, output, clients);
            }
        }
        if !self.waiting.is_empty() {
            for conn in std::mem::take(&mut self.waiting) {
                if let Some(owed) = clients.owed(conn) {
                    wake(&mut self.woken, owed, conn);
                }
            }
        }
    }

    /// Gives a client the reply of an operation.
    pub(super) fn answer<'c>(
        &mut self,
        client: Client,
        output: Output<'static>,
        clients: &mut impl Clients<'c>,
    ) {
        if let Some(owed) = clients.owed(client.conn) {
            self.put_answer(client, output, owed);
            wake(&mut self.woken, owed, client.conn);
        }
    }

    fn put_answer(&mut self, client: Client, output: Output<'static>, owed: &mut Owed<'_>) {
        let Client { number, part, .. } = client;
        match part {
            None => owed.answer_output(number, output, &mut self.spares),
            Some(part) => {
                let bytes = output.into_bytes();
                let mut progress = Progress::default();
                match frame::end(Shape::Values, &bytes, &mut progress) {
                    Ok(Some(_)) if !frame::is_refusal(&bytes) => {
                        let blocks = &progress.blocks[..];
                        owed.answer_part(number, part, (bytes, blocks), &mut self.spares);
                    }
                    _ => {
                        let line = protocol::ErrorLine::Backend.line();
                        owed.fail_part(number, Some(line), &mut self.spares);
                    }
                }
            }
        }
    }

    /// Asks anew for a read that was sent so long ago, and was not answered. False if there is nobody else to ask: a node that is silent
    /// or makes no sense is not asked again.
    pub(super) fn ask_anew<'c>(
        &mut self,
        read: Read,
        client: Client,
        (failure, ago): (Failure, Duration),
        clients: &mut impl Clients<'c>,
    ) -> bool {
        let Some(route) = self.route_of(&read.key) else {
            return false;
        };
        let is_lost = matches!(failure, Failure::Closed | Failure::Connect);
        if !is_lost && self.plan.routes[route].spec.gutter.is_none() {
            return false;
        }
        let place = self.place(route, &read.key);
        self.control.counts.repeated.fetch_add(1, Relaxed);
        let course = self.course(place);
        if let Some(output) = self.begin_for(course, read.job, Some(client), ago) {
            self.answer(client, output, clients);
        }
        true
    }
}
