//! Write-behind for tasks: the queue is emptied by a task of its own.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ::tokio::sync::{Mutex as TaskMutex, Notify};
use ::tokio::time;

use super::AsyncClient;
use crate::load::{LoadError, LoadOptions};
use crate::write::key_locks::KeyLocks;
use crate::write::queue::{Next, Queue};
use crate::write::{AsyncWriter, WriteBehindOptions, WriteBehindStats, WriteError};
use client_core::ttl::Ttl;
use client_core::value::Item;

/// [`WriteBehind`](crate::write::WriteBehind) for tasks.
///
/// A clone is the same. When the last is dropped, the task goes on until what waits is written, if the runtime lives that long;
/// [`close`](Self::close) waits for that.
#[derive(Clone)]
pub struct AsyncWriteBehind {
    client: AsyncClient,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    waiting: Arc<Waiting>,
    order: KeyLocks<TaskMutex<()>>,
    options: WriteBehindOptions,
}

#[derive(Debug)]
struct Waiting {
    queue: Mutex<Queue>,
    /// For the task that empties the queue.
    changed: Notify,
    /// For those who wait for room, or for the end of a batch.
    ended: Notify,
}

impl Waiting {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `until` says so.
    async fn wait(&self, mut until: impl FnMut(&mut Queue) -> bool) {
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            ended.as_mut().enable();
            if until(&mut self.queue()) {
                return;
            }
            ended.await;
        }
    }
}

impl AsyncWriteBehind {
    /// Writes of `client` that `writer` is given later, by a task of the runtime that this is called in.
    pub fn new<W: AsyncWriter>(
        client: AsyncClient,
        writer: W,
        options: WriteBehindOptions,
    ) -> Self {
        let waiting = Arc::new(Waiting {
            queue: Mutex::new(Queue::new(options.clone())),
            changed: Notify::new(),
            ended: Notify::new(),
        });
        ::tokio::spawn(empty(waiting.clone(), writer));
        AsyncWriteBehind {
            client,
            inner: Arc::new(Inner {
                waiting,
                order: KeyLocks::default(),
                options,
            }),
        }
    }

    /// The client.
    pub fn client(&self) -> &AsyncClient {
        &self.client
    }

    /// Stores `value` in the cache, and later in the store. Waits while the queue is full.
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Item>,
        ttl: impl Into<Ttl>,
    ) -> Result<(), WriteError<Infallible>> {
        let (key, item, ttl) = (key.as_ref(), value.into(), ttl.into());
        self.write(key, Some(&item), async || {
            self.client.set(key, &item, ttl).await
        })
        .await
    }

    /// Deletes `key` in the cache, and later in the store. Waits while the queue is full.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), WriteError<Infallible>> {
        let key = key.as_ref();
        self.write(key, None, async || self.client.delete(key).await.map(drop))
            .await
    }

    async fn write(
        &self,
        key: &[u8],
        item: Option<&Item>,
        in_cache: impl AsyncFnOnce() -> crate::Result<()>,
    ) -> Result<(), WriteError<Infallible>> {
        let Inner {
            waiting,
            order,
            options,
        } = &*self.inner;
        let _alone = order.of(key).lock().await;
        let mut closed = false;
        let pushed = waiting.wait(|queue| {
            closed = queue.is_closed();
            closed || queue.push(key, item.cloned(), Instant::now())
        });
        let pushed = time::timeout(options.full_timeout, pushed).await.is_ok();
        if closed {
            return Err(WriteError::Closed);
        }
        if !pushed {
            return Err(WriteError::Full);
        }
        waiting.changed.notify_one();
        match in_cache().await {
            Ok(()) => Ok(()),
            Err(error) => {
                // Better no value than the old one: the store will have the new one.
                let _ = self.client.delete(key).await;
                Err(WriteError::Cache(error))
            }
        }
    }

    /// The value of `key`: what the cache has, or else what waits to be written.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> crate::Result<Option<Item>> {
        let key = key.as_ref();
        let found = self.client.get(key).await;
        match (found, self.inner.waiting.queue().waiting(key)) {
            (Ok(None) | Err(_), Some(waiting)) => Ok(waiting),
            (found, _) => found,
        }
    }

    /// As [`AsyncClient::get_or_load`], but what waits to be written is taken instead of what the store still has.
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
        let load = async || {
            let waiting = self.inner.waiting.queue().waiting(key);
            match waiting {
                Some(waiting) => Ok(waiting),
                None => loader().await.map(|value| value.map(Into::into)),
            }
        };
        self.client.get_or_load(key, options, load).await
    }

    /// Waits until all that waits now is in the store, or is lost.
    pub async fn flush(&self) {
        let waiting = &self.inner.waiting;
        let turn = waiting.queue().flush();
        waiting.changed.notify_one();
        waiting.wait(|queue| queue.is_flushed(turn)).await;
    }

    /// Takes no more changes, and waits until what waits is written, `close_timeout` at most. Gives what became of all changes.
    pub async fn close(&self) -> WriteBehindStats {
        let waiting = &self.inner.waiting;
        self.inner.close();
        let is_done = waiting.wait(|queue| queue.stats().waiting == 0);
        let timeout = self.inner.options.close_timeout;
        if time::timeout(timeout, is_done).await.is_err() {
            let lost = waiting.queue().give_up();
            log::error!("{lost} changes could not be written in time, and are lost");
        }
        self.stats()
    }

    /// What became of the changes so far.
    pub fn stats(&self) -> WriteBehindStats {
        self.inner.waiting.queue().stats()
    }
}

impl Inner {
    fn close(&self) {
        self.waiting.queue().close();
        self.waiting.changed.notify_one();
        self.waiting.ended.notify_waiters();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// Counts what is lost if the runtime ends before the queue is over, or the writer panics.
struct Emptying(Arc<Waiting>);

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
async fn empty<W: AsyncWriter>(waiting: Arc<Waiting>, writer: W) {
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
