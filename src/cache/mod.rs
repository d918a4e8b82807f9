//! The store: keys to items, in bounded memory. It has never heard of a socket or a wire word.
//!
//! ```text
//!  Cache::entry(key) --> Entry: the key's stripe is locked; look, replace, remove, touch
//!    |                     table.rs   hash -> handle, in stripes of buckets
//!    |                     item/      handle -> header, key, value
//!    +- Cache::create      reclaim.rs free chunk, else page, else evict, else another class's page
//!                          lru.rs     the items' order, by class     eviction/  the policies that make it
//!    +- Entry::update      update.rs  verbs that make an item from the one they find
//!  maintainer.rs  balance, expired items, page moves, in small slices      crawler.rs  walks over all items
//! ```
//!
//! Lock order: stripe -> page move -> LRU of a class -> slab class. Against that order, only `try_lock`.

mod crawler;
mod eviction;
mod flush;
mod item;
mod lru;
mod maintainer;
mod page_moves;
mod reclaim;
mod sizing;
mod store;
mod table;
mod turnover;
mod update;

pub use crawler::{ClassMask, WalkCursor};
pub use eviction::Policy;
pub use item::{AllocError, ITEM_HEAD_BYTES, ItemSpec, LARGE_VALUE_MIN, NewItem, PinnedValue};
pub use lru::{LruCounters, Segment};
pub use maintainer::{Maintainer, STEPS_PER_S};
pub use page_moves::{MoveError, MoveStats};
pub use slab_alloc::{CLASSES_MAX, ClassId, ClassStats};
pub use store::{Cache, CacheConfig, ClassReport, Entry, ItemHead, ItemView, Lookup, Tuning};
pub use table::{KeyHash, Probe, TableShape};
pub use update::{Room, Shortage};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
