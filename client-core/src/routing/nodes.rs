//! A few nodes, in an order.

use crate::options::COPIES_MAX;

/// A few nodes, by index in the ring: the copies of a key, and as many of the placement before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nodes {
    len: u8,
    nodes: [u16; NODES_MAX],
}

pub(super) const NODES_MAX: usize = 2 * COPIES_MAX;

impl Nodes {
    pub(super) fn one(node: usize) -> Self {
        let mut one = Nodes::default();
        one.push(node);
        one
    }

    /// These, in their order.
    pub fn of(nodes: impl IntoIterator<Item = usize>) -> Self {
        let mut all = Nodes::default();
        nodes.into_iter().for_each(|node| all.push(node));
        all
    }

    /// One more, behind the others.
    pub fn push(&mut self, node: usize) {
        if self.len() < NODES_MAX {
            self.nodes[self.len()] = node as u16;
            self.len += 1;
        }
    }

    /// Those of `others` that are not here yet, nor among `but`.
    pub(super) fn add_all(&mut self, others: &Nodes, but: &Nodes) {
        for node in others.iter() {
            if !but.contains(node) && !self.contains(node) {
                self.push(node);
            }
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `node` is among them.
    pub fn contains(&self, node: usize) -> bool {
        self.iter().any(|one| one == node)
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.nodes[..self.len()]
            .iter()
            .map(|&node| usize::from(node))
    }

    /// The first in order.
    pub fn first(&self) -> Option<usize> {
        self.iter().next()
    }

    pub(super) fn insert(&mut self, at: usize, node: usize) {
        self.push(node);
        self.nodes[at..usize::from(self.len)].rotate_right(1);
    }

    /// Those with the smallest keys first, the others in their order behind them.
    pub(super) fn sorted_by_key<K: Ord>(mut self, key: impl Fn(usize) -> K) -> Self {
        self.nodes[..usize::from(self.len)].sort_by_key(|&node| key(usize::from(node)));
        self
    }

    /// The first becomes that at `by`, and those before it follow behind the others.
    pub(super) fn rotate(&mut self, by: usize) {
        let len = self.len();
        self.nodes[..len].rotate_left(by);
    }

    /// All but `other`.
    pub fn without(&self, other: usize) -> Nodes {
        let mut rest = Nodes::default();
        let others = self.iter().filter(|&node| node != other);
        others.for_each(|node| rest.push(node));
        rest
    }

    /// The first that is not in `others`.
    pub fn first_beside(&self, others: &Nodes) -> Option<usize> {
        self.iter().find(|&node| !others.contains(node))
    }
}
