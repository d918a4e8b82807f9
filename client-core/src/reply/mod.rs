//! Bytes from a node to typed replies.
//!
//! ```text
//!  socket -> space() .. filled(n) -> | taken | replies to come | room |   (one buffer a connection, reused)
//!                                            |
//!                                   next() -> Reply, its value a slice of one copy of all that came with it
//! ```
//!
//! R1. The same bytes give the same replies, however they were cut into reads.
//! R2. What is no reply is [`Broken`], and stays so: whoever sees it closes the connection.
//! R3. Memory is bounded by the buffer, a line of `LINE_LEN_MAX` and one value of `VALUE_LEN_MAX` bytes.
//!
//! Costs: values up to `LARGE` bytes are copied once, all that came with one read in one allocation; a larger one is
//! read straight into memory of its own.

#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::{Buf, Bytes};

/// The longest line of a reply, in bytes; the longest that memcached sends are those of `stats settings`.
const LINE_LEN_MAX: usize = 8 * 1024;
/// The largest value, in bytes: memcached's largest `-I`.
const VALUE_LEN_MAX: usize = 1 << 30;
/// Values of more bytes than this get memory of their own.
const LARGE: usize = 16 * 1024;
/// Bytes of the buffer: four large values or lines.
const BUFFER_LEN: usize = 64 * 1024;

/// The stream is no stream of replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `VA` with its value, or `HD` without.
    Ok(Meta),
    /// `VALUE`.
    Value(Classic),
    /// `EN`, `NF`: the key is not there.
    Missing,
    /// `NS`.
    NotStored,
    /// `EX`.
    Exists,
    /// `MN`, which ends a batch.
    Noop,
    /// `STAT`: what stands behind the word.
    Stat(Bytes),
    /// `END`, which ends a list of `STAT` or `VALUE`.
    End,
    /// A classic line of one reply: `OK`, `STORED`, `VERSION ..`, `RESET`.
    Line(Bytes),
    /// `ERROR`, `CLIENT_ERROR ..`, `SERVER_ERROR ..`.
    Refused(Refusal),
}

/// What came with `VALUE`.
#[derive(Debug, Clone)]
pub struct Classic {
    /// Key, rest of the line, value: one piece, since each would have to be counted.
    text: Bytes,
    key_len: u16,
    value_at: u16,
    /// The client flags.
    pub flags: u32,
}

const _: () = assert!(LINE_LEN_MAX <= u16::MAX as usize);

impl Classic {
    /// The key, as it was sent.
    pub fn key(&self) -> &[u8] {
        &self.text[..usize::from(self.key_len)]
    }

    /// The value alone.
    pub fn into_value(mut self) -> Bytes {
        self.text.advance(usize::from(self.value_at));
        self.text
    }
}

impl PartialEq for Classic {
    fn eq(&self, other: &Self) -> bool {
        let all = |one: &Self| (one.flags, one.text.slice(usize::from(one.value_at)..));
        self.key() == other.key() && all(self) == all(other)
    }
}

impl Eq for Classic {}

/// What came with `VA` or `HD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// The value, empty if none was asked for.
    pub value: Bytes,
    /// The client flags, 0 if they were not asked for.
    pub flags: u32,
    /// The CAS unique, 0 if it was not asked for.
    pub cas: u64,
    /// Seconds left; -1 without end, `None` if not told.
    pub ttl: Option<i64>,
    /// Opaque of the request; from [`Link`](super::link::Link) on, its place in the exchange.
    pub tag: Option<u32>,
    /// `W`: the reader is to compute the value anew.
    pub won: bool,
    /// `X`.
    pub stale: bool,
    /// `Z`: someone else computes the value anew.
    pub won_by_other: bool,
    /// Flags beside these, each with a space before it.
    pub others: Option<Box<[u8]>>,
}

impl Meta {
    /// True for the empty item that stands for a value while someone loads it.
    pub fn is_placeholder(&self) -> bool {
        (self.won || self.won_by_other) && !self.stale && self.may_be_placeholder()
    }

    /// True if the node says that the key is hot (`P` and its part of all reads in thousandths).
    pub fn is_hot(&self) -> bool {
        let others = self.others.as_deref().unwrap_or_default();
        let mut flags = others.split(|&byte| byte == b' ');
        flags.any(
            |flag| matches!(flag, [b'P', share @ ..] if share.iter().any(|&digit| digit > b'0')),
        )
    }

    /// True if it may be such an item, as far as classic `get` tells.
    pub fn may_be_placeholder(&self) -> bool {
        self.flags == 0 && self.value.is_empty()
    }
}

/// An error line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The value is larger than the node takes.
    TooLarge,
    /// The node has no memory for it.
    Full,
    /// The value to be counted with is no number.
    NotANumber,
    /// Another `SERVER_ERROR`.
    Server(Bytes),
    /// `ERROR` or another `CLIENT_ERROR`: node and client do not understand each other, and what follows in the stream is
    /// not to be trusted.
    Client(Bytes),
}

/// The receiving half of a connection.
#[derive(Debug, Default)]
pub struct Inbox {
    buf: Vec<u8>,
    /// `buf[start..end]` has come and was not taken.
    start: usize,
    end: usize,
    /// A copy of `buf[origin..end]` as it stood after the last read, from which values are cut.
    shared: Option<(usize, Bytes)>,
    /// A large value that is coming in.
    large: Option<Large>,
    /// See [`tag`](Self::tag).
    tag: Option<u32>,
}

#[derive(Debug)]
struct Large {
    head: Head,
    /// The key of `VALUE`, the value and its line end.
    body: Vec<u8>,
    filled: usize,
}

impl Inbox {
    /// The opaque of the reply that came last, if it has one.
    pub fn tag(&self) -> Option<u32> {
        self.tag
    }

    /// Where the next bytes from the socket go; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if let Some(large) = &mut self.large
            && large.filled < large.body.len()
        {
            return &mut large.body[large.filled..];
        }
        if self.buf.is_empty() {
            self.buf.resize(BUFFER_LEN, 0);
        }
        if self.start > 0 && (self.start == self.end || self.end == self.buf.len()) {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            self.shared = None;
        }
        &mut self.buf[self.end..]
    }

    /// So many bytes were put where [`space`](Self::space) said.
    pub fn filled(&mut self, count: usize) {
        match &mut self.large {
            Some(large) if large.filled < large.body.len() => large.filled += count,
            _ => {
                self.end += count;
                self.shared = None;
            }
        }
    }

    /// True if nothing has come that was not taken.
    pub fn is_empty(&self) -> bool {
        self.start == self.end && self.large.is_none()
    }

    /// The next reply, if all of it is there.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, Broken> {
        if let Some(large) = &self.large {
            if large.filled < large.body.len() {
                return Ok(None);
            }
            let Large { head, mut body, .. } = self.large.take().expect("just seen");
            if !body.ends_with(b"\r\n") {
                return Err(Broken);
            }
            body.truncate(body.len() - 2);
            let value_at = head.key.len();
            self.tag = head.meta.tag;
            return Ok(Some(head.reply(body.into(), value_at)));
        }
        let come = &self.buf[self.start..self.end];
        let Some(newline) = memchr::memchr(b'\n', &come[..come.len().min(LINE_LEN_MAX)]) else {
            return if come.len() < LINE_LEN_MAX {
                Ok(None)
            } else {
                Err(Broken)
            };
        };
        let line = come[..newline].strip_suffix(b"\r").ok_or(Broken)?;
        let behind = newline + 1;
        match word(line).0 {
            b"VA" => return self.value(behind, false),
            b"VALUE" => return self.value(behind, true),
            _ => {}
        }
        let (reply, tag) = of_line(line)?;
        (self.start, self.tag) = (self.start + behind, tag);
        Ok(Some(reply))
    }

    /// The reply `VA` or `VALUE`, whose line ends `behind` bytes from `start`.
    fn value(&mut self, behind: usize, classic: bool) -> Result<Option<Reply>, Broken> {
        let line = &self.buf[self.start..self.start + behind - 2];
        let head = if classic {
            classic_head(line)
        } else {
            meta_head(line)
        };
        let head = head?;
        let len = head.len;
        if len > VALUE_LEN_MAX {
            return Err(Broken);
        }
        let body = self.start + behind;
        let there = self.end - body;
        if there >= len + 2 {
            if &self.buf[body + len..body + len + 2] != b"\r\n" {
                return Err(Broken);
            }
            let text = match head.key.is_empty() {
                true => body,
                false => self.start + head.key.start,
            };
            self.tag = head.meta.tag;
            let reply = head.reply(self.cut(text, body - text + len), body - text);
            self.start = body + len + 2;
            return Ok(Some(reply));
        }
        if len > LARGE {
            let key = &self.buf[self.start..][head.key.clone()];
            let mut large = vec![0; key.len() + len + 2];
            large[..key.len()].copy_from_slice(key);
            large[key.len()..][..there].copy_from_slice(&self.buf[body..self.end]);
            self.start = self.end;
            self.large = Some(Large {
                filled: key.len() + there,
                head,
                body: large,
            });
        }
        Ok(None)
    }

    /// The `len` bytes at `at`, which have come.
    fn cut(&mut self, at: usize, len: usize) -> Bytes {
        if len == 0 {
            return Bytes::new();
        }
        // The last there is, or the only one, needs to share nothing.
        if self.shared.is_none() && at + len + b"\r\n".len() == self.end {
            return Bytes::copy_from_slice(&self.buf[at..at + len]);
        }
        let (origin, shared) = self
            .shared
            .get_or_insert_with(|| (at, Bytes::copy_from_slice(&self.buf[at..self.end])));
        shared.slice(at - *origin..at - *origin + len)
    }
}

/// The reply that `frame` is, all of it and nothing more, and its opaque: for who cuts the stream of a node himself. `shared` gives the
/// same bytes as what a value may stay in.
pub fn whole(frame: &[u8], shared: impl FnOnce() -> Bytes) -> Result<(Reply, Option<u32>), Broken> {
    let newline = memchr::memchr(b'\n', frame).ok_or(Broken)?;
    let line = frame[..newline].strip_suffix(b"\r").ok_or(Broken)?;
    let behind = newline + 1;
    let (head, text) = match word(line).0 {
        b"VA" => (meta_head(line)?, behind),
        b"VALUE" => {
            let head = classic_head(line)?;
            let text = head.key.start;
            (head, text)
        }
        _ if behind < frame.len() => return Err(Broken),
        _ => return of_line(line),
    };
    let end = behind.checked_add(head.len).ok_or(Broken)?;
    if frame.get(end..) != Some(b"\r\n") {
        return Err(Broken);
    }
    let tag = head.meta.tag;
    let reply = head.reply(shared().slice(text..end), behind - text);
    Ok((reply, tag))
}

/// A reply without a value, and its opaque.
fn of_line(line: &[u8]) -> Result<(Reply, Option<u32>), Broken> {
    let (first, rest) = word(line);
    let mut tag = None;
    let mut meta = || {
        let meta = tokens(rest)?;
        tag = meta.tag;
        Ok(meta)
    };
    let reply = match first {
        b"HD" => Reply::Ok(meta()?),
        b"EN" | b"NF" => meta().map(|_| Reply::Missing)?,
        b"NS" => meta().map(|_| Reply::NotStored)?,
        b"EX" => meta().map(|_| Reply::Exists)?,
        b"MN" => Reply::Noop,
        b"STAT" => Reply::Stat(Bytes::copy_from_slice(rest)),
        b"END" => Reply::End,
        b"OK" | b"STORED" | b"VERSION" | b"RESET" => Reply::Line(Bytes::copy_from_slice(line)),
        b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" => Reply::Refused(refusal(line)),
        _ => return Err(Broken),
    };
    Ok((reply, tag))
}

/// What the line before a value says.
#[derive(Debug)]
struct Head {
    len: usize,
    /// Where in the line the key stands; empty for `VA`.
    key: Range<usize>,
    meta: Meta,
}

impl Head {
    /// The reply, whose value begins `value_at` bytes behind its key.
    fn reply(self, text: Bytes, value_at: usize) -> Reply {
        let Head { key, meta, .. } = self;
        if key.is_empty() {
            let value = text;
            return Reply::Ok(Meta { value, ..meta });
        }
        Reply::Value(Classic {
            text,
            key_len: key.len() as u16,
            value_at: value_at as u16,
            flags: meta.flags,
        })
    }
}

/// `VA <length> <flags>*`
fn meta_head(line: &[u8]) -> Result<Head, Broken> {
    let (len, flags) = word(line.strip_prefix(b"VA ").ok_or(Broken)?);
    Ok(Head {
        len: length(len)?,
        key: 0..0,
        meta: tokens(flags)?,
    })
}

/// `VALUE <key> <client flags> <length>`
fn classic_head(line: &[u8]) -> Result<Head, Broken> {
    const KEY: usize = "VALUE ".len();
    let rest = line.get(KEY..).ok_or(Broken)?;
    let key = KEY..KEY + memchr::memchr(b' ', rest).ok_or(Broken)?;
    if key.is_empty() {
        return Err(Broken);
    }
    let mut numbers = line[key.end + 1..].split(|&byte| byte == b' ');
    let flags = u32::try_from(number(numbers.next().ok_or(Broken)?)?).map_err(|_| Broken)?;
    let len = length(numbers.next().ok_or(Broken)?)?;
    let meta = Meta {
        flags,
        ..Meta::default()
    };
    Ok(Head { len, key, meta })
}

fn length(text: &[u8]) -> Result<usize, Broken> {
    usize::try_from(number(text)?).map_err(|_| Broken)
}

/// The flags behind `VA` and its length, or behind `HD`.
fn tokens(mut text: &[u8]) -> Result<Meta, Broken> {
    let mut meta = Meta::default();
    let mut others = Vec::new();
    while let Some((&flag, rest)) = text.split_first() {
        if flag == b' ' {
            text = rest;
            continue;
        }
        match flag {
            b'O' => {
                let (tag, behind) = numeral(rest)?;
                (meta.tag, text) = (Some(tag), behind);
                continue;
            }
            b'f' => {
                (meta.flags, text) = numeral(rest)?;
                continue;
            }
            _ => {}
        }
        let (token, behind) = word(rest);
        text = behind;
        match flag {
            b'c' => meta.cas = number(token)?,
            b't' if token == b"-1" => meta.ttl = Some(-1),
            b't' => meta.ttl = Some(i64::try_from(number(token)?).map_err(|_| Broken)?),
            b'W' => meta.won = true,
            b'X' => meta.stale = true,
            b'Z' => meta.won_by_other = true,
            // What only a caller's own command asks for.
            _ => {
                others.push(b' ');
                others.push(flag);
                others.extend_from_slice(token);
            }
        }
    }
    if !others.is_empty() {
        meta.others = Some(others.into());
    }
    Ok(meta)
}

/// What is before the first space, and what behind it. Words are too short for a call of memchr to be worth it.
#[inline]
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|&byte| byte == b' ') {
        Some(space) => (&text[..space], &text[space + 1..]),
        None => (text, b""),
    }
}

/// The number of 32 bits before the first space, and what is behind that: every reply has one or two, so that they are read in
/// one go.
fn numeral(text: &[u8]) -> Result<(u32, &[u8]), Broken> {
    let (mut value, mut len) = (0u64, 0);
    // So many digits are no more than 64 bits.
    let len_max = text.len().min(u64::MAX.ilog10() as usize);
    while len < len_max {
        let digit = text[len].wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = 10 * value + u64::from(digit);
        len += 1;
    }
    let value = u32::try_from(value).map_err(|_| Broken)?;
    match text[len..].split_first() {
        _ if len == 0 => Err(Broken),
        None => Ok((value, b"")),
        Some((b' ', behind)) => Ok((value, behind)),
        Some(_) => Err(Broken),
    }
}

/// A decimal number of at least one digit.
pub fn number(text: &[u8]) -> Result<u64, Broken> {
    if text.is_empty() {
        return Err(Broken);
    }
    if text.len() < u64::MAX.ilog10() as usize {
        // It cannot be too large.
        return text.iter().try_fold(0, |number, &byte| {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return Err(Broken);
            }
            Ok(10 * number + u64::from(digit))
        });
    }
    text.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Broken);
        }
        let tens = number.checked_mul(10).ok_or(Broken)?;
        tens.checked_add(u64::from(digit)).ok_or(Broken)
    })
}

fn refusal(line: &[u8]) -> Refusal {
    let says = |text: &[u8]| memchr::memmem::find(line, text).is_some();
    if line.starts_with(b"SERVER_ERROR") {
        if says(b"too large") {
            Refusal::TooLarge
        } else if says(b"out of memory") || says(b"Out of memory") {
            Refusal::Full
        } else {
            Refusal::Server(Bytes::copy_from_slice(line))
        }
    } else if says(b"non-numeric value") {
        Refusal::NotANumber
    } else {
        Refusal::Client(Bytes::copy_from_slice(line))
    }
}
