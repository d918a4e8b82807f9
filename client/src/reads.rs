//! Reads: of one key or many, near ones without asking a node.

use client_core::calls;
use client_core::error::Result;
use client_core::value::Item;

use crate::front::{Front, call, call_many};
use crate::near::Near;

/// Reads `key`, if it is near without asking a node.
pub(crate) async fn read_one<F: Front>(front: &F, key: &[u8]) -> Result<Option<Item>> {
    let values = front.values();
    if let Some(near) = &values.near {
        return match values.near(key, front.now()) {
            Some(item) => Ok(Some(item)),
            None => {
                let mut found = fetch(front, near, vec![key]).await;
                found.pop().unwrap_or(Ok(None))
            }
        };
    }
    let found = [call(front, |context| calls::get(context, key)).await];
    values.tell_found(&found);
    let [found] = found;
    values.open(found?)
}

/// Reads `keys`, those that are near without asking a node.
pub(crate) async fn read<F: Front>(front: &F, keys: Vec<&[u8]>) -> Vec<Result<Option<Item>>> {
    let values = front.values();
    let Some(near) = &values.near else {
        let len = |key: &&[u8]| key.len();
        let found = call_many(front, keys, len, calls::get_multi).await;
        values.tell_found(&found);
        let opened = found.into_iter().map(|found| values.open(found?));
        return opened.collect();
    };
    let now = front.now();
    let mut results: Vec<_> = keys.iter().map(|key| Ok(near.get(key, now))).collect();
    let is_far = |&at: &usize| matches!(results[at], Ok(None));
    let far: Vec<usize> = (0..keys.len()).filter(is_far).collect();
    values.tell_near((keys.len() - far.len()) as u64, far.len() as u64);
    if !far.is_empty() {
        let asked = far.iter().map(|&at| keys[at]).collect();
        let found = fetch(front, near, asked).await;
        for (at, found) in far.into_iter().zip(found) {
            results[at] = found;
        }
    }
    results
}

/// Reads `keys` from the nodes, and keeps them near.
async fn fetch<F: Front>(front: &F, near: &Near, keys: Vec<&[u8]>) -> Vec<Result<Option<Item>>> {
    let values = front.values();
    let epochs: Vec<_> = keys.iter().map(|key| near.epoch(key)).collect();
    let asked = keys.clone();
    let len = |key: &&[u8]| key.len();
    let versions = near.follows();
    let begin = |context, keys| calls::get_with_ttl(context, keys, versions);
    let found = call_many(front, asked, len, begin).await;
    values.tell_found(&found);
    let kept = keys.into_iter().zip(epochs).zip(found);
    kept.map(|((key, epoch), found)| {
        let Some((item, left, unique)) = found? else {
            return Ok(None);
        };
        let value = values.open(Some(item))?;
        values.keep(front, key, &value, (left, unique), Some(epoch));
        Ok(value)
    })
    .collect()
}
