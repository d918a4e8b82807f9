//! Sockets: one thread accepts, each worker serves its connections with one event loop.
//!
//! ```text
//!  listener --accept, round robin--> channel + waker --> worker 0..N: poll, conns, one read buffer, one output
//!                                                            |   its own UDP sockets, if there are any
//!                                                            `-- watch: handed over --> watchers
//! ```
//!
//! Nothing here knows what a command means; [`crate::command::Session`] does, or in a proxy [`crate::proxy::ProxySession`], whose
//! connections to nodes are on the same poll (upstream.rs).

mod bind;
mod carried;
mod ciphers;
mod client_cert;
mod conn;
mod conversation;
mod handles;
mod listener;
mod node_tls;
mod peers;
mod slots;
mod stream;

mod tls;
mod tls_files;
mod tls_stream;
mod udp;
mod upstream;
mod watchers;
mod worker;
mod x509;

pub(crate) use bind::take;
pub use bind::{Bound, Sockets};
pub use carried::{Carried, Left};
pub use handles::{Handle, ListenerHandle};
pub use listener::Listener;
pub(crate) use node_tls::load as load_node_tls;
pub(crate) use stream::Stream;
pub use tls::Tls;
pub use watchers::{Watchers, WatchersHandle};
pub use worker::Worker;

use std::io::Write;

use crate::state::Shared;

/// Tells of a socket in the words that memcached has for it with `-vv`: fixtures of tests wait for them on standard error.
fn tell_listening(shared: &Shared, fd: i32, what: &str) {
    /// `-vv`.
    const TELLS: u8 = 2;
    if shared.settings.verbosity >= TELLS {
        // Whoever does not listen to standard error need not hear it.
        let _ = writeln!(std::io::stderr(), "<{fd} server listening ({what})");
    }
}
