//! A connection on its way from one process to another: its socket, and what was known of it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use mio::net::{TcpStream, UdpSocket, UnixStream};

use super::stream::Stream;
use crate::packing::{Packer, Unpacker};
use crate::settings::WireProtocol;
use crate::state::{ConnInfo, ConnState};

/// A connection that no worker has.
#[derive(Debug)]
pub struct Carried {
    /// The socket.
    pub socket: OwnedFd,
    /// What the worker that had it has written down.
    pub packed: Vec<u8>,
}

/// Who the peer is and where it came in.
pub(super) fn pack_info(info: &ConnInfo, is_unix: bool, to: &mut Packer) {
    to.number(is_unix).bytes(info.addr.as_bytes());
    to.bytes(info.listen_addr.as_bytes());
    to.number(info.last_command.load(std::sync::atomic::Ordering::Relaxed));
}

/// The stream of a connection that was carried, and what is shown of it.
pub(super) fn unpack_info(
    socket: OwnedFd,
    from: &mut Unpacker<'_>,
) -> Option<(Stream, Arc<ConnInfo>)> {
    use std::os::fd::AsRawFd;
    let is_unix = from.flag()?;
    let (addr, name) = (from.text()?, from.text()?);
    let last_command = from.number()?;
    let stream = if is_unix {
        Stream::Unix(UnixStream::from_std(socket.into()))
    } else {
        Stream::Tcp(TcpStream::from_std(socket.into()))
    };
    let fd = stream.as_raw_fd();
    let info = ConnInfo::new(fd, addr.into(), name.into(), ConnState::Read, last_command);
    Some((stream, Arc::new(info)))
}

/// What a worker leaves to another process.
#[derive(Debug, Default)]
pub struct Left {
    /// Its connections.
    pub conns: Vec<Carried>,
    /// Connections with TLS, which were ended.
    pub ended: usize,
    /// Its UDP sockets.
    pub(super) udp: Vec<(WireProtocol, UdpSocket)>,
}
