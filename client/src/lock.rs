//! A lock that many processes share: a lease on a key, with a number that fences off holders that are late.
//!
//! ```text
//!  add key (lease) --> count key:token up --> cas key "token nonce" --> held          false or another version on the way: not held
//!                                                |
//!                    renew: cas, the same value  '  release: delete, if it is this version
//! ```
//!
//! O1. The token is drawn while the key is held, and the key is seen to be still held after it. So a later holder's token is larger,
//!     whoever was paused for however long in between.
//! O2. What is not this holder's any more is neither renewed nor deleted: both go by the version of its own value.
//! O3. The node keeps the key a second longer than the lease, since it counts whole seconds: it never ends before the holder thinks so.

use std::fmt;
use std::future::pending;
use std::time::{Duration, Instant, SystemTime};

use ketch_client_macros::both;

use crate::Client;
use crate::front::{Front, call};
use crate::keys;
use crate::update;
use client_core::calls;
use client_core::error::Result;
use client_core::health::unit;
use client_core::request::StoreMode;
use client_core::ttl::Ttl;
use client_core::value::{Cas, CasUnique, Item, Payload};

#[cfg(feature = "tokio")]
use crate::AsyncClient;

/// The first pause of a caller that waits for a lock, and the longest.
const PAUSE: Duration = Duration::from_millis(4);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// A lock that is held, until its lease is over: see [`Client::lock`].
///
/// It is not released when it is dropped: then its lease ends by itself.
#[must_use = "it is held until its lease is over, unless it is released"]
pub struct Lock<K = Client> {
    client: K,
    held: Held,
}

/// Without the client, which has much to tell.
impl<K> fmt::Debug for Lock<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Lock");
        let key = String::from_utf8_lossy(&self.held.key);
        debug.field("key", &key).field("token", &self.held.token);
        debug.field("until", &self.held.until).finish()
    }
}

/// What is held.
struct Held {
    /// As it is sent.
    key: Vec<u8>,
    token: u64,
    value: String,
    /// When the lease is over by this process's clock; the node's is not over before.
    until: Instant,
}

/// The expiry of a key that is to live for `lease` at least.
fn kept(lease: Duration) -> Ttl {
    Ttl::from(lease.saturating_add(Duration::from_secs(1)))
}

/// Takes the lock of `key`, as it is sent, if it is free.
async fn acquire<F: Front>(front: &F, key: &[u8], lease: Duration) -> Result<Option<Held>> {
    let nonce = format!("{:016x}", front.ring().random());
    let own = Payload::from(&nonce);
    let add = |context| calls::store(context, key, own, StoreMode::Add, kept(lease));
    if !call(front, add).await? {
        return Ok(None);
    }
    let Some(unique) = version(front, key, &nonce).await? else {
        return Ok(None);
    };
    let token = match next_token(front, key).await {
        Ok(token) => token,
        Err(error) => {
            // Nobody needs to wait for the end of the lease.
            let _ = update::delete_if(front, key, unique).await;
            return Err(error);
        }
    };
    let until = front.now() + lease;
    let value = format!("{token} {nonce}");
    let own = Payload::from(&value);
    let cas = |context| calls::cas(context, key, own, unique, kept(lease));
    let stored = call(front, cas).await?;
    Ok((stored == Cas::Stored).then(|| Held {
        key: key.to_vec(),
        token,
        value,
        until,
    }))
}

/// A number that is larger than all before it. If the node has lost the counter, it goes on at the microseconds since 1970, which no
/// lock has been taken as often as.
async fn next_token<F: Front>(front: &F, key: &[u8]) -> Result<u64> {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let unix_us = unix.unwrap_or_default().as_micros() as u64;
    let counter = [key, b":token"].concat();
    let create = Some((unix_us, None));
    let number = call(front, |context| {
        calls::count(context, &counter, false, 1, create)
    });
    Ok(number.await?.unwrap_or(unix_us))
}

/// The version of `key`, if its value is `own`.
async fn version<F: Front>(front: &F, key: &[u8], own: &str) -> Result<Option<CasUnique>> {
    let found = call(front, |context| calls::gets(context, key)).await?;
    Ok(found.and_then(|(item, unique)| (item.value == own).then_some(unique)))
}

impl Held {
    async fn renew<F: Front>(&mut self, front: &F, lease: Duration) -> Result<bool> {
        let until = front.now() + lease;
        let Some(unique) = version(front, &self.key, &self.value).await? else {
            return Ok(false);
        };
        let (key, own) = (&self.key, Payload::from(&self.value));
        let cas = |context| calls::cas(context, key, own, unique, kept(lease));
        let stored = call(front, cas).await? == Cas::Stored;
        if stored {
            self.until = until;
        }
        Ok(stored)
    }

    async fn release<F: Front>(&self, front: &F) -> Result<bool> {
        match version(front, &self.key, &self.value).await? {
            Some(unique) => update::delete_if(front, &self.key, unique).await,
            None => Ok(false),
        }
    }

    /// Raises the highest token that was seen at `fence` to this one's; false if it is higher.
    async fn pass<F: Front>(&self, front: &F, fence: &[u8]) -> Result<bool> {
        let mut passes = false;
        let raise = |seen: Option<&Item>| {
            let highest = seen.and_then(Item::number::<u64>).unwrap_or(0);
            passes = self.token >= highest;
            (self.token > highest).then_some(self.token)
        };
        update::update(front, fence, Ttl::NEVER_ENDS, raise).await?;
        Ok(passes)
    }
}

#[both]
impl AsyncClient {
    /// Takes the lock `key` for `lease`, if nobody holds it; `None` if somebody does. A lease is at least a second in effect: nodes
    /// count whole ones.
    ///
    /// A lock keeps work from being done twice. It is no proof that nobody else works: a holder may be paused until its lease
    /// is over, and a node that loses its memory loses its locks. What must not be spoilt by a holder that is late checks the
    /// [token](Lock::token), which grows from holder to holder.
    ///
    /// ```example
    /// let lock = client.lock("report", Duration::from_secs(30)).await?.expect("it is free");
    /// assert!(client.lock("report", Duration::from_secs(30)).await?.is_none());
    /// // .. the work that one process is to do ..
    /// assert!(lock.release().await?);
    /// ```
    pub async fn lock(
        &self,
        key: impl AsRef<[u8]>,
        lease: Duration,
    ) -> Result<Option<Lock<AsyncClient>>> {
        let key = keys::sent(key.as_ref(), self.options());
        let held = self.run(acquire(self, &key, lease)).await?;
        Ok(held.map(|held| Lock {
            client: self.clone(),
            held,
        }))
    }

    /// As [`lock`](Self::lock), but waits for the lock for as long as `wait`.
    ///
    /// ```example
    /// let (lease, wait) = (Duration::from_secs(30), Duration::from_secs(5));
    /// let lock = client.lock_within("report", lease, wait).await?.expect("nobody holds it that long");
    /// assert!(lock.left() > Duration::from_secs(25));
    /// lock.release().await?;
    /// ```
    pub async fn lock_within(
        &self,
        key: impl AsRef<[u8]>,
        lease: Duration,
        wait: Duration,
    ) -> Result<Option<Lock<AsyncClient>>> {
        let (key, deadline) = (key.as_ref(), self.now() + wait);
        let mut pause = PAUSE;
        loop {
            let lock = self.lock(key, lease).await?;
            let now = self.now();
            if lock.is_some() || now >= deadline {
                return Ok(lock);
            }
            let some = pause.mul_f64(0.5 + 0.5 * unit(self.ring().random()));
            let at = (now + some).min(deadline);
            self.run(self.until(at, pending::<()>())).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

#[both]
impl Lock<AsyncClient> {
    /// A number that is larger than that of every holder before. A store that is told it with each write, and refuses what comes with
    /// a smaller one than it has seen, is safe from holders that were paused beyond their lease.
    pub fn token(&self) -> u64 {
        self.held.token
    }

    /// What is left of the lease, by this process's clock; zero when it is over.
    pub fn left(&self) -> Duration {
        let now = self.client.now();
        self.held.until.saturating_duration_since(now)
    }

    /// Asks whether the lock is still held.
    pub async fn is_held(&self) -> Result<bool> {
        let Held { key, value, .. } = &self.held;
        let version = self.client.run(version(&self.client, key, value)).await?;
        Ok(version.is_some())
    }

    /// Has the lease last for `lease` from now on; false if it was over before, and the lock is lost.
    ///
    /// ```example
    /// let lease = Duration::from_secs(5);
    /// let mut lock = client.lock("report", lease).await?.expect("it is free");
    /// assert!(lock.renew(lease).await?);
    /// node.pass(Duration::from_secs(10));
    /// assert!(!lock.renew(lease).await?);
    /// ```
    pub async fn renew(&mut self, lease: Duration) -> Result<bool> {
        let work = self.held.renew(&self.client, lease);
        self.client.run(work).await
    }

    /// Gives the lock back; false if it was lost before. Another holder's is left alone.
    pub async fn release(self) -> Result<bool> {
        self.client.run(self.held.release(&self.client)).await
    }

    /// Passes a fence that is kept in the cache: true if no later holder has passed it, and then no earlier one will any more. To be
    /// asked right before what must not be done by a holder that is late, where what is written to cannot check the
    /// [token](Self::token) itself. The fence is a key without end; a node that loses it lets everybody pass.
    ///
    /// ```example
    /// let lease = Duration::from_secs(5);
    /// let paused = client.lock("report", lease).await?.expect("it is free");
    /// node.pass(Duration::from_secs(10));
    /// let next = client.lock("report", lease).await?.expect("the lease is over");
    /// assert!(next.token() > paused.token());
    /// assert!(next.fence("report:fence").await?);
    /// assert!(!paused.fence("report:fence").await?);
    /// # drop((next, paused));
    /// ```
    pub async fn fence(&self, fence: impl AsRef<[u8]>) -> Result<bool> {
        let fence = keys::sent(fence.as_ref(), self.client.options());
        self.client.run(self.held.pass(&self.client, &fence)).await
    }
}
