//! The nodes: which they are, and what is done to all of them.

use std::time::Duration;

use ketch_client_macros::both;

use crate::Client;
use crate::front::{Front, OnDrop};
use client_core::calls::{self, PerNode, Stat};
use client_core::node::Node;

#[cfg(feature = "tokio")]
use crate::AsyncClient;
#[both]
impl AsyncClient {
    /// The nodes as they were given last.
    pub fn nodes(&self) -> Vec<Node> {
        self.shared().snapshot().nodes.clone()
    }

    /// Changes the nodes while operations go on. For `dual_read`, what the nodes that own a key now do not have is looked
    /// for where it was before, and carried over with the time to live that is left. Nodes that stay keep connections
    /// and standing.
    pub fn set_nodes(&self, nodes: impl IntoIterator<Item = Node>, dual_read: Duration) {
        let nodes: Vec<Node> = nodes.into_iter().collect();
        self.shared().set_nodes(&nodes, dual_read, self.now());
    }

    /// Empties every node.
    ///
    /// ```example
    /// client.set("k", "v", 60).await?;
    /// assert!(client.flush_all().await.iter().all(|(_node, flushed)| flushed.is_ok()));
    /// assert_eq!(client.get("k").await?, None);
    /// ```
    #[must_use = "each node has a result of its own"]
    pub async fn flush_all(&self) -> PerNode<()> {
        self.flush_all_after(Duration::ZERO).await
    }

    /// Tells every node to forget, when `delay` is over, what it has by then; another flush meanwhile takes the place of this
    /// one. Nodes count whole seconds. Where a placement before a change is still asked, its nodes are told too.
    #[must_use = "each node has a result of its own"]
    pub async fn flush_all_after(&self, delay: Duration) -> PerNode<()> {
        let _forget = OnDrop(|| self.values().flushed());
        self.call(|context| calls::flush_all(context, delay)).await
    }

    /// The version of every node.
    ///
    /// ```example
    /// for (node, version) in client.version().await {
    ///     println!("{node} is {}", version?);
    /// }
    /// ```
    pub async fn version(&self) -> PerNode<String> {
        self.call(calls::version).await
    }

    /// The statistics of every node: of `group` (`items`, `slabs`, `settings`, ..), or the general ones if it is empty.
    ///
    /// ```example
    /// for (node, stats) in client.stats("").await {
    ///     let items = stats?.into_iter().find(|(name, _)| name == "curr_items");
    ///     println!("{node} has {items:?}");
    /// }
    /// ```
    pub async fn stats(&self, group: &str) -> PerNode<Vec<Stat>> {
        self.call(|context| calls::stats(context, group)).await
    }

    /// Connects to every node, so that the first callers need not. Tells which cannot be reached.
    ///
    /// ```example
    /// for (node, reached) in client.warm_up().await {
    ///     if let Err(error) = reached {
    ///         eprintln!("{node}: {error}");
    ///     }
    /// }
    /// ```
    pub async fn warm_up(&self) -> PerNode<()> {
        let versions = self.call(calls::version).await;
        let reached = versions.into_iter();
        reached
            .map(|(node, version)| (node, version.map(|_| ())))
            .collect()
    }

    /// Closes all connections once what is under way is done, for every clone of the client. Calls after it have
    /// [`Error::NoNode`](crate::Error::NoNode), and a source of nodes is no longer followed.
    ///
    /// ```example
    /// client.close();
    /// assert_eq!(client.get("k").await, Err(ketch_client::Error::NoNode));
    /// ```
    pub fn close(&self) {
        self.shared().close(self.now());
    }
}
