//! Starts a server for a test and speaks bytes to it.
//!
//! ```text
//!  Server::start(args) ---- process, port file, stderr file in a directory of its own
//!     |  connect()
//!  Conn ------------------- send / expect / expect_like / closed, every read with a deadline
//!     |
//!  run_vectors ------------ one table of (request, reply): whole, cut at each byte, byte by byte, all in one write
//! ```
//!
//! The server is `ketch` as cargo built it, or the program named by `KETCH_TEST_SERVER`: the tests know nothing but
//! bytes, so they can be aimed at a reference memcached and must hold there as well. Where the reference at hand is
//! older than the rules, or where ketch keeps a rule which it breaks, the vector is a [`newer`] one and says why.
//!
//! `KETCH_TEST_TLS=1` puts TLS under every TCP connection that `Server` makes.
//!
//! A read that takes longer than [`PATIENCE`] is a failure, never a pass.

// Each file under tests/ is a crate of its own and uses a part of this one.
#![allow(dead_code, unused_imports)]

mod conn;
pub mod packet;
mod rng;
mod server;
pub mod tls;
mod vectors;

pub use conn::{Conn, escape};
pub use rng::Rng;
pub use server::{Server, allow_files, binary, is_ketch, wait_until};
pub use vectors::{Vector, both, newer, run_vectors};

use std::time::Duration;

/// How long a read waits for the server before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long a server may take from its start to its first answer.
pub const START_PATIENCE: Duration = Duration::from_secs(20);
