//! Placement by number: a hash picks a place in the list, and nothing of a node but its place counts.
//!
//! `modula` is the remainder, what libmemcached does unless told otherwise: almost every key moves when the length of the list
//! changes. `jump` moves only what the new last place takes over: the list grows and shrinks at its end.
//!
//! A node has one place, or as many as its weight where weights have a say.
//!
//! The nodes behind the owner: strike the owner's places from the list, and the same hash picks a place in what is left. So the
//! next node of a walk is always the one that would own the key without those before it.

use super::seen::Seen;

/// A place below `places` (at least 1) for a hash.
pub(super) type Pick = fn(hash: u64, places: u64) -> u64;

/// The remainder. Hashes of this mode have 32 bits.
pub(super) fn modula(hash: u64, places: u64) -> u64 {
    hash % places
}

/// Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014, figure 1. About ln(places) steps.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the paper's arithmetic"
)]
pub(super) fn jump(mut hash: u64, places: u64) -> u64 {
    let mut place = 0_u64;
    let mut next = 0_u64;
    while next < places {
        place = next;
        hash = hash.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let unit = ((hash >> 33) + 1) as f64;
        next = ((place + 1) as f64 * ((1_u64 << 31) as f64 / unit)) as u64;
    }
    place
}

/// A list of places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    nodes: usize,
    /// Places by node; empty if each has one.
    weights: Box<[u32]>,
}

impl Places {
    /// One for each of `nodes`.
    pub fn of(nodes: usize) -> Self {
        Places {
            nodes,
            weights: Box::default(),
        }
    }

    /// As many for each node as its weight.
    pub fn weighted(weights: Box<[u32]>) -> Self {
        Places {
            nodes: weights.len(),
            weights,
        }
    }

    fn weight(&self, node: usize) -> u64 {
        self.weights.get(node).map_or(1, |&weight| weight.into())
    }

    /// The node that `pick` picks; `None` if there is none.
    pub fn locate(&self, pick: Pick, hash: u64) -> Option<usize> {
        if self.weights.is_empty() && self.nodes > 0 {
            return usize::try_from(pick(hash, self.nodes as u64)).ok();
        }
        self.walk(pick, hash).next()
    }

    /// All nodes, the owner first.
    pub fn walk(&self, pick: Pick, hash: u64) -> BucketWalk<'_> {
        BucketWalk {
            places: self,
            pick,
            hash,
            left: (0..self.nodes).map(|node| self.weight(node)).sum(),
            seen: Seen::new(self.nodes),
        }
    }
}

/// See [`Places::walk`].
#[derive(Debug, Clone)]
pub(super) struct BucketWalk<'c> {
    places: &'c Places,
    pick: Pick,
    hash: u64,
    /// Places not struck yet.
    left: u64,
    seen: Seen,
}

impl Iterator for BucketWalk<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let mut place = (self.pick)(self.hash, self.left);
        for node in (0..self.places.nodes).filter(|&node| !self.seen.contains(node)) {
            let weight = self.places.weight(node);
            if place < weight {
                self.seen.insert(node);
                self.left -= weight;
                return Some(node);
            }
            place -= weight;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that implementations of the paper share.
    #[test]
    fn jump_as_published() {
        for (hash, places, place) in [
            (0, 1, 0),
            (0, 60, 0),
            (1, 1, 0),
            (42, 57, 43),
            (0xdead_10cc, 1, 0),
            (0xdead_10cc, 666, 361),
            (256, 1024, 520),
        ] {
            assert_eq!(jump(hash, places), place, "{hash} in {places}");
        }
    }

    #[test]
    fn jump_moves_keys_to_the_new_place_only() {
        for hash in (0..10_000_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            for places in 1..40 {
                let (before, after) = (jump(hash, places), jump(hash, places + 1));
                assert!(before < places && (after == before || after == places));
            }
        }
    }

    #[test]
    fn weights_are_places() {
        let places = Places::weighted(Box::new([2, 1, 3]));
        let owners: Vec<_> = (0..6).map(|hash| places.locate(modula, hash)).collect();
        assert_eq!(owners, [0, 0, 1, 2, 2, 2].map(Some));
        // Without node 2 there are 3 places: 5 is the third.
        assert!(places.walk(modula, 5).eq([2, 1, 0]));
        assert_eq!(Places::weighted(Box::default()).locate(modula, 5), None);
    }
}
