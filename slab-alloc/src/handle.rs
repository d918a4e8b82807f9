//! The name of a chunk.

use std::num::NonZeroU32;

/// The name of a chunk: its offset in the arena, counted in granules. 0 is no chunk, so a link
/// field that holds a raw 0 says "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChunkHandle(NonZeroU32);

const _: () = assert!(size_of::<Option<ChunkHandle>>() == 4);

impl ChunkHandle {
    /// The number to keep in a link field.
    #[inline]
    pub fn to_raw(self) -> u32 {
        self.0.get()
    }

    /// Reads a link field back; 0 is `None`. A number that never came from [`Self::to_raw`] makes a
    /// handle of nothing: safe to hold, a panic or another's header words when used.
    #[inline]
    pub fn from_raw(raw: u32) -> Option<Self> {
        NonZeroU32::new(raw).map(Self)
    }
}
