//! The proxy: clients speak to it as to one server, and it passes on what they ask to the nodes of a cluster.
//!
//! ```text
//!  clients --> session/ --> desk/ (a worker's) --> lane.rs: one connection to a node, shared by all clients
//!     ^            |  what a key's node says goes back as it comes: relay.rs, frame.rs
//!     |            '-- keys with copies, nodes that change: carry.rs, verbs/, over the client's core
//!     '--- replies.rs: replies in the order of the requests
//!  plan.rs, routes.rs, rates.rs: pools, routes, limits (shared by the workers)   file/: the file that says so
//! ```
//!
//! No file here knows a socket: `net` owns those of clients and of nodes, on the worker's one poll.

mod carry;
mod course;
mod desk;
mod file;
pub mod frame;
mod lane;
mod plan;
mod rates;
mod relay;
mod replies;
mod routes;
mod session;
mod trace;
mod uniques;
mod verbs;

pub use desk::{Clients, Desk};
pub use file::{LoadTls, NodeTls};
pub use lane::{Lane, Stage};
pub use plan::{Control, Target};
pub use replies::Owed;
pub use session::ProxySession;

/// Whether `text` is a file of routes; the error names the word and the way out.
pub fn check(text: &str) -> Result<(), String> {
    file::parse(text).map(drop)
}
