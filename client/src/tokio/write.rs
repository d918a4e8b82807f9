//! Write-behind and write-through for tasks: the queue is emptied by a task of its own.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::tokio::sync::{Mutex as TaskMutex, MutexGuard as TaskMutexGuard, Notify};
use ::tokio::time;

use crate::load::{LoadError, LoadOptions};
use crate::write::key_locks::KeyLocks;
use crate::write::queue::{Next, Queue};
use crate::write::{AsyncWriteBehind, AsyncWriter};
use client_core::value::Item;

/// Keeps the writes of one key in one order.
pub(crate) type AsyncOrder = KeyLocks<TaskMutex<()>>;

impl AsyncOrder {
    /// Waits until nobody else writes the key.
    pub(crate) async fn lock(&self, key: &[u8]) -> TaskMutexGuard<'_, ()> {
        self.of(key).lock().await
    }
}

/// The queue, and who waits for it.
#[derive(Debug)]
pub(crate) struct AsyncWaiting {
    queue: Mutex<Queue>,
    /// For the task that empties the queue.
    changed: Notify,
    /// For those who wait for room, or for the end of a batch.
    ended: Notify,
}

impl AsyncWaiting {
    /// A queue that a task empties, which begins now.
    pub(crate) fn emptied_by<W: AsyncWriter>(writer: W, queue: Queue) -> Arc<Self> {
        let waiting = Arc::new(AsyncWaiting {
            queue: Mutex::new(queue),
            changed: Notify::new(),
            ended: Notify::new(),
        });
        ::tokio::spawn(empty(waiting.clone(), writer));
        waiting
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `until` says so, or for `at_most`; false if that time is over.
    pub(crate) async fn wait(
        &self,
        at_most: Duration,
        mut until: impl FnMut(&mut Queue) -> bool,
    ) -> bool {
        let waited = async {
            loop {
                let ended = self.ended.notified();
                let mut ended = std::pin::pin!(ended);
                ended.as_mut().enable();
                if until(&mut self.queue()) {
                    return;
                }
                ended.await;
            }
        };
        time::timeout(at_most, waited).await.is_ok()
    }

    /// There is something to write.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Nothing is taken any more.
    pub(crate) fn close(&self) {
        self.queue().close();
        self.wake();
        self.ended.notify_waiters();
    }
}

impl AsyncWriteBehind {
    /// As [`AsyncClient::get_or_load`](crate::AsyncClient::get_or_load), but what waits to be written is taken instead of what the store
    /// still has.
    pub async fn get_or_load<V: Into<Item>, E: fmt::Display, L>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> L,
    ) -> Result<Option<Item>, LoadError<E>>
    where
        L: Future<Output = Result<Option<V>, E>>,
    {
        let key = key.as_ref();
        let load = async || match self.waiting(key) {
            Some(waiting) => Ok(waiting),
            None => loader().await.map(|value| value.map(Into::into)),
        };
        self.client.get_or_load(key, options, load).await
    }
}

/// Counts what is lost if the runtime ends before the queue is over, or the writer panics.
struct Emptying(Arc<AsyncWaiting>);

impl Drop for Emptying {
    fn drop(&mut self) {
        let lost = {
            let mut queue = self.0.queue();
            queue.close();
            queue.give_up()
        };
        if lost > 0 {
            log::error!("{lost} changes are lost: the task that writes them has ended");
        }
        self.0.ended.notify_waiters();
    }
}

/// What the task does until the queue is over.
async fn empty<W: AsyncWriter>(waiting: Arc<AsyncWaiting>, writer: W) {
    let emptying = Emptying(waiting);
    let waiting = &emptying.0;
    loop {
        let next = waiting.queue().next(Instant::now());
        match next {
            Next::Over => return,
            Next::Nothing => waiting.changed.notified().await,
            Next::At(at) => {
                let pause = at.saturating_duration_since(Instant::now());
                let _ = time::timeout(pause, waiting.changed.notified()).await;
            }
            Next::Write(changes) => {
                let error = writer.write(&changes).await.err();
                let error = error.as_ref().map(|error| error as &dyn fmt::Display);
                waiting.queue().ended(error, Instant::now());
                waiting.ended.notify_waiters();
            }
        }
    }
}
