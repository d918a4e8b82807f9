//! Many memcached servers as one cache: Ketama placement, copies on several nodes, failover.
#![forbid(unsafe_code)]

pub mod continuum;
mod node;
pub mod topology;

pub use node::{Node, NodeError};
