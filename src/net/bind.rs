//! Binding the addresses.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mio::net::{TcpListener, UdpSocket, UnixListener};
use socket2::{Domain, SockRef, Socket, Type};

use super::carried::Left;
use super::peers::Peers;
use super::udp::{self, Udp, WorkerUdp};
use crate::settings::{ClientCert, Listen, Settings, WireProtocol};
use crate::state::Shared;
use crate::sys;

/// A bound socket.
#[derive(Debug)]
pub(super) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A bound socket with what is to be known of it.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) acceptor: Acceptor,
    /// As `stats conns` shows it.
    pub(super) name: Arc<str>,
    /// What its connections may speak.
    pub(super) protocol: WireProtocol,
    /// What TLS asks of its clients; none is plain text.
    pub(super) tls: Option<ClientCert>,
}

/// All bound sockets.
#[derive(Debug, Default)]
pub struct Bound {
    pub(super) doors: Vec<Door>,
    /// The TCP addresses, with the ports that were found.
    pub addrs: Vec<SocketAddr>,
    /// The UDP sockets, for each address one for each worker, until these have taken them.
    udp: Vec<(WireProtocol, Option<UdpSocket>)>,
    /// The UDP addresses, with the ports that were found.
    pub udp_addrs: Vec<SocketAddr>,
    /// Who may be sent large replies over UDP.
    peers: Arc<Peers>,
    /// The service manager has bound the sockets.
    pub is_handed_over: bool,
    /// The unix socket we have made, to be removed in the end.
    made: Option<Made>,
    /// That of a server before, until [`Bound::claim`].
    to_claim: Option<PathBuf>,
}

/// Sockets of a server, on their way to another.
#[derive(Debug, Default)]
pub struct Sockets {
    /// TCP listeners.
    pub tcp: Vec<OwnedFd>,
    /// Unix listeners.
    pub unix: Vec<OwnedFd>,
    /// UDP sockets.
    pub udp: Vec<OwnedFd>,
}

impl Sockets {
    /// The listener at this address; at port 0 one with any port.
    fn take_tcp(&mut self, addr: SocketAddr) -> Option<(TcpListener, SocketAddr)> {
        let (socket, addr) = take(&mut self.tcp, addr)?;
        Some((TcpListener::from_std(socket.into()), addr))
    }

    fn take_unix(&mut self, path: &Path) -> Option<UnixListener> {
        let is_there = |socket: &OwnedFd| {
            let addr = SockRef::from(socket).local_addr().ok();
            addr.is_some_and(|addr| addr.as_pathname() == Some(path))
        };
        let nth = self.unix.iter().position(is_there)?;
        Some(UnixListener::from_std(self.unix.swap_remove(nth).into()))
    }

    /// All sockets at this address; at port 0 those of one port.
    fn take_udp(&mut self, addr: SocketAddr) -> Option<(Vec<UdpSocket>, SocketAddr)> {
        let (first, addr) = take(&mut self.udp, addr)?;
        let mut all = vec![UdpSocket::from_std(first.into())];
        while let Some((next, _)) = take(&mut self.udp, addr) {
            all.push(UdpSocket::from_std(next.into()));
        }
        Some((all, addr))
    }
}

/// Takes a socket at this address out of `all`; at port 0 one with any port.
pub fn take(all: &mut Vec<OwnedFd>, wanted: SocketAddr) -> Option<(OwnedFd, SocketAddr)> {
    let addr_of = |socket: &OwnedFd| SockRef::from(socket).local_addr().ok()?.as_socket();
    let fits =
        |addr: SocketAddr| addr == wanted || (wanted.port() == 0 && addr.ip() == wanted.ip());
    let nth = all
        .iter()
        .position(|socket| addr_of(socket).is_some_and(fits))?;
    let socket = all.swap_remove(nth);
    let addr = addr_of(&socket)?;
    Some((socket, addr))
}

fn copy_of(socket: &impl AsFd) -> io::Result<OwnedFd> {
    socket.as_fd().try_clone_to_owned()
}

impl Bound {
    /// Binds all ports the settings name. An address that this machine does not have is passed over if its entry has
    /// another one. Sockets that were handed over take the place of all that `-p`, `-l` and `-s` name.
    /// Of the sockets that a server before had, those that are named are `found`, and not bound again.
    pub fn bind(
        settings: &Settings,
        handed_over: Vec<OwnedFd>,
        found: &mut Sockets,
    ) -> Result<Self, String> {
        let mut bound = Bound::default();
        if !handed_over.is_empty() {
            bound.is_handed_over = true;
            for socket in handed_over {
                bound.take_over(socket.into(), settings)?;
            }
        } else {
            for listen in &settings.listen {
                bound.bind_entry(listen, settings.backlog, found)?;
            }
        }
        for listen in &settings.udp_listen {
            let bind = |addr| match found.take_udp(addr) {
                Some(there) => Ok(there),
                None => udp::bind(addr, settings.threads),
            };
            for (sockets, addr) in bind_each(listen, "UDP ", bind)? {
                let sockets = sockets.into_iter().map(Some);
                bound
                    .udp
                    .extend(sockets.map(|socket| (listen.protocol, socket)));
                bound.udp_addrs.push(addr);
            }
        }
        Ok(bound)
    }

    /// Copies of the descriptors of all sockets, to be handed to another process.
    pub fn sockets(&self) -> io::Result<Sockets> {
        let mut sockets = Sockets::default();
        for door in &self.doors {
            match &door.acceptor {
                Acceptor::Tcp(listener) => sockets.tcp.push(copy_of(listener)?),
                Acceptor::Unix(listener) => sockets.unix.push(copy_of(listener)?),
            }
        }
        for (_, socket) in &self.udp {
            sockets
                .udp
                .extend(socket.as_ref().map(copy_of).transpose()?);
        }
        Ok(sockets)
    }

    /// Takes the UDP sockets of a worker back.
    pub fn take_back(&mut self, left: &mut Left) {
        let sockets = std::mem::take(&mut left.udp).into_iter();
        self.udp.retain(|(_, socket)| socket.is_some());
        self.udp
            .extend(sockets.map(|(protocol, socket)| (protocol, Some(socket))));
    }

    /// The first address, as a name of the server: that of its unix socket where it has no other.
    pub fn address(&self) -> String {
        let door = self.doors.first().map_or("", |door| &*door.name);
        let (_, address) = door.split_once(':').unwrap_or_default();
        address.to_owned()
    }

    /// From now on the unix socket is another process's to remove.
    pub fn disclaim(&mut self) {
        self.made = None;
    }

    /// From now on the unix socket is this process's to remove.
    pub fn claim(&mut self) {
        if let Some(path) = self.to_claim.take() {
            self.made = Made::at(&path);
        }
    }

    fn bind_entry(
        &mut self,
        listen: &Listen,
        backlog: i32,
        found: &mut Sockets,
    ) -> Result<(), String> {
        let bind = |addr| match found.take_tcp(addr) {
            Some(there) => Ok(there),
            None => bind_tcp(addr, backlog),
        };
        for (listener, addr) in bind_each(listen, "", bind)? {
            self.addrs.push(addr);
            self.doors.push(Door {
                acceptor: Acceptor::Tcp(listener),
                name: format!("tcp:{addr}").into(),
                protocol: listen.protocol,
                tls: listen.tls,
            });
        }
        Ok(())
    }

    /// Takes a socket that the service manager listens on.
    fn take_over(&mut self, socket: Socket, settings: &Settings) -> Result<(), String> {
        let failed = |error: io::Error| format!("a socket handed over by LISTEN_FDS: {error}");
        let is_stream = socket.r#type().map_err(failed)? == Type::STREAM;
        if !is_stream || !socket.is_listener().map_err(failed)? {
            let reason = "not one that listens for streams (ListenStream=)";
            return Err(failed(io::Error::other(reason)));
        }
        socket.set_nonblocking(true).map_err(failed)?;
        let (acceptor, name, tls) = match socket.local_addr().map_err(failed)?.as_socket() {
            Some(addr) => {
                self.addrs.push(addr);
                let acceptor = Acceptor::Tcp(TcpListener::from_std(socket.into()));
                (acceptor, format!("tcp:{addr}"), settings.tls.of_listeners())
            }
            None => {
                let listener = UnixListener::from_std(socket.into());
                let path = listener.local_addr().map_err(failed)?;
                let path = path.as_pathname().unwrap_or(Path::new(""));
                let name = format!("unix:{}", path.display());
                (Acceptor::Unix(listener), name, None)
            }
        };
        self.doors.push(Door {
            acceptor,
            name: name.into(),
            protocol: settings.protocol,
            tls,
        });
        Ok(())
    }

    /// One worker's UDP sockets, one for each address, unless there were more workers or fewer when they were bound; `None`
    /// without any.
    pub(super) fn take_udp(
        &mut self,
        worker: usize,
        shared: &Shared,
    ) -> io::Result<Option<WorkerUdp>> {
        let all = self.udp.iter_mut().enumerate();
        let workers = shared.settings.threads;
        let sockets: Vec<_> = all
            .filter(|(nth, _)| nth % workers == worker)
            .filter_map(|(_, (protocol, socket))| Some((*protocol, socket.take()?)))
            .map(|(protocol, socket)| Udp::new(socket, protocol, shared))
            .collect::<io::Result<_>>()?;
        let peers = self.peers.clone();
        Ok((!sockets.is_empty()).then_some(WorkerUdp { sockets, peers }))
    }

    /// Makes the unix socket, if there is to be one. To be called by the user who serves, not by root in that user's place:
    /// whoever may write to the directory may put a link where root makes, removes or gives away a file.
    pub fn bind_unix(&mut self, settings: &Settings, found: &mut Sockets) -> Result<(), String> {
        let Some(path) = settings
            .unix_socket
            .as_ref()
            .filter(|_| !self.is_handed_over)
        else {
            return Ok(());
        };
        if let Some(listener) = found.take_unix(path) {
            self.add_unix(listener, path, settings);
            self.to_claim = Some(path.clone());
            return Ok(());
        }
        let failed = |error: io::Error| {
            let reason = sys::why_not_made(path, &error);
            format!("cannot listen on {}: {reason}", path.display())
        };
        let address = socket2::SockAddr::unix(path).map_err(failed)?;
        // A socket that a server before us left behind is removed, one that somebody serves is not.
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
            probe.set_nonblocking(true).map_err(failed)?;
            match probe.connect(&address) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(failed)?;
                }
                // Another user's, who lets nobody ask: the kernel knows whether it is in use.
                Err(error)
                    if error.kind() == ErrorKind::PermissionDenied
                        && sys::is_socket_bound(path) == Some(false) =>
                {
                    fs::remove_file(path).map_err(failed)?;
                }
                // Its queue may be full; that is an answer, too.
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(failed(error)),
                _ => {
                    let reason = "another server answers there; end it, or name another path";
                    return Err(failed(io::Error::other(reason)));
                }
            }
        }
        let _umask = sys::Umask::allow(settings.unix_mask);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
        socket.bind(&address).map_err(failed)?;
        socket.listen(settings.backlog).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        self.add_unix(UnixListener::from_std(socket.into()), path, settings);
        self.made = Made::at(path);
        Ok(())
    }

    fn add_unix(&mut self, listener: UnixListener, path: &Path, settings: &Settings) {
        self.doors.push(Door {
            acceptor: Acceptor::Unix(listener),
            name: format!("unix:{}", path.display()).into(),
            protocol: settings.protocol,
            tls: None,
        });
    }
}

/// A file of ours: its path, and the device and inode by which it is told from one that another has put there.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    file: (u64, u64),
}

impl Made {
    fn at(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok()?;
        let file = (found.dev(), found.ino());
        let path = path.to_owned();
        Some(Made { path, file })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(made) = &self.made {
            let there = Made::at(&made.path);
            if there.is_some_and(|there| there.file == made.file) {
                let _ = fs::remove_file(&made.path);
            }
        }
    }
}

/// Binds the addresses of an entry, and passes over those that this machine does not have if there is another one. Of the
/// default addresses, those that cannot be had for another reason are passed over too, with a warning. `what` stands before
/// an address in errors.
fn bind_each<S>(
    listen: &Listen,
    what: &str,
    mut bind: impl FnMut(SocketAddr) -> io::Result<(S, SocketAddr)>,
) -> Result<Vec<(S, SocketAddr)>, String> {
    let mut passed_over = Vec::new();
    let mut bound: Vec<(S, SocketAddr)> = Vec::new();
    for &addr in &listen.addrs {
        // One free port serves all addresses of an entry.
        let same_port = bound.first().map_or(0, |(_, addr)| addr.port());
        let wanted = if addr.port() == 0 {
            SocketAddr::new(addr.ip(), same_port)
        } else {
            addr
        };
        match bind(wanted) {
            Ok(socket) => bound.push(socket),
            Err(error) => {
                let reason = format!("cannot listen on {what}{addr}: {error}");
                if !is_missing(&error) && !listen.is_default {
                    return Err(reason);
                }
                passed_over.push((reason, is_missing(&error)));
            }
        }
    }
    if bound.is_empty() {
        // What is taken says more than what is not there.
        passed_over.sort_by_key(|&(_, is_missing)| is_missing);
        let first = passed_over.into_iter().next();
        return Err(first.expect("an entry has addresses").0);
    }
    for (reason, _) in passed_over.iter().filter(|(_, is_missing)| !is_missing) {
        log::warn!("{reason}; going on without it");
    }
    Ok(bound)
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(sys::EAFNOSUPPORT)
}

fn bind_tcp(addr: SocketAddr, backlog: i32) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_keepalive(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(backlog)?;
    let listener = TcpListener::from_std(socket.into());
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}
