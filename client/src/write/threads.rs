//! Write-behind for threads: the queue is emptied by a thread of its own.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::queue::{Next, Queue};
use super::{Change, WriteBehind, Writer};
use crate::load::{LoadError, LoadOptions};
use client_core::value::Item;

/// The queue, and who waits for it.
#[derive(Debug)]
pub(super) struct Waiting {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Waiting {
    /// A queue that a thread empties, which begins now.
    pub(super) fn emptied_by<W: Writer>(writer: W, queue: Queue) -> Arc<Self> {
        let waiting = Arc::new(Waiting {
            queue: Mutex::new(queue),
            changed: Condvar::new(),
        });
        let empties = waiting.clone();
        thread::Builder::new()
            .name("write-behind".to_owned())
            .spawn(move || empty(&empties, &writer))
            .expect("the system has room for a thread");
        waiting
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `until` says so, or for `at_most`; false if that time is over.
    pub(super) fn wait(
        &self,
        at_most: Duration,
        mut until: impl FnMut(&mut Queue) -> bool,
    ) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.queue(), at_most, |queue| !until(queue));
        let (_queue, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }

    /// There is something to write.
    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Nothing is taken any more.
    pub(super) fn close(&self) {
        self.queue().close();
        self.wake();
    }
}

impl WriteBehind {
    /// As [`Client::get_or_load`](crate::Client::get_or_load), but what waits to be written is taken instead of what the store still has.
    pub fn get_or_load<V: Into<Item>, E: fmt::Display>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<LoadOptions>,
        loader: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<Item>, LoadError<E>> {
        let key = key.as_ref();
        self.client
            .get_or_load(key, options, || match self.waiting(key) {
                Some(waiting) => Ok(waiting),
                None => loader().map(|value| value.map(Into::into)),
            })
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
