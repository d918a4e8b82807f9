//! The part of a conversation before its peer has shown a password (`-Y`, `-S`).
//!
//! ```text
//!  text:    set KEY FLAGS EXPTIME LEN\r\nUSER PASSWORD\r\n    key, flags and exptime are not looked at
//!  binary:  SASL auth, mechanism PLAIN, NUL USER NUL PASSWORD (or an auth that is empty, and a step with that)
//!
//!  Request --> Token --> Verifying --> signed in
//!   ^     \--> Swallow     |              the token is not the right one, has another form or another end
//!   +----------+-----------+
//! ```
//!
//! In text `quit` closes. Any other line is answered `CLIENT_ERROR unauthenticated`, whatever it asks for, and what follows
//! it is read as the next line: here nothing knows what a body is. A token that is too long is answered at once and
//! swallowed. One that is longer than anything can be is not coming, so that the next line is a line. In binary there are `version` and the list of mechanisms; any
//! other request is answered "Auth failure." and the connection closed, as memcached does.
//!
//! Si1. What is not a token with the right password is answered and forgotten; none of it is ever run as a command, and no
//!     path but [`Step::SignedIn`] leads out.
//! Si2. A peer holds no more memory than the bytes of its token that have come, [`TOKEN_LEN_MAX`] at most.
//! Si3. Each request costs one of the budget of commands, so that a turn is as short as anybody else's.
//! Si4. A wrong password counts against its [`Visitor`]: the next one waits for longer each time, and after ten the
//!     connection is closed, with its answer.

use protocol::{
    BinaryAdmin, BinaryHead, BinaryVerb, ErrorLine, Fault, ITEM_LEN_MAX, LINE_LEN_MAX, Parsed,
    Request, Sasl, SaslVerb, Status, binary, reply,
};

use super::wire::{Next, Wire};
use crate::auth::{Check, MECHANISMS, Plain, Ticket, Verdict, Visitor};
use crate::command::output::Output;
use crate::command::packed::{pack_head, unpack_head};
use crate::packing::{Packer, Unpacker};
use crate::settings::MEMCACHED_VERSION;
use crate::state::Ctx;

/// The longest token, in bytes without its `\r\n` (memcached's).
const TOKEN_LEN_MAX: u32 = 16_384;
/// The longest name of a mechanism (memcached's).
const MECHANISM_LEN_MAX: usize = 32;

/// Where the peer is in showing who it is.
#[derive(Debug)]
pub(super) struct SignIn {
    wire: Wire,
    at: At,
    /// SASL has begun, and goes on with a step.
    begun: bool,
}

#[derive(Debug)]
enum At {
    /// Between requests.
    Request,
    /// In the block that may hold a password.
    Token(Token),
    /// In a block that is not looked at.
    Swallow(u64),
    /// Waiting for the password of this token to be checked.
    Verifying(Ticket, Token),
}

/// A block that may hold a password.
#[derive(Debug)]
struct Token {
    /// What has come.
    bytes: Vec<u8>,
    /// Bytes of the whole.
    len: usize,
    asked: Asked,
}

/// How it was asked, and so is answered.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Text,
    Sasl(BinaryHead),
    /// By a mechanism that there is not.
    Unknown(BinaryHead),
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    /// Another step.
    On,
    /// What the drive ends with.
    Stop(Next),
    /// Commands.
    SignedIn,
}

impl SignIn {
    pub(super) fn new(wire: Wire) -> Self {
        SignIn {
            wire,
            at: At::Request,
            begun: false,
        }
    }

    /// What a peer that has signed in gets for asking again; `None` if that changes nothing.
    pub(super) fn again(request: &Sasl<'_>, out: &mut Output<'_>) -> Option<Self> {
        let mut sign_in = SignIn::new(Wire::Binary);
        sign_in.sasl(request, out);
        (request.verb != SaslVerb::List).then_some(sign_in)
    }

    /// Writes down where it is, for another process. A password that is being checked is to be checked again there.
    pub(super) fn pack(&self, to: &mut Packer) {
        to.number(self.wire == Wire::Binary).number(self.begun);
        match &self.at {
            At::Request => _ = to.number(0u8),
            At::Token(token) | At::Verifying(_, token) => {
                let (kind, head) = match token.asked {
                    Asked::Text => (0u8, None),
                    Asked::Sasl(head) => (1, Some(head)),
                    Asked::Unknown(head) => (2, Some(head)),
                };
                to.number(1u8).bytes(&token.bytes).size(token.len);
                to.number(kind);
                pack_head(head, to);
            }
            At::Swallow(left) => _ = to.number(2u8).number(*left),
        }
    }

    /// Goes on where another process was.
    pub(super) fn unpack(from: &mut Unpacker<'_>) -> Option<Self> {
        let is_binary = from.flag()?;
        let wire = if is_binary { Wire::Binary } else { Wire::Text };
        let begun = from.flag()?;
        let at = match from.number::<u8>()? {
            0 => At::Request,
            1 => {
                let bytes = from.bytes()?.to_vec();
                let len = from.number::<u32>()?;
                let kind = from.number::<u8>()?;
                let asked = match (kind, unpack_head(from)?) {
                    (0, None) => Asked::Text,
                    (1, Some(head)) => Asked::Sasl(head),
                    (2, Some(head)) => Asked::Unknown(head),
                    _ => return None,
                };
                let len = usize::try_from(len)
                    .ok()
                    .filter(|&len| bytes.len() <= len)?;
                At::Token(Token { bytes, len, asked })
            }
            2 => At::Swallow(from.number()?),
            _ => return None,
        };
        Some(SignIn { wire, at, begun })
    }

    pub(super) fn verification(&self) -> Option<&Ticket> {
        match &self.at {
            At::Verifying(ticket, _) => Some(ticket),
            _ => None,
        }
    }

    pub(super) fn is_waiting_for_body(&self) -> bool {
        matches!(self.at, At::Token(_) | At::Swallow(_))
    }

    /// Goes on with what `input` holds; gives the bytes done with.
    pub(super) fn step(
        &mut self,
        ctx: Ctx<'_>,
        visitor: &mut Visitor,
        input: &[u8],
        budget: &mut u32,
        out: &mut Output<'_>,
    ) -> (usize, Step) {
        if visitor.is_to_go() {
            return (0, Step::Stop(Next::HangUp));
        }
        match &mut self.at {
            At::Verifying(ticket, token) => match (ticket.answer(), token.asked) {
                (None, _) => (0, Step::Stop(Next::Verify)),
                (Some(verdict), asked) => (0, self.answer(ctx, visitor, verdict, asked, out)),
            },
            // An empty token of SASL is complete as it is.
            At::Token(token) if token.bytes.len() < token.len && !input.is_empty() => {
                let taken = input.len().min(token.len - token.bytes.len());
                token.bytes.extend_from_slice(&input[..taken]);
                (taken, Step::On)
            }
            At::Token(token) if token.bytes.len() == token.len => {
                let (bytes, asked) = (std::mem::take(&mut token.bytes), token.asked);
                self.at = At::Request;
                (0, self.token(ctx, visitor, &bytes, asked, out))
            }
            _ if input.is_empty() => (0, Step::Stop(Next::Read)),
            At::Request if *budget == 0 => (0, Step::Stop(Next::Yield)),
            At::Request => {
                let (taken, step) = match self.wire {
                    Wire::Text => self.line(input, out),
                    Wire::Binary => self.packet(input, out),
                };
                *budget -= u32::from(taken > 0);
                (taken, step)
            }
            At::Token(_) => unreachable!("complete or not"),
            At::Swallow(left) => {
                let taken = input
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                if *left == 0 {
                    self.at = At::Request;
                }
                (taken, Step::On)
            }
        }
    }

    fn line(&mut self, input: &[u8], out: &mut Output<'_>) -> (usize, Step) {
        let seen = &input[..input.len().min(LINE_LEN_MAX + 1)];
        let Some(end) = seen.iter().position(|&byte| byte == b'\n') else {
            // The same whether the end of a longer line is there or not.
            let too_long = seen.len() > LINE_LEN_MAX;
            let next = if too_long { Next::HangUp } else { Next::Read };
            return (0, Step::Stop(next));
        };
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        match token_len(line) {
            None if words(line).next() == Some(b"quit") => {
                return (end + 1, Step::Stop(Next::Close));
            }
            None => out.error(ErrorLine::Unauthenticated),
            Some(len) if len > TOKEN_LEN_MAX => {
                out.error(ErrorLine::AuthTokenTooLong);
                if len <= ITEM_LEN_MAX {
                    self.at = At::Swallow(u64::from(len) + 2);
                }
            }
            Some(len) => self.expect(len as usize + 2, Asked::Text),
        }
        (end + 1, Step::On)
    }

    fn packet(&mut self, input: &[u8], out: &mut Output<'_>) -> (usize, Step) {
        let (head, status) = match binary::parse(input) {
            Parsed::Incomplete => return (0, Step::Stop(Next::Read)),
            Parsed::Complete { request, consumed } => match request {
                Request::Sasl(sasl) => {
                    self.sasl(&sasl, out);
                    return (consumed, Step::On);
                }
                Request::BinaryAdmin(BinaryAdmin {
                    verb: BinaryVerb::Version,
                    head,
                }) => {
                    let version = MEMCACHED_VERSION.as_bytes();
                    binary::text(&mut out.buf, head, Status::Ok, version);
                    return (consumed, Step::On);
                }
                request => (request.binary_head(), Status::AuthError),
            },
            Parsed::Invalid {
                error: Fault::Status(head, status),
                ..
            } => {
                use binary::opcode::{SASL_AUTH, SASL_LIST, SASL_STEP, VERSION};
                let allowed = [VERSION, SASL_LIST, SASL_AUTH, SASL_STEP].contains(&head.opcode);
                let status = if allowed { status } else { Status::AuthError };
                (Some(head), status)
            }
            Parsed::Invalid { .. } | Parsed::HangUp => (None, Status::AuthError),
        };
        if let Some(head) = head {
            binary::error(&mut out.buf, head, status);
        }
        (0, Step::Stop(Next::HangUp))
    }

    fn sasl(&mut self, request: &Sasl<'_>, out: &mut Output<'_>) {
        let (head, body_len) = (request.head, request.body_len);
        let asked = match request.verb {
            SaslVerb::List => {
                return binary::text(&mut out.buf, head, Status::Ok, MECHANISMS.as_bytes());
            }
            _ if request.mechanism.len() > MECHANISM_LEN_MAX || body_len > TOKEN_LEN_MAX => {
                binary::error(&mut out.buf, head, Status::InvalidArguments);
                if body_len > 0 {
                    self.at = At::Swallow(body_len.into());
                }
                return;
            }
            SaslVerb::Auth => {
                self.begun = request.mechanism == MECHANISMS.as_bytes();
                self.begun
            }
            SaslVerb::Step => self.begun,
        };
        let asked = if asked {
            Asked::Sasl(head)
        } else {
            Asked::Unknown(head)
        };
        self.expect(body_len as usize, asked);
    }

    fn expect(&mut self, len: usize, asked: Asked) {
        self.at = At::Token(Token {
            bytes: Vec::new(),
            len,
            asked,
        });
    }

    /// A token that has come in full.
    fn token(
        &mut self,
        ctx: Ctx<'_>,
        visitor: &mut Visitor,
        token: &[u8],
        asked: Asked,
        out: &mut Output<'_>,
    ) -> Step {
        let (user, password) = match asked {
            Asked::Text => {
                let Some(token) = token.strip_suffix(b"\r\n") else {
                    out.error(ErrorLine::BadTermination);
                    return Step::On;
                };
                let Some(pair) = user_and_password(token) else {
                    out.error(ErrorLine::AuthTokenFormat);
                    return Step::On;
                };
                pair
            }
            Asked::Sasl(head) if token.is_empty() && head.opcode == binary::opcode::SASL_AUTH => {
                binary::error(&mut out.buf, head, Status::AuthContinue);
                return Step::On;
            }
            Asked::Sasl(_) => match Plain::parse(token) {
                Ok(plain) => (plain.user, plain.password),
                Err(_) => return self.answer(ctx, visitor, Verdict::Wrong, asked, out),
            },
            Asked::Unknown(_) => return self.answer(ctx, visitor, Verdict::Wrong, asked, out),
        };
        visitor.claims(user);
        match ctx
            .shared
            .auth
            .as_ref()
            .map(|auth| auth.check(visitor, user, password))
        {
            // Where there are no users there is no sign-in.
            None | Some(Check::No) => self.answer(ctx, visitor, Verdict::Wrong, asked, out),
            Some(Check::Yes) => self.answer(ctx, visitor, Verdict::Right, asked, out),
            Some(Check::Later(ticket)) => {
                let (len, bytes) = (token.len(), token.to_vec());
                self.at = At::Verifying(ticket, Token { bytes, len, asked });
                Step::On
            }
        }
    }

    fn answer(
        &mut self,
        ctx: Ctx<'_>,
        visitor: &mut Visitor,
        verdict: Verdict,
        asked: Asked,
        out: &mut Output<'_>,
    ) -> Step {
        self.at = At::Request;
        ctx.stats.general.auth_cmds.inc();
        if verdict != Verdict::Right {
            ctx.stats.general.auth_errors.inc();
            visitor.note_wrong();
        }
        match (asked, verdict) {
            (Asked::Text, Verdict::Right) => out.bytes(reply::STORED),
            (Asked::Text, Verdict::Wrong) => out.error(ErrorLine::AuthFailure),
            (Asked::Text, Verdict::Busy) => out.error(ErrorLine::AuthBusy),
            (Asked::Sasl(head), Verdict::Right) => {
                binary::text(&mut out.buf, head, Status::Ok, b"Authenticated");
            }
            (Asked::Sasl(head) | Asked::Unknown(head), verdict) => {
                self.begun = false;
                let status = match verdict {
                    Verdict::Busy => Status::Busy,
                    _ => Status::AuthError,
                };
                binary::error(&mut out.buf, head, status);
            }
        }
        if verdict == Verdict::Right {
            Step::SignedIn
        } else {
            Step::On
        }
    }
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = line.split(|&byte| byte == b' ');
    words.filter(|word| !word.is_empty())
}

/// The length that a line `set KEY FLAGS EXPTIME LEN` tells, which comes without its end.
fn token_len(line: &[u8]) -> Option<u32> {
    let mut words = words(line);
    if words.next()? != b"set" {
        return None;
    }
    str::from_utf8(words.nth(3)?).ok()?.parse().ok()
}

/// What stands before the first space and what behind it, to the byte: a password may have spaces in it, at its ends too.
fn user_and_password(token: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = token.iter().position(|&byte| byte == b' ')?;
    Some((&token[..space], &token[space + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_set_announces_a_token() {
        for (line, len) in [
            ("set k 0 0 7", Some(7)),
            (" set  k x y 07 noreply or more", Some(7)),
            ("set k 0 0 4294967295", Some(u32::MAX)),
            ("set k 0 0 4294967296", None),
            ("set k 0 0 -7", None),
            ("set k 0 0 7a", None),
            ("set k 0 0", None),
            ("set k 0 0 \u{e4}", None),
            ("SET k 0 0 7", None),
            ("sets k 0 0 7", None),
            ("add k 0 0 7", None),
            ("", None),
            ("\r", None),
            ("set k 0 0 7\r", None),
        ] {
            assert_eq!(token_len(line.as_bytes()), len, "{line:?}");
        }
    }

    #[test]
    fn a_token_is_a_user_and_a_password() {
        for (token, want) in [
            ("ann secret", Some(("ann", "secret"))),
            ("ann  secret", Some(("ann", " secret"))),
            ("ann secret ", Some(("ann", "secret "))),
            (" ann secret", Some(("", "ann secret"))),
            ("ann two words", Some(("ann", "two words"))),
            ("ann\tx y", Some(("ann\tx", "y"))),
            ("ann y\t", Some(("ann", "y\t"))),
            ("ann ", Some(("ann", ""))),
            (" ", Some(("", ""))),
            ("ann", None),
            ("", None),
        ] {
            let want = want.map(|(user, password)| (user.as_bytes(), password.as_bytes()));
            assert_eq!(user_and_password(token.as_bytes()), want, "{token:?}");
        }
    }
}
