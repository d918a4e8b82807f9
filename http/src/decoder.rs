//! Requests out of bytes that come in pieces of any size.
//!
//! D1. Whatever the pieces, the same bytes give the same events.
//! D2. It holds at most `head_bytes`, `body_bytes` and one line. A body longer than that is refused by what its head says,
//!     before a byte of it is taken.
//! D3. Each byte is looked at once for the end of the head, and once more when the head is whole: a head that comes byte by
//!     byte costs no more than one that comes at once.
//! D4. After a refusal it takes all bytes and gives no event.

use crate::chunks::Chunks;
use crate::head::{self, Framing};
use crate::request::Request;
use crate::response::Refusal;

/// What a peer may make a decoder hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of the request line and all headers.
    pub head_bytes: usize,
    /// Of a body, without its framing.
    pub body_bytes: usize,
}

/// What bytes have become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer waits for `HTTP/1.1 100 Continue` before it sends the body.
    Continue,
    /// A whole request.
    Request(Request),
    /// No request; to be answered, and the connection closed.
    Refused(Refusal),
}

/// What [`Decoder::feed`] did.
#[derive(Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input done with. The rest is to be fed again.
    pub consumed: usize,
    /// Without one, all of the input was taken and more is needed.
    pub event: Option<Event>,
}

#[derive(Debug)]
enum State {
    Head,
    /// A body of which so many bytes are missing.
    Body(Box<Request>, usize),
    Chunked(Box<Request>, Chunks),
    Refused,
}

/// The requests of one connection.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    head: Vec<u8>,
    state: State,
}

impl Decoder {
    /// Before the first byte.
    pub fn new(limits: Limits) -> Self {
        Decoder {
            limits,
            head: Vec::new(),
            state: State::Head,
        }
    }

    /// True between requests: nothing of the next one has come.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Head) && self.head.is_empty()
    }

    /// Takes bytes, up to the end of what makes an event.
    pub fn feed(&mut self, input: &[u8]) -> Fed {
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            let fed = match &mut self.state {
                State::Refused => return took(input.len(), None),
                State::Head => self.feed_head(rest),
                State::Body(request, left) => {
                    let n = rest.len().min(*left);
                    request.body.extend_from_slice(&rest[..n]);
                    *left -= n;
                    let done = *left == 0;
                    Ok((n, if done { self.complete() } else { None }))
                }
                State::Chunked(request, chunks) => {
                    let Limits {
                        head_bytes,
                        body_bytes,
                    } = self.limits;
                    match chunks.feed(rest, &mut request.body, body_bytes, head_bytes) {
                        Ok((n, true)) => Ok((n, self.complete())),
                        Ok((n, false)) => Ok((n, None)),
                        Err(refusal) => Err(refusal),
                    }
                }
            };
            match fed {
                Ok((n, None)) => at += n,
                Ok((n, event)) => return took(at + n, event),
                Err(refusal) => {
                    self.state = State::Refused;
                    self.head = Vec::new();
                    return took(input.len(), Some(Event::Refused(refusal)));
                }
            }
        }
        took(at, None)
    }

    fn complete(&mut self) -> Option<Event> {
        match std::mem::replace(&mut self.state, State::Head) {
            State::Body(request, _) | State::Chunked(request, _) => Some(Event::Request(*request)),
            State::Head | State::Refused => None,
        }
    }

    fn feed_head(&mut self, input: &[u8]) -> Result<(usize, Option<Event>), Refusal> {
        let mut input = input;
        let mut skipped = 0;
        if self.head.is_empty() {
            // RFC 9112, 2.2: line breaks before a request line are passed over.
            skipped = input
                .iter()
                .take_while(|&&byte| byte == b'\r' || byte == b'\n')
                .count();
            input = &input[skipped..];
        }
        let room = self.limits.head_bytes - self.head.len();
        let seen = self.head.len();
        let some = &input[..input.len().min(room)];
        self.head.extend_from_slice(some);
        let Some(end) = end_of_head(&self.head, seen) else {
            if some.len() < input.len() {
                return Err(Refusal::HeadTooLarge);
            }
            return Ok((skipped + some.len(), None));
        };
        let taken = skipped + end - seen;
        self.head.truncate(end);
        let head = head::parse(&self.head)?;
        // A long head's room is not kept for the next one.
        self.head = Vec::new();
        let needs_body = head.framing != Framing::Length(0);
        let request = Box::new(head.request);
        match head.framing {
            Framing::Length(0) => return Ok((taken, Some(Event::Request(*request)))),
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > self.limits.body_bytes {
                    return Err(Refusal::BodyTooLarge);
                }
                self.state = State::Body(request, length);
            }
            Framing::Chunked => self.state = State::Chunked(request, Chunks::new()),
        }
        let waits = head.expects_continue && needs_body;
        Ok((taken, waits.then_some(Event::Continue)))
    }
}

fn took(consumed: usize, event: Option<Event>) -> Fed {
    Fed { consumed, event }
}

/// Where the empty line ends, if it is there; bytes before `seen` were looked at before.
fn end_of_head(head: &[u8], seen: usize) -> Option<usize> {
    let mut at = seen;
    while let Some(found) = head[at..].iter().position(|&byte| byte == b'\n') {
        let end = at + found + 1;
        if head[..end].ends_with(b"\n\r\n") || head[..end].ends_with(b"\n\n") {
            return Some(end);
        }
        at = end;
    }
    None
}
