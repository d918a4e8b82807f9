//! What watchers are shown of requests about keys, with memcached's words. Told while the key's stripe is locked, so in each
//! key's order.
//!
//! As there, whatever looks a key up is a fetch: a store or a delete as well.

use protocol::{ErrorLine, MetaTokens, ReplyMode, Store, StoreMode};

use super::numbers::number;
use crate::cache::{At, ClassId, Entry, ItemHead, Lookup};
use crate::clock::RelTime;
use crate::events::{Audience, Cause, FetchEnd, Shown, StoreEnd};
use crate::state::Ctx;

/// The moment of a store, and as what it is told, which costs something only where somebody listens. Who begins to listen just then
/// may be told of this one as of a plain `set`.
#[inline]
pub(super) fn at_of(ctx: Ctx<'_>, store: &Store<'_>) -> At {
    if wanted(ctx).is_empty() {
        ctx.at(Cause::Set)
    } else {
        ctx.at_from(cause_of(store), origin(ctx, &store.reply))
    }
}

/// Where a change comes from, as the client says with `L` and a number: other servers ignore that flag. Of interest to
/// readers of the feed alone.
#[inline]
pub(super) fn origin(ctx: Ctx<'_>, reply: &ReplyMode<'_>) -> u16 {
    match reply {
        ReplyMode::Meta(tokens) if ctx.cache.events().audience().has(Audience::FEED) => {
            origin_in(tokens)
        }
        _ => 0,
    }
}

#[cold]
fn origin_in(tokens: &MetaTokens<'_>) -> u16 {
    let token = tokens.iter().find(|&(flag, _)| flag == b'L');
    token.and_then(|(_, token)| number(token)).unwrap_or(0)
}

/// What a store is called.
fn cause_of(store: &Store<'_>) -> Cause {
    match store.mode {
        StoreMode::Set if store.compare_cas.is_some() => Cause::Cas,
        StoreMode::Set => Cause::Set,
        StoreMode::Add => Cause::Add,
        StoreMode::Replace => Cause::Replace,
        StoreMode::Append => Cause::Append,
        StoreMode::Prepend => Cause::Prepend,
    }
}

/// Who watches. What follows is to be called only for a kind that is wanted: who asks once has loaded it once.
#[inline]
pub(super) fn wanted(ctx: Ctx<'_>) -> Audience {
    ctx.cache.events().audience()
}

#[inline(always)]
fn show(ctx: Ctx<'_>, sight: &Shown<'_>) {
    ctx.cache.events().sights.show(ctx.ring, sight);
}

/// A key was looked up.
#[cold]
pub(super) fn looked_up(ctx: Ctx<'_>, key: &[u8], entry: &Entry<'_>) {
    let item = entry.item();
    let end = match (&item, entry.lookup()) {
        (Some(_), _) => FetchEnd::Found,
        (None, Lookup::Expired) => FetchEnd::Expired,
        (None, Lookup::Flushed) => FetchEnd::Flushed,
        (None, Lookup::Missing | Lookup::Found) => FetchEnd::NotFound,
    };
    let sight = Shown::Get {
        key,
        end,
        class: item.as_ref().map_or(0, |item| item.class().get()),
        size: item.map_or(0, |item| item.value_len() as u32),
    };
    show(ctx, &sight);
}

/// A store has ended so; `class` is that of the item that was made for it.
#[cold]
pub(super) fn stored(
    ctx: Ctx<'_>,
    store: &Store<'_>,
    key: &[u8],
    end: StoreEnd,
    class: Option<ClassId>,
    entry: &Entry<'_>,
) {
    let stored = entry.item().filter(|_| end == StoreEnd::Stored);
    let (ends, size) = match &stored {
        Some(item) => (item.expires_at(), item.value_len() as u32),
        None => (ctx.expires_at(store.exptime), store.value_len),
    };
    let class = stored.map(|item| item.class()).or(class);
    let sight = Shown::Store {
        key,
        end,
        cmd: cause_of(store),
        ttl: ttl(ctx, ends),
        class: class.map_or(0, ClassId::get),
        size,
    };
    show(ctx, &sight);
}

/// As memcached counts: 0 for ever, and modulo 2^32 for what is over.
fn ttl(ctx: Ctx<'_>, ends: RelTime) -> u32 {
    match ends {
        RelTime::NEVER => 0,
        ends => ends.0.wrapping_sub(ctx.now.0),
    }
}

/// A store was refused before there was an item.
#[cold]
pub(super) fn refused(ctx: Ctx<'_>, store: &Store<'_>, key: &[u8], error: ErrorLine) {
    let end = match error {
        ErrorLine::TooLarge => StoreEnd::TooLarge,
        _ => StoreEnd::NoMemory,
    };
    let sight = Shown::Store {
        key,
        end,
        cmd: cause_of(store),
        ttl: 0,
        class: 0,
        size: 0,
    };
    show(ctx, &sight);
}

/// A counter was made.
#[cold]
pub(super) fn began_to_count(ctx: Ctx<'_>, key: &[u8], item: &ItemHead<'_>) {
    let sight = Shown::Store {
        key,
        end: StoreEnd::Stored,
        cmd: Cause::Add,
        ttl: ttl(ctx, item.expires_at()),
        class: item.class().get(),
        size: item.value_len() as u32,
    };
    show(ctx, &sight);
}

/// An item of this class and size was deleted, by `md` or by `delete`.
#[cold]
pub(super) fn deleted(ctx: Ctx<'_>, key: &[u8], cause: Cause, (class, size): (ClassId, u32)) {
    let sight = Shown::Deleted {
        key,
        cmd: cause,
        class: class.get(),
        size,
    };
    show(ctx, &sight);
}

/// The line of a request, as it came.
#[cold]
pub(super) fn raw(ctx: Ctx<'_>, input: &[u8]) {
    let end = input.iter().position(|&byte| byte == b'\n');
    let line = &input[..end.unwrap_or(input.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    show(ctx, &Shown::Raw { line });
}
