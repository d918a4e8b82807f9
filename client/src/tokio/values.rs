//! What happens to values between the caller and the nodes: near cache, compression, and the counting of hits.

use super::{AsyncClient, now};
use crate::core::calls;
use crate::error::Result;
use crate::near::Near;
use crate::packed::{self, Packed};
use crate::value::{Item, Value};

impl AsyncClient {
    /// See [`packed::pack`].
    pub(super) fn pack<'v>(&self, value: Value<'v>) -> Packed<'v> {
        packed::pack(value, &self.shared.options)
    }

    /// See [`packed::open`].
    pub(super) fn open(&self, item: Option<Item>) -> Result<Option<Item>> {
        packed::open(item, &self.shared.options)
    }

    /// `key` was written, or may have been.
    pub(super) fn wrote(&self, key: &[u8]) {
        if let Some(near) = &self.shared.near {
            near.forget(key);
        }
    }

    /// The nodes were emptied, or may have been.
    pub(super) fn flushed(&self) {
        if let Some(near) = &self.shared.near {
            near.clear();
        }
    }

    /// Reads `key`, if it is near without asking a node.
    pub(super) async fn read_one(&self, key: &[u8]) -> Result<Option<Item>> {
        if self.shared.near.is_some() {
            let mut found = self.read(vec![key]).await;
            return found.pop().unwrap_or(Ok(None));
        }
        let found = self.call(|context| calls::get(context, key)).await;
        let found = [found];
        self.tell_found(&found);
        let [found] = found;
        self.open(found?)
    }

    /// Reads `keys`, those that are near without asking a node.
    pub(super) async fn read(&self, keys: Vec<&[u8]>) -> Vec<Result<Option<Item>>> {
        let Some(near) = &self.shared.near else {
            let found = self.call(|context| calls::get_multi(context, keys)).await;
            self.tell_found(&found);
            return found.into_iter().map(|found| self.open(found?)).collect();
        };
        let now = now();
        let mut results: Vec<_> = keys.iter().map(|key| Ok(near.get(key, now))).collect();
        let is_far = |&at: &usize| matches!(results[at], Ok(None));
        let far: Vec<usize> = (0..keys.len()).filter(is_far).collect();
        if let Some(metrics) = &self.shared.options.metrics {
            metrics.looked_up_near((keys.len() - far.len()) as u64, far.len() as u64);
        }
        if !far.is_empty() {
            let found = self.fetch(near, far.iter().map(|&at| keys[at]).collect());
            for (at, found) in far.into_iter().zip(found.await) {
                results[at] = found;
            }
        }
        results
    }

    /// Reads `keys` from the nodes, and keeps them near.
    async fn fetch(&self, near: &Near, keys: Vec<&[u8]>) -> Vec<Result<Option<Item>>> {
        let epochs: Vec<_> = keys.iter().map(|key| near.epoch(key)).collect();
        let asked = keys.clone();
        let found = self.call(|context| calls::get_with_ttl(context, asked));
        let found = found.await;
        self.tell_found(&found);
        let now = now();
        let kept = keys.into_iter().zip(epochs).zip(found);
        kept.map(|((key, epoch), found)| {
            let Some((item, left)) = found? else {
                return Ok(None);
            };
            let item = self.open(Some(item))?;
            if let Some(item) = &item {
                near.keep(key, item, left, epoch, now);
            }
            Ok(item)
        })
        .collect()
    }

    fn tell_found<T>(&self, found: &[Result<Option<T>>]) {
        if self.shared.options.metrics.is_some() {
            let hits = found.iter().filter(|found| matches!(found, Ok(Some(_))));
            let misses = found.iter().filter(|found| matches!(found, Ok(None)));
            self.tell_lookups(hits.count() as u64, misses.count() as u64);
        }
    }

    pub(super) fn tell_lookups(&self, hits: u64, misses: u64) {
        if let Some(metrics) = &self.shared.options.metrics {
            metrics.looked_up(hits, misses);
        }
    }
}
