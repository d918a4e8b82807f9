//! A node's addresses. Names are resolved by a thread of their own, so that nobody waits longer than they want to.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a name's addresses are used before it is resolved again.
const FRESH: Duration = Duration::from_secs(30);

pub(super) struct Resolver {
    host: String,
    port: u16,
    found: Arc<(Mutex<Found>, Condvar)>,
}

#[derive(Default)]
struct Found {
    addrs: Vec<SocketAddr>,
    /// The address to try next.
    turn: usize,
    at: Option<Instant>,
    running: bool,
}

impl Resolver {
    pub(super) fn new(host: &str, port: u16) -> Self {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let addrs = literal
            .parse::<IpAddr>()
            .map(|ip| vec![SocketAddr::new(ip, port)]);
        let found = Found {
            addrs: addrs.unwrap_or_default(),
            ..Found::default()
        };
        Resolver {
            host: host.to_owned(),
            port,
            found: Arc::new((Mutex::new(found), Condvar::new())),
        }
    }

    /// The thread that looked the name up is that of another process.
    pub(super) fn part(&self) {
        let mut found = self.found.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.running = false;
    }

    /// The next of the node's addresses, if one is known by `until`.
    pub(super) fn next(&self, now: Instant, until: Instant) -> Option<SocketAddr> {
        let (lock, ready) = &*self.found;
        let mut found = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let is_name = found.at.is_some() || found.addrs.is_empty();
        let stale = found
            .at
            .is_none_or(|at| now.saturating_duration_since(at) > FRESH);
        if is_name && stale && !found.running {
            found.running = true;
            let (host, port, shared) = (self.host.clone(), self.port, self.found.clone());
            let spawned = std::thread::Builder::new()
                .name("resolver".to_owned())
                .spawn(move || {
                    let addrs = (host.as_str(), port).to_socket_addrs();
                    let mut found = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                    match addrs {
                        Ok(addrs) => found.addrs = addrs.collect(),
                        Err(error) => log::warn!("{host}: {error}"),
                    }
                    (found.at, found.running) = (Some(Instant::now()), false);
                    shared.1.notify_all();
                });
            found.running = spawned.is_ok();
        }
        // Old addresses are better than none.
        while found.addrs.is_empty() && found.running {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            found = ready
                .wait_timeout(found, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let addr = *found.addrs.get(found.turn % found.addrs.len().max(1))?;
        found.turn = found.turn.wrapping_add(1);
        Some(addr)
    }
}
