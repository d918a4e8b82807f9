//! `get_or_load`, by the rules of [`load`], and values with types.

use std::fmt;

use super::Client;
use crate::front::done;
use crate::keys;
use crate::load::{self, LoadError, LoadOptions};
use crate::typed::Typed;
use client_core::value::Item;

impl Client {
    /// The value of `key`, from the cache or else from `loader`, which is called by one caller of all processes while the
    /// others wait or use the old value. `options` are a time to live or [`LoadOptions`].
    ///
    /// `loader` gives the value, `None` if there is none, or an error. A value that is about to expire is loaded anew by
    /// one caller, who waits for it; see [`get_or_load_detached`](Self::get_or_load_detached). If that fails, the old
    /// value is used, and the next attempt is made when the lease is over.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use ketch_client::{Client, load::LoadOptions};
    /// # fn render(page: u32) -> Result<Option<String>, std::io::Error> { Ok(None) }
    /// # fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let page = client.get_or_load("page:1", Duration::from_secs(60), || render(1))?;
    ///
    /// let careful = LoadOptions::new(Duration::from_secs(60))
    ///     .stale(Duration::from_secs(300))
    ///     .negative(Duration::from_secs(5));
    /// let page = client.get_or_load("page:2", careful, || render(2))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_or_load<V: Into<Item>, E: fmt::Display>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<Item>, LoadError<E>> {
        let loader = async { loader().map(|value| value.map(Into::into)) };
        let key = keys::sent(key.as_ref(), &self.options);
        done(load::get_or_load(self, &key, options.into(), loader))
    }

    /// As [`get_or_load`](Self::get_or_load), but a value that is about to expire, or stale, is loaded anew on a thread of
    /// its own, and given as it is meanwhile. At most 16 such threads run; beyond that callers do it themselves.
    pub fn get_or_load_detached<V: Into<Item>, E: fmt::Display>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> Result<Option<V>, E> + Send + 'static,
    ) -> Result<Option<Item>, LoadError<E>> {
        let loader = async { loader().map(|value| value.map(Into::into)) };
        let key = keys::sent(key.as_ref(), &self.options);
        done(load::get_or_load_detached(
            self,
            &key,
            options.into(),
            loader,
        ))
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
        Typed::new(self.clone(), codec)
    }
}
