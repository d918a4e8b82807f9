//! One client connection: bytes out, bytes in, each read with a deadline.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// A connected client. Bytes that were received and not yet asked for stay in `received`.
pub struct Conn {
    stream: Stream,
    received: Vec<u8>,
    peer: String,
    /// What the test is at; shown when it fails.
    pub note: String,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Why no more bytes came.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stop {
    TimedOut,
    Closed,
    Reset,
}

/// What a pattern says of the bytes so far.
enum Match {
    /// The pattern is used up after this many bytes.
    Complete(usize),
    /// Right as far as it goes.
    NeedMore,
    /// Byte number such does not fit.
    Differs(usize),
}

impl Conn {
    /// Wraps a connected TCP socket; `peer` names it in failures.
    pub fn tcp(stream: TcpStream, peer: &str) -> Conn {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("read timeout");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("write timeout");
        Conn {
            stream: Stream::Tcp(stream),
            received: Vec::new(),
            peer: peer.to_string(),
            note: String::new(),
        }
    }

    /// Wraps a connected unix socket.
    pub fn unix(stream: UnixStream, peer: &str) -> Conn {
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("read timeout");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("write timeout");
        Conn {
            stream: Stream::Unix(stream),
            received: Vec::new(),
            peer: peer.to_string(),
            note: String::new(),
        }
    }

    /// A second handle on the same socket, for a thread that only writes. It has received nothing.
    pub fn clone_for_writing(&self) -> Conn {
        let stream = match &self.stream {
            Stream::Tcp(s) => Stream::Tcp(s.try_clone().expect("clone of a socket")),
            Stream::Unix(s) => Stream::Unix(s.try_clone().expect("clone of a socket")),
        };
        Conn {
            stream,
            received: Vec::new(),
            peer: self.peer.clone(),
            note: self.note.clone(),
        }
    }

    /// The longest that one read may take from here on.
    pub fn set_patience(&mut self, patience: Duration) {
        match &self.stream {
            Stream::Tcp(s) => s.set_read_timeout(Some(patience)),
            Stream::Unix(s) => s.set_read_timeout(Some(patience)),
        }
        .expect("read timeout");
    }

    /// Writes all of `bytes`.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.try_send(bytes) {
            panic!("{}: write failed: {error}", self.peer);
        }
    }

    /// Writes all of `bytes`, or says why the peer did not take them.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let stream: &mut dyn Write = match &mut self.stream {
            Stream::Tcp(s) => s,
            Stream::Unix(s) => s,
        };
        stream.write_all(bytes.as_ref())?;
        stream.flush()
    }

    /// Tells the server that no more will be sent; its answers can still be read.
    pub fn end_of_input(&mut self) {
        let result = match &self.stream {
            Stream::Tcp(s) => s.shutdown(Shutdown::Write),
            Stream::Unix(s) => s.shutdown(Shutdown::Write),
        };
        // The server may have hung up first.
        if let Err(error) = result {
            assert_eq!(error.kind(), io::ErrorKind::NotConnected, "{error}");
        }
    }

    /// Waits until exactly `reply` has come; anything else fails with both sides shown.
    #[track_caller]
    pub fn expect(&mut self, reply: impl AsRef<[u8]>) {
        let want = reply.as_ref();
        loop {
            let have = self.received.len().min(want.len());
            if self.received[..have] != want[..have] {
                let at = (0..have)
                    .find(|&i| self.received[i] != want[i])
                    .expect("they differ");
                self.fail(want, at, "differs");
            }
            if have == want.len() {
                self.received.drain(..have);
                return;
            }
            if let Err(stop) = self.fill() {
                self.fail(want, have, &format!("{stop:?}"));
            }
        }
    }

    /// As [`Conn::expect`], with three signs in `pattern`: `{n}` is a decimal number, `{*}` the rest of a line, and
    /// `{100}` is 100 or 99, for seconds that may have turned on the way.
    #[track_caller]
    pub fn expect_like(&mut self, pattern: &str) {
        loop {
            match matches(pattern.as_bytes(), &self.received) {
                Match::Complete(used) => {
                    self.received.drain(..used);
                    return;
                }
                Match::Differs(at) => self.fail(pattern.as_bytes(), at, "differs"),
                Match::NeedMore => {
                    if let Err(stop) = self.fill() {
                        self.fail(
                            pattern.as_bytes(),
                            self.received.len(),
                            &format!("{stop:?}"),
                        );
                    }
                }
            }
        }
    }

    /// Sends `request` and expects exactly `reply`.
    #[track_caller]
    pub fn round(&mut self, request: impl AsRef<[u8]>, reply: impl AsRef<[u8]>) {
        self.send(request);
        self.expect(reply);
    }

    /// Sends `request` and expects a reply as `pattern` has it.
    #[track_caller]
    pub fn round_like(&mut self, request: impl AsRef<[u8]>, pattern: &str) {
        self.send(request);
        self.expect_like(pattern);
    }

    /// Neither a byte nor a hang-up has come so far.
    pub fn is_quiet(&self) -> bool {
        let Stream::Tcp(stream) = &self.stream else {
            panic!("for TCP only")
        };
        stream.set_nonblocking(true).expect("non-blocking");
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("blocking");
        self.received.is_empty() && peeked.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Cuts the connection with a reset instead of a proper end.
    pub fn cut(self) {
        let Stream::Tcp(stream) = &self.stream else {
            panic!("for TCP only")
        };
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // SAFETY: the socket is open, and the option's value is the struct whose size is given.
        let result = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "SO_LINGER");
    }

    /// Nothing is on its way: the next reply is that of a no-op.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.round("mn\r\n", "MN\r\n");
    }

    /// The next line, without its line end.
    #[track_caller]
    pub fn expect_line(&mut self) -> String {
        let line = self.read_until(b"\r\n");
        String::from_utf8_lossy(&line[..line.len() - 2]).into_owned()
    }

    /// The next line, without its line end; none if the server is gone.
    pub fn try_line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.received, b"\r\n") {
                let line: Vec<u8> = self.received.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill().ok()?;
        }
    }

    /// Sends one command that is answered by one line.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> String {
        self.send(request);
        self.expect_line()
    }

    /// Everything up to and with the first `end`.
    #[track_caller]
    pub fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.received[searched..], end) {
                return self.received.drain(..searched + at + end.len()).collect();
            }
            searched = self.received.len().saturating_sub(end.len() - 1);
            if let Err(stop) = self.fill() {
                self.fail(end, 0, &format!("{stop:?} before these bytes came"));
            }
        }
    }

    /// The next `count` bytes.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            if let Err(stop) = self.fill() {
                let have = self.received.len();
                self.fail(
                    format!("<{count} bytes>").as_bytes(),
                    have,
                    &format!("{stop:?}"),
                );
            }
        }
        self.received.drain(..count).collect()
    }

    /// The next `count` bytes; none if the server is gone.
    pub fn try_take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.received.len() < count {
            self.fill().ok()?;
        }
        Some(self.received.drain(..count).collect())
    }

    /// Expects that the server hangs up without another byte.
    #[track_caller]
    pub fn closed(&mut self) {
        loop {
            if !self.received.is_empty() {
                self.fail(b"<connection closed>", 0, "differs");
            }
            match self.fill() {
                Ok(()) => {}
                Err(Stop::Closed | Stop::Reset) => return,
                Err(Stop::TimedOut) => self.fail(b"<connection closed>", 0, "still open"),
            }
        }
    }

    /// As [`Conn::closed`], by a proper end: a reset might have overtaken what was sent before.
    #[track_caller]
    pub fn ended(&mut self) {
        while self.received.is_empty() {
            match self.fill() {
                Ok(()) => {}
                Err(Stop::Closed) => return,
                Err(stop) => self.fail(b"<connection ended>", 0, &format!("{stop:?}")),
            }
        }
        self.fail(b"<connection ended>", 0, "differs");
    }

    /// All that comes until the server hangs up.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(Stop::Closed | Stop::Reset) => return std::mem::take(&mut self.received),
                Err(Stop::TimedOut) => self.fail(b"<connection closed>", 0, "still open"),
            }
        }
    }

    /// The value of `key`, by a `get`.
    #[track_caller]
    pub fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        self.send(format!("get {key}\r\n"));
        let line = self.expect_line();
        if line == "END" {
            return None;
        }
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(
            (words[0], words[1], words.len()),
            ("VALUE", key, 4),
            "{line}"
        );
        let value = self.take(words[3].parse().expect("a length"));
        self.expect("\r\nEND\r\n");
        Some(value)
    }

    /// Stores `value` with a `set`; the answer's line.
    #[track_caller]
    pub fn set(&mut self, key: &str, value: &[u8]) -> String {
        self.send(
            [
                format!("set {key} 0 0 {}\r\n", value.len()).as_bytes(),
                value,
                b"\r\n",
            ]
            .concat(),
        );
        self.expect_line()
    }

    /// The CAS unique of `key`, by a `gets`; the item must be there.
    #[track_caller]
    pub fn cas_of(&mut self, key: &str) -> u64 {
        self.send(format!("gets {key}\r\n"));
        let line = self.expect_line();
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!((words[0], words.len()), ("VALUE", 5), "{key}: {line}");
        self.take(words[3].parse::<usize>().expect("a length"));
        self.expect("\r\nEND\r\n");
        words[4].parse().expect("a CAS unique")
    }

    /// The lines of `stats GROUP` (`""` for the plain one).
    #[track_caller]
    pub fn stats(&mut self, group: &str) -> BTreeMap<String, String> {
        self.send(format!("stats {group}").trim_end().to_string() + "\r\n");
        let mut stats = BTreeMap::new();
        loop {
            let line = self.expect_line();
            if line == "END" {
                return stats;
            }
            let rest = line.strip_prefix("STAT ");
            let rest = rest.unwrap_or_else(|| panic!("stats {group}: not a STAT line: {line}"));
            let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
            stats.insert(key.to_string(), value.to_string());
        }
    }

    /// One number of `stats`.
    #[track_caller]
    pub fn stat(&mut self, key: &str) -> u64 {
        let stats = self.stats("");
        let value = stats
            .get(key)
            .unwrap_or_else(|| panic!("stats has no {key}"));
        value
            .parse()
            .unwrap_or_else(|_| panic!("{key} is no number: {value}"))
    }

    /// Waits for more bytes.
    fn fill(&mut self) -> Result<(), Stop> {
        let mut chunk = [0; 64 * 1024];
        let stream: &mut dyn Read = match &mut self.stream {
            Stream::Tcp(s) => s,
            Stream::Unix(s) => s,
        };
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => return Err(Stop::Closed),
                Ok(count) => {
                    self.received.extend_from_slice(&chunk[..count]);
                    return Ok(());
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        return Err(Stop::TimedOut);
                    }
                    _ => return Err(Stop::Reset),
                },
            }
        }
    }

    /// Shows both sides around the first byte that differs.
    #[track_caller]
    fn fail(&mut self, want: &[u8], at: usize, why: &str) -> ! {
        // What else is on its way makes the message clearer; nothing depends on it.
        self.set_patience(Duration::from_millis(50));
        let until = Instant::now() + Duration::from_millis(300);
        while self.received.len() < want.len() + 200 && Instant::now() < until {
            if self.fill().is_err() {
                break;
            }
        }
        panic!(
            "{}: {why} at byte {at}{}{}\n  want: {}\n   got: {}",
            self.peer,
            if self.note.is_empty() { "" } else { ", " },
            self.note,
            around(want, at),
            around(&self.received, at)
        );
    }
}

/// `bytes` as one printable line.
pub fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// A window of some hundred bytes that holds byte `at`.
fn around(bytes: &[u8], at: usize) -> String {
    let from = at.saturating_sub(200).min(bytes.len());
    let to = bytes.len().min(at + 400);
    let head = if from > 0 {
        format!("[{from} bytes] ")
    } else {
        String::new()
    };
    let tail = if to < bytes.len() {
        format!(" [{} bytes]", bytes.len() - to)
    } else {
        String::new()
    };
    format!("{head}{}{tail}", escape(&bytes[from..to]))
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len())
        .position(|window| window == needle)
}

/// Compares `bytes` with a pattern of plain bytes and the signs of [`Conn::expect_like`].
fn matches(pattern: &[u8], bytes: &[u8]) -> Match {
    let (mut p, mut b) = (0, 0);
    while p < pattern.len() {
        if let Some((len, seconds)) = number_sign(&pattern[p..]) {
            let digits = bytes[b..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            if b + digits == bytes.len() {
                return Match::NeedMore;
            }
            let number = std::str::from_utf8(&bytes[b..b + digits])
                .ok()
                .and_then(|n| n.parse().ok());
            let fits = number.is_some_and(|n: u64| seconds.is_none_or(|s| n == s || n + 1 == s));
            if !fits {
                return Match::Differs(b);
            }
            (p, b) = (p + len, b + digits);
        } else if pattern[p..].starts_with(b"{*}") {
            let Some(rest) = find(&bytes[b..], b"\r\n") else {
                return Match::NeedMore;
            };
            (p, b) = (p + 3, b + rest);
        } else if b == bytes.len() {
            return Match::NeedMore;
        } else if pattern[p] != bytes[b] {
            return Match::Differs(b);
        } else {
            (p, b) = (p + 1, b + 1);
        }
    }
    Match::Complete(b)
}

/// `{n}` or `{100}` at the start of `pattern`: its length, and the number if it has one.
fn number_sign(pattern: &[u8]) -> Option<(usize, Option<u64>)> {
    let inner = pattern.strip_prefix(b"{")?;
    let end = inner.iter().position(|&byte| byte == b'}')?;
    match &inner[..end] {
        b"n" => Some((3, None)),
        digits => {
            let seconds = std::str::from_utf8(digits).ok()?.parse().ok()?;
            Some((end + 2, Some(seconds)))
        }
    }
}
