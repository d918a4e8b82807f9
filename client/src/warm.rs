//! Filling a cache before it is used.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::Client;
use client_core::ttl::Ttl;
use client_core::value::{Item, Value};

/// How [`Client::warm`] goes about it.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "options are of use where they are given to something"]
pub struct WarmOptions {
    pub(crate) ttl: Ttl,
    pub(crate) batch: usize,
    rate: Option<f64>,
}

impl Default for WarmOptions {
    fn default() -> Self {
        WarmOptions {
            ttl: Ttl::default(),
            batch: 100,
            rate: None,
        }
    }
}

impl WarmOptions {
    /// The time to live of what is stored; without it, it has none.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// Keys that are looked for, and loaded, together; 100.
    pub fn batch(mut self, keys: usize) -> Self {
        self.batch = keys.max(1);
        self
    }

    /// Keys a second at most, so that the store behind the cache is not hurt; without it, as fast as it goes.
    pub fn rate(mut self, keys_a_second: f64) -> Self {
        self.rate = (keys_a_second > 0.0).then_some(keys_a_second);
        self
    }

    /// When the key behind `done` keys may be looked for.
    pub(crate) fn due(&self, begun: Instant, done: u64) -> Option<Instant> {
        let rate = self.rate?;
        let pause = Duration::try_from_secs_f64(done as f64 / rate).ok()?;
        begun.checked_add(pause)
    }
}

/// What [`Client::warm`] has done, in keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Warmed {
    /// Were there already.
    pub present: u64,
    /// Were loaded and stored.
    pub stored: u64,
    /// Were not there, and the loader had no value for them.
    pub absent: u64,
    /// Could not be looked for, or not be stored.
    pub failed: u64,
}

impl Warmed {
    pub(crate) fn keys(&self) -> u64 {
        self.present + self.stored + self.absent + self.failed
    }

    /// Sorts out a batch that was looked for. Gives the places of keys that are to be loaded.
    pub(crate) fn missing(&mut self, found: Vec<crate::Result<Option<Item>>>) -> Vec<usize> {
        let mut missing = Vec::new();
        for (at, found) in found.into_iter().enumerate() {
            match found {
                Ok(Some(_)) => self.present += 1,
                Ok(None) => missing.push(at),
                Err(_) => self.failed += 1,
            }
        }
        missing
    }

    /// What of a batch that was loaded is to be stored.
    pub(crate) fn loaded<V: Into<Item>>(
        &mut self,
        keys: Vec<Bytes>,
        values: Vec<Option<V>>,
    ) -> Vec<(Bytes, Item)> {
        let count = keys.len();
        let all = keys.into_iter().zip(values);
        let some = all.filter_map(|(key, value)| Some((key, value?.into())));
        let entries: Vec<_> = some.collect();
        self.absent += (count - entries.len()) as u64;
        entries
    }

    pub(crate) fn stored(&mut self, results: Vec<crate::Result<bool>>) {
        for result in results {
            match result {
                Ok(true) => self.stored += 1,
                // Somebody was quicker.
                Ok(false) => self.present += 1,
                Err(_) => self.failed += 1,
            }
        }
    }
}

pub(crate) fn entries(
    loaded: &[(Bytes, Item)],
    ttl: Ttl,
) -> impl Iterator<Item = (&[u8], Value<'_>, Ttl)> {
    loaded
        .iter()
        .map(move |(key, item)| (key.as_ref(), Value::from(item), ttl))
}

pub(crate) fn batches<K: AsRef<[u8]>>(
    keys: impl IntoIterator<Item = K>,
    size: usize,
) -> impl Iterator<Item = Vec<Bytes>> {
    let mut keys = keys.into_iter();
    std::iter::from_fn(move || {
        let batch = keys.by_ref().take(size);
        let batch: Vec<Bytes> = batch
            .map(|key| Bytes::copy_from_slice(key.as_ref()))
            .collect();
        (!batch.is_empty()).then_some(batch)
    })
}

impl Client {
    /// Fills the cache with `keys`, those that are not there: `loader` is given them batch by batch, and gives for each its value, or
    /// `None`, in their order (what is missing at the end counts as `None`). A value that somebody stores meanwhile stays.
    ///
    /// An error of the loader ends it. Keys that nodes fail on are counted, and passed over.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use ketch_client::{Client, WarmOptions};
    /// # fn rows(keys: &[bytes::Bytes]) -> Result<Vec<Option<String>>, std::io::Error> { Ok(vec![]) }
    /// # fn example(client: Client) -> Result<(), std::io::Error> {
    /// let keys = (0..100_000).map(|user| format!("user:{user}"));
    /// let options = WarmOptions::default().ttl(Duration::from_secs(3600)).rate(5000.0);
    /// let warmed = client.warm(keys, options, |missing| rows(missing))?;
    /// println!("{} stored, {} were there", warmed.stored, warmed.present);
    /// # Ok(())
    /// # }
    /// ```
    pub fn warm<K: AsRef<[u8]>, V: Into<Item>, E>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: WarmOptions,
        mut loader: impl FnMut(&[Bytes]) -> Result<Vec<Option<V>>, E>,
    ) -> Result<Warmed, E> {
        let (begun, mut warmed) = (Instant::now(), Warmed::default());
        for batch in batches(keys, options.batch) {
            if let Some(due) = options.due(begun, warmed.keys()) {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let missing = warmed.missing(self.get_multi(&batch));
            if missing.is_empty() {
                continue;
            }
            let missing: Vec<Bytes> = missing.into_iter().map(|at| batch[at].clone()).collect();
            let values = loader(&missing)?;
            let loaded = warmed.loaded(missing, values);
            warmed.stored(self.fill_multi(entries(&loaded, options.ttl), false));
        }
        Ok(warmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_from_the_beginning_on() {
        let now = Instant::now();
        let options = WarmOptions::default().rate(200.0);
        assert_eq!(options.due(now, 0), Some(now));
        assert_eq!(
            options.due(now, 300),
            Some(now + Duration::from_millis(1500))
        );
        assert_eq!(WarmOptions::default().due(now, 300), None);
        assert_eq!(WarmOptions::default().rate(0.0).due(now, 300), None);
    }

    #[test]
    fn batches_of_any_size() {
        let sizes = |keys: usize, size| {
            let keys = (0..keys).map(|key| key.to_string());
            batches(keys, size)
                .map(|batch| batch.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(5, 2), [2, 2, 1]);
        assert_eq!(sizes(4, 2), [2, 2]);
        assert_eq!(sizes(0, 2), [0; 0]);
    }
}
