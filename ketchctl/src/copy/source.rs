//! A connection to a node that is copied from: the list of its keys, and their items.
//!
//! The client crate has no word for either, as both are for tools only.
//!
//! Whoever reads a stale item with `mg` first is told to compute it anew, and everybody after it that this is being done. No
//! flag keeps a reader from winning so, and classic `get` does not tell that an item is stale. So what was won by reading is
//! given back: `md` with `I` makes the item as stale as it was, and the next reader wins.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ketch_client::Node;

use super::batch::{Batch, Listed, put_command};
use crate::access::Access;

/// A source that lists its keys may look at many expired ones before the next line.
const LIST_PATIENCE: Duration = Duration::from_secs(60);
/// The longest line, in bytes: a key with every byte encoded is below 1000.
const LINE_LEN_MAX: u64 = 8 * 1024;
/// The ways through the items. A walk along the LRU may miss what is moved in it meanwhile, but older memcached knows no other.
const HASH: &str = "hash";
const ALL: &str = "all";
/// The largest value, in bytes.
const VALUE_LEN_MAX: usize = 1 << 30;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// See the module. After an error it is of no use any more.
pub struct Source {
    stream: BufReader<Box<dyn Stream>>,
    line: Vec<u8>,
    way: &'static str,
    /// What our own changes are marked with, if they are to be told from others in a feed.
    origin: Option<u16>,
}

/// What a source has for a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Item {
        value: Vec<u8>,
        flags: u32,
        ttl: Option<Duration>,
        /// Its CAS unique.
        cas: u64,
    },
    /// Not any more, or not for another second.
    Gone,
    /// Stale, or a placeholder of a lease: what a copy would make of it is a value like any other.
    Unfinished,
    /// Its words.
    Refused(String),
}

/// The next of a list.
pub enum Line {
    Key(Listed),
    /// Another list is being made: try again later.
    Busy,
    End,
}

impl Source {
    /// Connects to `node`, and logs in if it is to.
    pub fn connect(node: &Node, access: &Access, list: bool) -> io::Result<Source> {
        if let Some(path) = node.socket_path() {
            let socket = UnixStream::connect(path)?;
            socket.set_read_timeout(Some(access.timeout))?;
            socket.set_write_timeout(Some(access.timeout))?;
            let handle = socket.try_clone()?;
            // On a unix socket there is no TLS.
            let source = Source::on(Box::new(socket), access)?;
            if list {
                handle.set_read_timeout(Some(LIST_PATIENCE))?;
            }
            return Ok(source);
        }
        let mut last = io::Error::other("the name has no address");
        for addr in (node.host.as_str(), node.port).to_socket_addrs()? {
            let socket = match TcpStream::connect_timeout(&addr, access.timeout) {
                Ok(socket) => socket,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            socket.set_read_timeout(Some(access.timeout))?;
            socket.set_write_timeout(Some(access.timeout))?;
            socket.set_nodelay(true)?;
            let handle = socket.try_clone()?;
            let source = Source::on(with_tls(socket, node, access)?, access)?;
            if list {
                handle.set_read_timeout(Some(LIST_PATIENCE))?;
            }
            return Ok(source);
        }
        Err(last)
    }

    fn on(stream: Box<dyn Stream>, access: &Access) -> io::Result<Source> {
        let mut source = Source {
            stream: BufReader::with_capacity(64 * 1024, stream),
            line: Vec::new(),
            way: HASH,
            origin: None,
        };
        source.log_in(access)?;
        // Whether anybody is there, and speaks meta, is known soon; a list may take its time.
        source.send(b"mn\r\n")?;
        match source.read_line()? {
            b"MN" => Ok(source),
            line => Err(refused(line)),
        }
    }

    fn log_in(&mut self, access: &Access) -> io::Result<()> {
        let Some((user, password)) = &access.login else {
            return Ok(());
        };
        let len = user.len() + 1 + password.len();
        self.send(format!("set auth 0 0 {len}\r\n{user} {password}\r\n").as_bytes())?;
        match self.read_line()? {
            b"STORED" => Ok(()),
            _ => Err(io::Error::other("the login failed")),
        }
    }

    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(request)?;
        stream.flush()
    }

    /// The next line, without its end.
    fn read_line(&mut self) -> io::Result<&[u8]> {
        self.line.clear();
        let mut limited = (&mut self.stream).take(LINE_LEN_MAX);
        limited.read_until(b'\n', &mut self.line)?;
        match self.line.strip_suffix(b"\n") {
            Some(line) => Ok(line.strip_suffix(b"\r").unwrap_or(line)),
            None if self.line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            None => Err(garbage(&self.line)),
        }
    }

    /// From now on what we change there is marked with `origin`, by which readers of its feed know it.
    pub fn mark(mut self, origin: u16) -> Source {
        self.origin = Some(origin);
        self
    }

    /// What it answers to a command of one line.
    pub fn ask(&mut self, command: &str) -> io::Result<String> {
        self.send(format!("{command}\r\n").as_bytes())?;
        self.next_line()
    }

    /// Its next line.
    pub fn next_line(&mut self) -> io::Result<String> {
        let line = self.read_line()?;
        Ok(String::from_utf8_lossy(line).into_owned())
    }

    /// The replies to `count` requests, a line each.
    pub fn round(&mut self, requests: &[u8], count: usize) -> io::Result<Vec<String>> {
        self.send(requests)?;
        (0..count).map(|_| self.next_line()).collect()
    }

    /// Asks for the list of keys, which [`next`](Self::next) reads.
    pub fn list(&mut self) -> io::Result<()> {
        self.send(format!("lru_crawler metadump {}\r\n", self.way).as_bytes())
    }

    /// The next line of the list.
    pub fn next(&mut self) -> io::Result<Line> {
        loop {
            let way = self.way;
            let line = self.read_line()?;
            if line.starts_with(b"key=") {
                return match Listed::parse(line) {
                    Some(listed) => Ok(Line::Key(listed)),
                    None => Err(garbage(line)),
                };
            }
            match line {
                b"END" => return Ok(Line::End),
                // Newer memcached begins with it.
                b"OK" => continue,
                _ if line.starts_with(b"BUSY") => return Ok(Line::Busy),
                _ if line.starts_with(b"BADCLASS") && way == HASH => {}
                _ => return Err(refused(line)),
            }
            self.way = ALL;
            self.list()?;
        }
    }

    /// Sends quiet meta requests, in one go, and waits until they are carried out; gives how many the node has refused with an error.
    /// They have no other replies to speak of, so they may be more than a socket takes: the node reads on.
    pub fn tell(&mut self, requests: &mut Vec<u8>) -> io::Result<usize> {
        requests.extend_from_slice(b"mn\r\n");
        self.send(requests)?;
        let mut refused = 0;
        loop {
            match self.read_line()? {
                b"MN" => return Ok(refused),
                line if line.starts_with(b"ERROR")
                    || line.starts_with(b"CLIENT_ERROR")
                    || line.starts_with(b"SERVER_ERROR") =>
                {
                    refused += 1;
                }
                _ => {}
            }
        }
    }

    /// What the source has for each key of `batch`.
    pub fn fetch(&mut self, batch: &Batch) -> io::Result<Vec<Found>> {
        self.send(&batch.request)?;
        let mut won = Vec::new();
        let mut count = 0;
        let found = batch.keys.iter().enumerate().map(|(at, key)| {
            let (found, cas) = self.found(at)?;
            if let Some(cas) = cas {
                // Not if it has changed since: then it is not stale any more.
                let origin = self
                    .origin
                    .map_or(String::new(), |origin| format!(" L{origin}"));
                put_command(&mut won, "md", key, &format!("I C{cas}{origin}"));
                count += 1;
            }
            Ok(found)
        });
        let found = found.collect::<io::Result<_>>()?;
        if count > 0 {
            self.send(&won)?;
            for _ in 0..count {
                let line = self.read_line()?;
                if !matches!(line, b"HD" | b"EX" | b"NF") {
                    return Err(refused(line));
                }
            }
        }
        Ok(found)
    }

    /// The next reply, which is for the key with this index; and the CAS unique of what was won by asking.
    fn found(&mut self, at: usize) -> io::Result<(Found, Option<u64>)> {
        let line = self.read_line()?;
        // Newer servers repeat the opaque behind it.
        if line == b"EN" || line.starts_with(b"EN ") {
            return Ok((Found::Gone, None));
        }
        if line.starts_with(b"SERVER_ERROR") || line.starts_with(b"CLIENT_ERROR") {
            let words = String::from_utf8_lossy(line).into_owned();
            return Ok((Found::Refused(words), None));
        }
        let Some(head) = Head::parse(line, at) else {
            return Err(refused(line));
        };
        let mut value = vec![0; head.len + 2];
        self.stream.read_exact(&mut value)?;
        if !value.ends_with(b"\r\n") {
            return Err(garbage(&[]));
        }
        value.truncate(head.len);
        let won = head.won.then_some(head.cas);
        let found = match (head.leased, head.ttl) {
            (true, _) => Found::Unfinished,
            // As a time to live, 0 would be for ever.
            (false, 0) => Found::Gone,
            (false, ttl) => Found::Item {
                value,
                flags: head.flags,
                ttl: u64::try_from(ttl).ok().map(Duration::from_secs),
                cas: head.cas,
            },
        };
        Ok((found, won))
    }
}

/// The line before a value.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    len: usize,
    flags: u32,
    /// Seconds; -1 for ever.
    ttl: i64,
    cas: u64,
    /// Stale, or won by somebody.
    leased: bool,
    /// Won by us.
    won: bool,
}

impl Head {
    /// `VA len f.. t.. c.. O..`, perhaps `W`, `X`, `Z`; the opaque must be `at`.
    fn parse(line: &[u8], at: usize) -> Option<Head> {
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        if words.next() != Some("VA") {
            return None;
        }
        let len = words.next()?.parse().ok()?;
        let mut head = Head {
            len,
            flags: 0,
            ttl: -1,
            cas: 0,
            leased: false,
            won: false,
        };
        let mut ours = false;
        for word in words {
            match word.as_bytes().first()? {
                b'f' => head.flags = word[1..].parse().ok()?,
                b't' => head.ttl = word[1..].parse().ok()?,
                b'O' => ours = word[1..].parse() == Ok(at),
                b'c' => head.cas = word[1..].parse().ok()?,
                b'W' => (head.leased, head.won) = (true, true),
                b'X' | b'Z' => head.leased = true,
                _ => {}
            }
        }
        (ours && len <= VALUE_LEN_MAX).then_some(head)
    }
}

fn garbage(line: &[u8]) -> io::Error {
    let line = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not an answer to what was asked: {line:?}"),
    )
}

/// An error line, or no answer at all.
fn refused(line: &[u8]) -> io::Error {
    let words = ["ERROR", "CLIENT_ERROR", "SERVER_ERROR"];
    if words.iter().any(|word| line.starts_with(word.as_bytes())) {
        io::Error::other(format!(
            "the source says: {}",
            String::from_utf8_lossy(line)
        ))
    } else {
        garbage(line)
    }
}

fn with_tls(socket: TcpStream, node: &Node, access: &Access) -> io::Result<Box<dyn Stream>> {
    let Some((config, name)) = &access.tls else {
        return Ok(Box::new(socket));
    };
    let name = name.clone().unwrap_or_else(|| node.host.clone());
    let name = name.try_into().map_err(io::Error::other)?;
    let session = rustls::ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    Ok(Box::new(rustls::StreamOwned::new(session, socket)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_values() {
        let head = |len, flags, ttl, cas, (leased, won)| {
            Some(Head {
                len,
                flags,
                ttl,
                cas,
                leased,
                won,
            })
        };
        for (line, expected) in [
            ("VA 5 f7 t60 c8 O3", head(5, 7, 60, 8, (false, false))),
            ("VA 0 f0 t-1 c9 O3 W X", head(0, 0, -1, 9, (true, true))),
            ("VA 0 f0 t29 Z O3", head(0, 0, 29, 0, (true, false))),
            ("VA 5 f7 t60 O4", None),
            ("VA 5 f7 t60", None),
            ("VA 1073741825 f7 t60 O3", None),
            ("VA -1 O3", None),
            ("HD O3", None),
        ] {
            assert_eq!(Head::parse(line.as_bytes(), 3), expected, "{line}");
        }
    }
}
