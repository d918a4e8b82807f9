//! How the nodes stand with a client: as a value, and as events.

use std::fmt;
use std::sync::Arc;

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

/// Is told what happens to nodes.
#[derive(Clone)]
#[doc(hidden)]
pub struct Observer(pub Arc<dyn Fn(NodeEvent) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
