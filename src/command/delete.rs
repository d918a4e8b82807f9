//! `delete` and `md`: an item goes, or stays behind as stale or as a tombstone.
//!
//! ```text
//!  delete, md     the item is removed
//!  md x           its value and client flags are dropped, a new CAS unique tells that it changed
//!  md I           it is stale: still served, but one reader is asked to fetch it anew
//!  md x I         both: a tombstone that can be won
//! ```

use protocol::reply::{self, MetaCode, MetaLine};
use protocol::{Delete, ErrorLine, KEY_LEN_MAX, KeyBuf, ReplyMode};

use super::meta;
use super::output::Output;
use super::shared::Ctx;
use crate::cache::{Entry, ItemSpec, KeyHash};

/// How a delete ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    NotFound,
    Exists,
    OutOfMemory,
}

/// Deletes, and answers.
pub(super) fn execute(ctx: Ctx<'_>, request: &Delete<'_>, hash: KeyHash, out: &mut Output<'_>) {
    let mut room: KeyBuf = [0; KEY_LEN_MAX];
    let key = request.key.bytes(&mut room);
    ctx.shared.prefixes.count_delete(key);
    let mut entry = ctx.cache.entry(key, hash, ctx.now);
    let outcome = delete(ctx, request, key, &mut entry);
    drop(entry);
    answer(ctx, request, outcome, out);
}

fn delete<'c>(ctx: Ctx<'c>, request: &Delete<'_>, key: &[u8], entry: &mut Entry<'c>) -> Outcome {
    let Some(item) = entry.item() else {
        ctx.stats.general.delete_misses.inc();
        return Outcome::NotFound;
    };
    if request.compare_cas.is_some_and(|cas| cas != item.cas()) {
        ctx.stats.general.delete_misses.inc();
        return Outcome::Exists;
    }
    let class = item.class();
    if request.drop_value || request.invalidate {
        if !keep(ctx, request, key, entry) {
            return Outcome::OutOfMemory;
        }
    } else {
        entry.remove();
    }
    // What is only marked stale is still served, and so not counted.
    if !request.invalidate {
        ctx.stats.classes[class.index()].delete_hits.inc();
    }
    Outcome::Done
}

/// The item stays, changed. False if there is no memory for that.
fn keep<'c>(ctx: Ctx<'c>, request: &Delete<'_>, key: &[u8], entry: &mut Entry<'c>) -> bool {
    let cas = request.new_cas.unwrap_or_else(|| ctx.cache.next_cas());
    if let Some(item) = entry.item()
        && request.drop_value
    {
        let spec = ItemSpec {
            key,
            key_binary: item.key_binary(),
            client_flags: 0,
            expires_at: item.expires_at(),
            value_len: 0,
        };
        let Ok(empty) = ctx.cache.create(&spec, ctx.now) else {
            return false;
        };
        entry.put(empty, cas);
    }
    entry.set_cas(cas);
    if request.invalidate {
        entry.mark_stale();
    }
    if let Some(exptime) = request.touch {
        entry.touch(ctx.expires_at(exptime));
    }
    true
}

fn answer(ctx: Ctx<'_>, request: &Delete<'_>, outcome: Outcome, out: &mut Output<'_>) {
    let tokens = match request.reply {
        ReplyMode::NoReply => return,
        ReplyMode::Text => {
            return match outcome {
                Outcome::Done => out.bytes(reply::DELETED),
                Outcome::NotFound => out.bytes(reply::NOT_FOUND),
                Outcome::Exists => out.bytes(reply::EXISTS),
                Outcome::OutOfMemory => out.error(ErrorLine::OutOfMemory),
            };
        }
        ReplyMode::Meta(tokens) => tokens,
    };
    let code = match outcome {
        Outcome::Done if tokens.quiet => return,
        Outcome::Done => MetaCode::HD,
        Outcome::NotFound => MetaCode::NF,
        Outcome::Exists => MetaCode::EX,
        Outcome::OutOfMemory => return out.error(ErrorLine::OutOfMemory),
    };
    let mut line = MetaLine::new(&mut out.buf, code);
    meta::echo(ctx, &mut line, tokens, request.key, None, b"Ok");
    line.end();
}
