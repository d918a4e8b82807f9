//! One HTTP connection: bytes in, requests answered in their order, bytes out.
//!
//! Co1. A request is read only when the replies before it were taken, up to [`OUT_MAX`]: who does not read gets no more.
//! Co2. A request has to come whole in [`REQUEST_MS`], and one more second for each [`BODY_BYTES_A_SECOND`] of its body. A
//!      reply, or a part of one, has to be taken in [`REPLY_MS`]. Between requests a connection may be quiet for
//!      [`IDLE_MS`].
//! Co3. After a refusal nothing is read as a request any more. What still comes is thrown away for a moment, so that the
//!      peer reads the answer before it hears of the end.

use std::io::ErrorKind;
use std::time::{SystemTime, UNIX_EPOCH};

use ketch_http::{Decoder, Event, Limits, Method, Request, Response, date};

use super::json;
use crate::net::Stream;

/// Bytes of replies that wait until no more requests are read.
const OUT_MAX: usize = 256 << 10;
const READ_BYTES: usize = 16 << 10;
/// Reads of a turn, so that one connection does not keep the thread.
const READS_A_TURN: usize = 64;
const REQUEST_MS: u64 = 10_000;
const BODY_BYTES_A_SECOND: u64 = 64 << 10;
const REPLY_MS: u64 = 20_000;
const IDLE_MS: u64 = 60_000;
/// How long, and how many bytes, a peer that is hung up on may still send.
const LINGER_MS: u64 = 2_000;
const LINGER_BYTES: usize = 4 << 20;

/// What becomes of a connection after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Wait,
    /// More has come than a turn takes.
    Again,
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// The last reply is written or on its way; so many bytes were thrown away.
    Ending {
        thrown: usize,
        told: bool,
    },
}

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    stream: Stream,
    decoder: Decoder,
    /// What was read and not looked at yet: requests behind one whose reply waits.
    input: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    phase: Phase,
    /// Bytes of the request in progress.
    request_bytes: u64,
    request_began_ms: u64,
    heard_ms: u64,
    out_moved_ms: u64,
    half_closed: bool,
}

impl Conn {
    pub fn new(stream: Stream, limits: Limits, now_ms: u64) -> Self {
        Conn {
            stream,
            decoder: Decoder::new(limits),
            input: Vec::new(),
            out: Vec::new(),
            sent: 0,
            phase: Phase::Serving,
            request_bytes: 0,
            request_began_ms: now_ms,
            heard_ms: now_ms,
            out_moved_ms: now_ms,
            half_closed: false,
        }
    }

    /// When anything came last.
    pub fn heard_ms(&self) -> u64 {
        self.heard_ms
    }

    /// Bytes it holds.
    pub fn held(&self) -> usize {
        self.input.capacity() + self.out.capacity() + self.request_bytes as usize
    }

    /// Reads, answers and writes as far as it goes.
    pub fn turn(&mut self, now_ms: u64, mut answer: impl FnMut(&Request) -> Response) -> Next {
        let mut buf = [0; READ_BYTES];
        for _ in 0..READS_A_TURN {
            if self.flush(now_ms).is_err() {
                return Next::Close;
            }
            if self.phase == Phase::Serving {
                self.requests(now_ms, &mut answer);
                if !self.input.is_empty() || self.pending() > 0 {
                    match self.flush(now_ms) {
                        Err(()) => return Next::Close,
                        // The peer takes no more; it goes on when the socket is writable.
                        Ok(()) if self.pending() > OUT_MAX || !self.input.is_empty() => {
                            if self.pending() > 0 {
                                return Next::Wait;
                            }
                            continue;
                        }
                        Ok(()) => {}
                    }
                }
            }
            if let Phase::Ending { told, .. } = &mut self.phase
                && self.out.is_empty()
                && !*told
            {
                *told = true;
                if self.stream.end().is_err() {
                    return Next::Close;
                }
            }
            if self.half_closed {
                return if self.pending() > 0 {
                    Next::Wait
                } else {
                    Next::Close
                };
            }
            let read = match self.phase {
                Phase::Serving => self.stream.read(&mut buf),
                Phase::Ending { .. } => self.stream.discard(&mut buf),
            };
            match read {
                Ok(0) => self.half_closed = true,
                Ok(n) => {
                    self.heard_ms = now_ms;
                    match &mut self.phase {
                        Phase::Serving => self.input.extend_from_slice(&buf[..n]),
                        Phase::Ending { thrown, .. } => {
                            *thrown += n;
                            if *thrown > LINGER_BYTES {
                                return Next::Close;
                            }
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.flush(now_ms).map_or(Next::Close, |()| Next::Wait);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Next::Close,
            }
        }
        Next::Again
    }

    fn pending(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Answers what has come, until replies wait.
    fn requests(&mut self, now_ms: u64, answer: &mut impl FnMut(&Request) -> Response) {
        let mut at = 0;
        while at < self.input.len() && self.pending() <= OUT_MAX && self.phase == Phase::Serving {
            if self.decoder.is_idle() {
                self.request_began_ms = now_ms;
                self.request_bytes = 0;
            }
            let fed = self.decoder.feed(&self.input[at..]);
            at += fed.consumed;
            self.request_bytes += fed.consumed as u64;
            match fed.event {
                None => {}
                Some(Event::Continue) => {
                    self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                Some(Event::Request(request)) => {
                    self.request_bytes = 0;
                    let response = answer(&request);
                    let head_only = request.method == Method::Head;
                    self.reply(&response, head_only, !request.keep_alive);
                }
                Some(Event::Refused(refusal)) => {
                    let response = json::error(refusal.status(), refusal.reason());
                    self.reply(&response, false, true);
                }
            }
        }
        self.input.drain(..at);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
    }

    fn reply(&mut self, response: &Response, head_only: bool, close: bool) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let date = date(unix.unwrap_or_default().as_secs());
        response.write(head_only, close, &date, &mut self.out);
        if close {
            self.phase = Phase::Ending {
                thrown: 0,
                told: false,
            };
        }
    }

    /// Sends what the socket takes.
    fn flush(&mut self, now_ms: u64) -> Result<(), ()> {
        if self.sent == self.out.len() {
            self.out_moved_ms = now_ms;
        }
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(()),
                Ok(n) => {
                    self.sent += n;
                    self.out_moved_ms = now_ms;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(()),
            }
        }
        if self.sent == self.out.len() && self.sent > 0 {
            self.out = Vec::new();
            self.sent = 0;
        }
        self.stream.flush().map(|_| ()).map_err(|_| ())
    }

    /// Whether its time is over.
    pub fn is_late(&self, now_ms: u64) -> bool {
        let since = |then: u64| now_ms.saturating_sub(then);
        if self.pending() > 0 || self.stream.has_unsent() {
            return since(self.out_moved_ms) > REPLY_MS;
        }
        match self.phase {
            Phase::Ending { .. } => since(self.out_moved_ms) > LINGER_MS,
            Phase::Serving if self.decoder.is_idle() && !self.stream.is_handshaking() => {
                since(self.heard_ms) > IDLE_MS
            }
            Phase::Serving => {
                let body_ms = self.request_bytes * 1000 / BODY_BYTES_A_SECOND;
                since(self.request_began_ms) > REQUEST_MS + body_ms
            }
        }
    }

    /// Says to a peer whose request did not come whole why it ends, if the socket takes it.
    pub fn tell_late(&mut self) {
        if self.phase == Phase::Serving && !self.decoder.is_idle() && self.pending() == 0 {
            let response = json::error(408, "the request did not come whole in time");
            self.reply(&response, false, true);
            let _ = self.flush(0);
        }
    }
}
