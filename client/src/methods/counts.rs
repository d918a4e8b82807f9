//! Counting.

use std::time::Duration;

use ketch_client_macros::both;

use super::Sends;
use crate::Client;
use crate::front::{Front, OnDrop, call_many};
use client_core::calls;
use client_core::error::Result;
use client_core::ttl::Ttl;

#[cfg(feature = "tokio")]
use crate::AsyncClient;
#[both]
impl AsyncClient {
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

    /// Counts many keys up by `delta`, and tells their new numbers, in the order of the keys; `None` for those that are not there. To
    /// all nodes at once, one request a node and two thousand keys. A key that is given twice is counted twice.
    ///
    /// ```example
    /// client.set("a", 1, 60).await?;
    /// assert_eq!(client.incr_multi(&["a", "b"], 5).await, [Ok(Some(6)), Ok(None)]);
    /// ```
    #[must_use = "each key has a result of its own"]
    pub async fn incr_multi<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        delta: u64,
    ) -> Vec<Result<Option<u64>>> {
        self.count_multi(keys, false, delta).await
    }

    /// Counts many keys down by `delta`, to 0 at most, as [`incr_multi`](Self::incr_multi).
    ///
    /// ```example
    /// client.set("a", 3, 60).await?;
    /// assert_eq!(client.decr_multi(&["a", "b"], 5).await, [Ok(Some(0)), Ok(None)]);
    /// ```
    #[must_use = "each key has a result of its own"]
    pub async fn decr_multi<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        delta: u64,
    ) -> Vec<Result<Option<u64>>> {
        self.count_multi(keys, true, delta).await
    }

    async fn count_multi<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        down: bool,
        delta: u64,
    ) -> Vec<Result<Option<u64>>> {
        let keys: Vec<_> = keys.iter().map(|key| self.sent(key)).collect();
        let sent = keys.iter().map(|key| &**key).collect();
        let _forget = OnDrop(|| keys.iter().for_each(|key| self.values().wrote(key)));
        let begin = |context, sent| calls::count_multi(context, sent, down, delta);
        self.run(call_many(self, sent, |key| key.len(), begin))
            .await
    }
}
