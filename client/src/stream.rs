//! Reads of more keys than are wanted in memory at once.

use std::collections::VecDeque;

use crate::Client;
use client_core::error::Result;
use client_core::value::Item;

#[cfg(feature = "tokio")]
use crate::AsyncClient;

/// How many keys are read at once.
const BATCH: usize = 1000;

/// A key and what was found for it.
type Found<K> = (K, Result<Option<Item>>);

/// Values that are read batch by batch: see [`Client::get_stream`]. With the blocking client it is an iterator, with the async one
/// [`next`](GetStream::next) is waited for.
#[derive(Debug)]
#[must_use = "nothing is read until it is asked"]
pub struct GetStream<I: Iterator, K = Client> {
    client: K,
    keys: I,
    batch: usize,
    found: VecDeque<Found<I::Item>>,
}

impl<I: Iterator, K> GetStream<I, K> {
    fn new(client: K, keys: I) -> Self {
        GetStream {
            client,
            keys,
            batch: BATCH,
            found: VecDeque::new(),
        }
    }

    /// How many keys are read at once (1000).
    pub fn batch(mut self, keys: usize) -> Self {
        self.batch = keys.max(1);
        self
    }

    fn next_keys(&mut self) -> Vec<I::Item> {
        self.keys.by_ref().take(self.batch).collect()
    }
}

impl Client {
    /// The values of keys of any number, in their order: a batch is read when the one before it is used up.
    ///
    /// ```
    /// # use ketch_client::{Client, ClientOptions};
    /// # #[cfg(feature = "testing")] {
    /// # let node = ketch_client::testing::TestNode::start();
    /// # let client = Client::new([node.node()], ClientOptions::default());
    /// client.set("user:5000", "ann", 60)?;
    /// let keys = (0..10_000).map(|id| format!("user:{id}"));
    /// for (key, found) in client.get_stream(keys) {
    ///     if let Some(item) = found? {
    ///         println!("{key}: {:?}", item.text());
    ///     }
    /// }
    /// # }
    /// # Ok::<(), ketch_client::Error>(())
    /// ```
    pub fn get_stream<I>(&self, keys: I) -> GetStream<I::IntoIter>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        GetStream::new(self.clone(), keys.into_iter())
    }
}

impl<I: Iterator<Item: AsRef<[u8]>>> Iterator for GetStream<I> {
    type Item = Found<I::Item>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.found.is_empty() {
            let keys = self.next_keys();
            let found = self.client.get_multi(&keys);
            self.found = keys.into_iter().zip(found).collect();
        }
        self.found.pop_front()
    }
}

#[cfg(feature = "tokio")]
impl AsyncClient {
    /// The values of keys of any number, in their order: a batch is read when the one before it is used up.
    ///
    /// ```
    /// # use ketch_client::{AsyncClient, ClientOptions};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), ketch_client::Error> {
    /// # #[cfg(feature = "testing")] {
    /// # let node = ketch_client::testing::TestNode::start();
    /// # let client = AsyncClient::new([node.node()], ClientOptions::default());
    /// client.set("user:5000", "ann", 60).await?;
    /// let keys = (0..10_000).map(|id| format!("user:{id}"));
    /// let mut users = client.get_stream(keys);
    /// while let Some((key, found)) = users.next().await {
    ///     if let Some(item) = found? {
    ///         println!("{key}: {:?}", item.text());
    ///     }
    /// }
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_stream<I>(&self, keys: I) -> GetStream<I::IntoIter, AsyncClient>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        GetStream::new(self.clone(), keys.into_iter())
    }
}

#[cfg(feature = "tokio")]
impl<I: Iterator<Item: AsRef<[u8]>>> GetStream<I, AsyncClient> {
    /// The next key, and what was found for it; `None` behind the last one.
    pub async fn next(&mut self) -> Option<Found<I::Item>> {
        if self.found.is_empty() {
            let keys = self.next_keys();
            let found = self.client.get_multi(&keys).await;
            self.found = keys.into_iter().zip(found).collect();
        }
        self.found.pop_front()
    }
}
