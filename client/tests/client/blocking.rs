//! The blocking client: what is tested of both fronts.

use ketch_client::Client;

#[path = "fronts/mod.rs"]
mod fronts;
