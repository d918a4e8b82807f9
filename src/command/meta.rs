//! `mg` and `me`, and the tokens that every meta reply gives back.
//!
//! ```text
//!  mg key t T30 c k  -->  HD t10 c77 kkey W
//!         \________/         \__________/ \
//!         walked in order:   each shows the item as the tokens before it left it; then the marks
//! ```
//!
//! **The lease.** Of all who see a missing (`N`), stale (`md I`) or soon expiring (`R`) item, one wins and is to fetch it
//! anew; the others are told that somebody is at it:
//!
//! ```text
//!  W  you won          X  the value is stale          Z  somebody won before you
//! ```
//!
//! Mt1. WIN_SENT is set from the moment somebody wins until the item is replaced or marked stale anew, so that there is
//!     one winner at a time. It is read and set under the key's stripe lock.

use protocol::reply::{CRLF, MetaCode, MetaLine};
use protocol::{Exptime, Key, KeyBuf, MetaGet, MetaTokens, base64, reply};

use super::output::Output;
use super::retrieval;
use super::sights;
use crate::cache::{Entry, Hit, ItemHead, ItemSpec, Probe, Room, Shortage, Sought};
use crate::clock::RelTime;
use crate::events::{Audience, Cause};
use crate::state::{Ctx, Outcome, Seen};

/// `mg`.
#[inline]
pub(super) fn get<'c>(ctx: Ctx<'c>, request: &MetaGet<'_>, probe: Probe, out: &mut Output<'c>) {
    let mut room = KeyBuf::default();
    let sought = probe.of(request.key.bytes(&mut room));
    match found(ctx, request, sought, out) {
        Ok(hit) => ctx.note(&hit),
        Err(miss) => {
            ctx.note(&miss);
            if !request.tokens.quiet {
                bare(ctx, MetaCode::EN, request.tokens, request.key, out);
            }
        }
    }
}

/// Tells of the key's item, if there is one, and lets its stripe go; gives what is to be told of it, as an error of a miss.
#[inline(always)]
fn found<'k, 'c>(
    ctx: Ctx<'c>,
    request: &MetaGet<'_>,
    sought: Sought<'k>,
    out: &mut Output<'c>,
) -> Result<Seen<'k>, Seen<'k>> {
    let key = sought.key;
    let mut entry = ctx.cache.entry(sought, ctx.at(Cause::Mg));
    if sights::wanted(ctx).has(Audience::FETCHERS) {
        sights::looked_up(ctx, key, &entry);
    }
    let mut created = false;
    if entry.item().is_none() && request.vivify.is_some() {
        (entry, created) = entry.update(key, |entry, room| vivify(request, key, entry, room));
    }
    let seen = seen(request, &entry, sought, created);
    let Some(hit) = entry.found() else {
        return Err(seen);
    };
    // Who knows the unique has the value.
    let want_value = request.want_value && request.known_cas != Some(hit.cas());
    let code = if want_value {
        MetaCode::VA(hit.value_len() as u32)
    } else {
        MetaCode::HD
    };
    let (stale, win_sent) = (hit.is_stale(), hit.is_win_sent());
    let mut line = MetaLine::new(&mut out.buf, code);
    let mut won = created || (stale && !win_sent);
    if request.tokens.bare {
        for &letter in request.tokens.text.iter().step_by(2) {
            tell(ctx, &mut line, (letter, b""), request.key, &hit);
        }
    } else {
        won |= act(ctx, request, &hit, created, &mut line);
    }
    if win_sent {
        line.mark(b'Z');
    }
    if stale {
        line.mark(b'X');
    }
    if won {
        line.mark(b'W');
        hit.mark_win_sent();
    }
    line.end();

    if want_value {
        retrieval::write_value(&hit, out);
        out.bytes(CRLF);
    }
    // Only now, so that `h` and `l` tell of the accesses before this one.
    if !request.no_bump {
        hit.bump();
    }
    Ok(seen)
}

/// Goes through the tokens: each acts on the item, or shows it. True if one of them wins the lease.
#[inline(never)]
fn act(
    ctx: Ctx<'_>,
    request: &MetaGet<'_>,
    hit: &Hit<'_, '_>,
    created: bool,
    line: &mut MetaLine<'_>,
) -> bool {
    let mut won = false;
    let moment = |exptime: Option<Exptime>| exptime.map_or(RelTime::NEVER, |at| ctx.expires_at(at));
    for (flag, token) in request.tokens.iter() {
        match flag {
            b'T' => hit.touch(moment(request.touch)),
            b'N' if created => hit.touch(moment(request.vivify)),
            b'R' if !created && !hit.is_win_sent() => {
                let expires_at = hit.expires_at();
                won |= expires_at != RelTime::NEVER && expires_at < moment(request.recache);
            }
            _ => tell(ctx, line, (flag, token), request.key, hit),
        }
    }
    won
}

/// Gives back one token of `mg`, which names the key as it was stored: in base64 if that is how it came.
#[inline]
fn tell(
    ctx: Ctx<'_>,
    line: &mut MetaLine<'_>,
    (flag, token): (u8, &[u8]),
    key: Key<'_>,
    item: &ItemHead<'_>,
) {
    match flag {
        b'k' if item.key_binary() => line.key_in_base64(item.key()),
        b'k' => line.bytes(b'k', item.key()),
        b'P' => {
            let share_milli = ctx.hot_share_milli(item.key());
            if share_milli > 0 {
                line.number(b'P', share_milli);
            }
        }
        _ => echo_one(ctx, line, (flag, token), key, Some(item)),
    }
}

/// `N`: an empty item in the place of a missing one; true if it was put there. Without memory for it, the miss stays a miss.
#[cold]
fn vivify<'c>(
    request: &MetaGet<'_>,
    key: &[u8],
    entry: &mut Entry<'c>,
    room: &mut Room<'c>,
) -> Result<bool, Shortage> {
    if entry.item().is_some() {
        return Ok(false);
    }
    let spec = ItemSpec {
        key,
        key_binary: request.key.base64,
        client_flags: 0,
        // The token itself sets it, in its turn.
        expires_at: RelTime::NEVER,
        value_len: 0,
    };
    let Ok(new) = room.create(entry, &spec)? else {
        return Ok(false);
    };
    entry.put(new, request.new_cas);
    Ok(true)
}

/// What is told of it. As memcached counts: a hit with `T` is a touch and no get, a miss is a get, and an item that was
/// created is a hit.
#[inline]
fn seen<'k>(
    request: &MetaGet<'_>,
    entry: &Entry<'_>,
    sought: Sought<'k>,
    created: bool,
) -> Seen<'k> {
    let touches = request.touch.is_some() && entry.item().is_some();
    let mut seen = retrieval::seen_read(entry, sought, touches);
    if let Outcome::Hit(segment) = seen.outcome
        && created
    {
        seen.outcome = Outcome::Created(segment);
    }
    seen
}

/// A reply that has no item to tell of: only the opaque and the key are given back.
pub(super) fn bare(
    ctx: Ctx<'_>,
    code: MetaCode,
    tokens: MetaTokens<'_>,
    key: Key<'_>,
    out: &mut Output<'_>,
) {
    let mut line = MetaLine::new(&mut out.buf, code);
    echo(ctx, &mut line, tokens, key, None, b"Ok");
    line.end();
}

/// Gives back, in the order of the request, those tokens whose letter is in `letters`.
#[inline]
pub(super) fn echo(
    ctx: Ctx<'_>,
    line: &mut MetaLine<'_>,
    tokens: MetaTokens<'_>,
    key: Key<'_>,
    item: Option<&ItemHead<'_>>,
    letters: &[u8],
) {
    for token in tokens.iter() {
        if letters.contains(&token.0) {
            echo_one(ctx, line, token, key, item);
        }
    }
}

/// Gives back one token; nothing if it asks for no answer, or about an item where there is none.
#[inline]
pub(super) fn echo_one(
    ctx: Ctx<'_>,
    line: &mut MetaLine<'_>,
    (flag, token): (u8, &[u8]),
    key: Key<'_>,
    item: Option<&ItemHead<'_>>,
) {
    match (flag, item) {
        (b'O', _) => line.bytes(b'O', token),
        (b'k', _) => line.key(key),
        (b'c', Some(item)) => line.number(b'c', item.cas()),
        (b's', Some(item)) => line.number(b's', item.value_len()),
        (b'f', Some(item)) => line.number(b'f', item.client_flags()),
        (b'l', Some(item)) => line.number(b'l', ctx.now.since(item.accessed_at())),
        (b'h', Some(item)) => line.number(b'h', u8::from(item.is_fetched())),
        (b't', Some(item)) => line.number(b't', seconds_left(ctx, item)),
        _ => {}
    }
}

/// Seconds the item has to live, -1 for ever.
fn seconds_left(ctx: Ctx<'_>, item: &ItemHead<'_>) -> i64 {
    match item.expires_at() {
        RelTime::NEVER => -1,
        expires_at => i64::from(expires_at.since(ctx.now)),
    }
}

/// `me`: what the server knows of an item, without touching it.
pub(super) fn debug(ctx: Ctx<'_>, key: Key<'_>, probe: Probe, out: &mut Output<'_>) {
    ctx.stats.general.cmd_meta.inc();
    let mut room = KeyBuf::default();
    let sought = probe.of(key.bytes(&mut room));
    let entry = ctx.cache.entry(sought, ctx.at(Cause::Get));
    if sights::wanted(ctx).has(Audience::FETCHERS) {
        sights::looked_up(ctx, sought.key, &entry);
    }
    let Some(item) = entry.item() else {
        return out.bytes(b"EN\r\n");
    };
    out.bytes(b"ME ");
    write_key(&item, &mut out.buf);
    let fields = [
        (&b" exp="[..], seconds_left(ctx, &item)),
        (b" la=", i64::from(ctx.now.since(item.accessed_at()))),
    ];
    for (name, value) in fields {
        out.bytes(name);
        reply::number(&mut out.buf, value);
    }
    out.bytes(b" cas=");
    reply::number(&mut out.buf, item.cas());
    out.bytes(if item.is_fetched() {
        b" fetch=yes cls="
    } else {
        b" fetch=no cls="
    });
    reply::number(&mut out.buf, item.class().get());
    out.bytes(b" size=");
    reply::number(&mut out.buf, item.item_bytes());
    out.bytes(CRLF);
}

/// The key of an item, in base64 if it was stored so; only the bytes that are there, no marker.
pub(super) fn write_key(item: &ItemHead<'_>, out: &mut Vec<u8>) {
    if item.key_binary() {
        base64::encode(item.key(), out);
    } else {
        out.extend_from_slice(item.key());
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::Server;

    #[test]
    fn flags_come_back_in_the_order_they_were_asked_for() {
        let server = Server::start();
        server.check(&[
            ("ms a 2 F9 T100 E77|hi", "HD|"),
            ("mg a s f t c k Oabc", "HD s2 f9 t100 c77 ka Oabc|"),
            ("mg a k v c", "VA 2 ka c77|hi|"),
            ("mg a", "HD|"),
            ("mg none k O1 s t", "EN knone O1|"),
            ("mg none q", ""),
            ("mg YQ== b k v", "VA 2 ka|hi|"),
            ("mg bm9uZQ== b k", "EN kbm9uZQ== b|"),
            ("ms YQ== 2 b k|hi", "HD kYQ== b|"),
            ("mg a k", "HD kYQ== b|"),
        ]);
    }

    #[test]
    fn a_token_sees_what_the_tokens_before_it_did() {
        let server = Server::start();
        server.check(&[
            ("ms a 1|x", "HD|"),
            ("mg a t T100", "HD t-1|"),
            ("mg a T200 t", "HD t200|"),
            ("mg a R150 T100", "HD|"),
            ("mg a T200 R150", "HD|"),
            ("mg a R150 T300", "HD|"),
            ("mg a T100 R150", "HD W|"),
            ("mg new t N30", "HD t-1 W|"),
            ("mg newer N30 t", "HD t30 W|"),
        ]);
    }

    #[test]
    fn access_is_told_as_it_was_before() {
        let server = Server::start();
        server.check(&[
            ("ms a 1|x", "HD|"),
            ("mg a u h l", "HD h0 l0|"),
            ("mg a h l", "HD h0 l0|"),
        ]);
        server.pass(7);
        server.check(&[
            ("mg a u h l", "HD h1 l7|"),
            ("mg a l", "HD l7|"),
            ("mg a l", "HD l0|"),
        ]);
    }

    #[test]
    fn who_knows_the_unique_gets_no_value() {
        let server = Server::start();
        server.check(&[
            ("ms a 2 E5 F3|hi", "HD|"),
            ("mg a v C5", "HD|"),
            ("mg a v C5 c s f", "HD c5 s2 f3|"),
            ("mg a v C4 c", "VA 2 c5|hi|"),
            ("mg a C4", "HD|"),
            ("mg a v C0", "VA 2|hi|"),
            ("mg none v C5", "EN|"),
            ("mg new N30 E5 v C5", "HD W|"),
            ("mg a v C5 T30 t", "HD t30|"),
            (
                "mg a v Cx",
                "CLIENT_ERROR bad token in command line format|",
            ),
        ]);
        let server = Server::without_cas();
        server.check(&[("ms a 2|hi", "HD|"), ("mg a v C0 c", "HD c0|")]);
    }

    #[test]
    fn a_missing_item_is_won_once() {
        let server = Server::start();
        server.check(&[
            ("mg a N30 E5 c v", "VA 0 c5 W||"),
            ("mg a N30 v", "VA 0 Z||"),
            ("mg a", "HD Z|"),
            ("ms a 1 C5|x", "HD|"),
            ("mg a N30 v", "VA 1|x|"),
        ]);
    }

    #[test]
    fn a_soon_expiring_item_is_won_once() {
        let server = Server::start();
        server.check(&[("ms a 1 T40|x", "HD|"), ("mg a R30", "HD|")]);
        server.pass(11);
        server.check(&[
            ("mg a R29", "HD|"),
            ("mg a R30", "HD W|"),
            ("mg a R30", "HD Z|"),
            ("ms a 1 T40|x", "HD|"),
            ("mg a R30", "HD|"),
            ("ms a 1|x", "HD|"),
            ("mg a R1000", "HD|"),
        ]);
    }

    #[test]
    fn a_stale_item_is_won_once() {
        let server = Server::start();
        server.check(&[
            ("ms a 1|x", "HD|"),
            ("md a I", "HD|"),
            ("mg a v", "VA 1 X W|x|"),
            ("mg a v", "VA 1 Z X|x|"),
            ("md a I", "HD|"),
            ("mg a", "HD X W|"),
            ("ms a 1|x", "HD|"),
            ("mg a", "HD|"),
        ]);
    }

    #[test]
    fn a_large_value_follows_its_line() {
        let server = Server::start();
        let value = "v".repeat(500_000);
        server.ask(&format!("set a 3 0 {}\r\n{value}\r\n", value.len()));
        let reply = server.ask("mg a v s f k\r\nmg a\r\n");
        assert_eq!(
            reply,
            format!("VA 500000 s500000 f3 ka\r\n{value}\r\nHD\r\n")
        );
    }

    #[test]
    fn lookups_are_counted() {
        let server = Server::start();
        server.ask("ms a 1\r\nx\r\nmg a\r\nmg a T0\r\nmg none\r\nmg new N0\r\nmg none T0\r\n");
        let sums = server.shared.stats.read();
        let hits = sums.over_classes();
        assert_eq!(
            (sums.general.cmd_get, hits.get_hits, sums.general.get_misses),
            (4, 2, 2)
        );
        assert_eq!(
            (
                sums.general.cmd_touch,
                hits.touch_hits,
                sums.general.touch_misses
            ),
            (1, 1, 0)
        );
        server.ask("ms a 1 T-1\r\nx\r\nmg a\r\n");
        assert_eq!(server.shared.stats.read().general.get_expired, 1);
    }

    #[test]
    fn an_item_is_described() {
        let server = Server::start();
        server.check(&[("ms a 3 T90 E12|abc", "HD|"), ("ms AAEC 1 b E13|x", "HD|")]);
        server.pass(5);
        let described = server.ask("me a\r\nme AAEC b\r\nme none\r\n");
        let lines: Vec<&str> = described.split("\r\n").collect();
        assert!(
            lines[0].starts_with("ME a exp=85 la=5 cas=12 fetch=no cls="),
            "{described}"
        );
        assert!(
            lines[1].starts_with("ME AAEC exp=-1 la=5 cas=13 fetch=no cls="),
            "{described}"
        );
        assert_eq!(lines[2], "EN");
    }
}
