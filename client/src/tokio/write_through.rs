//! Write-through for tasks.

use std::sync::Arc;

use ::tokio::sync::Mutex as TaskMutex;

use super::AsyncClient;
use crate::write::key_locks::KeyLocks;
use crate::write::through::change;
use crate::write::{AsyncWriter, WriteError};
use client_core::ttl::Ttl;
use client_core::value::Item;

/// [`WriteThrough`](crate::write::WriteThrough) for tasks.
#[derive(Clone)]
pub struct AsyncWriteThrough<W> {
    client: AsyncClient,
    writer: Arc<W>,
    order: Arc<KeyLocks<TaskMutex<()>>>,
}

impl<W: AsyncWriter> AsyncWriteThrough<W> {
    /// Writes of `client` that go through to `writer`.
    pub fn new(client: AsyncClient, writer: W) -> Self {
        AsyncWriteThrough {
            client,
            writer: Arc::new(writer),
            order: Arc::default(),
        }
    }

    /// The client, for reads.
    pub fn client(&self) -> &AsyncClient {
        &self.client
    }

    /// The store.
    pub fn writer(&self) -> &W {
        &self.writer
    }

    /// Stores `value` in the store, then in the cache. Dropped in between, the store has it and the cache may have the old value:
    /// spawn it where that can be.
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Item>,
        ttl: impl Into<Ttl>,
    ) -> Result<(), WriteError<W::Error>> {
        let (key, item) = (key.as_ref(), value.into());
        let ttl = ttl.into();
        self.write(key, Some(&item), async || {
            self.client.set(key, &item, ttl).await
        })
        .await
    }

    /// Deletes `key` in the store, then in the cache.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), WriteError<W::Error>> {
        let key = key.as_ref();
        self.write(key, None, async || self.client.delete(key).await.map(drop))
            .await
    }

    async fn write(
        &self,
        key: &[u8],
        item: Option<&Item>,
        in_cache: impl AsyncFnOnce() -> crate::Result<()>,
    ) -> Result<(), WriteError<W::Error>> {
        let _alone = self.order.of(key).lock().await;
        let written = self.writer.write(&change(key, item)).await;
        written.map_err(WriteError::Store)?;
        match in_cache().await {
            Ok(()) => Ok(()),
            Err(error) => {
                // Better no value than the old one.
                let _ = self.client.delete(key).await;
                Err(WriteError::Cache(error))
            }
        }
    }
}
