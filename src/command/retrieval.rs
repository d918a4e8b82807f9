//! `get`, `gets`, `gat`, `gats` and `touch`, and what answers to them in binary.

use protocol::reply::{self, CRLF_END, END};
use protocol::{BinaryGet, GetVerb, Key, KeyBuf, Keys, Status, Touch, binary};

use super::config;
use super::output::Output;
use super::sights;
use crate::cache::{Ahead, Entry, Hit, Probe, Sought};
use crate::events::{Audience, Cause};
use crate::state::{Ctx, Outcome, Seen, Verb};

/// Keys hashed and prefetched together: enough misses in flight to keep the memory busy (a core has 10 to 16 line fill
/// buffers), few enough to stay in the first-level cache.
const KEYS_AT_ONCE: usize = 16;

/// Keys of a list that are looked for together.
struct KeyBatch<'k> {
    /// Keys, what is looked for of them ahead, and where in the list what follows them begins.
    keys: [(&'k [u8], Ahead, usize); KEYS_AT_ONCE],
    count: usize,
}

impl<'k> KeyBatch<'k> {
    fn new() -> Self {
        KeyBatch {
            keys: [(&[], Ahead::default(), 0); KEYS_AT_ONCE],
            count: 0,
        }
    }

    /// Takes the keys that begin at `at`, and has their buckets fetched; gives where the rest begins.
    #[inline]
    fn fill(&mut self, ctx: Ctx<'_>, keys: Keys<'k>, mut at: usize) -> usize {
        self.count = 0;
        while self.count < KEYS_AT_ONCE
            && let Some((key, end)) = keys.next_from(at)
        {
            self.keys[self.count] = (key, ctx.cache.look_ahead(key, false), end);
            at = end;
            self.count += 1;
        }
        at
    }
}

/// Answers the keys of a list until it ends or `out` is full; gives the bytes of `keys` that are done. `END` is the
/// caller's.
///
/// Two batches are under way: while the items of one are fetched the keys of the next are read, whose buckets are fetched
/// while the first is answered.
pub(super) fn get<'c>(ctx: Ctx<'c>, verb: GetVerb, keys: Keys<'_>, out: &mut Output<'c>) -> usize {
    let (mut batch, mut next) = (&mut KeyBatch::new(), &mut KeyBatch::new());
    let mut at = batch.fill(ctx, keys, 0);
    while batch.count > 0 {
        for (_, ahead, _) in &mut batch.keys[..batch.count] {
            ahead.step(ctx.cache);
        }
        at = next.fill(ctx, keys, at);
        for (_, ahead, _) in &mut batch.keys[..batch.count] {
            ahead.step(ctx.cache);
        }
        for (key, ahead, end) in &batch.keys[..batch.count] {
            get_one(ctx, verb, ahead.probe().of(key), false, out);
            if out.is_full() {
                return *end;
            }
        }
        std::mem::swap(&mut batch, &mut next);
    }
    keys.0.len()
}

/// Answers one key; with the end of the reply, if it is the `last`.
#[inline]
pub(super) fn get_one<'c>(
    ctx: Ctx<'c>,
    verb: GetVerb,
    sought: Sought<'_>,
    last: bool,
    out: &mut Output<'c>,
) {
    match found(ctx, verb, sought, last, out) {
        Ok(hit) => ctx.note(&hit),
        Err(miss) => {
            ctx.note(&miss);
            // Behind the miss, so that no other key pays for it.
            if sought.key == config::OLD_KEY {
                config::show_as_item(ctx, verb.with_cas, out);
            }
            if last {
                out.bytes(END);
            }
        }
    }
}

/// Adds the item of a key, if there is one, and lets its stripe go; gives what is to be told of it, as an error of a miss.
#[inline(always)]
fn found<'k, 'c>(
    ctx: Ctx<'c>,
    verb: GetVerb,
    sought: Sought<'k>,
    last: bool,
    out: &mut Output<'c>,
) -> Result<Seen<'k>, Seen<'k>> {
    let key = sought.key;
    let cause = verb.touch.map_or(Cause::Get, |_| Cause::Gat);
    let mut entry = ctx.cache.entry(sought, ctx.at(cause));
    if sights::wanted(ctx).has(Audience::FETCHERS) {
        sights::looked_up(ctx, key, &entry);
    }
    let seen = seen_read(&entry, sought, verb.touch.is_some());
    let Some(hit) = entry.found() else {
        return Err(seen);
    };
    if let Some(exptime) = verb.touch {
        hit.touch(ctx.expires_at(exptime));
    }
    reply::value_head(
        &mut out.buf,
        key,
        hit.client_flags(),
        hit.value_len() as u32,
        verb.with_cas.then(|| hit.cas()),
    );
    write_value(&hit, out);
    // Bytes of a fixed length, as those of either would be copied by a call.
    out.bytes(CRLF_END);
    if !last {
        out.buf.truncate(out.buf.len() - END.len());
    }
    hit.bump();
    Ok(seen)
}

/// What is told of a read, which with an expiry is a touch; from the entry as it was found.
#[inline(always)]
pub(super) fn seen_read<'k>(entry: &Entry<'_>, sought: Sought<'k>, touches: bool) -> Seen<'k> {
    let item = entry.item();
    Seen {
        verb: if touches {
            Verb::GetAndTouch
        } else {
            Verb::Get
        },
        key_hash: sought.hash(),
        key: sought.key,
        outcome: match &item {
            Some(item) => Outcome::Hit(item.segment()),
            None => Outcome::Miss(entry.lookup()),
        },
        class: item.as_ref().map(|item| item.class()),
        bytes: item.map_or(0, |item| item.value_len() as u32),
    }
}

/// Values of at least so many bytes are sent from where they lie: about where the bookkeeping of one reference costs as
/// much as the copy.
const SENT_FROM_ITS_PLACE_MIN: usize = 4096;

/// Adds the item's value, copied or by reference.
#[inline(always)]
pub(super) fn write_value<'c>(hit: &Hit<'_, 'c>, out: &mut Output<'c>) {
    match hit.value() {
        Some(value) => out.bytes(value),
        None => write_large_value(hit, out),
    }
}

fn write_large_value<'c>(hit: &Hit<'_, 'c>, out: &mut Output<'c>) {
    if hit.value_len() >= SENT_FROM_ITS_PLACE_MIN {
        return out.value(hit.pin());
    }
    for piece in hit.value_pieces() {
        out.bytes(piece);
    }
}

/// Binary get, gat and touch, with or without the key.
#[inline]
pub(super) fn get_binary<'c>(
    ctx: Ctx<'c>,
    request: &BinaryGet<'_>,
    probe: Probe,
    out: &mut Output<'c>,
) {
    let (head, key) = (request.head, request.key.text);
    let sought = probe.of(key);
    let cause = match request.touch {
        None => Cause::Get,
        Some(_) if request.want_value => Cause::Gat,
        Some(_) => Cause::Touch,
    };
    let mut entry = ctx.cache.entry(sought, ctx.at(cause));
    if sights::wanted(ctx).has(Audience::FETCHERS) {
        sights::looked_up(ctx, key, &entry);
    }
    let seen = seen_read(&entry, sought, request.touch.is_some());
    let Some(hit) = entry.found() else {
        drop(entry);
        ctx.note(&seen);
        return match (head.quiet, request.want_key) {
            (true, _) => {}
            (false, true) => binary::missing(&mut out.buf, head, key),
            (false, false) => binary::error(&mut out.buf, head, Status::NotFound),
        };
    };
    if let Some(exptime) = request.touch {
        hit.touch(ctx.expires_at(exptime));
    }
    let key = if request.want_key { key } else { b"" };
    let value_len = if request.want_value {
        hit.value_len() as u32
    } else {
        0
    };
    let (flags, cas) = (hit.client_flags(), hit.cas());
    binary::value_head(&mut out.buf, head, flags, key, value_len, cas);
    if request.want_value {
        write_value(&hit, out);
    }
    hit.bump();
    drop(entry);
    ctx.note(&seen);
}

/// `touch`.
pub(super) fn touch(ctx: Ctx<'_>, request: &Touch<'_>, probe: Probe, out: &mut Output<'_>) {
    let mut room = KeyBuf::default();
    let sought = probe.of(request.key.bytes(&mut room));
    let mut entry = ctx.cache.entry(sought, ctx.at(Cause::Touch));
    if sights::wanted(ctx).has(Audience::FETCHERS) {
        sights::looked_up(ctx, sought.key, &entry);
    }
    let seen = Seen {
        verb: Verb::Touch,
        ..seen_read(&entry, sought, true)
    };
    let found = entry.found().inspect(|hit| {
        hit.touch(ctx.expires_at(request.exptime));
        hit.bump();
    });
    let is_found = found.is_some();
    drop(entry);
    ctx.note(&seen);
    if !request.noreply {
        out.bytes(if is_found {
            reply::TOUCHED
        } else {
            reply::NOT_FOUND
        });
    }
}

/// Begins to look for a key, whatever its form.
#[inline(always)]
pub(super) fn probe_of(ctx: Ctx<'_>, key: Key<'_>) -> Probe {
    if key.base64 {
        in_base64(key, |key| ctx.cache.probe(key))
    } else {
        ctx.cache.probe(key.text)
    }
}

/// The same ahead of its request, which may take the item out if it `unlinks`.
#[inline(always)]
pub(super) fn look_ahead(ctx: Ctx<'_>, key: Key<'_>, unlinks: bool) -> Ahead {
    if key.base64 {
        in_base64(key, |key| ctx.cache.look_ahead(key, unlinks))
    } else {
        ctx.cache.look_ahead(key.text, unlinks)
    }
}

/// Gives `act` the bytes of a key that came in base64. By itself, so that it stands in nobody's way who asks for others.
#[cold]
fn in_base64<R>(key: Key<'_>, act: impl FnOnce(&[u8]) -> R) -> R {
    let mut room = KeyBuf::default();
    act(key.bytes(&mut room))
}
