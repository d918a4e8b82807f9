//! How the nodes stand with a client, as a value; observe.rs has it as events.

use std::sync::Arc;

use ketch_client_macros::both;

use crate::Client;
use crate::front::Front;
use crate::snapshot::NodePool;
use client_core::health::Standing;
use client_core::states::NodeState;

#[cfg(feature = "tokio")]
use crate::AsyncClient;

#[both]
impl AsyncClient {
    /// The nodes by their names, and how each stands with this client.
    ///
    /// ```example
    /// use ketch_client::NodeState;
    ///
    /// for (node, state) in client.node_states() {
    ///     assert_eq!(state, NodeState::Live, "{node}");
    /// }
    /// ```
    pub fn node_states(&self) -> Vec<(Arc<str>, NodeState)> {
        let (snapshot, now) = (self.shared().snapshot(), self.now());
        let members = snapshot.pools.iter().map(|pool| pool.member());
        let states = members.map(|member| {
            let state = match member.standing(now) {
                Standing::Live => NodeState::Live,
                Standing::Settling => NodeState::Settling,
                Standing::Ejected => NodeState::Ejected,
            };
            (member.name.clone(), state)
        });
        states.collect()
    }
}
