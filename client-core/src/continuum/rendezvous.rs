//! Rendezvous hashing (Thaler and Ravishankar, 1998), as pymemcache has it: every node draws a score for the key, and the highest
//! owns it. What moves when the list changes is what the new node wins, or the old one had.
//!
//! Costs: a hash of label and key for each node, so it is for short lists; a walk keeps the scores of all nodes.

use std::cmp::Reverse;

use super::hash::murmur3_32;
use crate::node::Node;

/// The labels of the nodes, `host:port-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rendezvous {
    labels: Box<[Box<str>]>,
}

impl Rendezvous {
    pub fn new(nodes: &[Node]) -> Self {
        let labels = nodes.iter().map(|node| format!("{}-", node.label()).into());
        Rendezvous {
            labels: labels.collect(),
        }
    }

    /// The node with the highest score; of equal scores the label that is last in the alphabet.
    pub fn locate(&self, key: &[u8]) -> Option<usize> {
        (0..self.labels.len()).max_by_key(|&node| self.rank(node, key))
    }

    /// All nodes, the highest score first.
    pub fn walk(&self, key: &[u8]) -> std::vec::IntoIter<usize> {
        let mut nodes: Vec<usize> = (0..self.labels.len()).collect();
        nodes.sort_by_cached_key(|&node| Reverse(self.rank(node, key)));
        nodes.into_iter()
    }

    /// A server that stands in the list twice has the same score twice: then the earlier one owns.
    fn rank(&self, node: usize, key: &[u8]) -> (u32, &str, Reverse<usize>) {
        let label = &self.labels[node];
        let hash = match std::str::from_utf8(key) {
            // pymemcache hashes the characters of a text, each by its lowest eight bits.
            Ok(text) if !text.is_ascii() => {
                murmur3_32(label.bytes().chain(text.chars().map(|c| c as u32 as u8)))
            }
            _ => murmur3_32(label.bytes().chain(key.iter().copied())),
        };
        (hash, label, Reverse(node))
    }
}
