//! A request whose data block comes in pieces.
//!
//! Cm1. What all clients have sent of such blocks, and of whole ones that wait for their nodes, counts against the server's budget of
//!      unfinished data blocks (see [`budget`](crate::state)): when it is spent, who lags gives way, and then who asks is refused.
//! Cm2. A block that is refused is read to its end and forgotten, and answered in its turn.

use protocol::{ErrorLine, Parsed, Request, binary, text};

use crate::command::{Output, Session};
use crate::state::{Ctx, Hold};

/// Bytes of a data block that are made room for at a time, before more than that has come.
const ROOM_MIN: usize = 4 << 10;
const ROOM_MAX: usize = 256 << 10;

/// A request whose data block has not come whole, or has and waits.
#[derive(Debug)]
pub(super) struct Coming<'c> {
    pub(super) bytes: Vec<u8>,
    filled: usize,
    len: usize,
    hold: Hold<'c>,
    /// So much has come when it was looked at last.
    seen: usize,
    /// What is answered instead, if it is refused.
    refused: Option<Vec<u8>>,
}

impl<'c> Coming<'c> {
    /// One of which this has come, of so many bytes.
    pub(super) fn new(ctx: Ctx<'c>, begin: &[u8], len: usize) -> Self {
        Coming {
            bytes: begin.to_vec(),
            filled: begin.len(),
            len,
            hold: Hold::new(ctx),
            seen: begin.len(),
            refused: None,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.filled == self.len
    }

    /// Room for what is to come, as it comes.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        if self.is_whole() || self.refused.is_some() {
            return None;
        }
        if self.bytes.len() == self.filled {
            let more = self.filled.clamp(ROOM_MIN, ROOM_MAX);
            let more = more.min(self.len - self.filled);
            self.bytes.resize(self.filled + more, 0);
        }
        Some(&mut self.bytes[self.filled..])
    }

    /// So many bytes have come there.
    pub(super) fn advance(&mut self, n: usize) {
        self.filled += n;
    }

    pub(super) fn take(&mut self, input: &[u8]) -> usize {
        let n = input.len().min(self.len - self.filled);
        if self.refused.is_none() {
            self.bytes.truncate(self.filled);
            self.bytes.extend_from_slice(&input[..n]);
        }
        self.filled += n;
        n
    }

    /// Counts what has come; it is refused if there is no room for it.
    pub(super) fn count(&mut self, ctx: Ctx<'c>, is_binary: bool) {
        self.hold.came(ctx, self.filled - self.seen);
        self.seen = self.filled;
        let more = self.bytes.capacity().saturating_sub(self.hold.bytes());
        if self.refused.is_none() && more > 0 && !self.hold.take(ctx, more) {
            self.refuse(ctx, is_binary);
        }
    }

    /// True if others need what it holds, and it does not move.
    pub(super) fn must_go(&self) -> bool {
        self.refused.is_none() && self.hold.must_go()
    }

    /// From now on nothing of it is kept.
    pub(super) fn refuse(&mut self, ctx: Ctx<'c>, is_binary: bool) {
        let parsed = match is_binary {
            true => binary::parse(&self.bytes),
            false => text::parse(&self.bytes),
        };
        let mut answer = Output::new();
        if let Parsed::Complete {
            request: Request::Store(store),
            ..
        } = parsed
        {
            Session::refusal(&store, ErrorLine::OutOfMemoryStoring, &mut answer);
        }
        self.refused = Some(std::mem::take(&mut answer.buf));
        self.bytes = Vec::new();
        self.hold = Hold::new(ctx);
    }

    /// The answer, if it was refused.
    pub(super) fn refusal(&self) -> Option<&[u8]> {
        self.refused.as_deref()
    }
}
