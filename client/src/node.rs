//! A server of the cluster, as the user names it.

/// One server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// The host as the user wrote it: placement uses this text, neither resolved nor lower-cased.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Share of the keys relative to the other nodes; 1 unless said otherwise.
    pub weight: u32,
    /// Where the node stands (rack, availability zone): copies go to different zones where there are several.
    pub zone: Option<String>,
}
