//! One connection: a socket, what is still to be sent, and the replies expected.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};

use crate::check::Checker;

/// How long a server may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A host and port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl Target {
    /// Reads `HOST:PORT`, `HOST` (port 11211), `PORT` (loopback) or `/PATH`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Target::Unix(path.into()));
        }
        if text.starts_with('/') {
            return Ok(Target::Unix(text.into()));
        }
        let full = if text.parse::<u16>().is_ok() {
            format!("127.0.0.1:{text}")
        } else if text.contains(':') {
            text.to_owned()
        } else {
            format!("{text}:11211")
        };
        let mut found = full
            .to_socket_addrs()
            .map_err(|error| format!("{text}: {error}"))?;
        found
            .next()
            .map(Target::Tcp)
            .ok_or_else(|| format!("{text} has no address"))
    }

    /// A connection whose reads wait, but not for ever.
    pub fn connect(&self) -> io::Result<Blocking> {
        match self {
            Target::Tcp(addr) => {
                let stream = std::net::TcpStream::connect(addr)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Blocking::Tcp(stream))
            }
            Target::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Blocking::Unix(stream))
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(addr) => addr.fmt(f),
            Target::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A connection whose calls wait.
#[derive(Debug)]
pub enum Blocking {
    /// Over TCP.
    Tcp(std::net::TcpStream),
    /// Over a unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl Read for Blocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Blocking::Tcp(stream) => stream.read(buffer),
            Blocking::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Blocking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Blocking::Tcp(stream) => stream.write(bytes),
            Blocking::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection for an event loop.
#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection in an event loop.
#[derive(Debug)]
pub struct Conn {
    stream: Stream,
    /// The replies that are expected.
    pub checker: Checker,
    /// When the batch under way was, or should have been, sent.
    pub begun: Instant,
    unsent: Vec<u8>,
    sent: usize,
}

impl Conn {
    /// Connects to `target`.
    pub fn connect(target: &Target, checker: Checker) -> io::Result<Self> {
        let stream = match target.connect()? {
            Blocking::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Stream::Tcp(TcpStream::from_std(stream))
            }
            Blocking::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Stream::Unix(UnixStream::from_std(stream))
            }
        };
        Ok(Conn {
            stream,
            checker,
            begun: Instant::now(),
            unsent: Vec::new(),
            sent: 0,
        })
    }

    /// The socket, for registration.
    pub fn source(&mut self) -> &mut dyn Source {
        match &mut self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    /// Sends `bytes`, keeping what the socket does not take.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut taken = 0;
        if self.unsent.is_empty() {
            taken = write(&mut self.stream, bytes)?;
        }
        if taken < bytes.len() {
            self.unsent.extend_from_slice(&bytes[taken..]);
        }
        Ok(())
    }

    /// Sends what was kept.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.sent += write(&mut self.stream, &self.unsent[self.sent..])?;
            if self.sent == self.unsent.len() {
                self.unsent.clear();
                self.sent = 0;
            }
        }
        Ok(())
    }

    /// Reads what there is; `None` when that is nothing yet. The end of the stream is an error.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(buffer),
                Stream::Unix(stream) => stream.read(buffer),
            };
            match read {
                Ok(0) => return Err(io::Error::other("the server hung up")),
                Ok(n) => return Ok(Some(n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Writes until the socket is full; returns how much it took.
fn write(stream: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        let wrote = match stream {
            Stream::Tcp(stream) => stream.write(&bytes[taken..]),
            Stream::Unix(stream) => stream.write(&bytes[taken..]),
        };
        match wrote {
            Ok(n) => taken += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let loopback = |port| Ok(Target::Tcp(SocketAddr::from(([127, 0, 0, 1], port))));
        assert_eq!(Target::parse("22122"), loopback(22122));
        assert_eq!(Target::parse("127.0.0.1"), loopback(11211));
        assert_eq!(Target::parse("127.0.0.1:5"), loopback(5));
        assert_eq!(Target::parse("/tmp/s"), Ok(Target::Unix("/tmp/s".into())));
        assert_eq!(Target::parse("unix:s"), Ok(Target::Unix("s".into())));
        assert!(Target::parse("127.0.0.1:x").is_err());
    }
}
