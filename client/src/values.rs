//! What happens to values between the caller and the nodes: near cache, compression, and the counting of hits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::front::Front;
use crate::loads::Loads;
use crate::near::{Epoch, Found, Near, Route};
use crate::packed::{self, Packed};
use client_core::error::{Error, Result};
use client_core::metrics::Loaded;
use client_core::options::ClientOptions;
use client_core::value::{CasUnique, Item, Value};

/// What a client keeps beside the nodes and their connections.
pub(crate) struct Values {
    pub(crate) options: Arc<ClientOptions>,
    pub(crate) near: Option<Arc<Near>>,
    pub(crate) loads: Loads,
}

impl Values {
    pub(crate) fn new(options: Arc<ClientOptions>) -> Self {
        Values {
            near: options
                .near_cache
                .map(|near| Arc::new(Near::new(near, options.metrics.clone()))),
            loads: Loads::new(),
            options,
        }
    }

    /// See [`packed::pack`].
    pub(crate) fn pack<'v>(&self, value: Value<'v>) -> Packed<'v> {
        packed::pack(value, &self.options)
    }

    /// See [`packed::open`].
    pub(crate) fn open(&self, item: Option<Item>) -> Result<Option<Item>> {
        packed::open(item, &self.options)
    }

    /// `key` was written, or may have been.
    pub(crate) fn wrote(&self, key: &[u8]) {
        self.loads.flights.forget(key);
        if let Some(near) = &self.near {
            near.forget(key);
        }
    }

    /// The nodes were emptied, or may have been.
    pub(crate) fn flushed(&self) {
        self.loads.flights.clear();
        if let Some(near) = &self.near {
            near.clear();
        }
    }

    /// The value of `key`, if it is near.
    pub(crate) fn near(&self, key: &[u8], now: Instant) -> Option<Item> {
        let near = self.near.as_ref()?;
        let found = near.get(key, now);
        self.tell_near(u64::from(found.is_some()), u64::from(found.is_none()));
        found
    }

    /// To be asked for before a node is, for [`keep`](Self::keep).
    pub(crate) fn epoch(&self, key: &[u8]) -> Option<Epoch> {
        self.near.as_ref().map(|near| near.epoch(key))
    }

    /// Keeps near what a node said, to be used for so many seconds at most, -1 without end.
    pub(crate) fn keep<F: Front>(
        &self,
        front: &F,
        key: &[u8],
        value: &Option<Item>,
        (left, unique): (i64, CasUnique),
        epoch: Option<Epoch>,
    ) {
        if let (Some(near), Some(epoch), Some(item)) = (&self.near, epoch, value) {
            let found = Found {
                key,
                item,
                left,
                unique,
            };
            let ring = front.ring();
            let route = Route {
                ring: &ring,
                options: &self.options,
            };
            near.keep(&found, epoch, route, front.now());
        }
    }

    pub(crate) fn tell_near(&self, hits: u64, misses: u64) {
        if let Some(metrics) = &self.options.metrics {
            metrics.looked_up_near(hits, misses);
        }
    }

    pub(crate) fn tell_found<T>(&self, found: &[Result<Option<T>>]) {
        if self.options.metrics.is_some() {
            let hits = found.iter().filter(|found| matches!(found, Ok(Some(_))));
            let misses = found.iter().filter(|found| matches!(found, Ok(None)));
            self.tell_lookups(hits.count() as u64, misses.count() as u64);
        }
    }

    pub(crate) fn tell_lookups(&self, hits: u64, misses: u64) {
        if let Some(metrics) = &self.options.metrics {
            metrics.looked_up(hits, misses);
        }
    }

    pub(crate) fn tell_lookup(&self, hit: bool) {
        self.tell_lookups(u64::from(hit), u64::from(!hit));
    }

    pub(crate) fn tell_load(&self, how: Loaded, took: Duration) {
        if let Some(metrics) = &self.options.metrics {
            metrics.loaded(how, took);
        }
    }
}

/// What a read found, by [`errors_as_misses`](ClientOptions::errors_as_misses).
pub(crate) fn or_miss<T>(found: Result<Option<T>>, options: &ClientOptions) -> Result<Option<T>> {
    match found {
        Err(error) if options.errors_as_misses && !matches!(error, Error::Key(_)) => {
            log::debug!("an error that counts as a miss: {error}");
            Ok(None)
        }
        found => found,
    }
}

/// What a node said, with the item as it was before it was stored.
pub(crate) fn opened<T>(
    values: &Values,
    found: Result<Option<(Item, T)>>,
) -> Result<Option<(Item, T)>> {
    let Some((item, more)) = found? else {
        return Ok(None);
    };
    Ok(values.open(Some(item))?.map(|item| (item, more)))
}

/// As [`or_miss`], for many keys.
pub(crate) fn or_misses<T>(
    mut found: Vec<Result<Option<T>>>,
    options: &ClientOptions,
) -> Vec<Result<Option<T>>> {
    if options.errors_as_misses {
        let all = found.into_iter();
        found = all.map(|found| or_miss(found, options)).collect();
    }
    found
}
