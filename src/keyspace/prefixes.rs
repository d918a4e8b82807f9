//! Counts by key prefix (`stats detail`): what stands before the first delimiter of a key.
//!
//! Off by default, and then one load a command. While on, each command looks its prefix up, together with all others that
//! do; only one that is new keeps others out for a moment. At most [`PREFIXES_MAX`] prefixes are kept, so that keys made
//! up by a client do not fill the memory.
//!
//! P1. A prefix keeps its number until all are forgotten: a dump goes on from a number, whatever has come behind it.
//! P2. A dump holds the lock for [`ENTRIES_AT_ONCE`] references, and writes its lines without it.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use ahash::RandomState;
use parking_lot::RwLock;

/// The most prefixes counted: memcached's limit of its prefix table.
const PREFIXES_MAX: usize = 65536;
/// Prefixes that a dump takes hold of together: some 10 KB of lines at most.
const ENTRIES_AT_ONCE: usize = 32;

/// A prefix with what is counted of it.
#[derive(Debug)]
struct Entry {
    prefix: Box<[u8]>,
    gets: AtomicU64,
    hits: AtomicU64,
    sets: AtomicU64,
    deletes: AtomicU64,
}

/// An entry that is found by its prefix.
#[derive(Debug)]
struct ByPrefix(Arc<Entry>);

impl Borrow<[u8]> for ByPrefix {
    fn borrow(&self) -> &[u8] {
        &self.0.prefix
    }
}

impl Hash for ByPrefix {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.prefix.hash(state);
    }
}

impl PartialEq for ByPrefix {
    fn eq(&self, other: &Self) -> bool {
        self.0.prefix == other.0.prefix
    }
}

impl Eq for ByPrefix {}

/// All entries, to be found and in the order they came.
#[derive(Debug, Default)]
struct Entries {
    found: HashSet<ByPrefix, RandomState>,
    in_order: Vec<Arc<Entry>>,
}

/// The counts.
#[derive(Debug)]
pub struct Prefixes {
    enabled: AtomicBool,
    delimiter: u8,
    entries: RwLock<Entries>,
}

impl Prefixes {
    /// No counts yet.
    pub fn new(delimiter: u8, enabled: bool) -> Self {
        Prefixes {
            enabled: AtomicBool::new(enabled),
            delimiter,
            entries: RwLock::default(),
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
        self.count(key, |entry| {
            entry.gets.fetch_add(1, Relaxed);
            entry.hits.fetch_add(u64::from(hit), Relaxed);
        });
    }

    /// Counts a store.
    #[inline]
    pub fn count_set(&self, key: &[u8]) {
        self.count(key, |entry| _ = entry.sets.fetch_add(1, Relaxed));
    }

    /// Counts a delete.
    #[inline]
    pub fn count_delete(&self, key: &[u8]) {
        self.count(key, |entry| _ = entry.deletes.fetch_add(1, Relaxed));
    }

    #[inline]
    fn count(&self, key: &[u8], change: impl FnOnce(&Entry)) {
        if self.is_enabled() {
            self.count_enabled(key, change);
        }
    }

    #[cold]
    fn count_enabled(&self, key: &[u8], change: impl FnOnce(&Entry)) {
        // A key without a delimiter has no prefix and is not counted.
        let Some(end) = key.iter().position(|&byte| byte == self.delimiter) else {
            return;
        };
        let prefix = &key[..end];
        let entries = self.entries.read();
        if let Some(known) = entries.found.get(prefix) {
            return change(&known.0);
        }
        if entries.in_order.len() >= PREFIXES_MAX {
            return;
        }
        drop(entries);
        let mut entries = self.entries.write();
        // Another thread may have added it in between, or the last that may be.
        if let Some(known) = entries.found.get(prefix) {
            change(&known.0);
        } else if entries.in_order.len() < PREFIXES_MAX {
            let entry = Arc::new(Entry {
                prefix: prefix.into(),
                gets: AtomicU64::new(0),
                hits: AtomicU64::new(0),
                sets: AtomicU64::new(0),
                deletes: AtomicU64::new(0),
            });
            change(&entry);
            entries.in_order.push(entry.clone());
            entries.found.insert(ByPrefix(entry));
        }
    }

    /// Forgets the counts.
    pub fn clear(&self) {
        let forgotten = std::mem::take(&mut *self.entries.write());
        // Freed without the lock.
        drop(forgotten);
    }

    /// Writes lines `PREFIX p get N hit N set N del N` from prefix number `at` on, until `out` has `bytes_max` bytes, or
    /// a little more; gives the number to go on from, none when all are written.
    pub fn dump(&self, mut at: usize, bytes_max: usize, out: &mut Vec<u8>) -> Option<usize> {
        use std::io::Write;
        loop {
            let entries = self.entries.read();
            let rest = entries.in_order.get(at..).unwrap_or_default();
            let some = rest[..rest.len().min(ENTRIES_AT_ONCE)].to_vec();
            drop(entries);
            if some.is_empty() {
                return None;
            }
            for entry in some {
                if out.len() >= bytes_max {
                    return Some(at);
                }
                at += 1;
                let count = |count: &AtomicU64| count.load(Relaxed);
                let (gets, hits) = (count(&entry.gets), count(&entry.hits));
                let (sets, deletes) = (count(&entry.sets), count(&entry.deletes));
                out.extend_from_slice(b"PREFIX ");
                out.extend_from_slice(&entry.prefix);
                write!(out, " get {gets} hit {hits} set {sets} del {deletes}\r\n")
                    .expect("writing to a Vec does not fail");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dumped(prefixes: &Prefixes) -> Vec<u8> {
        let mut out = Vec::new();
        assert_eq!(prefixes.dump(0, usize::MAX, &mut out), None);
        out
    }

    #[test]
    fn counts_what_stands_before_the_delimiter() {
        let prefixes = Prefixes::new(b':', true);
        prefixes.count_get(b"user:1", true);
        prefixes.count_get(b"user:2", false);
        prefixes.count_set(b"user:1");
        prefixes.count_delete(b"plain");
        assert_eq!(
            dumped(&prefixes),
            b"PREFIX user get 2 hit 1 set 1 del 0\r\n"
        );
        prefixes.clear();
        prefixes.enable(false);
        prefixes.count_get(b"user:1", true);
        assert!(dumped(&prefixes).is_empty());
    }

    /// Whatever is counted between the parts, each prefix is there once.
    #[test]
    fn a_dump_in_parts_shows_each_once() {
        let prefixes = Prefixes::new(b':', true);
        let count = |n: usize| prefixes.count_set(format!("p{n}:k").as_bytes());
        (0..1000).for_each(count);
        let (mut next, mut parts, mut text) = (Some(0), 0, String::new());
        while let Some(at) = next {
            let mut out = Vec::new();
            next = prefixes.dump(at, 1000, &mut out);
            assert!(out.len() < 1100, "{}", out.len());
            text += std::str::from_utf8(&out).expect("text");
            count(1000 + parts % 10);
            count(parts);
            parts += 1;
        }
        assert!(parts > 30, "{parts}");
        let mut names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .collect();
        names.sort_unstable();
        let shown = names.len();
        names.dedup();
        assert_eq!((names.len(), shown), (1010, 1010));
        // What is forgotten in the middle ends it.
        prefixes.clear();
        assert_eq!(prefixes.dump(500, 1000, &mut Vec::new()), None);
    }

    #[test]
    fn no_more_prefixes_than_the_limit() {
        let prefixes = Prefixes::new(b':', true);
        for n in 0..PREFIXES_MAX + 100 {
            prefixes.count_get(format!("p{n}:k").as_bytes(), true);
        }
        let text = dumped(&prefixes);
        assert_eq!(
            text.iter().filter(|&&byte| byte == b'\n').count(),
            PREFIXES_MAX
        );
    }
}
