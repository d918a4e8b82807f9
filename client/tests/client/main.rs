//! The client against servers: stock memcached, ketch, and peers that fail.
//!
//! What both fronts promise stands once, in `fronts/`, and runs twice: over the blocking client, and over the async one in
//! the blocking one's shape (`waiting`).

#![allow(clippy::duplicate_mod, reason = "fronts/ runs over both clients")]

mod as_node;
mod async_load;
mod away;
mod blocking;
mod feed;
mod fill;
mod growing;
mod histories;
mod hot;
mod ketama;
mod lanes;
mod patience;
mod registry;
mod relayed;
mod tasks;
mod topology;
mod waiting;
mod writing;
