//! The text protocol: one line of words, and a data block behind those that store.
//!
//! ```text
//!  set key flags exptime len [noreply]\r\n      the block of len bytes and \r\n is the caller's to read
//!  \_/ \_____________________________/ \__/
//!  name             rest               \r only counts as line end right before \n
//! ```
//!
//! The line's end is found first, and then the line is cut into words as they are needed; nothing is collected. The commands
//! with two letters are parsed in `meta`, what most requests are in `plain`.
//!
//! T1. A line is judged when its `\n` is there, or when more than [`LINE_LEN_MAX`] bytes stand before it; so a request
//!     or an error never depends on how the bytes were cut into reads.
//! T2. A store that is refused though its length is known names its data block in [`Skip::Bytes`], so that data never
//!     runs as commands. Where the length is missing or no number, memcached skips nothing, and neither do we: whoever
//!     typed such a line by hand sends a command next. Where it is longer than any item can be
//!     ([`ITEM_LEN_MAX`](crate::ITEM_LEN_MAX)), what follows may be either, so that nothing more is read
//!     ([`Skip::All`]).
//! T3. `noreply` is looked for behind the arguments a command must have: a key may be called `noreply`.
//!
//! **Long key lists.** A line of `get` and its kin may be longer than any buffer. One of at most [`LINE_LEN_MAX`] bytes is
//! waited for and answered as a whole. Of a longer one whose end is not in sight, the keys that are whole are handed
//! out as a piece (sometimes none: a key has begun behind many spaces). If every key is good, the pieces add up to the
//! same keys whatever the cuts, and so do the replies. If one is too long, its error line is the last reply to the list
//! in any case, but how many values come before it depends on the cuts: none, if the whole line was in the buffer. The
//! read buffer must hold more than [`LINE_LEN_MAX`] bytes, or a piece is never seen.

use memchr::{memchr, memrchr};

use crate::refusal::{Refusal, block, value_length};
use crate::words::{self, Words, parse_exptime, parse_u32, parse_u64};
use crate::{
    Admin, AdminVerb, Args, Arith, ConfigSet, Delete, ErrorLine, Fault, Get, GetVerb, KEY_LEN_MAX,
    Key, Keys, LINE_LEN_MAX, Parsed, ReplyMode, Request, Skip, Store, StoreMode, Touch, meta,
    plain, scan,
};

/// Bytes of the line at the start of `buf`, with its line end, if that is there.
#[inline]
pub fn line_len(buf: &[u8]) -> Option<usize> {
    memchr(b'\n', buf).map(|at| at + 1)
}

/// Writes `delete KEY`, with `noreply` if no answer is wanted. The key is one that was parsed.
pub fn write_delete(out: &mut Vec<u8>, key: &[u8], noreply: bool) {
    out.extend_from_slice(b"delete ");
    out.extend_from_slice(key);
    out.extend_from_slice(if noreply { b" noreply\r\n" } else { b"\r\n" });
}

/// Parses the command at the start of `buf`.
#[inline]
pub fn parse(buf: &[u8]) -> Parsed<'_> {
    let mut parsed = Parsed::Incomplete;
    parse_into(buf, &mut parsed);
    parsed
}

/// The same straight to where the answer is kept: it is large.
#[inline(never)]
pub fn parse_into<'b>(buf: &'b [u8], parsed: &mut Parsed<'b>) {
    if plain::parse_into(buf, parsed).is_none() {
        *parsed = parse_line(buf);
    }
}

/// Parses a command that may be anything. By itself, so that plain ones do without its room.
#[inline(never)]
pub(crate) fn parse_line(buf: &[u8]) -> Parsed<'_> {
    let Some(end) = scan::find(b'\n', buf) else {
        return unfinished(buf);
    };
    if end > LINE_LEN_MAX && long_get(buf).is_none() {
        return Parsed::HangUp;
    }
    let consumed = end + 1;
    match command(without_cr(&buf[..end])) {
        Ok(request) => Parsed::Complete { request, consumed },
        Err(Refusal::Answer { error, quiet, skip }) => Parsed::Invalid {
            error: Fault::Line(error),
            quiet,
            consumed,
            skip,
        },
        Err(Refusal::HangUp) => Parsed::HangUp,
    }
}

/// Parses on in a key list whose earlier piece came with `last == false`; `any` tells whether a piece had a key so far.
pub fn parse_keys(verb: GetVerb, any: bool, buf: &[u8]) -> Parsed<'_> {
    let Some(end) = memchr(b'\n', buf) else {
        return if buf.len() > LINE_LEN_MAX {
            piece(verb, buf, 0)
        } else {
            Parsed::Incomplete
        };
    };
    let list = without_cr(&buf[..end]);
    let consumed = end + 1;
    let keys = Keys(words::skip_spaces(list));
    if keys_fit(list) && (any || !keys.0.is_empty()) {
        Parsed::Complete {
            request: Request::Get(Get {
                verb,
                keys,
                single: false,
                last: true,
            }),
            consumed,
        }
    } else {
        let error = Fault::Line(ErrorLine::BadFormat);
        Parsed::Invalid {
            error,
            quiet: false,
            consumed,
            skip: Skip::None,
        }
    }
}

/// What to make of a buffer without a line end.
#[cold]
fn unfinished(buf: &[u8]) -> Parsed<'_> {
    if buf.len() <= LINE_LEN_MAX {
        return Parsed::Incomplete;
    }
    match long_get(buf) {
        Some((verb, start)) => piece(verb, buf, start),
        None => Parsed::HangUp,
    }
}

/// The verb, and where its keys begin, if a line longer than [`LINE_LEN_MAX`] may stay: a retrieval command. Looks at no
/// more than is there when a line without end has just become too long (T1).
fn long_get(buf: &[u8]) -> Option<(GetVerb, usize)> {
    let seen = &buf[..=LINE_LEN_MAX];
    let mut words = Words::new(seen);
    let verb = match words.next()? {
        b"get" => GetVerb::GET,
        b"gets" => GetVerb::GETS,
        name @ (b"gat" | b"gats") => GetVerb {
            with_cas: name == b"gats",
            touch: Some(parse_exptime(words.next()?)?),
        },
        _ => return None,
    };
    let start = seen.len() - words.rest().len();
    (!buf.starts_with(b" ")).then_some((verb, start))
}

/// The keys of an endless list, which begins at `start`, that are whole because a space stands behind them.
fn piece(verb: GetVerb, buf: &[u8], start: usize) -> Parsed<'_> {
    let list = &buf[start..];
    let (whole, broken) = list.split_at(memrchr(b' ', list).map_or(0, |space| space + 1));
    // The broken key may have the `\r` of the line end already.
    if keys_fit(whole) && broken.len() <= KEY_LEN_MAX + 1 {
        let keys = Keys(words::skip_spaces(whole));
        let request = Request::Get(Get {
            verb,
            keys,
            single: false,
            last: false,
        });
        Parsed::Complete {
            request,
            consumed: start + whole.len(),
        }
    } else {
        let (error, consumed) = (Fault::Line(ErrorLine::BadFormat), buf.len());
        Parsed::Invalid {
            error,
            quiet: false,
            consumed,
            skip: Skip::Line,
        }
    }
}

/// `line` without the `\r` of its line end.
#[inline]
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A number of a store without its `+`, which memcached allows there and nowhere else.
#[inline]
fn without_plus(word: &[u8]) -> &[u8] {
    match word {
        [b'+', b'0'..=b'9', ..] => &word[1..],
        word => word,
    }
}

/// The client flags of a store, to which memcached also allows the sign of a `-0`.
#[inline]
fn client_flags(word: &[u8]) -> Option<u32> {
    parse_u32(without_plus(word)).or_else(|| words::is_minus_0(word).then_some(0))
}

/// True if no key of the list is too long. A list shorter than a key needs no look.
#[inline]
fn keys_fit(list: &[u8]) -> bool {
    list.len() <= KEY_LEN_MAX || Keys(list).iter().all(|key| key.len() <= KEY_LEN_MAX)
}

/// Parses a line, which comes without its end.
#[inline]
fn command(line: &[u8]) -> Result<Request<'_>, Refusal> {
    if line.len() < 2 {
        return Err(ErrorLine::BadFormat.into());
    }
    // The most frequent ones, without looking for the end of the name.
    match line {
        [b'm', b'g', b' ', rest @ ..] => return meta::get(rest),
        [b'm', b's', b' ', rest @ ..] => return meta::set(rest),
        [b's', b'e', b't', b' ', rest @ ..] => return store(StoreMode::Set, false, rest),
        _ => {}
    }
    let name_len = line.iter().position(|&b| b == b' ').unwrap_or(line.len());
    let (name, rest) = line.split_at(name_len);
    let verb = match name {
        b"get" => return get(GetVerb::GET, rest),
        b"mg" => return meta::get(rest),
        b"set" => return store(StoreMode::Set, false, rest),
        b"ms" => return meta::set(rest),
        b"gets" => return get(GetVerb::GETS, rest),
        b"delete" => return delete(rest),
        b"incr" => return arith(false, rest),
        b"decr" => return arith(true, rest),
        b"touch" => return touch(rest),
        b"gat" => return get_and_touch(false, rest),
        b"gats" => return get_and_touch(true, rest),
        b"add" => return store(StoreMode::Add, false, rest),
        b"cas" => return store(StoreMode::Set, true, rest),
        b"replace" => return store(StoreMode::Replace, false, rest),
        b"append" => return store(StoreMode::Append, false, rest),
        b"prepend" => return store(StoreMode::Prepend, false, rest),
        b"md" => return meta::delete(rest),
        b"ma" => return meta::arith(rest),
        b"mn" => return Ok(Request::MetaNoop),
        b"me" => return meta::debug(rest),
        b"stats" => AdminVerb::Stats,
        b"version" => AdminVerb::Version,
        b"quit" => AdminVerb::Quit,
        b"flush_all" => AdminVerb::FlushAll,
        b"verbosity" => AdminVerb::Verbosity,
        b"watch" => AdminVerb::Watch,
        b"slabs" => AdminVerb::Slabs,
        b"lru" => AdminVerb::Lru,
        b"lru_crawler" => AdminVerb::LruCrawler,
        b"extstore" => AdminVerb::Extstore,
        b"cache_memlimit" => AdminVerb::CacheMemlimit,
        b"refresh_certs" => AdminVerb::RefreshCerts,
        b"snapshot" => AdminVerb::Snapshot,
        b"shutdown" => AdminVerb::Shutdown,
        b"debugtime" => AdminVerb::DebugTime,
        b"config" => return config(rest),
        _ => return Err(unknown(rest)),
    };
    Ok(admin(verb, rest))
}

/// `get K+`. At least one key, and none too long.
#[inline]
fn get(verb: GetVerb, rest: &[u8]) -> Result<Request<'_>, Refusal> {
    let list = words::skip_spaces(rest);
    if list.is_empty() || !keys_fit(list) {
        return Err(ErrorLine::BadFormat.into());
    }
    let keys = Keys(list);
    Ok(Request::Get(Get {
        verb,
        keys,
        single: keys.is_single(),
        last: true,
    }))
}

/// `gat EXPTIME K+`.
fn get_and_touch(with_cas: bool, rest: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut words = Words::new(rest);
    let exptime = words.next().ok_or(ErrorLine::BadFormat)?;
    let list = words.rest();
    if words::skip_spaces(list).is_empty() {
        return Err(ErrorLine::BadFormat.into());
    }
    let exptime = parse_exptime(exptime).ok_or(ErrorLine::InvalidExptime)?;
    get(
        GetVerb {
            with_cas,
            touch: Some(exptime),
        },
        list,
    )
}

/// `set K FLAGS EXPTIME LEN [noreply]`, `cas K FLAGS EXPTIME LEN CAS [noreply]`. Further words are ignored.
#[inline]
fn store(mode: StoreMode, with_cas: bool, rest: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut words = Words::new(rest);
    let (Some(key), Some(client_flags), Some(exptime), Some(value_len)) =
        (words.next_key(), words.next(), words.next(), words.next())
    else {
        return Err(ErrorLine::BadFormat.into());
    };
    let value_len = value_length(value_len)?;
    let noreply = words::ends_with_noreply(words.rest());
    let refusal = || Refusal::Answer {
        error: ErrorLine::BadFormat,
        quiet: noreply,
        skip: block(value_len),
    };
    if key.len() > KEY_LEN_MAX {
        return Err(refusal());
    }
    let client_flags = self::client_flags(client_flags).ok_or_else(refusal)?;
    let exptime = parse_exptime(without_plus(exptime)).ok_or_else(refusal)?;
    let compare_cas = if with_cas {
        Some(words.next().and_then(parse_u64).ok_or_else(refusal)?)
    } else {
        None
    };
    Ok(Request::Store(Store {
        key: Key::plain(key),
        mode,
        client_flags,
        exptime,
        value_len,
        compare_cas,
        new_cas: None,
        invalidate: false,
        vivify: None,
        reply: reply_mode(noreply),
    }))
}

fn reply_mode(noreply: bool) -> ReplyMode<'static> {
    if noreply {
        ReplyMode::NoReply
    } else {
        ReplyMode::Text
    }
}

/// The key of a command without a data block, and whether `noreply` is asked for; `args_min` words must follow.
fn checked_key<'b>(words: &mut Words<'b>, args_min: usize) -> Result<(Key<'b>, bool), Refusal> {
    let error = ErrorLine::BadFormat;
    let key = words.next_key().ok_or(error)?;
    if words.clone().take(args_min).count() < args_min {
        return Err(error.into());
    }
    let noreply = words::ends_with_noreply(words.rest());
    if key.len() > KEY_LEN_MAX {
        return Err(Refusal::Answer {
            error,
            quiet: noreply,
            skip: Skip::None,
        });
    }
    Ok((Key::plain(key), noreply))
}

/// `delete K [IGNORED] [noreply]`: the ignored word was a time once, and old clients still send its 0. More is refused.
fn delete(rest: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut words = Words::new(rest);
    let (key, noreply) = checked_key(&mut words, 0)?;
    if words.count() > 1 + usize::from(noreply) {
        let error = ErrorLine::BadFormat;
        return Err(Refusal::Answer {
            error,
            quiet: noreply,
            skip: Skip::None,
        });
    }
    Ok(Request::Delete(Delete {
        key,
        compare_cas: None,
        new_cas: None,
        invalidate: false,
        touch: None,
        drop_value: false,
        client_flags: 0,
        reply: reply_mode(noreply),
    }))
}

/// `incr K DELTA [noreply]`. Further words are ignored.
fn arith(decrement: bool, rest: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut words = Words::new(rest);
    let (key, noreply) = checked_key(&mut words, 1)?;
    let delta = words.next().and_then(parse_u64).ok_or(Refusal::Answer {
        error: ErrorLine::InvalidDelta,
        quiet: noreply,
        skip: Skip::None,
    })?;
    Ok(Request::Arith(Arith {
        key,
        decrement,
        delta,
        vivify: None,
        initial: 0,
        touch: None,
        compare_cas: None,
        new_cas: None,
        want_value: true,
        reply: reply_mode(noreply),
    }))
}

/// `touch K EXPTIME [noreply]`. Further words are ignored.
fn touch(rest: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut words = Words::new(rest);
    let (key, noreply) = checked_key(&mut words, 1)?;
    let exptime = words
        .next()
        .and_then(parse_exptime)
        .ok_or(Refusal::Answer {
            error: ErrorLine::InvalidExptime,
            quiet: noreply,
            skip: Skip::None,
        })?;
    Ok(Request::Touch(Touch {
        key,
        exptime,
        noreply,
    }))
}

/// `config set|add NAME FLAGS LEN [noreply]`; with other words behind it `config` has no data block.
fn config(rest: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut words = Words::new(rest);
    let add = match words.next() {
        Some(b"set") => false,
        Some(b"add") => true,
        _ => return Ok(admin(AdminVerb::Config, rest)),
    };
    let (Some(name), Some(client_flags), Some(value_len)) =
        (words.next(), words.next(), words.next())
    else {
        return Err(ErrorLine::BadFormat.into());
    };
    let value_len = value_length(value_len)?;
    let noreply = words::ends_with_noreply(words.rest());
    let client_flags = parse_u32(client_flags).ok_or(Refusal::Answer {
        error: ErrorLine::BadFormat,
        quiet: noreply,
        skip: block(value_len),
    })?;
    Ok(Request::ConfigSet(ConfigSet {
        name,
        client_flags,
        value_len,
        add,
        noreply,
    }))
}

/// A command about the server; all of them know `noreply` but those that talk at length or end the connection.
fn admin(verb: AdminVerb, rest: &[u8]) -> Request<'_> {
    let noreply = match verb {
        AdminVerb::Stats | AdminVerb::Watch | AdminVerb::Quit | AdminVerb::Shutdown => false,
        _ => words::ends_with_noreply(rest),
    };
    let args = if noreply {
        words::split_last(rest).0
    } else {
        rest
    };
    Request::Admin(Admin {
        verb,
        args: Args(words::skip_spaces(args)),
        noreply,
    })
}

/// Refuses what is no command of ours. A browser's request line ends in `HTTP/1.1`.
#[cold]
fn unknown(rest: &[u8]) -> Refusal {
    if words::split_last(rest).1.starts_with(b"HTTP/") {
        return Refusal::HangUp;
    }
    let quiet = words::ends_with_noreply(rest);
    Refusal::Answer {
        error: ErrorLine::Error,
        quiet,
        skip: Skip::None,
    }
}
