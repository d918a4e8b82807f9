//! Filling a cache before it is used, from a task.

use std::time::Instant;

use bytes::Bytes;

use super::AsyncClient;
use crate::warm::{WarmOptions, Warmed, batches, entries};
use client_core::value::Item;

impl AsyncClient {
    /// As [`Client::warm`](crate::Client::warm).
    pub async fn warm<K: AsRef<[u8]>, V: Into<Item>, E>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: WarmOptions,
        mut loader: impl AsyncFnMut(&[Bytes]) -> Result<Vec<Option<V>>, E>,
    ) -> Result<Warmed, E> {
        let (begun, mut warmed) = (Instant::now(), Warmed::default());
        for batch in batches(keys, options.batch) {
            if let Some(due) = options.due(begun, warmed.keys()) {
                ::tokio::time::sleep_until(due.into()).await;
            }
            let missing = warmed.missing(self.get_multi(&batch).await);
            if missing.is_empty() {
                continue;
            }
            let missing: Vec<Bytes> = missing.into_iter().map(|at| batch[at].clone()).collect();
            let values = loader(&missing).await?;
            let loaded = warmed.loaded(missing, values);
            warmed.stored(self.fill_multi(entries(&loaded, options.ttl), false).await);
        }
        Ok(warmed)
    }
}
