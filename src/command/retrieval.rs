//! `get`, `gets`, `gat`, `gats` and `touch`, and what answers to them in binary.

use protocol::reply::{self, CRLF};
use protocol::{BinaryGet, GetVerb, Key, KeyBuf, Keys, Status, Touch, binary};

use super::config;
use super::output::Output;
use super::shared::Ctx;
use crate::cache::{Entry, ItemView, KeyHash, Lookup, Segment};

/// Keys hashed and prefetched together: enough misses in flight to keep the memory busy (a core has 10 to 16 line fill
/// buffers), few enough to stay in the first-level cache.
const KEYS_AT_ONCE: usize = 16;

/// Answers the keys of a list until it ends or `out` is full; gives the bytes of `keys` that are done. `END` is the
/// caller's.
pub(super) fn get<'c>(ctx: Ctx<'c>, verb: GetVerb, keys: Keys<'_>, out: &mut Output<'c>) -> usize {
    let mut at = 0;
    loop {
        let mut batch: [(&[u8], KeyHash); KEYS_AT_ONCE] = [(&[], KeyHash(0)); KEYS_AT_ONCE];
        let mut ends = [0; KEYS_AT_ONCE];
        let mut count = 0;
        while count < KEYS_AT_ONCE
            && let Some((key, end)) = keys.next_from(at)
        {
            let hash = ctx.cache.hash(key);
            batch[count] = (key, hash);
            ends[count] = end;
            at = end;
            count += 1;
        }
        if count > 1 {
            for (_, hash) in &batch[..count] {
                ctx.cache.prefetch_bucket(*hash);
            }
            for (_, hash) in &batch[..count] {
                ctx.cache.prefetch_item(*hash);
            }
        }
        for (&(key, hash), &end) in batch[..count].iter().zip(&ends) {
            get_one(ctx, verb, key, hash, out);
            if out.is_full() {
                return end;
            }
        }
        if count < KEYS_AT_ONCE {
            return keys.0.len();
        }
    }
}

/// Answers one key.
#[inline]
pub(super) fn get_one<'c>(
    ctx: Ctx<'c>,
    verb: GetVerb,
    key: &[u8],
    hash: KeyHash,
    out: &mut Output<'c>,
) {
    let mut entry = ctx.cache.entry(key, hash, ctx.now);
    match verb.touch {
        None => count_lookup(ctx, &entry, key),
        Some(exptime) => {
            // Counted as a touch alone, as memcached does; the prefixes know no touches.
            let found = entry.item().is_some();
            count_touch(ctx, &entry);
            ctx.shared.prefixes.count_get(key, found);
            if found {
                entry.touch(ctx.expires_at(exptime));
            }
        }
    }
    let Some(item) = entry.item() else {
        // Behind the miss, so that no other key pays for it.
        if key == config::OLD_KEY {
            ctx.shared.cluster.show_as_item(verb.with_cas, out);
        }
        return;
    };
    let cas = verb.with_cas.then(|| item.cas());
    let value_len = item.value_len();
    reply::value_head(
        &mut out.buf,
        key,
        item.client_flags(),
        value_len as u32,
        cas,
    );
    write_value(&entry, out);
    out.bytes(CRLF);
    entry.bump();
}

/// Adds the value of the entry's item: a small one copied, a large one by reference. Nothing without an item.
#[inline]
pub(super) fn write_value<'c>(entry: &Entry<'c>, out: &mut Output<'c>) {
    match entry.item() {
        Some(item) if item.is_large() => out.value(entry.pin()),
        Some(item) => out.bytes(item.value()),
        None => {}
    }
}

/// Binary get, gat and touch, with or without the key.
#[inline]
pub(super) fn get_binary<'c>(
    ctx: Ctx<'c>,
    request: &BinaryGet<'_>,
    hash: KeyHash,
    out: &mut Output<'c>,
) {
    let (head, key) = (request.head, request.key.text);
    let mut entry = ctx.cache.entry(key, hash, ctx.now);
    match request.touch {
        None => count_lookup(ctx, &entry, key),
        Some(exptime) => {
            let found = entry.item().is_some();
            count_touch(ctx, &entry);
            ctx.shared.prefixes.count_get(key, found);
            if found {
                entry.touch(ctx.expires_at(exptime));
            }
        }
    }
    let Some(item) = entry.item() else {
        return match (head.quiet, request.want_key) {
            (true, _) => {}
            (false, true) => binary::missing(&mut out.buf, head, key),
            (false, false) => binary::error(&mut out.buf, head, Status::NotFound),
        };
    };
    let key = if request.want_key { key } else { b"" };
    let value_len = if request.want_value {
        item.value_len() as u32
    } else {
        0
    };
    let (flags, cas) = (item.client_flags(), item.cas());
    binary::value_head(&mut out.buf, head, flags, key, value_len, cas);
    if request.want_value {
        write_value(&entry, out);
    }
    entry.bump();
}

/// Counts a lookup that is a read.
#[inline]
pub(super) fn count_lookup(ctx: Ctx<'_>, entry: &Entry<'_>, key: &[u8]) {
    let general = &ctx.stats.general;
    general.cmd_get.inc();
    match (entry.lookup(), entry.item()) {
        (Lookup::Found, Some(item)) => {
            count_hit(ctx, &item);
        }
        (lookup, _) => {
            general.get_misses.inc();
            match lookup {
                Lookup::Expired => general.get_expired.inc(),
                Lookup::Flushed => general.get_flushed.inc(),
                Lookup::Found | Lookup::Missing => {}
            }
        }
    }
    ctx.shared
        .prefixes
        .count_get(key, entry.lookup() == Lookup::Found);
}

/// Counts a hit where it happened: by class and by segment.
#[inline]
pub(super) fn count_hit(ctx: Ctx<'_>, item: &ItemView<'_>) {
    let class = &ctx.stats.classes[item.class().index()];
    class.get_hits.inc();
    match item.segment() {
        Segment::Hot => class.hits_to_hot.inc(),
        Segment::Warm => class.hits_to_warm.inc(),
        Segment::Cold => class.hits_to_cold.inc(),
        Segment::Temp => class.hits_to_temp.inc(),
    }
}

/// Counts a change of an expiry.
pub(super) fn count_touch(ctx: Ctx<'_>, entry: &Entry<'_>) {
    ctx.stats.general.cmd_touch.inc();
    match entry.item() {
        Some(item) => {
            ctx.stats.general.touch_hits.inc();
            ctx.stats.classes[item.class().index()].touch_hits.inc();
        }
        None => ctx.stats.general.touch_misses.inc(),
    }
}

/// `touch`.
pub(super) fn touch(ctx: Ctx<'_>, request: &Touch<'_>, hash: KeyHash, out: &mut Output<'_>) {
    let mut room: KeyBuf = [0; protocol::KEY_LEN_MAX];
    let mut entry = ctx.cache.entry(request.key.bytes(&mut room), hash, ctx.now);
    count_touch(ctx, &entry);
    let found = entry.item().is_some();
    if found {
        entry.touch(ctx.expires_at(request.exptime));
        entry.bump();
    }
    if !request.noreply {
        out.bytes(if found {
            reply::TOUCHED
        } else {
            reply::NOT_FOUND
        });
    }
}

/// The hash of a key, whatever its form.
#[inline]
pub(super) fn hash_of(ctx: Ctx<'_>, key: Key<'_>) -> KeyHash {
    if key.base64 {
        let mut room: KeyBuf = [0; protocol::KEY_LEN_MAX];
        ctx.cache.hash(key.bytes(&mut room))
    } else {
        ctx.cache.hash(key.text)
    }
}
