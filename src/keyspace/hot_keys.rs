//! Which keys are asked for, written and carried most, now.
//!
//! ```text
//!  worker: requests that are looked at --> three tables (reads, writes, bytes)
//!  each second: all workers' tables --(merge)--> HotList, for reports   and the tables forget half
//!                                   --(publish)--> HotNow, a few words that any thread reads without a lock
//! ```
//!
//! Hk1. A key that weighs more than 1 in [`ROOM`] of a worker's requests of the last seconds is in its table.
//! Hk2. Of a key's count, only what it was surely seen for decides its place (count less error): a key that took the
//!      place of others is not taken for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ahash::RandomState;

use super::space_saving::SpaceSaving;

/// Sets of 16 keys in a table: half a per cent of the requests is five times what a key needs to stay (1 in 1024).
const SETS: usize = 64;
/// Keys a table has room for.
pub const ROOM: usize = SETS * 16;
/// Keys of a list.
pub const SHOWN: usize = 64;
/// Tables forget half each second once they hold this weight, of requests or of kilobytes; below, only every [`SLOW_S`]
/// seconds. With less, one request more or less would change the order.
const HALVE_WEIGHT: u64 = 64 * 1024;
/// How long a server with little to do remembers.
const SLOW_S: u32 = 8;

/// One worker's tables.
#[derive(Debug)]
pub struct HotKeys {
    reads: SpaceSaving<()>,
    writes: SpaceSaving<()>,
    bytes: SpaceSaving<()>,
    halved_at_s: u32,
}

impl Default for HotKeys {
    fn default() -> Self {
        HotKeys {
            reads: SpaceSaving::new(SETS),
            writes: SpaceSaving::new(SETS),
            bytes: SpaceSaving::new(SETS),
            halved_at_s: 0,
        }
    }
}

impl HotKeys {
    /// Bytes of memory that the tables take, without the names.
    pub const BYTES: usize = 3 * SpaceSaving::<()>::bytes(SETS);

    /// Counts a request that stands for `weight`, which carried a value of `bytes`.
    pub fn add(&mut self, hash: u32, key: &[u8], is_read: bool, bytes: u32, weight: u32) {
        let table = if is_read {
            &mut self.reads
        } else {
            &mut self.writes
        };
        table.add(hash, key, weight.into());
        if bytes > 0 {
            let bytes = u64::from(bytes) * u64::from(weight);
            self.bytes.add(hash, key, bytes);
        }
    }

    fn halve(&mut self, now_s: u32) {
        let is_late = now_s.saturating_sub(self.halved_at_s) >= SLOW_S;
        if is_late || self.reads.total() + self.writes.total() > HALVE_WEIGHT {
            self.halved_at_s = now_s;
            self.reads.halve();
            self.writes.halve();
            self.bytes.halve();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.reads.clear();
        self.writes.clear();
        self.bytes.clear();
    }
}

/// A key and what it weighs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotKey {
    /// Its hash.
    pub hash: u32,
    /// Its bytes.
    pub key: Vec<u8>,
    /// Requests, or bytes, it was seen for.
    pub count: u64,
    /// Its part of all, in thousandths.
    pub share_milli: u32,
}

/// The hottest first.
#[derive(Debug, Clone, Default)]
pub struct HotList {
    /// By requests that read.
    pub reads: Vec<HotKey>,
    /// By requests that write.
    pub writes: Vec<HotKey>,
    /// By bytes of values, read or written.
    pub bytes: Vec<HotKey>,
}

/// What several workers' tables say together.
#[derive(Debug, Default)]
pub struct Merge {
    reads: Sums,
    writes: Sums,
    bytes: Sums,
}

#[derive(Debug, Default)]
struct Sums {
    keys: HashMap<Vec<u8>, (u32, u64), RandomState>,
    total: u64,
}

impl Sums {
    fn add(&mut self, table: &SpaceSaving<()>) {
        self.total += table.total();
        for counted in table.iter() {
            let sure = counted.count - counted.error;
            if let Some((_, sum)) = self.keys.get_mut(counted.name) {
                *sum += sure;
            } else {
                self.keys
                    .insert(counted.name.to_vec(), (counted.hash, sure));
            }
        }
    }

    fn list(self) -> Vec<HotKey> {
        let total = self.total.max(1);
        let key = |(key, (hash, count))| HotKey {
            hash,
            key,
            count,
            share_milli: (u128::from(count) * 1000 / u128::from(total)) as u32,
        };
        let mut list: Vec<HotKey> = self.keys.into_iter().map(key).collect();
        list.retain(|key| key.count > 0);
        list.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
        list.truncate(SHOWN);
        list
    }
}

impl Merge {
    /// Adds a worker's tables, which then forget what is older than a second or two.
    pub fn take(&mut self, keys: &mut HotKeys, now_s: u32) {
        self.reads.add(&keys.reads);
        self.writes.add(&keys.writes);
        self.bytes.add(&keys.bytes);
        keys.halve(now_s);
    }

    /// The lists.
    pub fn finish(self) -> HotList {
        HotList {
            reads: self.reads.list(),
            writes: self.writes.list(),
            bytes: self.bytes.list(),
        }
    }
}

/// Places of [`HotNow`].
const HOT_MAX: usize = 32;
/// Part of the reads, in thousandths, from which on a key is hot.
const HOT_SHARE_MILLI: u32 = 5;
/// Reads of the last seconds that a key must have: where little is asked for, nothing is hot.
const HOT_COUNT_MIN: u64 = 8192;

/// The keys that are hot now, by their hashes.
#[derive(Debug, Default)]
pub struct HotNow {
    /// Hash in the upper half, thousandths of all reads in the lower; 0 ends the list.
    words: [AtomicU64; HOT_MAX],
}

impl HotNow {
    /// Replaces the list. A reader at the same time may see some of the old and some of the new.
    pub fn publish(&self, list: &HotList) {
        let hot = list
            .reads
            .iter()
            .filter(|key| key.share_milli >= HOT_SHARE_MILLI && key.count >= HOT_COUNT_MIN);
        let words = hot.map(|key| u64::from(key.hash) << 32 | u64::from(key.share_milli));
        for (word, value) in self.words.iter().zip(words.chain(std::iter::repeat(0))) {
            word.store(value, Relaxed);
        }
    }

    /// The key's part of all reads in thousandths, 0 if it is not hot.
    pub fn share_milli(&self, hash: u32) -> u32 {
        let words = self.words.iter().map(|word| word.load(Relaxed));
        let mut hot = words.take_while(|&word| word != 0);
        let found = hot.find(|word| (word >> 32) as u32 == hash);
        found.map_or(0, |word| word as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::sampler::{Countdown, Gaps, STOCK_MAX};
    use crate::keyspace::space_saving::hash_name;
    use crate::keyspace::testing::Rng;

    /// Two workers that look at one request in 128.
    struct Server {
        workers: [(HotKeys, Countdown, Gaps); 2],
        now_s: u32,
    }

    impl Server {
        fn new(seed: u32) -> Self {
            let worker = |n| {
                let mut gaps = Gaps::new(seed * 2 + n, STOCK_MAX);
                // No stock: only what is seen of many requests counts here.
                (0..5000).for_each(|_| _ = gaps.draw(2));
                (HotKeys::default(), Countdown::default(), gaps)
            };
            Server {
                workers: [worker(0), worker(1)],
                now_s: 2,
            }
        }

        /// A second of requests for keys with these numbers.
        fn second(&mut self, requests: usize, mut key: impl FnMut() -> usize) -> HotList {
            for n in 0..requests {
                let (keys, countdown, gaps) = &mut self.workers[n % 2];
                let number = key();
                if countdown.is_due() {
                    let drawn = gaps.draw(self.now_s);
                    countdown.set(drawn.gap);
                    let name = format!("key {number}").into_bytes();
                    keys.add(hash_name(&name), &name, true, 100, drawn.weight);
                }
            }
            self.now_s += 1;
            let mut merge = Merge::default();
            for (keys, ..) in &mut self.workers {
                merge.take(keys, self.now_s);
            }
            merge.finish()
        }
    }

    fn numbers(list: &[HotKey]) -> Vec<usize> {
        let number = |key: &HotKey| {
            let text = str::from_utf8(&key.key).expect("text");
            text[4..].parse().expect("a number")
        };
        list.iter().map(number).collect()
    }

    #[test]
    fn half_a_per_cent_among_ten_million_stands_first() {
        for seed in 0..5 {
            let (mut server, mut rng) = (Server::new(seed), Rng::new(u64::from(seed) + 9));
            let any = |rng: &mut Rng| 1 + rng.below(10_000_000);
            for _ in 0..5 {
                server.second(300_000, || any(&mut rng));
            }
            // It begins in the middle of a second, and is first after the next one at the latest.
            server.second(300_000, || {
                if rng.below(400) == 0 {
                    0
                } else {
                    any(&mut rng)
                }
            });
            let list = server.second(300_000, || {
                if rng.below(200) == 0 {
                    0
                } else {
                    any(&mut rng)
                }
            });
            assert_eq!(numbers(&list.reads)[0], 0, "seed {seed}");
            for _ in 0..3 {
                let some = |rng: &mut Rng| {
                    if rng.below(200) == 0 { 0 } else { any(rng) }
                };
                server.second(300_000, || some(&mut rng));
            }
            let list = server.second(0, || 0);
            let share = list.reads[0].share_milli;
            assert!((3..=7).contains(&share), "seed {seed}: {share}");
            // It is gone as soon.
            for _ in 0..6 {
                server.second(300_000, || any(&mut rng));
            }
            let list = server.second(300_000, || any(&mut rng));
            assert!(!numbers(&list.reads)[..1].contains(&0), "seed {seed}");
        }
    }

    #[test]
    fn all_keys_above_one_per_cent_are_there() {
        for seed in 0..5 {
            let (mut server, mut rng) = (Server::new(seed), Rng::new(u64::from(seed) + 1));
            // 40 keys of 1.1 to 1.5 % each, the rest among a million.
            let share = |n: usize| 11 + n % 5;
            let hot: Vec<usize> = (0..40).flat_map(|n| vec![n; share(n)]).collect();
            let mut list = HotList::default();
            for _ in 0..3 {
                list = server.second(400_000, || {
                    let at = rng.below(1000);
                    hot.get(at).copied().unwrap_or(1000 + rng.below(1_000_000))
                });
            }
            let mut first = numbers(&list.reads)[..40].to_vec();
            first.sort_unstable();
            assert_eq!(first, (0..40).collect::<Vec<_>>(), "seed {seed}");
        }
    }

    #[test]
    fn reads_writes_and_bytes_are_told_apart() {
        let mut keys = HotKeys::default();
        for _ in 0..9000 {
            keys.add(1, b"read", true, 10, 1);
            keys.add(2, b"written", false, 10, 1);
            keys.add(4, b"often missed", true, 0, 1);
        }
        keys.add(3, b"large", true, 1 << 20, 1);
        let mut merge = Merge::default();
        merge.take(&mut keys, 3);
        let list = merge.finish();
        let names =
            |list: &[HotKey]| -> Vec<Vec<u8>> { list.iter().map(|key| key.key.clone()).collect() };
        assert_eq!(
            names(&list.reads),
            [
                b"often missed".to_vec(),
                b"read".to_vec(),
                b"large".to_vec()
            ]
        );
        assert_eq!(names(&list.writes), [b"written".to_vec()]);
        assert_eq!(names(&list.bytes)[0], b"large");
        let now = HotNow::default();
        now.publish(&list);
        assert_eq!(now.share_milli(1), 499);
        assert_eq!(now.share_milli(3), 0, "seen once");
        assert_eq!(now.share_milli(2), 0, "written only");
        now.publish(&HotList::default());
        assert_eq!(now.share_milli(1), 0);
    }
}
