//! `get_or_load`, by the rules of [`load`], and values with types.

use std::fmt;
use std::future::Future;

use super::AsyncClient;
use crate::keys;
use crate::load::{self, LoadError, LoadOptions};
use crate::typed::Typed;
use client_core::value::Item;

impl AsyncClient {
    /// The value of `key`, from the cache or else from `loader`, which is called by one caller of all processes while the
    /// others wait or use the old value. `options` are a time to live or [`LoadOptions`].
    ///
    /// `loader` gives the value, `None` if there is none, or an error. A value that is about to expire is loaded anew by
    /// one caller, who waits for it; see [`get_or_load_detached`](Self::get_or_load_detached). If that fails, the old
    /// value is used, and the next attempt is made when the lease is over.
    ///
    /// Dropped while its loader runs, that ends too, and another caller of this process loads in its place: at once if one
    /// waits, else the next to come, under the same lease; other processes wait for the rest of it. What a loader has
    /// brought is stored in any case. A load that shall go on without its caller is spawned as a task of its own.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use ketch_client::{AsyncClient, load::LoadOptions};
    /// # async fn render(page: u32) -> Result<Option<String>, std::io::Error> { Ok(None) }
    /// # async fn example(client: AsyncClient) -> Result<(), Box<dyn std::error::Error>> {
    /// let page = client.get_or_load("page:1", Duration::from_secs(60), || render(1)).await?;
    ///
    /// let careful = LoadOptions::new(Duration::from_secs(60))
    ///     .stale(Duration::from_secs(300))
    ///     .negative(Duration::from_secs(5));
    /// let page = client.get_or_load("page:2", careful, async || render(2).await).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_load<V: Into<Item>, E: fmt::Display, L>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> L,
    ) -> Result<Option<Item>, LoadError<E>>
    where
        L: Future<Output = Result<Option<V>, E>>,
    {
        let loader = async { loader().await.map(|value| value.map(Into::into)) };
        let key = keys::sent(key.as_ref(), &self.options);
        load::get_or_load(self, &key, options.into(), loader).await
    }

    /// As [`get_or_load`](Self::get_or_load), but a value that is about to expire, or stale, is loaded anew in a task of
    /// its own, and given as it is meanwhile. At most 64 such tasks run; beyond that callers do it themselves.
    pub async fn get_or_load_detached<V: Into<Item>, E: fmt::Display, L>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> L + Send + 'static,
    ) -> Result<Option<Item>, LoadError<E>>
    where
        L: Future<Output = Result<Option<V>, E>> + Send,
    {
        let loader = async { loader().await.map(|value| value.map(Into::into)) };
        let key = keys::sent(key.as_ref(), &self.options);
        load::get_or_load_detached(self, &key, options.into(), loader).await
    }

    /// This client with values of a type, or of several.
    ///
    /// ```no_run
    /// # use ketch_client::{AsyncClient, codec::Raw};
    /// # async fn example(client: AsyncClient) -> Result<(), ketch_client::Error> {
    /// let texts = client.typed(Raw);
    /// texts.set("greeting", &"hello".to_owned(), None).await?;
    /// let greeting: Option<String> = texts.get("greeting").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn typed<C>(&self, codec: C) -> Typed<C, Self> {
        Typed::new(self.clone(), codec)
    }
}
