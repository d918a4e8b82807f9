//! How often a key was asked for lately, in half a byte: a count-min sketch of 4-bit counts (as in TinyLFU: Einziger,
//! Friedman and Manes, 2017).
//!
//! ```text
//!  hash --> 4 places, one in each quarter's own sequence:  estimate = the least of the 4 counts
//! ```
//!
//! K1. A count is at most 15. After ten additions for each item the class holds, all counts are halved, so that what was
//!     popular long ago gives way.
//! K2. The number of counts is a power of two; doubled, each half is a copy of the former whole, and estimates stay.
//!
//! Costs: 8 to 16 bytes an item.

use super::super::table::KeyHash;

const COUNT_MAX: u64 = 15;
/// Counts for each item, rounded up to a power of two.
const COUNTS_PER_ITEM: usize = 16;
/// Additions an item after which all counts are halved.
const AGE_AFTER: usize = 10;
const ROWS: [u32; 4] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f];

#[derive(Debug, Default)]
pub struct Sketch {
    /// 16 counts a word.
    words: Vec<u64>,
    added: usize,
    age_at: usize,
}

impl Sketch {
    /// All that is known, as bytes.
    pub fn save(&self) -> Vec<u8> {
        let heads = [self.added as u64, self.age_at as u64];
        let words = heads.iter().chain(&self.words);
        words.flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Knows what [`Sketch::save`] gave, and nothing else. What cannot be that is forgotten.
    pub fn restore(&mut self, bytes: &[u8]) {
        let word = |bytes: &[u8]| {
            let bytes = bytes.first_chunk().expect("chunks of eight");
            u64::from_le_bytes(*bytes)
        };
        let mut words = bytes.chunks_exact(8).map(word);
        if let (Some(added), Some(age_at)) = (words.next(), words.next())
            && words.len().is_power_of_two()
        {
            (self.added, self.age_at) = (added as usize, age_at as usize);
            self.words = words.collect();
        }
    }

    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.words[..])
    }

    /// Makes it fit for so many items.
    pub fn hold(&mut self, items: usize) {
        let wanted = (items * COUNTS_PER_ITEM / 16).next_power_of_two();
        if self.words.is_empty() {
            self.words = vec![0; wanted];
        }
        while self.words.len() < wanted {
            self.words.extend_from_within(..);
        }
        self.age_at = items.max(16) * AGE_AFTER;
    }

    fn places(&self, hash: KeyHash) -> [(usize, u32); 4] {
        let mask = self.words.len() - 1;
        ROWS.map(|row| {
            let mixed = (hash.0 ^ hash.0 >> 15).wrapping_mul(row);
            let mixed = mixed ^ mixed >> 13;
            ((mixed >> 4) as usize & mask, mixed % 16 * 4)
        })
    }

    /// Counts so many requests.
    pub fn add(&mut self, hash: KeyHash, requests: u16) {
        if self.words.is_empty() || requests == 0 {
            return;
        }
        // Only what the key's own requests can account for is raised (conservative update: Estan and Varghese, 2002).
        let wanted = (self.estimate(hash) + u64::from(requests)).min(COUNT_MAX);
        for (word, shift) in self.places(hash) {
            let count = self.words[word] >> shift & COUNT_MAX;
            self.words[word] += wanted.saturating_sub(count) << shift;
        }
        self.added += usize::from(requests);
        if self.added >= self.age_at {
            self.added /= 2;
            for word in &mut self.words {
                *word = *word >> 1 & 0x7777_7777_7777_7777;
            }
        }
    }

    /// About how many requests there were lately: never too few, but for K1.
    pub fn estimate(&self, hash: KeyHash) -> u64 {
        if self.words.is_empty() {
            return 0;
        }
        let counts = self
            .places(hash)
            .map(|(word, shift)| self.words[word] >> shift & COUNT_MAX);
        counts.into_iter().min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::Rng;

    #[test]
    fn estimates_are_seldom_too_high_and_never_too_low() {
        let mut sketch = Sketch::default();
        sketch.hold(1000);
        let mut rng = Rng::new(1);
        let hashes: Vec<_> = (0..1000).map(|_| KeyHash(rng.next() as u32)).collect();
        for (n, &hash) in hashes.iter().enumerate() {
            (0..n % 8).for_each(|_| sketch.add(hash, 1));
        }
        let exact = |(n, &hash): (usize, &KeyHash)| {
            let estimate = sketch.estimate(hash);
            assert!(estimate >= (n % 8) as u64);
            estimate == (n % 8) as u64
        };
        let exact = hashes.iter().enumerate().filter(|&at| exact(at)).count();
        assert!(exact > 900, "{exact}");
        sketch.hold(3000);
        assert!(sketch.estimate(hashes[7]) >= 7, "K2");
    }

    #[test]
    fn old_popularity_fades() {
        let mut sketch = Sketch::default();
        sketch.hold(100);
        sketch.add(KeyHash(7), 12);
        let mut rng = Rng::new(2);
        (0..4000).for_each(|_| sketch.add(KeyHash(rng.next() as u32), 1));
        assert!(sketch.estimate(KeyHash(7)) < 8);
    }
}
