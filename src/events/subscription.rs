//! One reader's view of the feed, as the lines that are sent to it. docs/invalidation.md describes them for readers.
//!
//! ```text
//!  FEED epoch seq [ms]                         once: what follows is behind event seq
//!  n seq what cause key cas origin             an event: the n-th line of this kind, without holes
//!  HB n seq [ms]                               all up to event seq is said, in n events; that is all that was before ms
//!  GAP seq                                     of what was up to event seq, something is lost
//! ```
//!
//! Sb1. `n` counts the events that were sent, one by one. `seq` grows; with a prefix it has holes.
//! Sb2. A heartbeat is said only when all before its `seq` is said, and all that happened before its `ms`, which are milliseconds
//!     of a clock that only goes forward.

use super::feed::{Event, Feed, Look, Place};
use super::{Cause, What, key_hash};

/// How a reader wants keys to be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Form {
    /// URI-encoded.
    #[default]
    Text,
    /// By [`key_hash`].
    Hash,
}

/// The longest line, in bytes: a key of 250 bytes takes three for each.
const LINE_MAX: usize = 900;
/// How often a reader hears that nothing happened, in milliseconds, if it does not say.
const HEARTBEAT_MS: u32 = 1000;

/// What one reader wants, and how far it is.
#[derive(Debug)]
pub struct Subscription {
    pub(super) prefix: Box<[u8]>,
    pub(super) form: Form,
    pub(super) heartbeat_ms: u32,
    /// The first line and heartbeats tell the time.
    pub(super) tells_time: bool,
    /// Where it was before, and in which epoch.
    pub(super) from: Option<(u64, u64)>,
    place: Place,
    sent: u64,
    /// What the last heartbeat said, and when.
    said: u64,
    said_ms: u64,
}

impl Default for Subscription {
    fn default() -> Self {
        Subscription {
            prefix: Box::default(),
            form: Form::Text,
            heartbeat_ms: HEARTBEAT_MS,
            tells_time: false,
            from: None,
            place: Place::default(),
            sent: 0,
            said: 0,
            said_ms: 0,
        }
    }
}

impl Subscription {
    /// Begins: now, or where the reader was before. Writes what it is told first. `last` is the number of the last event that
    /// happened before the reader listened.
    pub fn begin(&mut self, feed: &Feed, last: u64, now_ms: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"OK\r\n");
        let epoch = feed.epoch();
        let is_whole = self
            .from
            .is_none_or(|(epoch, last)| feed.has_all_since(epoch, last));
        let last = match self.from {
            Some((_, from)) if is_whole => from,
            _ => last,
        };
        self.place = Place::behind(last);
        (self.said, self.said_ms) = (last, now_ms);
        out.extend_from_slice(b"FEED ");
        hex(epoch, out);
        out.push(b' ');
        number(last, out);
        self.clock(now_ms, out);
        out.push(b'\n');
        if !is_whole {
            feed.count_gap();
            self.gap(out);
        }
    }

    /// Writes the events that follow, until `out` has `enough` bytes. True if there may be more.
    pub fn write(&mut self, feed: &Feed, out: &mut Vec<u8>, enough: usize) -> bool {
        while out.len() < enough {
            match feed.look(&mut self.place) {
                Look::End => return false,
                Look::Gap => self.gap(out),
                Look::More => {
                    out.reserve(LINE_MAX);
                    let Subscription {
                        place,
                        prefix,
                        form,
                        sent,
                        ..
                    } = self;
                    place.read(|seq, event| {
                        let is_flush = event.what == What::Flush as u8;
                        if is_flush || event.key.starts_with(prefix) {
                            *sent += 1;
                            write_event(*sent, seq, event, *form, out);
                        }
                        out.len() < enough
                    });
                }
            }
        }
        true
    }

    /// Writes a heartbeat, if one is due. To be called when all events are written, and all of that is sent. `last` is
    /// the number of the last of them, and what they are was looked for at `now_ms` or later (Sb2).
    pub fn beat(&mut self, now_ms: u64, out: &mut Vec<u8>) {
        if now_ms.saturating_sub(self.said_ms) < u64::from(self.heartbeat_ms) {
            return;
        }
        (self.said, self.said_ms) = (self.place.last, now_ms);
        out.extend_from_slice(b"HB ");
        number(self.sent, out);
        out.push(b' ');
        number(self.said, out);
        self.clock(now_ms, out);
        out.push(b'\n');
    }

    /// What the clock says, if the reader wants to know.
    fn clock(&self, now_ms: u64, out: &mut Vec<u8>) {
        if self.tells_time {
            out.push(b' ');
            number(now_ms, out);
        }
    }

    fn gap(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"GAP ");
        number(self.place.last, out);
        out.push(b'\n');
    }
}

fn write_event(n: u64, seq: u64, event: &Event<'_>, form: Form, out: &mut Vec<u8>) {
    number(n, out);
    out.push(b' ');
    number(seq, out);
    out.push(b' ');
    out.extend_from_slice(What::name_of(event.what).as_bytes());
    out.push(b' ');
    out.extend_from_slice(Cause::name_of(event.cause).as_bytes());
    out.push(b' ');
    match form {
        _ if event.key.is_empty() => out.push(b'*'),
        Form::Text => protocol::uri_encode(event.key, out),
        Form::Hash => hex(key_hash(event.key), out),
    }
    out.push(b' ');
    number(event.cas, out);
    out.push(b' ');
    number(event.origin.into(), out);
    out.push(b'\n');
}

fn number(number: u64, out: &mut Vec<u8>) {
    protocol::reply::number(out, number);
}

/// Sixteen digits.
fn hex(number: u64, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |at: usize| DIGITS[(number >> (60 - 4 * at)) as usize & 15];
    out.extend_from_slice(&std::array::from_fn::<u8, 16, _>(digit));
}
