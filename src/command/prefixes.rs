//! Counts by key prefix (`stats detail`): what stands before the first delimiter of a key.
//!
//! Off by default, and then one load a command. While on, each command takes one lock; at most [`PREFIXES_MAX`]
//! prefixes are kept, so that keys made up by a client do not fill the memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use ahash::RandomState;
use parking_lot::Mutex;

/// The most prefixes counted: memcached's limit of its prefix table.
const PREFIXES_MAX: usize = 65536;

/// What is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    gets: u64,
    hits: u64,
    sets: u64,
    deletes: u64,
}

/// The counts.
#[derive(Debug)]
pub struct Prefixes {
    enabled: AtomicBool,
    delimiter: u8,
    counts: Mutex<HashMap<Box<[u8]>, Counts, RandomState>>,
}

impl Prefixes {
    /// No counts yet.
    pub fn new(delimiter: u8, enabled: bool) -> Self {
        Prefixes {
            enabled: AtomicBool::new(enabled),
            delimiter,
            counts: Mutex::default(),
        }
    }

    /// Turns counting on or off (`stats detail on`); the counts are kept.
    pub fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Relaxed);
    }

    /// True if keys are counted.
    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Relaxed)
    }

    /// The byte that ends a prefix.
    pub fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// Counts a lookup.
    #[inline]
    pub fn count_get(&self, key: &[u8], hit: bool) {
        self.count(key, |counts| {
            counts.gets += 1;
            counts.hits += u64::from(hit);
        });
    }

    /// Counts a store.
    #[inline]
    pub fn count_set(&self, key: &[u8]) {
        self.count(key, |counts| counts.sets += 1);
    }

    /// Counts a delete.
    #[inline]
    pub fn count_delete(&self, key: &[u8]) {
        self.count(key, |counts| counts.deletes += 1);
    }

    #[inline]
    fn count(&self, key: &[u8], change: impl FnOnce(&mut Counts)) {
        if self.is_enabled() {
            self.count_enabled(key, change);
        }
    }

    #[cold]
    fn count_enabled(&self, key: &[u8], change: impl FnOnce(&mut Counts)) {
        // A key without a delimiter has no prefix and is not counted.
        let Some(end) = key.iter().position(|&byte| byte == self.delimiter) else {
            return;
        };
        let mut counts = self.counts.lock();
        if let Some(known) = counts.get_mut(&key[..end]) {
            change(known);
        } else if counts.len() < PREFIXES_MAX {
            change(counts.entry(key[..end].into()).or_default());
        }
    }

    /// Forgets the counts.
    pub fn clear(&self) {
        self.counts.lock().clear();
    }

    /// Writes `PREFIX p get N hit N set N del N` lines.
    pub fn dump(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        let counts = self.counts.lock();
        for (
            prefix,
            Counts {
                gets,
                hits,
                sets,
                deletes,
            },
        ) in &*counts
        {
            out.extend_from_slice(b"PREFIX ");
            out.extend_from_slice(prefix);
            write!(out, " get {gets} hit {hits} set {sets} del {deletes}\r\n")
                .expect("writing to a Vec does not fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_stands_before_the_delimiter() {
        let prefixes = Prefixes::new(b':', true);
        prefixes.count_get(b"user:1", true);
        prefixes.count_get(b"user:2", false);
        prefixes.count_set(b"user:1");
        prefixes.count_delete(b"plain");
        let mut out = Vec::new();
        prefixes.dump(&mut out);
        assert_eq!(out, b"PREFIX user get 2 hit 1 set 1 del 0\r\n");
        prefixes.clear();
        prefixes.enable(false);
        prefixes.count_get(b"user:1", true);
        out.clear();
        prefixes.dump(&mut out);
        assert!(out.is_empty());
    }
}
