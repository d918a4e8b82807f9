//! Dumps: of items (`lru_crawler metadump`, `lru_crawler mgdump`, `stats cachedump`, `stats sizes`) and of the counts by
//! prefix (`stats detail dump`).
//!
//! ```text
//!  step, step, step ..        each: a slice of the walk over all pages, lines into the output, until it is full
//! ```
//!
//! A dump belongs to the connection that asked for it and holds nothing between its steps but a place: as walks take time
//! from everybody else's requests, there are [`DUMP_PLACES`](crate::state::DUMP_PLACES) of them, and who finds none is answered `BUSY`.
//!
//! Dp1. A step looks at no more than [`SLICE`] chunks, and is all that its connection does in a turn.
//! Dp2. The terminator is written once, by the last step.
//! Dp3. A place is given back when its dump ends or its connection does. A dump whose peer has taken nothing for
//!     [`STALL_S`] seconds lends its place to others; it goes on when its peer does and a place is free.

use std::collections::BTreeMap;

use protocol::reply::{self, CRLF, END, OK};
use protocol::{BinaryHead, ErrorLine, Status, binary};

use super::meta;
use super::output::Output;
use super::packed::{pack_head, unpack_head};
use super::report;
use crate::cache::{ClassMask, ItemHead, WalkCursor};
use crate::clock::{Clock, RelTime};
use crate::packing::{Packer, Unpacker};
use crate::report::Value;
use crate::state::{Ctx, DumpPlace};

/// Seconds without a step, as the peer takes nothing, after which a dump lends its place.
const STALL_S: u32 = 5;
/// Chunks a step looks at. Of a million items 1000 took 0.12 ms of CPU time, a turn of 20 such steps 2.5 ms; four dumps on
/// one worker hold its other clients up by four of these.
const SLICE: usize = 256;
/// Bytes of lines that a step of a dump of prefixes writes.
const PREFIX_BYTES: usize = 16 << 10;
/// The width of a class of `stats sizes`, in bytes.
const SIZES_STEP: usize = 32;

/// A dump that its connection goes through.
#[derive(Debug)]
pub(super) struct Running<'c> {
    dump: Dump,
    /// None while it is lent (Dp3).
    place: Option<DumpPlace<'c>>,
    /// When it made its last step.
    stepped_at: RelTime,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stepped {
    /// There is more.
    More,
    /// The dump is complete.
    Done,
    /// No place is free: later.
    NoPlace,
}

impl<'c> Running<'c> {
    /// Begins a dump, or answers why not.
    pub(super) fn begin(ctx: Ctx<'c>, dump: Dump, out: &mut Output<'_>) -> Option<Self> {
        let Some(place) = ctx.shared.dump_places.take() else {
            dump.refuse(ErrorLine::CrawlerBusy, out);
            return None;
        };
        Some(Running {
            dump,
            place: Some(place),
            stepped_at: ctx.now,
        })
    }

    pub(super) fn step(&mut self, ctx: Ctx<'c>, out: &mut Output<'_>) -> Stepped {
        if self.place.is_none() {
            self.place = ctx.shared.dump_places.take();
            if self.place.is_none() {
                return Stepped::NoPlace;
            }
        }
        self.stepped_at = ctx.now;
        if self.dump.step(ctx, out) {
            Stepped::Done
        } else {
            Stepped::More
        }
    }

    /// Lends the place if it is time to. To be called while the peer has replies to take.
    pub(super) fn lend_place(&mut self, now: RelTime) {
        if now.since(self.stepped_at) >= STALL_S {
            self.place = None;
        }
    }

    /// True if it waits for a place.
    pub(super) fn has_no_place(&self) -> bool {
        self.place.is_none()
    }
}

impl Running<'_> {
    /// Writes down where it is, for another process, which has the same items.
    pub(super) fn pack(&self, to: &mut Packer) {
        let Dump {
            kind,
            classes,
            at,
            begun,
        } = &self.dump;
        classes.pack(to);
        at.pack(to);
        to.number(*begun);
        match kind {
            Kind::Metadata => _ = to.number(0u8),
            Kind::Keys => _ = to.number(1u8),
            Kind::Items { left } => _ = to.number(2u8).number(*left),
            Kind::Sizes { sizes, binary } => {
                pack_head(*binary, to.number(3u8));
                to.size(sizes.len());
                sizes
                    .iter()
                    .for_each(|(&size, &count)| _ = to.size(size).number(count));
            }
            Kind::Prefixes { next, binary } => {
                to.number(4u8).size(*next);
                pack_head(*binary, to);
            }
        }
    }

    /// Goes on where another process was, as soon as there is a place.
    pub(super) fn unpack(now: RelTime, from: &mut Unpacker<'_>) -> Option<Self> {
        let classes = ClassMask::unpack(from)?;
        let at = WalkCursor::unpack(from)?;
        let begun = from.flag()?;
        let kind = match from.number::<u8>()? {
            0 => Kind::Metadata,
            1 => Kind::Keys,
            2 => Kind::Items {
                left: from.number()?,
            },
            3 => {
                let binary = unpack_head(from)?;
                let mut sizes = BTreeMap::new();
                for _ in 0..from.number::<usize>()? {
                    sizes.insert(from.number()?, from.number()?);
                }
                Kind::Sizes { sizes, binary }
            }
            4 => Kind::Prefixes {
                next: from.number()?,
                binary: unpack_head(from)?,
            },
            _ => return None,
        };
        Some(Running {
            dump: Dump {
                kind,
                classes,
                at,
                begun,
            },
            place: None,
            stepped_at: now,
        })
    }
}

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
    /// What is counted of each prefix.
    Prefixes {
        /// The number of the one to go on from.
        next: usize,
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

    /// `stats detail dump`, in text or in packets with this head.
    pub(super) fn prefixes(binary: Option<BinaryHead>) -> Self {
        Dump::new(Kind::Prefixes { next: 0, binary }, ClassMask::NONE)
    }

    /// Answers with an error instead.
    pub(super) fn refuse(&self, error: ErrorLine, out: &mut Output<'_>) {
        match self.kind {
            Kind::Sizes {
                binary: Some(head), ..
            }
            | Kind::Prefixes {
                binary: Some(head), ..
            } => binary::error(&mut out.buf, head, Status::from(error)),
            _ => out.error(error),
        }
    }

    /// Goes on for a slice; true when the dump is complete.
    fn step(&mut self, ctx: Ctx<'_>, out: &mut Output<'_>) -> bool {
        if let Kind::Prefixes { next, binary } = &mut self.kind {
            return step_over_prefixes(ctx, next, *binary, out);
        }
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
            Kind::Sizes { sizes, binary } => return show_sizes(sizes, *binary, out),
            Kind::Prefixes { .. } => unreachable!("they are not items"),
        }
        true
    }
}

/// Writes sizes until the output is full; true when that was all.
fn show_sizes(
    sizes: &mut BTreeMap<usize, u64>,
    binary: Option<BinaryHead>,
    out: &mut Output<'_>,
) -> bool {
    while !out.is_full() {
        let Some((size, count)) = sizes.pop_first() else {
            report::end(binary, out);
            return true;
        };
        report::stat(binary, &size.to_string(), Value::Count(count), out);
    }
    false
}

/// Writes the lines of some prefixes; true when those were all. In binary the lines of a step are the value of one packet:
/// up to [`PREFIX_BYTES`] that is the one packet which memcached sends.
fn step_over_prefixes(
    ctx: Ctx<'_>,
    next: &mut usize,
    binary: Option<BinaryHead>,
    out: &mut Output<'_>,
) -> bool {
    let mut lines = Vec::new();
    let more = ctx.shared.prefixes.dump(*next, PREFIX_BYTES, &mut lines);
    match more {
        Some(at) => *next = at,
        None => lines.extend_from_slice(END),
    }
    let Some(head) = binary else {
        out.bytes(&lines);
        return more.is_none();
    };
    binary::stat(&mut out.buf, head, b"detailed", &lines);
    if more.is_none() {
        binary::stat_end(&mut out.buf, head);
    }
    more.is_none()
}

impl Kind {
    /// Shows one item; true if no more are wanted.
    fn show(&mut self, clock: &Clock, item: &ItemHead<'_>, out: &mut Vec<u8>) -> bool {
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
            Kind::Prefixes { .. } => {}
        }
        false
    }
}

/// One line of a metadump. Like memcached's, it ends with a blank, and without a `\r`.
fn metadata(clock: &Clock, item: &ItemHead<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"key=");
    protocol::uri_encode(item.key(), out);
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
    out.extend_from_slice(b" \n");
}

/// When the item ends, in seconds since 1970; `None` for never.
fn unix_expiry(clock: &Clock, item: &ItemHead<'_>) -> Option<i64> {
    let expires_at = item.expires_at();
    (expires_at != RelTime::NEVER).then(|| clock.unix(expires_at))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::command::session::Session;
    use crate::command::testing::Server;
    use crate::settings::Settings;
    use crate::state::DUMP_PLACES;

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

    /// Dp1: whatever the budget of commands, others come after each step.
    #[test]
    fn a_turn_is_one_step() {
        let server = filled(5000);
        let (mut session, mut out) = (Session::new(), Output::new());
        let mut input = &b"lru_crawler mgdump all\r\n"[..];
        let mut turns = 0;
        while !out.buf.ends_with(b"EN\r\n") {
            out.clear();
            let mut budget = 100;
            let drive = session.drive(server.shared.ctx(0), input, &mut budget, &mut out);
            input = &input[drive.consumed..];
            assert_eq!(budget, 0);
            turns += 1;
        }
        assert!(turns >= 5000 / SLICE, "{turns} turns");
    }

    /// Dp3.
    #[test]
    fn a_place_is_lent_while_nobody_reads() {
        let server = filled(5000);
        let (places, mut out) = (&server.shared.dump_places, Output::new());
        let taken = || places.taken();
        let begin = |out: &mut Output<'_>| {
            Running::begin(server.shared.ctx(0), Dump::keys(ClassMask::ALL), out)
        };
        let mut running: Vec<_> = (0..DUMP_PLACES).filter_map(|_| begin(&mut out)).collect();
        assert_eq!((running.len(), taken()), (DUMP_PLACES, DUMP_PLACES));
        assert!(begin(&mut out).is_none());
        assert_eq!(out.buf, ErrorLine::CrawlerBusy.line());
        drop(running.pop());
        running.extend(begin(&mut out));
        assert_eq!((running.len(), taken()), (DUMP_PLACES, DUMP_PLACES));

        server.pass(i64::from(STALL_S) - 1);
        let now = || server.shared.clock.now();
        running[0].step(server.shared.ctx(0), &mut out);
        server.pass(1);
        running.iter_mut().for_each(|dump| dump.lend_place(now()));
        assert_eq!(taken(), 1, "but for the one that moved");
        assert!(running[1].has_no_place());
        let others: Vec<_> = (0..DUMP_PLACES).filter_map(|_| begin(&mut out)).collect();
        assert_eq!(others.len(), DUMP_PLACES - 1);
        assert_eq!(
            running[1].step(server.shared.ctx(0), &mut out),
            Stepped::NoPlace
        );
        drop(others);
        while running[1].step(server.shared.ctx(0), &mut out) == Stepped::More {}
        assert_eq!(taken(), 2);
        drop(running);
        assert_eq!(taken(), 0);
    }

    #[test]
    fn prefixes_are_dumped_in_steps() {
        let server = Server::start();
        server.ask("stats detail on\r\n");
        for n in 0..2000 {
            server.ask(&format!("get {}{n}:x\r\n", "p".repeat(200)));
        }
        for binary in [
            None,
            binary::head(&[[0x80, 0x10].as_slice(), &[0; 22]].concat()),
        ] {
            let (mut out, mut steps) = (Output::new(), 0);
            let mut dump = Dump::prefixes(binary);
            let mut text = Vec::new();
            loop {
                let done = dump.step(server.shared.ctx(0), &mut out);
                assert!(out.buf.len() < PREFIX_BYTES + 1000, "{}", out.buf.len());
                text.extend_from_slice(&out.buf);
                out.clear();
                steps += 1;
                if done {
                    break;
                }
            }
            assert!(steps > 2000 * 200 / PREFIX_BYTES, "{steps}");
            let lines = text.windows(7).filter(|word| word == b"PREFIX ").count();
            assert_eq!(lines, 2000);
        }
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
            line.starts_with(&head) && line.ends_with(" flags=7 "),
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
