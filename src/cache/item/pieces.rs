//! Of which chunks a large item is made.
//!
//! ```text
//!  17,000 bytes   | 16384: header, key, value ..            | 1024 |      28,000   | 16384 | 8192 | 4096 |
//!  one chunk each, three a page of 64 KB: a quarter of it would be empty
//! ```
//!
//! A large value ([`LARGE_VALUE_MIN`]) is read where it lies, so that it may as well lie in pieces. Their sizes are powers of
//! two, so that pages of them have no tail; and few classes serve all large items, so that few pages are half empty.
//! Each piece is the largest that the rest fills, or the next larger where that leaves little of it empty: of each item
//! less than [`WASTE_PART`], and three pieces below 32 KB on the mean.
//!
//! An item of more than the largest chunk begins with one of a class of its own for each octave of sizes, a twin of the largest, so
//! that small and large ones are in orders of their own: an item costs its bytes (`memory/reclaim.rs`). Its other pieces are
//! of the classes that all share.
//!
//! Where the powers of two are no classes (`-f`, `-o slab_sizes`), or the largest chunk holds the largest item
//! (`-o no_chunked_items`), an item lies in one chunk if it fits one.

use slab_alloc::{ChunkHandle, ClassId, PAGE_BYTES_MAX, SlabAllocator};

use super::{HEADER_BYTES, Items};

/// Values of at least so many bytes are large: they may lie in pieces (this module), and count who holds them.
pub const LARGE_VALUE_MIN: usize = 4096;
/// The same where pages are smaller than [`SMALL_PAGE_BYTES_MAX`]: those hold few chunks of 2 to 4 KB, so that up to a tenth of
/// them would be empty. A store in pieces takes half as long again, which is less than more hits are worth in so small a cache.
const LARGE_VALUE_MIN_IN_SMALL_PAGES: usize = 2048;
/// The largest of those pages.
const SMALL_PAGE_BYTES_MAX: usize = 32 << 10;

/// The pieces of an item may leave this part of it empty: less would cost more pieces.
const WASTE_PART: usize = 32;

/// From how many bytes of value on items lie in pieces; none if they do not.
pub(super) fn value_min(slabs: &SlabAllocator, item_bytes_max: usize) -> Option<usize> {
    let chunk_bytes_max = slabs.chunk_bytes(slabs.largest());
    if item_bytes_max <= chunk_bytes_max || chunk_bytes_max >= PAGE_BYTES_MAX {
        return None;
    }
    let few_a_page = slabs.page_bytes() <= SMALL_PAGE_BYTES_MAX;
    let least = few_a_page.then_some(LARGE_VALUE_MIN_IN_SMALL_PAGES);
    let mut mins = least.into_iter().chain([LARGE_VALUE_MIN]);
    mins.find(|&min| are_there(slabs, min))
}

/// True if all powers of two that an item with a value of at least `value_min` bytes may begin with are sizes of classes.
fn are_there(slabs: &SlabAllocator, value_min: usize) -> bool {
    let chunk_bytes_max = slabs.chunk_bytes(slabs.largest());
    let mut sizes = std::iter::successors(Some(value_min), |&size| Some(size * 2))
        .take_while(|&size| size <= chunk_bytes_max);
    let is_there = |size| {
        let class = slabs.class_for(size);
        class.is_some_and(|class| slabs.chunk_bytes(class) == size)
    };
    chunk_bytes_max.is_power_of_two() && sizes.all(is_there)
}

impl Items {
    /// Bytes of the headers of a large item's chunks, but for the first.
    pub(super) fn chain_headers_bytes(&self, handle: ChunkHandle) -> usize {
        (self.value_pieces_chunks(handle).count() - 1) * HEADER_BYTES
    }

    /// The classes that chained items begin in.
    pub fn head_classes(&self) -> impl Iterator<Item = ClassId> + '_ {
        let is_head = |&class: &ClassId| {
            let bytes = self.slabs.chunk_bytes(class);
            self.in_pieces && bytes >= self.large_value_min && bytes.is_power_of_two()
        };
        let largest = self.slabs.largest();
        let classes = self.slabs.classes();
        classes.filter(move |class| *class >= largest || is_head(class))
    }

    /// The class of the first piece of an item of `whole` bytes.
    pub(super) fn head_class(&self, whole: usize) -> ClassId {
        match whole.checked_ilog2() {
            Some(octave) if whole > self.chunk_bytes_max => {
                self.slabs.twin(octave - self.chunk_bytes_max.ilog2())
            }
            _ => self.piece_class(whole, whole),
        }
    }

    /// The class of the next piece of an item of about `whole` bytes, where `rest` bytes have no place yet, headers counted.
    pub(super) fn piece_class(&self, rest: usize, whole: usize) -> ClassId {
        let fit = rest.next_power_of_two();
        let bytes = if (fit - rest) * WASTE_PART <= whole {
            fit
        } else {
            fit / 2
        };
        self.slabs
            .class_for(bytes)
            .unwrap_or_else(|| self.slabs.largest())
    }
}
