//! set, add, replace, append, prepend, cas and `ms`: one path, a mode.

use protocol::binary::opcode;
use protocol::reply::{self, MetaCode, MetaLine};
use protocol::{BinaryHead, ErrorLine, Fault, KeyBuf, ReplyMode, Status, Store, StoreMode, binary};

use super::meta;
use super::output::Output;
use super::sights;
use crate::cache::{
    AllocError, At, ClassId, Entry, ItemHead, ItemSpec, ItemView, NewItem, Probe, Room, Shortage,
    Sought,
};
use crate::events::{Audience, StoreEnd};
use crate::keyspace::slow::{self, Stage};
use crate::state::{self, Ctx, Seen, Verb};

/// How a store ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Stored,
    NotStored,
    NotFound,
    Exists,
}

impl Outcome {
    /// As watchers are shown it.
    fn as_shown(self) -> StoreEnd {
        match self {
            Outcome::Stored => StoreEnd::Stored,
            Outcome::NotStored => StoreEnd::NotStored,
            Outcome::NotFound => StoreEnd::NotFound,
            Outcome::Exists => StoreEnd::Exists,
        }
    }
}

/// The new item's data, when all of it has come.
pub(super) enum Data<'c, 'b> {
    /// It lies in the read buffer (or was staged).
    Bytes(&'b [u8]),
    /// It was read into the item it belongs to.
    Item(NewItem<'c>),
}

/// What the item of a store is made from.
pub(super) fn spec<'k>(ctx: Ctx<'_>, store: &Store<'_>, key: &'k [u8]) -> ItemSpec<'k> {
    ItemSpec {
        key,
        key_binary: store.key.base64 || (store.reply.is_binary() && store.key.needs_base64()),
        client_flags: store.client_flags,
        expires_at: ctx.expires_at(store.exptime),
        value_len: store.value_len,
    }
}

/// Stores, and answers.
pub(super) fn execute<'c>(
    ctx: Ctx<'c>,
    store: &Store<'_>,
    probe: Probe,
    data: Data<'c, '_>,
    out: &mut Output<'c>,
) {
    let mut room = KeyBuf::default();
    let key = store.key.bytes(&mut room);
    let sought = probe.of(key);
    let at = sights::at_of(ctx, store);
    // What replaces is made before the key is locked; what extends has to see the old value first.
    let new = match data {
        Data::Item(item) => Ok(item),
        Data::Bytes(bytes) => ctx
            .cache
            .create(&spec(ctx, store, key), at)
            .map(|mut item| {
                copied(bytes.len(), || item.write(bytes));
                item
            }),
    };
    let new = match new {
        Ok(new) => new,
        Err(error) => {
            out.answer(refuse(ctx, store, sought, error_line(error)));
            return ctx.note(&seen(sought, store, None, state::Outcome::Refused));
        }
    };
    let class = Some(new.class());
    let outcome = put(ctx, store, sought, at, new, out);
    ctx.note(&seen(sought, store, class, outcome));
}

/// Stores a new item, if the one that is there allows it, and answers; then the stripe is let go.
#[inline(always)]
fn put<'c>(
    ctx: Ctx<'c>,
    store: &Store<'_>,
    sought: Sought<'_>,
    at: At,
    new: NewItem<'c>,
    out: &mut Output<'c>,
) -> state::Outcome {
    let (key, class) = (sought.key, Some(new.class()));
    let extends = matches!(store.mode, StoreMode::Append | StoreMode::Prepend);
    let mut entry = ctx.cache.entry(sought, at);
    let wanted = sights::wanted(ctx);
    if wanted.has(Audience::FETCHERS) {
        sights::looked_up(ctx, key, &entry);
    }
    let outcome = if extends {
        let extended;
        (entry, extended) = entry.update(key, |entry, room| extend(ctx, store, &new, entry, room));
        extended.unwrap_or_else(|| begin(ctx, store, new, &mut entry))
    } else {
        replace(ctx, store, new, &mut entry)
    };
    answer(ctx, store, outcome, entry.item(), out);
    if wanted.has(Audience::MUTATIONS) {
        sights::stored(ctx, store, key, outcome.as_shown(), class, &entry);
    }
    match outcome {
        Outcome::Stored => state::Outcome::Done,
        Outcome::NotStored | Outcome::NotFound | Outcome::Exists => state::Outcome::Not,
    }
}

/// What is told of a store; `class` is that of the item that was to be stored.
#[inline(always)]
fn seen<'k>(
    sought: Sought<'k>,
    store: &Store<'_>,
    class: Option<ClassId>,
    outcome: state::Outcome,
) -> Seen<'k> {
    Seen {
        verb: Verb::Set,
        key_hash: sought.hash(),
        key: sought.key,
        outcome,
        class,
        bytes: store.value_len,
    }
}

/// A store that cannot begin, because of its size or for want of memory. Gives the answer to it, if one is wanted.
pub(super) fn refuse(
    ctx: Ctx<'_>,
    store: &Store<'_>,
    sought: Sought<'_>,
    error: ErrorLine,
) -> Option<Fault> {
    let answer = give_up(ctx, store, sought.key, error);
    if drops_old_value(store) {
        let at = sights::at_of(ctx, store);
        let mut entry = ctx.cache.entry(sought, at);
        if sights::wanted(ctx).has(Audience::FETCHERS) {
            sights::looked_up(ctx, sought.key, &entry);
        }
        entry.remove_key(sought.key);
    }
    answer
}

/// A store that had begun, and for whose rest there is no memory: what it was to replace stays, as in memcached, unless that
/// was given up for it ([`make_way`]).
pub(super) fn give_up(
    ctx: Ctx<'_>,
    store: &Store<'_>,
    key: &[u8],
    error: ErrorLine,
) -> Option<Fault> {
    if sights::wanted(ctx).has(Audience::MUTATIONS) {
        sights::refused(ctx, store, key, error);
    }
    count_refusal(ctx, error);
    fault(store, error)
}

/// In the midst of a block for which there is no memory: gives up the item that `store` replaces, if that makes room for the
/// `missing` bytes. In a full cache without evictions nothing large could be overwritten otherwise, as both values would have
/// to fit.
pub(super) fn make_way(
    ctx: Ctx<'_>,
    store: &Store<'_>,
    sought: Sought<'_>,
    missing: usize,
) -> bool {
    // What compares, or needs the item to be there, still has to see it.
    if store.mode != StoreMode::Set || store.compare_cas.is_some() {
        return false;
    }
    let at = sights::at_of(ctx, store);
    let mut entry = ctx.cache.entry(sought, at);
    let makes_room = entry.found().is_some_and(|hit| hit.value_len() >= missing);
    if makes_room {
        if sights::wanted(ctx).has(Audience::FETCHERS) {
            sights::looked_up(ctx, sought.key, &entry);
        }
        entry.remove_key(sought.key);
    }
    makes_room
}

/// The answer to a store that is refused, if one is wanted.
pub(super) fn fault(store: &Store<'_>, error: ErrorLine) -> Option<Fault> {
    match store.reply {
        ReplyMode::NoReply => None,
        ReplyMode::Text | ReplyMode::Meta(_) => Some(Fault::Line(error)),
        ReplyMode::Binary(head) => Some(Fault::Status(head, error.into())),
    }
}

/// True if the item that a refused store was to replace is dropped, as it would be stale. As in memcached, that is so of
/// `set` in text, of binary set with or without a unique to compare, and of `ms` in all its modes.
fn drops_old_value(store: &Store<'_>) -> bool {
    match store.reply {
        ReplyMode::Text | ReplyMode::NoReply => {
            store.mode == StoreMode::Set && store.compare_cas.is_none()
        }
        ReplyMode::Meta(_) => true,
        ReplyMode::Binary(head) => matches!(head.opcode, opcode::SET | opcode::SETQ),
    }
}

/// set, add, replace, cas.
fn replace<'c>(
    ctx: Ctx<'c>,
    store: &Store<'_>,
    new: NewItem<'c>,
    entry: &mut Entry<'c>,
) -> Outcome {
    let Some(hit) = entry.found() else {
        if store.compare_cas.is_some() && store.mode == StoreMode::Set {
            ctx.stats.general.cas_misses.inc();
            return Outcome::NotFound;
        }
        if store.mode == StoreMode::Replace {
            return Outcome::NotStored;
        }
        entry.put(new, cas_for(store));
        return Outcome::Stored;
    };
    if store.mode == StoreMode::Add {
        hit.note_access();
        return Outcome::NotStored;
    }
    let Some(compare) = store.compare_cas else {
        entry.put(new, cas_for(store));
        return Outcome::Stored;
    };
    let class = &ctx.stats.classes[hit.class().index()];
    if is_unique(compare, &hit) {
        class.cas_hits.inc();
        entry.put(new, cas_for(store));
        return Outcome::Stored;
    }
    if store.invalidate && compare != 0 && compare < hit.cas() {
        // An older value may be stored, but only as a stale one: the time left and the lease stay as they were.
        let (expires_at, win_sent) = (hit.expires_at(), hit.is_win_sent());
        let hit = entry.put(new, cas_for(store));
        hit.touch(expires_at);
        hit.mark_stale();
        if win_sent {
            hit.mark_win_sent();
        }
        return Outcome::Stored;
    }
    class.cas_badval.inc();
    Outcome::Exists
}

/// append, prepend: `added` holds what is added. None if there is no item to add it to.
fn extend<'c>(
    ctx: Ctx<'c>,
    store: &Store<'_>,
    added: &NewItem<'c>,
    entry: &mut Entry<'c>,
    room: &mut Room<'c>,
) -> Result<Option<Outcome>, Shortage> {
    let Some(old) = entry.item() else {
        return Ok(None);
    };
    if let Some(compare) = store.compare_cas
        && !is_unique(compare, &old)
    {
        return Ok(Some(Outcome::Exists));
    }
    let spec = ItemSpec {
        key: old.key(),
        key_binary: old.key_binary(),
        client_flags: old.client_flags(),
        expires_at: old.expires_at(),
        value_len: (old.value_len() + added.value_len()).min(u32::MAX as usize) as u32,
    };
    let mut joined = match room.create(entry, &spec)? {
        Ok(joined) => joined,
        // Whether it would be too large or there is no memory: memcached knows one answer, and the old value stays.
        Err(error) => {
            count_refusal(ctx, error_line(error));
            return Ok(Some(Outcome::NotStored));
        }
    };
    if store.mode == StoreMode::Append {
        copied(old.value_len(), || write_pieces(&mut joined, &old));
        write_new(&mut joined, added);
    } else {
        write_new(&mut joined, added);
        copied(old.value_len(), || write_pieces(&mut joined, &old));
    }
    entry.put(joined, cas_for(store));
    Ok(Some(Outcome::Stored))
}

/// append, prepend of a missing item: it begins with what was to be added, if the client asked for that.
fn begin<'c>(ctx: Ctx<'c>, store: &Store<'_>, new: NewItem<'c>, entry: &mut Entry<'c>) -> Outcome {
    let Some(exptime) = store.vivify else {
        return Outcome::NotStored;
    };
    let hit = entry.put(new, cas_for(store));
    hit.touch(ctx.expires_at(exptime));
    Outcome::Stored
}

/// Values from here on, in bytes, take as long to copy as ten requests take in all.
const LARGE_COPY: usize = 64 << 10;

/// Copies so many bytes; if they are many, the time is noted.
#[inline]
fn copied<T>(bytes: usize, copy: impl FnOnce() -> T) -> T {
    if bytes < LARGE_COPY {
        copy()
    } else {
        slow::timed(Stage::Copy, copy)
    }
}

fn write_pieces(to: &mut NewItem<'_>, from: &ItemView<'_>) {
    for piece in from.value_pieces() {
        to.write(piece);
    }
}

fn write_new(to: &mut NewItem<'_>, from: &NewItem<'_>) {
    for piece in from.value_pieces() {
        to.write(piece);
    }
}

/// True if a store that compares may go on. 0 is no unique: all items have it with `-C`, where nobody could be told from
/// who stored in between.
fn is_unique(compare: u64, item: &ItemHead<'_>) -> bool {
    compare != 0 && compare == item.cas()
}

/// The new item's unique; to give 0 is to give none.
fn cas_for(store: &Store<'_>) -> Option<u64> {
    store.new_cas.filter(|&cas| cas != 0)
}

fn answer(
    ctx: Ctx<'_>,
    store: &Store<'_>,
    outcome: Outcome,
    item: Option<ItemView<'_>>,
    out: &mut Output<'_>,
) {
    let tokens = match store.reply {
        ReplyMode::NoReply => return,
        ReplyMode::Text => {
            return match outcome {
                Outcome::Stored => out.bytes(reply::STORED),
                Outcome::NotStored => out.bytes(reply::NOT_STORED),
                Outcome::NotFound => out.bytes(reply::NOT_FOUND),
                Outcome::Exists => out.bytes(reply::EXISTS),
            };
        }
        ReplyMode::Binary(head) => {
            let cas = item.map_or(0, |item| item.cas());
            return answer_binary(head, store.mode, outcome, cas, out);
        }
        ReplyMode::Meta(tokens) => tokens,
    };
    let code = match outcome {
        Outcome::Stored if tokens.quiet => return,
        Outcome::Stored => MetaCode::HD,
        Outcome::NotStored => MetaCode::NS,
        Outcome::NotFound => MetaCode::NF,
        Outcome::Exists => MetaCode::EX,
    };
    let mut line = MetaLine::new(&mut out.buf, code);
    // A store that did not come about tells of no item: CAS unique 0, and the size it would have had.
    let stored = item.filter(|_| outcome == Outcome::Stored);
    for (flag, token) in tokens.iter() {
        match (flag, &stored) {
            (b'O' | b'k', _) | (b'c' | b's', Some(_)) => {
                meta::echo_one(ctx, &mut line, (flag, token), store.key, stored.as_deref());
            }
            (b'c', None) => line.number(b'c', 0),
            (b's', None) => line.number(b's', store.value_len),
            _ => {}
        }
    }
    line.end();
}

/// A binary reply tells a missing item from one that is there by the mode.
fn answer_binary(
    head: BinaryHead,
    mode: StoreMode,
    outcome: Outcome,
    cas: u64,
    out: &mut Output<'_>,
) {
    let status = match (outcome, mode) {
        (Outcome::Stored, _) if head.quiet => return,
        (Outcome::Stored, _) => return binary::ok(&mut out.buf, head, cas),
        (Outcome::NotStored, StoreMode::Add) | (Outcome::Exists, _) => Status::Exists,
        (Outcome::NotStored, StoreMode::Replace) | (Outcome::NotFound, _) => Status::NotFound,
        (Outcome::NotStored, _) => Status::NotStored,
    };
    binary::error(&mut out.buf, head, status);
}

fn count_refusal(ctx: Ctx<'_>, error: ErrorLine) {
    match error {
        ErrorLine::TooLarge => ctx.stats.general.store_too_large.inc(),
        _ => {
            ctx.stats.general.store_no_memory.inc();
            // Who does not take what it asked for keeps it from others no longer.
            let now_ms = ctx.shared.clock.now_ms();
            ctx.shared.unread.trim(now_ms, ctx.cache.limit_bytes());
        }
    }
}

/// The line of a refusal.
pub(super) fn error_line(error: AllocError) -> ErrorLine {
    match error {
        AllocError::TooLarge => ErrorLine::TooLarge,
        AllocError::OutOfMemory => ErrorLine::OutOfMemoryStoring,
    }
}
