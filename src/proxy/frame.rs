//! Where a node's reply ends, without looking at more of it than that takes.
//!
//! Fr1. The same bytes give the same end, however they were cut into reads: what was looked at is not looked at again.
//! Fr2. What is no reply of the kind that was asked for is [`Garbage`]: whoever sees it closes the connection.

use protocol::ITEM_LEN_MAX;
use protocol::binary::{HEADER_LEN, MAGIC_REPLY};

/// The longest line of a reply, in bytes: meta replies give opaque and key back, statistics are the longest.
const LINE_LEN_MAX: usize = 8 << 10;

/// What a reply looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One line.
    Line,
    /// `VALUE` with its block, any number of times, and `END`; or one line of refusal.
    Values,
    /// One line, and a block if it is `VA`.
    Meta,
    /// One line, and a block if it is `VA` or `VALUE`: one reply of an exchange of the client's core.
    Any,
    /// A packet.
    Packet,
}

/// The stream of a node makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbage;

/// A `VALUE` in a reply: its bytes, line and block, from the reply's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Where its line begins.
    pub start: u32,
    /// Where its block ends.
    pub end: u32,
    /// Its key's [`mark`].
    pub mark: u32,
}

/// How far a reply was looked at.
#[derive(Debug, Default)]
pub struct Progress {
    at: usize,
    /// Bytes that the reply has at least.
    pub wanted: usize,
    /// Of [`Shape::Values`].
    pub blocks: Vec<Block>,
}

impl Progress {
    pub(super) fn reset(&mut self) {
        (self.at, self.wanted) = (0, 0);
        self.blocks.clear();
    }
}

/// Tells keys apart, as well as 32 bits can.
#[inline]
pub(super) fn mark(key: &[u8]) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut mark = key.len() as u64;
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        let chunk = u64::from_le_bytes(chunk.try_into().expect("chunks are of this size"));
        mark = (mark ^ chunk).wrapping_mul(K);
        mark ^= mark >> 29;
    }
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    mark = (mark ^ u64::from_le_bytes(last)).wrapping_mul(K);
    (mark >> 32) as u32
}

/// Where the reply at the start of `buf` ends, if all of it is there.
#[inline]
pub fn end(shape: Shape, buf: &[u8], progress: &mut Progress) -> Result<Option<usize>, Garbage> {
    match shape {
        Shape::Line => {
            let Some(line) = line(buf, 0)? else {
                return Ok(None);
            };
            match is_word_of_classic(line) {
                true => Ok(Some(line.len() + 2)),
                false => Err(Garbage),
            }
        }
        Shape::Values => values(buf, progress),
        Shape::Meta | Shape::Any => {
            let Some(line) = line(buf, 0)? else {
                return Ok(None);
            };
            let len = match line {
                [b'V', b'A', b' ', rest @ ..] => number(word(rest).0)?,
                [b'V', b'A', b'L', b'U', b'E', b' ', rest @ ..] if shape == Shape::Any => {
                    number(word(word(word(rest).1).1).0)?
                }
                _ if shape == Shape::Any || is_word_of_meta(line) => {
                    return Ok(Some(line.len() + 2));
                }
                _ => return Err(Garbage),
            };
            block(buf, line.len() + 2, len, progress)
        }
        Shape::Packet => {
            let Some(header) = buf.first_chunk::<HEADER_LEN>() else {
                let good = buf.first().is_none_or(|&first| first == MAGIC_REPLY);
                return if good { Ok(None) } else { Err(Garbage) };
            };
            let body = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
            if header[0] != MAGIC_REPLY || body > ITEM_LEN_MAX {
                return Err(Garbage);
            }
            let len = HEADER_LEN + body as usize;
            progress.wanted = len;
            Ok((buf.len() >= len).then_some(len))
        }
    }
}

fn values(buf: &[u8], progress: &mut Progress) -> Result<Option<usize>, Garbage> {
    loop {
        let start = progress.at;
        let Some(line) = line(buf, start)? else {
            return Ok(None);
        };
        let behind = start + line.len() + 2;
        let Some(rest) = line.strip_prefix(b"VALUE ") else {
            return match line {
                b"END" => Ok(Some(behind)),
                // Whose an error is tells only where it stands.
                _ if is_refusal(line) && start == 0 => Ok(Some(behind)),
                _ => Err(Garbage),
            };
        };
        let (key, rest) = word(rest);
        let len = number(word(word(rest).1).0)?;
        let Some(end) = block(buf, behind, len, progress)? else {
            return Ok(None);
        };
        progress.blocks.push(Block {
            start: start as u32,
            end: end as u32,
            mark: mark(key),
        });
        progress.at = end;
    }
}

/// True for what ends a classic command of one reply, and for `me`.
#[inline]
fn is_word_of_classic(line: &[u8]) -> bool {
    match line {
        b"STORED" | b"NOT_STORED" | b"EXISTS" | b"NOT_FOUND" | b"DELETED" | b"TOUCHED" | b"OK"
        | b"EN" => true,
        [b'M', b'E', b' ', ..] => true,
        // Numbers that were counted down may have blanks behind them.
        [b'0'..=b'9', rest @ ..] => {
            let digits = rest
                .iter()
                .all(|byte| byte.is_ascii_digit() || *byte == b' ');
            digits && line.len() <= 20
        }
        _ => is_refusal(line),
    }
}

/// True for a meta reply without a value.
#[inline]
fn is_word_of_meta(line: &[u8]) -> bool {
    let code = matches!(line.get(..2), Some(b"HD" | b"EN" | b"NF" | b"NS" | b"EX"));
    (code && matches!(line.get(2), None | Some(b' '))) || is_refusal(line)
}

/// True for a line that refuses a request.
pub(super) fn is_refusal(line: &[u8]) -> bool {
    line.starts_with(b"SERVER_ERROR") || line.starts_with(b"CLIENT_ERROR") || line == b"ERROR"
}

/// The end of the block of `len` bytes at `at`, with its line end.
fn block(
    buf: &[u8],
    at: usize,
    len: usize,
    progress: &mut Progress,
) -> Result<Option<usize>, Garbage> {
    if len > ITEM_LEN_MAX as usize {
        return Err(Garbage);
    }
    let end = at + len + 2;
    progress.wanted = end;
    if buf.len() < end {
        return Ok(None);
    }
    match &buf[end - 2..end] == b"\r\n" {
        true => Ok(Some(end)),
        false => Err(Garbage),
    }
}

/// The line at `at`, without its end, if that is there.
#[inline]
fn line(buf: &[u8], at: usize) -> Result<Option<&[u8]>, Garbage> {
    let rest = &buf[at..];
    let Some(len) = protocol::text::line_len(&rest[..rest.len().min(LINE_LEN_MAX)]) else {
        return if rest.len() < LINE_LEN_MAX {
            Ok(None)
        } else {
            Err(Garbage)
        };
    };
    let line = rest[..len - 1].strip_suffix(b"\r").ok_or(Garbage)?;
    // Codes are capitals, numbers are digits.
    match line.first() {
        Some(b'A'..=b'Z' | b'0'..=b'9') => Ok(Some(line)),
        _ => Err(Garbage),
    }
}

#[inline]
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|&byte| byte == b' ') {
        Some(space) => (&text[..space], &text[space + 1..]),
        None => (text, b""),
    }
}

fn number(text: &[u8]) -> Result<usize, Garbage> {
    if text.is_empty() || text.len() > 10 {
        return Err(Garbage);
    }
    text.iter().try_fold(0, |number, &byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit <= 9)
            .then(|| number * 10 + usize::from(digit))
            .ok_or(Garbage)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_where_it_ends_however_it_was_cut() {
        let packet = [
            &[MAGIC_REPLY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2][..],
            &[0; 14],
        ]
        .concat();
        for (shape, reply) in [
            (Shape::Line, &b"STORED\r\n"[..]),
            (Shape::Line, b"SERVER_ERROR out of memory\r\n"),
            (Shape::Line, b"18446744073709551615\r\n"),
            (Shape::Values, b"END\r\n"),
            (Shape::Values, b"SERVER_ERROR busy\r\n"),
            (Shape::Values, b"VALUE a 0 3\r\nEND\r\nEND\r\n"),
            (
                Shape::Values,
                b"VALUE a 0 3 7\r\nabc\r\nVALUE bb 4 0\r\n\r\nEND\r\n",
            ),
            (Shape::Meta, b"HD O1\r\n"),
            (Shape::Meta, b"VA 2 k1\r\n\r\n\r\n"),
            (Shape::Any, b"VALUE k 1 2\r\n\r\n\r\n"),
            (Shape::Any, b"MN\r\n"),
            (Shape::Packet, &packet),
        ] {
            let mut progress = Progress::default();
            for cut in 0..reply.len() {
                let end = end(shape, &reply[..cut], &mut progress);
                assert_eq!(end, Ok(None), "{shape:?} {cut} of {}", reply.escape_ascii());
            }
            let more = [reply, b"VALUE next"].concat();
            assert_eq!(end(shape, &more, &mut progress), Ok(Some(reply.len())));
        }
    }

    #[test]
    fn garbage_is_no_reply() {
        for (shape, garbage) in [
            (Shape::Line, &b"stored\r\n"[..]),
            (Shape::Line, b"STORED\n"),
            (Shape::Line, b"\r\n"),
            (Shape::Line, b"HTTP/1.1 400 Bad Request\r\n"),
            (Shape::Line, b"12345678901234567890123\r\n"),
            (Shape::Meta, b"STORED\r\n"),
            (Shape::Meta, b"HDx\r\n"),
            (Shape::Line, b"VALUE a 0 1\r\nx\r\nEND\r\n"),
            (Shape::Line, b"VA 1\r\nx\r\n"),
            (Shape::Line, &[b'A'; LINE_LEN_MAX]),
            (Shape::Values, b"STORED\r\n"),
            (Shape::Values, b"VALUE a 0 1\r\nxx\r\n"),
            (Shape::Values, b"VALUE a 0 -1\r\n"),
            (Shape::Values, b"VALUE a 0\r\n"),
            (Shape::Values, b"VALUE a 0 99999999999\r\n"),
            (Shape::Values, b"VALUE a 0 1\r\nx\r\nERROR\r\n"),
            (Shape::Meta, b"VALUE a 0 1\r\nx\r\n"),
            (Shape::Meta, b"VA x\r\n"),
            (Shape::Packet, b"END\r\n"),
            (Shape::Packet, &[0x80; 24]),
            (Shape::Packet, &[MAGIC_REPLY; 24]),
        ] {
            let end = end(shape, garbage, &mut Progress::default());
            assert_eq!(end, Err(Garbage), "{shape:?} {}", garbage.escape_ascii());
        }
    }
}
