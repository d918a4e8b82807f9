//! A client whose values have types.

use std::fmt;

use ketch_client_macros::both;

use crate::Client;
use crate::codec::{self, Codec};
use crate::load::{LoadError, LoadOptions};
use client_core::error::{Error, Result};
use client_core::ttl::Ttl;
use client_core::value::Item;

#[cfg(feature = "tokio")]
use crate::AsyncClient;

/// A [`Client`] whose values have types: see [`Client::typed`]. Or an `AsyncClient`, with the same methods as futures.
#[derive(Debug, Clone)]
pub struct Typed<C, K = Client> {
    client: K,
    codec: C,
}

impl<C, K> Typed<C, K> {
    pub(crate) fn new(client: K, codec: C) -> Self {
        Typed { client, codec }
    }

    /// The client, for what needs no type.
    pub fn client(&self) -> &K {
        &self.client
    }

    fn decode<T>(&self, item: Option<Item>) -> Result<Option<T>>
    where
        C: Codec<T>,
    {
        item.map(|item| codec::decode(&self.codec, &item))
            .transpose()
    }

    fn decode_all<T>(&self, items: Vec<Result<Option<Item>>>) -> Vec<Result<Option<T>>>
    where
        C: Codec<T>,
    {
        let items = items.into_iter();
        items.map(|item| self.decode(item?)).collect()
    }

    /// The entries that can be encoded, and for all of them whether they can.
    fn encode_all<'t, T: 't, B>(
        &self,
        entries: impl IntoIterator<Item = (B, &'t T)>,
    ) -> (Vec<(B, Item)>, Vec<Result<()>>)
    where
        C: Codec<T>,
    {
        let (mut sent, mut results) = (Vec::new(), Vec::new());
        for (key, value) in entries {
            let encoded = codec::encode(&self.codec, value);
            results.push(encoded.map(|item| sent.push((key, item))));
        }
        (sent, results)
    }

    /// What a loader brought, as an item.
    fn encode_loaded<T, E>(
        &self,
        loaded: std::result::Result<Option<T>, E>,
    ) -> std::result::Result<Option<Item>, Fault<E>>
    where
        C: Codec<T>,
    {
        let value = loaded.map_err(Fault::Loader)?;
        let item = value.map(|value| codec::encode(&self.codec, &value));
        item.transpose().map_err(Fault::Codec)
    }

    fn decode_loaded<T, E>(
        &self,
        item: std::result::Result<Option<Item>, LoadError<Fault<E>>>,
    ) -> std::result::Result<Option<T>, LoadError<E>>
    where
        C: Codec<T>,
    {
        let item = item.map_err(|error| match error {
            LoadError::Loader(Fault::Loader(error)) => LoadError::Loader(error),
            LoadError::Loader(Fault::Codec(error)) | LoadError::Cache(error) => {
                LoadError::Cache(error)
            }
            LoadError::Elsewhere(words) => LoadError::Elsewhere(words),
            LoadError::Timeout => LoadError::Timeout,
            LoadError::OwnKey => LoadError::OwnKey,
        })?;
        self.decode(item).map_err(LoadError::Cache)
    }
}

/// Why a loader brings nothing.
enum Fault<E> {
    Loader(E),
    Codec(Error),
}

impl<E: fmt::Display> fmt::Display for Fault<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Loader(error) => error.fmt(f),
            Fault::Codec(error) => error.fmt(f),
        }
    }
}

#[both]
impl<C> Typed<C, AsyncClient> {
    /// As [`AsyncClient::get`].
    pub async fn get<T>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>>
    where
        C: Codec<T>,
    {
        self.decode(self.client.get(key).await?)
    }

    /// As [`AsyncClient::get_multi`].
    #[must_use = "each key has a result of its own"]
    pub async fn get_multi<T, K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<T>>>
    where
        C: Codec<T>,
    {
        self.decode_all(self.client.get_multi(keys).await)
    }

    /// As [`AsyncClient::set`].
    pub async fn set<T>(&self, key: impl AsRef<[u8]>, value: &T, ttl: impl Into<Ttl>) -> Result<()>
    where
        C: Codec<T>,
    {
        let item = codec::encode(&self.codec, value)?;
        self.client.set(key, &item, ttl).await
    }

    /// As [`AsyncClient::set_multi`]. A value that cannot be encoded is an error of its own, and the others are stored.
    #[must_use = "each key has a result of its own"]
    pub async fn set_multi<'t, T: 't, K: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = (K, &'t T)>,
        ttl: impl Into<Ttl>,
    ) -> Vec<Result<()>>
    where
        C: Codec<T>,
    {
        let (sent, mut results) = self.encode_all(entries);
        let mut stored = self.client.set_multi(sent, ttl).await.into_iter();
        for result in results.iter_mut().filter(|result| result.is_ok()) {
            *result = stored.next().unwrap_or(Ok(()));
        }
        results
    }

    /// As [`AsyncClient::add`].
    pub async fn add<T>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        ttl: impl Into<Ttl>,
    ) -> Result<bool>
    where
        C: Codec<T>,
    {
        let item = codec::encode(&self.codec, value)?;
        self.client.add(key, &item, ttl).await
    }

    /// As [`AsyncClient::update`]. A value that does not decode is an error, and stays.
    pub async fn update<T>(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>>
    where
        C: Codec<T>,
    {
        let mut fault = None;
        let changed = self.client.update(key, ttl, |item: Option<&Item>| {
            let mut new = || {
                let old = item
                    .map(|item| codec::decode(&self.codec, item))
                    .transpose()?;
                let new = change(old);
                new.map(|new| codec::encode(&self.codec, &new)).transpose()
            };
            new().unwrap_or_else(|error| {
                fault = Some(error);
                None
            })
        });
        let changed = changed.await?;
        match fault {
            Some(error) => Err(error),
            None => self.decode(changed),
        }
    }
}

impl<C> Typed<C> {
    /// As [`Client::get_or_load`]. A value that does not decode is an error; it is not loaded anew.
    pub fn get_or_load<T, E>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> std::result::Result<Option<T>, E>,
    ) -> std::result::Result<Option<T>, LoadError<E>>
    where
        C: Codec<T>,
        E: fmt::Display,
    {
        let loader = || self.encode_loaded(loader());
        self.decode_loaded(self.client.get_or_load(key, options, loader))
    }
}

#[cfg(feature = "tokio")]
impl<C> Typed<C, AsyncClient> {
    /// As [`AsyncClient::get_or_load`]. A value that does not decode is an error; it is not loaded anew.
    pub async fn get_or_load<T, E, L>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> L,
    ) -> std::result::Result<Option<T>, LoadError<E>>
    where
        C: Codec<T>,
        E: fmt::Display,
        L: Future<Output = std::result::Result<Option<T>, E>>,
    {
        let loader = || async { self.encode_loaded(loader().await) };
        self.decode_loaded(self.client.get_or_load(key, options, loader).await)
    }
}
