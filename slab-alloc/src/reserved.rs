//! An array that has its full length from the start and costs memory only where it was written.
//!
//! ```text
//!  | element 0 | element 1 | ..  written: resident  .. | ..  zeros, no memory yet  .. | capacity
//! ```
//!
//! The address space is reserved in one mapping, so that elements never move while the used part
//! grows: a reference to an element lives as long as the array, and growing needs no lock.
//!
//! R1. The mapping holds `capacity` elements, all of them valid: any bytes are a value of `T`.

use std::io;
use std::marker::PhantomData;
use std::ops::Index;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};

use crate::image::Image;
use crate::mapping::{Mapping, SYSTEM_PAGE_BYTES, prefetch};

/// Types made of atomic numbers alone, for which any bytes are a value.
///
/// # Safety
/// Any bytes must be a valid value of the type, zeros among them; it must have no padding and no
/// drop glue, need no alignment above 4096, be `Sync`, and allow every change of its bytes through
/// a shared reference.
pub unsafe trait Atomics: Sync {}

macro_rules! atomics {
    ($($atomic:ty),*) => {$(
        // SAFETY: a plain atomic number: any bytes are one.
        unsafe impl Atomics for $atomic {}
    )*};
}
atomics!(
    AtomicU8,
    AtomicU16,
    AtomicU32,
    AtomicU64,
    AtomicI64,
    AtomicUsize
);

// SAFETY: any bytes of an array are elements of any bytes, each of them valid.
unsafe impl<T: Atomics, const N: usize> Atomics for [T; N] {}

/// A fixed-address array of zeros, touched page by page as it is used.
pub struct Reserved<T> {
    mapping: Mapping,
    capacity: usize,
    elements: PhantomData<T>,
}

impl<T> std::fmt::Debug for Reserved<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reserved").finish_non_exhaustive()
    }
}

impl<T: Atomics> Reserved<T> {
    /// Reserves address space for `capacity` elements, all of them zero.
    pub fn new(capacity: usize) -> io::Result<Self> {
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= 4096) };
        const { assert!(!std::mem::needs_drop::<T>()) };
        let bytes = capacity
            .checked_mul(size_of::<T>())
            .filter(|&bytes| bytes <= isize::MAX as usize)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            mapping: Mapping::reserve(bytes, 0)?,
            capacity,
            elements: PhantomData,
        })
    }

    /// Whether there are addresses for two arrays of so many elements, one of them for others who want some.
    pub fn has_room_for_two(capacity: usize) -> bool {
        Mapping::has_room_for_two(Self::bytes_for(capacity))
    }

    /// Elements in a file, from `offset` on, a multiple of 64 KB: with what was written there before. Panics outside of it.
    pub fn in_image(image: &Image, offset: usize, capacity: usize) -> Self {
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= 4096) };
        let bytes = Self::bytes_for(capacity);
        Self {
            mapping: image.part(offset..offset + bytes),
            capacity,
            elements: PhantomData,
        }
    }

    /// Bytes of a file that so many elements take, in whole pieces of 64 KB.
    pub fn bytes_for(capacity: usize) -> usize {
        (capacity * size_of::<T>())
            .max(1)
            .next_multiple_of(SYSTEM_PAGE_BYTES)
    }

    /// True if [`Self::back`] has to be called before elements are touched for the first time.
    pub fn wants_backing(&self) -> bool {
        self.mapping.wants_backing()
    }

    /// Makes sure of memory for the elements of `range` before they are touched, which begins where the range before it
    /// ended. Memory comes in pieces of 64 KB, of which the last one begun is there already.
    pub fn back(&self, range: std::ops::Range<usize>) -> io::Result<()> {
        let piece = |index: usize| (index * size_of::<T>()).next_multiple_of(SYSTEM_PAGE_BYTES);
        let (start, end) = (piece(range.start), piece(range.end.min(self.capacity)));
        if start >= end {
            return Ok(());
        }
        self.mapping.back_or_patch(start..end)
    }

    /// Makes all elements zeros again.
    pub fn clear(&mut self) -> io::Result<()> {
        self.mapping.clear()
    }

    /// How many elements there are.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// An element. Panics beyond the capacity.
    #[inline]
    pub fn get(&self, index: usize) -> &T {
        assert!(
            index < self.capacity,
            "index {index} of a reserved array of {}",
            self.capacity
        );
        // SAFETY: inside the mapping and a valid value (R1); the mapping is aligned to the system
        // page and lives as long as `self`.
        unsafe { self.mapping.start().cast::<T>().add(index).as_ref() }
    }

    /// Asks the processor to fetch an element's first cache line. Any index will do.
    #[inline]
    pub fn prefetch(&self, index: usize) {
        prefetch(
            self.mapping
                .start()
                .cast::<T>()
                .as_ptr()
                .wrapping_add(index)
                .cast(),
        );
    }

    /// Asks for transparent huge pages behind the array.
    pub fn advise_huge(&self) -> io::Result<()> {
        self.mapping.advise_huge()
    }
}

impl<T: Atomics> Index<usize> for Reserved<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: usize) -> &T {
        self.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn elements_are_zeros_until_written_and_keep_their_place() {
        type Bucket = [AtomicU64; 8];
        let buckets: Reserved<Bucket> = Reserved::new(1 << 24).unwrap();
        assert_eq!(buckets.capacity(), 1 << 24);
        for index in [0, 1, 1000, (1 << 24) - 1] {
            assert!(
                std::ptr::from_ref(&buckets[index])
                    .addr()
                    .is_multiple_of(64)
            );
            assert!(buckets[index].iter().all(|slot| slot.load(Relaxed) == 0));
            buckets[index][3].store(index as u64 + 1, Relaxed);
            buckets.prefetch(index + 8);
        }
        assert_eq!(buckets[1000][3].load(Relaxed), 1001);
        assert_eq!(buckets[999][3].load(Relaxed), 0);
    }

    #[test]
    #[should_panic(expected = "index 4 of a reserved array of 4")]
    fn an_index_beyond_the_capacity_panics() {
        let array: Reserved<AtomicU32> = Reserved::new(4).unwrap();
        let _ = array.get(4);
    }

    #[test]
    fn an_impossible_capacity_is_an_error() {
        assert!(Reserved::<AtomicU64>::new(usize::MAX).is_err());
        assert!(Reserved::<AtomicU64>::new(usize::MAX / 16).is_err());
        assert!(Reserved::<AtomicU64>::new(0).is_ok());
    }
}
