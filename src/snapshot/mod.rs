//! The cache written down: snapshots, on a thread of their own, and loaded again at the start.
//!
//! ```text
//!  cache --copy_step--> take.rs: four batches by age --blocks of 1 MB--> FILE.new --fsync, rename, fsync--> FILE
//!  FILE --load.rs: heads, sorted by age; blocks by several threads, oldest first--> cache
//!  events --> LOG.ring --log.rs--> LOG.1, LOG.2 ..: what changed since the snapshot; replay.rs: replayed behind it
//!  keeper.rs: when a snapshot is due         files.rs: names, rights, links, the lock         crate snapshot-file: the format
//! ```
//!
//! Sn1. No request waits for a file: the walk holds one stripe for a few microseconds a step, and writes with none.
//! Sn2. Memory beside the cache is bounded by [`MEMORY_BYTES`], whatever is stored meanwhile: nothing is copied on write.
//! Sn3. What stands at the file's name is whole: a snapshot is written beside it, synced, and renamed.
//! Sn4. What is loaded was stored: a damaged block is left out whole, and so is an item that goes on in one.

mod files;
mod keeper;
mod load;
mod log;
mod replay;
mod ring_file;
#[cfg(test)]
mod ring_tests;
mod segments;
mod take;
#[cfg(test)]
mod tests;

pub use files::{Files, Locked};
pub use keeper::Keeper;
pub use load::{Loaded, load};
pub use log::Log;
pub use replay::Replayed;
pub use segments::{OpenSegment, Segments};
pub use take::{MEMORY_BYTES, Taken};
