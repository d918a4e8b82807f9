//! UDP (`-U`): each datagram is a conversation of its own.
//!
//! ```text
//!  datagram --frame--> requests --Session--> Output --copied--> reply --cut into datagrams of 1400 bytes--> sender
//!               |                                                 | larger than the bounds of Ud3 and Ud4:
//!               v not ours, or like a reply                       v
//!             nothing                                  SERVER_ERROR reply too large, or status 3
//! ```
//!
//! Each worker has a socket for each address; they share the port, and the kernel picks one by the sender's address, so
//! that a client's datagrams stay in their order.
//!
//! Ud1. Nothing is kept between datagrams: what one leaves incomplete is refused. Requests cut into several datagrams are
//!     dropped, as memcached does.
//! Ud2. Data that begins neither with a lower-case letter nor with the binary magic gets no answer. Every command begins
//!     with one of these and no reply does, so two servers cannot be made to answer each other's answers for ever.
//! Ud3. A reply has at most [`REPLY_BYTES_MAX`] bytes of data.
//! Ud4. A sender whose address may be forged gets at most one datagram for each of its own, of at most
//!     [`UNPROVEN_FACTOR`] times the size. An address is proven while it has a TCP connection here ([`super::peers`]);
//!     127.0.0.1 and ::1 always are, as the kernel takes no datagram with them from outside.
//! Ud5. A turn ends when `-R` commands have run; only the datagram in hand is finished first. What the socket does not take
//!     at once is dropped: nothing ever waits.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use protocol::binary::MAGIC_REQUEST;
use protocol::udp::{DATA_BYTES_MAX, DATAGRAM_BYTES_MAX, FRAME_BYTES, Frame};
use socket2::{Domain, Socket, Type};

use super::conn::Turn;
use super::peers::Peers;
use crate::command::{Next, Output, Session};
use crate::settings::WireProtocol;
use crate::state::{ConnInfo, ConnState, Ctx, Shared};

/// The largest datagram there can be.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// The most data in one reply: 48 datagrams, which fit the send buffer that Linux gives a socket (208 KB, about 2.3 KB of
/// it each). A larger reply would lose its end at once whenever the network is slower than the copying.
const REPLY_BYTES_MAX: usize = 64 << 10;
/// How much more than they sent is sent to those whose address may be forged: QUIC's bound for the same trouble (RFC 9000,
/// section 8.1).
const UNPROVEN_FACTOR: usize = 3;

/// The sockets of one worker, and those who are proven.
#[derive(Debug)]
pub(super) struct WorkerUdp {
    pub(super) sockets: Vec<Udp>,
    pub(super) peers: Arc<Peers>,
}

/// One worker's socket for one address.
#[derive(Debug)]
pub(super) struct Udp {
    socket: UdpSocket,
    protocol: WireProtocol,
    info: Arc<ConnInfo>,
    request: Box<[u8]>,
    /// The data of the reply in hand.
    reply: Vec<u8>,
    /// It stands in the worker's queue.
    pub(super) queued: bool,
}

/// Binds `addr` once for each worker. The first socket does not share, so a port that any other has is refused.
pub(super) fn bind(addr: SocketAddr, workers: usize) -> io::Result<(Vec<UdpSocket>, SocketAddr)> {
    let first = bind_one(addr, false)?;
    let addr = first.local_addr()?;
    let addr = addr.as_socket().expect("it was bound to an IP address");
    first.set_reuse_port(true)?;
    let mut sockets = vec![UdpSocket::from_std(first.into())];
    for _ in 1..workers {
        sockets.push(UdpSocket::from_std(bind_one(addr, true)?.into()));
    }
    Ok((sockets, addr))
}

fn bind_one(addr: SocketAddr, shares: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(shares)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

impl Udp {
    /// A socket of a worker that begins to serve it.
    pub(super) fn new(
        socket: UdpSocket,
        protocol: WireProtocol,
        shared: &Shared,
    ) -> io::Result<Self> {
        let name = format!("udp:{}", socket.local_addr()?);
        let (fd, now) = (socket.as_raw_fd(), shared.clock.now().0);
        let info = ConnInfo::new(fd, (*name).into(), name.into(), ConnState::Read, now);
        Ok(Udp {
            socket,
            protocol,
            info: Arc::new(info),
            request: vec![0; REQUEST_BYTES_MAX].into(),
            reply: Vec::new(),
            queued: false,
        })
    }

    /// Begins to be told of datagrams, and to be shown by `stats conns`.
    pub(super) fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        shared: &Shared,
    ) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)?;
        shared.connections.add(self.info.clone());
        super::tell_listening(shared, self.info.fd, "udp");
        Ok(())
    }

    /// Lets the socket go, to whoever is to serve it next.
    pub(super) fn leave(
        mut self,
        registry: &Registry,
        shared: &Shared,
    ) -> (WireProtocol, UdpSocket) {
        shared.connections.remove(&self.info);
        // It fails for a socket that is not registered alone.
        let _ = registry.deregister(&mut self.socket);
        (self.protocol, self.socket)
    }

    /// Answers datagrams until there is none, or the turn is over. `out` is the worker's; it is empty before and after.
    pub(super) fn turn<'c>(&mut self, ctx: Ctx<'c>, peers: &Peers, out: &mut Output<'c>) -> Turn {
        let mut budget = ctx.shared.settings.reqs_per_event.max(1);
        while budget > 0 {
            match self.socket.recv_from(&mut self.request) {
                Ok((len, peer)) => {
                    ctx.stats.general.bytes_read.add(len as u64);
                    let commands = self.answer(ctx, len, peer, peers, out);
                    // A datagram that is not answered was work as well.
                    budget = budget.saturating_sub(commands.max(1));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::Wait,
                Err(error) => {
                    log::debug!("{}: {error}", self.info.addr);
                    budget -= 1;
                }
            }
        }
        ctx.stats.general.conn_yields.inc();
        Turn::Again
    }

    /// Executes the datagram in `self.request[..len]` and sends what it answers; gives the number of its commands.
    fn answer<'c>(
        &mut self,
        ctx: Ctx<'c>,
        len: usize,
        peer: SocketAddr,
        peers: &Peers,
        out: &mut Output<'c>,
    ) -> u32 {
        let Some((request_id, data)) = request(&self.request[..len]) else {
            return 0;
        };
        self.info.last_command.store(ctx.now.0, Relaxed);
        self.reply.clear();
        let is_proven = is_this_machine(peer.ip()) || peers.has(peer.ip());
        let reply_max = reply_bytes_max(len, is_proven);
        let mut session = Session::of_datagram(self.protocol);
        // As `stats conns` shows whoever asks for it.
        self.info.set_state(ConnState::Parse);
        let mut budget = u32::MAX;
        let (mut at, mut fits) = (0, true);
        loop {
            let drive = session.drive(ctx, &data[at..], &mut budget, out);
            at += drive.consumed;
            if drive.next == Next::Read {
                session.end_of_datagram(&data[at..], out);
            }
            // What follows a reply that is too large is executed all the same.
            fits = fits && take_all(out, &mut self.reply, reply_max);
            out.clear();
            if drive.next != Next::Flush {
                break;
            }
        }
        self.info.set_state(ConnState::Read);
        if !fits {
            self.reply.clear();
            session.refuse_reply(data, out);
            fits = take_all(out, &mut self.reply, reply_max);
            out.clear();
        }
        if fits {
            self.send(ctx, request_id, peer);
        }
        u32::MAX - budget
    }

    /// Sends the reply, as far as the socket takes it.
    fn send(&self, ctx: Ctx<'_>, request_id: u16, peer: SocketAddr) {
        ctx.settle();
        let total = self.reply.len().div_ceil(DATA_BYTES_MAX) as u16;
        let mut datagram = [0; DATAGRAM_BYTES_MAX];
        for (sequence, data) in self.reply.chunks(DATA_BYTES_MAX).enumerate() {
            let frame = Frame {
                request_id,
                sequence: sequence as u16,
                total,
            };
            let len = FRAME_BYTES + data.len();
            datagram[..FRAME_BYTES].copy_from_slice(&frame.bytes());
            datagram[FRAME_BYTES..len].copy_from_slice(data);
            match self.socket.send_to(&datagram[..len], peer) {
                Ok(sent) => ctx.stats.general.bytes_written.add(sent as u64),
                Err(error) => {
                    log::debug!(
                        "{}: reply to {peer} dropped at {sequence} of {total}: {error}",
                        self.info.addr
                    );
                    return;
                }
            }
        }
    }
}

/// The request id and the data of a datagram that is to be answered (Ud1, Ud2).
fn request(datagram: &[u8]) -> Option<(u16, &[u8])> {
    let (frame, data) = Frame::split(datagram)?;
    let is_whole = frame.total == 1;
    let is_command = data
        .first()
        .is_some_and(|byte| byte.is_ascii_lowercase() || *byte == MAGIC_REQUEST);
    (is_whole && is_command).then_some((frame.request_id, data))
}

/// Moves what `out` holds behind `reply`; false if that would be more than `reply_max` bytes.
fn take_all(out: &mut Output<'_>, reply: &mut Vec<u8>, reply_max: usize) -> bool {
    while !out.is_empty() {
        let mut slices = Vec::new();
        match out.plain() {
            Some(bytes) => slices.push(io::IoSlice::new(bytes)),
            None => out.slices(&mut slices),
        }
        let len = slices.iter().map(|slice| slice.len()).sum();
        if reply.len() + len > reply_max {
            return false;
        }
        for slice in slices {
            reply.extend_from_slice(&slice);
        }
        out.advance(len);
    }
    true
}

/// Addresses that no other machine can send from.
fn is_this_machine(ip: IpAddr) -> bool {
    ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST
}

/// Bytes of data that a datagram of `request_bytes` may be answered with (Ud3, Ud4).
fn reply_bytes_max(request_bytes: usize, is_proven: bool) -> usize {
    if is_proven {
        REPLY_BYTES_MAX
    } else {
        (request_bytes * UNPROVEN_FACTOR).min(DATAGRAM_BYTES_MAX) - FRAME_BYTES
    }
}

#[cfg(test)]
mod tests {
    use protocol::ErrorLine;

    use super::*;

    #[test]
    fn only_whole_messages_that_begin_like_a_command_are_read() {
        let framed = |total: u8, data: &[u8]| [&[1, 2, 0, 9, 0, total, 7, 7], data].concat();
        let get = framed(1, b"get a\r\n");
        assert_eq!(request(&get), Some((0x0102, &b"get a\r\n"[..])));
        for total in [0, 2, 255] {
            assert_eq!(request(&framed(total, b"get a\r\n")), None, "{total}");
        }
        for len in 0..=FRAME_BYTES {
            assert_eq!(request(&get[..len]), None, "{len}");
        }
        let packet = framed(1, b"\x80\x0a");
        assert_eq!(request(&packet), Some((0x0102, &b"\x80\x0a"[..])));
        for data in [
            &b"\r\n"[..],
            b"1\r\n",
            b" get a\r\n",
            b"\x81\x0a\0\0",
            b"GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(request(&framed(1, data)), None, "{data:?}");
        }
    }

    #[test]
    fn no_error_line_is_a_request() {
        for error in ErrorLine::ALL {
            let echoed = [&[0, 0, 0, 0, 0, 1, 0, 0], error.line()].concat();
            assert_eq!(request(&echoed), None, "{error:?}");
        }
    }

    #[test]
    fn a_stranger_gets_one_datagram_of_three_times_what_was_sent() {
        for sent in FRAME_BYTES + 1..2000 {
            let came = FRAME_BYTES + reply_bytes_max(sent, false);
            assert!(came <= 3 * sent && came <= DATAGRAM_BYTES_MAX, "{sent}");
        }
        // The shortest requests that read something are told why they get nothing.
        let refusal = ErrorLine::ReplyTooLarge.line();
        assert!(refusal.len() <= reply_bytes_max(FRAME_BYTES + b"stats\n".len(), false));
        assert_eq!(reply_bytes_max(9, true), REPLY_BYTES_MAX);
    }

    #[test]
    fn loopback_is_two_addresses_and_no_more() {
        for (ip, is_local) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("127.0.0.2", false),
            ("::2", false),
        ] {
            assert_eq!(is_this_machine(ip.parse().unwrap()), is_local, "{ip}");
        }
    }
}
