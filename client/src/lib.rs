//! Many memcached servers as one cache: Ketama placement, copies on several nodes, failover.
//!
//! ```no_run
//! use std::time::Duration;
//! use ketch_client::{Client, ClientOptions, Node};
//!
//! let nodes = Node::list("cache1:11211,cache2:11211,cache3:11211")?;
//! let client = Client::new(nodes, ClientOptions::default().copies(2));
//! client.set("greeting", "hello", Duration::from_secs(60))?;
//! if let Some(item) = client.get("greeting")? {
//!     assert_eq!(&item.value[..], b"hello");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Runnable: `cache_aside`, `three_nodes_two_copies` and `growing_a_ring` in `client/examples/`.
#![forbid(unsafe_code)]

pub mod blocking;
pub mod continuum;
mod core;
mod error;
mod node;
pub mod topology;
mod value;

pub use blocking::Client;
pub use core::calls::{PerNode, Stat};
pub use core::options::{Ack, COPIES_MAX, ClientOptions, OnEjection, Reads};
pub use error::{Error, Failure, KeyFault, Result};
pub use node::{Node, NodeError};
pub use value::{Cas, CasUnique, Item, Value};
