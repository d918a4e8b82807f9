//! The data block of a `config set`: a list of the cluster's nodes on its way.
//!
//! F3. It holds no more memory than has come of it, and that is part of what bodies may hold together.

use protocol::{ConfigSet, ErrorLine, Fault, reply};

use super::body::Fed;
use crate::command::config::NAME;
use crate::command::output::Output;
use crate::packing::{Packer, Unpacker};
use crate::state::{CONFIG_LEN_MAX, Ctx, Hold};

/// A list that is coming.
#[derive(Debug)]
pub(super) struct ConfigBody<'c> {
    client_flags: u32,
    add: bool,
    noreply: bool,
    /// Bytes of the value.
    value_len: usize,
    /// What has come of the block.
    bytes: Vec<u8>,
    hold: Hold<'c>,
}

impl<'c> ConfigBody<'c> {
    /// Makes ready for the data block of `set`.
    pub(super) fn begin(ctx: Ctx<'c>, set: &ConfigSet<'_>) -> Result<Self, ErrorLine> {
        let value_len = set.value_len as usize;
        if set.name != NAME {
            return Err(ErrorLine::BadFormat);
        }
        if value_len > CONFIG_LEN_MAX {
            return Err(ErrorLine::TooLarge);
        }
        Ok(ConfigBody {
            client_flags: set.client_flags,
            add: set.add,
            noreply: set.noreply,
            value_len,
            bytes: Vec::new(),
            hold: Hold::new(ctx),
        })
    }

    /// Writes down what has come, for another process.
    pub(super) fn pack(&self, to: &mut Packer) {
        to.number(self.client_flags);
        to.number(self.add).number(self.noreply);
        to.size(self.value_len).bytes(&self.bytes);
    }

    /// Goes on where another process was.
    pub(super) fn unpack(ctx: Ctx<'c>, from: &mut Unpacker<'_>) -> Option<Self> {
        let mut body = ConfigBody {
            client_flags: from.number()?,
            add: from.flag()?,
            noreply: from.flag()?,
            value_len: from.number()?,
            bytes: from.bytes()?.to_vec(),
            hold: Hold::new(ctx),
        };
        let is_possible = body.value_len <= CONFIG_LEN_MAX
            && body.bytes.len() < body.value_len + reply::CRLF.len();
        body.hold.restage(body.bytes.len());
        is_possible.then_some(body)
    }

    /// Takes bytes of the block from `input`; when it is complete, keeps the list and answers.
    pub(super) fn feed(
        &mut self,
        ctx: Ctx<'c>,
        input: &[u8],
        out: &mut Output<'c>,
    ) -> (usize, Fed) {
        let left = self.value_len + reply::CRLF.len() - self.bytes.len();
        let part = &input[..input.len().min(left)];
        self.hold.came(ctx, part.len());
        if !self.hold.stage(ctx, part.len()) {
            return (0, Fed::Refused(left as u64, self.refusal()));
        }
        self.bytes.extend_from_slice(part);
        if part.len() < left {
            return (part.len(), Fed::More);
        }
        let line = match self.bytes.strip_suffix(reply::CRLF) {
            None => ErrorLine::BadDataChunk.line(),
            Some(value) if ctx.shared.cluster.set(self.client_flags, value, self.add) => {
                log::info!("config set: a list of nodes, {} bytes", value.len());
                reply::STORED
            }
            Some(_) => reply::NOT_STORED,
        };
        self.answer(line, out);
        (part.len(), Fed::Done)
    }

    /// Ends it, if it holds what others need and does not move: what is left of it, and the answer.
    pub(super) fn give_way(&self) -> Option<(u64, Option<Fault>)> {
        let left = self.value_len + reply::CRLF.len() - self.bytes.len();
        let must_go = self.hold.must_go();
        must_go.then(|| (left as u64, self.refusal()))
    }

    fn refusal(&self) -> Option<Fault> {
        (!self.noreply).then_some(Fault::Line(ErrorLine::OutOfMemoryStoring))
    }

    fn answer(&self, line: &[u8], out: &mut Output<'_>) {
        if !self.noreply {
            out.bytes(line);
        }
    }
}
