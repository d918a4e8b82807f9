//! Where the copies of a key lie: on nodes of one ring, or of several.

use std::time::Instant;

use client_core::routing::Ring;
use ketch_client::continuum::Placement;
use ketch_client::{ClientOptions, Node};

/// A node of a ring, where some keys have a copy.
#[derive(Debug, Clone)]
pub struct Place {
    pub node: Node,
    pub address: String,
}

/// The places of all rings.
pub struct Places {
    pub places: Vec<Place>,
    rings: Vec<(Ring, ClientOptions, Vec<usize>)>,
}

impl Places {
    /// The places of `rings`, in which keys lie on `copies` nodes.
    pub fn new(rings: &[Vec<Node>], placement: Placement, copies: usize) -> Self {
        let mut all = Places {
            places: Vec::new(),
            rings: Vec::new(),
        };
        for nodes in rings {
            let options = ClientOptions::default().placement(placement).copies(copies);
            let ring = Ring::new(nodes, &options, 0);
            let mut of_member = Vec::new();
            for member in &ring.members {
                of_member.push(all.places.len());
                all.places.push(Place {
                    node: member.node.clone(),
                    address: member.node.address(),
                });
            }
            all.rings.push((ring, options, of_member));
        }
        all
    }

    /// The places that are to have `key`: all copies in the first ring, then those in the next.
    pub fn of(&self, key: &[u8]) -> Vec<usize> {
        let mut of_key = Vec::new();
        for (ring, options, places) in &self.rings {
            // Nothing is ever ejected here: these are its owners.
            let owners = ring.writers(key, Instant::now(), options);
            of_key.extend(owners.iter().map(|member| places[member]));
        }
        of_key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_client::continuum::Continuum;

    #[test]
    fn the_owners_of_each_ring_stand_behind_each_other() {
        let ring = |text: &str| Node::list(text).expect("nodes");
        let rings = [ring("a,b,c"), ring("d,e")];
        let placement = Placement::default();
        let places = Places::new(&rings, placement, 2);
        let continuum = Continuum::new(placement, &rings[0]);
        for n in 0..100 {
            let key = format!("key:{n}");
            let of_key = places.of(key.as_bytes());
            let named: Vec<&str> = of_key
                .iter()
                .map(|&place| places.places[place].node.host.as_str())
                .collect();
            let first: Vec<usize> = continuum.walk(key.as_bytes()).take(2).collect();
            assert_eq!(named[..2], first.map_hosts(&rings[0])[..], "{key}");
            let mut second = named[2..].to_vec();
            second.sort_unstable();
            assert_eq!(second, ["d", "e"]);
        }
    }

    trait Hosts {
        fn map_hosts<'n>(&self, nodes: &'n [Node]) -> Vec<&'n str>;
    }

    impl Hosts for Vec<usize> {
        fn map_hosts<'n>(&self, nodes: &'n [Node]) -> Vec<&'n str> {
            self.iter().map(|&at| nodes[at].host.as_str()).collect()
        }
    }
}
