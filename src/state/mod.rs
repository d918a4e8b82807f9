//! What the server is: its store, its clock, its counters, its connections, and the view of them that one wakeup of a worker
//! works with ([`Ctx`]).
//!
//! Nothing here knows what a command means or how it is answered.

mod budget;
mod carried;
mod cluster;
mod connections;
mod dump_places;
mod hold;
mod proxying;
mod record;
mod saving;
mod seen;
mod shared;
mod watcher;

pub use budget::Budget;
pub use carried::{Carried, Figure};
pub use cluster::{CONFIG_LEN_MAX, ClusterConfig, NodeList, Place, PlaceOrder};
pub use connections::{ConnCounts, ConnId, ConnInfo, ConnNumbers, ConnState, Kept, Registry};
pub use dump_places::{DUMP_PLACES, DumpPlace, DumpPlaces};
pub use hold::Hold;
pub use proxying::Proxying;
pub use record::{COLUMNS, Record, Row};
pub use saving::{LogReport, NotBegun, Saving, SavingReport};
pub use seen::{Outcome, Seen, Verb};
pub use shared::{Certs, Ctx, Settle, Shared, StopMode};
pub use watcher::Watcher;
