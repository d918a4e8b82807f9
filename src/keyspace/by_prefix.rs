//! What is done with keys by their prefix: the part up to the delimiter of `-D`.
//!
//! ```text
//!  worker: requests that are looked at --> table, at most 256 prefixes, the least asked for makes room
//!  crawler: items that it walks over   --> Walk, all prefixes of one walk: items, bytes, bytes nobody has read
//! ```
//!
//! Bp1. A table's counts are those since its prefix came in. A prefix that more than 1 in 256 requests ask for stays in.
//! Bp2. A walk's numbers are shown when it is complete; until then those of the one before are.

use std::collections::HashMap;

use ahash::RandomState;

use super::misses::{MISSES, Miss};
use super::space_saving::{SpaceSaving, hash_name};

/// Sets of 16 prefixes in a worker's table.
const SETS: usize = 16;
/// Prefixes of a report.
pub const SHOWN: usize = 256;
/// Prefixes of a walk; what more there are is counted together.
const WALKED_MAX: usize = 4096;

/// The part of a key up to the delimiter, if it has one.
pub fn prefix_of(key: &[u8], delimiter: u8) -> Option<&[u8]> {
    let end = key.iter().position(|&byte| byte == delimiter)?;
    Some(&key[..end])
}

/// What was done with the keys of a prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Of these hits.
    pub hits: u64,
    /// Stores.
    pub stores: u64,
    /// The other reads, by why they missed, in the order of [`Miss::ALL`].
    pub misses: [u64; MISSES],
}

impl Counts {
    /// Hits of a hundred reads; `None` without reads.
    pub fn hit_ratio(&self) -> Option<f64> {
        (self.reads > 0).then(|| self.hits as f64 / self.reads as f64)
    }
}

/// What was done, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// A read that hit.
    Hit,
    /// A read that did not.
    Missed(Miss),
    /// A store.
    Stored,
}

/// One worker's table.
#[derive(Debug, Clone)]
pub struct ByPrefix(SpaceSaving<Counts>);

impl Default for ByPrefix {
    fn default() -> Self {
        ByPrefix(SpaceSaving::new(SETS))
    }
}

impl ByPrefix {
    /// Bytes of memory that the table takes, without the names.
    pub const BYTES: usize = SpaceSaving::<Counts>::bytes(SETS);

    /// Counts a request that stands for `weight`.
    pub fn add(&mut self, prefix: &[u8], did: Did, weight: u32) {
        let weight = u64::from(weight);
        let counts = self.0.add(hash_name(prefix), prefix, weight);
        match did {
            Did::Hit => {
                counts.reads += weight;
                counts.hits += weight;
            }
            Did::Missed(miss) => {
                counts.reads += weight;
                counts.misses[miss as usize] += weight;
            }
            Did::Stored => counts.stores += weight,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A prefix and all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// Its bytes, without the delimiter.
    pub name: Vec<u8>,
    /// What was done.
    pub counts: Counts,
    /// What is there; `None` if the last walk met none of it, or no walk is complete.
    pub held: Option<Held>,
}

/// Several workers' tables together with the last walk: the most asked for first.
pub fn merge<'p>(tables: impl IntoIterator<Item = &'p ByPrefix>, walked: &Walked) -> Vec<Prefix> {
    let mut all: HashMap<&[u8], Counts> = HashMap::new();
    for table in tables {
        for counted in table.0.iter() {
            let sum = all.entry(counted.name).or_default();
            let more = counted.value;
            sum.reads += more.reads;
            sum.hits += more.hits;
            sum.stores += more.stores;
            for (sum, more) in sum.misses.iter_mut().zip(more.misses) {
                *sum += more;
            }
        }
    }
    for name in walked.prefixes.keys() {
        all.entry(name).or_default();
    }
    let prefix = |(name, counts): (&[u8], Counts)| Prefix {
        name: name.to_vec(),
        counts,
        held: walked.prefixes.get(name).copied(),
    };
    let mut list: Vec<Prefix> = all.into_iter().map(prefix).collect();
    let weight = |prefix: &Prefix| {
        let bytes = prefix.held.map_or(0, |held| held.bytes);
        (prefix.counts.reads + prefix.counts.stores, bytes)
    };
    list.sort_unstable_by(|a, b| weight(b).cmp(&weight(a)).then_with(|| a.name.cmp(&b.name)));
    list.truncate(SHOWN);
    list
}

/// What is in the cache under a prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Items.
    pub items: u64,
    /// Bytes of these items, with header and key.
    pub bytes: u64,
    /// Of these the bytes of items that nobody has read since they were stored.
    pub unread_bytes: u64,
}

impl Held {
    fn add(&mut self, items: u64, bytes: u64, is_unread: bool) {
        self.items += items;
        self.bytes += bytes;
        self.unread_bytes += if is_unread { bytes } else { 0 };
    }
}

/// A walk over all items, complete or under way.
#[derive(Debug, Clone, Default)]
pub struct Walked {
    /// By prefix.
    pub prefixes: HashMap<Vec<u8>, Held, RandomState>,
    /// Items whose key has no delimiter.
    pub without: Held,
    /// Items of prefixes that are too many.
    pub others: Held,
}

impl Walked {
    /// Adds an item of `bytes` that stands for `items` like it.
    pub fn add(&mut self, key: &[u8], delimiter: u8, bytes: usize, items: usize, is_unread: bool) {
        let prefix = prefix_of(key, delimiter);
        if let Some(held) = prefix.and_then(|prefix| self.prefixes.get_mut(prefix)) {
            return held.add(items as u64, (bytes * items) as u64, is_unread);
        }
        let held = match prefix {
            None => &mut self.without,
            Some(prefix) if self.prefixes.len() < WALKED_MAX => {
                self.prefixes.entry(prefix.to_vec()).or_default()
            }
            Some(_) => &mut self.others,
        };
        held.add(items as u64, (bytes * items) as u64, is_unread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_and_the_walk_are_put_together() {
        let (mut one, mut two) = (ByPrefix::default(), ByPrefix::default());
        one.add(b"user", Did::Hit, 1);
        one.add(b"user", Did::Missed(Miss::Evicted), 64);
        two.add(b"user", Did::Stored, 2);
        two.add(b"page", Did::Hit, 3);
        let mut walked = Walked::default();
        walked.add(b"user:1", b':', 100, 1, true);
        walked.add(b"user:2", b':', 50, 1, false);
        walked.add(b"quiet:2", b':', 7, 1, true);
        walked.add(b"plain", b':', 9, 1, false);
        let list = merge([&one, &two], &walked);
        let names: Vec<&[u8]> = list.iter().map(|prefix| &prefix.name[..]).collect();
        assert_eq!(names, [b"user".as_slice(), b"page", b"quiet"]);
        let counts = list[0].counts;
        assert_eq!((counts.reads, counts.hits, counts.stores), (65, 1, 2));
        assert_eq!(counts.misses, [0, 64, 0, 0, 0]);
        let held = list[0].held.expect("it was walked over");
        assert_eq!((held.items, held.bytes, held.unread_bytes), (2, 150, 100));
        assert_eq!(list[1].held, None);
        assert_eq!(walked.without.bytes, 9);
        assert_eq!(list[1].counts.hit_ratio(), Some(1.0));
        assert_eq!(list[2].counts.hit_ratio(), None);
    }

    #[test]
    fn many_prefixes_take_no_more_room() {
        let (mut table, mut walked) = (ByPrefix::default(), Walked::default());
        for n in 0..100_000 {
            let key = format!("p{n}:key");
            let prefix = prefix_of(key.as_bytes(), b':').expect("a delimiter");
            table.add(prefix, Did::Stored, 1);
            table.add(b"busy", Did::Hit, 1);
            walked.add(key.as_bytes(), b':', 10, 1, false);
        }
        assert_eq!(table.0.iter().count(), 256);
        assert_eq!(walked.prefixes.len(), WALKED_MAX);
        assert_eq!(walked.others.items, 100_000 - WALKED_MAX as u64);
        let list = merge([&table], &Walked::default());
        assert_eq!(
            (&list[0].name[..], list[0].counts.hits),
            (b"busy".as_slice(), 100_000)
        );
        assert!(list.len() <= SHOWN);
    }

    #[test]
    fn prefixes() {
        assert_eq!(prefix_of(b"a:b:c", b':'), Some(b"a".as_slice()));
        assert_eq!(prefix_of(b":b", b':'), Some(b"".as_slice()));
        assert_eq!(prefix_of(b"ab", b':'), None);
    }
}
