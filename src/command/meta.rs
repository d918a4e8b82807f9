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
//! L1. WIN_SENT is set from the moment somebody wins until the item is replaced or marked stale anew, so that there is
//!     one winner at a time. It is read and set under the key's stripe lock.

use protocol::reply::{CRLF, MetaCode, MetaLine};
use protocol::{KEY_LEN_MAX, Key, KeyBuf, MetaGet, MetaTokens, base64, reply};

use super::output::Output;
use super::retrieval;
use super::shared::Ctx;
use crate::cache::{Entry, ItemSpec, ItemView, KeyHash, Segment};
use crate::clock::RelTime;

/// `mg`.
#[inline]
pub(super) fn get<'c>(ctx: Ctx<'c>, request: &MetaGet<'_>, hash: KeyHash, out: &mut Output<'c>) {
    let mut room: KeyBuf;
    let key = if request.key.base64 {
        room = [0; KEY_LEN_MAX];
        request.key.bytes(&mut room)
    } else {
        request.key.text
    };
    let mut entry = ctx.cache.entry(key, hash, ctx.now);
    let created = entry.item().is_none() && vivify(ctx, request, key, &mut entry);
    count(ctx, request, &entry, key, created);
    let Some(item) = entry.item() else {
        return miss(ctx, request, out);
    };
    let value_len = item.value_len() as u32;
    let (stale, win_sent) = (item.is_stale(), item.is_win_sent());

    let code = if request.want_value {
        MetaCode::VA(value_len)
    } else {
        MetaCode::HD
    };
    let mut line = MetaLine::new(&mut out.buf, code);
    let mut won = created || (stale && !win_sent);
    for (flag, token) in request.tokens.iter() {
        match (flag, request.touch, request.recache) {
            (b'T', Some(exptime), _) => entry.touch(ctx.expires_at(exptime)),
            (b'R', _, Some(exptime)) if !win_sent && !created => {
                let expires_at = entry
                    .item()
                    .map_or(RelTime::NEVER, |item| item.expires_at());
                won |= expires_at != RelTime::NEVER && expires_at < ctx.expires_at(exptime);
            }
            _ => echo_one(
                ctx,
                &mut line,
                (flag, token),
                request.key,
                entry.item().as_ref(),
            ),
        }
    }
    if win_sent {
        line.mark(b'Z');
    }
    if stale {
        line.mark(b'X');
    }
    if won {
        line.mark(b'W');
        entry.mark_win_sent();
    }
    line.end();

    if request.want_value {
        let item = entry
            .item()
            .expect("the item was found above and the stripe is still locked");
        if item.is_large() {
            out.value(entry.pin());
        } else {
            out.bytes(item.value());
        }
        out.bytes(CRLF);
    }
    // Only now, so that `h` and `l` tell of the accesses before this one.
    if !request.no_bump {
        entry.bump();
    }
}

/// `N`: an empty item in the place of a missing one. Without memory for it, the miss stays a miss.
#[cold]
fn vivify<'c>(ctx: Ctx<'c>, request: &MetaGet<'_>, key: &[u8], entry: &mut Entry<'c>) -> bool {
    let Some(exptime) = request.vivify else {
        return false;
    };
    let spec = ItemSpec {
        key,
        key_binary: request.key.base64,
        client_flags: 0,
        expires_at: ctx.expires_at(exptime),
        value_len: 0,
    };
    let Ok(new) = ctx.cache.create(&spec, ctx.now) else {
        return false;
    };
    entry.put(new, request.new_cas.unwrap_or_else(|| ctx.cache.next_cas()));
    true
}

/// Counts as memcached does: a hit with `T` is a touch and no get, and an item that was created is a hit.
#[inline]
fn count(ctx: Ctx<'_>, request: &MetaGet<'_>, entry: &Entry<'_>, key: &[u8], created: bool) {
    match entry.item() {
        Some(_) if request.touch.is_some() => {
            retrieval::count_touch(ctx, entry);
            ctx.shared.prefixes.count_get(key, !created);
        }
        Some(item) if created => {
            ctx.stats.general.cmd_get.inc();
            let class = &ctx.stats.classes[item.class().index()];
            class.get_hits.inc();
            match item.segment() {
                Segment::Hot => class.hits_to_hot.inc(),
                Segment::Warm => class.hits_to_warm.inc(),
                Segment::Cold => class.hits_to_cold.inc(),
                Segment::Temp => class.hits_to_temp.inc(),
            }
            ctx.shared.prefixes.count_get(key, false);
        }
        _ => retrieval::count_lookup(ctx, entry, key),
    }
}

/// `EN`, which `q` hides.
fn miss(ctx: Ctx<'_>, request: &MetaGet<'_>, out: &mut Output<'_>) {
    if request.tokens.quiet {
        return;
    }
    let mut line = MetaLine::new(&mut out.buf, MetaCode::EN);
    echo(ctx, &mut line, request.tokens, request.key, None, b"Ok");
    line.end();
}

/// Gives back, in the order of the request, those tokens whose letter is in `letters`.
#[inline]
pub(super) fn echo(
    ctx: Ctx<'_>,
    line: &mut MetaLine<'_>,
    tokens: MetaTokens<'_>,
    key: Key<'_>,
    item: Option<&ItemView<'_>>,
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
    item: Option<&ItemView<'_>>,
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
fn seconds_left(ctx: Ctx<'_>, item: &ItemView<'_>) -> i64 {
    match item.expires_at() {
        RelTime::NEVER => -1,
        expires_at => i64::from(expires_at.since(ctx.now)),
    }
}

/// `me`: what the server knows of an item, without touching it.
pub(super) fn debug(ctx: Ctx<'_>, key: Key<'_>, hash: KeyHash, out: &mut Output<'_>) {
    ctx.stats.general.cmd_meta.inc();
    let mut room: KeyBuf = [0; KEY_LEN_MAX];
    let entry = ctx.cache.entry(key.bytes(&mut room), hash, ctx.now);
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
pub(super) fn write_key(item: &ItemView<'_>, out: &mut Vec<u8>) {
    if item.key_binary() {
        base64::encode(item.key(), out);
    } else {
        out.extend_from_slice(item.key());
    }
}
