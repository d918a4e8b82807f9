//! Replies, in the encoding of their requests.

use bytes::Bytes;
use client_core::error::Error;
use client_core::operation::{Recache, Verdict};
use protocol::reply::{self, CRLF, MetaCode, MetaLine};
use protocol::{ErrorLine, Exptime, Key, MetaTokens, ReplyMode, Request, Status, Store, binary};

use crate::command::Output;
use crate::proxy::replies::LARGE;

pub(super) type Out = Output<'static>;

/// The reply to a store.
pub(super) fn stored(
    out: &mut Out,
    store: &Store<'_>,
    verdict: Result<Verdict, Error>,
    unique: u64,
) {
    use protocol::StoreMode::{Add, Append, Prepend, Replace, Set};
    let verdict = match verdict {
        Ok(verdict) => verdict,
        Err(error) => return refuse(out, store.reply, &error),
    };
    let compares = store.compare_cas.is_some();
    match (store.reply, verdict) {
        (ReplyMode::NoReply, _) => {}
        (ReplyMode::Text, verdict) => out.bytes(match verdict {
            Verdict::Done(_) => reply::STORED,
            Verdict::Conflict => reply::EXISTS,
            Verdict::Missing if compares => reply::NOT_FOUND,
            Verdict::Missing | Verdict::Exists => reply::NOT_STORED,
        }),
        (ReplyMode::Meta(tokens), verdict) => {
            let code = match verdict {
                Verdict::Done(_) if tokens.quiet => return,
                Verdict::Done(_) => MetaCode::HD,
                Verdict::Conflict => MetaCode::EX,
                Verdict::Missing if compares => MetaCode::NF,
                Verdict::Missing | Verdict::Exists => MetaCode::NS,
            };
            // As on a server, what was not stored has no unique.
            let unique = if code == MetaCode::HD { unique } else { 0 };
            echo(out, code, tokens, store.key, |line, flag| match flag {
                b's' => line.number(b's', store.value_len),
                b'c' => line.number(b'c', unique),
                _ => {}
            });
        }
        (ReplyMode::Binary(head), verdict) => {
            let status = match (verdict, store.mode) {
                (Verdict::Done(_), _) if head.quiet => return,
                (Verdict::Done(_), _) => return binary::ok(&mut out.buf, head, unique),
                (Verdict::Conflict | Verdict::Exists, _) | (_, Add) => Status::Exists,
                (Verdict::Missing, Replace | Set) => Status::NotFound,
                (Verdict::Missing, Append | Prepend) => Status::NotStored,
            };
            binary::error(&mut out.buf, head, status);
        }
    }
}

/// The line of an error, in the encoding of the request.
pub(super) fn refuse(out: &mut Out, mode: ReplyMode<'_>, error: &Error) {
    let line = match error {
        Error::TooLarge { .. } => ErrorLine::TooLarge,
        Error::Full { .. } => ErrorLine::OutOfMemoryStoring,
        Error::NotANumber => ErrorLine::NonNumeric,
        Error::Key(_) => ErrorLine::BadFormat,
        Error::Refused { line, .. } if matches!(mode, ReplyMode::Text | ReplyMode::Meta(_)) => {
            out.bytes(line.as_bytes());
            return out.bytes(CRLF);
        }
        _ => ErrorLine::Backend,
    };
    match mode {
        ReplyMode::NoReply => {}
        ReplyMode::Binary(head) => binary::error(&mut out.buf, head, line.into()),
        ReplyMode::Text | ReplyMode::Meta(_) => out.error(line),
    }
}

/// A meta reply that tells of no item.
pub(super) fn bare(out: &mut Out, code: MetaCode, tokens: MetaTokens<'_>, key: Key<'_>) {
    echo(out, code, tokens, key, |_, _| {});
}

/// A meta reply with the opaque and the key given back, and what `tell` says to the other flags.
pub(super) fn echo(
    out: &mut Out,
    code: MetaCode,
    tokens: MetaTokens<'_>,
    key: Key<'_>,
    tell: impl Fn(&mut MetaLine<'_>, u8),
) {
    echo_marked(out, code, tokens, key, Recache::default(), tell);
}

/// The same, with what is said of the value behind the flags that were asked for.
pub(super) fn echo_marked(
    out: &mut Out,
    code: MetaCode,
    tokens: MetaTokens<'_>,
    key: Key<'_>,
    said: Recache,
    tell: impl Fn(&mut MetaLine<'_>, u8),
) {
    let mut line = MetaLine::new(&mut out.buf, code);
    for (flag, token) in tokens.iter() {
        match flag {
            b'O' => line.bytes(b'O', token),
            b'k' => line.key(key),
            _ => tell(&mut line, flag),
        }
    }
    let marks = [
        (b'Z', said.won_by_other),
        (b'X', said.stale),
        (b'W', said.won),
    ];
    let marks = marks.into_iter().filter(|(_, is_said)| *is_said);
    marks.for_each(|(mark, _)| line.mark(mark));
    line.end();
}

pub(super) fn put_value(out: &mut Out, value: Bytes) {
    match value.len() {
        LARGE.. => out.shared(value),
        _ => out.bytes(&value),
    }
}

pub(super) fn has(tokens: MetaTokens<'_>, letter: u8) -> bool {
    tokens.iter().any(|(flag, _)| flag == letter)
}

pub(super) fn only(tokens: MetaTokens<'_>, letters: &[u8]) -> bool {
    tokens.iter().all(|(flag, _)| letters.contains(&flag))
}

pub(super) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An expiry time as the core sends it.
pub(super) fn exptime(exptime: Exptime) -> i32 {
    match exptime.to_string().parse::<i64>() {
        Ok(number) => i32::try_from(number).unwrap_or(i32::MAX),
        Err(_) => 0,
    }
}

/// True if its client asked for no reply at all.
pub(in crate::proxy) fn is_no_reply(request: &Request<'_>) -> bool {
    match request {
        Request::Store(store) => matches!(store.reply, ReplyMode::NoReply),
        Request::Delete(delete) => matches!(delete.reply, ReplyMode::NoReply),
        Request::Arith(arith) => matches!(arith.reply, ReplyMode::NoReply),
        Request::Touch(touch) => touch.noreply,
        _ => false,
    }
}
