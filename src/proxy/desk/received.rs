//! What comes from nodes: replies are cut from it, and given to whom they belong.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use client_core::error::Failure;
use client_core::reply::whole;
use protocol::binary::{HEADER_LEN, Status};
use protocol::{ErrorLine, reply};

use super::Desk;
use super::parts::{Clients, wake};
use crate::command::Output;
use crate::proxy::carry::Event;
use crate::proxy::frame::{self, Block, Garbage, Progress, Shape};
use crate::proxy::lane::{Hush, Lane, Owner, Replies, Ticket};
use crate::proxy::replies::{LARGE, Piece};
use crate::proxy::uniques::{Uniques, split_line};

impl Desk {
    /// Bytes have come from a node: `came` of them, in `buf`, or where [`Lane::room`] said.
    pub fn received<'c>(
        &mut self,
        at: usize,
        buf: &mut [u8],
        came: usize,
        clients: &mut impl Clients<'c>,
    ) {
        let lane = &mut self.lanes[at];
        lane.heard_ms = self.now_ms;
        let result = if lane.is_partial() {
            let partial = lane.take_partial(came);
            self.cut_partial(at, partial, clients)
        } else {
            self.cut(at, &mut buf[..came], clients).map(|used| {
                if used < came
                    && let Some(lane) = self.lanes.get_mut(at)
                {
                    lane.keep_partial(buf[used..came].to_vec());
                }
            })
        };
        if result.is_err() {
            self.control.counts.garbage.fetch_add(1, Relaxed);
            self.failed(at, Failure::Garbage, clients);
        } else if let Some(lane) = self.lanes.get(at)
            && lane.tickets.is_empty()
            && (lane.is_retired || lane.is_probe)
        {
            self.close(at);
        }
        self.run(clients);
    }

    /// Takes the replies from bytes that were kept.
    fn cut_partial<'c>(
        &mut self,
        at: usize,
        mut partial: Vec<u8>,
        clients: &mut impl Clients<'c>,
    ) -> Result<(), Garbage> {
        let lane = &mut self.lanes[at];
        if lane.progress.wanted > partial.len() {
            lane.keep_partial(partial);
            return Ok(());
        }
        if partial.len() < LARGE {
            let used = self.cut(at, &mut partial, clients)?;
            if used < partial.len()
                && let Some(lane) = self.lanes.get_mut(at)
            {
                partial.drain(..used);
                lane.keep_partial(partial);
            }
            return Ok(());
        }
        // A large reply stays where it is; what follows it is copied.
        let shape = lane.tickets.front().map(Ticket::shape).ok_or(Garbage)?;
        let Some(end) = frame::end(shape, &partial, &mut lane.progress)? else {
            lane.keep_partial(partial);
            return Ok(());
        };
        let mut rest = partial[end..].to_vec();
        partial.truncate(end);
        adapt(&self.lanes[at], &mut partial);
        self.take(at, Piece::Shared(partial.into()), clients)?;
        let used = self.cut(at, &mut rest, clients)?;
        if used < rest.len()
            && let Some(lane) = self.lanes.get_mut(at)
        {
            rest.drain(..used);
            lane.keep_partial(rest);
        }
        Ok(())
    }

    /// Takes all whole replies from the start of `buf`; gives the bytes taken.
    fn cut<'c>(
        &mut self,
        at: usize,
        buf: &mut [u8],
        clients: &mut impl Clients<'c>,
    ) -> Result<usize, Garbage> {
        let mut used = 0;
        while used < buf.len() {
            let Some(lane) = self.lanes.get_mut(at) else {
                return Ok(used);
            };
            // What nobody asked for is no reply.
            let ticket = lane.tickets.front().ok_or(Garbage)?;
            let rest = &mut buf[used..];
            let Some(end) = frame::end(ticket.shape(), rest, &mut lane.progress)? else {
                break;
            };
            if ticket.shape() == Shape::Packet {
                adapt(lane, &mut rest[..end]);
            }
            self.take(at, Piece::Copied(&rest[..end]), clients)?;
            used += end;
        }
        Ok(used)
    }

    /// One reply, which belongs to the lane's first ticket.
    fn take<'c>(
        &mut self,
        at: usize,
        piece: Piece<'_>,
        clients: &mut impl Clients<'c>,
    ) -> Result<(), Garbage> {
        let lane = &mut self.lanes[at];
        let bytes = piece.bytes();
        let ticket = lane.tickets.front_mut().ok_or(Garbage)?;
        let is_last = match (&mut ticket.replies, &ticket.owner) {
            (Replies::One(_), Owner::Login) if bytes != reply::STORED => return Err(Garbage),
            (Replies::One(_), _) => true,
            (Replies::UntilNoop, _) => bytes == reply::MN,
            (Replies::Some(expect), _) => {
                let shared = || match &piece {
                    Piece::Copied(bytes) => Bytes::copy_from_slice(bytes),
                    Piece::Shared(bytes) => bytes.clone(),
                };
                let (mut reply, tag) = whole(bytes, shared).map_err(|_| Garbage)?;
                let (last, place) = expect.take(&reply, tag).ok_or(Garbage)?;
                if let client_core::reply::Reply::Ok(meta) = &mut reply {
                    meta.tag = Some(place);
                }
                if let client_core::reply::Reply::Refused(refusal) = &reply
                    && (expect.is_doubtful()
                        || matches!(refusal, client_core::reply::Refusal::Client(_)))
                {
                    lane.is_broken = true;
                }
                if let Owner::Flight {
                    op,
                    generation,
                    flight,
                } = ticket.owner
                    && self
                        .ops
                        .get(op)
                        .is_some_and(|op| op.generation == generation)
                {
                    self.ops[op].seat.tell(flight, Event::Reply(reply, last));
                    if last {
                        self.ops[op].flights.retain(|(other, _)| *other != flight);
                    }
                    if !self.ops[op].is_due {
                        self.ops[op].is_due = true;
                        self.due.push(op);
                    }
                }
                last
            }
        };
        if let Owner::Client {
            conn,
            number,
            part,
            hush,
            mark,
            shows_unique,
            ..
        } = ticket.owner
        {
            let good = match (ticket.shape(), part) {
                // Without a mark it is about several keys.
                (Shape::Values, None) => match &lane.progress.blocks[..] {
                    [] => true,
                    [block] => mark == 0 || block.mark == mark,
                    _ => mark == 0,
                },
                (Shape::Packet, _) => bytes[12..16] == mark.to_be_bytes(),
                _ => true,
            };
            if !good {
                return Err(Garbage);
            }
            if let Some(owed) = clients.owed(conn) {
                match part {
                    Some(_) if frame::is_refusal(trim(bytes)) => {
                        owed.fail_part(number, Some(ErrorLine::Backend.line()), &mut self.spares);
                    }
                    Some(part) if shows_unique => {
                        let shown = lane.uniques.show_values(bytes, &lane.progress.blocks);
                        let shown = (Bytes::from(shown.0), &shown.1[..]);
                        owed.answer_part(number, part, shown, &mut self.spares);
                    }
                    Some(part) => {
                        let blocks = &lane.progress.blocks;
                        let bytes = match piece {
                            Piece::Copied(bytes) => Bytes::copy_from_slice(bytes),
                            Piece::Shared(bytes) => bytes,
                        };
                        owed.answer_part(number, part, (bytes, blocks), &mut self.spares);
                    }
                    None if is_hushed(hush, bytes) => {
                        owed.answer(number, Piece::NONE, &mut self.spares);
                    }
                    None if shows_unique => {
                        let shown = shown(lane.uniques, ticket.shape(), piece, &lane.progress);
                        owed.answer_output(number, shown, &mut self.spares);
                    }
                    None => owed.answer(number, piece, &mut self.spares),
                }
                wake(&mut self.woken, owed, conn);
            }
        }
        lane.progress.reset();
        if is_last {
            let ticket = lane.tickets.pop_front().expect("just seen");
            self.control.counts.active.fetch_sub(1, Relaxed);
            if let Some(watch) = ticket.watch {
                watch.answered();
            }
            lane.forget_reads();
            let (pool, member) = (lane.pool.clone(), lane.member.clone());
            if let Owner::Probe = ticket.owner {
                self.probed(&pool, &member, true);
            } else if member.is_unwell() {
                self.worked(&pool, &member);
            }
        }
        Ok(())
    }
}

/// Makes a packet what its client is to see: with the opcode that it has sent, and the unique that it knows.
fn adapt(lane: &Lane, reply: &mut [u8]) {
    let ticket = lane.tickets.front();
    if let Some(ticket) = ticket.filter(|ticket| ticket.shape() == Shape::Packet) {
        if let Some(opcode) = ticket.opcode() {
            reply[1] = opcode;
        }
        lane.uniques.show_in_packet(reply);
    }
}

/// A reply in text with the uniques that clients know. Large values stay where they are.
fn shown(uniques: Uniques, shape: Shape, piece: Piece<'_>, progress: &Progress) -> Output<'static> {
    let mut out = Output::new();
    let whole = [Block {
        start: 0,
        end: piece.len() as u32,
        mark: 0,
    }];
    let blocks = match shape {
        Shape::Values => &progress.blocks[..],
        _ => &whole,
    };
    let mut behind = 0;
    for block in blocks {
        let range = block.start as usize..block.end as usize;
        behind = range.end;
        let (line, rest) = split_line(&piece.bytes()[range.clone()]);
        uniques.show_line(shape, line, &mut out.buf);
        match &piece {
            Piece::Shared(bytes) if rest.len() >= LARGE => out.shared(bytes.slice_ref(rest)),
            _ => out.bytes(rest),
        }
    }
    out.bytes(&piece.bytes()[behind..]);
    out
}

fn trim(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r\n").unwrap_or(line)
}

/// True for a nominal reply that a quiet request does not want.
fn is_hushed(hush: Hush, reply: &[u8]) -> bool {
    match hush {
        Hush::Nothing | Hush::Loud(_) => false,
        Hush::Miss => reply.starts_with(b"EN"),
        Hush::Done => reply.starts_with(b"HD") || reply.starts_with(b"VA "),
        Hush::Quiet(opcode) => {
            use protocol::binary::opcode::{GATKQ, GATQ, GETKQ, GETQ};
            let status = reply.get(6..8).unwrap_or_default();
            let hidden = match opcode {
                GETQ | GETKQ | GATQ | GATKQ => Status::NotFound,
                _ => Status::Ok,
            };
            reply.len() >= HEADER_LEN && status == (hidden as u16).to_be_bytes()
        }
    }
}
