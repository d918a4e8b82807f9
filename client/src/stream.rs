//! Reads of more keys than are wanted in memory at once.

use std::collections::VecDeque;

use crate::Client;
use client_core::error::Result;
use client_core::value::Item;

/// How many keys are read at once.
const BATCH: usize = 1000;

/// A key and what was found for it.
type Found<K> = (K, Result<Option<Item>>);

/// Values that are read batch by batch: see [`Client::get_stream`].
#[derive(Debug)]
#[must_use = "nothing is read until it is asked"]
pub struct GetStream<I: Iterator> {
    client: Client,
    keys: I,
    batch: usize,
    found: VecDeque<Found<I::Item>>,
}

impl<I: Iterator> GetStream<I> {
    /// How many keys are read at once (1000).
    pub fn batch(mut self, keys: usize) -> Self {
        self.batch = keys.max(1);
        self
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
        GetStream {
            client: self.clone(),
            keys: keys.into_iter(),
            batch: BATCH,
            found: VecDeque::new(),
        }
    }
}

impl<I: Iterator<Item: AsRef<[u8]>>> Iterator for GetStream<I> {
    type Item = Found<I::Item>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.found.is_empty() {
            let keys: Vec<_> = self.keys.by_ref().take(self.batch).collect();
            let found = self.client.get_multi(&keys);
            self.found = keys.into_iter().zip(found).collect();
        }
        self.found.pop_front()
    }
}

#[cfg(feature = "tokio")]
pub use of_async::AsyncGetStream;

#[cfg(feature = "tokio")]
mod of_async {
    use std::collections::VecDeque;
    use std::fmt;
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use futures_core::Stream;

    use super::{BATCH, Found};
    use crate::AsyncClient;

    /// A batch that is being read.
    type Coming<'a, K> = Pin<Box<dyn Future<Output = VecDeque<Found<K>>> + Send + 'a>>;

    /// Values that are read batch by batch: see [`AsyncClient::get_stream`]. It is a [`Stream`].
    #[must_use = "nothing is read until it is asked"]
    pub struct AsyncGetStream<'a, I: Iterator> {
        client: AsyncClient,
        keys: I,
        batch: usize,
        found: VecDeque<Found<I::Item>>,
        coming: Option<Coming<'a, I::Item>>,
    }

    impl AsyncClient {
        /// The values of keys of any number, in their order: a batch is read when the one before it is used up. The result is a
        /// [`Stream`], so that the methods of other crates for streams work on it.
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
        pub fn get_stream<'a, I>(&self, keys: I) -> AsyncGetStream<'a, I::IntoIter>
        where
            I: IntoIterator<Item: AsRef<[u8]> + Send + Sync + 'a>,
        {
            AsyncGetStream {
                client: self.clone(),
                keys: keys.into_iter(),
                batch: BATCH,
                found: VecDeque::new(),
                coming: None,
            }
        }
    }

    impl<'a, I: Iterator<Item: AsRef<[u8]> + Send + Sync + 'a>> AsyncGetStream<'a, I> {
        /// How many keys are read at once (1000).
        pub fn batch(mut self, keys: usize) -> Self {
            self.batch = keys.max(1);
            self
        }

        /// The next key, and what was found for it; `None` behind the last one. Who drops this future half way loses nothing: the
        /// next call goes on.
        pub async fn next(&mut self) -> Option<Found<I::Item>> {
            poll_fn(|context| self.poll(context)).await
        }

        fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Found<I::Item>>> {
            if self.found.is_empty() {
                let coming = match &mut self.coming {
                    Some(coming) => coming,
                    None => {
                        let keys: Vec<_> = self.keys.by_ref().take(self.batch).collect();
                        if keys.is_empty() {
                            return Poll::Ready(None);
                        }
                        let client = self.client.clone();
                        self.coming.insert(Box::pin(async move {
                            let found = client.get_multi(&keys).await;
                            keys.into_iter().zip(found).collect()
                        }))
                    }
                };
                self.found = ready!(coming.as_mut().poll(context));
                self.coming = None;
            }
            Poll::Ready(self.found.pop_front())
        }
    }

    impl<'a, I> Stream for AsyncGetStream<'a, I>
    where
        I: Iterator<Item: AsRef<[u8]> + Send + Sync + Unpin + 'a> + Unpin,
    {
        type Item = Found<I::Item>;

        fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.get_mut().poll(context)
        }
    }

    impl<I: Iterator> fmt::Debug for AsyncGetStream<'_, I> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut debug = f.debug_struct("AsyncGetStream");
            debug
                .field("batch", &self.batch)
                .field("found", &self.found.len());
            debug.finish_non_exhaustive()
        }
    }
}
