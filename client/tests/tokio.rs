//! The async client: what is tested of both fronts.

mod support;
#[path = "support/waiting.rs"]
mod waiting;

#[path = "fronts/copies.rs"]
mod copies;
#[path = "fronts/faulty.rs"]
mod faulty;
#[path = "fronts/load.rs"]
mod load;
#[path = "fronts/locks.rs"]
mod locks;
#[path = "fronts/methods.rs"]
mod methods;
#[path = "fronts/one_copy.rs"]
mod one_copy;
#[path = "fronts/tls.rs"]
mod tls;
#[path = "fronts/trouble.rs"]
mod trouble;

use waiting::Client;
