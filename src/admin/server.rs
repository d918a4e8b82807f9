//! The thread: one poll over its listeners and connections.
//!
//! Sv1. A connection is open for at most [`HTTP_CONNS_MAX`] others to come: then the quietest one ends.
//! Sv2. All connections together hold at most [`HELD_MAX`] bytes, and one request or reply more.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::conn::{Conn, Next};
use super::routes::Routes;
use crate::net::{Stream, Tls, take};
use crate::settings::{ClientCert, HTTP_CONNS_MAX, Settings};
use crate::state::Shared;

/// Bytes of requests that have not come whole and of replies that have not been taken, over all connections.
const HELD_MAX: usize = 64 << 20;
const EVENTS_MAX: usize = 128;
/// Ids from here on are listeners.
const LISTENER_MIN: usize = usize::MAX / 2;
/// How often deadlines are looked at, and whether to stop; in a process that is to end this is the delay.
const TICK: Duration = Duration::from_millis(100);
/// A pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The listeners, before the thread runs.
#[derive(Debug)]
pub struct Admin {
    listeners: Vec<TcpListener>,
    tls: Option<Arc<Tls>>,
    routes: Routes,
}

impl Admin {
    /// Binds what `--http` names, and reads the token's file; `None` without the option. The error names the address or
    /// the file. `tls` is the server's, for `--http-tls`.
    /// Listeners that a server before had are `found`, and not bound again.
    pub fn bind(
        settings: &Settings,
        tls: Option<Arc<Tls>>,
        found: &mut Vec<OwnedFd>,
    ) -> Result<Option<Self>, String> {
        if settings.http.listen.is_empty() {
            return Ok(None);
        }
        let routes = Routes::new(settings)?;
        let mut listeners = Vec::new();
        for &addr in &settings.http.listen {
            let listener = match take(found, addr) {
                Some((there, _)) => Ok(TcpListener::from_std(there.into())),
                None => TcpListener::bind(addr),
            };
            listeners.push(
                listener.map_err(|error| format!("--http {addr}: cannot listen there: {error}"))?,
            );
        }
        Ok(Some(Admin {
            listeners,
            tls: tls.filter(|_| settings.http.tls),
            routes,
        }))
    }

    /// The addresses, with the ports that the system has chosen.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        let addrs = self.listeners.iter();
        addrs
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Copies of the listeners' descriptors, to be handed to another process.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        let listeners = self.listeners.iter();
        listeners
            .map(|listener| listener.as_fd().try_clone_to_owned())
            .collect()
    }

    /// Serves until `stop` is set.
    pub fn run(&mut self, shared: &Shared, stop: &AtomicBool) -> io::Result<()> {
        let Admin {
            listeners,
            tls,
            routes,
        } = self;
        let mut poll = Poll::new()?;
        for (index, listener) in listeners.iter_mut().enumerate() {
            let token = Token(LISTENER_MIN + index);
            poll.registry()
                .register(listener, token, Interest::READABLE)?;
        }
        let mut serving = Serving {
            shared,
            routes,
            tls: tls.as_deref(),
            conns: Slab::new(),
            again: Vec::new(),
            began: Instant::now(),
        };
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut accept_again: Option<Instant> = None;
        while !stop.load(Relaxed) {
            let wait = if serving.again.is_empty() {
                TICK
            } else {
                Duration::ZERO
            };
            match poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            let again = std::mem::take(&mut serving.again);
            let now_ms = serving.now_ms();
            let mut accept = accept_again.is_some_and(|at| at <= Instant::now());
            for event in &events {
                match event.token().0 {
                    LISTENER_MIN.. => accept |= accept_again.is_none(),
                    id => serving.turn(id, now_ms),
                }
            }
            for id in again {
                serving.turn(id, now_ms);
            }
            if accept {
                accept_again = None;
                for listener in &*listeners {
                    if serving.accept(listener, &poll, now_ms).is_err() {
                        accept_again = Some(Instant::now() + ACCEPT_PAUSE);
                    }
                }
            }
            serving.close_late(now_ms);
        }
        for listener in listeners {
            poll.registry().deregister(listener)?;
        }
        Ok(())
    }
}

struct Serving<'s> {
    shared: &'s Shared,
    routes: &'s Routes,
    tls: Option<&'s Tls>,
    conns: Slab<Conn>,
    /// Who goes on after the others had their turn.
    again: Vec<usize>,
    began: Instant,
}

impl Serving<'_> {
    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Takes all who wait.
    fn accept(&mut self, listener: &TcpListener, poll: &Poll, now_ms: u64) -> io::Result<()> {
        loop {
            let (socket, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Whoever gave up while it waited.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::warn!("http: no connection is accepted: {error}");
                    return Err(error);
                }
            };
            if self.conns.len() >= HTTP_CONNS_MAX {
                self.close_quietest();
            }
            if let Err(reason) = self.add(socket, peer, poll, now_ms) {
                log::info!("http: {peer}: closed: {reason}");
            }
        }
    }

    fn add(
        &mut self,
        socket: TcpStream,
        peer: SocketAddr,
        poll: &Poll,
        now_ms: u64,
    ) -> Result<(), String> {
        let _ = socket.set_nodelay(true);
        let mut stream = match self.tls {
            Some(tls) => Stream::Tls(tls.accept(socket, ClientCert::Ignored)?),
            None => Stream::Tcp(socket),
        };
        let slot = self.conns.vacant_entry();
        let id = slot.key();
        stream
            .register(poll.registry(), Token(id))
            .map_err(|error| error.to_string())?;
        log::debug!("http: <{} {peer}", stream.as_raw_fd());
        slot.insert(Conn::new(stream, self.routes.limits(), now_ms));
        self.turn(id, now_ms);
        Ok(())
    }

    fn turn(&mut self, id: usize, now_ms: u64) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        let (routes, shared) = (self.routes, self.shared);
        let next = conn.turn(now_ms, |request| routes.answer(shared, request));
        match next {
            Next::Wait => {}
            Next::Again => self.again.push(id),
            Next::Close => _ = self.conns.remove(id),
        }
        self.keep_bounds();
    }

    fn close_quietest(&mut self) {
        let quietest = self.conns.iter().min_by_key(|(_, conn)| conn.heard_ms());
        if let Some((id, _)) = quietest {
            self.conns.remove(id);
        }
    }

    /// Ends connections that hold most, until all together hold no more than they may.
    fn keep_bounds(&mut self) {
        loop {
            let held: usize = self.conns.iter().map(|(_, conn)| conn.held()).sum();
            if held <= HELD_MAX || self.conns.len() < 2 {
                return;
            }
            let largest = self.conns.iter().max_by_key(|(_, conn)| conn.held());
            if let Some((id, conn)) = largest {
                log::warn!("http: closed a connection that held {} bytes", conn.held());
                self.conns.remove(id);
            }
        }
    }

    fn close_late(&mut self, now_ms: u64) {
        let mut late = Vec::new();
        for (id, conn) in &mut self.conns {
            if conn.is_late(now_ms) {
                late.push(id);
            }
        }
        for id in late {
            // Whoever sends half a request hears why it ends.
            self.conns[id].tell_late();
            self.conns.remove(id);
        }
    }
}
