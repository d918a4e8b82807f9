//! The hashes of what was evicted lately: whoever comes back soon has been evicted too early.
//!
//! ```text
//!  hash --> bucket: its upper bits      | newest | .. | .. | oldest |  so many tags, 0 for none
//!           tag: its lower 16 bits
//! ```
//!
//! Each bucket forgets its oldest when it is full: in all about as many of the latest are known as there are slots. One in four
//! thousand strangers is taken for somebody known, which costs one item a better place than it has earned. How many of
//! its bucket came after a hash tells about how long ago it came.
//!
//! G1. The number of buckets is seven times a power of two, from three quarters of what is asked for to three
//!     times it (memory limits are powers of two, and so is often the number of items: not to lie just above). Doubled, both halves of a bucket know what it knew, until that is pushed out; halved, the newest of both stay.
//!
//! Costs: 2 bytes a hash; a question or an insertion touches one cache line at most.

use super::super::table::KeyHash;

/// Buckets of so many slots.
#[derive(Debug, Default)]
pub struct Ghost<const SLOTS: usize> {
    buckets: Vec<[u16; SLOTS]>,
}

/// What is kept of a hash.
fn tag(hash: KeyHash) -> u16 {
    // Nothing is lost with the few keys of tag 0: they are never known.
    hash.0 as u16
}

impl<const SLOTS: usize> Ghost<SLOTS> {
    fn bucket(&mut self, hash: KeyHash) -> Option<&mut [u16; SLOTS]> {
        let index = (u64::from(hash.0) * self.buckets.len() as u64) >> 32;
        self.buckets.get_mut(index as usize)
    }

    /// All that is known, as bytes.
    pub fn save(&self) -> Vec<u8> {
        let tags = self.buckets.iter().flatten();
        tags.flat_map(|tag| tag.to_le_bytes()).collect()
    }

    /// Knows what [`Ghost::save`] gave, and nothing else. What cannot be that is forgotten.
    pub fn restore(&mut self, bytes: &[u8]) {
        let count = bytes.len() / size_of::<[u16; SLOTS]>();
        if bytes.len().is_multiple_of(size_of::<[u16; SLOTS]>())
            && count.is_multiple_of(7)
            && (count / 7).is_power_of_two()
        {
            let tag = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
            let bucket = |bytes: &[u8]| std::array::from_fn(|slot| tag(&bytes[slot * 2..]));
            self.buckets = bytes
                .chunks_exact(size_of::<[u16; SLOTS]>())
                .map(bucket)
                .collect();
        }
    }

    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.buckets[..])
    }

    /// Makes room for about so many buckets of hashes (G1); what is known stays known as far as it fits.
    pub fn hold(&mut self, buckets: usize) {
        let least = buckets * 3 / 4;
        let wanted = 7 * least.div_ceil(7).max(1).next_power_of_two();
        if self.buckets.is_empty() {
            self.buckets = vec![[0; SLOTS]; wanted];
        }
        while self.buckets.len() < wanted {
            let twice = |&bucket: &[u16; SLOTS]| [bucket, bucket];
            self.buckets = self.buckets.iter().flat_map(twice).collect();
        }
        while self.buckets.len() > wanted * 2 {
            let newest =
                |pair: &[[u16; SLOTS]]| std::array::from_fn(|slot| pair[slot % 2][slot / 2]);
            self.buckets = self.buckets.chunks_exact(2).map(newest).collect();
        }
    }

    /// Remembers a hash.
    pub fn insert(&mut self, hash: KeyHash) {
        if let Some(bucket) = self.bucket(hash) {
            bucket.copy_within(0..SLOTS - 1, 1);
            bucket[0] = tag(hash);
        }
    }

    /// If the hash is remembered: how many of its bucket came after it; then it is forgotten.
    pub fn take(&mut self, hash: KeyHash) -> Option<usize> {
        let tag = tag(hash);
        let bucket = self.bucket(hash)?;
        let known = |&known: &u16| known == tag && known != 0;
        let at = bucket.iter().position(known)?;
        bucket.copy_within(at + 1.., at);
        bucket[SLOTS - 1] = 0;
        Some(at)
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
        let mut ghost = Ghost::<16>::default();
        let hashes = hashes(1, 10_000);
        assert_eq!(ghost.take(hashes[0]), None);
        ghost.hold(125);
        hashes.iter().for_each(|&hash| ghost.insert(hash));
        let known = |ghost: &mut Ghost<16>, range: std::ops::Range<usize>| {
            hashes[range]
                .iter()
                .filter(|&&hash| ghost.take(hash).is_some())
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
        let mut ghost = Ghost::<16>::default();
        ghost.hold(7);
        let hashes = hashes(2, 3000);
        for (n, &hash) in hashes.iter().enumerate() {
            ghost.hold((100 + n) / 16);
            ghost.insert(hash);
        }
        ghost.hold(62);
        let known = hashes[2500..]
            .iter()
            .filter(|&&hash| ghost.take(hash).is_some())
            .count();
        assert!(known > 400, "{known}");
    }
}
