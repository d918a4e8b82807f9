//! The slab allocator: pages, slab classes, chunks. Memory only; what lies in a chunk, and when it
//! should go, is for others to know.
//!
//! ```text
//!  arena    | page 1         | page 2 | page 3 | ..     one reservation, [`arena`]
//!                |               |        |
//!  pool          |               |      no class: idle, released, never used     [`pool`]
//!                v               v
//!  class 7   | chunk | chunk | chunk | ..   a page of one class is cut into chunks of one size
//!              ^ ChunkHandle: 32 bits, not an address
//! ```
//!
//! A chunk is taken from the page at the head of its class's list of pages that have some left
//! (`alloc`); when there is none, a page comes from the pool. A freed chunk goes into the free list
//! of its own page, and a page whose last chunk is freed goes to the pool, open to all classes.
//! A page becomes the head when a chunk of a full page is freed, so that allocation refills the
//! fullest pages first, without looking for them.
//!
//! S1. A chunk is in one place: in someone's hands from `alloc` to `free`, in its page's free list,
//!     or behind the fresh mark. While one is in someone's hands, its page keeps its class.
//! S2. A page of a class is in the class's partial list exactly while it has a chunk to give and is
//!     not draining. A page whose last used chunk is freed leaves the class, unless draining.
//! S3. Chunks in hands do not overlap: those of one page are multiples of its chunk size apart, and
//!     end within the page.
//! S4. The header, the first 32 bytes of a chunk, is only ever read and written through atomics: by
//!     the allocator always (a free chunk's first 4 bytes are the link to the next), by others
//!     except where [`SlabAllocator::bytes`] and [`SlabAllocator::bytes_mut`] made them promise.
//!     Where a page may change its class meanwhile, and with it the places of the headers, who
//!     looks at those of chunks of others does so in [`SlabAllocator::hold_page`].
//!
//! All of it may lie in a file ([`image`]), from which another process takes it up again ([`SlabAllocator::resume`]).
//!
//! Lock order: class -> pool. No two classes are locked at once, and no system call is made under
//! either lock, but that a page which lies in a file and has no memory yet gets it under the lock of its new class.
//!
//! Costs: `alloc` and `free` take one lock, that of the class, and touch the page's 32 bytes of
//! state and the chunk's first line. A page of chunks costs those 32 bytes, a chunk nothing.

mod allocator;
mod arena;
mod check;
mod class;
mod drain;
mod handle;
pub mod image;
mod layout;
mod mapping;
mod page;
mod places;
mod pool;
mod reserved;
mod resume;
mod sum;
#[cfg(test)]
mod tests;

pub use allocator::{ClassStats, Config, SlabAllocator};
pub use class::{CLASSES_MAX, ClassId, Sizes};
pub use handle::ChunkHandle;
pub use image::{Image, Space};
pub use layout::{HEADER_BYTES, HEADER_ZEROED, PAGE_BYTES_MAX, REACH_BYTES};
pub use page::{PageId, STATE_LAYOUT};
pub use places::Places;
pub use reserved::{Atomics, Reserved};
pub use sum::sum_of_words;
