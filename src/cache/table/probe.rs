//! What is looked for: a key's hash, and where its item was when somebody looked ahead.

use slab_alloc::ChunkHandle;

/// The hash of a key: keyed, random for each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash(pub u32);

impl KeyHash {
    #[inline]
    pub(super) fn tag(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// Where an item's slot is; good until its stripe changes.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// The index of a bucket, or with [`IN_OVERFLOW`] of an overflow bucket.
    pub(super) block: u32,
    pub(super) slot: u8,
}

impl Slot {
    #[inline]
    pub(super) fn new(block: u32, slot: usize) -> Self {
        let slot = slot as u8;
        Slot { block, slot }
    }
}

/// What is known of where a key's item is: the key's hash, and what was seen when somebody looked ahead.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    pub(in crate::cache) hash: KeyHash,
    /// The bucket's index when it was asked for; [`UNKNOWN`] before.
    pub(super) bucket: u32,
    pub(super) seen: Option<(Slot, ChunkHandle)>,
}

/// No bucket's index.
pub(super) const UNKNOWN: u32 = u32::MAX;

impl Probe {
    /// Nothing is known yet but the hash.
    #[inline]
    pub fn new(hash: KeyHash) -> Self {
        Probe {
            hash,
            bucket: UNKNOWN,
            seen: None,
        }
    }

    /// The hash.
    #[inline]
    pub(in crate::cache) fn hash(&self) -> KeyHash {
        self.hash
    }

    /// The key together with what is known of it. `key` is the one whose hash the probe has.
    #[inline]
    pub fn of(self, key: &[u8]) -> Sought<'_> {
        Sought { key, probe: self }
    }

    /// The item that was seen, most likely the key's.
    #[inline]
    pub(in crate::cache) fn seen(&self) -> Option<ChunkHandle> {
        self.seen.map(|(_, handle)| handle)
    }
}

impl Default for Probe {
    fn default() -> Self {
        Probe::new(KeyHash(0))
    }
}

/// A key and what is known of where its item is.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'k> {
    /// The key, 1 to 250 bytes.
    pub key: &'k [u8],
    pub(in crate::cache) probe: Probe,
}

impl Sought<'_> {
    /// The hash of the key.
    #[inline]
    pub fn hash(&self) -> KeyHash {
        self.probe.hash
    }
}

/// Marks a slot in an overflow bucket.
pub(super) const IN_OVERFLOW: u32 = 1 << 31;
