//! Memory when it is full: who gives way, where a chunk comes from, which class has which pages.
//!
//! ```text
//!  reclaim.rs     a chunk for whom there is none       sizing.rs      which slab classes are open
//!     |    \
//!     |     page_moves.rs    pages that change their class      move_state.rs  what is counted and asked for of them
//!     |    /                 lodging.rs     classes that have no page yet
//!     |    /
//!  evict.rs       items taken out from the LRU's side
//! ```

mod evict;
mod lodging;
mod move_state;
mod page_moves;
mod reclaim;
mod sizing;

pub(super) use lodging::Lodging;
pub use move_state::{MoveError, MoveStats, PageMoves};
pub(super) use sizing::Sizing;
