//! The connections to one node: a bounded number, used by one operation at a time.
//!
//! ```text
//!  checkout: the connection used last, if no reply is outstanding on it; else a new one; else, at the bound, one with
//!            replies outstanding that nobody waits for; else busy: the caller waits for `freed`. A write goes behind a write
//!            that nobody waits for, so that a caller's writes keep their order
//! ```
//!
//! B1. `open` counts idle and lent connections, and never exceeds the bound. A probe's connection comes on top.
//! B2. A connection is lent to one operation. It comes back only when nobody's replies but those that were given up are
//!     outstanding, and everything is sent; otherwise it is closed.
//! B3. A reply that is watched (see [`Unawaited`](client_core::unawaited::Unawaited)) is looked for when an attempt would be over, by
//!     whatever operation is begun next, and its connection closed if it has not come.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection::Connection;
use super::resolve::Resolver;
use super::stream::Stream;
use crate::snapshot::NodePool;
use client_core::error::Failure;
use client_core::expect::Expect;
use client_core::health::Member;
use client_core::options::ClientOptions;
use client_core::request;
use client_core::routing::Ring;

/// A connection that was idle for longer is looked at before it is used: the node may have closed it.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

pub(crate) struct Pool {
    pub(super) member: Arc<Member>,
    pub(super) options: Arc<ClientOptions>,
    resolver: Resolver,
    connections: Mutex<Connections>,
    freed: Condvar,
    probe: Mutex<Option<Probe>>,
    begun: Instant,
    /// When the earliest watched reply is looked for, in milliseconds since `begun`; [`NEVER`] if there is none.
    look_at_ms: AtomicU64,
}

const NEVER: u64 = u64::MAX;

#[derive(Default)]
struct Connections {
    #[expect(clippy::vec_box, reason = "they move in and out with every operation")]
    idle: Vec<Box<Connection>>,
    open: usize,
    /// Callers that wait for `freed`. Waking costs a system call, even if nobody sleeps.
    waiting: usize,
}

struct Probe {
    connection: Box<Connection>,
    until: Instant,
}

/// A connection on loan; dropped, it is closed.
pub(super) struct Lease {
    pub(super) connection: Box<Connection>,
    _place: Place,
}

/// One of the pool's places, free again when dropped.
struct Place(Arc<Pool>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.0.connections();
        // After a fork, nothing is open.
        connections.open = connections.open.saturating_sub(1);
        let waited_for = connections.waiting > 0;
        drop(connections);
        if waited_for {
            self.0.freed.notify_one();
        }
    }
}

impl NodePool for Pool {
    fn new(member: Arc<Member>, options: Arc<ClientOptions>) -> Self {
        let (moved, its_options) = (member.clone(), options.clone());
        let on_move = move || moved.hurry(&its_options);
        Pool {
            resolver: Resolver::new(&member.node.host, member.node.port, on_move),
            member,
            options,
            connections: Mutex::default(),
            freed: Condvar::new(),
            probe: Mutex::default(),
            begun: Instant::now(),
            look_at_ms: AtomicU64::new(NEVER),
        }
    }

    fn member(&self) -> &Arc<Member> {
        &self.member
    }

    fn part(&self) {
        *self.connections() = Connections::default();
        *self.probe.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.resolver.part();
    }
}

impl Pool {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection, which may still be connecting. `careful` looks at an idle one before it is lent. `in_order` takes one on
    /// which a write is under way, if there is such, and comes behind that. `Ok(None)` if all are busy.
    pub(super) fn checkout(
        self: &Arc<Self>,
        now: Instant,
        careful: bool,
        in_order: bool,
    ) -> Result<Option<Lease>, Failure> {
        let mut connections = self.connections();
        let mut at = connections.idle.len();
        let mut chosen = None;
        while at > 0 {
            at -= 1;
            let connection = &mut connections.idle[at];
            let idle = now.saturating_duration_since(connection.idle_since);
            let good = if connection.settled() {
                (!careful && idle < TRUSTED_IDLE) || connection.stream.is_quiet()
            } else {
                idle < self.options.request_timeout && connection.read_leftovers()
            };
            if !good {
                connections.idle.remove(at);
                connections.open -= 1;
            } else if connection.settled() || (in_order && connection.is_watched()) {
                chosen = Some(at);
                break;
            }
        }
        let full = connections.open >= self.options.pool_connections_max.max(1);
        let idle = match chosen {
            Some(at) => Some(connections.idle.remove(at)),
            None if full => connections.idle.pop(),
            None => None,
        };
        if let Some(mut connection) = idle {
            connection.reused = true;
            let _place = Place(self.clone());
            return Ok(Some(Lease { connection, _place }));
        }
        if full {
            return Ok(None);
        }
        connections.open += 1;
        drop(connections);
        let _place = Place(self.clone());
        if self.member.is_shut(now) {
            return Err(Failure::SignIn);
        }
        let connection = self.open(now, now + self.options.connect_timeout)?;
        Ok(Some(Lease { connection, _place }))
    }

    /// Takes a connection back, or closes it (B2).
    pub(super) fn give_back(lease: Lease, now: Instant) {
        let Lease {
            mut connection,
            _place,
        } = lease;
        if connection.reusable() {
            connection.idle_since = now;
            let pool = &_place.0;
            let mut connections = pool.connections();
            if connection.is_watched() {
                let look_at_ms = pool.ms(now + pool.options.attempt_timeout);
                pool.look_at_ms.fetch_min(look_at_ms, Ordering::Relaxed);
            }
            // The place goes on with the connection.
            connections.open += 1;
            connections.idle.push(connection);
        }
    }

    /// Closes what is idle: one of them was found dead, so the others may be too.
    pub(super) fn drop_idle(&self) {
        let mut connections = self.connections();
        connections.open -= connections.idle.len();
        connections.idle.clear();
    }

    fn ms(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.begun).as_millis() as u64
    }

    /// True if a watched reply is to be looked for.
    #[inline]
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let look_at_ms = self.look_at_ms.load(Ordering::Relaxed);
        look_at_ms != NEVER && self.ms(now) > look_at_ms
    }

    /// Looks for the watched replies that should have come, and closes the connections on which they have not (B3).
    pub(super) fn look(&self, now: Instant) {
        let mut connections = self.connections();
        let mut look_at_ms = NEVER;
        let idle = connections.idle.len();
        connections.idle.retain_mut(|connection| {
            let by = connection.idle_since + self.options.attempt_timeout;
            if !connection.is_watched() {
                return true;
            }
            if now < by {
                look_at_ms = look_at_ms.min(self.ms(by));
                return true;
            }
            connection.read_leftovers() && !connection.is_watched()
        });
        connections.open -= idle - connections.idle.len();
        self.look_at_ms.store(look_at_ms, Ordering::Relaxed);
    }

    /// Takes what has come that nobody waits for.
    pub(super) fn listen(&self, ring: &Ring, node: usize, now: Instant) {
        let mut connections = self.connections();
        let idle = connections.idle.len();
        let stays = |connection: &mut Box<Connection>| {
            !connection.is_watched() || connection.read_leftovers()
        };
        connections.idle.retain_mut(stays);
        connections.open -= idle - connections.idle.len();
        drop(connections);
        if self.member.is_unwell() {
            self.probe(ring, node, now);
        }
    }

    /// Waits until a connection may be free.
    pub(super) fn wait(&self, timeout: Duration) {
        let mut connections = self.connections();
        if connections.idle.is_empty()
            && connections.open >= self.options.pool_connections_max.max(1)
        {
            connections.waiting += 1;
            let woken = self.freed.wait_timeout(connections, timeout);
            let (mut connections, _) = woken.unwrap_or_else(PoisonError::into_inner);
            connections.waiting -= 1;
        }
    }

    /// A connection could not be made: its address may be an old one.
    pub(super) fn doubt(&self) {
        self.resolver.doubt();
    }

    fn open(&self, now: Instant, resolve_by: Instant) -> Result<Box<Connection>, Failure> {
        let node = &self.member.node;
        let stream = match node.socket_path() {
            Some(path) => Stream::open_unix(path),
            None => {
                let addr = self.resolver.next(now, resolve_by);
                Stream::open(addr.ok_or(Failure::Connect)?, &node.host, &self.options)
            }
        };
        let stream = stream.map_err(|error| {
            log::debug!("{}: {error}", self.member.name);
            self.doubt();
            match error.kind() {
                io::ErrorKind::InvalidInput => self.member.no_tls(&error, &self.options, now),
                _ => Failure::Connect,
            }
        })?;
        let login = self.options.login.as_ref();
        let login = login.map(|login| Bytes::from(request::login(&login.user, &login.password)));
        let (member, options) = (self.member.clone(), self.options.clone());
        Ok(Box::new(Connection::new(
            stream,
            login,
            (member, options),
            now,
        )))
    }

    /// Begins a probe that is due, or looks how the one under way is doing. Never waits.
    pub(super) fn probe(&self, ring: &Ring, node: usize, now: Instant) {
        ring.tend(node, now, &self.options);
        if !self.member.is_in() {
            self.resolver.follow(now);
        }
        // Somebody else looks after it.
        let Ok(mut slot) = self.probe.try_lock() else {
            return;
        };
        if slot.is_none() {
            let Some(request) = self.member.probe_due(now) else {
                return;
            };
            let opened = self.open(now, now).and_then(|mut connection| {
                connection.begin(&request, Expect::Noop)?;
                Ok(connection)
            });
            match opened {
                Ok(connection) => {
                    let until = now + self.options.connect_timeout + self.options.attempt_timeout;
                    *slot = Some(Probe { connection, until });
                }
                Err(_) => return ring.probe_failed(node, now, &self.options),
            }
        }
        let Some(probe) = slot.as_mut() else { return };
        match probe.connection.look(|_, _| Ok(())) {
            Ok(true) => {
                *slot = None;
                let back = ring.probe_answered(node, now, &self.options);
                if back && let Some(metrics) = &self.options.metrics {
                    metrics.returned(&self.member.name);
                }
            }
            Ok(false) if now < probe.until => {}
            _ => {
                *slot = None;
                self.doubt();
                ring.probe_failed(node, now, &self.options);
            }
        }
    }
}
