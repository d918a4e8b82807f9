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
use protocol::{BinaryHead, binary};

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
    /// How many items there are of each size.
    Sizes {
        /// By the upper end of the size.
        sizes: BTreeMap<usize, u64>,
        /// The head of its packets, if it is binary.
        binary: Option<BinaryHead>,
    },
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

    /// `stats sizes`, in text or in packets with this head.
    pub(super) fn sizes(binary: Option<BinaryHead>) -> Self {
        let sizes = BTreeMap::new();
        Dump::new(Kind::Sizes { sizes, binary }, ClassMask::ALL)
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
            Kind::Sizes {
                sizes,
                binary: Some(head),
            } => {
                for (size, count) in sizes {
                    let (size, count) = (size.to_string(), count.to_string());
                    binary::stat(&mut out.buf, *head, size.as_bytes(), count.as_bytes());
                }
                binary::stat_end(&mut out.buf, *head);
            }
            Kind::Sizes {
                sizes,
                binary: None,
            } => {
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
            Kind::Sizes { sizes, .. } => {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::command::testing::Server;
    use crate::settings::Settings;

    fn filled(items: usize) -> Server {
        let server = Server::start();
        for i in 0..items {
            let len = 1 + i * 7 % 300;
            server.ask(&format!("set k{i} {i} 0 {len}\r\n{}\r\n", "v".repeat(len)));
        }
        server
    }

    #[test]
    fn a_dump_shows_each_item_once_over_many_steps() {
        let server = filled(5000);
        let all: BTreeSet<String> = (0..5000).map(|i| format!("mg k{i}")).collect();
        let text = server.ask("lru_crawler mgdump all\r\n");
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!((lines[0], lines[5001], lines.len()), ("OK", "EN", 5002));
        assert_eq!(
            lines[1..5001]
                .iter()
                .map(|line| line.to_string())
                .collect::<BTreeSet<_>>(),
            all
        );
    }

    #[test]
    fn a_step_is_bounded_and_stops_when_the_output_is_full() {
        let server = filled(5000);
        let (mut out, mut steps) = (Output::new(), 0);
        let mut dump = Dump::metadata(ClassMask::ALL);
        while !dump.step(server.shared.ctx(0), &mut out) {
            assert!(out.buf.len() < (64 << 10) + 1000, "{}", out.buf.len());
            if out.is_full() {
                out.clear();
            }
            steps += 1;
        }
        assert!(steps >= 5000 / SLICE, "{steps} steps");
        assert!(out.buf.ends_with(b"\nEND\r\n"));
    }

    #[test]
    fn what_a_metadump_tells() {
        let server = Server::start();
        let now = server.shared.clock.unix(server.shared.clock.now());
        server.check(&[
            ("ms ACAl 2 b F7 T90 E5|xx", "HD|"),
            ("set gone 0 -1 1|x", "STORED|"),
            ("get none", "END|"),
        ]);
        let text = server.ask("lru_crawler metadump all\r\n");
        let line = text
            .strip_prefix("OK\r\n")
            .and_then(|rest| rest.strip_suffix("\nEND\r\n"));
        let line = line.expect("one item between OK and END");
        let head = format!(
            "key=%00%20%25 exp={} la={now} cas=5 fetch=no cls=",
            now + 90
        );
        assert!(
            line.starts_with(&head) && line.ends_with(" flags=7"),
            "{line}"
        );
        let keys = server.ask("lru_crawler mgdump hash\r\n");
        assert_eq!(keys, "OK\r\nmg ACAl b\r\nEN\r\n");
    }

    #[test]
    fn cachedump_stops_at_its_limit() {
        let server = Server::start();
        let now = server.shared.clock.unix(server.shared.clock.now());
        server.ask("set a 0 60 1\r\nx\r\nset b 0 0 1\r\ny\r\n");
        let class = (1..64)
            .find(|class| server.ask(&format!("stats cachedump {class} 0\r\n")) != "END\r\n");
        let class = class.expect("the class that holds both");
        let both = format!("ITEM a [1 b; {} s]|ITEM b [1 b; 0 s]|END|", now + 60);
        let first = format!("ITEM a [1 b; {} s]|END|", now + 60);
        server.check(&[
            (&format!("stats cachedump {class} 0"), &both),
            (&format!("stats cachedump {class} 2"), &both),
            (&format!("stats cachedump {class} 1"), &first),
            ("stats cachedump 0 1", "END|"),
        ]);
    }

    #[test]
    fn sizes_are_shown_if_they_are_tracked() {
        let server = Server::with(Settings {
            track_sizes: true,
            ..Settings::default()
        });
        server.check(&[
            ("stats sizes", "END|"),
            ("set a 0 0 1|x", "STORED|"),
            ("set b 0 0 1|x", "STORED|"),
            (
                "set c 0 0 40|0123456789012345678901234567890123456789",
                "STORED|",
            ),
            ("stats sizes", "STAT 64 2|STAT 96 1|END|"),
        ]);
    }
}
