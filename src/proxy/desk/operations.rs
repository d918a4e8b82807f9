//! Operations of the client's core, which go on when something has come for them.

use std::cmp::Reverse;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use client_core::error::Failure;

use super::Desk;
use super::parts::{Clients, Op, ms, wake};
use crate::command::Output;
use crate::proxy::carry::{Event, Over, Seat};
use crate::proxy::lane::{Owner, Replies, Ticket};
use crate::proxy::replies::LARGE;
use crate::proxy::verbs::{self, Job};
use crate::state::ConnId;

impl Desk {
    /// Begins an operation of a pool; gives the reply if it is there at once.
    pub(in crate::proxy) fn begin(
        &mut self,
        pool: usize,
        job: Job,
        client: Option<(ConnId, u32)>,
    ) -> Option<Output<'static>> {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seat = Seat::new(self.now, unix.unwrap_or_default().as_secs());
        let view = &self.views[pool];
        let over = Over {
            at: pool,
            pool: view.pool.clone(),
            now: view.now.clone(),
        };
        self.generation = self.generation.wrapping_add(1);
        let op = self.ops.insert(Op {
            generation: self.generation,
            future: Box::pin(verbs::serve(seat.clone(), over, job)),
            seat,
            client,
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
        let (generation, client) = (op.generation, op.client);
        let slot = client.map_or(0, |(conn, _)| conn.slot);
        for departure in op.seat.take_departures() {
            let exchange = departure.exchange;
            let conn = ConnId {
                slot,
                generation: 0,
            };
            let owner = Owner::Flight {
                op: at,
                generation,
                flight: departure.flight,
            };
            let ring = &self.views[departure.pool].now.ring;
            if exchange.node >= ring.members.len() {
                self.ops[at]
                    .seat
                    .tell(departure.flight, Event::Failed(Failure::Connect));
                self.make_due(at);
                continue;
            }
            let lane = self.lane_to(departure.pool, exchange.node, conn, false);
            let out = self.out(lane);
            match exchange.request.len() {
                LARGE.. => out.shared(exchange.request),
                _ => out.bytes(&exchange.request),
            }
            let left = exchange.deadline.saturating_duration_since(self.now);
            self.push(
                lane,
                Replies::Some(exchange.expect),
                owner,
                self.now_ms + ms(left).max(1),
            );
            self.ops[at].flights.push((departure.flight, lane));
        }
        let op = &mut self.ops[at];
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
                self.ops.remove(at);
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
            if let (Some(output), Some((conn, number))) = (self.poll(at), client)
                && let Some(owed) = clients.owed(conn)
            {
                owed.answer_output(number, output, &mut self.spares);
                wake(&mut self.woken, owed, conn);
            }
        }
    }
}
