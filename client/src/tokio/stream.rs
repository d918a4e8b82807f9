//! A socket in the hands of tokio, with or without TLS around it.
//!
//! What is pending wakes the task of the context when it can go on.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ::tokio::net::{TcpStream, UnixStream};
use rustix::net::{RecvFlags, recv};

use client_core::options::ClientOptions;

pub(super) struct Stream {
    /// Of either family: tokio only sends and receives on it.
    socket: TcpStream,
    #[cfg(feature = "tls")]
    tls: Option<Box<rustls::ClientConnection>>,
}

impl Stream {
    /// Connects. `host` is what a certificate must be for; the handshake goes on with the first writes and reads.
    pub(super) async fn connect(
        addr: SocketAddr,
        host: &str,
        options: &ClientOptions,
    ) -> io::Result<Stream> {
        let socket = TcpStream::connect(addr).await?;
        socket.set_nodelay(true)?;
        #[cfg(not(feature = "tls"))]
        let _ = (host, options);
        Ok(Stream {
            socket,
            #[cfg(feature = "tls")]
            tls: tls::begin(host, options)?,
        })
    }

    /// Connects to a unix socket, on which there is no TLS.
    pub(super) async fn connect_unix(path: &str) -> io::Result<Stream> {
        let socket = UnixStream::connect(path).await?.into_std()?;
        let socket = std::net::TcpStream::from(OwnedFd::from(socket));
        Ok(Stream {
            socket: TcpStream::from_std(socket)?,
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// True if nothing has come and the peer has not closed; only to be asked when nothing is expected. The kernel is
    /// asked, since the runtime may not have looked yet.
    pub(super) fn is_quiet(&self) -> bool {
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

    /// True if something that counts as written has not gone to the socket.
    pub(super) fn wants_write(&self) -> bool {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls.wants_write();
        }
        false
    }

    /// Writes some of `slices`, which may be empty: then what was held back. 0 of something: it goes on after a read.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        #[cfg(feature = "tls")]
        if let Some(session) = &mut self.tls {
            return tls::poll_write(session, &mut self.socket, cx, slices);
        }
        match slices {
            [] => Poll::Ready(Ok(0)),
            [one] => Pin::new(&mut self.socket).poll_write(cx, one),
            _ => Pin::new(&mut self.socket).poll_write_vectored(cx, slices),
        }
    }

    /// Reads what has come; 0 is the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        #[cfg(feature = "tls")]
        if let Some(session) = &mut self.tls {
            return tls::poll_read(session, &mut self.socket, cx, room);
        }
        poll_socket(&mut self.socket, cx, room)
    }
}

fn poll_socket(
    socket: &mut TcpStream,
    cx: &mut Context<'_>,
    room: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut room = ReadBuf::new(room);
    let read = Pin::new(socket).poll_read(cx, &mut room);
    read.map_ok(|()| room.filled().len())
}

#[cfg(feature = "tls")]
mod tls {
    use std::io::{self, IoSlice, Read, Write};
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use ::tokio::io::AsyncWrite;
    use ::tokio::net::TcpStream;
    use rustls::ClientConnection;
    use rustls::pki_types::ServerName;

    use client_core::options::ClientOptions;

    /// The socket as rustls wants it: what is pending is an error.
    struct Wire<'a, 'b>(&'a mut TcpStream, &'a mut Context<'b>);

    fn at_once<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
        match poll {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn later<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            result => Poll::Ready(result),
        }
    }

    impl Read for Wire<'_, '_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            at_once(super::poll_socket(self.0, self.1, room))
        }
    }

    impl Write for Wire<'_, '_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            at_once(Pin::new(&mut *self.0).poll_write(self.1, bytes))
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            at_once(Pin::new(&mut *self.0).poll_write_vectored(self.1, slices))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    pub(super) fn begin(
        host: &str,
        options: &ClientOptions,
    ) -> io::Result<Option<Box<ClientConnection>>> {
        let Some(tls) = &options.tls else {
            return Ok(None);
        };
        let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
        let invalid = |error: rustls::Error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let name = ServerName::try_from(name);
        let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let session = ClientConnection::new(tls.config.clone(), name).map_err(invalid)?;
        Ok(Some(Box::new(session)))
    }

    fn flush(session: &mut ClientConnection, wire: &mut Wire<'_, '_>) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(wire)?;
        }
        Ok(())
    }

    pub(super) fn poll_write(
        session: &mut ClientConnection,
        socket: &mut TcpStream,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut wire = Wire(socket, cx);
        let mut write = || {
            flush(session, &mut wire)?;
            // It takes nothing if it waits for the handshake, which goes on when something comes.
            let count = session.writer().write_vectored(slices)?;
            match flush(session, &mut wire) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock || count == 0 => Err(error),
                _ => Ok(count),
            }
        };
        later(write())
    }

    pub(super) fn poll_read(
        session: &mut ClientConnection,
        socket: &mut TcpStream,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = Wire(socket, cx);
        let mut read = || {
            loop {
                match session.reader().read(room) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
                if session.read_tls(&mut wire)? == 0 {
                    return Ok(0);
                }
                if let Err(error) = session.process_new_packets() {
                    // Tell the peer why, if it still listens.
                    let _ = flush(session, &mut wire);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        };
        later(read())
    }
}
