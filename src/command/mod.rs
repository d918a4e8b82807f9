//! What each command means: the one place where wire words and stored items meet.
//!
//! ```text
//!  bytes --> Session::drive --> protocol::parse --> execute --> cache verb --> Output --> socket
//!               |  one per connection: what is owed to the command in progress (a body, a long key list, a dump)
//!               +- a batch at a time: parse all, hash all, prefetch all, then answer in order
//! ```
//!
//! A session knows no socket: it takes bytes and leaves replies in an [`Output`], so that it is tested without one.

mod admin;
mod arithmetic;
mod config;
mod delete;
mod dump;
mod meta;
mod numbers;
mod output;
mod owed;
mod packed;
#[cfg(test)]
mod race_tests;
mod report;
mod retrieval;
mod session;
mod sights;
mod stats;
mod storage;
#[cfg(test)]
mod testing;
mod watch;

pub use output::Output;
pub use report::general_figures;
pub use session::{COMMAND_BYTES, Drive, Next, Session};
