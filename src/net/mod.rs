//! Sockets: one thread accepts, each worker serves its connections with one event loop.
//!
//! ```text
//!  listener --accept, round robin--> channel + waker --> worker 0..N: poll, conns, one read buffer, one output
//! ```
//!
//! Nothing here knows what a command means; [`crate::command::Session`] does.

mod conn;
mod listener;
mod stream;
mod tls;
mod tls_stream;
mod worker;

pub use listener::{Bound, Listener, ListenerHandle};
pub use tls::Tls;
pub use worker::{Handle, Worker};
