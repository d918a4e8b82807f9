//! A client that speaks over UDP: frames in front of requests and replies, each read with a deadline.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

use socket2::{Domain, Socket, Type};

use crate::{Conn, PATIENCE, Server, escape};

/// Bytes of the frame: request id, sequence number, total, reserved, 16 bits each.
pub const FRAME: usize = 8;
/// Data of a full datagram of a reply.
pub const DATA: usize = 1392;

/// A socket connected to a server's UDP port.
pub struct UdpClient {
    socket: UdpSocket,
    id: u16,
    /// Bytes and datagrams that came back since this was last taken.
    pub received_bytes: usize,
    /// See `received_bytes`.
    pub received_datagrams: usize,
}

impl UdpClient {
    /// A client on 127.0.0.1.
    pub fn connect(server: &Server) -> UdpClient {
        UdpClient::connect_from(Ipv4Addr::LOCALHOST, server)
    }

    /// A client on another of this machine's addresses.
    pub fn connect_from(ip: Ipv4Addr, server: &Server) -> UdpClient {
        UdpClient::connect_to(ip.into(), (Ipv4Addr::LOCALHOST, server.udp_port()).into())
    }

    /// A client on `ip` of whatever listens on `address`.
    pub fn connect_to(ip: IpAddr, address: SocketAddr) -> UdpClient {
        let socket = UdpSocket::bind((ip, 0)).expect("a free UDP port");
        socket.connect(address).expect("an address that is routed");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("read timeout");
        UdpClient {
            socket,
            id: 0x0fff,
            received_bytes: 0,
            received_datagrams: 0,
        }
    }

    /// Sends a datagram as it is.
    #[track_caller]
    pub fn send_raw(&self, datagram: &[u8]) {
        self.socket.send(datagram).expect("a datagram sent");
    }

    /// Sends `data` behind a frame of a new request id, which is returned.
    #[track_caller]
    pub fn send(&mut self, data: impl AsRef<[u8]>) -> u16 {
        self.id = self.id.wrapping_add(1);
        self.send_raw(&framed(self.id, 0, 1, 0, data.as_ref()));
        self.id
    }

    /// The next datagram: id, sequence number, total, data.
    #[track_caller]
    pub fn receive(&mut self) -> (u16, u16, u16, Vec<u8>) {
        let mut datagram = [0; 64 << 10];
        let len = match self.socket.recv(&mut datagram) {
            Ok(len) => len,
            Err(error) => panic!("no reply to request {:#x}: {error}", self.id),
        };
        assert!((FRAME + 1..=FRAME + DATA).contains(&len), "{len} bytes");
        self.received_bytes += len;
        self.received_datagrams += 1;
        let number = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
        assert_eq!(number(6), 0, "the reserved bytes");
        (
            number(0),
            number(2),
            number(4),
            datagram[FRAME..len].to_vec(),
        )
    }

    /// The next message: all datagrams of one total, whose numbers and ids must be right.
    #[track_caller]
    pub fn message(&mut self, id: u16) -> Vec<u8> {
        let mut parts = BTreeMap::new();
        loop {
            let (of, sequence, total, data) = self.receive();
            assert_eq!(of, id, "request id of {}", escape(&data));
            assert!(sequence < total, "datagram {sequence} of {total}");
            if sequence + 1 < total {
                assert_eq!(data.len(), DATA, "all but the last are full");
            }
            assert!(parts.insert(sequence, data).is_none(), "{sequence} twice");
            if parts.len() == usize::from(total) {
                return parts.into_values().flatten().collect();
            }
        }
    }

    /// Sends `data`; gives the message that comes back.
    #[track_caller]
    pub fn ask(&mut self, data: impl AsRef<[u8]>) -> Vec<u8> {
        let id = self.send(data);
        self.message(id)
    }

    /// Sends `request` and expects `reply`, in one message or, as memcached has it, one for each command.
    #[track_caller]
    pub fn round(&mut self, request: impl AsRef<[u8]>, reply: impl AsRef<[u8]>) {
        let id = self.send(&request);
        let mut got = Vec::new();
        while got.len() < reply.as_ref().len() {
            got.extend(self.message(id));
        }
        assert_eq!(
            escape(&got),
            escape(reply.as_ref()),
            "{}",
            escape(request.as_ref())
        );
    }

    /// Nothing is on its way: the next reply is that of a no-op.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.round("mn\r\n", "MN\r\n");
    }
}

/// A datagram.
pub fn framed(id: u16, sequence: u16, total: u16, reserved: u16, data: &[u8]) -> Vec<u8> {
    let numbers = [id, sequence, total, reserved];
    let mut datagram: Vec<u8> = numbers.into_iter().flat_map(u16::to_be_bytes).collect();
    datagram.extend_from_slice(data);
    datagram
}

/// A TCP connection from another of this machine's addresses.
#[track_caller]
pub fn connect_tcp_from(ip: Ipv4Addr, server: &Server) -> Conn {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let own = SocketAddr::from((ip, 0));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
    socket
        .bind(&own.into())
        .expect("an address of the loopback");
    socket.connect(&address.into()).expect("a connection");
    Conn::tcp(TcpStream::from(socket), &format!("server {address}"))
}
