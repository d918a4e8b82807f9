//! Who looks up the name of a node. One look-up at a time, however many wait for its end.
//!
//! ```text
//!  Resolver --due--> LookUp --in a thread, or a task--> found: the addresses; all who wait are woken
//!                       '-- dropped in whatever way --> not found: the old ones stay
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client_core::addresses::{Addresses, MOVED};

/// What those who wait for a look-up are woken by, and who carries look-ups out.
pub(crate) trait Ended: Default + Send + Sync + Sized + 'static {
    /// A look-up has ended.
    fn wake(&self);

    /// Carries it out, behind the caller.
    fn spawn(look_up: LookUp<Self>);
}

/// See the module.
pub(crate) struct Resolver<E: Ended> {
    host: String,
    port: u16,
    shared: Arc<Shared<E>>,
}

struct Shared<E> {
    addresses: Mutex<Addresses>,
    ended: E,
    /// Told when the node has moved.
    on_move: Box<dyn Fn() + Send + Sync>,
}

impl<E> Shared<E> {
    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        let addresses = self.addresses.lock();
        addresses.unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look-up under way; dropped, it has ended, in whatever way.
pub(crate) struct LookUp<E: Ended> {
    pub(crate) host: String,
    pub(crate) port: u16,
    shared: Arc<Shared<E>>,
}

impl<E: Ended> LookUp<E> {
    /// This is the answer.
    pub(crate) fn found(self, answer: io::Result<Vec<SocketAddr>>) {
        let shared = self.shared.clone();
        let moved = shared.addresses().found(&self.host, answer);
        drop(self);
        if moved {
            (shared.on_move)();
        }
    }
}

impl<E: Ended> Drop for LookUp<E> {
    fn drop(&mut self) {
        self.shared.addresses().forget_look_up();
        self.shared.ended.wake();
    }
}

impl<E: Ended> Resolver<E> {
    pub(crate) fn new(host: &str, port: u16, on_move: impl Fn() + Send + Sync + 'static) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Resolver {
            host: host.to_owned(),
            port,
            shared: Arc::new(Shared {
                addresses: Mutex::new(Addresses::new(host, port)),
                ended: E::default(),
                on_move: Box::new(on_move),
            }),
        }
    }

    /// Who looked the name up did so in another process.
    pub(crate) fn part(&self) {
        self.addresses().forget_look_up();
    }

    /// A connection could not be made.
    pub(crate) fn doubt(&self) {
        self.addresses().doubt();
    }

    /// Looks the name of a node up that is ejected, if that was not done lately.
    pub(crate) fn follow(&self, now: Instant) {
        self.look_up(now, MOVED);
    }

    /// Has the name looked up if that is due: good answers are kept for `fresh` at most.
    pub(crate) fn look_up(&self, now: Instant, fresh: Duration) {
        if self.addresses().begin_look_up(now, fresh) {
            E::spawn(LookUp {
                host: self.host.clone(),
                port: self.port,
                shared: self.shared.clone(),
            });
        }
    }

    pub(crate) fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.shared.addresses()
    }

    /// By which those are woken that wait.
    pub(crate) fn ended(&self) -> &E {
        &self.shared.ended
    }
}
