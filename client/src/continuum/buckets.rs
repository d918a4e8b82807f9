//! Placement by number: a hash picks a place in the list, and nothing of a node but its place counts.
//!
//! `modula` is the remainder, what libmemcached does unless told otherwise: almost every key moves when the length of the list
//! changes. `jump` moves only what the new last place takes over: the list grows and shrinks at its end.
//!
//! The nodes behind the owner: strike the owner from the list, and the same hash picks a place in what is left. So the
//! next node of a walk is always the one that would own the key without those before it.

use super::seen::Seen;

/// A place below `places` (at least 1) for a hash.
pub(super) type Pick = fn(hash: u64, places: usize) -> usize;

/// The remainder. Hashes of this mode have 32 bits.
pub(super) fn modula(hash: u64, places: usize) -> usize {
    usize::try_from(hash % places as u64).expect("less than a usize")
}

/// Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014, figure 1. About ln(places) steps.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the paper's arithmetic"
)]
pub(super) fn jump(mut hash: u64, places: usize) -> usize {
    let mut place = 0_u64;
    let mut next = 0_u64;
    while next < places as u64 {
        place = next;
        hash = hash.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let unit = ((hash >> 33) + 1) as f64;
        next = ((place + 1) as f64 * ((1_u64 << 31) as f64 / unit)) as u64;
    }
    place as usize
}

/// All nodes, the owner first.
#[derive(Debug, Clone)]
pub(super) struct BucketWalk {
    pick: Pick,
    hash: u64,
    nodes: usize,
    left: usize,
    seen: Seen,
}

impl BucketWalk {
    pub fn new(pick: Pick, hash: u64, nodes: usize) -> Self {
        BucketWalk {
            pick,
            hash,
            nodes,
            left: nodes,
            seen: Seen::new(nodes),
        }
    }
}

impl Iterator for BucketWalk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let place = (self.pick)(self.hash, self.left);
        let node = (0..self.nodes)
            .filter(|node| !self.seen.contains(*node))
            .nth(place)?;
        self.seen.insert(node);
        self.left -= 1;
        Some(node)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
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
}
