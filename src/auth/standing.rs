//! What is remembered of the addresses that wrong passwords came from.
//!
//! St1. After a wrong password no other of its address is looked at for a while: the more wrong ones, the longer, up to
//!     [`PAUSE_MAX`]. A right one costs no time, so that those who know theirs and share the address with one who guesses
//!     wait for wrong ones alone.
//! St2. At most [`ADDRESSES_MAX`] addresses are remembered, each for [`MEMORY`] after its last wrong password. One more takes
//!     the place of that with the fewest.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::peer::{Peer, pause};

/// Addresses remembered: some 300 KB.
const ADDRESSES_MAX: usize = 4096;
/// How long a wrong password is held against its address.
const MEMORY: Duration = Duration::from_secs(600);
/// The pause after the first wrong password of an address, which doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest: fifty guesses a second, and others behind the same address have not long to wait.
const PAUSE_MAX: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Standing {
    wrong: u32,
    last: Instant,
    ready_at: Instant,
}

/// The addresses.
#[derive(Debug, Default)]
pub(super) struct Standings(HashMap<Peer, Standing>);

impl Standings {
    /// Notes a wrong password.
    pub(super) fn note_wrong(&mut self, peer: Peer, now: Instant) {
        if !self.0.contains_key(&peer) && self.0.len() >= ADDRESSES_MAX {
            self.make_room(now);
        }
        let standing = self.0.entry(peer).or_insert(Standing {
            wrong: 0,
            last: now,
            ready_at: now,
        });
        if is_over(standing, now) {
            standing.wrong = 0;
        }
        standing.wrong = standing.wrong.saturating_add(1);
        standing.last = now;
        standing.ready_at = now + pause(standing.wrong, PAUSE_MIN, PAUSE_MAX);
    }

    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, standing| !is_over(standing, now));
        if self.0.len() < ADDRESSES_MAX {
            return;
        }
        let least = self
            .0
            .iter()
            .min_by_key(|(_, found)| (found.wrong, found.last));
        if let Some((&peer, _)) = least {
            self.0.remove(&peer);
        }
    }

    /// When the next password of `peer` may be looked at; none is at once.
    pub(super) fn ready_at(&self, peer: Peer, now: Instant) -> Option<Instant> {
        let standing = self.0.get(&peer)?;
        (standing.ready_at > now).then_some(standing.ready_at)
    }

    /// True if no wrong password of `peer` is remembered.
    pub(super) fn is_good(&self, peer: Peer, now: Instant) -> bool {
        self.0
            .get(&peer)
            .is_none_or(|standing| is_over(standing, now))
    }
}

fn is_over(standing: &Standing, now: Instant) -> bool {
    now.saturating_duration_since(standing.last) >= MEMORY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_passwords_are_forgotten_in_time() {
        let (mut standings, start) = (Standings::default(), Instant::now());
        let peer = Peer::V4(1);
        assert!(standings.is_good(peer, start));
        for _ in 0..100 {
            standings.note_wrong(peer, start);
        }
        assert_eq!(standings.ready_at(peer, start), Some(start + PAUSE_MAX));
        assert_eq!(standings.ready_at(peer, start + PAUSE_MAX), None);
        assert!(!standings.is_good(peer, start + MEMORY / 2));
        assert!(standings.is_good(peer, start + MEMORY));
        standings.note_wrong(peer, start + MEMORY);
        assert_eq!(
            standings.ready_at(peer, start + MEMORY),
            Some(start + MEMORY + PAUSE_MIN)
        );
        assert_eq!(standings.ready_at(Peer::V4(2), start), None);
    }

    /// St2: a flood of addresses neither fills the memory nor makes the one that guesses most forgotten.
    #[test]
    fn the_memory_for_addresses_is_bounded() {
        let (mut standings, start) = (Standings::default(), Instant::now());
        standings.note_wrong(Peer::V4(0), start);
        standings.note_wrong(Peer::V4(0), start);
        for n in 1..3 * ADDRESSES_MAX as u64 {
            standings.note_wrong(Peer::V6(n), start);
            assert!(standings.0.len() <= ADDRESSES_MAX);
        }
        assert!(!standings.is_good(Peer::V4(0), start));
    }
}
