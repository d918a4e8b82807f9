//! What the tests, benchmarks and examples of the workspace share.
//!
//! ```text
//!  program ------------------ which binaries: ketch of this workspace, the server under test, the original memcached
//!     |
//!  Server::start(args) ------ process, port file, stderr file in a directory of its own
//!  Kind::start() ------------ the same, of ketch or of the original, for the client's tests
//!     |  connect()
//!  Conn --------------------- send / expect / expect_like / closed, every read with a deadline
//!     |
//!  run_vectors -------------- one table of (request, reply): whole, cut at each byte, byte by byte, all in one write
//!
//!  Rng ---------------------- random numbers from a printed seed
//!  linear::is_linear -------- whether what several connections saw of one key is one story
//! ```
//!
//! These variables change what the tests do:
//!
//! | | |
//! | --- | --- |
//! | `KETCH_SERVER` | the server under test, in place of the `ketch` that cargo built: a path to another ketch, or to a memcached |
//! | `KETCH_MEMCACHED` | the original that tests compare with, in place of the `memcached` in `PATH` |
//! | `KETCH_SEED` | the seed of every random test: a failure prints the seed to repeat it with |
//! | `KETCH_LONG` | the long forms of random tests ([`rounds`]) |
//! | `KETCH_TEST_TLS` | puts TLS under every TCP connection that [`Server`] makes |
//!
//! The wire tests know nothing but bytes, so they can be aimed at an original memcached, and hold there as well. Where
//! an older original does not know a rule yet, the vector is a [`newer`] one; where ketch keeps a rule that memcached
//! breaks, it is [`ours`]. Both say why. The server is asked for its version, so a `newer` vector runs against an
//! original that is new enough.
//!
//! A read that takes longer than [`PATIENCE`] is a failure, never a pass.

mod conn;
mod etcd;
pub mod linear;
pub mod packet;
mod port;
mod program;
mod rng;
mod server;
mod standin;
pub mod tls;
pub mod udp;
mod vectors;
mod waiting;

pub use conn::{Conn, escape};
pub use etcd::Etcd;
pub use port::{free_port, nobody, quiet_port};
pub use program::{KINDS, Kind, Version, binary, is_ketch, ketch, memcached, version_of};
pub use rng::{Rng, rounds};
pub use server::{Server, allow_files};
pub use standin::{Consul, Kubernetes};
pub use vectors::{Vector, both, newer, ours, run_vectors};
pub use waiting::{wait_until, wait_within};

use std::time::Duration;

/// How long a read waits for the server before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long a server may take from its start to its first answer.
pub const START_PATIENCE: Duration = Duration::from_secs(20);
