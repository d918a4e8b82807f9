//! Which node owns a key.
//!
//! ```text
//!  key --(hash tag, by option)--> hash --> ring of points (ketama..), or a place in the list (modula, jump) --> node
//! ```
//!
//! The same list, the same distribution and the same key give the same node in every process that follows libmemcached's
//! rules, whatever its language. A list of one node has no ring: it owns everything.
//!
//! C1. `locate(key)` is the first of `walk(key)`.
//! C2. A walk gives each node at most once, by its place in the list: a server that stands in the list twice counts as two.
//! C3. Without the owner in the list, the next of the walk owns the key: always for `modula` and `jump`, and for rings on
//!     which the others keep their number of points. They do without weights; with weights the numbers depend on the whole
//!     list, and a few keys move besides. (Equal weights keep them but for the lengths where rounding takes one digest of 40.)

mod buckets;
mod hash;
mod ketama;
mod seen;

use std::fmt;
use std::str::FromStr;

use self::buckets::BucketWalk;
use self::ketama::{Ring, RingWalk};
use crate::Node;

/// How keys are spread over the nodes. The names of [`FromStr`] and [`Display`](fmt::Display) stand in quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Distribution {
    /// "ketama-weighted": libmemcached's `KETAMA_WEIGHTED`, what is meant by "Ketama compatible". A ring of MD5 points, 160 a node
    /// of mean weight; keys by MD5.
    #[default]
    KetamaWeighted,
    /// "ketama-weighted-default": the same ring, keys by the one-at-a-time hash.
    KetamaWeightedDefault,
    /// "ketama": libmemcached's `KETAMA`. 100 points a node, points and keys by the one-at-a-time hash; with a weight above 1
    /// in the list the same as `ketama-weighted-default`.
    Ketama,
    /// "ketama-md5": the same with MD5; with a weight above 1 in the list the same as `ketama-weighted`.
    KetamaMd5,
    /// "modula": one-at-a-time hash modulo the number of nodes; libmemcached's default. Weights have no say.
    Modula,
    /// "jump": the jump consistent hash of Lamping and Veach over the first eight bytes (little-endian) of the key's MD5.
    /// Weights have no say. Nodes join and leave at the end of the list.
    Jump,
}

impl Distribution {
    /// Every distribution.
    pub const ALL: [Distribution; 6] = [
        Distribution::KetamaWeighted,
        Distribution::KetamaWeightedDefault,
        Distribution::Ketama,
        Distribution::KetamaMd5,
        Distribution::Modula,
        Distribution::Jump,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Distribution::KetamaWeighted => "ketama-weighted",
            Distribution::KetamaWeightedDefault => "ketama-weighted-default",
            Distribution::Ketama => "ketama",
            Distribution::KetamaMd5 => "ketama-md5",
            Distribution::Modula => "modula",
            Distribution::Jump => "jump",
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no distribution has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownDistribution;

impl fmt::Display for UnknownDistribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a distribution is one of")?;
        for (i, distribution) in Distribution::ALL.iter().enumerate() {
            write!(f, "{} {distribution}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownDistribution {}

impl FromStr for Distribution {
    type Err = UnknownDistribution;

    fn from_str(name: &str) -> Result<Self, UnknownDistribution> {
        let mut all = Distribution::ALL.into_iter();
        all.find(|d| d.name() == name).ok_or(UnknownDistribution)
    }
}

/// A distribution with its options. Any [`Distribution`] is one with the options off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Placement {
    distribution: Distribution,
    keep_port: bool,
    hash_tags: bool,
}

impl Placement {
    /// Ring labels have the port even if it is 11211, as Node's hashring, uhashring and spymemcached's default write them.
    /// libmemcached leaves that port out.
    pub fn keep_port(mut self, on: bool) -> Self {
        self.keep_port = on;
        self
    }

    /// Only the part of a key between its first `{` and the next `}` says where it belongs, so that `{user123}:a` and
    /// `{user123}:b` share a node. Keys without such a part, or with nothing in it, count whole.
    pub fn hash_tags(mut self, on: bool) -> Self {
        self.hash_tags = on;
        self
    }
}

impl From<Distribution> for Placement {
    fn from(distribution: Distribution) -> Self {
        Placement {
            distribution,
            ..Placement::default()
        }
    }
}

/// The placement of keys on a fixed list of nodes. A change of the list is a new continuum.
///
/// ```
/// use ketch_client::Node;
/// use ketch_client::continuum::{Continuum, Distribution};
///
/// let nodes = Node::list("192.0.2.11,192.0.2.12,192.0.2.13")?;
/// let ring = Continuum::new(Distribution::KetamaWeighted, &nodes);
/// let owner = ring.locate(b"user:559364094").expect("there are nodes");
/// assert_eq!(nodes[owner].host, "192.0.2.11");
/// # Ok::<(), ketch_client::NodeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuum {
    placement: Placement,
    nodes: usize,
    /// Absent where there is nothing to search: up to one node, or placement by number.
    ring: Option<Ring>,
}

impl Continuum {
    /// The continuum of `nodes`, in their order.
    pub fn new(placement: impl Into<Placement>, nodes: &[Node]) -> Self {
        let mut placement: Placement = placement.into();
        // libmemcached turns the weighted ring on by itself as soon as one server of a consistent distribution has a weight.
        if nodes.iter().any(|node| node.weight > 1) {
            placement.distribution = match placement.distribution {
                Distribution::Ketama => Distribution::KetamaWeightedDefault,
                Distribution::KetamaMd5 => Distribution::KetamaWeighted,
                other => other,
            };
        }
        let keep_port = placement.keep_port;
        let ring = (nodes.len() > 1).then_some(placement.distribution);
        let ring = ring.and_then(|distribution| match distribution {
            Distribution::KetamaWeighted | Distribution::KetamaWeightedDefault => {
                Some(Ring::weighted(nodes, keep_port))
            }
            Distribution::Ketama => Some(Ring::plain(nodes, keep_port, hash::one_at_a_time)),
            Distribution::KetamaMd5 => Some(Ring::plain(nodes, keep_port, hash::md5_32)),
            Distribution::Modula | Distribution::Jump => None,
        });
        Continuum {
            placement,
            nodes: nodes.len(),
            ring,
        }
    }

    /// The index of the node that owns `key`; `None` without nodes. Allocates nothing.
    pub fn locate(&self, key: &[u8]) -> Option<usize> {
        match (&self.ring, self.nodes) {
            (Some(ring), _) => ring.locate(self.hash(key)),
            (None, 0) => None,
            (None, 1) => Some(0),
            (None, nodes) => {
                let (pick, hash) = self.bucket(key);
                Some(pick(hash, nodes))
            }
        }
    }

    /// The nodes in the order in which they would own `key` were the ones before them gone: each node once, the owner first,
    /// then clockwise. A node so light that it has no point on the ring is not among them. Allocates nothing for up to 128 nodes.
    pub fn walk<'c>(&'c self, key: &[u8]) -> impl Iterator<Item = usize> + use<'c> {
        match &self.ring {
            Some(ring) => Walk::Ring(ring.walk(self.hash(key))),
            None => {
                let (pick, hash) = self.bucket(key);
                Walk::Buckets(BucketWalk::new(pick, hash, self.nodes))
            }
        }
    }

    /// How many nodes there are, with or without points.
    pub fn len(&self) -> usize {
        self.nodes
    }

    /// True without nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes == 0
    }

    /// The points of the ring in its order, value and node, for tools that draw it. Nothing where there is no ring.
    pub fn points(&self) -> impl Iterator<Item = (u32, usize)> + '_ {
        self.ring.iter().flat_map(Ring::points)
    }

    fn tag<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        if self.placement.hash_tags {
            hash::tag(key)
        } else {
            key
        }
    }

    /// Where a key stands on the ring.
    fn hash(&self, key: &[u8]) -> u32 {
        let tag = self.tag(key);
        match self.placement.distribution {
            Distribution::KetamaWeighted | Distribution::KetamaMd5 => hash::md5_32(tag),
            _ => hash::one_at_a_time(tag),
        }
    }

    /// What picks a place in the list, and the hash it goes by.
    fn bucket(&self, key: &[u8]) -> (buckets::Pick, u64) {
        let tag = self.tag(key);
        match self.placement.distribution {
            Distribution::Jump => (buckets::jump, hash::md5_64(tag)),
            _ => (buckets::modula, hash::one_at_a_time(tag).into()),
        }
    }
}

/// See [`Continuum::walk`].
enum Walk<'c> {
    Ring(RingWalk<'c>),
    Buckets(BucketWalk),
}

impl Iterator for Walk<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        match self {
            Walk::Ring(walk) => walk.next(),
            Walk::Buckets(walk) => walk.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Walk::Ring(walk) => walk.size_hint(),
            Walk::Buckets(walk) => walk.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests;
