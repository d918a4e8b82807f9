//! What watchers are shown of requests about keys, with memcached's words. Told while the key's stripe is locked, so in each
//! key's order.
//!
//! As there, whatever looks a key up is a fetch: a store or a delete as well.

use protocol::{ErrorLine, Store, StoreMode};

use crate::cache::{ClassId, Entry, ItemHead, Lookup};
use crate::clock::RelTime;
use crate::events::{Audience, Cause, Shown, StoreEnd};
use crate::state::Ctx;

/// What a store is called.
#[inline]
pub(super) fn cause_of(store: &Store<'_>) -> Cause {
    match store.mode {
        StoreMode::Set if store.compare_cas.is_some() => Cause::Cas,
        StoreMode::Set => Cause::Set,
        StoreMode::Add => Cause::Add,
        StoreMode::Replace => Cause::Replace,
        StoreMode::Append => Cause::Append,
        StoreMode::Prepend => Cause::Prepend,
    }
}

/// Whether somebody watches requests.
#[inline]
pub(super) fn are_wanted(ctx: Ctx<'_>) -> bool {
    ctx.cache.events().audience().has(Audience::OF_REQUESTS)
}

/// Shows it to watchers of this kind, if there are any.
fn show(ctx: Ctx<'_>, kind: Audience, sight: &Shown<'_>) {
    let events = ctx.cache.events();
    if events.audience().has(kind) {
        events.sights.show(ctx.ring, sight);
    }
}

/// A key was looked up.
#[cold]
pub(super) fn looked_up(ctx: Ctx<'_>, key: &[u8], entry: &Entry<'_>) {
    let item = entry.item();
    let status = match (&item, entry.lookup()) {
        (Some(_), _) => "found",
        (None, Lookup::Expired) => "expired",
        (None, Lookup::Flushed) => "flushed",
        (None, Lookup::Missing | Lookup::Found) => "not_found",
    };
    let sight = Shown::Get {
        key,
        status,
        class: item.as_ref().map_or(0, |item| item.class().get()),
        size: item.map_or(0, |item| item.value_len() as u32),
    };
    show(ctx, Audience::FETCHERS, &sight);
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
        cmd: cause_of(store).name(),
        ttl: ttl(ctx, ends),
        class: class.map_or(0, ClassId::get),
        size,
    };
    show(ctx, Audience::MUTATIONS, &sight);
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
        cmd: cause_of(store).name(),
        ttl: 0,
        class: 0,
        size: 0,
    };
    show(ctx, Audience::MUTATIONS, &sight);
}

/// A counter was made.
#[cold]
pub(super) fn began_to_count(ctx: Ctx<'_>, key: &[u8], item: &ItemHead<'_>) {
    let sight = Shown::Store {
        key,
        end: StoreEnd::Stored,
        cmd: Cause::Add.name(),
        ttl: ttl(ctx, item.expires_at()),
        class: item.class().get(),
        size: item.value_len() as u32,
    };
    show(ctx, Audience::MUTATIONS, &sight);
}

/// An item of this class and size was deleted, by `md` or by `delete`.
#[cold]
pub(super) fn deleted(ctx: Ctx<'_>, key: &[u8], cause: Cause, (class, size): (ClassId, u32)) {
    let sight = Shown::Deleted {
        key,
        cmd: cause.name(),
        class: class.get(),
        size,
    };
    show(ctx, Audience::DELETIONS, &sight);
}

/// The line of a request, as it came.
#[cold]
pub(super) fn raw(ctx: Ctx<'_>, input: &[u8]) {
    let end = input.iter().position(|&byte| byte == b'\n');
    let line = &input[..end.unwrap_or(input.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    show(ctx, Audience::RAWCMDS, &Shown::Raw { line });
}
