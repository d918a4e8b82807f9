//! A node's addresses. One look-up of a name at a time, however many wait for it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::tokio::sync::Notify;

use client_core::addresses::{Addresses, MOVED};

/// See the module.
pub(super) struct Resolver {
    host: String,
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    addresses: Mutex<Addresses>,
    ended: Notify,
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

/// A look-up under way; dropped, it has ended, in whatever way.
struct LookUp(Arc<Shared>);

impl Drop for LookUp {
    fn drop(&mut self) {
        self.0.addresses().forget_look_up();
        self.0.ended.notify_waiters();
    }
}

impl Resolver {
    pub(super) fn new(host: &str, port: u16, on_move: impl Fn() + Send + Sync + 'static) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Resolver {
            host: host.to_owned(),
            port,
            shared: Arc::new(Shared {
                addresses: Mutex::new(Addresses::new(host, port)),
                ended: Notify::new(),
                on_move: Box::new(on_move),
            }),
        }
    }

    /// The task that looked the name up is that of another process.
    pub(super) fn part(&self) {
        self.shared.addresses().forget_look_up();
    }

    /// A connection could not be made.
    pub(super) fn doubt(&self) {
        self.shared.addresses().doubt();
    }

    /// Looks the name of a node up that is ejected, if that was not done lately.
    pub(super) fn follow(&self, now: Instant) {
        self.look_up(&mut self.shared.addresses(), now, MOVED);
    }

    /// The next of the node's addresses. Who does not want to wait drops this.
    pub(super) async fn next(&self, now: Instant) -> Option<SocketAddr> {
        let ended = self.shared.ended.notified();
        let mut ended = std::pin::pin!(ended);
        ended.as_mut().enable();
        let wait = {
            let mut addresses = self.shared.addresses();
            self.look_up(&mut addresses, now, Duration::MAX);
            addresses.is_awaited()
        };
        if wait {
            ended.await;
        }
        self.shared.addresses().next_address()
    }

    fn look_up(&self, addresses: &mut Addresses, now: Instant, fresh: Duration) {
        if !addresses.begin_look_up(now, fresh) {
            return;
        }
        let look_up = LookUp(self.shared.clone());
        let (host, port) = (self.host.clone(), self.port);
        ::tokio::spawn(async move {
            let answer = ::tokio::net::lookup_host((host.as_str(), port)).await;
            let answer = answer.map(Iterator::collect);
            let moved = look_up.0.addresses().found(&host, answer);
            if moved {
                (look_up.0.on_move)();
            }
        });
    }
}
