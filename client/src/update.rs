//! What takes more than one operation of a node: changes of a value that look at it first.

use std::future::pending;
use std::time::Duration;

use crate::front::{Front, call};
use client_core::calls;
use client_core::error::{Error, Result};
use client_core::health::unit;
use client_core::request::StoreMode;
use client_core::ttl::Ttl;
use client_core::value::{Cas, CasUnique, Item, Value};

/// How often a change is tried, and the longest pauses after the first conflict and after later ones: with as many callers at one
/// key as there are attempts, each comes through.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(64);

/// Changes the value of `key`, as it is sent, until nobody writes in between.
pub(crate) async fn update<F: Front, V: Into<Item>>(
    front: &F,
    key: &[u8],
    ttl: Ttl,
    mut change: impl FnMut(Option<&Item>) -> Option<V>,
) -> Result<Option<Item>> {
    let values = front.values();
    let mut pause = PAUSE;
    for _ in 0..ATTEMPTS {
        let (old, unique) = match call(front, |context| calls::gets(context, key)).await? {
            // The mark that there is nothing is a value to the node.
            Some((item, unique)) => (values.open(Some(item))?, Some(unique)),
            None => (None, None),
        };
        let Some(new) = change(old.as_ref()) else {
            return Ok(old);
        };
        let new: Item = new.into();
        let packed = values.pack(Value::from(&new));
        let payload = packed.payload();
        let stored = match unique {
            Some(unique) => {
                let cas = |context| calls::cas(context, key, payload, unique, ttl);
                call(front, cas).await? == Cas::Stored
            }
            None => {
                let add = |context| calls::store(context, key, payload, StoreMode::Add, ttl);
                call(front, add).await?
            }
        };
        if stored {
            return Ok(Some(new));
        }
        let at = front.now() + pause.mul_f64(unit(front.ring().random()));
        front.until(at, pending::<()>()).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    Err(Error::Conflict)
}

/// Deletes `key`, as it is sent, if it still has this version.
pub(crate) async fn delete_if<F: Front>(front: &F, key: &[u8], unique: CasUnique) -> Result<bool> {
    let deleted = match call(front, |context| calls::delete_if(context, key, unique)).await {
        // The node that gave the version is gone.
        Err(Error::NoNode) if !front.ring().members.is_empty() => return Ok(false),
        deleted => deleted?,
    };
    if deleted && front.options().copies > 1 {
        call(front, |context| calls::delete(context, key)).await?;
    }
    Ok(deleted)
}
