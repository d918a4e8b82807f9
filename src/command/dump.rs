//! Dumps of items: `lru_crawler metadump`, `lru_crawler mgdump`, `stats cachedump` and `stats sizes`.
//!
//! ```text
//!  step, step, step ..        each: a slice of the walk over all pages, lines into the output, until it is full
//! ```
//!
//! A dump belongs to the connection that asked for it and holds nothing between its steps, so any number of them may
//! run, and a peer that stops reading only stops its own.
//!
//! D1. A step looks at no more than [`SLICE`] chunks.
//! D2. The terminator is written once, by the last step.

use std::collections::BTreeMap;

use protocol::reply::{self, CRLF, END, OK};

use super::meta;
use super::output::Output;
use super::shared::Ctx;
use crate::cache::{ClassMask, ItemView, WalkCursor};
use crate::clock::{Clock, RelTime};

/// Chunks a step looks at: as many as memcached's crawler between two pauses; well below a millisecond.
const SLICE: usize = 1000;
/// The width of a class of `stats sizes`, in bytes.
const SIZES_STEP: usize = 32;

/// What a dump shows.
#[derive(Debug)]
enum Kind {
    /// All there is to know about each item.
    Metadata,
    /// Each key, as the request that reads it.
    Keys,
    /// The first so many items of a class.
    Items { left: u32 },
    /// How many items there are of each size, by the upper end of the size.
    Sizes(BTreeMap<usize, u64>),
}

/// A dump in progress.
#[derive(Debug)]
pub(super) struct Dump {
    kind: Kind,
    classes: ClassMask,
    at: WalkCursor,
    begun: bool,
}

impl Dump {
    fn new(kind: Kind, classes: ClassMask) -> Self {
        Dump {
            kind,
            classes,
            at: WalkCursor::default(),
            begun: false,
        }
    }

    /// `lru_crawler metadump`.
    pub(super) fn metadata(classes: ClassMask) -> Self {
        Dump::new(Kind::Metadata, classes)
    }

    /// `lru_crawler mgdump`.
    pub(super) fn keys(classes: ClassMask) -> Self {
        Dump::new(Kind::Keys, classes)
    }

    /// `stats cachedump`; a limit of 0 is none.
    pub(super) fn items(classes: ClassMask, limit: u32) -> Self {
        let left = if limit == 0 { u32::MAX } else { limit };
        Dump::new(Kind::Items { left }, classes)
    }

    /// `stats sizes`.
    pub(super) fn sizes() -> Self {
        Dump::new(Kind::Sizes(BTreeMap::new()), ClassMask::ALL)
    }

    /// Goes on for a slice; true when the dump is complete.
    pub(super) fn step<'c>(&mut self, ctx: Ctx<'c>, out: &mut Output<'c>) -> bool {
        let Dump {
            kind,
            classes,
            at,
            begun,
        } = self;
        if !std::mem::replace(begun, true) && matches!(kind, Kind::Metadata | Kind::Keys) {
            out.bytes(OK);
        }
        let mut enough = false;
        let shown_all = ctx.cache.show_items(at, *classes, SLICE, ctx.now, |item| {
            enough = kind.show(&ctx.shared.clock, &item, &mut out.buf);
            !enough && !out.is_full()
        });
        if !shown_all && !enough {
            return false;
        }
        match kind {
            Kind::Metadata | Kind::Items { .. } => out.bytes(END),
            Kind::Keys => out.bytes(b"EN\r\n"),
            Kind::Sizes(sizes) => {
                for (size, count) in sizes {
                    reply::stat(&mut out.buf, size, count);
                }
                out.bytes(END);
            }
        }
        true
    }
}

impl Kind {
    /// Shows one item; true if no more are wanted.
    fn show(&mut self, clock: &Clock, item: &ItemView<'_>, out: &mut Vec<u8>) -> bool {
        match self {
            Kind::Metadata => metadata(clock, item, out),
            Kind::Keys => {
                out.extend_from_slice(b"mg ");
                meta::write_key(item, out);
                out.extend_from_slice(if item.key_binary() { b" b\r\n" } else { CRLF });
            }
            Kind::Items { left } => {
                out.extend_from_slice(b"ITEM ");
                meta::write_key(item, out);
                out.extend_from_slice(b" [");
                reply::number(out, item.value_len());
                out.extend_from_slice(b" b; ");
                reply::number(out, unix_expiry(clock, item).unwrap_or(0));
                out.extend_from_slice(b" s]\r\n");
                *left -= 1;
                return *left == 0;
            }
            Kind::Sizes(sizes) => {
                let size = item.item_bytes().next_multiple_of(SIZES_STEP);
                *sizes.entry(size).or_default() += 1;
            }
        }
        false
    }
}

/// One line of a metadump. Like memcached's, it ends without a `\r`.
fn metadata(clock: &Clock, item: &ItemView<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"key=");
    uri_encode(item.key(), out);
    out.extend_from_slice(b" exp=");
    reply::number(out, unix_expiry(clock, item).unwrap_or(-1));
    out.extend_from_slice(b" la=");
    reply::number(out, clock.unix(item.accessed_at()));
    out.extend_from_slice(b" cas=");
    reply::number(out, item.cas());
    out.extend_from_slice(if item.is_fetched() {
        b" fetch=yes cls="
    } else {
        b" fetch=no cls="
    });
    reply::number(out, item.class().get());
    out.extend_from_slice(b" size=");
    reply::number(out, item.item_bytes());
    out.extend_from_slice(b" flags=");
    reply::number(out, item.client_flags());
    out.push(b'\n');
}

/// When the item ends, in seconds since 1970; `None` for never.
fn unix_expiry(clock: &Clock, item: &ItemView<'_>) -> Option<i64> {
    let expires_at = item.expires_at();
    (expires_at != RelTime::NEVER).then(|| clock.unix(expires_at))
}

/// RFC 3986 section 2: all but the unreserved characters as `%` and two hex digits.
fn uri_encode(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        }
    }
}
