//! What most requests are, read in one go: `get KEY`, `mg KEY` with flags that are letters alone, and `set KEY FLAGS EXPTIME
//! LEN`, with one space between and numbers of nine digits at most.
//!
//! Pl1. Whatever is read here, [`text`](crate::text) reads as the same request. What is refused, or not all there, is not
//!     read here.

use crate::exptime::Exptime;
use crate::key::Key;
use crate::limits::{ITEM_LEN_MAX, KEY_LEN_MAX};
use crate::meta;
use crate::request::{Get, GetVerb, Keys, Parsed, ReplyMode, Request, Store, StoreMode};
use crate::scan;

/// Digits of a number. It is no length that is refused, and fits where numbers are kept.
const DIGITS_MAX: usize = 9;
const _: () = assert!(10u32.pow(DIGITS_MAX as u32) <= ITEM_LEN_MAX);

/// Parses the request at the start of `buf`, if it is plain.
#[inline(always)]
pub(crate) fn parse_into<'b>(buf: &'b [u8], parsed: &mut Parsed<'b>) -> Option<()> {
    // Written where it is kept, each by itself: requests are large.
    let mut found = |request, rest: &[u8]| {
        let consumed = buf.len() - rest.len();
        *parsed = Parsed::Complete { request, consumed };
    };
    match buf {
        [b'g', b'e', b't', b' ', rest @ ..] => {
            let (key, rest) = key(rest)?;
            found(get(key), line_end(rest)?);
        }
        [b'm', b'g', b' ', rest @ ..] => {
            let (key, rest) = key(rest)?;
            let (flags, rest) = rest.split_at(scan::find(b'\n', rest)?);
            let flags = flags.strip_suffix(b"\r").unwrap_or(flags);
            let flags = flags.strip_prefix(b" ").unwrap_or(flags);
            found(meta::get_bare(key, flags)?, line_end(rest)?);
        }
        [b's', b'e', b't', b' ', rest @ ..] => {
            let (key, rest) = key(rest)?;
            let (client_flags, rest) = number(rest)?;
            let (exptime, rest) = number(rest)?;
            let (value_len, rest) = number(rest)?;
            let rest = line_end(rest)?;
            found(set(key, client_flags, exptime, value_len), rest);
        }
        _ => return None,
    }
    Some(())
}

#[inline(always)]
fn get(key: &[u8]) -> Request<'_> {
    Request::Get(Get {
        verb: GetVerb::GET,
        keys: Keys(key),
        single: true,
        last: true,
    })
}

#[inline(always)]
fn set(key: &[u8], client_flags: u32, exptime: u32, value_len: u32) -> Request<'_> {
    Request::Store(Store {
        key: Key::plain(key),
        mode: StoreMode::Set,
        client_flags,
        exptime: Exptime::from(exptime),
        value_len,
        compare_cas: None,
        new_cas: None,
        invalidate: false,
        vivify: None,
        reply: ReplyMode::Text,
    })
}

/// A key, and what stands behind it.
#[inline(always)]
fn key(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, rest) = text.split_at(scan::word_end(text)?);
    (1..=KEY_LEN_MAX)
        .contains(&key.len())
        .then_some((key, rest))
}

/// A space and a number, and what stands behind them.
#[inline(always)]
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let [b' ', digits @ ..] = text else {
        return None;
    };
    let mut number = 0;
    for (at, &byte) in digits.iter().enumerate().take(DIGITS_MAX + 1) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return (at > 0).then_some((number as u32, &digits[at..]));
        }
        number = number * 10 + u64::from(digit);
    }
    None
}

/// What stands behind the end of the line, if that is here.
#[inline(always)]
fn line_end(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => Some(rest),
        _ => None,
    }
}
