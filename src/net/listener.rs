//! The thread that accepts.
//!
//! A connection's place (`-c`) is taken here and given back by its worker. When all are taken, a client is either told
//! so and closed (`maxconns_fast`, the default), or left in the backlog until a worker wakes this thread. When the process
//! has no descriptors left, clients are left there as well. `listen_disabled_num` counts how often it came to that.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use mio::net::{TcpStream, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::SockRef;

use super::bind::{Acceptor, Bound, Door};
use super::handles::{Handle, ListenerHandle, Message};
use super::stream::Stream;
use super::tls::Tls;
use crate::settings::ClientCert;
use crate::state::{ConnInfo, ConnState, Shared};
use crate::sys;

/// How long accepting pauses when the process has no descriptors left.
const NO_FILES_PAUSE: Duration = Duration::from_millis(10);

/// Bytes read of a client for whom there is no place.
const REJECTED_BYTES_MAX: usize = 4 << 10;

const WAKER: Token = Token(usize::MAX);

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
        ListenerHandle::new(self.waker.clone())
    }

    /// Accepts until `stop`, and hands the connections to the workers in turn. Gives the sockets back.
    pub fn run(
        self,
        shared: &Shared,
        mut bound: Bound,
        tls: Option<&Tls>,
        workers: &[Handle],
        stop: &AtomicBool,
    ) -> io::Result<Bound> {
        let Listener { mut poll, .. } = self;
        let mut infos = Vec::new();
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
            let info = Arc::new(info);
            shared.connections.add(info.clone());
            infos.push(info);
        }
        shared.connections.counts.accepting_conns.store(1, Relaxed);
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
            match poll.poll(&mut events, pause) {
                // A stopped process that goes on comes by here: who waits for descriptors still waits.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            pause = None;
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
        for info in &infos {
            shared.connections.remove(info);
        }
        for door in &mut bound.doors {
            // It fails for a socket that is not registered alone.
            let _ = match &mut door.acceptor {
                Acceptor::Tcp(listener) => poll.registry().deregister(listener),
                Acceptor::Unix(listener) => poll.registry().deregister(listener),
            };
        }
        Ok(bound)
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
        let (shared, connections) = (self.shared, &self.shared.connections.counts);
        loop {
            // Only this thread takes places, so the count cannot pass the limit behind our back.
            let full = connections.curr_connections.load(Relaxed)
                >= shared.settings.conns_allowed() as u64;
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
            if sys::is_short() {
                connections.rejected_connections.fetch_add(1, Relaxed);
                continue;
            }
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
        let connections = &self.shared.connections.counts;
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
