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
//! Cache-aside, where all callers that miss compute the value:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use ketch_client::{Client, Item};
//! # fn render(page: u32) -> Result<String, std::io::Error> { Ok(String::new()) }
//! # fn example(client: Client) -> Result<Item, Box<dyn std::error::Error>> {
//! if let Some(item) = client.get("page:1")? {
//!     return Ok(item);
//! }
//! let item = Item::from(render(1)?);
//! client.set("page:1", &item, Duration::from_secs(60))?;
//! # Ok(item)
//! # }
//! ```
//!
//! Read-through, where one does, and the others wait for it or use the old value (see [`load`]):
//!
//! ```no_run
//! # use std::time::Duration;
//! # use ketch_client::{Client, Item};
//! # fn render(page: u32) -> Result<String, std::io::Error> { Ok(String::new()) }
//! # fn example(client: Client) -> Result<Option<Item>, Box<dyn std::error::Error>> {
//! let page = client.get_or_load("page:1", Duration::from_secs(60), || render(1).map(Some))?;
//! # Ok(page)
//! # }
//! ```
//!
//! Growing: the nodes change while operations go on, and for a minute what the new owners miss is carried over from the
//! old ones:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use ketch_client::{Client, Node};
//! # fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let nodes = Node::list("cache1:11211,cache2:11211,cache3:11211,cache4:11211")?;
//! client.set_nodes(nodes, Duration::from_secs(60));
//! # Ok(())
//! # }
//! ```
//!
//! All of it is there for tokio too, as `AsyncClient` (feature `tokio`).
//!
//! Runnable: `cache_aside`, `three_nodes_two_copies` and `growing_a_ring` in `client/examples/`; `cache_aside_async` and
//! `read_through_async` for tokio.
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

/// The examples of README.md, which are compiled as those of the crate are.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod away;
pub mod blocking;
pub mod codec;
pub mod feed;
mod front;
mod keys;
mod limit;
pub mod load;
mod loads;
mod lock;
mod meta;
mod methods;
pub mod metrics;
pub mod near;
mod observe;
mod packed;
mod reads;
mod resolve;
mod shared;
mod snapshot;
#[cfg(feature = "tracing")]
mod span;
mod states;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tokio")]
pub mod tokio;
pub mod topology;
mod typed;
mod update;
mod values;
mod warm;
pub mod write;

#[cfg(feature = "tokio")]
pub use self::tokio::AsyncClient;
pub use away::RemoteMarker;
pub use blocking::Client;
pub use client_core::calls::{PerNode, Stat};
#[cfg(feature = "lz4")]
pub use client_core::compression;
#[cfg(feature = "serde")]
pub use client_core::config;
pub use client_core::continuum;
pub use client_core::error::{Error, Failure, KeyFault, Result, SignInError};
pub use client_core::meta::{MetaOutcome, MetaReply, MetaRequest};
pub use client_core::node::{IntoNodes, Node, NodeError};
pub use client_core::options::{Ack, COPIES_MAX, ClientOptions, OnEjection, Reads};
pub use client_core::states::{NodeEvent, NodeState};
pub use client_core::ttl::Ttl;
pub use client_core::value::{Cas, CasUnique, Item, Value};
pub use limit::{Allowance, RateLimit};
pub use lock::Lock;
#[cfg(feature = "tokio")]
pub use stream::AsyncGetStream;
pub use stream::GetStream;
pub use typed::Typed;
pub use warm::{WarmOptions, Warmed};
