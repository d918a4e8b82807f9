//! The methods of both clients, written once: see [`both`].
//!
//! ```text
//!  key, value, ttl --> as they are sent (prefix, compression, default and jitter) --> client_core::calls --> result
//! ```
//!
//! X1. Whatever may have been written is forgotten by the near cache and by loads under way, also if the future is dropped.

use std::borrow::Cow;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use ketch_client_macros::both;

use crate::Client;
use crate::front::{Front, OnDrop, call_many};
use crate::keys;
use crate::reads;
use crate::update;
use crate::values;
use client_core::calls::{self, PerNode, Stat};
use client_core::error::Result;
use client_core::health::unit;
use client_core::node::Node;
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
    /// The nodes as they were given last.
    pub fn nodes(&self) -> Vec<Node> {
        self.shared().snapshot().nodes.clone()
    }

    /// Changes the nodes while operations go on. For `dual_read`, what the nodes that own a key now do not have is looked
    /// for where it was before, and carried over with the time to live that is left. Nodes that stay keep connections
    /// and standing.
    pub fn set_nodes(&self, nodes: impl IntoIterator<Item = Node>, dual_read: Duration) {
        let nodes: Vec<Node> = nodes.into_iter().collect();
        self.shared().set_nodes(&nodes, dual_read, self.now());
    }

    /// The same client, whose operations take at most `timeout` each: a deadline for one call, or for several.
    ///
    /// ```example
    /// let hasty = client.with_timeout(Duration::from_millis(50));
    /// assert_eq!(hasty.get("page:1").await?, None);
    /// ```
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
    pub fn with_prefix(&self, prefix: impl AsRef<[u8]>) -> Self {
        let prefix = [&self.options().prefix[..], prefix.as_ref()].concat();
        self.with_options(self.changed(|options| options.prefix(prefix)))
    }

    /// The value of `key`; `None` is a miss.
    ///
    /// ```example
    /// client.set("greeting", "hello", 60).await?;
    /// let item = client.get("greeting").await?.expect("it was stored");
    /// assert_eq!(item.text(), Some("hello"));
    /// assert_eq!(client.get("farewell").await?, None);
    /// ```
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>> {
        let found = self.run(reads::read_one(self, &self.sent(&key))).await;
        values::or_miss(found, self.options())
    }

    /// The value of `key` and its version, for [`cas`](Self::cas) and [`delete_if`](Self::delete_if).
    ///
    /// ```example
    /// client.set("stock", 7, 60).await?;
    /// let (item, version) = client.gets("stock").await?.expect("it was stored");
    /// assert_eq!(item.number(), Some(7));
    /// assert_eq!(client.cas("stock", 6, version, 60).await?, ketch_client::Cas::Stored);
    /// ```
    pub async fn gets(&self, key: impl AsRef<[u8]>) -> Result<Option<(Item, CasUnique)>> {
        let key = self.sent(&key);
        let found = self.call(|context| calls::gets(context, &key)).await;
        self.values().tell_found(slice::from_ref(&found));
        let opened = values::opened(self.values(), found);
        values::or_miss(opened, self.options())
    }

    /// The values of many keys, in their order: to all nodes at once, one request a node and two
    /// thousand keys.
    ///
    /// ```example
    /// client.set("a", 1, 60).await?;
    /// let found = client.get_multi(&["a", "b"]).await;
    /// assert_eq!(found, [Ok(Some(1.into())), Ok(None)]);
    /// ```
    pub async fn get_multi<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<Item>>> {
        let sent: Vec<_> = keys.iter().map(|key| self.sent(key)).collect();
        let keys = sent.iter().map(|key| &**key).collect();
        let found = self.run(reads::read(self, keys)).await;
        values::or_misses(found, self.options())
    }

    /// The values of many keys and their versions, as [`get_multi`](Self::get_multi).
    ///
    /// ```example
    /// client.set("a", 1, 60).await?;
    /// let mut found = client.gets_multi(&["a", "b"]).await;
    /// assert_eq!(found.pop(), Some(Ok(None)));
    /// let (item, version) = found.remove(0)?.expect("it was stored");
    /// assert!(client.delete_if("a", version).await?);
    /// ```
    pub async fn gets_multi<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
    ) -> Vec<Result<Option<(Item, CasUnique)>>> {
        let sent: Vec<_> = keys.iter().map(|key| self.sent(key)).collect();
        let keys = sent.iter().map(|key| &**key).collect();
        let of = call_many(self, keys, |key| key.len(), calls::gets_multi);
        let found = self.run(of).await;
        self.values().tell_found(&found);
        let opened = found.into_iter();
        let opened = opened.map(|found| values::opened(self.values(), found));
        values::or_misses(opened.collect(), self.options())
    }

    /// The value of `key`, which is given a new time to live.
    ///
    /// ```example
    /// client.set("session:7", "ann", 60).await?;
    /// assert_eq!(client.get_and_touch("session:7", 3600).await?, Some("ann".into()));
    /// ```
    pub async fn get_and_touch(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
    ) -> Result<Option<Item>> {
        let (key, ttl) = (self.sent(&key), self.lives_on(ttl));
        let found = self
            .call(|context| calls::get_and_touch(context, &key, ttl))
            .await;
        self.values().tell_found(slice::from_ref(&found));
        let opened = found.and_then(|found| self.values().open(found));
        values::or_miss(opened, self.options())
    }

    /// The values of many keys, which are given a new time to live, as [`get_multi`](Self::get_multi).
    ///
    /// ```example
    /// client.set("a", 1, 60).await?;
    /// assert_eq!(client.get_and_touch_multi(&["a", "b"], 3600).await, [Ok(Some(1.into())), Ok(None)]);
    /// ```
    pub async fn get_and_touch_multi<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        ttl: impl Into<Ttl>,
    ) -> Vec<Result<Option<Item>>> {
        let sent: Vec<_> = keys.iter().map(|key| self.sent(key)).collect();
        let keys = sent.iter().map(|key| &**key).collect();
        let ttl = self.lives_on(ttl);
        let begin = |context, keys| calls::get_and_touch_multi(context, keys, ttl);
        let found = self
            .run(call_many(self, keys, |key| key.len(), begin))
            .await;
        self.values().tell_found(&found);
        let opened = found.into_iter().map(|found| self.values().open(found?));
        values::or_misses(opened.collect(), self.options())
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
    pub async fn delete_multi<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<bool>> {
        let keys: Vec<_> = keys.iter().map(|key| self.sent(key)).collect();
        let sent = keys.iter().map(|key| &**key).collect();
        let _forget = OnDrop(|| keys.iter().for_each(|key| self.values().wrote(key)));
        let of = call_many(self, sent, |key| key.len(), calls::delete_multi);
        self.run(of).await
    }

    /// Counts up by `delta`, from 2^64 - 1 on to 0 again, and tells the new number; `None` if the key is not there.
    ///
    /// ```example
    /// client.set("visits", 41, 60).await?;
    /// assert_eq!(client.incr("visits", 1).await?, Some(42));
    /// assert_eq!(client.incr("other", 1).await?, None);
    /// ```
    pub async fn incr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>> {
        self.count(&self.sent(&key), false, delta, None).await
    }

    /// Counts down by `delta`, to 0 at most, and tells the new number; `None` if the key is not there.
    ///
    /// ```example
    /// client.set("left", 2, 60).await?;
    /// assert_eq!(client.decr("left", 5).await?, Some(0));
    /// ```
    pub async fn decr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>> {
        self.count(&self.sent(&key), true, delta, None).await
    }

    /// As [`incr`](Self::incr), but a missing counter begins as `initial`, to live for `ttl`.
    ///
    /// ```example
    /// assert_eq!(client.incr_or_create("visits", 1, 1, 60).await?, 1);
    /// assert_eq!(client.incr_or_create("visits", 1, 1, 60).await?, 2);
    /// ```
    pub async fn incr_or_create(
        &self,
        key: impl AsRef<[u8]>,
        delta: u64,
        initial: u64,
        ttl: impl Into<Ttl>,
    ) -> Result<u64> {
        let create = Some((initial, self.lives_on(ttl).duration()));
        let number = self.count(&self.sent(&key), false, delta, create).await?;
        Ok(number.unwrap_or(initial))
    }

    /// As [`decr`](Self::decr), but a missing counter begins as `initial`, to live for `ttl`.
    ///
    /// ```example
    /// assert_eq!(client.decr_or_create("left", 1, 10, 60).await?, 10);
    /// assert_eq!(client.decr_or_create("left", 1, 10, 60).await?, 9);
    /// ```
    pub async fn decr_or_create(
        &self,
        key: impl AsRef<[u8]>,
        delta: u64,
        initial: u64,
        ttl: impl Into<Ttl>,
    ) -> Result<u64> {
        let create = Some((initial, self.lives_on(ttl).duration()));
        let number = self.count(&self.sent(&key), true, delta, create).await?;
        Ok(number.unwrap_or(initial))
    }

    async fn count(
        &self,
        key: &[u8],
        down: bool,
        delta: u64,
        create: Option<(u64, Option<Duration>)>,
    ) -> Result<Option<u64>> {
        let _forget = OnDrop(|| self.values().wrote(key));
        self.call(|context| calls::count(context, key, down, delta, create))
            .await
    }

    /// Counts many keys up by `delta`, and tells their new numbers, in the order of the keys; `None` for those that are not there.
    /// One after the other, each with a request of its own.
    ///
    /// ```example
    /// client.set("a", 1, 60).await?;
    /// assert_eq!(client.incr_multi(&["a", "b"], 5).await, [Ok(Some(6)), Ok(None)]);
    /// ```
    pub async fn incr_multi<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        delta: u64,
    ) -> Vec<Result<Option<u64>>> {
        let mut counted = Vec::with_capacity(keys.len());
        for key in keys {
            counted.push(self.count(&self.sent(key), false, delta, None).await);
        }
        counted
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

    /// Empties every node.
    ///
    /// ```example
    /// client.set("k", "v", 60).await?;
    /// assert!(client.flush_all().await.iter().all(|(_node, flushed)| flushed.is_ok()));
    /// assert_eq!(client.get("k").await?, None);
    /// ```
    pub async fn flush_all(&self) -> PerNode<()> {
        self.flush_all_after(Duration::ZERO).await
    }

    /// Tells every node to forget, when `delay` is over, what it has by then; another flush meanwhile takes the place of this
    /// one. Nodes count whole seconds. Where a placement before a change is still asked, its nodes are told too.
    pub async fn flush_all_after(&self, delay: Duration) -> PerNode<()> {
        let _forget = OnDrop(|| self.values().flushed());
        self.call(|context| calls::flush_all(context, delay)).await
    }

    /// The version of every node.
    ///
    /// ```example
    /// for (node, version) in client.version().await {
    ///     println!("{node} is {}", version?);
    /// }
    /// ```
    pub async fn version(&self) -> PerNode<String> {
        self.call(calls::version).await
    }

    /// The statistics of every node: of `group` (`items`, `slabs`, `settings`, ..), or the general ones if it is empty.
    ///
    /// ```example
    /// for (node, stats) in client.stats("").await {
    ///     let items = stats?.into_iter().find(|(name, _)| name == "curr_items");
    ///     println!("{node} has {items:?}");
    /// }
    /// ```
    pub async fn stats(&self, group: &str) -> PerNode<Vec<Stat>> {
        self.call(|context| calls::stats(context, group)).await
    }

    /// Connects to every node, so that the first callers need not. Tells which cannot be reached.
    ///
    /// ```example
    /// for (node, reached) in client.warm_up().await {
    ///     if let Err(error) = reached {
    ///         eprintln!("{node}: {error}");
    ///     }
    /// }
    /// ```
    pub async fn warm_up(&self) -> PerNode<()> {
        let versions = self.call(calls::version).await;
        let reached = versions.into_iter();
        reached
            .map(|(node, version)| (node, version.map(|_| ())))
            .collect()
    }

    /// Closes all connections once what is under way is done, for every clone of the client. Calls after it have
    /// [`Error::NoNode`](crate::Error::NoNode), and a source of nodes is no longer followed.
    ///
    /// ```example
    /// client.close();
    /// assert_eq!(client.get("k").await, Err(ketch_client::Error::NoNode));
    /// ```
    pub fn close(&self) {
        self.shared().close(self.now());
    }
}
