//! Names are resolved by a task, which the runtime has a thread for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::tokio::sync::Notify;

use crate::resolve::{self, Ended, LookUp};

pub(super) type Resolver = resolve::Resolver<Notify>;

impl Ended for Notify {
    fn wake(&self) {
        self.notify_waiters();
    }

    fn spawn(look_up: LookUp<Self>) {
        ::tokio::spawn(async move {
            let answer = ::tokio::net::lookup_host((look_up.host.as_str(), look_up.port)).await;
            let answer = answer.map(Iterator::collect);
            look_up.found(answer);
        });
    }
}

impl Resolver {
    /// The next of the node's addresses. Who does not want to wait drops this.
    pub(super) async fn next(&self, now: Instant) -> Option<SocketAddr> {
        let ended = self.ended().notified();
        let mut ended = std::pin::pin!(ended);
        ended.as_mut().enable();
        self.look_up(now, Duration::MAX);
        let wait = self.addresses().is_awaited();
        if wait {
            ended.await;
        }
        self.addresses().next_address()
    }
}
