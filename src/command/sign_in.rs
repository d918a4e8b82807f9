//! The part of a conversation before its peer has shown a password (`-Y`).
//!
//! ```text
//!  set KEY FLAGS EXPTIME LEN\r\nUSER PASSWORD\r\n      key, flags and exptime are not looked at
//!
//!  Line --> Token --> Verifying --> signed in
//!   ^  \--> Swallow      |            the token is not the right one, has another form or another end
//!   +--------+-----------+
//! ```
//!
//! Any other line is answered `CLIENT_ERROR unauthenticated`, whatever it asks for, and what follows it is read as the
//! next line: here nothing knows what a body is.
//!
//! G1. What is not a token with the right password is answered and forgotten; none of it is ever run as a command, and no
//!     path but [`Step::SignedIn`] leads out.
//! G2. A peer holds no more memory than the bytes of its token that have come, [`TOKEN_LEN_MAX`] at most.
//! G3. Each line costs one of the budget of commands, so that a turn is as short as anybody else's.

use protocol::{ErrorLine, LINE_LEN_MAX, reply};

use super::output::Output;
use super::session::Next;
use super::shared::Ctx;
use crate::auth::{Check, Ticket};

/// The longest token, in bytes without its `\r\n` (memcached's).
const TOKEN_LEN_MAX: u32 = 16_384;

/// Where the peer is in showing who it is.
#[derive(Debug, Default)]
pub(super) enum SignIn {
    /// Between lines.
    #[default]
    Line,
    /// In the block of a `set`: what has come, and how long it will be.
    Token(Vec<u8>, usize),
    /// In a block that is too long.
    Swallow(u64),
    /// Waiting for its password to be checked.
    Verifying(Ticket),
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
    pub(super) fn verification(&self) -> Option<&Ticket> {
        match self {
            SignIn::Verifying(ticket) => Some(ticket),
            _ => None,
        }
    }

    pub(super) fn is_waiting_for_body(&self) -> bool {
        matches!(self, SignIn::Token(..) | SignIn::Swallow(_))
    }

    /// Goes on with what `input` holds; gives the bytes done with.
    pub(super) fn step(
        &mut self,
        ctx: Ctx<'_>,
        input: &[u8],
        budget: &mut u32,
        out: &mut Output<'_>,
    ) -> (usize, Step) {
        match self {
            SignIn::Verifying(ticket) => match ticket.answer() {
                None => (0, Step::Stop(Next::Verify)),
                Some(right) => (0, self.answer(ctx, right, out)),
            },
            _ if input.is_empty() => (0, Step::Stop(Next::Read)),
            SignIn::Line if *budget == 0 => (0, Step::Stop(Next::Yield)),
            SignIn::Line => self.line(input, budget, out),
            SignIn::Token(token, len) => {
                let taken = input.len().min(*len - token.len());
                token.extend_from_slice(&input[..taken]);
                if token.len() < *len {
                    return (taken, Step::On);
                }
                let token = std::mem::take(token);
                *self = SignIn::Line;
                (taken, self.token(ctx, &token, out))
            }
            SignIn::Swallow(left) => {
                let taken = input
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                if *left == 0 {
                    *self = SignIn::Line;
                }
                (taken, Step::On)
            }
        }
    }

    fn line(&mut self, input: &[u8], budget: &mut u32, out: &mut Output<'_>) -> (usize, Step) {
        let seen = &input[..input.len().min(LINE_LEN_MAX + 1)];
        let Some(end) = seen.iter().position(|&byte| byte == b'\n') else {
            // The same whether the end of a longer line is there or not.
            let too_long = seen.len() > LINE_LEN_MAX;
            return (
                0,
                Step::Stop(if too_long { Next::Close } else { Next::Read }),
            );
        };
        *budget -= 1;
        match token_len(&input[..end]) {
            None => out.error(ErrorLine::Unauthenticated),
            Some(len) if len > TOKEN_LEN_MAX => {
                out.error(ErrorLine::AuthTokenTooLong);
                *self = SignIn::Swallow(u64::from(len) + 2);
            }
            Some(len) => *self = SignIn::Token(Vec::new(), len as usize + 2),
        }
        (end + 1, Step::On)
    }

    /// A token that has come in full, with its end.
    fn token(&mut self, ctx: Ctx<'_>, token: &[u8], out: &mut Output<'_>) -> Step {
        let Some(token) = token.strip_suffix(b"\r\n") else {
            out.error(ErrorLine::BadTermination);
            return Step::On;
        };
        let Some((user, password)) = user_and_password(token) else {
            out.error(ErrorLine::AuthTokenFormat);
            return Step::On;
        };
        let check = ctx
            .shared
            .auth
            .as_ref()
            .map(|auth| auth.check(user, password));
        match check {
            // Where there are no users there is no sign-in.
            None | Some(Check::No) => self.answer(ctx, false, out),
            Some(Check::Yes) => self.answer(ctx, true, out),
            Some(Check::Later(ticket)) => {
                *self = SignIn::Verifying(ticket);
                Step::On
            }
        }
    }

    fn answer(&mut self, ctx: Ctx<'_>, right: bool, out: &mut Output<'_>) -> Step {
        ctx.stats.general.auth_cmds.inc();
        *self = SignIn::Line;
        if right {
            out.bytes(reply::STORED);
            return Step::SignedIn;
        }
        ctx.stats.general.auth_errors.inc();
        out.error(ErrorLine::AuthFailure);
        Step::On
    }
}

/// The length that a line `set KEY FLAGS EXPTIME LEN` tells.
fn token_len(line: &[u8]) -> Option<u32> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty());
    if words.next()? != b"set" {
        return None;
    }
    str::from_utf8(words.nth(3)?).ok()?.parse().ok()
}

/// What stands before the first space and what behind it: a password may have spaces in it. Spaces around both do not
/// count.
fn user_and_password(token: &[u8]) -> Option<(&[u8], &[u8])> {
    let token = trim(token);
    let space = token.iter().position(|&byte| byte == b' ')?;
    Some((&token[..space], trim(&token[space..])))
}

fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| byte != b' ');
    let end = text.iter().rposition(|&byte| byte != b' ');
    start
        .zip(end)
        .map_or(&[], |(start, end)| &text[start..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_set_announces_a_token() {
        for (line, len) in [
            ("set k 0 0 7", Some(7)),
            ("set k 0 0 7\r", Some(7)),
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
        ] {
            assert_eq!(token_len(line.as_bytes()), len, "{line:?}");
        }
    }

    #[test]
    fn a_token_is_a_user_and_a_password() {
        for (token, want) in [
            ("ann secret", Some(("ann", "secret"))),
            (" ann  secret ", Some(("ann", "secret"))),
            ("ann two words", Some(("ann", "two words"))),
            ("ann\tx y", Some(("ann\tx", "y"))),
            ("ann y\t", Some(("ann", "y\t"))),
            ("ann", None),
            ("ann ", None),
            ("", None),
            (" ", None),
        ] {
            let want = want.map(|(user, password)| (user.as_bytes(), password.as_bytes()));
            assert_eq!(user_and_password(token.as_bytes()), want, "{token:?}");
        }
    }
}
