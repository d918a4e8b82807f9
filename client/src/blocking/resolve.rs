//! Names are resolved by a thread of their own, so that nobody waits longer than they want to.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Condvar, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::resolve::{self, Ended, LookUp};

pub(crate) type Resolver = resolve::Resolver<Condvar>;

impl Ended for Condvar {
    fn wake(&self) {
        self.notify_all();
    }

    fn spawn(look_up: LookUp<Self>) {
        let thread = thread::Builder::new().name("resolver".to_owned());
        // Without a thread it is dropped, and has ended.
        let _ = thread.spawn(move || {
            let answer = (look_up.host.as_str(), look_up.port).to_socket_addrs();
            look_up.found(answer.map(Iterator::collect));
        });
    }
}

impl Resolver {
    /// The next of the node's addresses, if one is known by `until`.
    pub(crate) fn next(&self, now: Instant, until: Instant) -> Option<SocketAddr> {
        self.look_up(now, Duration::MAX);
        let mut addresses = self.addresses();
        while addresses.is_awaited() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.ended().wait_timeout(addresses, left);
            addresses = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        addresses.next_address()
    }
}
