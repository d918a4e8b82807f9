//! A connection that goes on in another process.

use super::{Conn, Phase, flush};
use crate::command::Output;
use crate::net::carried::{Carried, pack_info, unpack_info};
use crate::net::conversation::Conversation;
use crate::net::stream::Stream;
use crate::packing::{Packer, Unpacker};
use crate::state::{Ctx, Kept};

impl<'c> Conn<'c> {
    /// Writes it down for another process and lets its socket go. None of one with TLS, or one that is in the midst of something with
    /// nodes: its peer is told the end, for what was agreed on with it, or is under way to them, stays in this process.
    pub(in crate::net) fn pack(mut self, ctx: Ctx<'c>) -> Option<Carried> {
        let is_unix = matches!(self.stream, Stream::Unix(_));
        if matches!(self.stream, Stream::Tls(_)) || self.session.must_stay() {
            if let Some(out) = &mut self.output {
                let _ = flush(&mut self.stream, out, ctx);
            }
            let _ = self.stream.end();
            return None;
        }
        let mut packed = Packer::default();
        pack_info(&self.info, is_unix, &mut packed);
        let (phase, left) = match self.phase {
            Phase::Serving => (0u8, 0),
            Phase::Closing => (1, 0),
            Phase::HangingUp => (2, 0),
            Phase::Lingering(left) => (3, left),
        };
        packed.number(ctx.shared.auth.is_none());
        packed.number(phase).size(left);
        packed.number(self.deadline.map_or(0, |at| 1 + u64::from(at)));
        packed.number(self.moved_at).bytes(&self.input);
        let mut out = self.output.take().map_or_else(Output::new, |out| *out);
        self.session.pack(ctx, &mut out, &mut packed);
        out.pack(&mut packed);
        Some(Carried {
            socket: self.stream.into_socket()?,
            packed: packed.into_bytes(),
        })
    }

    /// Goes on with a connection of another process. None if what it has written down cannot be read.
    pub(in crate::net) fn unpack(ctx: Ctx<'c>, carried: Carried) -> Option<Self> {
        let mut from = Unpacker::new(&carried.packed);
        let (stream, info) = unpack_info(carried.socket, &mut from)?;
        let was_open = from.flag()?;
        let (phase, left) = (from.number::<u8>()?, from.number()?);
        let phase = match phase {
            0 => Phase::Serving,
            1 => Phase::Closing,
            2 => Phase::HangingUp,
            3 => Phase::Lingering(left),
            _ => return None,
        };
        let deadline: u64 = from.number()?;
        let deadline = deadline
            .checked_sub(1)
            .map(u32::try_from)
            .transpose()
            .ok()?;
        let moved_at = from.number()?;
        let input: Box<[u8]> = from.bytes()?.into();
        let session = Conversation::unpack(ctx, stream.peer(), was_open, &mut from)?;
        let output = Output::unpack(ctx.cache, &mut from)?;
        let conn = Conn {
            input,
            output: (!output.is_empty()).then(|| Box::new(output)),
            phase,
            deadline,
            moved_at,
            ..Conn::new(stream, info, session, ctx.now.0)
        };
        ctx.shared
            .connections
            .count_kept(Kept::default(), conn.kept());
        Some(conn)
    }
}
