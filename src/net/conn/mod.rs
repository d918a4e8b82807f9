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
//! N4. A turn reads at most [`TURN_BYTES_MAX`] bytes, and ends after `-R` commands. Where they are shorter than
//!     [`COMMAND_BYTES`] on the mean more of them may run, as long as one write takes all replies: the write that ends a
//!     turn costs as much as a dozen short commands.
//! N5. What TLS has encrypted and the peer has not taken counts as output (N2).
//! N6. A peer that we hang up on may be sending still. To close a socket with unread bytes resets it, and the reset may
//!     overtake the reply. So the socket is shut for writing first, and what comes is thrown away until the peer closes:
//!     at most [`closing::LINGER_BYTES_MAX`] bytes, for at most [`closing::LINGER_S`] seconds.

mod closing;
mod pack;

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub(in crate::net) use self::closing::Late;
use super::conversation::Conversation;
use super::peers::Proof;
use super::stream::Stream;
use crate::clock::RelTime;
use crate::command::{COMMAND_BYTES, Next, Output};
use crate::events::{Audience, Closed, Shown, Taken, Watch};
use crate::proxy::{Desk, Owed};
use crate::state::{ConnId, ConnInfo, ConnState, Ctx, Hold, Kept, Registry};
use crate::sys::monotonic_ns;

/// Bytes one connection may read in one turn, when others may be waiting.
const TURN_BYTES_MAX: usize = 256 << 10;
/// What a read counts for at least: a turn ends even if TLS finds nothing to read in all that comes.
const READ_BYTES_MIN: usize = 4 << 10;
/// A request that is not complete and shorter is not worth a connection, when memory is short.
const HELD_BYTES: usize = 1 << 10;

/// Seconds in which a TLS handshake must be over, counted from the connection's start. memcached has no bound but
/// `idle_timeout`; one minute is what nginx allows.
const HANDSHAKE_S: u32 = 60;

/// A connection.
#[derive(Debug)]
pub(in crate::net) struct Conn<'c> {
    pub(in crate::net) stream: Stream,
    pub(in crate::net) info: Arc<ConnInfo>,
    session: Conversation<'c>,
    /// Bytes read and not yet consumed: less than the worker's buffer holds.
    input: Box<[u8]>,
    /// Replies the peer has not taken.
    output: Option<Box<Output<'c>>>,
    /// What these keep in item memory; there from the first time on that they did.
    unread: Option<Box<Hold<'c>>>,
    pub(in crate::net) readable: bool,
    /// The event that told of the last bytes told of the end too: no other will come.
    pub(in crate::net) half_closed: bool,
    /// The peer has said that it sends no more.
    ended: bool,
    phase: Phase,
    /// Why it is closed, when it is.
    pub(in crate::net) closed: Closed,
    /// The second in which it is closed, if it is not done by then with what it is at: a handshake, a data block that does
    /// not move, or going.
    pub(in crate::net) deadline: Option<u32>,
    /// When the peer stopped taking replies, by the monotonic clock; 0 while it takes them.
    blocked_ns: u64,
    /// The second in which the last bytes came, or in which it began to wait for those of a data block.
    moved_at: u32,
    /// It stands in the worker's queue.
    pub(in crate::net) queued: bool,
    /// Its entry among the proven peers, while there is UDP.
    pub(in crate::net) proof: Option<Proof>,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Requests are read and answered.
    Serving,
    /// To be closed when the output is taken.
    Closing,
    /// To be hung up on when the output is taken.
    HangingUp,
    /// Shut for writing. So many bytes may still come (N6).
    Lingering(usize),
}

/// What a connection keeps memory for between its turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Held {
    /// Its peer does not take them.
    Replies,
    /// They are not complete.
    Requests,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Turn {
    /// Wait for an event.
    Wait,
    /// Another turn, after the others.
    Again,
    /// Another turn, when its session's password is checked.
    Verify,
    /// Hand it over to who serves watchers.
    Watch,
    /// Close it.
    Close,
}

impl<'c> Conn<'c> {
    pub(in crate::net) fn new(
        stream: Stream,
        info: Arc<ConnInfo>,
        session: Conversation<'c>,
        now: u32,
    ) -> Self {
        Conn {
            deadline: stream.is_handshaking().then_some(now + HANDSHAKE_S),
            moved_at: now,
            stream,
            info,
            session,
            input: Box::default(),
            output: None,
            unread: None,
            blocked_ns: 0,
            // What came before the registration makes no edge.
            readable: true,
            half_closed: false,
            ended: false,
            phase: Phase::Serving,
            closed: Closed::Normal,
            queued: false,
            proof: None,
        }
    }

    /// Tells it its name, by which replies of nodes find it.
    pub(in crate::net) fn is_named(&mut self, id: ConnId) {
        self.session.is_named(id);
    }

    /// What its client is owed by nodes, in a proxy.
    pub(in crate::net) fn owed(&mut self) -> Option<&mut Owed<'c>> {
        self.session.owed()
    }

    /// Notes where its peer comes from, of whom a password will be asked.
    pub(in crate::net) fn note_peer(&mut self) {
        self.session.comes_from(self.stream.peer());
    }

    /// Reads what the coming turn is to begin with, if it is likely to be one request. Gives the bytes in `buffer`, and
    /// what they are about.
    pub(in crate::net) fn read_ahead(&mut self, ctx: Ctx<'c>, buffer: &mut [u8]) -> usize {
        let may_read = self.session.expects_one()
            && self.readable
            && !self.queued
            && self.phase == Phase::Serving
            && self.input.is_empty()
            && self.output.is_none()
            && !matches!(self.stream, Stream::Tls(_));
        if !may_read {
            return 0;
        }
        let mut read = 0..0;
        if self.read(buffer, &mut read).is_err() {
            // The system tells it once; the turn is to find it too.
            self.ended = true;
        }
        ctx.stats.general.bytes_read.add(read.end as u64);
        self.session.foresee(ctx, &buffer[read.clone()]);
        read.end
    }

    /// Asks for the item that the request which was read ahead is about.
    pub(in crate::net) fn fetch_ahead(&mut self, ctx: Ctx<'c>) {
        self.session.fetch_foreseen(ctx);
    }

    /// Serves the connection until it has to wait, or its turn is over. `buffer` and `out` are the worker's; `buffer`
    /// begins with the `read` bytes of [`Conn::read_ahead`], `out` is empty before and after.
    pub(in crate::net) fn turn(
        &mut self,
        ctx: Ctx<'c>,
        buffer: &mut [u8],
        read: usize,
        out: &mut Output<'c>,
        desk: Option<&mut Desk>,
    ) -> Turn {
        let kept = self.kept();
        // As `stats conns` shows whoever asks for it.
        self.info.set_state(ConnState::Parse);
        ctx.cache.events().sights.serves(ctx.ring, self.info.fd);
        let turn = self.try_turn(ctx, buffer, read, out, desk);
        let turn = turn.or_else(|error| {
            log::debug!("{}: closed: {error}", self.info.addr);
            out.clear();
            self.closed = Closed::Error;
            // What TLS cannot read it answers with an alert, which is to arrive.
            let is_told = error.kind() == ErrorKind::InvalidData && self.phase == Phase::Serving;
            if !is_told {
                return Ok(Turn::Close);
            }
            self.show_tls_error(ctx, &error);
            self.output = None;
            self.hang_up(ctx, buffer)
        });
        ctx.shared.connections.count_kept(kept, self.kept());
        if !self.note_unread(ctx) {
            ctx.stats.general.readers_given_way.inc();
            self.closed = Closed::Error;
            return Turn::Close;
        }
        let state = match self.phase {
            Phase::Lingering(_) => ConnState::Closing,
            _ if self.output.is_some() || self.stream.has_unsent() => ConnState::Write,
            _ if self.session.is_waiting_for_body() => ConnState::Nread,
            _ => ConnState::Read,
        };
        if state == ConnState::Nread && self.info.state() != state {
            self.moved_at = ctx.now.0;
        }
        if state == ConnState::Write {
            if self.blocked_ns == 0 {
                self.blocked_ns = monotonic_ns();
            }
        } else if self.blocked_ns > 0 {
            self.tell_untaken(ctx);
        }
        self.info.set_state(state);
        if self.phase == Phase::Serving && !self.stream.is_handshaking() {
            // Any byte is a move. Who sends so few that others are the worse for it gives way before (`Budget`).
            let timeout_s = ctx.shared.settings.body_timeout_s;
            let waits = timeout_s > 0 && state == ConnState::Nread;
            self.deadline = waits.then(|| self.moved_at.saturating_add(timeout_s));
        }
        // Neither has a socket that can be used.
        turn.unwrap_or(Turn::Close)
    }

    fn try_turn(
        &mut self,
        ctx: Ctx<'c>,
        buffer: &mut [u8],
        read: usize,
        out: &mut Output<'c>,
        mut desk: Option<&mut Desk>,
    ) -> io::Result<Turn> {
        if let Some(output) = &mut self.output {
            if !flush(&mut self.stream, output, ctx)? {
                return Ok(Turn::Wait);
            }
            self.output = None;
            self.note_unread(ctx);
        }
        if !self.stream.flush()? {
            return Ok(Turn::Wait);
        }
        match self.phase {
            Phase::Serving => {}
            Phase::Closing => return Ok(Turn::Close),
            Phase::HangingUp => return self.hang_up(ctx, buffer),
            Phase::Lingering(_) => return self.discard(ctx, buffer),
        }
        let reqs_per_event = ctx.shared.settings.reqs_per_event.max(1);
        let mut budget = reqs_per_event;
        let mut bytes_granted = reqs_per_event as usize * COMMAND_BYTES;
        let mut bytes_left = TURN_BYTES_MAX - read;
        // What was read ahead comes first, or else what an earlier turn left over.
        let mut unread = 0..read;
        if read == 0 {
            unread.end = self.input.len();
            buffer[unread.clone()].copy_from_slice(&self.input);
            self.input = Box::default();
        }
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
                if n > 0 {
                    self.moved_at = ctx.now.0;
                }
                ctx.stats.general.bytes_read.add(n as u64);
                bytes_left = bytes_left.saturating_sub(n.max(READ_BYTES_MIN));
                if n == 0 && !self.ended {
                    continue;
                }
            }
            drive_now = false;
            let before = budget;
            let input = &buffer[unread.clone()];
            let drive = self
                .session
                .drive(ctx, desk.as_deref_mut(), input, &mut budget, out);
            if budget < before {
                self.info.last_command.store(ctx.now.0, Relaxed);
            }
            unread.start += drive.consumed;
            bytes_granted = bytes_granted.saturating_sub(drive.consumed);
            match drive.next {
                // With what is owed to a peer that sends no more it is closed.
                Next::Read if self.ended && self.session.is_owed() => break Turn::Wait,
                Next::Read if self.ended => break Turn::Close,
                Next::Read => {}
                Next::Flush => {
                    bytes_granted = 0;
                    drive_now = flush(&mut self.stream, out, ctx)?;
                    if !drive_now {
                        break Turn::Wait;
                    }
                }
                Next::Yield if drive.consumed > 0 && bytes_granted > 0 => {
                    budget = reqs_per_event;
                    drive_now = true;
                }
                Next::Yield => {
                    ctx.stats.general.conn_yields.inc();
                    break Turn::Again;
                }
                Next::Verify => break Turn::Verify,
                Next::Place | Next::Answers | Next::Command => break Turn::Wait,
                Next::Watch => break Turn::Watch,
                Next::Close => break Turn::Close,
                Next::HangUp => {
                    self.closed = Closed::Error;
                    self.phase = Phase::HangingUp;
                    break Turn::Close;
                }
            }
        };
        if turn == Turn::Close {
            unread = 0..0;
            if self.phase == Phase::Serving || self.ended {
                self.phase = Phase::Closing;
            }
        }
        self.input = buffer[unread].into();
        if !flush(&mut self.stream, out, ctx)? {
            if !out.is_empty() {
                self.output = Some(Box::new(std::mem::take(out)));
            }
            // If it is to be closed, its peer gets the replies before.
            return Ok(Turn::Wait);
        }
        if self.phase == Phase::HangingUp {
            return self.hang_up(ctx, buffer);
        }
        Ok(turn)
    }

    #[cold]
    fn show_tls_error(&self, ctx: Ctx<'_>, error: &io::Error) {
        let events = ctx.cache.events();
        if events.audience().has(Audience::CONNEVENTS) {
            let (message, fd) = (error.to_string(), self.info.fd);
            let message = message.as_bytes();
            events
                .sights
                .show(ctx.ring, &Shown::TlsError { message, fd });
        }
    }

    /// What is left of it when it is to be handed over: what is to be watched, and its socket.
    pub(in crate::net) fn into_watched(
        mut self,
    ) -> Option<(Stream, Arc<ConnInfo>, Box<Watch>, Taken)> {
        let (watch, place) = self.session.take_watch()?;
        Some((self.stream, self.info, watch, place))
    }

    /// Tells the budget what the replies that wait keep in memory; false if that is too much.
    #[inline]
    fn note_unread(&mut self, ctx: Ctx<'c>) -> bool {
        (self.output.is_none() && self.unread.is_none()) || self.note_kept(ctx)
    }

    #[cold]
    fn note_kept(&mut self, ctx: Ctx<'c>) -> bool {
        let next = self.output.as_deref();
        let unread = self
            .unread
            .get_or_insert_with(|| Box::new(Hold::of_reader(ctx)));
        self.session.note_unread(ctx, unread, next)
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

    /// Tells of a reply that has waited for its peer, which has taken the last of it now.
    #[cold]
    fn tell_untaken(&mut self, ctx: Ctx<'_>) {
        let since_ns = std::mem::take(&mut self.blocked_ns);
        ctx.observer
            .note_untaken(since_ns, monotonic_ns(), ctx.now.0);
    }

    /// Ends a data block that holds what others need and does not move. True if it is to be closed, as it does not take its
    /// replies, and others need the memory that these keep.
    pub(in crate::net) fn give_way(&mut self, ctx: Ctx<'c>) -> bool {
        self.session.give_way(ctx);
        self.unread.as_ref().is_some_and(|unread| unread.must_go())
    }

    /// What it keeps more memory for than a connection that waits.
    pub(in crate::net) fn holds(&self) -> Option<Held> {
        if self.output.is_some() {
            return Some(Held::Replies);
        }
        (self.input.len() >= HELD_BYTES).then_some(Held::Requests)
    }

    /// True if a worker is to look at it once a second.
    pub(in crate::net) fn is_timed(&self) -> bool {
        self.deadline.is_some() || self.session.is_dumping()
    }

    /// Looks after a dump in progress; true if it is to have a turn.
    pub(in crate::net) fn see_to_dump(&mut self, now: RelTime) -> bool {
        let peer_has_replies = self.output.is_some() || self.stream.has_unsent();
        self.session.see_to_dump(now, peer_has_replies) && !self.queued
    }

    /// Calls `wake` when the password that the session waits for is checked.
    pub(in crate::net) fn when_verified(&self, wake: Box<dyn FnOnce() + Send>) {
        if let Some(ticket) = self.session.verification() {
            ticket.when_answered(wake);
        }
    }

    /// Takes its buffers out of the counts, before it is dropped.
    pub(in crate::net) fn forget_buffers(&self, connections: &Registry) {
        connections.count_kept(self.kept(), Kept::default());
    }

    fn kept(&self) -> Kept {
        let replies = self.output.as_ref().map_or(0, |output| output.kept_bytes());
        Kept {
            input: self.input.len(),
            replies,
        }
    }
}

/// Writes until all is written (true) or the socket takes no more (false).
fn flush<'c>(stream: &mut Stream, out: &mut Output<'c>, ctx: Ctx<'c>) -> io::Result<bool> {
    if out.is_empty() {
        return stream.flush();
    }
    ctx.settle();
    loop {
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
                if out.advance(n) {
                    return stream.flush();
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
