//! How a connection ends that its peer does not end: when it is late, and when we hang up (N6).

use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering::Relaxed;

use super::{Conn, Phase, READ_BYTES_MIN, TURN_BYTES_MAX, Turn};
use crate::net::stream::Stream;
use crate::state::{ConnState, Ctx};

/// Bytes thrown away of a peer that we have hung up on: the largest value by default, sent with a header that lied.
const LINGER_BYTES_MAX: usize = 1 << 20;
/// Seconds it gets to read what it was told and to close.
const LINGER_S: u32 = 3;
/// Why a connection is closed that has not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Late {
    /// It has sent no command for longer than `idle_timeout`.
    Idle,
    /// It has passed its deadline.
    Deadline,
}

impl Conn<'_> {
    /// Ends the conversation from our side (N6).
    pub(super) fn hang_up(&mut self, ctx: Ctx<'_>, buffer: &mut [u8]) -> io::Result<Turn> {
        self.stream.end()?;
        self.phase = Phase::Lingering(LINGER_BYTES_MAX);
        self.deadline = Some(ctx.now.0 + LINGER_S);
        self.discard(ctx, buffer)
    }

    /// Throws away what comes, until the peer has closed or has sent too much.
    pub(super) fn discard(&mut self, ctx: Ctx<'_>, buffer: &mut [u8]) -> io::Result<Turn> {
        let mut bytes_left = TURN_BYTES_MAX;
        while let Phase::Lingering(left) = &mut self.phase
            && *left > 0
        {
            if bytes_left == 0 {
                return Ok(Turn::Again);
            }
            match self.stream.discard(buffer) {
                Ok(0) => break,
                Ok(n) => {
                    ctx.stats.general.bytes_read.add(n as u64);
                    *left = left.saturating_sub(n);
                    bytes_left = bytes_left.saturating_sub(n.max(READ_BYTES_MIN));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Turn::Wait),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Turn::Close)
    }

    /// Why it is to be closed now, if it is. Idle is, as in memcached, only who comes over TCP and owes the next command,
    /// not who is slow to send a value or to take one.
    pub(in crate::net) fn lateness(&self, now: u32, idle_timeout_s: u32) -> Option<Late> {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Some(Late::Deadline);
        }
        let is_waiting = idle_timeout_s > 0
            && !self.queued
            && !matches!(self.stream, Stream::Unix(_))
            && self.info.state() == ConnState::Read;
        let idle_s = now.saturating_sub(self.info.last_command.load(Relaxed));
        (is_waiting && idle_s > idle_timeout_s).then_some(Late::Idle)
    }

    /// Counts, before it is dropped, what was not ended in time.
    pub(in crate::net) fn count_late(&self, ctx: Ctx<'_>) {
        if self.phase != Phase::Serving {
            return;
        }
        match &self.stream {
            Stream::Tls(stream) if stream.is_handshaking() => stream.count_late(),
            _ => ctx.stats.general.blocks_timed_out.inc(),
        }
    }
}
