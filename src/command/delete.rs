//! `delete` and `md`: an item goes, or stays behind as stale or as a tombstone.
//!
//! ```text
//!  delete, md     the item is removed
//!  md x           its value, client flags and time to live are dropped, its CAS unique stays
//!  md I           it is stale: still served, but one reader is asked to fetch it anew
//!  md x I         both: a tombstone that can be won
//! ```

use protocol::reply::{self, MetaCode};
use protocol::{Delete, ErrorLine, KeyBuf, ReplyMode, Status, binary};

use super::meta;
use super::output::Output;
use super::sights;
use crate::cache::{Entry, ItemSpec, Lookup, Probe, Room, Shortage};
use crate::clock::RelTime;
use crate::events::{Audience, Cause};
use crate::state::{self, Ctx, Seen, Verb};

/// How a delete ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    NotFound,
    Exists,
    OutOfMemory,
}

/// Deletes, and answers.
pub(super) fn execute(ctx: Ctx<'_>, request: &Delete<'_>, probe: Probe, out: &mut Output<'_>) {
    let mut room = KeyBuf::default();
    let key = request.key.bytes(&mut room);
    let sought = probe.of(key);
    let cause = match request.reply {
        ReplyMode::Meta(_) => Cause::Md,
        _ => Cause::Delete,
    };
    let at = ctx.at_from(cause, sights::origin(ctx, &request.reply));
    let entry = ctx.cache.entry(sought, at);
    let wanted = sights::wanted(ctx);
    if wanted.has(Audience::FETCHERS) {
        sights::looked_up(ctx, key, &entry);
    }
    // Before it is changed: an update may run more than once, and the item is another one then.
    let mut before = None;
    let (entry, outcome) = entry.update(key, |entry, room| {
        let item = entry.item();
        before = item.map(|item| (item.class(), item.value_len() as u32));
        delete(ctx, request, key, entry, room)
    });
    if wanted.has(Audience::DELETIONS)
        && outcome == Outcome::Done
        && !request.invalidate
        && let Some(before) = before
    {
        sights::deleted(ctx, key, cause, before);
    }
    drop(entry);
    ctx.note(&Seen {
        verb: Verb::Delete,
        key_hash: sought.hash(),
        key,
        outcome: told(request, outcome),
        class: before.map(|(class, _)| class),
        bytes: 0,
    });
    answer(ctx, request, outcome, out);
}

fn delete<'c>(
    ctx: Ctx<'c>,
    request: &Delete<'_>,
    key: &[u8],
    entry: &mut Entry<'c>,
    room: &mut Room<'c>,
) -> Result<Outcome, Shortage> {
    let Some(item) = entry.item() else {
        entry.remove_key(key);
        return Ok(Outcome::NotFound);
    };
    if request.compare_cas.is_some_and(|cas| cas != item.cas()) {
        return Ok(Outcome::Exists);
    }
    if request.drop_value || request.invalidate {
        if !keep(ctx, request, key, entry, room)? {
            return Ok(Outcome::OutOfMemory);
        }
    } else {
        entry.remove();
    }
    Ok(Outcome::Done)
}

/// How others are told that a delete ended.
fn told(request: &Delete<'_>, outcome: Outcome) -> state::Outcome {
    match outcome {
        // What is only marked stale is still served, and so not counted.
        Outcome::Done if request.invalidate => state::Outcome::Not,
        Outcome::Done => state::Outcome::Done,
        Outcome::NotFound => state::Outcome::Miss(Lookup::Missing),
        // memcached counts it as a miss in md alone.
        Outcome::Exists if request.reply.is_binary() => state::Outcome::Not,
        Outcome::Exists => state::Outcome::Miss(Lookup::Missing),
        Outcome::OutOfMemory => state::Outcome::Refused,
    }
}

/// The item stays, changed. False if there is no memory for that.
fn keep<'c>(
    ctx: Ctx<'c>,
    request: &Delete<'_>,
    key: &[u8],
    entry: &mut Entry<'c>,
    room: &mut Room<'c>,
) -> Result<bool, Shortage> {
    let touch = request.touch.map(|exptime| ctx.expires_at(exptime));
    // A tombstone keeps the unique: who read the value before may still replace it. Only what is stale has a new one.
    let kept = entry.item().map(|item| item.cas());
    let cas = request.new_cas.or(kept.filter(|_| !request.invalidate));
    let hit = if let Some(item) = entry.item()
        && request.drop_value
    {
        let spec = ItemSpec {
            key,
            key_binary: item.key_binary(),
            client_flags: request.client_flags,
            expires_at: touch.unwrap_or(RelTime::NEVER),
            value_len: 0,
        };
        let Ok(empty) = room.create(entry, &spec)? else {
            return Ok(false);
        };
        entry.put(empty, cas)
    } else {
        let Some(hit) = entry.found() else {
            return Ok(true);
        };
        hit.set_cas(cas);
        hit
    };
    if request.invalidate {
        hit.mark_stale();
    }
    if let Some(expires_at) = touch {
        hit.touch(expires_at);
    }
    Ok(true)
}

fn answer(ctx: Ctx<'_>, request: &Delete<'_>, outcome: Outcome, out: &mut Output<'_>) {
    if let ReplyMode::Binary(head) = request.reply {
        let status = match outcome {
            Outcome::Done if head.quiet => return,
            Outcome::Done => return binary::ok(&mut out.buf, head, 0),
            Outcome::NotFound => Status::NotFound,
            Outcome::Exists => Status::Exists,
            Outcome::OutOfMemory => Status::OutOfMemory,
        };
        return binary::error(&mut out.buf, head, status);
    }
    let (code, tokens) = match (request.reply, outcome) {
        (ReplyMode::NoReply | ReplyMode::Binary(_), _) => return,
        (_, Outcome::OutOfMemory) => return out.error(ErrorLine::OutOfMemory),
        (ReplyMode::Text, Outcome::Done) => return out.bytes(reply::DELETED),
        (ReplyMode::Text, Outcome::NotFound) => return out.bytes(reply::NOT_FOUND),
        (ReplyMode::Text, Outcome::Exists) => return out.bytes(reply::EXISTS),
        (ReplyMode::Meta(tokens), Outcome::Done) if tokens.quiet => return,
        (ReplyMode::Meta(tokens), Outcome::Done) => (MetaCode::HD, tokens),
        (ReplyMode::Meta(tokens), Outcome::NotFound) => (MetaCode::NF, tokens),
        (ReplyMode::Meta(tokens), Outcome::Exists) => (MetaCode::EX, tokens),
    };
    meta::bare(ctx, code, tokens, request.key, out);
}

#[cfg(test)]
mod tests {
    use crate::command::testing::Server;

    #[test]
    fn a_deleted_item_is_gone() {
        let server = Server::start();
        server.check(&[
            ("delete a", "NOT_FOUND|"),
            ("delete a noreply", ""),
            ("set a 0 0 1|x", "STORED|"),
            ("delete a", "DELETED|"),
            ("get a", "END|"),
            ("md a k O1", "NF ka O1|"),
            ("md a q", "NF|"),
            ("ms a 1|x", "HD|"),
            ("md a O1 k", "HD O1 ka|"),
            ("ms a 1|x", "HD|"),
            ("md a q k", ""),
            ("mg a", "EN|"),
        ]);
        let sums = server.shared.stats.read();
        assert_eq!(
            (sums.over_classes().delete_hits, sums.general.delete_misses),
            (3, 4)
        );
        server.shared.cache.check_invariants();
    }

    #[test]
    fn a_cas_unique_is_compared() {
        let server = Server::start();
        server.check(&[
            ("ms a 1 E5|x", "HD|"),
            ("md a C4 k", "EX ka|"),
            ("md a C4 q", "EX|"),
            ("md a C4 x", "EX|"),
            ("mg a v c", "VA 1 c5|x|"),
            ("md a C5", "HD|"),
            ("mg a", "EN|"),
        ]);
    }

    #[test]
    fn what_stays_behind() {
        let server = Server::start();
        server.check(&[
            ("ms a 3 F9 T100 E5|xyz", "HD|"),
            ("md a I E6", "HD|"),
            ("mg a v f t c", "VA 3 f9 t100 c6 X W|xyz|"),
            ("md a I T30", "HD|"),
            ("mg a t", "HD t30 X W|"),
            ("ms a 3 F9 T100 E5|xyz", "HD|"),
            ("md a x E6", "HD|"),
            ("mg a v f t c", "VA 0 f0 t-1 c6||"),
            ("md a x I T30 E7", "HD|"),
            ("mg a v f t c", "VA 0 f0 t30 c7 X W||"),
            ("ms a 3 F9 T100 E5|xyz", "HD|"),
            ("md a x T40 F3", "HD|"),
            ("mg a v f t c", "VA 0 f3 t40 c5||"),
            // A new unique with I alone, if none is given.
            ("md a x I", "HD|"),
            ("ms a 1 C5|y", "EX|"),
            ("get a", "VALUE a 0 0||END|"),
        ]);
        server.shared.cache.check_invariants();
    }
}
