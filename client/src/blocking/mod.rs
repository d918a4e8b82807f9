//! The blocking client.
//!
//! ```text
//!  Client::get ... -> core::calls (arguments -> operation) -> drive (sockets) -> result
//!  snapshot: the ring and, node by node, its pool; swapped as a whole when the nodes change
//! ```
//!
//! There is no thread of its own, but one that follows a source of nodes if the client is to: what must happen beside the callers' operations (probes of ejected nodes, late
//! replies) is carried on a step further by the next operation, whichever it is.

mod connection;
mod drive;
mod front;
mod load;
mod pool;
mod resolve;
pub(crate) mod stream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Node;
use crate::core::Operation;
use crate::core::calls::{self, Call, PerNode, Stat};
use crate::core::operation::{Context, Entry};
use crate::core::options::ClientOptions;
use crate::core::request::StoreMode;
use crate::error::Result;
use crate::front::{Front, call, call_many, done};
use crate::shared::Shared;
use crate::topology::{FollowOptions, Source, SourceError};
pub use crate::typed::Typed;
use crate::value::{Cas, CasUnique, Item, Value};
use crate::values;
use pool::Pool;

/// Many nodes as one cache. Cheap to clone; all clones share connections and what is known of the nodes.
///
/// A time to live is a `Duration` or `None`: none and zero mean never, fractions of a second are rounded up, and what is
/// longer than 30 days is sent as the absolute time at which it ends, by this machine's clock.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared<Pool>>,
}

impl Client {
    /// A client of `nodes`. Connections are made when they are needed.
    pub fn new(nodes: impl IntoIterator<Item = Node>, options: ClientOptions) -> Self {
        let nodes: Vec<Node> = nodes.into_iter().collect();
        Client {
            shared: Shared::new(&nodes, options),
        }
    }

    /// A client of the nodes that `source` tells, now and from then on: a thread asks again at the source's interval, and
    /// changes the nodes while operations go on, as [`set_nodes`](Self::set_nodes) does. Whatever the source fails to tell, or
    /// if it has no nodes to tell, the nodes stay. The thread ends with the last clone of the client.
    ///
    /// ```no_run
    /// use ketch_client::topology::{FollowOptions, NodeFile};
    /// use ketch_client::{Client, ClientOptions};
    ///
    /// let nodes = NodeFile::new("/etc/cache-nodes");
    /// let client = Client::follow(nodes, ClientOptions::default(), FollowOptions::default())?;
    /// # Ok::<(), ketch_client::topology::SourceError>(())
    /// ```
    pub fn follow(
        source: impl Source + 'static,
        options: ClientOptions,
        follow: FollowOptions,
    ) -> std::result::Result<Self, SourceError> {
        let shared = Shared::follow(source, options, follow, Instant::now)?;
        Ok(Client { shared })
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
        self.shared.set_nodes(&nodes, dual_read, Instant::now());
    }

    fn call<O: Operation + Send, F: FnOnce(O) -> R, R>(
        &self,
        begin: impl FnOnce(Context) -> Call<O, F>,
    ) -> R {
        done(call(self, begin))
    }

    /// The value of `key`; `None` is a miss.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>> {
        done(values::read_one(self, key.as_ref()))
    }

    /// The value of `key` and its version, for [`cas`](Self::cas).
    pub fn gets(&self, key: impl AsRef<[u8]>) -> Result<Option<(Item, CasUnique)>> {
        let found = self.call(|context| calls::gets(context, key.as_ref()))?;
        self.values().tell_lookup(found.is_some());
        let Some((item, unique)) = found else {
            return Ok(None);
        };
        Ok(self.values().open(Some(item))?.map(|item| (item, unique)))
    }

    /// The values of many keys, in their order: to all nodes at once, one request a node and
    /// two thousand keys.
    pub fn get_multi<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<Item>>> {
        done(values::read(self, keys.iter().map(AsRef::as_ref).collect()))
    }

    /// The value of `key`, which is given a new time to live.
    pub fn get_and_touch(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<Option<Item>> {
        let found = self.call(|context| calls::get_and_touch(context, key.as_ref(), ttl.into()))?;
        self.values().tell_lookup(found.is_some());
        self.values().open(found)
    }

    /// Stores `value` in any case.
    pub fn set<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<()> {
        let (key, value) = (key.as_ref(), self.values().pack(value.into()));
        let stored = self.call(|context| calls::set(context, key, value.value(), ttl.into()));
        self.values().wrote(key);
        stored
    }

    /// Stores many values, with the same time to live: to all nodes at once, one request a node and
    /// two thousand keys. The results are in the
    /// order of the entries.
    pub fn set_multi<'v, K: AsRef<[u8]>, V: Into<Value<'v>>>(
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
        let entries = entries.collect();
        let stored = done(call_many(self, entries, Entry::len, |context, entries| {
            calls::set_multi(context, entries, ttl)
        }));
        packed
            .iter()
            .for_each(|(key, _)| self.values().wrote(key.as_ref()));
        stored
    }

    /// Stores many values that come from elsewhere, another cluster or a file, each with a time to live of its own. A copy
    /// that has the key keeps it, since what it has is newer, unless `overwrite`. False for a key that all copies had.
    pub fn fill_multi<'v, K: AsRef<[u8]>, V: Into<Value<'v>>>(
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
        let filled = done(call_many(
            self,
            filled,
            |(entry, _)| entry.len(),
            |context, filled| calls::fill_multi(context, filled, mode),
        ));
        let keys = entries.iter().map(|(key, ..)| key.as_ref());
        keys.for_each(|key| self.values().wrote(key));
        filled
    }

    /// Stores `value` if the key is not there; false if it is.
    pub fn add<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<bool> {
        self.store(key.as_ref(), value.into(), StoreMode::Add, ttl.into())
    }

    /// Stores `value` if the key is there; false if it is not.
    pub fn replace<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<bool> {
        self.store(key.as_ref(), value.into(), StoreMode::Replace, ttl.into())
    }

    /// Puts `value` behind the present value, whose client flags and time to live stay; false if there is none.
    pub fn append<'v>(&self, key: impl AsRef<[u8]>, value: impl Into<Value<'v>>) -> Result<bool> {
        self.store(key.as_ref(), value.into(), StoreMode::Append, None)
    }

    /// Puts `value` before the present value, whose client flags and time to live stay; false if there is none.
    pub fn prepend<'v>(&self, key: impl AsRef<[u8]>, value: impl Into<Value<'v>>) -> Result<bool> {
        self.store(key.as_ref(), value.into(), StoreMode::Prepend, None)
    }

    fn store(
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
        let stored = self.call(|context| calls::store(context, key, value, mode, ttl));
        self.values().wrote(key);
        stored
    }

    /// Stores `value` if the present one is still the one that [`gets`](Self::gets) gave with `unique`.
    pub fn cas<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        unique: CasUnique,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<Cas> {
        let (key, value) = (key.as_ref(), self.values().pack(value.into()));
        let stored =
            self.call(|context| calls::cas(context, key, value.value(), unique, ttl.into()));
        self.values().wrote(key);
        stored
    }

    /// Deletes `key`; false if it was not there.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let deleted = self.call(|context| calls::delete(context, key));
        self.values().wrote(key);
        deleted
    }

    /// Deletes many keys: to all nodes at once, one request a node and
    /// two thousand keys. The results are in the order of the keys.
    pub fn delete_multi<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<bool>> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let deleted = done(call_many(
            self,
            keys.clone(),
            |key| key.len(),
            calls::delete_multi,
        ));
        keys.into_iter().for_each(|key| self.values().wrote(key));
        deleted
    }

    /// Counts up by `delta`, from 2^64 - 1 on to 0 again, and tells the new number; `None` if the key is not there.
    pub fn incr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>> {
        self.count(key.as_ref(), false, delta, None)
    }

    /// Counts down by `delta`, to 0 at most, and tells the new number; `None` if the key is not there.
    pub fn decr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>> {
        self.count(key.as_ref(), true, delta, None)
    }

    /// As [`incr`](Self::incr), but a missing counter begins as `initial`, to live for `ttl`.
    pub fn incr_or_create(
        &self,
        key: impl AsRef<[u8]>,
        delta: u64,
        initial: u64,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<u64> {
        let create = Some((initial, ttl.into()));
        let number = self.count(key.as_ref(), false, delta, create)?;
        Ok(number.unwrap_or(initial))
    }

    /// As [`decr`](Self::decr), but a missing counter begins as `initial`, to live for `ttl`.
    pub fn decr_or_create(
        &self,
        key: impl AsRef<[u8]>,
        delta: u64,
        initial: u64,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<u64> {
        let create = Some((initial, ttl.into()));
        let number = self.count(key.as_ref(), true, delta, create)?;
        Ok(number.unwrap_or(initial))
    }

    fn count(
        &self,
        key: &[u8],
        down: bool,
        delta: u64,
        create: Option<(u64, Option<Duration>)>,
    ) -> Result<Option<u64>> {
        let number = self.call(|context| calls::count(context, key, down, delta, create));
        self.values().wrote(key);
        number
    }

    /// Gives `key` a new time to live; false if it is not there.
    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: impl Into<Option<Duration>>) -> Result<bool> {
        let key = key.as_ref();
        let touched = self.call(|context| calls::touch(context, key, ttl.into()));
        self.values().wrote(key);
        touched
    }

    /// Empties every node.
    pub fn flush_all(&self) -> PerNode<()> {
        self.flush_all_after(Duration::ZERO)
    }

    /// Tells every node to forget, when `delay` is over, what it has by then; another flush meanwhile takes the place of this
    /// one. Nodes count whole seconds. Where a placement before a change is still asked, its nodes are told too.
    pub fn flush_all_after(&self, delay: Duration) -> PerNode<()> {
        let flushed = self.call(|context| calls::flush_all(context, delay));
        self.values().flushed();
        flushed
    }

    /// The version of every node.
    pub fn version(&self) -> PerNode<String> {
        self.call(calls::version)
    }

    /// The statistics of every node: of `group` (`items`, `slabs`, `settings`, ..), or the general ones if it is empty.
    pub fn stats(&self, group: &str) -> PerNode<Vec<Stat>> {
        self.call(|context| calls::stats(context, group))
    }
}
