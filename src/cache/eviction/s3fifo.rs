//! s3fifo: a small queue that sorts out what is asked for once, a main queue for the rest, and a memory of what both have
//! let go lately (S3-FIFO: Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023).
//!
//! ```text
//!            the small queue: two halves
//!   store --> HOT --------------> WARM --- not read here ---> evicted, its hash --> turned_away
//!    |         reads are forgotten  | read                                              |
//!    |                              v                                                   |
//!    +----------------------------> COLD (main) <--- stored again, while it is known ---+
//!                                     tail: read --> head again, one read less; not read --> evicted --> evicted_lately
//! ```
//!
//! Most keys of most loads are asked for once or twice and then long not at all; they pass through the small queue and
//! take little room from the others. Reads that follow close on the store come from the same occasion, and tell nothing of
//! others: so only those count that find the item in the second half of the small queue.
//!
//! How large the small queue is to be is learned. Who comes back just after the small queue turned it away would have been
//! a hit had that been a little longer, and who comes back just after the main queue evicted it, had that been: one makes
//! the small queue longer by [`STEP`] items, the other shorter. Both are asked over the same number of evictions. So each
//! queue's share settles where a byte more would bring as many hits in one as in the other: a load whose keys come back soon
//! gets a long small queue, which is an order of use, and one with many scans a short one.
//!
//! The paper's ghost is as long as the main queue; on the traces of docs/eviction.md one hash for each of the class's items
//! does as well as two, and three quarters of one miss 0.5 % more.
//!
//! Costs: 2 to 3 bytes an item for the hashes, beside the item memory; a store moves one item more.

use slab_alloc::ChunkHandle;

use super::super::item::{Items, State};
use super::super::segments::{Balance, Segment, Segments};
use super::super::table::KeyHash;
use super::ghost::Ghost;
use super::{Eviction, LOOKS, Sight};

/// All of a class's items, as shares are counted.
const WHOLE: u32 = 1 << 16;
/// The small queue's share at first.
const SHARE_AT_FIRST: u32 = WHOLE / 10;
/// It stays within these.
const SHARES: [u32; 2] = [WHOLE / 50, WHOLE / 10 * 9];
/// Items by which the small queue grows or shrinks for one that came back too late. 1, 2 and 4 differ by less than 0.4 % of
/// the misses.
const STEP: u32 = 2;
/// The most of it, where there are few items.
const STEP_MAX: u32 = WHOLE / 32;
/// Hashes in a bucket of those that were turned away: the first has come within a sixteenth of the class's items.
const SLOTS: usize = 16;

const MAIN: Segment = Segment::Cold;

#[derive(Debug)]
pub struct S3Fifo {
    /// What HOT and WARM may hold together, of [`WHOLE`].
    share: u32,
    /// What the small queue has turned away.
    turned_away: Ghost<SLOTS>,
    /// What the main queue has evicted. Its buckets are as many, so that the latest of both reach as far back.
    evicted_lately: Ghost<1>,
}

impl Default for S3Fifo {
    fn default() -> Self {
        S3Fifo {
            share: SHARE_AT_FIRST,
            turned_away: Ghost::default(),
            evicted_lately: Ghost::default(),
        }
    }
}

impl S3Fifo {
    /// The items that HOT and WARM should hold, where there are so many in all.
    fn small_target(&self, items: usize) -> usize {
        (items as u64 * u64::from(self.share) / u64::from(WHOLE)) as usize
    }

    fn grow(&mut self, items: usize) {
        self.share = (self.share + step(items)).min(SHARES[1]);
    }

    fn shrink(&mut self, items: usize) {
        self.share = self.share.saturating_sub(step(items)).max(SHARES[0]);
    }
}

fn step(items: usize) -> u32 {
    (STEP * WHOLE / items.clamp(1, WHOLE as usize) as u32).min(STEP_MAX)
}

/// Items of the small queue, and of both.
fn counts(segments: &Segments) -> (usize, usize) {
    let small = segments.list(Segment::Hot).count + segments.list(Segment::Warm).count;
    (small, small + segments.list(MAIN).count)
}

impl Eviction for S3Fifo {
    fn place(&mut self, segments: &Segments, hash: KeyHash, replaced: Option<Segment>) -> Segment {
        let turned_away = self.turned_away.take(hash);
        match turned_away {
            Some(0) => self.grow(segments.count()),
            Some(_) => {}
            None if self.evicted_lately.take(hash).is_some() => self.shrink(segments.count()),
            None => {}
        }
        if turned_away.is_some() || replaced == Some(MAIN) {
            MAIN
        } else {
            Segment::Hot
        }
    }

    fn victim(&mut self, segments: &mut Segments, sight: &Sight<'_>) -> Option<ChunkHandle> {
        let items = sight.items;
        for _ in 0..LOOKS {
            let (small, all) = counts(segments);
            let is_small = small > self.small_target(all) || small == all;
            let tail = match is_small {
                true => segments.tail(Segment::Warm).or(segments.tail(Segment::Hot)),
                false => segments.tail(MAIN),
            };
            let Some(tail) = tail else {
                break;
            };
            let uses = items.header(tail).uses();
            if uses == 0 || (sight.is_dead)(tail) {
                return Some(tail);
            }
            if is_small {
                segments.counters.moves_to_cold += 1;
                items.header(tail).set_uses(0);
            } else {
                segments.counters.moves_within_lru += 1;
                items.header(tail).set_uses(uses - 1);
            }
            segments.shift(items, tail, MAIN);
        }
        segments.oldest()
    }

    fn evicted(&mut self, hash: KeyHash, from: Segment, room: usize) {
        let buckets = room.div_ceil(SLOTS);
        match from {
            MAIN => {
                self.evicted_lately.hold(buckets);
                self.evicted_lately.insert(hash);
            }
            Segment::Hot | Segment::Warm => {
                self.turned_away.hold(buckets);
                self.turned_away.insert(hash);
            }
            Segment::Temp => {}
        }
    }

    fn is_worth_moving(&self, state: State) -> bool {
        // Who was read in the small queue has shown it, though the count began anew since.
        state.uses() > 0 || state.segment() == MAIN
    }

    fn bytes(&self) -> usize {
        self.turned_away.bytes() + self.evicted_lately.bytes()
    }

    fn save(&self) -> Vec<u8> {
        let lately = self.evicted_lately.save();
        let words = [self.share, lately.len() as u32];
        let words = words.into_iter().flat_map(u32::to_le_bytes);
        words.chain(lately).chain(self.turned_away.save()).collect()
    }

    fn restore(&mut self, bytes: &[u8]) {
        let Some((share, rest)) = bytes.split_first_chunk::<4>() else {
            return;
        };
        let Some((len, rest)) = rest.split_first_chunk::<4>() else {
            return;
        };
        let len = u32::from_le_bytes(*len) as usize;
        if let Some((lately, turned_away)) = rest.split_at_checked(len) {
            let [least, most] = SHARES;
            self.share = u32::from_le_bytes(*share).clamp(least, most);
            self.evicted_lately.restore(lately);
            self.turned_away.restore(turned_away);
        }
    }

    /// Moves one from the first half of the small queue to the second.
    fn tidy(&mut self, segments: &mut Segments, items: &Items, _: Balance) -> bool {
        let (_, all) = counts(segments);
        let half = self.small_target(all) / 2;
        let hot = segments.list(Segment::Hot).count;
        if hot <= half {
            return false;
        }
        let Some(tail) = segments.tail(Segment::Hot) else {
            return false;
        };
        items.header(tail).set_uses(0);
        segments.shift(items, tail, Segment::Warm);
        if let Some(next) = segments.tail(Segment::Hot) {
            items.slabs().prefetch_header(next);
        }
        hot - 1 > half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it has learned goes on elsewhere; bytes that cannot be that are refused.
    #[test]
    fn what_was_learned_is_taken_up() {
        let mut learned = S3Fifo::default();
        for hash in 0..3000u32 {
            let hash = KeyHash(hash.wrapping_mul(0x9e37_79b9));
            learned.evicted(hash, Segment::Warm, 1000);
            learned.evicted(hash, MAIN, 1000);
        }
        learned.grow(100);
        let mut next = S3Fifo::default();
        next.restore(&learned.save());
        assert_eq!(next.share, learned.share);
        assert_eq!(next.save(), learned.save());
        assert!(next.bytes() > 1500);
        for len in 0..learned.save().len().min(200) {
            let mut other = S3Fifo::default();
            other.restore(&learned.save()[..len]);
            assert!((SHARES[0]..=SHARES[1]).contains(&other.share));
        }
        let mut other = S3Fifo::default();
        other.restore(&[0xff; 64]);
        assert_eq!((other.share, other.bytes()), (SHARE_AT_FIRST, 0));
    }
}
