//! Write-through: the store first, then the cache.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ketch_client_macros::both;

use super::key_locks::Order;
use super::{Change, WriteError, Writer};
use crate::Client;
use client_core::ttl::Ttl;
use client_core::value::Item;

#[cfg(feature = "tokio")]
use super::AsyncWriter;
#[cfg(feature = "tokio")]
use crate::AsyncClient;
#[cfg(feature = "tokio")]
use crate::tokio::write::AsyncOrder;

/// A client whose writes go to the store first, and to the cache when the store has them. A clone is the same.
///
/// If the store refuses, the cache is not touched. If the cache fails behind the store, the key is deleted there as far as it can
/// be, and the caller is told ([`WriteError::Cache`]).
///
/// ```no_run
/// # use ketch_client::{AsyncClient, write::{AsyncWriteThrough, AsyncWriter}};
/// # async fn example(client: AsyncClient, table: impl AsyncWriter) {
/// let users = AsyncWriteThrough::new(client, table);
/// if let Err(error) = users.set("user:7", "ann", None).await {
///     eprintln!("{error}");
/// }
/// # }
/// ```
#[both]
pub struct AsyncWriteThrough<W> {
    client: AsyncClient,
    writer: Arc<W>,
    order: Arc<AsyncOrder>,
}

#[both]
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

    /// Stores `value` in the store, then in the cache. (A future that is dropped in between leaves it in the store alone, and the cache
    /// may have the old value: spawn it where that can be.)
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Item>,
        ttl: impl Into<Ttl>,
    ) -> Result<(), WriteError<W::Error>> {
        let (item, ttl) = (value.into(), ttl.into());
        self.write(key.as_ref(), Some((&item, ttl))).await
    }

    /// Deletes `key` in the store, then in the cache.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), WriteError<W::Error>> {
        self.write(key.as_ref(), None).await
    }

    async fn write(
        &self,
        key: &[u8],
        value: Option<(&Item, Ttl)>,
    ) -> Result<(), WriteError<W::Error>> {
        let change = Change {
            key: Bytes::copy_from_slice(key),
            item: value.map(|(item, _)| item.clone()),
        };
        let _alone = self.order.lock(key).await;
        let written = self.writer.write(&[change]).await;
        written.map_err(WriteError::Store)?;
        let written = match value {
            Some((item, ttl)) => self.client.set(key, item, ttl).await,
            None => self.client.delete(key).await.map(drop),
        };
        let Err(error) = written else {
            return Ok(());
        };
        // Better no value than the old one.
        let _ = self.client.delete(key).await;
        Err(WriteError::Cache(error))
    }
}

#[both]
impl<W> Clone for AsyncWriteThrough<W> {
    fn clone(&self) -> Self {
        AsyncWriteThrough {
            client: self.client.clone(),
            writer: self.writer.clone(),
            order: self.order.clone(),
        }
    }
}

#[both]
impl<W> fmt::Debug for AsyncWriteThrough<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("WriteThrough");
        debug.field("client", &self.client).finish_non_exhaustive()
    }
}
