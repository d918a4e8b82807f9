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
use protocol::{Arith, ErrorLine, Exptime, KeyBuf, MetaTokens, ReplyMode, Status, binary};

use super::meta;
use super::output::Output;
use super::sights;
use crate::cache::{Entry, Hit, ItemSpec, Lookup, Probe, Room, Shortage};
use crate::clock::RelTime;
use crate::events::{Audience, Cause};
use crate::state::{self, Ctx, Seen, Verb};

/// Values up to this long are padded on the stack.
const PADDED_LEN: usize = 64;

/// How a count ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Counted { number: u64, created: bool },
    NotFound,
    Exists,
    Refused(ErrorLine),
}

/// Counts, and answers.
pub(super) fn execute(ctx: Ctx<'_>, request: &Arith<'_>, probe: Probe, out: &mut Output<'_>) {
    let mut room = KeyBuf::default();
    let key = request.key.bytes(&mut room);
    let sought = probe.of(key);
    let cause = if request.decrement {
        Cause::Decr
    } else {
        Cause::Incr
    };
    let at = ctx.at_from(cause, sights::origin(ctx, &request.reply));
    let entry = ctx.cache.entry(sought, at);
    let wanted = sights::wanted(ctx);
    if wanted.has(Audience::FETCHERS) {
        sights::looked_up(ctx, key, &entry);
    }
    let mut class = None;
    let (mut entry, outcome) = entry.update(key, |entry, room| {
        class = entry.item().map(|item| item.class());
        if class.is_some() {
            count(request, key, entry, room)
        } else {
            vivify(ctx, request, key, entry, room)
        }
    });
    answer(ctx, request, outcome, entry.found(), out);
    if wanted.has(Audience::MUTATIONS)
        && matches!(outcome, Outcome::Counted { created: true, .. })
        && let Some(item) = entry.item()
    {
        sights::began_to_count(ctx, key, &item);
    }
    drop(entry);
    ctx.note(&Seen {
        verb: if request.decrement {
            Verb::Decr
        } else {
            Verb::Incr
        },
        key_hash: sought.hash(),
        key,
        outcome: match outcome {
            Outcome::Counted { created: false, .. } => state::Outcome::Done,
            Outcome::Counted { created: true, .. } | Outcome::Exists => state::Outcome::Not,
            Outcome::NotFound => state::Outcome::Miss(Lookup::Missing),
            Outcome::Refused(_) => state::Outcome::Refused,
        },
        class,
        bytes: 0,
    });
}

fn count<'c>(
    request: &Arith<'_>,
    key: &[u8],
    entry: &mut Entry<'c>,
    room: &mut Room<'c>,
) -> Result<Outcome, Shortage> {
    let Some(mut hit) = entry.found() else {
        return Ok(Outcome::NotFound);
    };
    // What cannot be a number at all is refused before the uniques are compared, what reads as none after it.
    let Some(value) = hit.value().filter(|value| !value.is_empty()) else {
        return Ok(Outcome::Refused(ErrorLine::NonNumeric));
    };
    if request.compare_cas.is_some_and(|cas| cas != hit.cas()) {
        return Ok(Outcome::Exists);
    }
    let Some(number) = parse(value) else {
        return Ok(Outcome::Refused(ErrorLine::NonNumeric));
    };
    let number = if request.decrement {
        number.saturating_sub(request.delta)
    } else {
        number.wrapping_add(request.delta)
    };
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();

    let value_len = hit.value_len();
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
        hit.overwrite(value, request.new_cas);
        // What is counted is in use, though nobody has fetched it.
        hit.bump_written();
    } else {
        let spec = ItemSpec {
            key,
            key_binary: hit.key_binary(),
            client_flags: hit.client_flags(),
            expires_at: hit.expires_at(),
            value_len: digits.len() as u32,
        };
        let Ok(mut longer) = room.create(entry, &spec)? else {
            return Ok(Outcome::Refused(ErrorLine::OutOfMemory));
        };
        longer.write(digits);
        entry.put(longer, request.new_cas);
    }
    Ok(Outcome::Counted {
        number,
        created: false,
    })
}

/// `ma N`, and binary: a missing item begins at its initial value.
fn vivify<'c>(
    ctx: Ctx<'c>,
    request: &Arith<'_>,
    key: &[u8],
    entry: &mut Entry<'c>,
    room: &mut Room<'c>,
) -> Result<Outcome, Shortage> {
    let Some(exptime) = request.vivify else {
        return Ok(Outcome::NotFound);
    };
    let is_binary = request.reply.is_binary();
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(request.initial).as_bytes();
    let spec = ItemSpec {
        key,
        key_binary: request.key.base64 || (is_binary && request.key.needs_base64()),
        client_flags: 0,
        expires_at: if is_binary {
            ctx.expires_at(exptime)
        } else {
            // The token itself sets it, in its turn.
            RelTime::NEVER
        },
        value_len: digits.len() as u32,
    };
    let Ok(mut new) = room.create(entry, &spec)? else {
        return Ok(Outcome::Refused(ErrorLine::OutOfMemoryNewItem));
    };
    new.write(digits);
    entry.put(new, request.new_cas);
    Ok(Outcome::Counted {
        number: request.initial,
        created: true,
    })
}

fn answer(
    ctx: Ctx<'_>,
    request: &Arith<'_>,
    outcome: Outcome,
    hit: Option<Hit<'_, '_>>,
    out: &mut Output<'_>,
) {
    match (request.reply, outcome) {
        (ReplyMode::Binary(head), outcome) => {
            let status = match outcome {
                Outcome::Counted { .. } if head.quiet => return,
                Outcome::Counted { number, .. } => {
                    let cas = hit.map_or(0, |hit| hit.cas());
                    return binary::number(&mut out.buf, head, number, cas);
                }
                Outcome::NotFound => Status::NotFound,
                Outcome::Exists => Status::Exists,
                Outcome::Refused(error) => error.into(),
            };
            binary::error(&mut out.buf, head, status);
        }
        (ReplyMode::NoReply, _) => {}
        (_, Outcome::Refused(error)) => out.error(error),
        (ReplyMode::Text, Outcome::NotFound) => out.bytes(reply::NOT_FOUND),
        (ReplyMode::Text, Outcome::Exists) => out.bytes(reply::EXISTS),
        (ReplyMode::Text, Outcome::Counted { number, .. }) => {
            reply::number(&mut out.buf, number);
            out.bytes(CRLF);
        }
        (ReplyMode::Meta(tokens), Outcome::NotFound) => {
            meta::bare(ctx, MetaCode::NF, tokens, request.key, out);
        }
        (ReplyMode::Meta(tokens), Outcome::Exists) => {
            meta::bare(ctx, MetaCode::EX, tokens, request.key, out);
        }
        (ReplyMode::Meta(tokens), Outcome::Counted { number, created }) => {
            let start = out.buf.len();
            counted(ctx, request, tokens, (number, created), hit.as_ref(), out);
            if tokens.quiet {
                out.buf.truncate(start);
            }
        }
    }
}

/// Does what the tokens of `ma` ask for, and answers them.
fn counted(
    ctx: Ctx<'_>,
    request: &Arith<'_>,
    tokens: MetaTokens<'_>,
    (number, created): (u64, bool),
    hit: Option<&Hit<'_, '_>>,
    out: &mut Output<'_>,
) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    let code = if request.want_value {
        MetaCode::VA(digits.len() as u32)
    } else {
        MetaCode::HD
    };
    let moment = |exptime: Option<Exptime>| exptime.map_or(RelTime::NEVER, |at| ctx.expires_at(at));
    let mut line = MetaLine::new(&mut out.buf, code);
    for (flag, token) in tokens.iter() {
        match (flag, hit) {
            (b'T', Some(hit)) => hit.touch(moment(request.touch)),
            (b'N', Some(hit)) if created => hit.touch(moment(request.vivify)),
            (b'O' | b'k' | b'c' | b't', _) => {
                let item = hit.map(|hit| &**hit);
                meta::echo_one(ctx, &mut line, (flag, token), request.key, item);
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

/// A value as a number: digits, and behind them what counting down leaves, blanks. Nothing else is changed: a value that
/// only begins like a number is somebody's text.
fn parse(value: &[u8]) -> Option<u64> {
    let blanks = value.iter().rev().take_while(|&&byte| byte == b' ').count();
    let digits = &value[..value.len() - blanks];
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Server;

    #[test]
    fn what_reads_as_a_number() {
        let vectors: [(&[u8], Option<u64>); 24] = [
            (b"0", Some(0)),
            (b"007", Some(7)),
            (b"7 ", Some(7)),
            (b"7      ", Some(7)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"000000000000000000000000005", Some(5)),
            (b"18446744073709551616", None),
            (b"99999999999999999999", None),
            (b"2 years later", None),
            (b"1 2", None),
            (b"1\x0bx", None),
            (b" 7", None),
            (b"\t7", None),
            (b"7\t", None),
            (b"7\r\n", None),
            (b"7\0", None),
            (b"+7", None),
            (b"", None),
            (b" ", None),
            (b"+", None),
            (b"-1", None),
            (b"-0", None),
            (b"1x", None),
            (b"1.5", None),
        ];
        for (value, number) in vectors {
            assert_eq!(parse(value), number, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn counting_keeps_what_belongs_to_the_item() {
        let server = Server::start();
        server.check(&[
            ("ms n 2 F7 T100|99", "HD|"),
            ("incr n 1", "100|"),
            ("mg n v f t", "VA 3 f7 t100|100|"),
            ("decr n 91", "9|"),
            ("mg n v f t", "VA 3 f7 t100|9  |"),
            ("incr n 1", "10|"),
            ("get n", "VALUE n 7 3|10 |END|"),
            ("incr n 18446744073709551615", "9|"),
            ("decr n 10", "0|"),
            ("decr n 1 noreply", ""),
            ("incr none 1", "NOT_FOUND|"),
            ("decr none 1 noreply", ""),
        ]);
        let sums = server.shared.stats.read();
        assert_eq!(
            (sums.over_classes().incr_hits, sums.general.incr_misses),
            (3, 1)
        );
        assert_eq!(
            (sums.over_classes().decr_hits, sums.general.decr_misses),
            (3, 1)
        );
        server.shared.cache.check_invariants();
    }

    #[test]
    fn a_padded_value_of_any_length_keeps_it() {
        let server = Server::start();
        for len in [1, 63, 64, 65, 4095] {
            let value = format!("{:<len$}", 8);
            server.ask(&format!("set n 0 0 {len}\r\n{value}\r\n"));
            server.check(&[("incr n 1", "9|")]);
            let value = format!("{:<len$}", 9);
            assert_eq!(
                server.ask("get n\r\n"),
                format!("VALUE n 0 {len}\r\n{value}\r\nEND\r\n")
            );
        }
        server.ask(&format!("set n 0 0 4096\r\n{:<4096}\r\n", 8));
        let refused = "CLIENT_ERROR cannot increment or decrement non-numeric value|";
        server.check(&[
            ("incr n 1", refused),
            ("incr n 1 noreply", ""),
            ("ma n q", refused),
        ]);
    }

    #[test]
    fn meta_arithmetic() {
        let server = Server::start();
        server.check(&[
            ("ma n k O1 v", "NF kn O1|"),
            ("ma n q", "NF|"),
            ("ma n N30 J13 E5 v t c k", "VA 2 t30 c5 kn|13|"),
            ("ma n N60 J1 v t", "VA 2 t30|14|"),
            ("ma n D6 E7 v c", "VA 2 c7|20|"),
            ("ma n C6 k", "EX kn|"),
            ("ma n C7 MD T90 t", "HD t90|"),
            ("ma n t T0", "HD t90|"),
            ("ma n q T50", ""),
            ("mg n v t", "VA 2 t50|21|"),
            ("ma m q N30 J9", ""),
            ("mg m v t", "VA 1 t30|9|"),
            ("ma m E9 C9", "EX|"),
        ]);
    }

    /// Any sequence of counts equals that of plain numbers.
    #[test]
    fn a_counter_follows_its_model() {
        let server = Server::start();
        let mut rng = crate::cache::testing::Rng::new(7);
        let mut model = 0u64;
        server.ask("set n 0 0 1\r\n0\r\n");
        for _ in 0..2000 {
            let delta = rng.next() >> rng.below(56);
            let delta = delta << rng.below(9);
            let verb = if rng.below(2) == 0 { "incr" } else { "decr" };
            model = match verb {
                "incr" => model.wrapping_add(delta),
                _ => model.saturating_sub(delta),
            };
            server.check(&[(&format!("{verb} n {delta}"), &format!("{model}|"))]);
        }
    }
}
