//! A node's addresses. Names are resolved by a thread of their own, so that nobody waits longer than they want to.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use client_core::addresses::{Addresses, MOVED};

pub(crate) struct Resolver {
    host: String,
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    addresses: Mutex<Addresses>,
    ended: Condvar,
    /// Told when the node has moved.
    on_move: Box<dyn Fn() + Send + Sync>,
}

impl Shared {
    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver {
    pub(crate) fn new(host: &str, port: u16, on_move: impl Fn() + Send + Sync + 'static) -> Self {
        Resolver {
            host: host.to_owned(),
            port,
            shared: Arc::new(Shared {
                addresses: Mutex::new(Addresses::new(host, port)),
                ended: Condvar::new(),
                on_move: Box::new(on_move),
            }),
        }
    }

    /// The thread that looked the name up is that of another process.
    pub(crate) fn part(&self) {
        self.shared.addresses().forget_look_up();
    }

    /// A connection could not be made.
    pub(crate) fn doubt(&self) {
        self.shared.addresses().doubt();
    }

    /// Looks the name of a node up that is ejected, if that was not done lately.
    pub(crate) fn follow(&self, now: Instant) {
        self.look_up(&mut self.shared.addresses(), now, MOVED);
    }

    /// The next of the node's addresses, if one is known by `until`.
    pub(crate) fn next(&self, now: Instant, until: Instant) -> Option<SocketAddr> {
        let mut addresses = self.shared.addresses();
        self.look_up(&mut addresses, now, Duration::MAX);
        while addresses.is_awaited() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.shared.ended.wait_timeout(addresses, left);
            addresses = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        addresses.next_address()
    }

    fn look_up(&self, addresses: &mut Addresses, now: Instant, fresh: Duration) {
        if !addresses.begin_look_up(now, fresh) {
            return;
        }
        let (host, port, shared) = (self.host.clone(), self.port, self.shared.clone());
        let spawned = thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || {
                let answer = (host.as_str(), port).to_socket_addrs();
                let moved = shared
                    .addresses()
                    .found(&host, answer.map(Iterator::collect));
                shared.ended.notify_all();
                if moved {
                    (shared.on_move)();
                }
            });
        if spawned.is_err() {
            addresses.forget_look_up();
        }
    }
}
