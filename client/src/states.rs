//! How the nodes stand with a client: as a value, and as events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ketch_client_macros::both;

use crate::Client;
use crate::core::health::Standing;
use crate::core::options::ClientOptions;
use crate::error::Failure;
use crate::front::Front;
use crate::metrics::{Loaded, Metrics, Op};
use crate::snapshot::NodePool;

#[cfg(feature = "tokio")]
use crate::AsyncClient;

/// How a node stands with this client. Other clients may see it otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeState {
    /// It is asked.
    Live,
    /// It came back a short while ago: it is written to, and read last.
    Settling,
    /// It failed too often: it is probed, and not asked.
    Ejected,
}

/// What happened to a node, by its name, `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// It failed too often: others stand in for it.
    Ejected(Arc<str>),
    /// It answers again.
    Returned(Arc<str>),
}

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

/// Is told what happens to nodes.
#[derive(Clone)]
pub(crate) struct Observer(pub(crate) Arc<dyn Fn(NodeEvent) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// Tells an observer what the client tells its metrics of nodes.
#[derive(Debug)]
struct Observed {
    observer: Observer,
    metrics: Option<Arc<dyn Metrics>>,
}

/// The options with their observer, if they have one, among the metrics.
pub(crate) fn observed(mut options: ClientOptions) -> ClientOptions {
    if let Some(observer) = options.observer.take() {
        let metrics = options.metrics.take();
        options.metrics = Some(Arc::new(Observed { observer, metrics }));
    }
    options
}

impl Observed {
    fn metrics(&self, tell: impl FnOnce(&dyn Metrics)) {
        if let Some(metrics) = &self.metrics {
            tell(&**metrics);
        }
    }
}

impl Metrics for Observed {
    fn request(&self, node: &str, op: Op, outcome: Result<(), Failure>, latency: Duration) {
        self.metrics(|metrics| metrics.request(node, op, outcome, latency));
    }

    fn looked_up(&self, hits: u64, misses: u64) {
        self.metrics(|metrics| metrics.looked_up(hits, misses));
    }

    fn looked_up_near(&self, hits: u64, misses: u64) {
        self.metrics(|metrics| metrics.looked_up_near(hits, misses));
    }

    fn ejected(&self, node: &str) {
        self.metrics(|metrics| metrics.ejected(node));
        (self.observer.0)(NodeEvent::Ejected(node.into()));
    }

    fn returned(&self, node: &str) {
        self.metrics(|metrics| metrics.returned(node));
        (self.observer.0)(NodeEvent::Returned(node.into()));
    }

    fn loaded(&self, how: Loaded, took: Duration) {
        self.metrics(|metrics| metrics.loaded(how, took));
    }
}
