//! How the blocking client carries out what is written over a [`Front`]: each future is ready when it is first polled.

use std::future::{Future, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use super::pool::Pool;
use super::{Client, drive};
use crate::front::{Front, done};
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use client_core::Operation;
use client_core::options::ClientOptions;
use client_core::routing::Ring;

impl Front for Client {
    type Pool = Pool;

    /// Each is a thread.
    const REFRESHES_MAX: usize = 16;

    fn shared(&self) -> &Shared<Pool> {
        &self.shared
    }

    fn options(&self) -> &Arc<ClientOptions> {
        &self.options
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn tend(pool: &Pool, ring: &Arc<Ring>, node: usize, now: Instant) {
        if pool.is_overdue(now) {
            pool.look(now);
        }
        if pool.member.is_unwell() {
            pool.probe(ring, node, now);
        }
    }

    fn drive<O: Operation + Send>(
        &self,
        operation: &mut O,
        snapshot: &Snapshot<Pool>,
    ) -> impl Future<Output = ()> + Send {
        drive::drive(operation, snapshot, &self.shared.options);
        ready(())
    }

    fn until<T: Send>(
        &self,
        at: Instant,
        event: impl Future<Output = T> + Send,
    ) -> impl Future<Output = Option<T>> + Send {
        ready(park_until(at, event))
    }

    fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send {
        work
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Without a thread nothing is lost but the work.
        let _ = thread::Builder::new()
            .name("ketch-refresh".into())
            .spawn(|| done(work));
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for `event` in this thread.
fn park_until<T>(at: Instant, event: impl Future<Output = T>) -> Option<T> {
    let mut event = pin!(event);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut task = Task::from_waker(&waker);
    loop {
        if let Poll::Ready(result) = event.as_mut().poll(&mut task) {
            return Some(result);
        }
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads::flights::{Flights, Landing};
    use std::time::Duration;

    #[test]
    fn threads_wait_until_they_are_woken_or_late() {
        let flights = Flights::default();
        let rider = flights.enter(&b"k"[..].into());
        assert!(park_until(Instant::now(), rider.landed()).is_none());
        let other = flights.enter(&b"k"[..].into());
        let far = Instant::now() + Duration::from_secs(600);
        thread::scope(|scope| {
            let waits = scope.spawn(|| park_until(far, rider.landed()));
            other.land(Landing::Failed("no".into()));
            let landing = waits.join().expect("it does not panic");
            assert!(matches!(landing, Some(Landing::Failed(_))));
        });
    }
}
