//! How a report is written.

use std::fmt::Display;

use protocol::reply;

/// The lines of one reply.
pub(super) struct Lines<'o> {
    pub(super) out: &'o mut Vec<u8>,
}

impl Lines<'_> {
    pub(super) fn stat(&mut self, key: &str, value: impl Display) {
        reply::stat(self.out, key, value);
    }

    /// Keys of things that never happen here.
    pub(super) fn zeros(&mut self, keys: &[&str]) {
        for key in keys {
            self.stat(key, 0);
        }
    }

    pub(super) fn switch(&mut self, key: &str, on: bool) {
        self.stat(key, if on { "yes" } else { "no" });
    }
}

/// Writes each field of a struct under its own name.
macro_rules! fields {
    ($lines:expr, $from:expr, $($key:ident)*) => {
        $($lines.stat(stringify!($key), $from.$key);)*
    };
}

pub(super) use fields;

/// The same for atomics.
macro_rules! loaded {
    ($lines:expr, $from:expr, $($key:ident)*) => {
        $($lines.stat(stringify!($key), $from.$key.load(Relaxed));)*
    };
}

pub(super) use loaded;
