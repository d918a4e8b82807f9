//! The async client: what is tested of both fronts.

use crate::waiting::Client;

#[path = "fronts/mod.rs"]
mod fronts;
