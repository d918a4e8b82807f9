//! Requests as bytes: meta commands, and classic text where meta has no word.
//!
//! All functions append to the [`Requests`] of a node, so that a batch is one buffer, whatever its number of keys.
//!
//! ```text
//!  mg alpha v f q O81  mg beta v f q O82  mg gamma v f O83      tags, one after the other; the last is always answered
//!  get alpha beta      mg gamma v f O83                         the keys are echoed; the tag tells where it ends
//! ```
//!
//! Rq1. Each meta request has a tag (its opaque) that no other request of the process had for the last four billion: a reply
//!     that carries it is the reply to it, whatever else comes on the connection.

#[cfg(not(test))]
use std::{
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
    sync::atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use protocol::{KEY_LEN_MAX, Key, base64};

use super::expect::Expect;
use crate::error::KeyFault;

/// The next tag. It begins anywhere, so that a proxy which confuses two processes is noticed.
#[cfg(not(test))]
static NEXT_TAG: LazyLock<AtomicU32> =
    LazyLock::new(|| AtomicU32::new(RandomState::new().hash_one(0) as u32));

/// The first of `count` tags.
#[cfg(not(test))]
#[inline]
fn take_tags(count: u32) -> u32 {
    NEXT_TAG.fetch_add(count, Ordering::Relaxed)
}

#[cfg(test)]
thread_local! {
    /// The next tag: a simulation has one thread, and repeats whatever other tests do meanwhile.
    pub static NEXT_TAG: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
fn take_tags(count: u32) -> u32 {
    NEXT_TAG.replace(NEXT_TAG.get().wrapping_add(count))
}

/// Bytes of most requests beside key and value, and a few to spare.
pub const LINE_LEN: usize = 64;

/// Requests to one node, that go together.
#[derive(Debug)]
pub struct Requests {
    bytes: Vec<u8>,
    /// The tag of the first.
    first: u32,
    /// Those that have a tag.
    tagged: u32,
    /// Keys of a classic `get` come before.
    plain: bool,
    /// A miss, of one but the last, is not answered.
    quiet: bool,
    /// Where writes come from; 0 if nobody is to be told.
    origin: u16,
}

impl Requests {
    /// At most `count` will come, of some `room` bytes.
    pub fn new(count: usize, room: usize) -> Self {
        Requests {
            bytes: Vec::with_capacity(room),
            first: take_tags(count as u32),
            tagged: 0,
            plain: false,
            quiet: false,
            origin: 0,
        }
    }

    /// Whose writes say where they come from.
    pub fn marked(mut self, origin: u16) -> Self {
        self.origin = origin;
        self
    }

    /// What is to be sent, and what will come.
    pub fn finish(self) -> (Bytes, Expect) {
        let Requests {
            bytes,
            first,
            tagged: count,
            ..
        } = self;
        let expect = match (self.plain, self.quiet) {
            (true, _) => Expect::Values { tag: first },
            (false, true) => Expect::Hits {
                first,
                next: 0,
                count,
            },
            (false, false) => Expect::Each {
                first,
                next: 0,
                count,
            },
        };
        (bytes.into(), expect)
    }

    /// True if there is none yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Says where a write comes from, which goes into the node's feed.
    fn mark(&mut self) {
        if self.origin != 0 {
            put(&mut self.bytes, b" L", self.origin);
        }
    }

    /// Ends a request's line with its tag.
    fn end_line(&mut self) {
        let tag = self.first.wrapping_add(self.tagged);
        self.tagged += 1;
        put(&mut self.bytes, b" O", tag);
        self.bytes.extend_from_slice(b"\r\n");
    }
}

/// True if it is one line with a tag, which is answered once.
pub fn is_line(request: &[u8], expect: Expect) -> bool {
    let is_one = matches!(
        expect,
        Expect::Each {
            next: 0,
            count: 1,
            ..
        }
    );
    is_one && memchr::memchr(b'\n', request) == request.len().checked_sub(1)
}

/// Requests of [one line](is_line) as one, each with a new tag.
pub fn together<'r>(lines: impl ExactSizeIterator<Item = &'r [u8]>) -> (Bytes, Expect) {
    let mut all = Requests::new(lines.len(), 0);
    for line in lines {
        // The tag is the last word.
        let end = memchr::memrchr(b' ', line).unwrap_or(line.len());
        all.bytes.extend_from_slice(&line[..end]);
        all.end_line();
    }
    all.finish()
}

/// How a store treats what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreMode {
    /// Whatever is there.
    Set,
    /// Only if nothing is there.
    Add,
    /// Only if something is there.
    Replace,
    /// Behind the value that is there.
    Append,
    /// Before the value that is there.
    Prepend,
}

impl StoreMode {
    /// True if nothing is left of what was there, once something is stored.
    pub fn replaces(self) -> bool {
        matches!(self, StoreMode::Set | StoreMode::Add | StoreMode::Replace)
    }
}

/// What a read asks for beside value and client flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The CAS unique.
    pub cas: bool,
    /// The time that is left to it.
    pub ttl: bool,
    /// The item's new expiry time.
    pub touch: Option<i32>,
    /// For how long a missing item is created, and how much time must be left that nobody is told to compute it anew.
    pub lease: Option<(i32, i32)>,
    /// Whether the key is hot now; see [`routing`](crate::routing). memcached reads over it.
    pub heat: bool,
}

impl Wanted {
    /// True if it asks for what every copy knows: not for its CAS unique, and for no change.
    pub fn is_value_only(&self) -> bool {
        !self.cas && self.touch.is_none() && self.lease.is_none()
    }
}

/// Counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Down, not below 0.
    pub down: bool,
    /// By how much.
    pub delta: u64,
    /// Initial value and expiry time of a counter that is missing.
    pub create: Option<(u64, i32)>,
}

/// Whether `key` can be sent; `long_binary` as in the options.
pub fn check_key(key: &[u8], long_binary: bool) -> Result<(), KeyFault> {
    match key.len() {
        0 => Err(KeyFault::Empty),
        1..=KEY_LEN_MAX => {
            let encoded_len = key.len().div_ceil(3) * 4;
            if encoded_len > KEY_LEN_MAX && !long_binary && is_binary(key) {
                return Err(KeyFault::TooLongInBase64);
            }
            Ok(())
        }
        _ => Err(KeyFault::TooLong),
    }
}

/// `mg`. If it is `quiet`, a miss is not answered: the last of a batch is not.
pub fn get(requests: &mut Requests, key: &[u8], wanted: Wanted, quiet: bool) {
    let out = &mut requests.bytes;
    if requests.plain {
        // The classic line is over.
        out.extend_from_slice(b"\r\n");
    } else if out.capacity() == 0
        && (Wanted {
            heat: false,
            ..wanted
        }) == Wanted::default()
    {
        // Most reads are this one request. Without a byte to spare it becomes `Bytes` as it is.
        let digits = requests.first.checked_ilog10().unwrap_or(0) as usize + 1;
        let heat = if wanted.heat { " P".len() } else { 0 };
        *out = Vec::with_capacity("mg  v f O\r\n".len() + heat + key.len() + digits);
    }
    out.extend_from_slice(b"mg ");
    let binary = put_key(out, key);
    out.extend_from_slice(b" v f");
    put_binary(out, binary);
    if wanted.cas {
        out.extend_from_slice(b" c");
    }
    if wanted.ttl {
        out.extend_from_slice(b" t");
    }
    if wanted.heat {
        out.extend_from_slice(b" P");
    }
    if let Some(exptime) = wanted.touch {
        put(out, b" T", exptime);
    }
    if let Some((lease, recache)) = wanted.lease {
        put(out, b" N", lease);
        put(out, b" R", recache);
    }
    if quiet {
        out.extend_from_slice(b" q");
        requests.quiet = true;
    }
    requests.end_line();
}

/// One more key of a classic `get`, behind which the last key goes by [`get`]. A node works less on it than on as many `mg`.
/// The key needs no base64.
pub fn get_plain(requests: &mut Requests, key: &[u8]) {
    let out = &mut requests.bytes;
    out.extend_from_slice(if requests.plain { &b" "[..] } else { b"get " });
    requests.plain = true;
    out.extend_from_slice(key);
}

/// True if `key` can only be sent in base64.
pub fn is_binary(key: &[u8]) -> bool {
    Key::plain(key).needs_base64()
}

/// `ms`. With `compare`, only if the item's CAS unique is this; with `want_cas`, the answer tells the new one.
pub fn store(
    requests: &mut Requests,
    key: &[u8],
    value: (&[u8], u32),
    exptime: i32,
    mode: StoreMode,
    compare: Option<u64>,
    want_cas: bool,
) {
    store_as(
        requests,
        key,
        value,
        exptime,
        mode,
        (compare, None),
        want_cas,
    );
}

/// The same; with `unique`, that becomes the item's CAS unique.
pub fn store_as(
    requests: &mut Requests,
    key: &[u8],
    (value, flags): (&[u8], u32),
    exptime: i32,
    mode: StoreMode,
    (compare, unique): (Option<u64>, Option<u64>),
    want_cas: bool,
) {
    let out = &mut requests.bytes;
    out.reserve(key.len() + value.len() + LINE_LEN);
    out.extend_from_slice(b"ms ");
    let binary = put_key(out, key);
    put(out, b" ", value.len());
    put_binary(out, binary);
    if exptime != 0 {
        put(out, b" T", exptime);
    }
    if flags != 0 {
        put(out, b" F", flags);
    }
    match mode {
        StoreMode::Set => {}
        StoreMode::Add => out.extend_from_slice(b" ME"),
        StoreMode::Replace => out.extend_from_slice(b" MR"),
        StoreMode::Append => out.extend_from_slice(b" MA"),
        StoreMode::Prepend => out.extend_from_slice(b" MP"),
    }
    if let Some(unique) = compare {
        put(out, b" C", unique);
    }
    if let Some(unique) = unique {
        put(out, b" E", unique);
    }
    if want_cas {
        out.extend_from_slice(b" c");
    }
    requests.mark();
    requests.end_line();
    requests.bytes.extend_from_slice(value);
    requests.bytes.extend_from_slice(b"\r\n");
}

/// A command as the caller wrote it: `verb key [len] flags`, and a value if it has one.
pub fn raw(requests: &mut Requests, verb: &str, key: &[u8], flags: &str, value: Option<&[u8]>) {
    let out = &mut requests.bytes;
    out.extend_from_slice(verb.as_bytes());
    out.push(b' ');
    let binary = put_key(out, key);
    if let Some(value) = value {
        put(out, b" ", value.len());
    }
    put_binary(out, binary);
    out.extend_from_slice(flags.as_bytes());
    requests.end_line();
    if let Some(value) = value {
        requests.bytes.extend_from_slice(value);
        requests.bytes.extend_from_slice(b"\r\n");
    }
}

/// `md`; with `compare`, only if the item's CAS unique is this.
pub fn delete(requests: &mut Requests, key: &[u8], compare: Option<u64>) {
    let out = &mut requests.bytes;
    out.extend_from_slice(b"md ");
    let binary = put_key(out, key);
    put_binary(out, binary);
    if let Some(unique) = compare {
        put(out, b" C", unique);
    }
    requests.mark();
    requests.end_line();
}

/// The item's CAS unique, by `mg` without a value.
pub fn look(requests: &mut Requests, key: &[u8]) {
    let out = &mut requests.bytes;
    out.extend_from_slice(b"mg ");
    let binary = put_key(out, key);
    put_binary(out, binary);
    out.extend_from_slice(b" c");
    requests.end_line();
}

/// A new expiry time, by `mg` without a value.
pub fn touch(requests: &mut Requests, key: &[u8], exptime: i32) {
    let out = &mut requests.bytes;
    out.extend_from_slice(b"mg ");
    let binary = put_key(out, key);
    put_binary(out, binary);
    put(out, b" T", exptime);
    requests.mark();
    requests.end_line();
}

/// `ma`; the answer carries the number and the time to live. With `want_cas` also the new CAS unique.
pub fn count(requests: &mut Requests, key: &[u8], count: Count, want_cas: bool) {
    let out = &mut requests.bytes;
    out.extend_from_slice(b"ma ");
    let binary = put_key(out, key);
    put_binary(out, binary);
    out.extend_from_slice(if count.down { b" MD" } else { b" MI" });
    put(out, b" D", count.delta);
    if let Some((initial, exptime)) = count.create {
        put(out, b" J", initial);
        put(out, b" N", exptime);
    }
    out.extend_from_slice(b" v t");
    if want_cas {
        out.extend_from_slice(b" c");
    }
    requests.mark();
    requests.end_line();
}

/// `mn`, whose answer `MN` has no tag: it ends a connection's only exchange ([`Expect::Noop`]), or lines that have none either.
pub const NOOP: &[u8] = b"mn\r\n";

/// `version`, as one exchange ([`Expect::Lines`]).
pub const VERSION: &[u8] = b"version\r\nmn\r\n";

/// The login of ASCII authentication, which is a store of the token under any key.
pub fn login(user: &str, password: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, b"set auth 0 0 ", user.len() + 1 + password.len());
    for part in ["\r\n", user, " ", password, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    out
}

/// Appends the key, in base64 if it needs to be, and tells whether it does.
fn put_key(out: &mut Vec<u8>, key: &[u8]) -> bool {
    let binary = is_binary(key);
    if binary {
        base64::encode(key, out);
    } else {
        out.extend_from_slice(key);
    }
    binary
}

fn put_binary(out: &mut Vec<u8>, binary: bool) {
    if binary {
        out.extend_from_slice(b" b");
    }
}

fn put(out: &mut Vec<u8>, before: &[u8], number: impl itoa::Integer) {
    out.extend_from_slice(before);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `encode` puts into requests of which the first has tag 7, but for that tag.
    fn text(encode: impl FnOnce(&mut Requests)) -> String {
        let mut requests = Requests::new(1, 0);
        requests.first = 7;
        encode(&mut requests);
        let (bytes, _) = requests.finish();
        let text = String::from_utf8(bytes.to_vec()).expect("these are text");
        assert_eq!(text.matches(" O7\r\n").count(), 1, "{text}");
        text.replacen(" O7\r\n", "\r\n", 1)
    }

    #[test]
    fn writes_say_where_they_come_from() {
        let marked = |encode: fn(&mut Requests)| {
            let mut requests = Requests::new(1, 0).marked(65_535);
            requests.first = 7;
            encode(&mut requests);
            String::from_utf8(requests.finish().0.to_vec()).expect("text")
        };
        let up = Count {
            down: false,
            delta: 1,
            create: None,
        };
        assert_eq!(
            marked(|o| store(o, b"k", (b"v", 0), 0, StoreMode::Set, None, false)),
            "ms k 1 L65535 O7\r\nv\r\n"
        );
        assert_eq!(marked(|o| delete(o, b"k", None)), "md k L65535 O7\r\n");
        assert_eq!(marked(|o| touch(o, b"k", 9)), "mg k T9 L65535 O7\r\n");
        let mut counted = Requests::new(1, 0).marked(1);
        count(&mut counted, b"k", up, false);
        assert!(counted.bytes.starts_with(b"ma k MI D1 v t L1 O"));
        assert_eq!(marked(|o| look(o, b"k")), "mg k c O7\r\n");
    }

    #[test]
    fn requests_on_the_wire() {
        let all = Wanted {
            cas: true,
            ttl: true,
            touch: Some(60),
            lease: None,
            heat: true,
        };
        let lease = Wanted {
            lease: Some((5, 11)),
            ..Wanted::default()
        };
        let up = Count {
            down: false,
            delta: 3,
            create: None,
        };
        let down = Count {
            down: true,
            delta: u64::MAX,
            create: Some((10, 60)),
        };
        let set = |mode, compare, want_cas| {
            text(|o| store(o, b"k", (b"v\r\n", 7), 30, mode, compare, want_cas))
        };
        for (sent, wire) in [
            (
                text(|o| get(o, b"k", Wanted::default(), false)),
                "mg k v f\r\n",
            ),
            (text(|o| get(o, b"k", lease, false)), "mg k v f N5 R11\r\n"),
            (
                text(|o| get(o, b"k", all, true)),
                "mg k v f c t P T60 q\r\n",
            ),
            (
                text(|o| get(o, b"\x01", all, false)),
                "mg AQ== v f b c t P T60\r\n",
            ),
            (
                set(StoreMode::Set, None, false),
                "ms k 3 T30 F7\r\nv\r\n\r\n",
            ),
            (
                set(StoreMode::Add, None, true),
                "ms k 3 T30 F7 ME c\r\nv\r\n\r\n",
            ),
            (
                set(StoreMode::Set, Some(9), false),
                "ms k 3 T30 F7 C9\r\nv\r\n\r\n",
            ),
            (
                set(StoreMode::Append, None, false),
                "ms k 3 T30 F7 MA\r\nv\r\n\r\n",
            ),
            (
                set(StoreMode::Prepend, None, false),
                "ms k 3 T30 F7 MP\r\nv\r\n\r\n",
            ),
            (
                set(StoreMode::Replace, None, false),
                "ms k 3 T30 F7 MR\r\nv\r\n\r\n",
            ),
            (
                text(|o| store(o, b"a b", (b"", 0), 0, StoreMode::Set, None, false)),
                "ms YSBi 0 b\r\n\r\n",
            ),
            (text(|o| delete(o, b"k", None)), "md k\r\n"),
            (text(|o| delete(o, b" ", Some(5))), "md IA== b C5\r\n"),
            (text(|o| touch(o, b"k", 0)), "mg k T0\r\n"),
            (text(|o| look(o, b"k")), "mg k c\r\n"),
            (text(|o| look(o, b" ")), "mg IA== b c\r\n"),
            (text(|o| count(o, b"k", up, false)), "ma k MI D3 v t\r\n"),
            (
                text(|o| count(o, b"k", down, true)),
                "ma k MD D18446744073709551615 J10 N60 v t c\r\n",
            ),
        ] {
            assert_eq!(sent, wire);
        }
        assert_eq!(login("me", "secret"), b"set auth 0 0 9\r\nme secret\r\n");
    }

    #[test]
    fn no_two_requests_have_a_tag_in_common() {
        let (mut one, mut other) = (Requests::new(3, 0), Requests::new(1, 0));
        for key in [b"a", b"b", b"c"] {
            get(&mut one, key, Wanted::default(), *key != *b"c");
        }
        get(&mut other, b"d", Wanted::default(), false);
        let (first, (bytes, expect)) = (one.first, one.finish());
        let tags = [0, 1, 2].map(|step| first.wrapping_add(step));
        let [a, b, c] = tags;
        let wire = format!("mg a v f q O{a}\r\nmg b v f q O{b}\r\nmg c v f O{c}\r\n");
        assert_eq!(bytes, wire);
        let (next, count) = (0, 3);
        assert_eq!(expect, Expect::Hits { first, next, count });
        assert!(!tags.contains(&other.first));
    }

    #[test]
    fn a_classic_batch_ends_with_a_tag() {
        let mut batch = Requests::new(3, 0);
        get_plain(&mut batch, b"a");
        get_plain(&mut batch, b"b");
        get(&mut batch, b"c", Wanted::default(), false);
        let (tag, (bytes, expect)) = (batch.first, batch.finish());
        assert_eq!(bytes, format!("get a b\r\nmg c v f O{tag}\r\n"));
        let mut one = Requests::new(1, 0);
        get(&mut one, b"key", Wanted::default(), false);
        assert_eq!(one.bytes.capacity(), one.bytes.len());
        assert_eq!(expect, Expect::Values { tag });
    }

    #[test]
    fn keys_that_cannot_be_sent() {
        let binary = [0; 250];
        for (key, long, result) in [
            (&b""[..], true, Err(KeyFault::Empty)),
            (&[b'k'; 250], false, Ok(())),
            (&[b'k'; 251], true, Err(KeyFault::TooLong)),
            (&[0xff; 250], false, Ok(())),
            (&binary[..186], false, Ok(())),
            (&binary[..187], false, Err(KeyFault::TooLongInBase64)),
            (&binary, true, Ok(())),
        ] {
            assert_eq!(check_key(key, long), result, "{} bytes", key.len());
        }
    }
}
