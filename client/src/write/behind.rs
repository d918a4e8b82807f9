//! Write-behind: the queue is emptied by a [thread](super::threads), or by a task.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ketch_client_macros::both;

use super::key_locks::Order;
use super::queue::Queue;
use super::threads::Waiting;
use super::{WriteBehindOptions, WriteBehindStats, WriteError, Writer};
use crate::Client;
use client_core::ttl::Ttl;
use client_core::value::Item;

#[cfg(feature = "tokio")]
use super::AsyncWriter;
#[cfg(feature = "tokio")]
use crate::AsyncClient;
#[cfg(feature = "tokio")]
use crate::tokio::write::{AsyncOrder, AsyncWaiting};

/// A client whose writes are done when the cache has them, and go to the store later: see [`write`](super).
///
/// A clone is the same. When the last is dropped, what waits is written at once: a thread that drops it waits for that, for as long as
/// [`close_timeout`](WriteBehindOptions::close_timeout) allows; the task of an `AsyncWriteBehind` goes on behind it, if the runtime
/// lives that long, and [`close`](Self::close) waits for it.
#[both]
#[derive(Clone)]
pub struct AsyncWriteBehind {
    pub(crate) client: AsyncClient,
    inner: Arc<AsyncInner>,
}

#[both]
#[derive(Debug)]
struct AsyncInner {
    waiting: Arc<AsyncWaiting>,
    order: AsyncOrder,
    options: WriteBehindOptions,
}

#[both]
impl AsyncWriteBehind {
    /// Writes of `client` that `writer` is given later, by a thread that begins now, or a task of the runtime that this is called in.
    pub fn new<W: AsyncWriter>(
        client: AsyncClient,
        writer: W,
        options: WriteBehindOptions,
    ) -> Self {
        let waiting = AsyncWaiting::emptied_by(writer, Queue::new(options.clone()));
        let inner = Arc::new(AsyncInner {
            waiting,
            order: AsyncOrder::default(),
            options,
        });
        AsyncWriteBehind { client, inner }
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
        let (item, ttl) = (value.into(), ttl.into());
        self.write(key.as_ref(), Some((&item, ttl))).await
    }

    /// Deletes `key` in the cache, and later in the store. Waits while the queue is full.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), WriteError<Infallible>> {
        self.write(key.as_ref(), None).await
    }

    async fn write(
        &self,
        key: &[u8],
        value: Option<(&Item, Ttl)>,
    ) -> Result<(), WriteError<Infallible>> {
        let AsyncInner {
            waiting,
            order,
            options,
        } = &*self.inner;
        let _alone = order.lock(key).await;
        let mut closed = false;
        let push = |queue: &mut Queue| {
            closed = queue.is_closed();
            let item = value.map(|(item, _)| item.clone());
            closed || queue.push(key, item, Instant::now())
        };
        let pushed = waiting.wait(options.full_timeout, push).await;
        if closed {
            return Err(WriteError::Closed);
        }
        if !pushed {
            return Err(WriteError::Full);
        }
        waiting.wake();
        let written = match value {
            Some((item, ttl)) => self.client.set(key, item, ttl).await,
            None => self.client.delete(key).await.map(drop),
        };
        let Err(error) = written else {
            return Ok(());
        };
        // Better no value than the old one: the store will have the new one.
        let _ = self.client.delete(key).await;
        Err(WriteError::Cache(error))
    }

    /// The value of `key`: what the cache has, or else what waits to be written.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> crate::Result<Option<Item>> {
        let key = key.as_ref();
        let found = self.client.get(key).await;
        match (found, self.waiting(key)) {
            (Ok(None) | Err(_), Some(waiting)) => Ok(waiting),
            (found, _) => found,
        }
    }

    /// What waits to be written under `key`: a value, or that it is deleted.
    pub(crate) fn waiting(&self, key: &[u8]) -> Option<Option<Item>> {
        self.inner.waiting.queue().waiting(key)
    }

    /// Waits until all that waits now is in the store, or is lost.
    pub async fn flush(&self) {
        let waiting = &self.inner.waiting;
        let turn = waiting.queue().flush();
        waiting.wake();
        let minute = Duration::from_secs(60);
        while !waiting.wait(minute, |queue| queue.is_flushed(turn)).await {}
    }

    /// Takes no more changes, and waits until what waits is written, `close_timeout` at most. Gives what became of all changes.
    pub async fn close(&self) -> WriteBehindStats {
        self.inner.close().await;
        self.stats()
    }

    /// What became of the changes so far.
    pub fn stats(&self) -> WriteBehindStats {
        self.inner.waiting.queue().stats()
    }
}

#[both]
impl AsyncInner {
    async fn close(&self) {
        let waiting = &self.waiting;
        waiting.close();
        let is_done = |queue: &mut Queue| queue.stats().waiting == 0;
        if !waiting.wait(self.options.close_timeout, is_done).await {
            let lost = waiting.queue().give_up();
            log::error!("{lost} changes could not be written in time, and are lost");
        }
    }
}

#[both]
impl fmt::Debug for AsyncWriteBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("WriteBehind");
        debug.field("client", &self.client);
        debug.field("options", &self.inner.options);
        debug.field("stats", &self.stats()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(feature = "tokio")]
impl Drop for AsyncInner {
    fn drop(&mut self) {
        // The task does the rest.
        self.waiting.close();
    }
}
