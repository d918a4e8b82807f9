//! Where an allocator lies in a file.

use crate::arena::{GRANULE_MAX, GRANULE_MIN, reach_pages};
use crate::layout::{PAGE_BYTES_MAX, REACH_BYTES};
use crate::mapping::SYSTEM_PAGE_BYTES;
use crate::page::PageMeta;
use crate::reserved::Reserved;

/// Where the states of the pages and the arena begin in a file, in bytes, and how the arena is cut. These are places for
/// ever: the limit changes within them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Where the states of the pages begin.
    pub states: usize,
    /// Where the arena begins.
    pub arena: usize,
    /// Pages of the arena, page 0 included, which is never used.
    pub pages: usize,
    /// The size of a page, in bytes.
    pub page_bytes: usize,
    /// The unit of handles, in bytes.
    pub granule: usize,
}

impl Places {
    /// How the arena of a new file is cut, for so many bytes of items at the most: the granule and the pages. It lies
    /// nowhere yet.
    pub fn for_items(page_bytes: usize, bytes_max: usize) -> Self {
        let wanted = bytes_max.div_ceil(page_bytes) + 1;
        let mut granule = GRANULE_MIN;
        while reach_pages(granule, page_bytes) < wanted && granule < GRANULE_MAX {
            granule *= 2;
        }
        let pages = wanted.min(reach_pages(granule, page_bytes));
        Places {
            states: 0,
            arena: 0,
            pages,
            page_bytes,
            granule,
        }
    }

    /// The same with all the pages that handles reach, where their granule is that of so many bytes: of a file that takes no
    /// space for pages that are not used.
    pub fn for_reach(page_bytes: usize, bytes: usize) -> Self {
        let least = Self::for_items(page_bytes, bytes);
        Places {
            pages: reach_pages(least.granule, page_bytes),
            ..least
        }
    }

    /// Whether numbers read from a file can be the cut of an arena.
    pub fn is_possible(&self) -> bool {
        let page_ok =
            self.page_bytes.is_power_of_two() && (4096..=PAGE_BYTES_MAX).contains(&self.page_bytes);
        let granule_ok =
            self.granule.is_power_of_two() && (GRANULE_MIN..=GRANULE_MAX).contains(&self.granule);
        page_ok
            && granule_ok
            && (2..=reach_pages(self.granule, self.page_bytes)).contains(&self.pages)
    }

    /// Bytes that the states of the pages take in the file.
    pub fn states_bytes(&self) -> usize {
        Reserved::<PageMeta>::bytes_for(self.pages)
    }

    /// Bytes that the arena takes in the file.
    pub fn arena_bytes(&self) -> usize {
        (self.pages * self.page_bytes + REACH_BYTES).next_multiple_of(SYSTEM_PAGE_BYTES)
    }

    /// Bytes of items that fit.
    pub fn bytes_max(&self) -> usize {
        (self.pages - 1) * self.page_bytes
    }
}
