//! What the server is: its store, its clock, its counters, its connections, and the view of them that one wakeup of a worker
//! works with ([`Ctx`]).
//!
//! Nothing here knows what a command means or how it is answered.

mod budget;
mod cluster;
mod connections;
mod dump_places;
mod hold;
mod record;
mod seen;
mod shared;
mod watcher;

pub use budget::Budget;
pub use cluster::{CONFIG_LEN_MAX, ClusterConfig, NodeList};
pub use connections::{ConnCounts, ConnId, ConnInfo, ConnNumbers, ConnState, Kept, Registry};
pub use dump_places::{DUMP_PLACES, DumpPlace, DumpPlaces};
pub use hold::Hold;
pub use record::{COLUMNS, Record, Row};
pub use seen::{Outcome, Seen, Verb};
pub use shared::{Certs, Ctx, Shared, StopMode};
pub use watcher::Watcher;
