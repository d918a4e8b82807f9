//! `incr`, `decr` and `ma`: a value that reads as a number is replaced by another number.
//!
//! ```text
//!  "10" decr 1  -->  "9 "    in place, padded with blanks to the length it had; the reply says 9
//!  "99" incr 1  -->  "100"   a new item with the same client flags and expiry
//! ```
//!
//! A1. Reading and replacing happen under one stripe lock, so that no count is lost.
//! A2. A number has no bits beyond 64: counting up wraps, counting down stops at 0.

use protocol::reply::{self, CRLF, MetaCode, MetaLine};
use protocol::{Arith, ErrorLine, KEY_LEN_MAX, KeyBuf, ReplyMode};

use super::meta;
use super::output::Output;
use super::shared::Ctx;
use crate::cache::{Entry, ItemSpec, KeyHash};

/// Values up to this long are padded on the stack.
const PADDED_LEN: usize = 64;

/// How a count ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Counted(u64),
    NotFound,
    Exists,
    Refused(ErrorLine),
}

/// Counts, and answers.
pub(super) fn execute(ctx: Ctx<'_>, request: &Arith<'_>, hash: KeyHash, out: &mut Output<'_>) {
    let mut room: KeyBuf = [0; KEY_LEN_MAX];
    let key = request.key.bytes(&mut room);
    let mut entry = ctx.cache.entry(key, hash, ctx.now);
    let outcome = if entry.item().is_some() {
        count(ctx, request, &mut entry)
    } else {
        vivify(ctx, request, key, &mut entry)
    };
    answer(ctx, request, outcome, &mut entry, out);
}

fn count<'c>(ctx: Ctx<'c>, request: &Arith<'_>, entry: &mut Entry<'c>) -> Outcome {
    let Some(item) = entry.item() else {
        return Outcome::NotFound;
    };
    if request.compare_cas.is_some_and(|cas| cas != item.cas()) {
        return Outcome::Exists;
    }
    let number = if item.is_large() {
        None
    } else {
        parse(item.value())
    };
    let Some(number) = number else {
        return Outcome::Refused(ErrorLine::NonNumeric);
    };
    let number = if request.decrement {
        number.saturating_sub(request.delta)
    } else {
        number.wrapping_add(request.delta)
    };
    let class = &ctx.stats.classes[item.class().index()];
    let cas = request.new_cas.unwrap_or_else(|| ctx.cache.next_cas());
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();

    let value_len = item.value_len();
    if digits.len() <= value_len {
        let mut short = [b' '; PADDED_LEN];
        let mut long;
        let value = if value_len <= PADDED_LEN {
            &mut short[..value_len]
        } else {
            long = vec![b' '; value_len];
            &mut long[..]
        };
        value[..digits.len()].copy_from_slice(digits);
        entry.overwrite(value);
        entry.set_cas(cas);
        // It was read, and what is counted is in use.
        entry.bump();
    } else {
        let spec = ItemSpec {
            key: item.key(),
            key_binary: item.key_binary(),
            client_flags: item.client_flags(),
            expires_at: item.expires_at(),
            value_len: digits.len() as u32,
        };
        let Ok(mut longer) = ctx.cache.create(&spec, ctx.now) else {
            return Outcome::Refused(ErrorLine::OutOfMemory);
        };
        longer.write(digits);
        entry.put(longer, cas);
    }
    if request.decrement {
        class.decr_hits.inc();
    } else {
        class.incr_hits.inc();
    }
    Outcome::Counted(number)
}

/// `ma N`: a missing item begins at its initial value.
fn vivify<'c>(ctx: Ctx<'c>, request: &Arith<'_>, key: &[u8], entry: &mut Entry<'c>) -> Outcome {
    let Some(exptime) = request.vivify else {
        if request.decrement {
            ctx.stats.general.decr_misses.inc();
        } else {
            ctx.stats.general.incr_misses.inc();
        }
        return Outcome::NotFound;
    };
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(request.initial).as_bytes();
    let spec = ItemSpec {
        key,
        key_binary: request.key.base64,
        client_flags: 0,
        expires_at: ctx.expires_at(exptime),
        value_len: digits.len() as u32,
    };
    let Ok(mut new) = ctx.cache.create(&spec, ctx.now) else {
        return Outcome::Refused(ErrorLine::OutOfMemoryNewItem);
    };
    new.write(digits);
    entry.put(new, request.new_cas.unwrap_or_else(|| ctx.cache.next_cas()));
    Outcome::Counted(request.initial)
}

fn answer(
    ctx: Ctx<'_>,
    request: &Arith<'_>,
    outcome: Outcome,
    entry: &mut Entry<'_>,
    out: &mut Output<'_>,
) {
    let tokens = match (request.reply, outcome) {
        (ReplyMode::NoReply, _) => return,
        (_, Outcome::Refused(error)) => return out.error(error),
        (ReplyMode::Meta(tokens), _) => tokens,
        (ReplyMode::Text, Outcome::Counted(number)) => {
            reply::number(&mut out.buf, number);
            return out.bytes(CRLF);
        }
        (ReplyMode::Text, Outcome::NotFound) => return out.bytes(reply::NOT_FOUND),
        (ReplyMode::Text, Outcome::Exists) => return out.bytes(reply::EXISTS),
    };
    let number = match outcome {
        Outcome::Counted(number) => number,
        _ => {
            let found = outcome == Outcome::Exists;
            let code = if found { MetaCode::EX } else { MetaCode::NF };
            let mut line = MetaLine::new(&mut out.buf, code);
            meta::echo(ctx, &mut line, tokens, request.key, None, b"Ok");
            return line.end();
        }
    };
    if tokens.quiet {
        if let Some(exptime) = request.touch {
            entry.touch(ctx.expires_at(exptime));
        }
        return;
    }
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    let code = if request.want_value {
        MetaCode::VA(digits.len() as u32)
    } else {
        MetaCode::HD
    };
    let mut line = MetaLine::new(&mut out.buf, code);
    for (flag, token) in tokens.iter() {
        match (flag, request.touch) {
            (b'T', Some(exptime)) => entry.touch(ctx.expires_at(exptime)),
            (b'O' | b'k' | b'c' | b't', _) => {
                meta::echo_one(
                    ctx,
                    &mut line,
                    (flag, token),
                    request.key,
                    entry.item().as_ref(),
                );
            }
            _ => {}
        }
    }
    line.end();
    if request.want_value {
        out.bytes(digits);
        out.bytes(CRLF);
    }
}

/// The number a value begins with: blanks before it are passed over, and behind it there is a blank or nothing.
fn parse(value: &[u8]) -> Option<u64> {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
    let mut rest = value.trim_ascii_start();
    if let [b'+', digits @ ..] = rest {
        rest = digits;
    }
    let len = rest.iter().position(is_blank).unwrap_or(rest.len());
    let digits = &rest[..len];
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
