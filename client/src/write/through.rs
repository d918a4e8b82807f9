//! Write-through: the store first, then the cache.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::key_locks::KeyLocks;
use super::{Change, WriteError, Writer};
use crate::Client;
use client_core::ttl::Ttl;
use client_core::value::Item;

/// A client whose writes go to the store first, and to the cache when the store has them. A clone is the same.
///
/// If the store refuses, the cache is not touched. If the cache fails behind the store, the key is deleted there as far as it can
/// be, and the caller is told ([`WriteError::Cache`]).
///
/// ```no_run
/// # use ketch_client::{Client, write::{WriteThrough, Writer}};
/// # fn example(client: Client, table: impl Writer) {
/// let users = WriteThrough::new(client, table);
/// if let Err(error) = users.set("user:7", "ann", None) {
///     eprintln!("{error}");
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct WriteThrough<W> {
    client: Client,
    writer: Arc<W>,
    order: Arc<KeyLocks<Mutex<()>>>,
}

pub(crate) fn change(key: &[u8], item: Option<&Item>) -> [Change; 1] {
    [Change {
        key: Bytes::copy_from_slice(key),
        item: item.cloned(),
    }]
}

impl<W: Writer> WriteThrough<W> {
    /// Writes of `client` that go through to `writer`.
    pub fn new(client: Client, writer: W) -> Self {
        WriteThrough {
            client,
            writer: Arc::new(writer),
            order: Arc::default(),
        }
    }

    /// The client, for reads.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The store.
    pub fn writer(&self) -> &W {
        &self.writer
    }

    /// Stores `value` in the store, then in the cache.
    pub fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Item>,
        ttl: impl Into<Ttl>,
    ) -> Result<(), WriteError<W::Error>> {
        let (key, item) = (key.as_ref(), value.into());
        self.write(key, Some(&item), || self.client.set(key, &item, ttl))
    }

    /// Deletes `key` in the store, then in the cache.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), WriteError<W::Error>> {
        let key = key.as_ref();
        self.write(key, None, || self.client.delete(key).map(drop))
    }

    fn write(
        &self,
        key: &[u8],
        item: Option<&Item>,
        in_cache: impl FnOnce() -> crate::Result<()>,
    ) -> Result<(), WriteError<W::Error>> {
        let _alone = self.order.of(key).lock();
        let _alone = _alone.unwrap_or_else(PoisonError::into_inner);
        self.writer
            .write(&change(key, item))
            .map_err(WriteError::Store)?;
        in_cache().map_err(|error| {
            // Better no value than the old one.
            let _ = self.client.delete(key);
            WriteError::Cache(error)
        })
    }
}
