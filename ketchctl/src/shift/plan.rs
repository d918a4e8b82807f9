//! Which keys move, from where, and where to.

use std::time::Instant;

use client_core::routing::Ring;
use ketch_client::{ClientOptions, Node};

/// Two placements of keys over the same nodes.
#[derive(Debug)]
pub struct Plan {
    /// All of both placements.
    pub nodes: Vec<Node>,
    /// Those that may have keys that move.
    pub sources: Vec<usize>,
    before: Placed,
    after: Placed,
    options: ClientOptions,
}

/// A ring, and the place of each of its nodes in the plan.
#[derive(Debug)]
struct Placed {
    ring: Ring,
    places: Vec<usize>,
}

impl Plan {
    /// From `before` to `after`; of the nodes before, `sources` alone have keys that move.
    pub fn new(before: &[Node], after: &[Node], sources: &[Node], options: &ClientOptions) -> Plan {
        let mut nodes: Vec<Node> = before.to_vec();
        let is_there = |nodes: &[Node], node: &Node| nodes.iter().any(|one| same(one, node));
        for node in after {
            if !is_there(&nodes, node) {
                nodes.push(node.clone());
            }
        }
        let place = |node: &Node| {
            let at = nodes.iter().position(|one| same(one, node));
            at.expect("all of both are there")
        };
        let placed = |list: &[Node]| Placed {
            ring: Ring::new(list, options, 0),
            places: list.iter().map(place).collect(),
        };
        Plan {
            before: placed(before),
            after: placed(after),
            sources: sources.iter().map(place).collect(),
            nodes,
            options: options.clone(),
        }
    }

    /// Where a key lives before and after.
    fn owners(&self, placed: &Placed, key: &[u8]) -> Vec<usize> {
        let owners = placed.ring.writers(key, Instant::now(), &self.options);
        owners.iter().map(|node| placed.places[node]).collect()
    }

    /// The nodes that are to get `key` from `source`; none if it does not move, or another has it to give.
    pub fn targets(&self, source: usize, key: &[u8]) -> Vec<usize> {
        let before = self.owners(&self.before, key);
        if before.first() != Some(&source) {
            return Vec::new();
        }
        let mut after = self.owners(&self.after, key);
        after.retain(|node| !before.contains(node));
        after
    }

    /// The node that has `key` to give; `None` if it is none of the sources.
    pub fn source(&self, key: &[u8]) -> Option<usize> {
        let first = *self.owners(&self.before, key).first()?;
        self.sources.contains(&first).then_some(first)
    }

    /// True if the key's place at `source` is no place of it any more.
    pub fn leaves(&self, source: usize, key: &[u8]) -> bool {
        !self.owners(&self.after, key).contains(&source)
    }

    /// The nodes whose keys may move.
    pub fn source_nodes(&self) -> Vec<Node> {
        self.sources
            .iter()
            .map(|&at| self.nodes[at].clone())
            .collect()
    }

    /// They, in words.
    pub fn sources_named(&self) -> String {
        match &self.sources[..] {
            [one] => name(&self.nodes[*one]),
            all => format!("{} nodes", all.len()),
        }
    }
}

/// Whether two lists mean the same node: by its name and its address.
pub fn same(a: &Node, b: &Node) -> bool {
    a.name == b.name && a.address() == b.address()
}

/// What people call a node.
pub fn name(node: &Node) -> String {
    node.name.clone().unwrap_or_else(|| node.address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_and_where_to() {
        let nodes = Node::list("a,b,c,d").unwrap();
        for copies in 1..=2 {
            let options = ClientOptions::default().copies(copies);
            let grow = Plan::new(&nodes[..3], &nodes, &nodes[..3], &options);
            let shrink = Plan::new(&nodes, &nodes[..3], &nodes, &options);
            let mut moved = 0;
            for n in 0..1000 {
                let key = format!("key:{n}").into_bytes();
                let given: Vec<(usize, Vec<usize>)> = (0..3)
                    .map(|source| (source, grow.targets(source, &key)))
                    .filter(|(_, targets)| !targets.is_empty())
                    .collect();
                assert!(given.len() <= 1, "one gives it: {given:?}");
                for (_, targets) in &given {
                    assert_eq!(targets, &[3]);
                    moved += 1;
                }
                let back: usize = (0..4)
                    .map(|source| shrink.targets(source, &key).len())
                    .sum();
                assert_eq!(back, given.len(), "as many go away again");
            }
            let share = f64::from(moved) / 1000.0;
            let fair = copies as f64 / 4.0;
            assert!((share - fair).abs() < 0.1, "{share} of {fair}");
        }
    }
}
