//! Buckets and overflow buckets as words: tags, the index of the next, handles.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use slab_alloc::ChunkHandle;

/// A cache line.
pub type Bucket = [AtomicU64; 8];

const _: () = assert!(size_of::<Bucket>() == 64, "a bucket is a cache line");

/// Half a line, behind a bucket that is full.
pub type Overflow = [AtomicU64; 4];
const _: () = assert!(
    size_of::<Overflow>() == 32,
    "an overflow bucket is half a cache line"
);

/// What a bucket and an overflow bucket are, in one number, for whoever finds them in a file.
pub const LAYOUT: u64 = (size_of::<Bucket>() << 16 | size_of::<Overflow>() << 8 | 10) as u64;

/// 1 in each 16-bit lane.
const LANES: u64 = 0x0001_0001_0001_0001;

/// A bucket or an overflow bucket: its words. Tags come first, four to a word; then, in the upper half of a word whose lower half
/// the bucket's last tags have, the index of the next overflow bucket; then the handles, two to a word.
#[derive(Debug, Clone, Copy)]
pub struct Block<'t>(pub &'t [AtomicU64]);

/// The highest bit of each 16-bit lane of `word` that is equal to `tag`.
#[inline]
fn lanes_equal(word: u64, tag: u16) -> u64 {
    const LOW: u64 = LANES * 0x7fff;
    let differ = word ^ (LANES * u64::from(tag));
    // The sum carries into the highest bit unless the lower ones are all 0, and never into the next lane.
    !(((differ & LOW) + LOW) | differ | LOW)
}

impl<'t> Block<'t> {
    /// How many slots it has.
    #[inline]
    pub fn slots(self) -> usize {
        if self.0.len() == 8 { 10 } else { 4 }
    }

    #[inline]
    fn handles_at(self) -> usize {
        self.0.len() - self.slots() / 2
    }

    /// The tag of a slot.
    #[inline]
    pub fn tag(self, slot: usize) -> u16 {
        (self.0[slot / 4].load(Relaxed) >> (slot % 4 * 16)) as u16
    }

    /// The handle of a slot; none if it is not in use.
    #[inline]
    pub fn handle(self, slot: usize) -> Option<ChunkHandle> {
        let word = self.0[self.handles_at() + slot / 2].load(Relaxed);
        ChunkHandle::from_raw((word >> (slot % 2 * 32)) as u32)
    }

    /// Writes a slot, under the stripe's lock (T1).
    #[inline]
    pub fn set(self, slot: usize, tag: u16, handle: Option<ChunkHandle>) {
        self.write(slot / 4, slot % 4 * 16, 0xffff, u64::from(tag));
        self.set_handle(slot, handle);
    }

    /// Writes the handle of a slot, under the stripe's lock (T1).
    #[inline]
    pub fn set_handle(self, slot: usize, handle: Option<ChunkHandle>) {
        let raw = handle.map_or(0, ChunkHandle::to_raw);
        self.write(
            self.handles_at() + slot / 2,
            slot % 2 * 32,
            0xffff_ffff,
            u64::from(raw),
        );
    }

    #[inline]
    fn write(self, word: usize, shift: usize, mask: u64, value: u64) {
        let kept = self.0[word].load(Relaxed) & !(mask << shift);
        self.0[word].store(kept | value << shift, Relaxed);
    }

    /// The index of the overflow bucket behind it, or 0.
    #[inline]
    pub fn next(self) -> u32 {
        (self.0[self.handles_at() - 1].load(Relaxed) >> 32) as u32
    }

    /// Sets that index, under the stripe's lock (T1).
    pub fn set_next(self, next: u32) {
        self.write(self.handles_at() - 1, 32, 0xffff_ffff, u64::from(next));
    }

    /// The first slot of this tag whose handle `is_it`.
    #[inline(always)]
    pub fn find(
        self,
        tag: u16,
        is_it: impl Fn(ChunkHandle) -> bool,
    ) -> Option<(usize, ChunkHandle)> {
        for word in 0..self.slots().div_ceil(4) {
            let mut equal = lanes_equal(self.0[word].load(Relaxed), tag);
            while equal != 0 {
                let slot = word * 4 + equal.trailing_zeros() as usize / 16;
                equal &= equal - 1;
                // The bucket's third word has two tags only.
                if slot < self.slots()
                    && let Some(handle) = self.handle(slot)
                    && is_it(handle)
                {
                    return Some((slot, handle));
                }
            }
        }
        None
    }

    /// Slots in use; they are the first ones (T2).
    pub fn used(self) -> usize {
        (0..self.slots())
            .take_while(|&slot| self.handle(slot).is_some())
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lanes_are_found_and_no_others() {
        let tags = [0u16, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
        for lanes in 0..tags.len().pow(4) {
            let lane = |n: usize| tags[lanes / tags.len().pow(n as u32) % tags.len()];
            let word = (0..4).fold(0, |word, n| word | u64::from(lane(n)) << (16 * n));
            for tag in tags {
                let equal = (0..4)
                    .filter(|&n| lane(n) == tag)
                    .fold(0, |bits, n| bits | 0x8000u64 << (16 * n));
                assert_eq!(lanes_equal(word, tag), equal, "{tag:x} in {word:x}");
            }
        }
    }
}
