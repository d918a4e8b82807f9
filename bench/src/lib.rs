//! ketch-bench: load for servers that speak memcached's protocols, and what they answer, checked.
//!
//! ```text
//! options -> Plan -> run: threads of Conn (socket, Checker) -> Outcome -> report, html
//!                     |
//!                     workload (bytes of a batch) <- dialect (one command) <- dataset (keys, values), zipf, sizes
//! ```
//!
//! `run` is the load itself; `fill`, `replay` and `idle` measure memory and hits; `floor` is the
//! other side, a server that does nothing. Keys and values follow from numbers, so that every reply
//! can be checked without remembering anything.

#![forbid(unsafe_code)]

pub mod check;
pub mod conn;
pub mod dataset;
pub mod dialect;
pub mod fill;
pub mod floor;
pub mod html;
pub mod idle;
pub mod json;
pub mod latency;
pub mod options;
pub mod process;
pub mod replay;
pub mod report;
pub mod rng;
pub mod run;
pub mod sizes;
pub mod workload;
pub mod zipf;
