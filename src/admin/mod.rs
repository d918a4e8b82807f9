//! HTTP for operators: metrics, health, the figures of `stats` as JSON, a page that shows them, and keys for curl.
//!
//! ```text
//!  --http --> Bound (as root, where there is a root) --> one thread: server.rs, a poll over sockets of its own
//!    conn.rs     bytes --(ketch-http)--> request --(routes.rs)--> response --> bytes
//!    routes.rs   which path is whose, who may       keys.rs     get, set and delete over the store
//!    figures.rs  what `stats` says --+--> metrics.rs, in Prometheus' text (prometheus.rs)
//!    insight.rs  what keyspace knows-+--> json.rs, which page.html draws
//! ```
//!
//! Ad1. Nothing here runs on a worker, and no worker waits for it: what it needs of the cache it takes as any client does,
//!      one key's stripe or one class's list at a time, and what workers share with it they only try to lock.
//! Ad2. What peers can make it hold is bounded: so many connections, so many bytes of requests and replies, so many seconds.
//!      Of connections too many, those that were quiet for longest end.

mod conn;
mod figures;
mod insight;
mod json;
mod keys;
mod metrics;
mod prometheus;
mod routes;
mod server;

pub use server::Admin;
