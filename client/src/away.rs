//! Keys whose home is another region: written there, and read there until the change has come back by the relay.
//!
//! ```text
//!  write:  marker here (unique p) -> home.set -> home.gets: c -> marker's unique p -> c, or if it is not p any more, another by chance
//!  read:   here: marker and key together -> marker? at home : here
//!  relay:  carries out (key, c) here, then: md key~away C<c> q
//! ```
//!
//! Aw1. From when a write returns until the relay has carried it out here, or the marker's time is over, there is a marker whose unique is
//!     that of the write, of a later one, or of none. So the relay takes it away with this write or a later one, or not at all.
//! Aw2. A write that cannot put its marker writes nothing.
//!
//! docs/invalidation.md says what a relay does.

use std::time::Duration;

use ketch_client_macros::both;

use crate::Client;
use crate::front::Front;
use client_core::error::Result;
use client_core::meta::{MetaOutcome, MetaRequest};
use client_core::ttl::Ttl;
use client_core::value::{Item, Value};

#[cfg(feature = "tokio")]
use crate::AsyncClient;

/// What stands behind the key in the key of its marker.
const BEHIND: &[u8] = b"~away";
/// Uniques by chance: where nodes do not count to, and below those of repairs.
const CHANCE: std::ops::Range<u64> = 1 << 62..1 << 63;

/// Two regions as one for who writes away from home: see [`Client::remote_marker`]. Or of `AsyncClient`s, with the same methods as
/// futures.
#[derive(Debug, Clone)]
pub struct RemoteMarker<K = Client> {
    here: K,
    home: K,
    ttl: Duration,
}

/// The key of a key's marker.
fn marker(key: &[u8]) -> Vec<u8> {
    [key, BEHIND].concat()
}

#[both]
impl AsyncClient {
    /// For keys whose home is another region, that of `home`: what is written is written there, and read there until a relay has brought it
    /// here, or for `ttl`, which must be longer than the relay is late. Until then a marker lies beside the key, as an item `KEY~away`.
    ///
    /// Reads of other keys, and of these where nobody has written lately, ask this region alone.
    ///
    /// ```example
    /// # let elsewhere = TestNode::start();
    /// # let home = AsyncClient::new([elsewhere.node()], ClientOptions::default());
    /// let regions = client.remote_marker(&home, Duration::from_secs(30));
    /// regions.set("user:1", "ann", 600).await?;
    /// assert_eq!(client.get("user:1").await?, None, "no relay has brought it yet");
    /// assert_eq!(regions.get("user:1").await?.expect("at home").text(), Some("ann"));
    /// ```
    pub fn remote_marker(&self, home: &AsyncClient, ttl: Duration) -> RemoteMarker<AsyncClient> {
        RemoteMarker {
            here: self.clone(),
            home: home.clone(),
            ttl,
        }
    }
}

#[both]
impl RemoteMarker<AsyncClient> {
    /// The value of `key`: at home if it was written away from there lately, else here.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>> {
        let key = key.as_ref();
        let marker = marker(key);
        let mut found = self.here.get_multi(&[&marker[..], key]).await.into_iter();
        let marked = found.next().unwrap_or(Ok(None));
        let local = found.next().unwrap_or(Ok(None));
        match marked {
            Ok(None) => local,
            // Where it cannot be known, home knows.
            Ok(Some(_)) | Err(_) => self.home.get(key).await,
        }
    }

    /// Stores a value at home.
    pub async fn set<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        ttl: impl Into<Ttl>,
    ) -> Result<()> {
        let key = key.as_ref();
        let marker = marker(key);
        let by_chance = self.mark(&marker).await?;
        self.home.set(key, value, ttl).await?;
        if let Ok(Some((_, unique))) = self.home.gets(key).await {
            self.name(&marker, by_chance, unique.number).await;
        }
        Ok(())
    }

    /// Deletes `key` at home; true if it was there. It is deleted here as well when the relay comes.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        self.mark(&marker(key)).await?;
        self.home.delete(key).await
    }

    /// Puts the marker, with a unique by chance that no relay asks for.
    async fn mark(&self, marker: &[u8]) -> Result<u64> {
        let unique = self.chance();
        self.here.meta(self.request(marker, unique)).await?;
        Ok(unique)
    }

    /// Gives the marker the unique of what was written, so that the relay can take it away. If another write has marked the key
    /// meanwhile, nobody knows which was first at home: then it stays for its time.
    async fn name(&self, marker: &[u8], by_chance: u64, unique: u64) {
        let named = self.request(marker, unique).flag(format!("C{by_chance}"));
        let reply = self.here.meta(named).await;
        if reply.is_ok_and(|reply| reply.outcome == MetaOutcome::Done) {
            return;
        }
        let anew = self.request(marker, self.chance());
        if let Err(error) = self.here.meta(anew).await {
            log::debug!("a marker keeps its unique: {error}");
        }
    }

    fn request(&self, marker: &[u8], unique: u64) -> MetaRequest {
        let ttl_s = self.ttl.as_secs().max(1);
        MetaRequest::set(marker, "")
            .flag(format!("T{ttl_s}"))
            .flag(format!("E{unique}"))
    }

    fn chance(&self) -> u64 {
        let random = self.here.ring().random();
        CHANCE.start + random % (CHANCE.end - CHANCE.start)
    }
}
