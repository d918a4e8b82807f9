//! One connection: its socket, its session, and what is left over from one wakeup to the next.
//!
//! ```text
//!  socket --> shared read buffer (or the value's own chunk) --> session --> shared output --> socket
//!                     | what is not consumed                       | what the peer does not take
//!                     v                                            v
//!                  conn.input                                  conn.output
//! ```
//!
//! N1. An idle connection owns no buffer: `input` and `output` exist only while a command or a reply is incomplete.
//! N2. A connection whose output is not empty is not read from.
//! N3. Events come at edges: `readable` stays true until a read came back short or would block, so nothing that has
//!     arrived is forgotten. A short read tells nothing when the end of the stream was announced with the bytes, nor
//!     when it only emptied what TLS had decrypted.
//! N4. A turn reads at most [`TURN_BYTES_MAX`] bytes and runs at most `-R` commands.
//! N5. What TLS has encrypted and the peer has not taken counts as output (N2).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::peers::Proof;
use super::stream::Stream;
use crate::command::{ConnInfo, ConnState, Ctx, Next, Output, Registry, Session};
use crate::settings::WireProtocol;

/// Bytes one connection may read in one turn, when others may be waiting.
const TURN_BYTES_MAX: usize = 256 << 10;
/// What a read counts for at least: a turn ends even if TLS finds nothing to read in all that comes.
const READ_BYTES_MIN: usize = 4 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Conn<'c> {
    stream: Stream,
    pub(super) info: Arc<ConnInfo>,
    session: Session<'c>,
    /// Bytes read and not yet consumed: less than the worker's buffer holds.
    input: Box<[u8]>,
    /// Replies the peer has not taken.
    output: Option<Box<Output<'c>>>,
    pub(super) readable: bool,
    /// The event that told of the last bytes told of the end too: no other will come.
    pub(super) half_closed: bool,
    /// The peer has said that it sends no more.
    ended: bool,
    /// To be closed when the output is taken.
    closing: bool,
    /// It stands in the worker's queue.
    pub(super) queued: bool,
    /// Its entry among the proven peers, while there is UDP.
    pub(super) proof: Option<Proof>,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Wait for an event.
    Wait,
    /// Another turn, after the others.
    Again,
    /// Another turn, when its session's password is checked.
    Verify,
    /// Close it.
    Close,
}

impl<'c> Conn<'c> {
    pub(super) fn new(stream: Stream, info: Arc<ConnInfo>, protocol: WireProtocol) -> Self {
        Conn {
            stream,
            info,
            session: Session::speaking(protocol),
            input: Box::default(),
            output: None,
            // What came before the registration makes no edge.
            readable: true,
            half_closed: false,
            ended: false,
            closing: false,
            queued: false,
            proof: None,
        }
    }

    /// Serves the connection until it has to wait, or its turn is over. `buffer` and `out` are the worker's; `out` is
    /// empty before and after.
    pub(super) fn turn(&mut self, ctx: Ctx<'c>, buffer: &mut [u8], out: &mut Output<'c>) -> Turn {
        let owned = self.owned_bytes();
        let turn = self.try_turn(ctx, buffer, out);
        ctx.shared
            .connections
            .count_buffer(owned, self.owned_bytes());
        match turn {
            Ok(turn) => {
                self.info.set_state(match turn {
                    _ if self.output.is_some() => ConnState::Write,
                    _ if self.session.is_waiting_for_body() => ConnState::Nread,
                    _ => ConnState::Read,
                });
                turn
            }
            Err(error) => {
                log::debug!("{}: closed: {error}", self.info.addr);
                out.clear();
                Turn::Close
            }
        }
    }

    fn try_turn(
        &mut self,
        ctx: Ctx<'c>,
        buffer: &mut [u8],
        out: &mut Output<'c>,
    ) -> io::Result<Turn> {
        if let Some(output) = &mut self.output {
            if !flush(&mut self.stream, output, ctx)? {
                return Ok(Turn::Wait);
            }
            self.output = None;
        }
        if !self.stream.flush()? {
            return Ok(Turn::Wait);
        }
        if self.closing {
            return Ok(Turn::Close);
        }
        let mut budget = ctx.shared.settings.reqs_per_event.max(1);
        let mut bytes_left = TURN_BYTES_MAX;
        // What an earlier turn left over comes first.
        let mut unread = 0..self.input.len();
        buffer[unread.clone()].copy_from_slice(&self.input);
        self.input = Box::default();
        let mut drive_now = unread.start < unread.end || self.session.has_own_work() || self.ended;
        let turn = loop {
            if !drive_now {
                if !self.readable {
                    if self.session.is_waiting_for_body() {
                        self.stream.acknowledge();
                    }
                    break Turn::Wait;
                }
                if bytes_left == 0 {
                    break Turn::Again;
                }
                if unread.start > 0 {
                    buffer.copy_within(unread.clone(), 0);
                    unread = 0..unread.len();
                }
                let n = self.read(buffer, &mut unread)?;
                ctx.stats.general.bytes_read.add(n as u64);
                bytes_left = bytes_left.saturating_sub(n.max(READ_BYTES_MIN));
                if n == 0 && !self.ended {
                    continue;
                }
            }
            drive_now = false;
            let before = budget;
            let drive = self
                .session
                .drive(ctx, &buffer[unread.clone()], &mut budget, out);
            if budget < before {
                self.info.last_command.store(ctx.now.0, Relaxed);
            }
            unread.start += drive.consumed;
            match drive.next {
                Next::Read if self.ended => break Turn::Close,
                Next::Read => {}
                Next::Flush => {
                    drive_now = flush(&mut self.stream, out, ctx)?;
                    if !drive_now {
                        break Turn::Wait;
                    }
                }
                Next::Yield => {
                    ctx.stats.general.conn_yields.inc();
                    break Turn::Again;
                }
                Next::Verify => break Turn::Verify,
                Next::Close => break Turn::Close,
            }
        };
        if turn == Turn::Close {
            unread = 0..0;
        }
        self.input = buffer[unread].into();
        if !flush(&mut self.stream, out, ctx)? {
            if !out.is_empty() {
                self.output = Some(Box::new(std::mem::take(out)));
            }
            // Its peer gets the replies before it is closed.
            self.closing = turn == Turn::Close;
            return Ok(Turn::Wait);
        }
        Ok(turn)
    }

    /// Reads once, into the value being received or else behind the bytes in `buffer` not yet used; gives how many
    /// bytes came.
    fn read(&mut self, buffer: &mut [u8], unread: &mut Range<usize>) -> io::Result<usize> {
        let room = &mut buffer[unread.end..];
        let spare = if unread.start == unread.end {
            self.session.spare()
        } else {
            None
        };
        let direct = spare.as_ref().map_or(0, |spare| spare.len());
        let asked = direct + room.len();
        let read = match spare {
            Some(spare) => self
                .stream
                .read_vectored(&mut [IoSliceMut::new(spare), IoSliceMut::new(room)]),
            None => self.stream.read(room),
        };
        match read {
            Ok(0) => {
                self.ended = true;
                self.readable = false;
                Ok(0)
            }
            Ok(n) => {
                self.session.advance(n.min(direct));
                unread.end += n.saturating_sub(direct);
                self.readable = n == asked || self.half_closed || !self.stream.is_drained();
                Ok(n)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(0)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Calls `wake` when the password that the session waits for is checked.
    pub(super) fn when_verified(&self, wake: Box<dyn FnOnce() + Send>) {
        if let Some(ticket) = self.session.verification() {
            ticket.when_answered(wake);
        }
    }

    /// Takes its buffers out of the counts, before it is dropped.
    pub(super) fn forget_buffers(&self, connections: &Registry) {
        connections.count_buffer(self.owned_bytes(), 0);
    }

    /// Bytes of input it keeps.
    fn owned_bytes(&self) -> usize {
        self.input.len()
    }
}

/// Writes until all is written (true) or the socket takes no more (false).
fn flush<'c>(stream: &mut Stream, out: &mut Output<'c>, ctx: Ctx<'c>) -> io::Result<bool> {
    while !out.is_empty() {
        let written = match out.plain() {
            Some(bytes) => stream.write(bytes),
            None => {
                let mut slices: Vec<IoSlice<'_>> = Vec::new();
                out.slices(&mut slices);
                stream.write_vectored(&slices)
            }
        };
        match written {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => {
                ctx.stats.general.bytes_written.add(n as u64);
                out.advance(n);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.flush()
}
