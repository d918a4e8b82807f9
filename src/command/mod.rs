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
mod body;
mod budget;
mod config;
mod connections;
mod delete;
mod dump;
mod meta;
mod output;
mod prefixes;
#[cfg(test)]
mod race_tests;
mod report;
mod retrieval;
mod session;
#[cfg(test)]
mod session_tests;
mod shared;
mod sign_in;
mod stats;
mod storage;
#[cfg(test)]
mod testing;

pub use crate::auth::Peer;
pub use config::CONFIG_LEN_MAX;
pub use connections::{ConnInfo, ConnState, Kept, Registry};
pub use output::Output;
pub use session::{Drive, Foreseen, Next, Session};
pub use shared::{Certs, Ctx, Shared, StopMode};
