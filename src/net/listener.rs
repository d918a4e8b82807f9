//! Binding the addresses, and the thread that accepts.
//!
//! A connection's place (`-c`) is taken here and given back by its worker. When all are taken, a client is either told
//! so and closed (`maxconns_fast`, the default), or left in the backlog until a worker wakes this thread. When the process
//! has no descriptors left, clients are left there as well. `listen_disabled_num` counts how often it came to that.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, SockRef, Socket, Type};

use super::peers::Peers;
use super::stream::Stream;
use super::tls::Tls;
use super::udp::{self, Udp, WorkerUdp};
use super::worker::{Handle, Message};
use crate::command::{ConnInfo, ConnState, Shared};
use crate::settings::{ClientCert, Listen, Settings, WireProtocol};
use crate::sys;

/// How long accepting pauses when the process has no descriptors left.
const NO_FILES_PAUSE: Duration = Duration::from_millis(10);

/// Bytes read of a client for whom there is no place.
const REJECTED_BYTES_MAX: usize = 4 << 10;

const WAKER: Token = Token(usize::MAX);

/// A bound socket.
#[derive(Debug)]
enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A bound socket with what is to be known of it.
#[derive(Debug)]
struct Door {
    acceptor: Acceptor,
    /// As `stats conns` shows it.
    name: Arc<str>,
    /// What its connections may speak.
    protocol: WireProtocol,
    /// What TLS asks of its clients; none is plain text.
    tls: Option<ClientCert>,
}

/// All bound sockets.
#[derive(Debug, Default)]
pub struct Bound {
    doors: Vec<Door>,
    /// The TCP addresses, with the ports that were found.
    pub addrs: Vec<SocketAddr>,
    /// For each UDP address, the sockets that no worker has taken yet.
    udp: Vec<(WireProtocol, Vec<UdpSocket>)>,
    /// The UDP addresses, with the ports that were found.
    pub udp_addrs: Vec<SocketAddr>,
    /// Who may be sent large replies over UDP.
    peers: Arc<Peers>,
    /// The service manager has bound the sockets.
    pub is_handed_over: bool,
    /// The unix socket we have made, to be removed in the end.
    made: Option<Made>,
}

impl Bound {
    /// Binds all ports the settings name. An address that this machine does not have is passed over if its entry has
    /// another one. Sockets that were handed over take the place of all that `-p`, `-l` and `-s` name.
    pub fn bind(settings: &Settings, handed_over: Vec<OwnedFd>) -> Result<Self, String> {
        let mut bound = Bound::default();
        if !handed_over.is_empty() {
            bound.is_handed_over = true;
            for socket in handed_over {
                bound.take_over(socket.into(), settings)?;
            }
        } else {
            for listen in &settings.listen {
                bound.bind_entry(listen, settings.backlog)?;
            }
        }
        for listen in &settings.udp_listen {
            for (sockets, addr) in
                bind_each(listen, "UDP ", |addr| udp::bind(addr, settings.threads))?
            {
                bound.udp.push((listen.protocol, sockets));
                bound.udp_addrs.push(addr);
            }
        }
        Ok(bound)
    }

    fn bind_entry(&mut self, listen: &Listen, backlog: i32) -> Result<(), String> {
        for (listener, addr) in bind_each(listen, "", |addr| bind_tcp(addr, backlog))? {
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

    /// One worker's UDP sockets, one for each address; `None` without UDP.
    pub(super) fn take_udp(&mut self, shared: &Shared) -> io::Result<Option<WorkerUdp>> {
        let sockets: Vec<_> = self
            .udp
            .iter_mut()
            .filter_map(|(protocol, sockets)| Some((*protocol, sockets.pop()?)))
            .map(|(protocol, socket)| Udp::new(socket, protocol, shared))
            .collect::<io::Result<_>>()?;
        let peers = self.peers.clone();
        Ok((!sockets.is_empty()).then_some(WorkerUdp { sockets, peers }))
    }

    /// Makes the unix socket, if there is to be one. To be called by the user who serves, not by root in that user's place:
    /// whoever may write to the directory may put a link where root makes, removes or gives away a file.
    pub fn bind_unix(&mut self, settings: &Settings) -> Result<(), String> {
        let Some(path) = settings
            .unix_socket
            .as_ref()
            .filter(|_| !self.is_handed_over)
        else {
            return Ok(());
        };
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
        self.doors.push(Door {
            acceptor: Acceptor::Unix(UnixListener::from_std(socket.into())),
            name: format!("unix:{}", path.display()).into(),
            protocol: settings.protocol,
            tls: None,
        });
        self.made = Made::at(path);
        Ok(())
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
    bind: impl Fn(SocketAddr) -> io::Result<(S, SocketAddr)>,
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

/// The way to wake the thread that accepts.
#[derive(Debug, Clone)]
pub struct ListenerHandle(Arc<Waker>);

impl ListenerHandle {
    /// Lets it look again whether to accept or to end.
    pub fn wake(&self) {
        // It fails only when the thread has ended.
        let _ = self.0.wake();
    }
}

/// The thread that accepts, before it runs.
#[derive(Debug)]
pub struct Listener {
    poll: Poll,
    waker: Arc<Waker>,
}

impl Listener {
    /// A listener without sockets yet.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Listener { poll, waker })
    }

    /// What wakes it: when a place has become free, or `stop` was set.
    pub fn handle(&self) -> ListenerHandle {
        ListenerHandle(self.waker.clone())
    }

    /// Accepts until `stop`, and hands the connections to the workers in turn.
    pub fn run(
        self,
        shared: &Shared,
        mut bound: Bound,
        tls: Option<&Tls>,
        workers: &[Handle],
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let Listener { mut poll, .. } = self;
        for (id, door) in bound.doors.iter_mut().enumerate() {
            let (registry, name) = (poll.registry(), &door.name);
            let fd = match &mut door.acceptor {
                Acceptor::Tcp(listener) => {
                    registry.register(listener, Token(id), Interest::READABLE)?;
                    listener.as_raw_fd()
                }
                Acceptor::Unix(listener) => {
                    registry.register(listener, Token(id), Interest::READABLE)?;
                    listener.as_raw_fd()
                }
            };
            super::tell_listening(shared, fd, door.protocol.name());
            let state = ConnState::Listening;
            let info = ConnInfo::new(
                fd,
                (&**name).into(),
                name.clone(),
                state,
                shared.clock.now().0,
            );
            shared.connections.add(Arc::new(info));
        }
        shared.connections.accepting_conns.store(1, Relaxed);
        let mut accepting = Accepting {
            shared,
            tls,
            workers,
            next: 0,
            disabled_since: None,
        };
        let mut events = Events::with_capacity(64);
        let mut pause = None;
        while !stop.load(Relaxed) {
            match poll.poll(&mut events, pause.take()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            // All of them at each event: a waker's event means that any may have clients waiting.
            let mut disabled = false;
            for door in &bound.doors {
                let accepted = accepting.accept_all(door);
                disabled |= accepted != Accepted::All;
                if accepted == Accepted::NoFiles {
                    pause = Some(NO_FILES_PAUSE);
                }
            }
            accepting.note_disabled(disabled);
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Accepted {
    /// Nobody is waiting.
    All,
    /// No place is free; a worker will wake us.
    Full,
    /// The process has no descriptors left.
    NoFiles,
}

struct Accepting<'s> {
    shared: &'s Shared,
    tls: Option<&'s Tls>,
    workers: &'s [Handle],
    next: usize,
    /// Since when clients are left in the backlog.
    disabled_since: Option<Instant>,
}

impl Accepting<'_> {
    fn accept_all(&mut self, door: &Door) -> Accepted {
        let name = &door.name;
        let (shared, connections) = (self.shared, &self.shared.connections);
        loop {
            // Only this thread takes places, so the count cannot pass the limit behind our back.
            let full =
                connections.curr_connections.load(Relaxed) >= shared.settings.conns_allowed();
            if full && !shared.settings.maxconns_fast {
                return Accepted::Full;
            }
            let (mut stream, peer) = match accept(&door.acceptor) {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Accepted::All,
                Err(error) if is_of_the_client(&error) => continue,
                Err(error) => {
                    if self.disabled_since.is_none() {
                        log::warn!("{name}: cannot accept: {error}");
                    }
                    return Accepted::NoFiles;
                }
            };
            self.note_disabled(false);
            if full {
                connections.rejected_connections.fetch_add(1, Relaxed);
                // The line fits the empty socket buffer, so it needs no waiting. There is none before a handshake.
                if door.tls.is_none() {
                    let _ = stream.write(protocol::ErrorLine::TooManyConnections.line());
                    // A request that was sent at once is read, so that it does not make the close a reset, which may
                    // overtake the line.
                    let _ = stream.end();
                    let _ = stream.discard(&mut [0; REJECTED_BYTES_MAX]);
                }
                continue;
            }
            let stream = match self.secured(stream, door.tls) {
                Ok(stream) => stream,
                Err(error) => {
                    log::warn!("{peer}: closed: {error}");
                    continue;
                }
            };
            connections.curr_connections.fetch_add(1, Relaxed);
            connections.total_connections.fetch_add(1, Relaxed);
            let now = shared.clock.now().0;
            let info = ConnInfo::new(stream.as_raw_fd(), peer, name.clone(), ConnState::Read, now);
            self.workers[self.next].send(Message::Serve(stream, Arc::new(info), door.protocol));
            self.next = (self.next + 1) % self.workers.len();
        }
    }

    /// Notes whether clients are left in the backlog from here on.
    fn note_disabled(&mut self, disabled: bool) {
        let connections = &self.shared.connections;
        match (self.disabled_since, disabled) {
            (None, true) => {
                self.disabled_since = Some(Instant::now());
                connections.listen_disabled_num.fetch_add(1, Relaxed);
                connections.accepting_conns.store(0, Relaxed);
            }
            (Some(since), false) => {
                self.disabled_since = None;
                let us = since.elapsed().as_micros() as u64;
                connections
                    .time_in_listen_disabled_us
                    .fetch_add(us, Relaxed);
                connections.accepting_conns.store(1, Relaxed);
            }
            _ => {}
        }
    }

    /// The stream with TLS around it, if its listener wants that.
    fn secured(&self, stream: Stream, cert: Option<ClientCert>) -> Result<Stream, String> {
        match (stream, cert) {
            (Stream::Tcp(socket), Some(cert)) => {
                let tls = self.tls.ok_or("TLS is not set up")?;
                tls.accept(socket, cert).map(Stream::Tls)
            }
            (stream, _) => Ok(stream),
        }
    }
}

fn accept(acceptor: &Acceptor) -> io::Result<(Stream, Box<str>)> {
    match acceptor {
        Acceptor::Tcp(listener) => {
            let (stream, addr): (TcpStream, SocketAddr) = listener.accept()?;
            // Replies go out in whole wakeups, so nothing is gained by waiting for more.
            stream.set_nodelay(true)?;
            SockRef::from(&stream).set_keepalive(true)?;
            Ok((Stream::Tcp(stream), format!("tcp:{addr}").into()))
        }
        Acceptor::Unix(listener) => {
            let (stream, _): (UnixStream, _) = listener.accept()?;
            Ok((Stream::Unix(stream), "unix".into()))
        }
    }
}

/// Errors of one client that has gone before it was accepted.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::InvalidInput
            | ErrorKind::NotConnected
    )
}
