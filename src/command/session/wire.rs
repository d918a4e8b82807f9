//! What a conversation and its parts tell each other: the encoding, and what comes next.

use protocol::{Parsed, binary, text};

/// The encoding of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// Lines, classic and meta.
    Text,
    /// Packets.
    Binary,
}

impl Wire {
    /// Parses straight to where the answer is kept: it is large.
    #[inline]
    pub(super) fn parse<'b>(self, input: &'b [u8], parsed: &mut Parsed<'b>) {
        match self {
            Wire::Text => text::parse_into(input, parsed),
            Wire::Binary => *parsed = binary::parse(input),
        }
    }
}

/// What a drive needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// More input.
    Read,
    /// The peer to take replies.
    Flush,
    /// Another turn: the budget is spent.
    Yield,
    /// The answer to [`Session::verification`](super::Session::verification).
    Verify,
    /// A place for the dump in progress: [`Session::see_to_dump`](super::Session::see_to_dump) tells when to try again.
    Place,
    /// A command is next, and another has them: see [`Session::handing_over`](super::Session::handing_over).
    Command,
    /// Replies of others, with which it is given a turn.
    Answers,
    /// To be handed over to who serves watchers, once the replies are written:
    /// [`Session::take_watch`](super::Session::take_watch) has the rest.
    Watch,
    /// To be closed, once the replies are written: the peer has asked for it.
    Close,
    /// To be closed, once the replies are written, though the peer may go on sending.
    HangUp,
}

/// How far a drive came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drive {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// What comes next.
    pub next: Next,
}
