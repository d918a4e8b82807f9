//! A socket that blocks only who says so, and not for long; with or without TLS around it.

use std::io::{self, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::ioctl_fionbio;
use rustix::net::addr::SocketAddrArg;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};

use client_core::options::ClientOptions;

/// How long a read waits at most. Long beside the time of an answer; short beside the timeouts of requests, whose ends are
/// waited for by `poll`.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);

pub(crate) struct Stream {
    /// Of either family: std only sends, receives and peeks on it.
    socket: TcpStream,
    #[cfg(feature = "tls")]
    tls: Option<Box<rustls::ClientConnection>>,
}

impl Stream {
    /// Begins to connect. `host` is what a certificate must be for.
    pub(crate) fn open(
        addr: SocketAddr,
        host: &str,
        options: &ClientOptions,
    ) -> io::Result<Stream> {
        let family = match addr {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = TcpStream::from(begin_to_connect(family, &addr)?);
        socket.set_nodelay(true)?;
        #[cfg(not(feature = "tls"))]
        let _ = (host, options);
        Ok(Stream {
            socket,
            #[cfg(feature = "tls")]
            tls: begin_tls(host, options)?,
        })
    }

    /// Begins to connect to a unix socket, on which there is no TLS.
    pub(crate) fn open_unix(path: &str) -> io::Result<Stream> {
        Ok(Stream {
            socket: connect_unix(path)?.into(),
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// What became of connecting, once the socket is writable.
    pub(crate) fn connected(&self) -> io::Result<()> {
        sockopt::socket_error(&self.socket)??;
        // From here on each call says whether it waits.
        ioctl_fionbio(&self.socket, false)?;
        sockopt::set_socket_timeout(&self.socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(())
    }

    /// True if nothing has come and the peer has not closed; only to be asked when nothing is expected.
    pub(crate) fn is_quiet(&self) -> bool {
        match recv(
            &self.socket,
            &mut [0; 1],
            RecvFlags::PEEK | RecvFlags::DONTWAIT,
        ) {
            Err(error) => error == rustix::io::Errno::AGAIN,
            // TLS has words of its own; the end of the stream is seen by who reads.
            #[cfg(feature = "tls")]
            Ok((_, 1)) => self.tls.is_some(),
            Ok(_) => false,
        }
    }

    /// Has the kernel drop what it still holds when the socket is closed. Otherwise it would go on sending what its caller has given
    /// up, minutes later over a line that was cut, and behind what the caller has written since.
    pub(crate) fn forget_unsent(&self) {
        // On a socket that has failed there is nothing to forget.
        let _ = sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }

    /// True if something that counts as written has not gone to the socket.
    pub(crate) fn wants_write(&self) -> bool {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls.wants_write();
        }
        false
    }

    /// Writes some of `bytes`, which may be empty: then what was held back.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = Wire {
            socket: &self.socket,
            wait: false,
        };
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            flush_tls(tls, &mut wire)?;
            let count = tls.writer().write(bytes)?;
            if count > 0 {
                match flush_tls(tls, &mut wire) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    _ => return Ok(count),
                }
            }
            // TLS takes no more before the handshake is done.
            return if bytes.is_empty() {
                Ok(0)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            };
        }
        if bytes.is_empty() {
            Ok(0)
        } else {
            wire.write(bytes)
        }
    }

    /// Reads what has come; 0 is the end. With `wait`, if nothing has come, what comes within [`PATIENCE`].
    pub(crate) fn read(&mut self, room: &mut [u8], wait: bool) -> io::Result<usize> {
        let mut wire = Wire {
            socket: &self.socket,
            wait,
        };
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            loop {
                match tls.reader().read(room) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
                if tls.read_tls(&mut wire)? == 0 {
                    return Ok(0);
                }
                if let Err(error) = tls.process_new_packets() {
                    // Tell the peer why, if it still listens.
                    let _ = flush_tls(tls, &mut wire);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
        wire.read(room)
    }
}

/// The socket, whatever its own mode. It waits for one read if it is to wait.
struct Wire<'a> {
    socket: &'a TcpStream,
    wait: bool,
}

impl Read for Wire<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let flags = if mem::take(&mut self.wait) {
            RecvFlags::empty()
        } else {
            RecvFlags::DONTWAIT
        };
        let (_, count) = recv(self.socket, room, flags)?;
        Ok(count)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(send(self.socket, bytes, flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A unix socket that does not block. It is connected: where the server has too many to accept, that is an error.
pub(crate) fn connect_unix(path: &str) -> io::Result<OwnedFd> {
    begin_to_connect(AddressFamily::UNIX, &SocketAddrUnix::new(path)?)
}

fn begin_to_connect(family: AddressFamily, addr: &impl SocketAddrArg) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, addr) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(feature = "tls")]
fn begin_tls(
    host: &str,
    options: &ClientOptions,
) -> io::Result<Option<Box<rustls::ClientConnection>>> {
    let Some(tls) = &options.tls else {
        return Ok(None);
    };
    let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let name = name
        .try_into()
        .map_err(|error| invalid(Box::<dyn std::error::Error + Send + Sync>::from(error)))?;
    let session = rustls::ClientConnection::new(tls.config.clone(), name)
        .map_err(|error| invalid(error.into()))?;
    Ok(Some(Box::new(session)))
}

#[cfg(feature = "tls")]
fn flush_tls(tls: &mut rustls::ClientConnection, wire: &mut Wire<'_>) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(wire)?;
    }
    Ok(())
}
