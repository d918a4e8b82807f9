//! The lines of a feed.

use std::ops::Range;

use memchr::memchr;

use super::{Form, Place, What};

/// A line behind the first. Words behind those it has are of later versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Change {
        n: u64,
        change: Found,
    },
    Beat {
        n: u64,
        seq: u64,
        /// The node's clock, if it says so.
        ms: Option<u64>,
    },
    Gap {
        seq: u64,
    },
}

/// A change, and where its words stand in the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub seq: u64,
    pub what: What,
    pub cause: Range<usize>,
    pub key: Range<usize>,
    pub cas: u64,
    pub origin: u16,
}

/// The words of a line, one after the other.
struct Words<'b> {
    line: &'b [u8],
    at: usize,
}

impl<'b> Words<'b> {
    fn next(&mut self) -> Option<(&'b [u8], Range<usize>)> {
        let rest = self.line.get(self.at..)?;
        let len = memchr(b' ', rest).unwrap_or(rest.len());
        let range = self.at..self.at + len;
        self.at += len + 1;
        Some((&rest[..len], range))
    }

    fn number(&mut self) -> Option<u64> {
        number(self.next()?.0)
    }

    /// Where a word stands that is text.
    fn text(&mut self) -> Option<Range<usize>> {
        let (word, range) = self.next()?;
        std::str::from_utf8(word).is_ok().then_some(range)
    }
}

impl Line {
    /// Reads a line, without what ends it. `None` if it is none.
    pub(super) fn parse(line: &[u8]) -> Option<Line> {
        let mut words = Words { line, at: 0 };
        match words.next()?.0 {
            b"HB" => Some(Line::Beat {
                n: words.number()?,
                seq: words.number()?,
                ms: match words.next() {
                    Some((word, _)) => Some(number(word)?),
                    None => None,
                },
            }),
            b"GAP" => Some(Line::Gap {
                seq: words.number()?,
            }),
            n => Some(Line::Change {
                n: number(n)?,
                change: Found {
                    seq: words.number()?,
                    what: what(words.next()?.0),
                    cause: words.text()?,
                    key: words.next()?.1,
                    cas: words.number()?,
                    origin: words.number()?.try_into().ok()?,
                },
            }),
        }
    }
}

fn what(word: &[u8]) -> What {
    match word {
        b"set" => What::Set,
        b"delete" => What::Delete,
        b"touch" => What::Touch,
        b"expire" => What::Expire,
        b"evict" => What::Evict,
        b"flush" => What::Flush,
        _ => What::Other,
    }
}

/// The first line: where the feed begins, and the node's clock, if it says so.
pub(super) fn head(line: &[u8]) -> Option<(Place, Option<u64>)> {
    let mut words = Words { line, at: 0 };
    if words.next()?.0 != b"FEED" {
        return None;
    }
    let place = Place {
        epoch: hex(words.next()?.0)?,
        seq: words.number()?,
    };
    let ms = match words.next() {
        Some((word, _)) => Some(number(word)?),
        None => None,
    };
    Some((place, ms))
}

/// Whom a word names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// The key whose bytes are in the room for them.
    InRoom,
    Hash(u64),
    All,
}

/// Reads the word for a key, its bytes to `room`.
pub(super) fn key(word: &[u8], form: Form, room: &mut Vec<u8>) -> Option<Named> {
    match form {
        _ if word == b"*" => Some(Named::All),
        Form::Hash if word.len() == 16 => hex(word).map(Named::Hash),
        Form::Hash => None,
        Form::Text => {
            room.clear();
            let mut rest = word;
            while let Some(plain) = memchr(b'%', rest) {
                room.extend_from_slice(&rest[..plain]);
                let digits = rest.get(plain + 1..plain + 3)?;
                room.push(hex(digits)? as u8);
                rest = &rest[plain + 3..];
            }
            room.extend_from_slice(rest);
            (!room.is_empty()).then_some(Named::InRoom)
        }
    }
}

/// A number in decimal.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then_some(())?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// A number of up to 16 digits in hex.
pub(super) fn hex(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    text.iter().try_fold(0_u64, |number, &byte| {
        let digit = char::from(byte).to_digit(16)?;
        Some(number << 4 | u64::from(digit))
    })
}
