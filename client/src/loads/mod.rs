//! What a client remembers for its loads (see [`load`](crate::load)): how long they take, which are under way, and which it has the right to.

mod costs;
pub(crate) mod flights;
pub(crate) mod wins;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use costs::Costs;
use flights::Flights;
use wins::Wins;

/// What a client remembers for its loads.
pub(crate) struct Loads {
    pub(crate) costs: Costs,
    pub(crate) flights: Flights,
    pub(crate) wins: Wins,
    /// Loads behind their callers.
    pub(crate) refreshes: Arc<AtomicUsize>,
}

impl Loads {
    pub(crate) fn new() -> Self {
        Loads {
            costs: Costs::new(),
            flights: Flights::default(),
            wins: Wins::default(),
            refreshes: Arc::default(),
        }
    }
}
