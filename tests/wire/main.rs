//! The server seen from a socket: bytes in, bytes out. One module a family of commands or a side of the server.
//!
//! `KETCH_SERVER=/usr/bin/memcached cargo test --test wire storage::` aims a family at an original memcached;
//! `KETCH_TEST_TLS=1` puts TLS under it. What the modules share is the crate `ketch-testing`.

mod admin;
mod arithmetic;
mod auth;
mod binary;
mod bodies;
mod clock;
mod concurrency;
mod config;
mod connections;
mod differential;
mod differential_binary;
mod discovery;
mod errors;
mod faults;
mod heirs;
mod histories;
mod http;
mod limits;
mod membership;
mod memory;
mod meta;
mod options;
mod proxy;
mod proxy_crowd;
mod proxy_login;
mod proxy_routes;
mod proxy_uniques;
#[cfg(target_os = "linux")]
mod puppet;
mod restart;
mod retrieval;
mod robustness;
mod signals;
mod snapshot;
mod start_lines;
mod stats;
mod storage;
#[cfg(target_os = "linux")]
mod takeover;
mod tls;
mod touch_expiry;
mod udp;
mod watch;
