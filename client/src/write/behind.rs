//! Write-behind for threads: the queue is emptied by a thread of its own.

use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::key_locks::KeyLocks;
use super::queue::{Next, Queue};
use super::{Change, WriteBehindOptions, WriteBehindStats, WriteError, Writer};
use crate::Client;
use crate::load::{LoadError, LoadOptions};
use client_core::ttl::Ttl;
use client_core::value::Item;

/// A client whose writes are done when the cache has them, and go to the store later: see [`write`](super).
///
/// A clone is the same. When the last is dropped, what waits is written at once, for as long as
/// [`close_timeout`](WriteBehindOptions::close_timeout) allows.
#[derive(Clone)]
pub struct WriteBehind {
    client: Client,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    waiting: Arc<Waiting>,
    order: KeyLocks<Mutex<()>>,
    options: WriteBehindOptions,
}

/// The queue, and who waits for it.
#[derive(Debug)]
struct Waiting {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Waiting {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `until` says so, or for `at_most`; false if that time is over.
    fn wait(&self, at_most: Duration, mut until: impl FnMut(&mut Queue) -> bool) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.queue(), at_most, |queue| !until(queue));
        let (_queue, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }
}

impl WriteBehind {
    /// Writes of `client` that `writer` is given later, by a thread that begins now.
    pub fn new<W: Writer>(client: Client, writer: W, options: WriteBehindOptions) -> Self {
        let waiting = Arc::new(Waiting {
            queue: Mutex::new(Queue::new(options.clone())),
            changed: Condvar::new(),
        });
        let empties = waiting.clone();
        thread::Builder::new()
            .name("write-behind".to_owned())
            .spawn(move || empty(&empties, &writer))
            .expect("the system has room for a thread");
        let order = KeyLocks::default();
        WriteBehind {
            client,
            inner: Arc::new(Inner {
                waiting,
                order,
                options,
            }),
        }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Stores `value` in the cache, and later in the store. Waits while the queue is full.
    pub fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Item>,
        ttl: impl Into<Ttl>,
    ) -> Result<(), WriteError<Infallible>> {
        let (key, item) = (key.as_ref(), value.into());
        self.write(key, Some(&item), || self.client.set(key, &item, ttl))
    }

    /// Deletes `key` in the cache, and later in the store. Waits while the queue is full.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), WriteError<Infallible>> {
        let key = key.as_ref();
        self.write(key, None, || self.client.delete(key).map(drop))
    }

    fn write(
        &self,
        key: &[u8],
        item: Option<&Item>,
        in_cache: impl FnOnce() -> crate::Result<()>,
    ) -> Result<(), WriteError<Infallible>> {
        let Inner {
            waiting,
            order,
            options,
        } = &*self.inner;
        let _alone = order.of(key).lock().unwrap_or_else(PoisonError::into_inner);
        let mut closed = false;
        let pushed = waiting.wait(options.full_timeout, |queue| {
            closed = queue.is_closed();
            closed || queue.push(key, item.cloned(), Instant::now())
        });
        if closed {
            return Err(WriteError::Closed);
        }
        if !pushed {
            return Err(WriteError::Full);
        }
        waiting.changed.notify_all();
        in_cache().map_err(|error| {
            // Better no value than the old one: the store will have the new one.
            let _ = self.client.delete(key);
            WriteError::Cache(error)
        })
    }

    /// The value of `key`: what the cache has, or else what waits to be written.
    pub fn get(&self, key: impl AsRef<[u8]>) -> crate::Result<Option<Item>> {
        let key = key.as_ref();
        let found = self.client.get(key);
        match (found, self.inner.waiting.queue().waiting(key)) {
            (Ok(None) | Err(_), Some(waiting)) => Ok(waiting),
            (found, _) => found,
        }
    }

    /// As [`Client::get_or_load`], but what waits to be written is taken instead of what the store still has.
    pub fn get_or_load<V: Into<Item>, E: fmt::Display>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<Item>, LoadError<E>> {
        let key = key.as_ref();
        self.client.get_or_load(key, options, || {
            let waiting = self.inner.waiting.queue().waiting(key);
            match waiting {
                Some(waiting) => Ok(waiting),
                None => loader().map(|value| value.map(Into::into)),
            }
        })
    }

    /// Waits until all that waits now is in the store, or is lost.
    pub fn flush(&self) {
        let waiting = &self.inner.waiting;
        let turn = waiting.queue().flush();
        waiting.changed.notify_all();
        while !waiting.wait(Duration::from_secs(60), |queue| queue.is_flushed(turn)) {}
    }

    /// Takes no more changes, and waits until what waits is written, `close_timeout` at most. Gives what became of all changes.
    pub fn close(&self) -> WriteBehindStats {
        self.inner.close();
        self.stats()
    }

    /// What became of the changes so far.
    pub fn stats(&self) -> WriteBehindStats {
        self.inner.waiting.queue().stats()
    }
}

impl Inner {
    fn close(&self) {
        let waiting = &self.waiting;
        waiting.queue().close();
        waiting.changed.notify_all();
        let is_done = |queue: &mut Queue| queue.stats().waiting == 0;
        if !waiting.wait(self.options.close_timeout, is_done) {
            let lost = waiting.queue().give_up();
            log::error!("{lost} changes could not be written in time, and are lost");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the thread does until the queue is over.
fn empty<W: Writer>(waiting: &Waiting, writer: &W) {
    let mut queue = waiting.queue();
    loop {
        queue = match queue.next(Instant::now()) {
            Next::Over => return,
            Next::Nothing => {
                let woken = waiting.changed.wait(queue);
                woken.unwrap_or_else(PoisonError::into_inner)
            }
            Next::At(at) => {
                let pause = at.saturating_duration_since(Instant::now());
                let woken = waiting.changed.wait_timeout(queue, pause);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            Next::Write(changes) => {
                drop(queue);
                let error = write(writer, &changes);
                let mut queue = waiting.queue();
                let error = error.as_ref().map(|error| error as &dyn fmt::Display);
                queue.ended(error, Instant::now());
                waiting.changed.notify_all();
                queue
            }
        };
    }
}

/// A writer that panics has failed, and is called again as after any failure.
fn write<W: Writer>(writer: &W, changes: &[Change]) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| writer.write(changes))) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the writer panicked".to_owned()),
    }
}
