//! Which node owns a key.
//!
//! ```text
//!  key --(hash tag, by option)--> hash --> a point of a ring (ketama.., dalli, spymemcached)              --> node
//!                                     '--> a place in the list (modula, jump, gomemcache, python-memcached)
//!                                     '--> the highest of the nodes' scores (pymemcache)
//! ```
//!
//! The same list, the same distribution and the same key give the same node in every process that follows libmemcached's
//! rules, or those of the client that gave the distribution its name, whatever its language. A list of one node has no ring:
//! it owns everything.
//!
//! Co1. `locate(key)` is the first of `walk(key)`.
//! Co2. A walk gives each node at most once, by its place in the list: a server that stands in the list twice counts as two.
//! Co3. Without the owner in the list, the next of the walk owns the key: always where there is no ring, and for rings on
//!     which the others keep their number of points. They do without weights; with weights the numbers depend on the whole
//!     list, and a few keys move besides. (Equal weights keep them but for the lengths where rounding takes one digest of 40.)

mod buckets;
mod hash;
mod ketama;
mod md5_lanes;
mod rendezvous;
mod seen;

use std::fmt;
use std::str::FromStr;

use self::buckets::{BucketWalk, Pick, Places};
use self::ketama::{Ring, RingWalk, dalli_value};
use self::rendezvous::Rendezvous;
use crate::node::Node;

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
    /// "dalli": Ruby's dalli. A ring of SHA-1 points, 160 a node of mean weight; keys by CRC-32, to the point at or before it.
    Dalli,
    /// "spymemcached": spymemcached's ketama with its own labels, for Java: as "ketama-weighted", but nodes are called `ip:port`, or
    /// `host/ip:port` where the list has names. Those are to be given: see [`Node::with_java_name`].
    Spymemcached,
    /// "python-memcached": bits 16 to 30 of the key's CRC-32, modulo the sum of the weights. Without weights also
    /// libmemcached's `HASH_CRC`, Perl's Cache::Memcached, and spymemcached's `CRC_HASH`, each with modulo.
    PythonMemcached,
    /// "gomemcache": the key's CRC-32 modulo the number of nodes, for Go. Weights have no say.
    Gomemcache,
    /// "pymemcache": rendezvous hashing of `host:port-key` by MurmurHash3, as pymemcache's HashClient has it. Weights have no say.
    Pymemcache,
}

impl Distribution {
    /// Every distribution.
    pub const ALL: [Distribution; 11] = [
        Distribution::KetamaWeighted,
        Distribution::KetamaWeightedDefault,
        Distribution::Ketama,
        Distribution::KetamaMd5,
        Distribution::Modula,
        Distribution::Jump,
        Distribution::Dalli,
        Distribution::Spymemcached,
        Distribution::PythonMemcached,
        Distribution::Gomemcache,
        Distribution::Pymemcache,
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
            Distribution::Dalli => "dalli",
            Distribution::Spymemcached => "spymemcached",
            Distribution::PythonMemcached => "python-memcached",
            Distribution::Gomemcache => "gomemcache",
            Distribution::Pymemcache => "pymemcache",
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
    /// Labels of libmemcached's rings have the port even if it is 11211, as Node's hashring and uhashring write them.
    /// libmemcached leaves that port out. The other clients' distributions write it always.
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

#[cfg(feature = "serde")]
impl Placement {
    pub(crate) fn words(&self) -> (Distribution, bool, bool) {
        (self.distribution, self.keep_port, self.hash_tags)
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
    scheme: Scheme,
}

/// Keys whose tags are found before they are hashed.
const TAGS: usize = 64;

/// What is searched for the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scheme {
    Ring(Ring),
    Places(Places),
    Rendezvous(Rendezvous),
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
        let scheme = match placement.distribution {
            _ if nodes.len() < 2 => Scheme::Places(Places::of(nodes.len())),
            Distribution::KetamaWeighted | Distribution::KetamaWeightedDefault => {
                Scheme::Ring(Ring::weighted(nodes, keep_port))
            }
            Distribution::Ketama => {
                Scheme::Ring(Ring::plain(nodes, keep_port, hash::one_at_a_time))
            }
            Distribution::KetamaMd5 => Scheme::Ring(Ring::plain(nodes, keep_port, hash::md5_32)),
            Distribution::Dalli => Scheme::Ring(Ring::dalli(nodes)),
            Distribution::Spymemcached => Scheme::Ring(Ring::spymemcached(nodes)),
            Distribution::Modula | Distribution::Jump | Distribution::Gomemcache => {
                Scheme::Places(Places::of(nodes.len()))
            }
            Distribution::PythonMemcached => {
                let weights = nodes.iter().map(|node| node.weight.max(1));
                Scheme::Places(Places::weighted(weights.collect()))
            }
            Distribution::Pymemcache => Scheme::Rendezvous(Rendezvous::new(nodes)),
        };
        Continuum {
            placement,
            nodes: nodes.len(),
            scheme,
        }
    }

    /// The index of the node that owns `key`; `None` without nodes. Allocates nothing.
    pub fn locate(&self, key: &[u8]) -> Option<usize> {
        if self.nodes < 2 {
            return (self.nodes == 1).then_some(0);
        }
        match &self.scheme {
            Scheme::Ring(ring) => ring.locate(self.hash(key)),
            Scheme::Places(places) => {
                let (pick, hash) = self.bucket(key);
                places.locate(pick, hash)
            }
            Scheme::Rendezvous(rendezvous) => rendezvous.locate(self.tag(key)),
        }
    }

    /// The same of each of `keys`, in their order: faster than one after the other where keys are placed by MD5. Nothing without nodes.
    pub fn locate_each(&self, keys: &[&[u8]], mut each: impl FnMut(usize)) {
        if let Scheme::Ring(ring) = &self.scheme
            && self.is_by_md5()
        {
            let mut tags: [&[u8]; TAGS] = [b""; TAGS];
            for keys in keys.chunks(TAGS) {
                let tags = &mut tags[..keys.len()];
                tags.iter_mut()
                    .zip(keys)
                    .for_each(|(tag, key)| *tag = self.tag(key));
                hash::md5_points_each(tags, |[hash, ..]| each(ring.locate(hash).unwrap_or(0)));
            }
        } else {
            keys.iter()
                .filter_map(|key| self.locate(key))
                .for_each(each);
        }
    }

    /// The nodes in the order in which they would own `key` were the ones before them gone: each node once, the owner first,
    /// then clockwise. A node so light that it has no point on the ring is not among them. Allocates nothing for up to 128 nodes,
    /// but for `pymemcache`.
    pub fn walk<'c>(&'c self, key: &[u8]) -> impl Iterator<Item = usize> + use<'c> {
        match &self.scheme {
            Scheme::Ring(ring) => Walk::Ring(ring.walk(self.hash(key))),
            Scheme::Places(places) => {
                let (pick, hash) = self.bucket(key);
                Walk::Buckets(places.walk(pick, hash))
            }
            Scheme::Rendezvous(rendezvous) => Walk::Ranked(rendezvous.walk(self.tag(key))),
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

    /// The points of the ring, value and node, for tools that draw it: in the order in which a key's hash meets them, which for
    /// `dalli` is from the highest value down. Nothing where there is no ring.
    pub fn points(&self) -> impl Iterator<Item = (u32, usize)> + '_ {
        let ring = match &self.scheme {
            Scheme::Ring(ring) => Some(ring),
            _ => None,
        };
        let is_dalli = self.placement.distribution == Distribution::Dalli;
        let seen = move |value| if is_dalli { dalli_value(value) } else { value };
        ring.into_iter()
            .flat_map(Ring::points)
            .map(move |(value, node)| (seen(value), node))
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
            _ if self.is_by_md5() => hash::md5_32(tag),
            Distribution::Dalli => dalli_value(hash::crc32(tag)),
            _ => hash::one_at_a_time(tag),
        }
    }

    /// True if a key stands on the ring where its MD5 begins.
    fn is_by_md5(&self) -> bool {
        use Distribution::{KetamaMd5, KetamaWeighted, Spymemcached};
        matches!(
            self.placement.distribution,
            KetamaWeighted | KetamaMd5 | Spymemcached
        )
    }

    /// What picks a place in the list, and the hash it goes by.
    fn bucket(&self, key: &[u8]) -> (Pick, u64) {
        let tag = self.tag(key);
        match self.placement.distribution {
            Distribution::Jump => (buckets::jump, hash::md5_64(tag)),
            Distribution::Gomemcache => (buckets::modula, hash::crc32(tag).into()),
            Distribution::PythonMemcached => {
                (buckets::modula, (hash::crc32(tag) >> 16 & 0x7fff).into())
            }
            _ => (buckets::modula, hash::one_at_a_time(tag).into()),
        }
    }
}

/// See [`Continuum::walk`].
enum Walk<'c> {
    Ring(RingWalk<'c>),
    Buckets(BucketWalk<'c>),
    Ranked(std::vec::IntoIter<usize>),
}

impl Iterator for Walk<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        match self {
            Walk::Ring(walk) => walk.next(),
            Walk::Buckets(walk) => walk.next(),
            Walk::Ranked(walk) => walk.next(),
        }
    }
}

#[cfg(test)]
mod tests;
