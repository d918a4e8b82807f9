//! A client's socket, over TCP, TLS or a unix path.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::tls_stream::TlsStream;
use crate::auth::Peer;

/// A connected, non-blocking socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(TlsStream),
    Unix(UnixStream),
}

impl Stream {
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        // Both at once: events come at the edges only, so an interest that is always on costs nothing.
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Tcp(stream) => registry.register(stream, token, both),
            Stream::Tls(stream) => registry.register(&mut stream.socket, token, both),
            Stream::Unix(stream) => registry.register(stream, token, both),
        }
    }

    pub(super) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => registry.deregister(stream),
            Stream::Tls(stream) => registry.deregister(&mut stream.socket),
            Stream::Unix(stream) => registry.deregister(stream),
        }
    }

    /// The socket itself, unless TLS stands between.
    pub(super) fn into_socket(self) -> Option<OwnedFd> {
        match self {
            Stream::Tcp(stream) => Some(stream.into()),
            Stream::Tls(_) => None,
            Stream::Unix(stream) => Some(stream.into()),
        }
    }

    /// Why it could not be connected, if that is so.
    pub(super) fn connect_failure(&self) -> Option<io::Error> {
        let error = match self {
            Stream::Tcp(stream) => stream.take_error(),
            Stream::Tls(stream) => stream.socket.take_error(),
            Stream::Unix(stream) => stream.take_error(),
        };
        error.unwrap_or_else(Some)
    }

    /// The address of the peer, which TCP's handshake has shown to be its own.
    pub(super) fn peer_ip(&self) -> Option<IpAddr> {
        match self {
            Stream::Tcp(stream) => Some(stream.peer_addr().ok()?.ip()),
            Stream::Tls(stream) => Some(stream.socket.peer_addr().ok()?.ip()),
            Stream::Unix(_) => None,
        }
    }

    /// Where the peer comes from, as far as wrong passwords are counted by it.
    pub(super) fn peer(&self) -> Peer {
        if let Stream::Unix(stream) = self {
            return user_of(stream);
        }
        self.peer_ip().map_or(Peer::Unknown, Peer::from)
    }

    #[inline]
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            // Straight to the kernel, here and in `write`: libc makes either a point where a thread can be cancelled, which
            // is a tenth of what is left to do for a small request.
            Stream::Tcp(stream) => Ok(recv(stream, buf, RecvFlags::empty())?.0),
            Stream::Tls(stream) => stream.read_vectored(&mut [IoSliceMut::new(buf)]),
            Stream::Unix(stream) => stream.read(buf),
        }
    }

    pub(super) fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read_vectored(bufs),
            Stream::Tls(stream) => stream.read_vectored(bufs),
            Stream::Unix(stream) => stream.read_vectored(bufs),
        }
    }

    #[inline(always)]
    pub(crate) fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => Ok(send(stream, buf, SendFlags::NOSIGNAL)?),
            Stream::Tls(stream) => stream.write_vectored(&[IoSlice::new(buf)]),
            Stream::Unix(stream) => stream.write(buf),
        }
    }

    pub(super) fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(bufs),
            Stream::Tls(stream) => stream.write_vectored(bufs),
            Stream::Unix(stream) => stream.write_vectored(bufs),
        }
    }

    /// Whether TLS is still to be agreed on.
    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self, Stream::Tls(stream) if stream.is_handshaking())
    }

    /// Whether something was written that the socket has not taken.
    pub(crate) fn has_unsent(&self) -> bool {
        matches!(self, Stream::Tls(stream) if stream.has_unsent())
    }

    /// Tells the peer that nothing more will come.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => stream.end(),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Reads what is to be thrown away: the bytes of the socket, whatever they are.
    pub(crate) fn discard(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buf),
            Stream::Tls(stream) => stream.socket.read(buf),
            Stream::Unix(stream) => stream.read(buf),
        }
    }

    /// Whether a read that came back short has emptied the socket.
    pub(super) fn is_drained(&self) -> bool {
        match self {
            Stream::Tls(stream) => stream.is_drained(),
            _ => true,
        }
    }

    /// Tells a client in the middle of a value at once that its bytes have come. A client that writes in pieces without
    /// TCP_NODELAY sends the next one only then, and the kernel would wait for a reply to carry the news.
    pub(super) fn acknowledge(&self) {
        #[cfg(target_os = "linux")]
        if let Stream::Tcp(stream) = self {
            // Only the speed depends on it.
            let _ = socket2::SockRef::from(stream).set_tcp_quickack(true);
        }
    }

    /// Sends what was written and is not on its way yet: all (true), or until the socket takes no more (false).
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Stream::Tls(stream) => stream.flush(),
            _ => Ok(true),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Tls(stream) => stream.socket.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

/// The user at the other end of a unix socket.
fn user_of(stream: &UnixStream) -> Peer {
    #[cfg(target_os = "linux")]
    if let Ok(user) = rustix::net::sockopt::socket_peercred(stream) {
        return Peer::User(user.uid.as_raw());
    }
    let _ = stream;
    Peer::Unknown
}
