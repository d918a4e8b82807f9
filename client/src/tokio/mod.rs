//! The async client, for tokio.
//!
//! ```text
//!  AsyncClient::get ... -> core::calls (arguments -> operation) -> drive (in the caller's task) -> result
//!                                                                    |       ^
//!                                                                    v       | mailbox
//!  pool, one a node:  lanes, each a connection and the task that owns it; shared by all callers
//! ```
//!
//! Requests of all tasks go in order over few connections, so that many are written and read at once.

mod behind;
mod drive;
mod front;
mod lane;
mod load;
mod mailbox;
mod pool;
mod resolve;
mod solo;
mod stream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Node;
use crate::core::Operation;
use crate::core::calls::{self, Call, PerNode, Stat};
use crate::core::operation::{Context, Entry};
use crate::core::options::ClientOptions;
use crate::core::request::StoreMode;
use crate::error::Result;
use crate::front::{Front, call, call_many};
use crate::shared::Shared;
use crate::topology::{FollowOptions, Source, SourceError};
use crate::value::{Cas, CasUnique, Item, Value};
use crate::values;
use pool::Pool;

/// Now, by the runtime's clock.
fn now() -> Instant {
    ::tokio::time::Instant::now().into_std()
}

/// What is done at the end, even if a future is dropped half way: what was sent may be carried out all the same.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Many nodes as one cache, for tasks of a tokio runtime with time and I/O enabled. Cheap to clone; all clones share
/// connections and what is known of the nodes.
///
/// A time to live is a `Duration` or `None`: none and zero mean never, fractions of a second are rounded up, and what is
/// longer than 30 days is sent as the absolute time at which it ends, by this machine's clock.
///
/// A method's future may be dropped at any point. What it has sent is carried out and its replies are thrown away; as
/// after an error, a write may have been done or not, and with copies perhaps on some of them. Who must know spawns the
/// write as a task of its own.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use ketch_client::{AsyncClient, ClientOptions, Node};
///
/// let nodes = Node::list("cache1:11211,cache2:11211,cache3:11211")?;
/// let client = AsyncClient::new(nodes, ClientOptions::default().copies(2));
/// client.set("greeting", "hello", Duration::from_secs(60)).await?;
/// if let Some(item) = client.get("greeting").await? {
///     assert_eq!(&item.value[..], b"hello");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AsyncClient {
    shared: Arc<Shared<Pool>>,
}

impl AsyncClient {
    /// A client of `nodes`. Connections are made when they are needed.
    pub fn new(nodes: impl IntoIterator<Item = Node>, options: ClientOptions) -> Self {
        let nodes: Vec<Node> = nodes.into_iter().collect();
        AsyncClient {
            shared: Shared::new(&nodes, options),
        }
    }

    /// A client of the nodes that `source` tells, now and from then on: a thread asks again at the source's interval, and
    /// changes the nodes while operations go on, as [`set_nodes`](Self::set_nodes) does. Whatever the source fails to tell, or
    /// if it has no nodes to tell, the nodes stay. The thread ends with the last clone of the client.
    ///
    /// The first list is waited for here: in a task, by way of `spawn_blocking`, if the source may take long.
    ///
    /// ```no_run
    /// use ketch_client::topology::{FollowOptions, NodeFile};
    /// use ketch_client::{AsyncClient, ClientOptions};
    ///
    /// let nodes = NodeFile::new("/etc/cache-nodes");
    /// let client = AsyncClient::follow(nodes, ClientOptions::default(), FollowOptions::default())?;
    /// # Ok::<(), ketch_client::topology::SourceError>(())
    /// ```
    pub fn follow(
        source: impl Source + 'static,
        options: ClientOptions,
        follow: FollowOptions,
    ) -> std::result::Result<Self, SourceError> {
        let shared = Shared::follow(source, options, follow, now)?;
        Ok(AsyncClient { shared })
    }

    /// The nodes as they were given last.
    pub fn nodes(&self) -> Vec<Node> {
        self.shared.snapshot().nodes.clone()
    }

    /// Changes the nodes while operations go on. For `dual_read`, what the nodes that own a key now do not have is looked
    /// for where it was before, and carried over with the time to live that is left. Nodes that stay keep connections
    /// and standing.
    pub fn set_nodes(&self, nodes: impl IntoIterator<Item = Node>, dual_read: Duration) {
        let nodes: Vec<Node> = nodes.into_iter().collect();
        self.shared.set_nodes(&nodes, dual_read, now());
    }

    async fn call<O: Operation + Send, F: FnOnce(O) -> R, R>(
        &self,
        begin: impl FnOnce(Context) -> Call<O, F>,
    ) -> R {
        call(self, begin).await
    }

    /// The value of `key`; `None` is a miss.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>> {
        values::read_one(self, key.as_ref()).await
    }

    /// The value of `key` and its version, for [`cas`](Self::cas).
    pub async fn gets(&self, key: impl AsRef<[u8]>) -> Result<Option<(Item, CasUnique)>> {
        let found = self
            .call(|context| calls::gets(context, key.as_ref()))
            .await?;
        self.values().tell_lookup(found.is_some());
        let Some((item, unique)) = found else {
            return Ok(None);
        };
        Ok(self.values().open(Some(item))?.map(|item| (item, unique)))
    }

    /// The values of many keys, in their order: to all nodes at once, one request a node and
    /// two thousand keys.
    pub async fn get_multi<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<Item>>> {
        values::read(self, keys.iter().map(AsRef::as_ref).collect()).await
    }

    /// The value of `key`, which is given a new time to live.
    pub async fn get_and_touch(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<Option<Item>> {
        let found = self
            .call(|context| calls::get_and_touch(context, key.as_ref(), ttl.into()))
            .await?;
        self.values().tell_lookup(found.is_some());
        self.values().open(found)
    }

    /// Stores `value` in any case.
    pub async fn set<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<()> {
        let (key, value) = (key.as_ref(), self.values().pack(value.into()));
        let _forget = OnDrop(|| self.values().wrote(key));
        self.call(|context| calls::set(context, key, value.value(), ttl.into()))
            .await
    }

    /// Stores many values, with the same time to live: to all nodes at once, one request a node and
    /// two thousand keys. The results are in the
    /// order of the entries.
    pub async fn set_multi<'v, K: AsRef<[u8]>, V: Into<Value<'v>>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
        ttl: impl Into<Option<Duration>>,
    ) -> Vec<Result<()>> {
        let ttl = ttl.into();
        let packed: Vec<_> = entries
            .into_iter()
            .map(|(key, value)| (key, self.values().pack(value.into())))
            .collect();
        let entries = packed.iter().map(|(key, value)| Entry {
            key: key.as_ref(),
            value: value.value(),
        });
        let entries: Vec<Entry<'_>> = entries.collect();
        let keys: Vec<&[u8]> = entries.iter().map(|entry| entry.key).collect();
        let _forget = OnDrop(|| keys.iter().for_each(|key| self.values().wrote(key)));
        call_many(self, entries, Entry::len, |context, entries| {
            calls::set_multi(context, entries, ttl)
        })
        .await
    }

    /// Stores many values that come from elsewhere, another cluster or a file, each with a time to live of its own. A copy
    /// that has the key keeps it, since what it has is newer, unless `overwrite`. False for a key that all copies had.
    pub async fn fill_multi<'v, K: AsRef<[u8]>, V: Into<Value<'v>>>(
        &self,
        entries: impl IntoIterator<Item = (K, V, Option<Duration>)>,
        overwrite: bool,
    ) -> Vec<Result<bool>> {
        let entries: Vec<(K, Value<'_>, Option<Duration>)> = entries
            .into_iter()
            .map(|(key, value, ttl)| (key, value.into(), ttl))
            .collect();
        let filled = entries.iter().map(|(key, value, ttl)| {
            let key = key.as_ref();
            (Entry { key, value: *value }, *ttl)
        });
        let mode = if overwrite {
            StoreMode::Set
        } else {
            StoreMode::Add
        };
        let filled = filled.collect();
        let keys: Vec<&[u8]> = entries.iter().map(|(key, ..)| key.as_ref()).collect();
        let _forget = OnDrop(|| keys.iter().for_each(|key| self.values().wrote(key)));
        call_many(
            self,
            filled,
            |(entry, _)| entry.len(),
            |context, filled| calls::fill_multi(context, filled, mode),
        )
        .await
    }

    /// Stores `value` if the key is not there; false if it is.
    pub async fn add<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<bool> {
        self.store(key.as_ref(), value.into(), StoreMode::Add, ttl.into())
            .await
    }

    /// Stores `value` if the key is there; false if it is not.
    pub async fn replace<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<bool> {
        self.store(key.as_ref(), value.into(), StoreMode::Replace, ttl.into())
            .await
    }

    /// Puts `value` behind the present value, whose client flags and time to live stay; false if there is none.
    pub async fn append<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
    ) -> Result<bool> {
        self.store(key.as_ref(), value.into(), StoreMode::Append, None)
            .await
    }

    /// Puts `value` before the present value, whose client flags and time to live stay; false if there is none.
    pub async fn prepend<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
    ) -> Result<bool> {
        self.store(key.as_ref(), value.into(), StoreMode::Prepend, None)
            .await
    }

    async fn store(
        &self,
        key: &[u8],
        value: Value<'_>,
        mode: StoreMode,
        ttl: Option<Duration>,
    ) -> Result<bool> {
        // A piece of a value is not compressed.
        let packed = match mode {
            StoreMode::Append | StoreMode::Prepend => None,
            _ => Some(self.values().pack(value)),
        };
        let value = packed.as_ref().map_or(value, |packed| packed.value());
        let _forget = OnDrop(|| self.values().wrote(key));
        self.call(|context| calls::store(context, key, value, mode, ttl))
            .await
    }

    /// Stores `value` if the present one is still the one that [`gets`](Self::gets) gave with `unique`.
    pub async fn cas<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        unique: CasUnique,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<Cas> {
        let (key, value) = (key.as_ref(), self.values().pack(value.into()));
        let _forget = OnDrop(|| self.values().wrote(key));
        self.call(|context| calls::cas(context, key, value.value(), unique, ttl.into()))
            .await
    }

    /// Deletes `key`; false if it was not there.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let _forget = OnDrop(|| self.values().wrote(key));
        self.call(|context| calls::delete(context, key)).await
    }

    /// Deletes many keys: to all nodes at once, one request a node and
    /// two thousand keys. The results are in the order of the keys.
    pub async fn delete_multi<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<bool>> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let asked = keys.clone();
        let _forget = OnDrop(|| keys.iter().for_each(|key| self.values().wrote(key)));
        call_many(self, asked, |key| key.len(), calls::delete_multi).await
    }

    /// Counts up by `delta`, from 2^64 - 1 on to 0 again, and tells the new number; `None` if the key is not there.
    pub async fn incr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>> {
        self.count(key.as_ref(), false, delta, None).await
    }

    /// Counts down by `delta`, to 0 at most, and tells the new number; `None` if the key is not there.
    pub async fn decr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>> {
        self.count(key.as_ref(), true, delta, None).await
    }

    /// As [`incr`](Self::incr), but a missing counter begins as `initial`, to live for `ttl`.
    pub async fn incr_or_create(
        &self,
        key: impl AsRef<[u8]>,
        delta: u64,
        initial: u64,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<u64> {
        let create = Some((initial, ttl.into()));
        let number = self.count(key.as_ref(), false, delta, create).await?;
        Ok(number.unwrap_or(initial))
    }

    /// As [`decr`](Self::decr), but a missing counter begins as `initial`, to live for `ttl`.
    pub async fn decr_or_create(
        &self,
        key: impl AsRef<[u8]>,
        delta: u64,
        initial: u64,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<u64> {
        let create = Some((initial, ttl.into()));
        let number = self.count(key.as_ref(), true, delta, create).await?;
        Ok(number.unwrap_or(initial))
    }

    async fn count(
        &self,
        key: &[u8],
        down: bool,
        delta: u64,
        create: Option<(u64, Option<Duration>)>,
    ) -> Result<Option<u64>> {
        let _forget = OnDrop(|| self.values().wrote(key));
        self.call(|context| calls::count(context, key, down, delta, create))
            .await
    }

    /// Gives `key` a new time to live; false if it is not there.
    pub async fn touch(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<bool> {
        let key = key.as_ref();
        let _forget = OnDrop(|| self.values().wrote(key));
        self.call(|context| calls::touch(context, key, ttl.into()))
            .await
    }

    /// Empties every node.
    pub async fn flush_all(&self) -> PerNode<()> {
        self.flush_all_after(Duration::ZERO).await
    }

    /// Tells every node to forget, when `delay` is over, what it has by then; another flush meanwhile takes the place of this
    /// one. Nodes count whole seconds. Where a placement before a change is still asked, its nodes are told too.
    pub async fn flush_all_after(&self, delay: Duration) -> PerNode<()> {
        let _forget = OnDrop(|| self.values().flushed());
        self.call(|context| calls::flush_all(context, delay)).await
    }

    /// The version of every node.
    pub async fn version(&self) -> PerNode<String> {
        self.call(calls::version).await
    }

    /// The statistics of every node: of `group` (`items`, `slabs`, `settings`, ..), or the general ones if it is empty.
    pub async fn stats(&self, group: &str) -> PerNode<Vec<Stat>> {
        self.call(|context| calls::stats(context, group)).await
    }
}
