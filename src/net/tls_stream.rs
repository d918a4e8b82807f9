//! One TLS connection, driven by the reads and writes of a plain one.
//!
//! ```text
//!  socket --(fill)--> a record's bytes --> rustls --> its text --(read)--> conn
//!  socket <-(flush)-- records to send  <-- rustls <------------- (write)-- conn
//! ```
//!
//! Ts1. `read` looks at the socket only when rustls holds no text: what a read left over is what the next one begins with.
//! Ts2. `write` takes nothing while records wait to be sent. So rustls keeps at most `ssl_wbuf_size` of encrypted output,
//!     and of input one record (18 KB), or one handshake message (64 KB).
//! Ts3. The handshake has no step of its own: `read` drives it, and what it has to send waits for `flush` as replies do.
//! Ts4. After an error the stream is not used again; its alert is sent if the socket takes it.
//!
//! An idle connection costs about 7 KB, 4 KB of them rustls's buffer; one that has sent nothing yet costs 2 KB.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, Connection, HandshakeKind, ServerConfig, ServerConnection,
};

use super::client_cert;
use crate::stats::TlsCounters;

/// Reads of the socket in one `read`, when they bring no text: bounds what a peer can do without saying anything.
const FILLS_MAX: usize = 16;

/// A connected socket that speaks TLS.
#[derive(Debug)]
pub struct TlsStream {
    pub(super) socket: TcpStream,
    /// Boxed, so that connections without TLS stay small.
    tls: Box<Connection>,
    counters: Arc<TlsCounters>,
    /// The handshake is over, and counted.
    established: bool,
    /// The last `read` found less in the socket than it had room for.
    drained: bool,
    /// Anything has come from the peer.
    heard: bool,
    /// rustls's buffer has grown for a record that came in pieces.
    grown: bool,
}

impl TlsStream {
    pub(super) fn new(
        socket: TcpStream,
        config: Arc<ServerConfig>,
        wbuf_bytes: usize,
        counters: Arc<TlsCounters>,
    ) -> Result<Self, rustls::Error> {
        let mut tls = Connection::from(ServerConnection::new(config)?);
        tls.set_buffer_limit(Some(wbuf_bytes));
        Ok(TlsStream::over(socket, tls, counters))
    }

    /// The other side: to a server whose certificate is to be for `name`. Nothing is written before the handshake is over.
    pub(super) fn connect(
        socket: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        counters: Arc<TlsCounters>,
    ) -> Result<Self, rustls::Error> {
        let tls = Connection::from(ClientConnection::new(config, name)?);
        Ok(TlsStream::over(socket, tls, counters))
    }

    fn over(socket: TcpStream, tls: Connection, counters: Arc<TlsCounters>) -> Self {
        TlsStream {
            socket,
            tls: Box::new(tls),
            counters,
            established: false,
            drained: false,
            heard: false,
            grown: false,
        }
    }

    pub(super) fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.drained = false;
        for fills in 0..FILLS_MAX {
            match self.take(bufs) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.grown |= fills > 0,
                taken => {
                    if self.drained && self.grown {
                        self.grown = false;
                        self.shrink();
                        self.acknowledge();
                    }
                    return taken;
                }
            }
            if self.fill()? == 0 {
                return self.end_of_stream();
            }
        }
        Err(ErrorKind::Interrupted.into())
    }

    /// Whether the last `read`, which came back short, emptied the socket. Then the next bytes make an edge.
    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Whether the handshake is not over yet.
    pub(super) fn is_handshaking(&self) -> bool {
        !self.established
    }

    /// Whether records wait to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.tls.wants_write()
    }

    /// The peer takes too long for its handshake.
    pub(super) fn count_late(&self) {
        self.counters.ssl_handshake_errors.fetch_add(1, Relaxed);
    }

    /// Text that rustls holds already.
    fn take(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut reader = self.tls.reader();
        let mut sum = 0;
        for buf in bufs.iter_mut().filter(|buf| !buf.is_empty()) {
            match reader.read(buf) {
                Ok(n) => {
                    sum += n;
                    if n < buf.len() {
                        break;
                    }
                }
                Err(error) if sum == 0 => return Err(error),
                // It comes again at the next call.
                Err(_) => break,
            }
        }
        Ok(sum)
    }

    /// Lets rustls give back what its buffer has grown by, which it does before it reads.
    fn shrink(&mut self) {
        // Nothing is read, so there is nothing to fail.
        let _ = self.tls.read_tls(&mut Nothing);
    }

    /// Tells a client in the middle of something large at once that its bytes have come. OpenSSL's clients write record
    /// by record, and unless they set TCP_NODELAY the last small one waits for this: values of 900 KB by Python's ssl over
    /// the loopback, 35 MB/s without and 500 MB/s with it.
    fn acknowledge(&self) {
        #[cfg(target_os = "linux")]
        // Only the speed depends on it.
        let _ = socket2::SockRef::from(&self.socket).set_tcp_quickack(true);
    }

    /// Reads the socket once and lets rustls look at it; 0 at the end of the stream.
    fn fill(&mut self) -> io::Result<usize> {
        let mut noting = Noting {
            socket: &mut self.socket,
            short: false,
        };
        let n = match self.tls.read_tls(&mut noting) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::InvalidData => return Err(self.failed(error)),
            Err(error) => return Err(error),
        };
        self.drained = noting.short;
        self.heard |= n > 0;
        let processed = self.tls.process_new_packets();
        if !self.established && !self.tls.is_handshaking() {
            self.established = true;
            if self.tls.handshake_kind() != Some(HandshakeKind::Resumed) {
                self.counters.ssl_new_sessions.fetch_add(1, Relaxed);
            }
        }
        if let Err(error) = processed {
            if let Some(why) = client_cert::refusal(&error) {
                match self.socket.peer_addr() {
                    Ok(peer) => log::warn!("tcp:{peer}: {why}"),
                    Err(_) => log::warn!("{why}"),
                }
            }
            return Err(self.failed(io::Error::new(ErrorKind::InvalidData, error)));
        }
        self.flush()?;
        Ok(n)
    }

    /// The peer sends no more. That is an error in a handshake that has begun, and else an end like any other: requests
    /// tell their lengths, so nothing is mistaken for whole that was cut.
    fn end_of_stream(&mut self) -> io::Result<usize> {
        if self.heard && !self.established {
            return Err(self.failed(ErrorKind::UnexpectedEof.into()));
        }
        Ok(0)
    }

    /// Counts an error of the peer's, and sends the alert about it if there is room (Ts4).
    fn failed(&mut self, error: io::Error) -> io::Error {
        let counter = if self.established {
            &self.counters.ssl_proto_errors
        } else {
            &self.counters.ssl_handshake_errors
        };
        counter.fetch_add(1, Relaxed);
        let _ = self.flush();
        error
    }

    pub(super) fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.flush()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let n = self.tls.writer().write_vectored(bufs)?;
        self.flush()?;
        Ok(n)
    }

    /// Tells the peer that nothing more will come; what it still sends is not decrypted.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.say_goodbye();
        self.socket.shutdown(Shutdown::Write)
    }

    /// Says once that no more will come, so that the peer knows its replies whole. rustls says nothing after an alert.
    fn say_goodbye(&mut self) {
        if self.established {
            self.tls.send_close_notify();
            let _ = self.flush();
        }
    }

    /// Sends records until none is left (true) or the socket takes no more (false).
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

/// A socket on which nothing has come.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

/// A socket that notes whether a read came back short.
struct Noting<'s> {
    socket: &'s mut TcpStream,
    short: bool,
}

impl Read for Noting<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.socket.read(buf)?;
        self.short = n < buf.len();
        Ok(n)
    }
}
