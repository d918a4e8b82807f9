//! A node's addresses. One look-up of a name at a time, however many wait for it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::tokio::sync::Notify;

/// How long a name's addresses are used before it is resolved again.
const FRESH: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Resolver {
    host: String,
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    found: Mutex<Found>,
    ended: Notify,
}

#[derive(Default)]
struct Found {
    addrs: Vec<SocketAddr>,
    /// The address to try next.
    turn: usize,
    at: Option<Instant>,
    running: bool,
}

impl Shared {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look-up under way; dropped, it has ended, in whatever way.
struct LookUp(Arc<Shared>);

impl Drop for LookUp {
    fn drop(&mut self) {
        self.0.found().running = false;
        self.0.ended.notify_waiters();
    }
}

impl Resolver {
    pub(super) fn new(host: &str, port: u16) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Resolver {
            host: host.to_owned(),
            port,
            shared: Arc::default(),
        }
    }

    /// The task that looked the name up is that of another process.
    pub(super) fn part(&self) {
        self.shared.found().running = false;
    }

    /// The next of the node's addresses. Who does not want to wait drops this.
    pub(super) async fn next(&self, now: Instant) -> Option<SocketAddr> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Some(SocketAddr::new(ip, self.port));
        }
        let ended = self.shared.ended.notified();
        let mut ended = std::pin::pin!(ended);
        ended.as_mut().enable();
        let fresh = |at| now.saturating_duration_since(at) <= FRESH;
        let wait = {
            let mut found = self.shared.found();
            if !found.at.is_some_and(fresh) && !found.running {
                found.running = true;
                self.look_up(now);
            }
            // Old addresses are better than none.
            found.running && found.addrs.is_empty()
        };
        if wait {
            ended.await;
        }
        let mut found = self.shared.found();
        let addr = *found.addrs.get(found.turn % found.addrs.len().max(1))?;
        found.turn = found.turn.wrapping_add(1);
        Some(addr)
    }

    fn look_up(&self, now: Instant) {
        let look_up = LookUp(self.shared.clone());
        let (host, port) = (self.host.clone(), self.port);
        ::tokio::spawn(async move {
            let addrs = ::tokio::net::lookup_host((host.as_str(), port)).await;
            let mut found = look_up.0.found();
            found.at = Some(now);
            match addrs {
                Ok(addrs) => found.addrs = addrs.collect(),
                Err(error) => log::warn!("{host}: {error}"),
            }
        });
    }
}
