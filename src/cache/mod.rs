//! The store: keys to items, in bounded memory. It has never heard of a socket or a wire word.
//!
//! ```text
//!  Cache::entry(key) --> Entry: the key's stripe is locked; look, replace, remove, touch
//!    |                     table/     hash -> handle, in stripes of buckets
//!    |                     item/      handle -> header, key, value       view.rs    what is shown of it
//!    +- Cache::create      memory/    free chunk, else page, else evict, else another class's page
//!                          lru.rs     the items' order, by class     segments.rs its lists   eviction/  the policies
//!    +- Entry::update      update.rs  verbs that make an item from the one they find
//!  ahead.rs    a key looked for before its request is answered    at.rs   when a verb is carried out
//!  memory_file/  all of it in a file     revive/    from which the next process goes on
//!  store.rs    Cache: what all this hangs from           entry.rs   Entry       tuning.rs  the knobs
//!  uniques.rs  CAS uniques, and the clock of stores
//!  copying.rs  all items, step by step, in the table's order       loading.rs   items put back as they were
//!  maintainer.rs  balance, expired items, page moves, in small slices      crawler.rs  walks over all items
//! ```
//!
//! Lock order: stripe -> page move -> LRU of a class -> slab class. Against that order, only `try_lock`.

mod ahead;
mod at;
mod class_mask;
mod copying;
mod crawler;
mod entry;
mod eviction;
mod flush;
mod item;
mod loading;
mod lru;
mod maintainer;
mod memory;
mod memory_file;
mod revive;
mod segments;
mod store;
mod table;
mod tuning;
mod turnover;
mod uniques;
mod update;
mod view;

pub use ahead::Ahead;
pub use at::At;
pub use class_mask::ClassMask;
pub use copying::{CopiedValue, CopyCursor, ITEMS_A_STEP};
pub use crawler::WalkCursor;
pub use entry::{Entry, Hit};
pub use eviction::Policy;
pub use item::{AllocError, ITEM_HEAD_BYTES, ItemSpec, LARGE_VALUE_MIN, NewItem, PinnedValue};
pub use loading::Saved;
pub use maintainer::{Maintainer, STEPS_PER_S};
pub use memory::{MoveError, MoveStats};
pub use memory_file::{Dropped, How, MemoryFile, Place, Restart};
pub use revive::Opened;
pub use segments::{LruCounters, Segment};
pub use slab_alloc::{CLASSES_MAX, ClassId, ClassStats};
pub use store::{Cache, CacheConfig, ClassReport, Lookup};
pub use table::{KeyHash, Probe, Sought, TableShape, place_keys_alike};
pub use tuning::Tuning;
pub use update::{Room, Shortage};
pub use view::{ItemHead, ItemView};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
