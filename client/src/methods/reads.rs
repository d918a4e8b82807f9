//! Reading.

use std::slice;

use ketch_client_macros::both;

use super::Sends;
use crate::Client;
use crate::front::{Front, call_many};
use crate::reads;
use crate::values;
use client_core::calls;
use client_core::error::Result;
use client_core::ttl::Ttl;
use client_core::value::{CasUnique, Item};

#[cfg(feature = "tokio")]
use crate::AsyncClient;
#[both]
impl AsyncClient {
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
    #[must_use = "each key has a result of its own"]
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
    #[must_use = "each key has a result of its own"]
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
    #[doc(alias = "gat")]
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
    #[must_use = "each key has a result of its own"]
    #[doc(alias = "gats")]
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
}
