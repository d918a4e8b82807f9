//! The methods of both clients, written once: see [`both`].
//!
//! ```text
//!  key, value, ttl --> as they are sent (prefix, compression, default and jitter) --> client_core::calls --> result
//! ```
//!
//! X1. Whatever may have been written is forgotten by the near cache and by loads under way, also if the future is dropped.

mod counts;
mod nodes;
mod reads;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use ketch_client_macros::both;

use crate::Client;
use crate::front::{Front, OnDrop, call_many};
use crate::keys;
use crate::update;
use client_core::calls;
use client_core::error::Result;
use client_core::health::unit;
use client_core::operation::Entry;
use client_core::options::{Ack, ClientOptions};
use client_core::request::StoreMode;
use client_core::ttl::Ttl;
use client_core::value::{Cas, CasUnique, Item, Value};

#[cfg(feature = "tokio")]
use crate::AsyncClient;

/// What methods of both clients ask of their front.
trait Sends: Front {
    /// A key as it is sent.
    fn sent<'k, K: AsRef<[u8]> + ?Sized>(&self, key: &'k K) -> Cow<'k, [u8]> {
        keys::sent(key.as_ref(), self.options())
    }

    /// A time to live as it is sent, of a value that is stored.
    fn lives(&self, ttl: impl Into<Ttl>) -> Ttl {
        let ClientOptions {
            default_ttl,
            ttl_jitter,
            ..
        } = **self.options();
        let chance = if ttl_jitter > 0.0 {
            unit(self.ring().random())
        } else {
            0.0
        };
        ttl.into().resolve(default_ttl, ttl_jitter, chance)
    }

    /// A time to live as it is sent, of a value that is there.
    fn lives_on(&self, ttl: impl Into<Ttl>) -> Ttl {
        ttl.into().resolve(self.options().default_ttl, 0.0, 0.0)
    }

    /// The client with other options for its operations.
    fn changed(&self, change: impl FnOnce(ClientOptions) -> ClientOptions) -> Arc<ClientOptions> {
        Arc::new(change(ClientOptions::clone(self.options())))
    }
}

impl<F: Front> Sends for F {}

#[both]
impl AsyncClient {
    /// The same client, whose operations take at most `timeout` each: a deadline for one call, or for several.
    ///
    /// ```example
    /// let hasty = client.with_timeout(Duration::from_millis(50));
    /// assert_eq!(hasty.get("page:1").await?, None);
    /// ```
    #[doc(alias = "deadline")]
    #[must_use = "the client itself stays as it is"]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        self.with_options(self.changed(|options| options.request_timeout(timeout)))
    }

    /// The same client, whose writes wait for so many copies. With [`Ack::None`] they are sent and forgotten: what becomes of them is
    /// not known, and `true` tells nothing.
    ///
    /// ```example
    /// use ketch_client::Ack;
    ///
    /// let hurried = client.with_ack(Ack::None);
    /// hurried.set("seen:7", 1, 3600).await?;
    /// ```
    #[doc(alias = "fire and forget")]
    #[doc(alias = "noreply")]
    #[must_use = "the client itself stays as it is"]
    pub fn with_ack(&self, ack: Ack) -> Self {
        self.with_options(self.changed(|options| options.ack(ack)))
    }

    /// The same client in a namespace: `prefix` comes before every key, behind the prefix that the client has already.
    ///
    /// ```example
    /// let shop = client.with_prefix("shop:");
    /// shop.set("cart:7", "3 apples", 60).await?;
    /// assert_eq!(client.get("shop:cart:7").await?, shop.get("cart:7").await?);
    /// ```
    #[doc(alias = "namespace")]
    #[must_use = "the client itself stays as it is"]
    pub fn with_prefix(&self, prefix: impl AsRef<[u8]>) -> Self {
        let prefix = [&self.options().prefix[..], prefix.as_ref()].concat();
        self.with_options(self.changed(|options| options.prefix(prefix)))
    }

    /// Stores `value` in any case.
    ///
    /// ```example
    /// client.set("text", "hello", Duration::from_secs(60)).await?;
    /// client.set("bytes", vec![1, 2, 3], 60).await?;      // seconds
    /// client.set("number", 42, None).await?;              // the default of the options, or without end
    /// client.set("flags", ("hello", 7), 60).await?;       // with client flags
    /// ```
    pub async fn set<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        ttl: impl Into<Ttl>,
    ) -> Result<()> {
        let (key, value) = (self.sent(&key), self.values().pack(value.into()));
        let ttl = self.lives(ttl);
        let _forget = OnDrop(|| self.values().wrote(&key));
        self.call(|context| calls::set(context, &key, value.payload(), ttl))
            .await
    }

    /// Stores many values, with the same time to live: to all nodes at once, one request a node and two thousand keys. The
    /// results are in the order of the entries.
    ///
    /// ```example
    /// let stored = client.set_multi([("a", 1), ("b", 2)], 60).await;
    /// assert_eq!(stored, [Ok(()), Ok(())]);
    /// ```
    #[must_use = "each key has a result of its own"]
    pub async fn set_multi<'v, K: AsRef<[u8]>, V: Into<Value<'v>>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
        ttl: impl Into<Ttl>,
    ) -> Vec<Result<()>> {
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(key, value)| (key, self.values().pack(value.into())))
            .collect();
        let keys: Vec<_> = entries.iter().map(|(key, _)| self.sent(key)).collect();
        let values = entries.iter().map(|(_, value)| value.payload());
        let sent = keys.iter().zip(values);
        let sent = sent.map(|(key, value)| Entry { key, value });
        let ttl = ttl.into();
        let _forget = OnDrop(|| keys.iter().for_each(|key| self.values().wrote(key)));
        if self.options().ttl_jitter > 0.0 {
            let sent = sent.map(|entry| (entry, self.lives(ttl))).collect();
            let begin = |context, sent| calls::fill_multi(context, sent, StoreMode::Set);
            let of = call_many(self, sent, |(entry, _)| entry.byte_count(), begin);
            let stored = self.run(of).await.into_iter();
            return stored.map(|stored| stored.map(|_| ())).collect();
        }
        let (sent, ttl) = (sent.collect(), self.lives(ttl));
        let begin = |context, sent| calls::set_multi(context, sent, ttl);
        self.run(call_many(self, sent, Entry::byte_count, begin))
            .await
    }

    /// Stores many values that come from elsewhere, another cluster or a file, each with a time to live of its own: `None` is without
    /// end. A copy that has the key keeps it, since what it has is newer, unless `overwrite`. False for a key that all copies had.
    ///
    /// ```example
    /// let dump = [("a", 1, Some(Duration::from_secs(60))), ("b", 2, None)];
    /// assert_eq!(client.fill_multi(dump, false).await, [Ok(true), Ok(true)]);
    /// assert_eq!(client.fill_multi(dump, false).await, [Ok(false), Ok(false)]);
    /// ```
    pub async fn fill_multi<'v, K: AsRef<[u8]>, V: Into<Value<'v>>, T: Into<Ttl>>(
        &self,
        entries: impl IntoIterator<Item = (K, V, T)>,
        overwrite: bool,
    ) -> Vec<Result<bool>> {
        let entries: Vec<(K, Value<'v>, Ttl)> = entries
            .into_iter()
            .map(|(key, value, ttl)| (key, value.into(), ttl.into()))
            .collect();
        let keys: Vec<_> = entries.iter().map(|(key, ..)| self.sent(key)).collect();
        let sent = keys.iter().zip(&entries).map(|(key, (_, value, ttl))| {
            let value = value.payload();
            (Entry { key, value }, *ttl)
        });
        let mode = if overwrite {
            StoreMode::Set
        } else {
            StoreMode::Add
        };
        let sent = sent.collect();
        let _forget = OnDrop(|| keys.iter().for_each(|key| self.values().wrote(key)));
        let begin = |context, sent| calls::fill_multi(context, sent, mode);
        let of = call_many(self, sent, |(entry, _)| entry.byte_count(), begin);
        self.run(of).await
    }

    /// Stores `value` if the key is not there; false if it is.
    ///
    /// ```example
    /// assert!(client.add("job:7", "mine", 60).await?);
    /// assert!(!client.add("job:7", "mine as well", 60).await?);
    /// ```
    pub async fn add<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        ttl: impl Into<Ttl>,
    ) -> Result<bool> {
        let ttl = self.lives(ttl);
        self.store(&self.sent(&key), value.into(), StoreMode::Add, ttl)
            .await
    }

    /// Stores `value` if the key is there; false if it is not.
    ///
    /// ```example
    /// assert!(!client.replace("k", "new", 60).await?);
    /// ```
    pub async fn replace<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        ttl: impl Into<Ttl>,
    ) -> Result<bool> {
        let ttl = self.lives(ttl);
        self.store(&self.sent(&key), value.into(), StoreMode::Replace, ttl)
            .await
    }

    /// Puts `value` behind the present value, whose client flags and time to live stay; false if there is none.
    ///
    /// ```example
    /// client.set("log", "a", 60).await?;
    /// assert!(client.append("log", "b").await?);
    /// assert_eq!(client.get("log").await?, Some("ab".into()));
    /// ```
    pub async fn append<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
    ) -> Result<bool> {
        self.store(
            &self.sent(&key),
            value.into(),
            StoreMode::Append,
            Ttl::default(),
        )
        .await
    }

    /// Puts `value` before the present value, whose client flags and time to live stay; false if there is none.
    ///
    /// ```example
    /// client.set("log", "b", 60).await?;
    /// assert!(client.prepend("log", "a").await?);
    /// assert_eq!(client.get("log").await?, Some("ab".into()));
    /// ```
    pub async fn prepend<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
    ) -> Result<bool> {
        self.store(
            &self.sent(&key),
            value.into(),
            StoreMode::Prepend,
            Ttl::default(),
        )
        .await
    }

    async fn store(&self, key: &[u8], value: Value<'_>, mode: StoreMode, ttl: Ttl) -> Result<bool> {
        let _forget = OnDrop(|| self.values().wrote(key));
        // A piece of a value is not compressed.
        if let StoreMode::Append | StoreMode::Prepend = mode {
            let piece = value.payload();
            return self
                .call(|context| calls::store(context, key, piece, mode, ttl))
                .await;
        }
        let value = self.values().pack(value);
        let value = value.payload();
        self.call(|context| calls::store(context, key, value, mode, ttl))
            .await
    }

    /// Stores `value` if the present one is still the one that [`gets`](Self::gets) gave with `unique`.
    ///
    /// ```example
    /// use ketch_client::Cas;
    ///
    /// client.set("k", "old", 60).await?;
    /// let (_, version) = client.gets("k").await?.expect("it was stored");
    /// client.set("k", "newer", 60).await?;
    /// assert_eq!(client.cas("k", "mine", version, 60).await?, Cas::Conflict);
    /// ```
    pub async fn cas<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        unique: CasUnique,
        ttl: impl Into<Ttl>,
    ) -> Result<Cas> {
        let (key, value) = (self.sent(&key), self.values().pack(value.into()));
        let (value, ttl) = (value.payload(), self.lives(ttl));
        let _forget = OnDrop(|| self.values().wrote(&key));
        self.call(|context| calls::cas(context, &key, value, unique, ttl))
            .await
    }

    /// Changes the value of `key` by what `change` makes of it, and tells what is there then. `change` is given the present value, or
    /// `None` if there is none, and gives the new one, or `None` to leave all as it is. If another caller writes in between, it is
    /// called again with what that one wrote; [`Error::Conflict`](crate::Error::Conflict) after 100 times.
    ///
    /// ```example
    /// for name in ["ann", "bob"] {
    ///     client.update("guests", 3600, |guests| match guests {
    ///         Some(guests) => Some(format!("{},{name}", guests.text()?)),
    ///         None => Some(name.to_owned()),
    ///     }).await?;
    /// }
    /// assert_eq!(client.get("guests").await?, Some("ann,bob".into()));
    /// ```
    pub async fn update<V: Into<Item>>(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
        change: impl FnMut(Option<&Item>) -> Option<V>,
    ) -> Result<Option<Item>> {
        let (key, ttl) = (self.sent(&key), self.lives(ttl));
        let _forget = OnDrop(|| self.values().wrote(&key));
        self.run(update::update(self, &key, ttl, change)).await
    }

    /// Deletes `key`; false if it was not there.
    ///
    /// ```example
    /// client.set("k", "v", 60).await?;
    /// assert!(client.delete("k").await?);
    /// assert!(!client.delete("k").await?);
    /// ```
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = self.sent(&key);
        let _forget = OnDrop(|| self.values().wrote(&key));
        self.call(|context| calls::delete(context, &key)).await
    }

    /// Deletes `key` if its value is still the one that [`gets`](Self::gets) gave with `unique`; false if it is not. With several
    /// copies, the one that gave `unique` decides, and the others are deleted after it, whatever is on them by then.
    ///
    /// ```example
    /// client.set("k", "old", 60).await?;
    /// let (_, version) = client.gets("k").await?.expect("it was stored");
    /// client.set("k", "new", 60).await?;
    /// assert!(!client.delete_if("k", version).await?);
    /// assert_eq!(client.get("k").await?, Some("new".into()));
    /// ```
    pub async fn delete_if(&self, key: impl AsRef<[u8]>, unique: CasUnique) -> Result<bool> {
        let key = self.sent(&key);
        let _forget = OnDrop(|| self.values().wrote(&key));
        self.run(update::delete_if(self, &key, unique)).await
    }

    /// Deletes many keys: to all nodes at once, one request a node and two thousand keys. The results are in the order of the keys.
    ///
    /// ```example
    /// client.set("a", 1, 60).await?;
    /// assert_eq!(client.delete_multi(&["a", "b"]).await, [Ok(true), Ok(false)]);
    /// ```
    #[must_use = "each key has a result of its own"]
    pub async fn delete_multi<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<bool>> {
        let keys: Vec<_> = keys.iter().map(|key| self.sent(key)).collect();
        let sent = keys.iter().map(|key| &**key).collect();
        let _forget = OnDrop(|| keys.iter().for_each(|key| self.values().wrote(key)));
        let of = call_many(self, sent, |key| key.len(), calls::delete_multi);
        self.run(of).await
    }

    /// Gives `key` a new time to live; false if it is not there.
    ///
    /// ```example
    /// client.set("k", "v", 60).await?;
    /// assert!(client.touch("k", 3600).await?);
    /// ```
    pub async fn touch(&self, key: impl AsRef<[u8]>, ttl: impl Into<Ttl>) -> Result<bool> {
        let (key, ttl) = (self.sent(&key), self.lives_on(ttl));
        let _forget = OnDrop(|| self.values().wrote(&key));
        self.call(|context| calls::touch(context, &key, ttl)).await
    }

    /// Gives many keys a new time to live: to all nodes at once, one request a node and two thousand keys. False for those that no copy has.
    ///
    /// ```example
    /// client.set("a", 1, 60).await?;
    /// assert_eq!(client.touch_multi(&["a", "b"], 3600).await, [Ok(true), Ok(false)]);
    /// ```
    #[must_use = "each key has a result of its own"]
    pub async fn touch_multi<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        ttl: impl Into<Ttl>,
    ) -> Vec<Result<bool>> {
        let keys: Vec<_> = keys.iter().map(|key| self.sent(key)).collect();
        let (sent, ttl) = (keys.iter().map(|key| &**key).collect(), self.lives_on(ttl));
        let _forget = OnDrop(|| keys.iter().for_each(|key| self.values().wrote(key)));
        let begin = |context, sent| calls::touch_multi(context, sent, ttl);
        self.run(call_many(self, sent, |key| key.len(), begin))
            .await
    }
}
