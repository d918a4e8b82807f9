//! The hashes of what was evicted lately: whoever comes back soon has been evicted too early.
//!
//! ```text
//!  hash --> bucket = hash * buckets / 2^32      | newest | .. | .. | oldest |  8 hashes, 0 for none
//! ```
//!
//! Each bucket forgets its oldest when it is full: in all about the latest `capacity` hashes are known. What is kept is
//! the whole 32-bit hash, so that the buckets can be dealt out anew when the class grows; two keys with one hash are
//! taken for each other, which costs one item a better place than it has earned.
//!
//! Costs: 4 bytes a hash; a question or an insertion touches one cache line at most.

use super::super::table::KeyHash;

const SLOTS: usize = 8;

type Bucket = [u32; SLOTS];

#[derive(Debug, Default)]
pub struct Ghost {
    buckets: Vec<Bucket>,
}

impl Ghost {
    fn bucket(&mut self, hash: u32) -> Option<&mut Bucket> {
        let index = (u64::from(hash) * self.buckets.len() as u64) >> 32;
        self.buckets.get_mut(index as usize)
    }

    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.buckets[..])
    }

    /// Makes room for so many hashes; what is known stays known as far as it fits.
    pub fn hold(&mut self, capacity: usize) {
        let wanted = capacity.div_ceil(SLOTS).max(1);
        let now = self.buckets.len();
        // Dealt out anew only when the class has changed by a quarter.
        if wanted <= now && wanted * 2 >= now {
            return;
        }
        let wanted = if wanted > now && now > 0 {
            wanted + wanted / 4
        } else {
            wanted
        };
        let old = std::mem::replace(&mut self.buckets, vec![[0; SLOTS]; wanted]);
        for slot in (0..SLOTS).rev() {
            for bucket in old.iter().filter(|bucket| bucket[slot] != 0) {
                self.insert(KeyHash(bucket[slot]));
            }
        }
    }

    /// Remembers a hash.
    pub fn insert(&mut self, hash: KeyHash) {
        if let Some(bucket) = self.bucket(hash.0) {
            bucket.copy_within(0..SLOTS - 1, 1);
            bucket[0] = hash.0;
        }
    }

    /// True if the hash is remembered; then it is forgotten.
    pub fn take(&mut self, hash: KeyHash) -> bool {
        let Some(bucket) = self.bucket(hash.0) else {
            return false;
        };
        // Nothing is lost with the one key of hash 0: it is never known.
        let Some(at) = bucket
            .iter()
            .position(|&known| known == hash.0 && known != 0)
        else {
            return false;
        };
        bucket.copy_within(at + 1.., at);
        bucket[SLOTS - 1] = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::Rng;

    fn hashes(seed: u64, count: usize) -> Vec<KeyHash> {
        let mut rng = Rng::new(seed);
        (0..count).map(|_| KeyHash(rng.next() as u32)).collect()
    }

    #[test]
    fn the_latest_are_known_once() {
        let mut ghost = Ghost::default();
        let hashes = hashes(1, 10_000);
        assert!(!ghost.take(hashes[0]));
        ghost.hold(2000);
        hashes.iter().for_each(|&hash| ghost.insert(hash));
        let known = |ghost: &mut Ghost, range: std::ops::Range<usize>| {
            hashes[range]
                .iter()
                .filter(|&&hash| ghost.take(hash))
                .count()
        };
        assert!(known(&mut ghost, 9500..10_000) > 490);
        assert_eq!(
            known(&mut ghost, 9500..10_000),
            0,
            "forgotten once asked for"
        );
        assert!(known(&mut ghost, 0..5000) < 50);
    }

    #[test]
    fn growing_and_shrinking_keep_the_latest() {
        let mut ghost = Ghost::default();
        ghost.hold(100);
        let hashes = hashes(2, 3000);
        for (n, &hash) in hashes.iter().enumerate() {
            ghost.hold(100 + n);
            ghost.insert(hash);
        }
        ghost.hold(1000);
        let known = hashes[2500..]
            .iter()
            .filter(|&&hash| ghost.take(hash))
            .count();
        assert!(known > 400, "{known}");
    }
}
