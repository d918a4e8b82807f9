//! The async client in the shape of the blocking one, so that the same tests run over both.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ketch_client::codec::Codec;
use ketch_client::load::{LoadError, LoadOptions};
use ketch_client::{
    Ack, Allowance, AsyncClient, AsyncGetStream, Cas, CasUnique, ClientOptions, Item, MetaReply,
    MetaRequest, Node, NodeState, PerNode, RateLimit, Result, Stat, Ttl, Value,
};
use tokio::runtime::{Builder, Runtime};
use tokio::task::block_in_place;

/// The runtime of all tests of a program.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(2).enable_all();
        builder.build().expect("a runtime")
    })
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

/// See the module.
#[derive(Clone)]
pub struct Client(AsyncClient);

impl Client {
    pub fn new(nodes: impl IntoIterator<Item = Node>, options: ClientOptions) -> Self {
        Client(AsyncClient::new(nodes, options))
    }

    pub fn set_nodes(&self, nodes: impl IntoIterator<Item = Node>, dual_read: Duration) {
        self.0.set_nodes(nodes, dual_read);
    }

    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>> {
        wait(self.0.get(key))
    }

    pub fn gets(&self, key: impl AsRef<[u8]>) -> Result<Option<(Item, CasUnique)>> {
        wait(self.0.gets(key))
    }

    pub fn get_multi<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<Item>>> {
        wait(self.0.get_multi(keys))
    }

    pub fn get_and_touch(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
    ) -> Result<Option<Item>> {
        wait(self.0.get_and_touch(key, ttl))
    }

    pub fn get_or_load<V: Into<Item>, E: fmt::Display>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> std::result::Result<Option<V>, E>,
    ) -> std::result::Result<Option<Item>, LoadError<E>> {
        // A loader may wait for the client itself.
        let loader = || async { block_in_place(loader) };
        wait(self.0.get_or_load(key, options, loader))
    }

    pub fn get_or_load_detached<V: Into<Item>, E: fmt::Display>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> std::result::Result<Option<V>, E> + Send + 'static,
    ) -> std::result::Result<Option<Item>, LoadError<E>> {
        let loader = || async { block_in_place(loader) };
        wait(self.0.get_or_load_detached(key, options, loader))
    }

    pub fn typed<C>(&self, codec: C) -> Typed<C> {
        Typed(self.0.typed(codec))
    }

    pub fn fill_multi<'v, K: AsRef<[u8]>, V: Into<Value<'v>>, T: Into<Ttl>>(
        &self,
        entries: impl IntoIterator<Item = (K, V, T)>,
        overwrite: bool,
    ) -> Vec<Result<bool>> {
        wait(self.0.fill_multi(entries, overwrite))
    }

    pub fn set<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        ttl: impl Into<Ttl>,
    ) -> Result<()> {
        wait(self.0.set(key, value, ttl))
    }

    pub fn set_multi<'v, K: AsRef<[u8]>, V: Into<Value<'v>>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
        ttl: impl Into<Ttl>,
    ) -> Vec<Result<()>> {
        wait(self.0.set_multi(entries, ttl))
    }

    pub fn add<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        ttl: impl Into<Ttl>,
    ) -> Result<bool> {
        wait(self.0.add(key, value, ttl))
    }

    pub fn replace<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        ttl: impl Into<Ttl>,
    ) -> Result<bool> {
        wait(self.0.replace(key, value, ttl))
    }

    pub fn append<'v>(&self, key: impl AsRef<[u8]>, value: impl Into<Value<'v>>) -> Result<bool> {
        wait(self.0.append(key, value))
    }

    pub fn prepend<'v>(&self, key: impl AsRef<[u8]>, value: impl Into<Value<'v>>) -> Result<bool> {
        wait(self.0.prepend(key, value))
    }

    pub fn cas<'v>(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value<'v>>,
        unique: CasUnique,
        ttl: impl Into<Ttl>,
    ) -> Result<Cas> {
        wait(self.0.cas(key, value, unique, ttl))
    }

    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        wait(self.0.delete(key))
    }

    pub fn delete_multi<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<bool>> {
        wait(self.0.delete_multi(keys))
    }

    pub fn incr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>> {
        wait(self.0.incr(key, delta))
    }

    pub fn decr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>> {
        wait(self.0.decr(key, delta))
    }

    pub fn incr_or_create(
        &self,
        key: impl AsRef<[u8]>,
        delta: u64,
        initial: u64,
        ttl: impl Into<Ttl>,
    ) -> Result<u64> {
        wait(self.0.incr_or_create(key, delta, initial, ttl))
    }

    pub fn decr_or_create(
        &self,
        key: impl AsRef<[u8]>,
        delta: u64,
        initial: u64,
        ttl: impl Into<Ttl>,
    ) -> Result<u64> {
        wait(self.0.decr_or_create(key, delta, initial, ttl))
    }

    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: impl Into<Ttl>) -> Result<bool> {
        wait(self.0.touch(key, ttl))
    }

    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Client(self.0.with_timeout(timeout))
    }

    pub fn with_ack(&self, ack: Ack) -> Self {
        Client(self.0.with_ack(ack))
    }

    pub fn with_prefix(&self, prefix: impl AsRef<[u8]>) -> Self {
        Client(self.0.with_prefix(prefix))
    }

    pub fn gets_multi<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<(Item, CasUnique)>>> {
        wait(self.0.gets_multi(keys))
    }

    pub fn get_and_touch_multi<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        ttl: impl Into<Ttl>,
    ) -> Vec<Result<Option<Item>>> {
        wait(self.0.get_and_touch_multi(keys, ttl))
    }

    pub fn update<V: Into<Item>>(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
        mut change: impl FnMut(Option<&Item>) -> Option<V>,
    ) -> Result<Option<Item>> {
        // It may wait for the client itself.
        let change = |old: Option<&Item>| block_in_place(|| change(old));
        wait(self.0.update(key, ttl, change))
    }

    pub fn delete_if(&self, key: impl AsRef<[u8]>, unique: CasUnique) -> Result<bool> {
        wait(self.0.delete_if(key, unique))
    }

    pub fn incr_multi<K: AsRef<[u8]>>(&self, keys: &[K], delta: u64) -> Vec<Result<Option<u64>>> {
        wait(self.0.incr_multi(keys, delta))
    }

    pub fn touch_multi<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        ttl: impl Into<Ttl>,
    ) -> Vec<Result<bool>> {
        wait(self.0.touch_multi(keys, ttl))
    }

    pub fn lock(&self, key: impl AsRef<[u8]>, lease: Duration) -> Result<Option<Lock>> {
        Ok(wait(self.0.lock(key, lease))?.map(Lock))
    }

    pub fn lock_within(
        &self,
        key: impl AsRef<[u8]>,
        lease: Duration,
        time: Duration,
    ) -> Result<Option<Lock>> {
        Ok(wait(self.0.lock_within(key, lease, time))?.map(Lock))
    }

    pub fn rate_limit(&self, key: impl AsRef<[u8]>, limit: RateLimit) -> Result<Allowance> {
        wait(self.0.rate_limit(key, limit))
    }

    pub fn node_states(&self) -> Vec<(Arc<str>, NodeState)> {
        self.0.node_states()
    }

    pub fn get_stream<'a, I>(&self, keys: I) -> Stream<'a, I::IntoIter>
    where
        I: IntoIterator<Item: AsRef<[u8]> + Send + Sync + 'a>,
    {
        Stream(self.0.get_stream(keys))
    }

    pub fn meta(&self, request: MetaRequest) -> Result<MetaReply> {
        wait(self.0.meta(request))
    }

    pub fn warm_up(&self) -> PerNode<()> {
        wait(self.0.warm_up())
    }

    pub fn close(&self) {
        self.0.close();
    }

    pub fn flush_all(&self) -> PerNode<()> {
        wait(self.0.flush_all())
    }

    pub fn flush_all_after(&self, delay: Duration) -> PerNode<()> {
        wait(self.0.flush_all_after(delay))
    }

    pub fn version(&self) -> PerNode<String> {
        wait(self.0.version())
    }

    pub fn stats(&self, group: &str) -> PerNode<Vec<Stat>> {
        wait(self.0.stats(group))
    }
}

/// The client's lock.
pub struct Lock(ketch_client::Lock<AsyncClient>);

impl Lock {
    pub fn token(&self) -> u64 {
        self.0.token()
    }

    pub fn left(&self) -> Duration {
        self.0.left()
    }

    pub fn is_held(&self) -> Result<bool> {
        wait(self.0.is_held())
    }

    pub fn renew(&mut self, lease: Duration) -> Result<bool> {
        wait(self.0.renew(lease))
    }

    pub fn release(self) -> Result<bool> {
        wait(self.0.release())
    }

    pub fn fence(&self, fence: impl AsRef<[u8]>) -> Result<bool> {
        wait(self.0.fence(fence))
    }
}

/// The client's values of many keys.
pub struct Stream<'a, I: Iterator>(AsyncGetStream<'a, I>);

impl<'a, I: Iterator<Item: AsRef<[u8]> + Send + Sync + 'a>> Stream<'a, I> {
    pub fn batch(self, keys: usize) -> Self {
        Stream(self.0.batch(keys))
    }
}

impl<'a, I: Iterator<Item: AsRef<[u8]> + Send + Sync + 'a>> Iterator for Stream<'a, I> {
    type Item = (I::Item, Result<Option<Item>>);

    fn next(&mut self) -> Option<Self::Item> {
        wait(self.0.next())
    }
}

/// The client's values with types.
pub struct Typed<C>(ketch_client::Typed<C, AsyncClient>);

impl<C> Typed<C> {
    pub fn get<T>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>>
    where
        C: Codec<T>,
    {
        wait(self.0.get(key))
    }

    pub fn get_multi<T, K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<T>>>
    where
        C: Codec<T>,
    {
        wait(self.0.get_multi(keys))
    }

    pub fn set<T>(&self, key: impl AsRef<[u8]>, value: &T, ttl: impl Into<Ttl>) -> Result<()>
    where
        C: Codec<T>,
    {
        wait(self.0.set(key, value, ttl))
    }

    pub fn add<T>(&self, key: impl AsRef<[u8]>, value: &T, ttl: impl Into<Ttl>) -> Result<bool>
    where
        C: Codec<T>,
    {
        wait(self.0.add(key, value, ttl))
    }

    pub fn get_or_load<T, E: fmt::Display>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> std::result::Result<Option<T>, E>,
    ) -> std::result::Result<Option<T>, LoadError<E>>
    where
        C: Codec<T>,
    {
        wait((self.0).get_or_load(key, options, || async { block_in_place(loader) }))
    }
}
