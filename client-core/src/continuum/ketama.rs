//! The ring: points in a circle of 32-bit numbers; a key belongs to the first point at or behind its hash.
//!
//! ```text
//!   values  | 11510710 | 15710601 | 23181689 | 26902667 | ... |     sorted; the search touches nothing else
//!   owners  |        0 |        1 |        2 |        0 | ... |     node of the point with the same index
//!                          ^ hash 12000000 is here: node 1, then clockwise 2, 0
//!   starts  | 0 | 0 | 3 | ...       the first point whose value begins with the bits 00.., 01.., 10.. or comes later
//! ```
//!
//! Ke1. `values` is sorted, and equal values stand in the order of their nodes.
//! Ke2. Both lists have the same length; every owner is below the number of nodes.
//! Ke3. `owning` is the number of different nodes in `owners`: a walk that has found them all ends.
//!
//! Ke4. `starts` has more entries than there are points, so that a lookup passes about one point.
//!
//! Costs: 12 to 16 bytes a point, so some 2.2 KB a node; a lookup looks at one start and a point or two, without allocation. A walk
//! marks the nodes it has seen in a bitmap, which is on the stack for up to 128 nodes.

use super::hash::{md5_points_each, sha1_32};
use super::seen::Seen;
use crate::node::DEFAULT_PORT;
use crate::node::Node;

/// Points per node of mean weight on the weighted ring, four from each digest.
const POINTS_WEIGHTED: u32 = 160;
/// Points per node on the ring that knows no weights.
const POINTS_PLAIN: u32 = 100;

/// Sorted points and who owns them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ring {
    values: Box<[u32]>,
    owners: Box<[u32]>,
    starts: Box<[u32]>,
    nodes: usize,
    owning: usize,
}

impl Ring {
    /// The ring of `KETAMA_WEIGHTED`: for each digest of a node four points.
    pub fn weighted(nodes: &[Node], keep_port: bool) -> Self {
        let total = total_weight(nodes);
        Ring::by_md5(
            nodes,
            |node, n| label(node, n, keep_port),
            |node| digest_count(weight(node), total, nodes.len()),
        )
    }

    /// The same ring as spymemcached builds it: with labels of its own, and 40 digests a node wherever no node has a weight.
    pub fn spymemcached(nodes: &[Node]) -> Self {
        let total = total_weight(nodes);
        let has_weights = nodes.iter().any(|node| weight(node) != 1);
        Ring::by_md5(
            nodes,
            |node, n| format!("{}-{n}", node.java_label()),
            |node| {
                if has_weights {
                    digest_count(weight(node), total, nodes.len())
                } else {
                    POINTS_WEIGHTED / 4
                }
            },
        )
    }

    fn by_md5(
        nodes: &[Node],
        label: impl Fn(&Node, u32) -> String,
        digests: impl Fn(&Node) -> u32,
    ) -> Self {
        let mut points = Vec::with_capacity(nodes.len() * POINTS_WEIGHTED as usize);
        for (i, node) in nodes.iter().enumerate() {
            let labels: Vec<String> = (0..digests(node)).map(|n| label(node, n)).collect();
            let labels: Vec<&[u8]> = labels.iter().map(String::as_bytes).collect();
            md5_points_each(&labels, |four| points.extend(four.map(|value| (value, i))));
        }
        Ring::from_points(points.into_iter(), nodes.len())
    }

    /// dalli's ring: points of SHA-1, and a key belongs to the last point at or *before* its hash. Seen from behind it is a ring as
    /// the others: all its values, and the hashes that are looked for, are inverted ([`dalli_value`]).
    pub fn dalli(nodes: &[Node]) -> Self {
        let total = total_weight(nodes);
        let points = nodes.iter().enumerate().flat_map(|(i, node)| {
            let label = node.label();
            (0..dalli_count(weight(node), total, nodes.len())).map(move |n| {
                let value = sha1_32(format!("{label}:{n}").as_bytes());
                (dalli_value(value), i)
            })
        });
        Ring::from_points(points, nodes.len())
    }

    /// The ring of plain `KETAMA`: 100 labels a node, one point each. `hash` makes a point of a label.
    pub fn plain(nodes: &[Node], keep_port: bool, hash: fn(&[u8]) -> u32) -> Self {
        let points = nodes.iter().enumerate().flat_map(|(i, node)| {
            (0..POINTS_PLAIN).map(move |n| (hash(label(node, n, keep_port).as_bytes()), i))
        });
        Ring::from_points(points, nodes.len())
    }

    fn from_points(points: impl Iterator<Item = (u32, usize)>, nodes: usize) -> Self {
        let owner = |i| u32::try_from(i).expect("a list of nodes is shorter than 2^32");
        let mut points: Vec<(u32, u32)> = points.map(|(value, i)| (value, owner(i))).collect();
        points.sort_unstable();
        let mut seen = Seen::new(nodes);
        let owning = points
            .iter()
            .filter(|(_, owner)| seen.insert(*owner as usize));
        let owning = owning.count();
        let values: Box<[u32]> = points.iter().map(|(value, _)| *value).collect();
        Ring {
            starts: starts(&values),
            values,
            owners: points.iter().map(|(_, owner)| *owner).collect(),
            nodes,
            owning,
        }
    }

    /// The node of the first point at or behind `hash`, the first point of all behind the last one.
    pub fn locate(&self, hash: u32) -> Option<usize> {
        let at = self.search(hash);
        let owner = self.owners.get(at).or_else(|| self.owners.first());
        owner.map(|owner| *owner as usize)
    }

    /// The nodes that own points, each once, in the order in which their points come clockwise from `hash`.
    pub fn walk(&self, hash: u32) -> RingWalk<'_> {
        RingWalk {
            ring: self,
            at: self.search(hash),
            left: self.owning,
            seen: Seen::new(self.nodes),
        }
    }

    /// The points in ring order: value and node.
    pub fn points(&self) -> impl Iterator<Item = (u32, usize)> + '_ {
        self.values
            .iter()
            .zip(&self.owners)
            .map(|(value, owner)| (*value, *owner as usize))
    }

    fn search(&self, hash: u32) -> usize {
        let bits = self.starts.len().trailing_zeros();
        let place = (u64::from(hash) << bits >> u32::BITS) as usize;
        let start = self.starts[place] as usize;
        let next = self.starts.get(place + 1);
        let end = next.map_or(self.values.len(), |next| *next as usize);
        start + self.values[start..end].partition_point(|value| *value < hash)
    }
}

/// Where to begin to look for a hash, by its first bits (Ke4): a power of two of places.
fn starts(values: &[u32]) -> Box<[u32]> {
    let count = (values.len() + 1).next_power_of_two();
    let bits = count.trailing_zeros();
    let mut at = 0;
    let first = |start: usize| {
        let least = (start as u64) << (u32::BITS - bits);
        while values
            .get(at)
            .is_some_and(|value| u64::from(*value) < least)
        {
            at += 1;
        }
        at as u32
    };
    (0..count).map(first).collect()
}

/// See [`Ring::walk`].
#[derive(Debug, Clone)]
pub(super) struct RingWalk<'r> {
    ring: &'r Ring,
    at: usize,
    left: usize,
    seen: Seen,
}

impl Iterator for RingWalk<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        // By Ke3 a node not yet seen comes before the circle closes.
        loop {
            if self.at >= self.ring.owners.len() {
                self.at = 0;
            }
            let owner = self.ring.owners[self.at] as usize;
            self.at += 1;
            if self.seen.insert(owner) {
                self.left -= 1;
                return Some(owner);
            }
        }
    }
}

/// A value or hash of dalli's ring, as it stands in a [`Ring`]; and back.
pub(super) fn dalli_value(value: u32) -> u32 {
    !value
}

/// 0 counts as 1, as libmemcached has it.
fn weight(node: &Node) -> u32 {
    node.weight.max(1)
}

fn total_weight(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| u64::from(weight(node))).sum()
}

/// Points of a node on dalli's ring, in its 64-bit floats.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "dalli's arithmetic"
)]
fn dalli_count(weight: u32, total: u64, nodes: usize) -> u32 {
    let parts = nodes as u64 * u64::from(POINTS_WEIGHTED) * u64::from(weight);
    (parts as f64 / total as f64).floor() as u32
}

/// The text that is hashed for the `n`th digest or point of a node.
fn label(node: &Node, n: u32, keep_port: bool) -> String {
    if let Some(name) = &node.name {
        format!("{name}-{n}")
    } else if node.port == DEFAULT_PORT && !keep_port {
        format!("{}-{n}", node.host)
    } else {
        format!("{}:{}-{n}", node.host, node.port)
    }
}

/// Digests of a node of `weight` among `nodes` of weight `total` together, in libmemcached's 32-bit floats: another
/// rounding would give other rings. 40 for equal weights, but 39 for some lengths of the list (25, 47, 50..), where the floats
/// end just below 40; a node that is light among heavy ones can get none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "libmemcached's arithmetic, rounding included"
)]
fn digest_count(weight: u32, total: u64, nodes: usize) -> u32 {
    let share = weight as f32 / total as f32;
    let digests = share * POINTS_WEIGHTED as f32 / 4.0 * nodes as f32;
    ((f64::from(digests) + 1e-10) as f32).floor() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_a_node() {
        for (weight, total, nodes, digests) in [
            (1, 1, 1, 40),
            (1, 3, 3, 40),
            (1, 10, 10, 40),
            (3, 15, 5, 40),
            (1, 8, 3, 15),
            (2, 8, 3, 30),
            (5, 8, 3, 75),
            (1, 1001, 2, 0),
        ] {
            assert_eq!(
                digest_count(weight, total, nodes),
                digests,
                "{weight}/{total} of {nodes}"
            );
        }
        // Equal weights, by the length of the list: what libmemcached 1.1.4 has, up to the 100 servers it takes.
        let short = (1..=100).filter(|n| digest_count(1, *n as u64, *n) != 40);
        assert_eq!(short.collect::<Vec<_>>(), [25, 47, 50, 55, 61, 71, 94, 100]);
    }

    #[test]
    fn labels_drop_the_default_port_unless_kept() {
        let node = |text: &str| text.parse::<Node>().unwrap();
        assert_eq!(label(&node("192.0.2.31"), 0, false), "192.0.2.31-0");
        assert_eq!(label(&node("192.0.2.31"), 0, true), "192.0.2.31:11211-0");
        assert_eq!(
            label(&node("192.0.2.21:11212"), 39, false),
            "192.0.2.21:11212-39"
        );
        assert_eq!(label(&node("[::1]:11212"), 39, false), "::1:11212-39");
    }

    /// The plain search, one point after the other, is the oracle.
    #[test]
    fn locate_and_walk_agree_with_a_plain_search() {
        let points = [(10, 0), (10, 2), (20, 1), (30, 0), (40, 3), (50, 3)];
        let ring = Ring::from_points(points.into_iter(), 5);
        assert_eq!(ring.owning, 4);
        for hash in 0..60 {
            let clockwise = points
                .iter()
                .filter(|p| p.0 >= hash)
                .chain(points.iter().filter(|p| p.0 < hash));
            let mut nodes: Vec<usize> = Vec::new();
            for (_, node) in clockwise {
                if !nodes.contains(node) {
                    nodes.push(*node);
                }
            }
            assert_eq!(ring.locate(hash), nodes.first().copied());
            assert_eq!(ring.walk(hash).collect::<Vec<_>>(), nodes);
        }
    }
}
