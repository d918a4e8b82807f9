//! A conversation as bytes, for the process that takes its connection over.
//!
//! Pk1. What was consumed of the input and has not been answered is in it, whole: a command cut at any byte goes on there.
//! Pk2. What lies in item memory is named by its handles, which mean the same in both processes; nothing of it is copied.

use protocol::{ErrorLine, Exptime, Fault, GetVerb, Status};

use super::body::Body;
use super::config_body::ConfigBody;
use super::sign_in::SignIn;
use super::wire::Wire;
use super::{Session, State};
use crate::auth::{Peer, Visitor};
use crate::command::dump;
use crate::command::output::Output;
use crate::command::packed::{pack_head, unpack_head};
use crate::packing::{Packer, Unpacker};
use crate::settings::WireProtocol;
use crate::state::Ctx;

impl<'c> Session<'c> {
    /// Writes the conversation down and ends it here. A report in progress is finished, into `out`.
    pub fn pack(self, ctx: Ctx<'c>, out: &mut Output<'c>, to: &mut Packer) {
        to.number(self.wire == Wire::Binary);
        to.number(self.visitor.as_ref().map_or(0, |visitor| visitor.wrong()));
        match self.state {
            State::Start(protocol) => _ = to.number(0u8).number(number_of(protocol)),
            State::SignIn(sign_in) => sign_in.pack(to.number(1u8)),
            State::Command => _ = to.number(2u8),
            State::Keys(GetVerb { with_cas, touch }, any) => {
                to.number(3u8).number(with_cas).number(any);
                to.number(touch.map_or(0, |exptime| 1 + u64::from(u32::from(exptime))));
            }
            State::Body(body) => body.pack(to.number(4u8)),
            State::Config(body) => body.pack(to.number(5u8)),
            State::Swallow(left, answer) => {
                to.number(6u8).number(left);
                pack_fault(answer, to);
            }
            State::SwallowLine => _ = to.number(7u8),
            State::Dump(dump) => dump.pack(to.number(8u8)),
            State::Report(mut report) => {
                while !report.step(ctx, out) {}
                to.number(2u8);
            }
            // What happens elsewhere is another feed.
            State::Closing | State::Watch(..) => _ = to.number(9u8),
            State::Lost => _ = to.number(10u8),
        }
        let user = self.visitor.as_ref().and_then(|visitor| visitor.user());
        to.bytes(user.unwrap_or_default());
    }

    /// Goes on with a conversation that another process has written down, with a peer that comes from there. None if it cannot be
    /// read. Where this server asks for a password and that one did not, the peer is to show one now (`was_open`).
    pub fn unpack(
        ctx: Ctx<'c>,
        peer: Peer,
        was_open: bool,
        from: &mut Unpacker<'_>,
    ) -> Option<Self> {
        let is_binary = from.flag()?;
        let wrong = from.number()?;
        let wire = if is_binary { Wire::Binary } else { Wire::Text };
        let mut state = match from.number::<u8>()? {
            0 => State::Start(protocol_of(from.number()?)?),
            1 => State::SignIn(Box::new(SignIn::unpack(from)?)),
            2 => State::Command,
            3 => {
                let (with_cas, any) = (from.flag()?, from.flag()?);
                let touch = match from.number::<u64>()? {
                    0 => None,
                    more => Some(Exptime::from(u32::try_from(more - 1).ok()?)),
                };
                State::Keys(GetVerb { with_cas, touch }, any)
            }
            4 => State::Body(Box::new(Body::unpack(ctx, from)?)),
            5 => State::Config(Box::new(ConfigBody::unpack(ctx, from)?)),
            6 => State::Swallow(from.number()?, unpack_fault(from)?),
            7 => State::SwallowLine,
            8 => State::Dump(Box::new(dump::Running::unpack(ctx.now, from)?)),
            9 => State::Closing,
            10 => State::Lost,
            _ => return None,
        };
        match (&state, &ctx.shared.auth) {
            (State::SignIn(_), None) => state = State::Command,
            (State::Command, Some(_)) if was_open => {
                state = State::SignIn(Box::new(SignIn::new(wire)));
            }
            (State::Start(_) | State::SignIn(_) | State::Closing | State::Lost, _) => {}
            (_, Some(_)) if was_open => return None,
            _ => {}
        }
        let mut visitor = Visitor::gone_on(peer, wrong);
        match from.bytes()? {
            b"" => {}
            user => visitor.claims(user),
        }
        Some(Session {
            state,
            wire,
            visitor: Some(Box::new(visitor)),
            ..Session::new()
        })
    }
}

fn number_of(protocol: WireProtocol) -> u8 {
    match protocol {
        WireProtocol::Auto => 0,
        WireProtocol::Ascii => 1,
        WireProtocol::Binary => 2,
    }
}

fn protocol_of(number: u8) -> Option<WireProtocol> {
    let all = [
        WireProtocol::Auto,
        WireProtocol::Ascii,
        WireProtocol::Binary,
    ];
    all.get(usize::from(number)).copied()
}

fn pack_fault(fault: Option<Fault>, to: &mut Packer) {
    match fault {
        None => _ = to.number(0u8),
        Some(Fault::Line(line)) => _ = to.number(1u8).bytes(line.line()),
        Some(Fault::Status(head, status)) => {
            pack_head(Some(head), to.number(2u8));
            to.number(status as u16);
        }
    }
}

fn unpack_fault(from: &mut Unpacker<'_>) -> Option<Option<Fault>> {
    Some(match from.number::<u8>()? {
        0 => None,
        1 => {
            let line = from.bytes()?;
            let mut known = ErrorLine::ALL.iter();
            // One that this version does not know is an error all the same.
            let line = known.find(|known| known.line() == line);
            Some(Fault::Line(*line.unwrap_or(&ErrorLine::Error)))
        }
        2 => {
            let head = unpack_head(from)??;
            let number: u16 = from.number()?;
            let known = Status::ALL.into_iter();
            let status = { known }.find(|&known| known as u16 == number);
            Some(Fault::Status(
                head,
                status.unwrap_or(Status::InvalidArguments),
            ))
        }
        _ => return None,
    })
}
