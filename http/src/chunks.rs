//! A body in chunks (RFC 9112, 7.1): `SIZE[;EXTENSION]\r\n BYTES \r\n`, until SIZE is 0, then trailers and an empty line.
//!
//! Ch1. A line, of a size or a trailer, is never longer than [`LINE_MAX`]; all trailers together are bounded by the head's
//!      limit. So what a peer can make the decoder hold besides the body is one line.

use crate::response::Refusal;

/// Bytes of a line.
const LINE_MAX: usize = 256;

#[derive(Debug)]
enum State {
    Size,
    Data(u64),
    /// The line break behind a chunk's bytes.
    DataEnd,
    Trailers,
}

/// Takes the framing off.
#[derive(Debug)]
pub(crate) struct Chunks {
    state: State,
    line: Vec<u8>,
    trailer_bytes: usize,
}

impl Chunks {
    pub fn new() -> Self {
        Chunks {
            state: State::Size,
            line: Vec::new(),
            trailer_bytes: 0,
        }
    }

    /// Takes what it can of `input` and adds the body's bytes to `body`. Gives the bytes taken, and whether the body is
    /// complete.
    pub fn feed(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        body_bytes_max: usize,
        trailer_bytes_max: usize,
    ) -> Result<(usize, bool), Refusal> {
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            if let State::Data(left) = &mut self.state {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                body.extend_from_slice(&rest[..n]);
                *left -= n as u64;
                at += n;
                if *left == 0 {
                    self.state = State::DataEnd;
                }
                continue;
            }
            let (n, whole) = self.take_line(rest)?;
            at += n;
            if !whole {
                break;
            }
            let line = std::mem::take(&mut self.line);
            match self.state {
                State::Size => {
                    let size = size(&line)?;
                    if size == 0 {
                        self.state = State::Trailers;
                    } else {
                        let room = (body_bytes_max - body.len()) as u64;
                        if size > room {
                            return Err(Refusal::BodyTooLarge);
                        }
                        self.state = State::Data(size);
                    }
                }
                State::DataEnd if line.is_empty() => self.state = State::Size,
                State::DataEnd => return Err(Refusal::Bad("a chunk is longer than it said")),
                State::Trailers if line.is_empty() => return Ok((at, true)),
                State::Trailers => {
                    self.trailer_bytes += line.len();
                    if self.trailer_bytes > trailer_bytes_max {
                        return Err(Refusal::HeadTooLarge);
                    }
                }
                State::Data(_) => unreachable!("taken above"),
            }
        }
        Ok((at, false))
    }

    /// Takes a line up to its line break, which is not kept; false if it is not whole yet.
    fn take_line(&mut self, input: &[u8]) -> Result<(usize, bool), Refusal> {
        let end = input.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(input.len(), |end| end + 1);
        if self.line.len() + taken > LINE_MAX {
            return Err(Refusal::Bad("a chunk's line is too long"));
        }
        self.line.extend_from_slice(&input[..taken]);
        if end.is_none() {
            return Ok((taken, false));
        }
        // A bare line feed is refused: proxies differ in what they make of it.
        if !self.line.ends_with(b"\r\n") {
            return Err(Refusal::Bad("a chunk's line must end with CR LF"));
        }
        self.line.truncate(self.line.len() - 2);
        if self.line.contains(&b'\r') {
            return Err(Refusal::Bad("a chunk's line must end with CR LF"));
        }
        Ok((taken, true))
    }
}

fn size(line: &[u8]) -> Result<u64, Refusal> {
    let bad = Refusal::Bad("a chunk must begin with its size");
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
    let digits = digits.trim_ascii_end();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(bad);
    }
    let text = str::from_utf8(digits).map_err(|_| bad)?;
    // More digits than a number has: longer than any limit.
    Ok(u64::from_str_radix(text, 16).unwrap_or(u64::MAX))
}
