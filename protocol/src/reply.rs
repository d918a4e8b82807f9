//! Reply lines, appended to a connection's write buffer.
//!
//! Nothing here knows when a reply is due; a quiet or `noreply` command simply never calls in.

use std::fmt::Display;
use std::io::Write;

use crate::base64;
use crate::key::Key;

/// Ends the values of `get` and the lines of `stats`.
pub const END: &[u8] = b"END\r\n";
/// A store succeeded.
pub const STORED: &[u8] = b"STORED\r\n";
/// `add`, `replace`, `append` or `prepend` did not find what it needs.
pub const NOT_STORED: &[u8] = b"NOT_STORED\r\n";
/// `cas`: somebody stored in between.
pub const EXISTS: &[u8] = b"EXISTS\r\n";
/// No item of this key.
pub const NOT_FOUND: &[u8] = b"NOT_FOUND\r\n";
/// `delete` succeeded.
pub const DELETED: &[u8] = b"DELETED\r\n";
/// `touch` succeeded.
pub const TOUCHED: &[u8] = b"TOUCHED\r\n";
/// A command about the server succeeded.
pub const OK: &[u8] = b"OK\r\n";
/// `stats reset`.
pub const RESET: &[u8] = b"RESET\r\n";
/// `mn`.
pub const MN: &[u8] = b"MN\r\n";
/// Ends a line, and a value.
pub const CRLF: &[u8] = b"\r\n";
/// What follows a value that is the last of its reply: [`CRLF`] and [`END`].
pub const CRLF_END: &[u8] = b"\r\nEND\r\n";

/// `VALUE key client_flags value_len [cas_unique]`, before the value and its `\r\n`.
#[inline]
pub fn value_head(
    out: &mut Vec<u8>,
    key: &[u8],
    client_flags: u32,
    value_len: u32,
    cas_unique: Option<u64>,
) {
    // What stands behind the key is put together beside, and added as one piece of a fixed length.
    let mut tail = [b' '; TAIL_MAX];
    let mut at = 1;
    at += digits(&mut tail, at, client_flags.into()) + 1;
    at += digits(&mut tail, at, value_len.into());
    if let Some(cas_unique) = cas_unique {
        at += 1;
        at += digits(&mut tail, at, cas_unique);
    }
    tail[at..at + 2].copy_from_slice(CRLF);
    out.reserve(6 + key.len() + TAIL_MAX);
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    let end = out.len() + at + 2;
    out.extend_from_slice(&tail);
    out.truncate(end);
}

/// Room for what stands behind the key in a value's head: spaces, the longest numbers, a line end.
const TAIL_MAX: usize = 48;
const _: () = assert!(1 + 10 + 1 + 10 + 1 + 20 + CRLF.len() <= TAIL_MAX);

/// The numbers of up to three digits: how many they have, and these with spaces behind them.
static SHORT_NUMBERS: [[u8; 4]; 1000] = {
    let mut numbers = [[0; 4]; 1000];
    let mut number = 0;
    while number < 1000 {
        let [a, b, c] = [number / 100, number / 10 % 10, number % 10];
        let [a, b, c] = [b'0' + a as u8, b'0' + b as u8, b'0' + c as u8];
        numbers[number] = match number {
            0..10 => [1, c, b' ', b' '],
            10..100 => [2, b, c, b' '],
            _ => [3, a, b, c],
        };
        number += 1;
    }
    numbers
};

/// Writes a number in decimal at `at`; gives how many digits it has.
#[inline(always)]
fn digits<const N: usize>(line: &mut [u8; N], at: usize, number: u64) -> usize {
    if let Some(&[len, ref text @ ..]) = SHORT_NUMBERS.get(number as usize) {
        line[at..at + 3].copy_from_slice(text);
        usize::from(len)
    } else {
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(number).as_bytes();
        line[at..at + text.len()].copy_from_slice(text);
        text.len()
    }
}

/// `CONFIG name flags len`, what `config get` answers before the value.
pub fn config_head(out: &mut Vec<u8>, name: &[u8], client_flags: u32, value_len: usize) {
    out.extend_from_slice(b"CONFIG ");
    out.extend_from_slice(name);
    out.push(b' ');
    number(out, client_flags);
    out.push(b' ');
    number(out, value_len);
    out.extend_from_slice(CRLF);
}

/// A number in decimal, without a line end.
#[inline]
pub fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A key as dumps and watchers show it, by RFC 3986 section 2: all but the unreserved characters as `%` and two hex digits.
pub fn uri_encode(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'%', high, low]);
        }
    }
}

/// `VERSION version`.
pub fn version(out: &mut Vec<u8>, version: &str) {
    out.extend_from_slice(b"VERSION ");
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(CRLF);
}

/// `STAT key value`.
pub fn stat(out: &mut Vec<u8>, key: impl Display, value: impl Display) {
    write!(out, "STAT {key} {value}\r\n").expect("writing to a Vec does not fail");
}

/// The code a meta reply begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaCode {
    /// Done; no value follows.
    HD,
    /// Done; a value of so many bytes follows the line.
    VA(u32),
    /// `mg`: no such item.
    EN,
    /// No such item.
    NF,
    /// Not stored.
    NS,
    /// The CAS unique is another one.
    EX,
}

/// A meta reply line under construction. The order of the calls is the order on the wire.
#[derive(Debug)]
pub struct MetaLine<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> MetaLine<'o> {
    /// Begins a line.
    #[inline(always)]
    pub fn new(out: &'o mut Vec<u8>, code: MetaCode) -> Self {
        match code {
            MetaCode::HD => out.extend_from_slice(b"HD"),
            MetaCode::VA(value_len) => {
                let mut code = *b"VA ..........";
                let end = out.len() + 3 + digits(&mut code, 3, value_len.into());
                out.extend_from_slice(&code);
                out.truncate(end);
            }
            MetaCode::EN => out.extend_from_slice(b"EN"),
            MetaCode::NF => out.extend_from_slice(b"NF"),
            MetaCode::NS => out.extend_from_slice(b"NS"),
            MetaCode::EX => out.extend_from_slice(b"EX"),
        }
        MetaLine { out }
    }

    /// A flag alone: `W`, `X`, `Z`.
    #[inline]
    pub fn mark(&mut self, flag: u8) {
        self.out.extend_from_slice(&[b' ', flag]);
    }

    /// A flag with a number behind it: `t-1`.
    #[inline]
    pub fn number(&mut self, flag: u8, value: impl itoa::Integer) {
        self.mark(flag);
        number(self.out, value);
    }

    /// A flag with bytes behind it: `Oopaque`.
    #[inline]
    pub fn bytes(&mut self, flag: u8, bytes: &[u8]) {
        self.mark(flag);
        self.out.extend_from_slice(bytes);
    }

    /// The key as the client wrote it, and `b` if that is base64: `kZm9v b`.
    #[inline]
    pub fn key(&mut self, key: Key<'_>) {
        self.bytes(b'k', key.text);
        if key.base64 {
            self.mark(b'b');
        }
    }

    /// A key that lines cannot show, in base64: `kZm9v b`.
    pub fn key_in_base64(&mut self, key: &[u8]) {
        self.mark(b'k');
        base64::encode(key, self.out);
        self.mark(b'b');
    }

    /// Ends the line.
    #[inline]
    pub fn end(self) {
        self.out.extend_from_slice(CRLF);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"before|".to_vec();
        write(&mut out);
        String::from_utf8(out).expect("the vectors are ASCII")
    }

    #[test]
    fn value_heads() {
        assert_eq!(
            written(|out| value_head(out, b"k", 0, 3, None)),
            "before|VALUE k 0 3\r\n"
        );
        assert_eq!(
            written(|out| value_head(out, b"key", u32::MAX, u32::MAX, Some(u64::MAX))),
            "before|VALUE key 4294967295 4294967295 18446744073709551615\r\n"
        );
    }

    #[test]
    fn stats() {
        assert_eq!(written(|out| stat(out, "pid", 7)), "before|STAT pid 7\r\n");
        assert_eq!(
            written(|out| stat(out, format_args!("items:{}:age", 3), "x")),
            "before|STAT items:3:age x\r\n"
        );
        assert_eq!(
            written(|out| version(out, "1.2.3")),
            "before|VERSION 1.2.3\r\n"
        );
    }

    #[test]
    fn meta_lines() {
        assert_eq!(
            written(|out| MetaLine::new(out, MetaCode::EN).end()),
            "before|EN\r\n"
        );
        let line = written(|out| {
            let mut line = MetaLine::new(out, MetaCode::VA(0));
            line.number(b't', -1);
            line.number(b'c', u64::MAX);
            line.bytes(b'O', b"abc");
            line.key(Key::plain(b"foo"));
            line.key(Key {
                text: b"Zm9v",
                base64: true,
            });
            line.key_in_base64(b"foo");
            line.mark(b'W');
            line.end();
        });
        assert_eq!(
            line,
            "before|VA 0 t-1 c18446744073709551615 Oabc kfoo kZm9v b kZm9v b W\r\n"
        );
        for (code, text) in [
            (MetaCode::HD, "before|HD\r\n"),
            (MetaCode::NF, "before|NF\r\n"),
            (MetaCode::NS, "before|NS\r\n"),
            (MetaCode::EX, "before|EX\r\n"),
        ] {
            assert_eq!(written(|out| MetaLine::new(out, code).end()), text);
        }
    }
}
