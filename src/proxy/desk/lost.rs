//! What does not come: whose it would have been is told.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use client_core::error::Failure;
use client_core::health::Member;
use protocol::binary::{BinaryHead, Status};
use protocol::{ErrorLine, binary, reply};

use super::Desk;
use super::parts::{Client, Clients, Read, ms, wake};
use crate::proxy::carry::Event;
use crate::proxy::frame::Shape;
use crate::proxy::lane::{Hush, Owner, Stage, Ticket};
use crate::proxy::plan::Pool;
use crate::proxy::replies::Piece;

impl Desk {
    /// A lane's connection is lost, or makes no sense.
    pub fn failed<'c>(&mut self, at: usize, failure: Failure, clients: &mut impl Clients<'c>) {
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        let tickets = std::mem::take(&mut lane.tickets);
        let tickets: Vec<_> = tickets
            .into_iter()
            .map(|ticket| (Read::of(lane, &ticket), ticket))
            .collect();
        let waiting = std::mem::take(&mut lane.waiting);
        let (pool, member) = (lane.pool.clone(), lane.member.clone());
        if !tickets.is_empty() {
            self.control.counts.lanes_failed.fetch_add(1, Relaxed);
            log::debug!("proxy: {}: {failure}", member.name);
        }
        if failure == Failure::Connect
            && let Some((view, node)) = self.node_of(&pool, &member)
        {
            self.views[view].now.doubt(node);
        }
        self.close(at);
        for (read, ticket) in tickets {
            self.control.counts.active.fetch_sub(1, Relaxed);
            self.fail((&pool, &member), ticket, read, failure, clients);
        }
        for conn in waiting {
            if let Some(owed) = clients.owed(conn) {
                wake(&mut self.woken, owed, conn);
            }
        }
        self.run(clients);
    }

    /// TLS with a lane's node makes no sense: which the log is told, with its name and the reason.
    pub fn failed_tls<'c>(
        &mut self,
        at: usize,
        error: &dyn std::fmt::Display,
        clients: &mut impl Clients<'c>,
    ) {
        if let Some(lane) = self.lanes.get(at) {
            let failure = lane.member.no_tls(error, &lane.pool.options, self.now);
            self.control.counts.sign_in_fails.fetch_add(1, Relaxed);
            self.failed(at, failure, clients);
        }
    }

    /// True if a lane's node did not let this proxy in a moment ago.
    pub fn is_shut(&self, at: usize) -> bool {
        let lane = self.lanes.get(at);
        lane.is_some_and(|lane| !lane.is_probe && lane.member.is_shut(self.now))
    }

    /// The socket of a lane is to be closed; the lane is gone if its node is, or it was made for a probe.
    pub(super) fn close(&mut self, at: usize) {
        self.closed.push(at);
        let lane = &mut self.lanes[at];
        lane.reset();
        if lane.is_retired || lane.is_probe {
            let was_retired = self.lanes.remove(at).is_retired;
            // Who has waited for it.
            for (other, lane) in self.lanes.iter_mut().filter(|_| was_retired) {
                if lane.stage == Stage::Closed && !lane.out.is_empty() && !lane.is_dirty {
                    lane.is_dirty = true;
                    self.dirty.push(other);
                }
            }
        }
    }

    /// Tells whose a reply would have been that it does not come; a read is asked anew where that may help.
    pub(super) fn fail<'c>(
        &mut self,
        (pool, member): (&Arc<Pool>, &Arc<Member>),
        ticket: Ticket,
        read: Option<Read>,
        failure: Failure,
        clients: &mut impl Clients<'c>,
    ) {
        if let Some(watch) = ticket.watch {
            watch.failed(failure);
        }
        let shape = ticket.replies.shape();
        match ticket.owner {
            Owner::Nobody | Owner::Login => {}
            Owner::Probe => self.probed(pool, member, false),
            Owner::Flight {
                op,
                generation,
                flight,
            } => {
                if self
                    .ops
                    .get(op)
                    .is_some_and(|op| op.generation == generation)
                {
                    self.ops[op].seat.tell(flight, Event::Failed(failure));
                    self.make_due(op);
                }
            }
            Owner::Client {
                conn,
                number,
                part,
                hush,
                mark,
                reads,
                ..
            } => {
                if failure.counts()
                    && let Some((view, node)) = self.node_of(pool, member)
                {
                    let view = &self.views[view];
                    view.now.ring.failed(node, self.now, &view.pool.options);
                }
                if let Some(read) = read
                    && clients.owed(conn).is_some()
                {
                    let client = Client { conn, number, part };
                    // Its time began when it was sent.
                    let due = self.now_ms + ms(pool.options.attempt_timeout);
                    let ago = due.saturating_sub(ticket.due_ms);
                    let ago = Duration::from_millis(ago);
                    if self.ask_anew(read, client, (failure, ago), clients) {
                        return;
                    }
                }
                let misses = reads && pool.spec.misses;
                let counts = &self.control.counts;
                match misses {
                    true => counts.misses_made.fetch_add(1, Relaxed),
                    false => counts.errors.fetch_add(1, Relaxed),
                };
                let Some(owed) = clients.owed(conn) else {
                    return;
                };
                let line = ErrorLine::Backend.line();
                if part.is_some() {
                    owed.fail_part(number, (!misses).then_some(line), &mut self.spares);
                } else {
                    let mut room = Vec::new();
                    let bytes = match (shape, misses, hush) {
                        (Shape::Packet, ..) => {
                            failed_packet(&mut room, hush, mark, misses);
                            &room
                        }
                        (Shape::Values, true, _) => reply::END,
                        (Shape::Meta, true, Hush::Miss) => b"",
                        (Shape::Meta, true, _) => b"EN\r\n",
                        _ => line,
                    };
                    owed.answer(number, Piece::Copied(bytes), &mut self.spares);
                }
                wake(&mut self.woken, owed, conn);
            }
        }
    }
}

/// A packet that tells that no node has answered.
fn failed_packet(out: &mut Vec<u8>, hush: Hush, opaque: u32, misses: bool) {
    let (opcode, quiet) = match hush {
        Hush::Quiet(opcode) => (opcode, true),
        Hush::Loud(opcode) => (opcode, false),
        _ => (0, false),
    };
    let head = BinaryHead {
        opcode,
        quiet,
        opaque,
    };
    match misses {
        true if quiet => {}
        true => binary::error(out, head, Status::NotFound),
        false => binary::error(out, head, ErrorLine::Backend.into()),
    }
}
