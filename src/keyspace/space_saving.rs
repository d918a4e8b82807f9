//! The names that are seen most often, in a table of fixed size (Space-Saving: Metwally, Agrawal, El Abbadi, "Efficient
//! Computation of Frequent and Top-k Elements in Data Streams", 2005), cut into sets so that a step looks at one.
//!
//! ```text
//!  hash --> set:  | tag tag .. | 16 tags, a cache line      a name that is not there takes the place of the one that is
//!                 | count ..   | error, name, value ..      counted least, and goes on from its count
//! ```
//!
//! Sp1. `count - error` is at most what a name has weighed since it was last halved; `count` is at least that.
//! Sp2. In each set the counts add up to the weights of all names of that set, rounded down where they were halved. So the
//!      least count of a set is at most a 16th of them, and a name that weighs more is there.
//!
//! Costs: 16 tags compared, some 40 instructions for a name that is there; a newcomer also looks for the least count and
//! copies its name. Memory: 16 * `sets` * (60 bytes, the value and the name).

/// Entries of a set: one cache line of tags.
const WAYS: usize = 16;

#[derive(Debug, Clone)]
struct Set<V> {
    tags: [u32; WAYS],
    /// 0: there is no entry.
    counts: [u64; WAYS],
    rest: [Rest<V>; WAYS],
}

#[derive(Debug, Clone, Default)]
struct Rest<V> {
    error: u64,
    name: Vec<u8>,
    value: V,
}

/// The table.
#[derive(Debug, Clone)]
pub struct SpaceSaving<V> {
    sets: Box<[Set<V>]>,
    total: u64,
}

/// One name and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted<'s, V> {
    /// Its hash, as it was given.
    pub hash: u32,
    /// The name.
    pub name: &'s [u8],
    /// At most so much has it weighed.
    pub count: u64,
    /// By so much `count` may be too high.
    pub error: u64,
    /// What was kept with it since it came in.
    pub value: &'s V,
}

impl<V: Default + Clone> SpaceSaving<V> {
    /// Bytes of memory that so many sets take, without the names.
    pub const fn bytes(sets: usize) -> usize {
        sets * size_of::<Set<V>>()
    }

    /// Room for 16 names a set.
    pub fn new(sets: usize) -> Self {
        let set = || Set {
            tags: [0; WAYS],
            counts: [0; WAYS],
            rest: std::array::from_fn(|_| Rest::default()),
        };
        SpaceSaving {
            sets: (0..sets).map(|_| set()).collect(),
            total: 0,
        }
    }

    /// What all names have weighed.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Adds to a name's weight, and gives what is kept with it.
    pub fn add(&mut self, hash: u32, name: &[u8], weight: u64) -> &mut V {
        self.total += weight;
        let index = (u64::from(hash) * self.sets.len() as u64) >> 32;
        let set = &mut self.sets[index as usize];
        let found = (0..WAYS).find(|&way| {
            set.tags[way] == hash && set.counts[way] > 0 && set.rest[way].name == name
        });
        let way = found.unwrap_or_else(|| {
            let least = (0..WAYS).min_by_key(|&way| set.counts[way]).unwrap_or(0);
            set.tags[least] = hash;
            let rest = &mut set.rest[least];
            rest.error = set.counts[least];
            rest.name.clear();
            rest.name.extend_from_slice(name);
            rest.value = V::default();
            least
        });
        set.counts[way] += weight;
        &mut set.rest[way].value
    }

    /// Forgets half of all that was counted; names that weigh nothing any more go.
    pub fn halve(&mut self) {
        self.total /= 2;
        for set in &mut self.sets {
            for (count, rest) in set.counts.iter_mut().zip(&mut set.rest) {
                *count /= 2;
                rest.error /= 2;
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.total = 0;
        for set in &mut self.sets {
            set.counts = [0; WAYS];
        }
    }

    /// All names, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Counted<'_, V>> {
        self.sets.iter().flat_map(|set| {
            (0..WAYS)
                .filter(|&way| set.counts[way] > 0)
                .map(|way| Counted {
                    hash: set.tags[way],
                    name: &set.rest[way].name,
                    count: set.counts[way],
                    error: set.rest[way].error,
                    value: &set.rest[way].value,
                })
        })
    }
}

/// A hash for names that have none yet. Who chooses names so that they meet spoils the counts of those names alone.
pub fn hash_name(name: &[u8]) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = name.len() as u64;
    let mut words = name.chunks_exact(8);
    let mut mix = |word: u64| {
        hash = (hash ^ word).wrapping_mul(ODD);
        hash ^= hash >> 32;
    };
    for word in &mut words {
        mix(u64::from_le_bytes(word.try_into().expect("eight bytes")));
    }
    let last = words
        .remainder()
        .iter()
        .fold(0, |last, &byte| last << 8 | u64::from(byte));
    mix(last);
    (hash >> 16) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::keyspace::testing::Rng;

    /// Against exact counts: bounds hold for every name, and whoever weighs enough is there.
    #[test]
    fn counts_are_bounds() {
        let mut table = SpaceSaving::<()>::new(4);
        let mut exact: HashMap<Vec<u8>, u64> = HashMap::new();
        let mut rng = Rng::new(1);
        for _ in 0..50_000 {
            // Few are common and many are rare.
            let below = 1 + rng.below(2000);
            let n = rng.below(below);
            let name = format!("name {n}").into_bytes();
            let weight = 1 + rng.below(3) as u64;
            table.add(hash_name(&name), &name, weight);
            *exact.entry(name).or_default() += weight;
        }
        let total: u64 = exact.values().sum();
        assert_eq!(table.total(), total);
        let mut shown: HashMap<&[u8], u64> = HashMap::new();
        for counted in table.iter() {
            let weighed = exact[counted.name];
            assert!(counted.count >= weighed && counted.count - counted.error <= weighed);
            assert_eq!(shown.insert(counted.name, counted.count), None, "once");
        }
        assert_eq!(
            table.iter().map(|counted| counted.count).sum::<u64>(),
            total
        );
        for (name, &weighed) in &exact {
            assert!(shown.contains_key(&name[..]) || weighed <= total / 32);
        }
    }

    #[test]
    fn halving_forgets_and_values_stay_with_their_names() {
        let mut table = SpaceSaving::<u32>::new(1);
        *table.add(1, b"a", 5) += 7;
        *table.add(1, b"same hash", 1) += 1;
        assert_eq!(*table.add(1, b"a", 1), 7);
        table.halve();
        let left: Vec<_> = table.iter().map(|it| (it.name, it.count)).collect();
        assert_eq!(left, [(b"a".as_slice(), 3)]);
        assert_eq!(table.total(), 3);
        // A newcomer begins with a value of its own.
        for n in 0..100u32 {
            *table.add(n, &n.to_le_bytes(), 1) += 1;
        }
        assert!(table.iter().all(|it| it.name == b"a" || *it.value == 1));
        table.clear();
        assert_eq!((table.total(), table.iter().count()), (0, 0));
    }
}
