//! Which keys this thread loads just now.
//!
//! ```text
//!  poll of a loader --run--> thread's stack: (client, key), (client, key) ..     --dropped--> one less
//!                              ^ get_or_load looks here first: what it would wait for is below it on the stack
//! ```
//!
//! A loader runs within the polls of its caller's future, so whatever it asks for, by whichever clone of the client, is asked
//! for while its key is on the stack. What it has another thread or task ask for is not seen here; that waits, until
//! [`LoadOptions::wait`](super::LoadOptions::wait) is over.

use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    static RUNNING: RefCell<Vec<Loading>> = const { RefCell::new(Vec::new()) };
}

/// A load of a key.
#[derive(Debug, Clone)]
pub(super) struct Loading {
    /// What all clones of the client share: where it lies.
    client: usize,
    key: Arc<[u8]>,
}

/// A loader runs in this thread.
pub(super) struct Running;

fn name<T>(client: &T) -> usize {
    std::ptr::from_ref(client).addr()
}

impl Loading {
    pub(super) fn new<T>(client: &T, key: &Arc<[u8]>) -> Self {
        Loading {
            client: name(client),
            key: key.clone(),
        }
    }

    /// Its loader runs until what is returned is dropped.
    pub(super) fn run(&self) -> Running {
        RUNNING.with_borrow_mut(|running| running.push(self.clone()));
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(Vec::pop);
    }
}

/// True if a loader of `key` runs in this thread.
pub(super) fn is_loading<T>(client: &T, key: &[u8]) -> bool {
    let client = name(client);
    RUNNING.with_borrow(|running| {
        let mut running = running.iter();
        running.any(|load| load.client == client && *load.key == *key)
    })
}
