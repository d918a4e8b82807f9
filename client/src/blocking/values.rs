//! What happens to values between the caller and the nodes: near cache, compression, types, and the counting of hits.

use std::time::{Duration, Instant};

use super::Client;
use crate::codec::{self, Codec};
use crate::core::calls;
use crate::error::Result;
use crate::metrics::Loaded;
use crate::near::{Epoch, Near};
use crate::packed::{self, Packed};
use crate::value::{Item, Value};

impl Client {
    /// See [`packed::pack`].
    pub(super) fn pack<'v>(&self, value: Value<'v>) -> Packed<'v> {
        packed::pack(value, &self.shared.options)
    }

    /// See [`packed::open`].
    pub(super) fn open(&self, item: Option<Item>) -> Result<Option<Item>> {
        packed::open(item, &self.shared.options)
    }

    /// `key` was written, or may have been.
    pub(super) fn wrote(&self, key: &[u8]) {
        self.shared.loads.flights.forget(key);
        if let Some(near) = &self.shared.near {
            near.forget(key);
        }
    }

    /// The value of `key` in the near cache; the inner `None` is never there.
    pub(super) fn near_value(&self, key: &[u8], now: Instant) -> Option<Option<Item>> {
        let near = self.shared.near.as_ref()?;
        let found = near.get(key, now);
        if let Some(metrics) = &self.shared.options.metrics {
            metrics.looked_up_near(u64::from(found.is_some()), u64::from(found.is_none()));
        }
        found.map(Some)
    }

    /// To be asked for before a node is, for [`keep_near`](Self::keep_near).
    pub(super) fn near_epoch(&self, key: &[u8]) -> Option<Epoch> {
        self.shared.near.as_ref().map(|near| near.epoch(key))
    }

    /// Keeps near what a node said, to be used for `left` seconds at most, -1 without end.
    pub(super) fn keep_near(
        &self,
        key: &[u8],
        value: &Option<Item>,
        left: i64,
        epoch: Option<Epoch>,
    ) {
        if let (Some(near), Some(epoch), Some(item)) = (&self.shared.near, epoch, value) {
            near.keep(key, item, left, epoch, Instant::now());
        }
    }

    /// Reads `key`, if it is near without asking a node.
    pub(super) fn read_one(&self, key: &[u8]) -> Result<Option<Item>> {
        if let Some(near) = &self.shared.near {
            return match self.near_value(key, Instant::now()) {
                Some(value) => Ok(value),
                None => self.fetch(near, vec![key]).pop().unwrap_or(Ok(None)),
            };
        }
        let found = [self.call(|context| calls::get(context, key))];
        self.tell_found(&found);
        let [found] = found;
        self.open(found?)
    }

    /// Reads `keys`, those that are near without asking a node.
    pub(super) fn read(&self, keys: Vec<&[u8]>) -> Vec<Result<Option<Item>>> {
        let Some(near) = &self.shared.near else {
            let found = self.call(|context| calls::get_multi(context, keys));
            self.tell_found(&found);
            return found.into_iter().map(|found| self.open(found?)).collect();
        };
        let now = Instant::now();
        let mut results: Vec<_> = keys.iter().map(|key| Ok(near.get(key, now))).collect();
        let is_far = |&at: &usize| matches!(results[at], Ok(None));
        let far: Vec<usize> = (0..keys.len()).filter(is_far).collect();
        if let Some(metrics) = &self.shared.options.metrics {
            metrics.looked_up_near((keys.len() - far.len()) as u64, far.len() as u64);
        }
        if !far.is_empty() {
            let found = self.fetch(near, far.iter().map(|&at| keys[at]).collect());
            for (at, found) in far.into_iter().zip(found) {
                results[at] = found;
            }
        }
        results
    }

    /// Reads `keys` from the nodes, and keeps them near.
    fn fetch(&self, near: &Near, keys: Vec<&[u8]>) -> Vec<Result<Option<Item>>> {
        let epochs: Vec<_> = keys.iter().map(|key| near.epoch(key)).collect();
        let found = self.call(|context| calls::get_with_ttl(context, keys.clone()));
        self.tell_found(&found);
        let now = Instant::now();
        let kept = keys.into_iter().zip(epochs).zip(found);
        kept.map(|((key, epoch), found)| {
            let Some((item, left)) = found? else {
                return Ok(None);
            };
            let item = self.open(Some(item))?;
            if let Some(item) = &item {
                near.keep(key, item, left, epoch, now);
            }
            Ok(item)
        })
        .collect()
    }

    /// The value of `key` on another copy than the first, as it is stored, and the seconds it has left.
    pub(super) fn elsewhere(&self, key: &[u8]) -> Option<(Item, i64)> {
        if !self.has_others(key) {
            return None;
        }
        let mut found = self.call(|context| calls::get_with_ttl(context, vec![key]));
        found.pop()?.ok()?
    }

    fn tell_found<T>(&self, found: &[Result<Option<T>>]) {
        if self.shared.options.metrics.is_some() {
            let hits = found
                .iter()
                .filter(|found| matches!(found, Ok(Some(_))))
                .count();
            let misses = found
                .iter()
                .filter(|found| matches!(found, Ok(None)))
                .count();
            self.tell_lookups(hits as u64, misses as u64);
        }
    }

    pub(super) fn tell_lookups(&self, hits: u64, misses: u64) {
        if let Some(metrics) = &self.shared.options.metrics {
            metrics.looked_up(hits, misses);
        }
    }

    pub(super) fn tell_load(&self, how: Loaded, took: Duration) {
        if let Some(metrics) = &self.shared.options.metrics {
            metrics.loaded(how, took);
        }
    }

    /// This client with values of a type, or of several.
    ///
    /// ```no_run
    /// # use ketch_client::{Client, codec::Raw};
    /// # fn example(client: Client) -> Result<(), ketch_client::Error> {
    /// let texts = client.typed(Raw);
    /// texts.set("greeting", &"hello".to_owned(), None)?;
    /// let greeting: Option<String> = texts.get("greeting")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn typed<C>(&self, codec: C) -> Typed<C> {
        let client = self.clone();
        Typed { client, codec }
    }
}

/// A [`Client`] whose values have types: see [`Client::typed`].
#[derive(Clone)]
pub struct Typed<C> {
    client: Client,
    codec: C,
}

impl<C> Typed<C> {
    /// The client, for what needs no type.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// As [`Client::get`].
    pub fn get<T>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>>
    where
        C: Codec<T>,
    {
        let item = self.client.get(key)?;
        item.map(|item| codec::decode(&self.codec, &item))
            .transpose()
    }

    /// As [`Client::get_multi`].
    pub fn get_multi<T, K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<T>>>
    where
        C: Codec<T>,
    {
        let found = self.client.get_multi(keys).into_iter();
        found
            .map(|item| {
                item?
                    .map(|item| codec::decode(&self.codec, &item))
                    .transpose()
            })
            .collect()
    }

    /// As [`Client::set`].
    pub fn set<T>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<()>
    where
        C: Codec<T>,
    {
        let item = codec::encode(&self.codec, value)?;
        self.client.set(key, &item, ttl)
    }

    /// As [`Client::add`].
    pub fn add<T>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<bool>
    where
        C: Codec<T>,
    {
        let item = codec::encode(&self.codec, value)?;
        self.client.add(key, &item, ttl)
    }

    /// As [`Client::get_or_load`]. A value that does not decode is an error; it is not loaded anew.
    pub fn get_or_load<T, E>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<crate::load::LoadOptions>,
        loader: impl FnOnce() -> std::result::Result<Option<T>, E>,
    ) -> std::result::Result<Option<T>, crate::load::LoadError<E>>
    where
        C: Codec<T>,
        E: std::fmt::Display,
    {
        use crate::load::LoadError;
        enum Either<E> {
            Loader(E),
            Codec(crate::Error),
        }
        impl<E: std::fmt::Display> std::fmt::Display for Either<E> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    Either::Loader(error) => error.fmt(f),
                    Either::Codec(error) => error.fmt(f),
                }
            }
        }
        let loader = || match loader() {
            Ok(Some(value)) => codec::encode(&self.codec, &value)
                .map(Some)
                .map_err(Either::Codec),
            Ok(None) => Ok(None),
            Err(error) => Err(Either::Loader(error)),
        };
        let item = self.client.get_or_load(key, options, loader);
        let item = item.map_err(|error| match error {
            LoadError::Loader(Either::Loader(error)) => LoadError::Loader(error),
            LoadError::Loader(Either::Codec(error)) | LoadError::Cache(error) => {
                LoadError::Cache(error)
            }
            LoadError::Elsewhere(words) => LoadError::Elsewhere(words),
            LoadError::Timeout => LoadError::Timeout,
        })?;
        let value = item
            .map(|item| codec::decode(&self.codec, &item))
            .transpose();
        value.map_err(LoadError::Cache)
    }
}
