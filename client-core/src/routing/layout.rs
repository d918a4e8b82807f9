//! A placement, in the indices of a ring.

use std::sync::Arc;

use super::nodes::Nodes;
use crate::continuum::Continuum;
use crate::health::Member;
use crate::node::Node;
use crate::options::ClientOptions;

/// Which nodes own a key.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    continuum: Continuum,
    /// From the continuum's index to the ring's.
    pub(super) members: Vec<u16>,
    zoned: bool,
}

impl Layout {
    pub(super) fn new(nodes: &[Node], members: Vec<u16>, options: &ClientOptions) -> Self {
        Layout {
            continuum: Continuum::new(options.placement, nodes),
            members,
            zoned: nodes.iter().any(|node| node.zone.is_some()),
        }
    }

    pub(super) fn owner(&self, key: &[u8]) -> Option<usize> {
        let index = self.continuum.locate(key)?;
        Some(usize::from(self.members[index]))
    }

    /// The owners of `keys`, in their order.
    pub(super) fn owners(&self, keys: &[&[u8]], mut each: impl FnMut(usize)) {
        self.continuum
            .locate_each(keys, |index| each(usize::from(self.members[index])));
    }

    pub(super) fn walk(&self, key: &[u8]) -> impl Iterator<Item = usize> {
        self.continuum
            .walk(key)
            .map(|index| usize::from(self.members[index]))
    }

    /// The first `copies` nodes for which `fit` holds, in different zones as far as there are such.
    pub(super) fn copies(
        &self,
        key: &[u8],
        copies: usize,
        members: &[Arc<Member>],
        fit: impl Fn(usize) -> bool,
    ) -> Nodes {
        let mut chosen = Nodes::default();
        if copies == 1
            && let Some(owner) = self.owner(key)
            && fit(owner)
        {
            return Nodes::one(owner);
        }
        if self.zoned && copies > 1 {
            for node in self.walk(key).filter(|&node| fit(node)) {
                let zone = &members[node].node.zone;
                if chosen.contains(node) {
                    continue;
                }
                if zone.is_none() || !chosen.iter().any(|other| members[other].node.zone == *zone) {
                    chosen.push(node);
                }
                if chosen.len() == copies {
                    return chosen;
                }
            }
        }
        for node in self.walk(key).filter(|&node| fit(node)) {
            if chosen.len() >= copies {
                break;
            }
            if !chosen.contains(node) {
                chosen.push(node);
            }
        }
        chosen
    }
}
