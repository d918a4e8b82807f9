//! s3fifo: a small queue that sorts out what is asked for once, a main queue for the rest, and a memory of what the small
//! one has turned away (S3-FIFO: Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache eviction",
//! SOSP 2023).
//!
//! ```text
//!   store --> HOT (small) --- never read ---> evicted, its hash --> ghost
//!    |          | read                                               |
//!    |          v                                                    |
//!    +-----> COLD (main) <--- stored again while the ghost knows it -+
//!             tail: read --> head again, one read less; not read --> evicted
//! ```
//!
//! Most keys of most loads are asked for once or twice and then long not at all; they pass through the small queue and
//! take little room from the others. The paper's ghost is as long as the main queue; on the traces of docs/eviction.md
//! one hash for each of the class's items does as well as two, and three quarters of one miss 0.5 % more.
//!
//! Costs: 2 to 3 bytes an item for the ghost, beside the item memory.

use slab_alloc::ChunkHandle;

use super::super::item::{Items, State};
use super::super::segments::{Balance, Segment, Segments};
use super::super::table::KeyHash;
use super::ghost::Ghost;
use super::{Eviction, LOOKS, Sight, bring_home};

/// The small queue's share of a class's items, in percent: on the traces of docs/eviction.md 2, 5 and 10 % miss 10.9, 11.7
/// and 11.5 % less than memcached. A share that follows the hits of two ghosts, one for each queue, got to 10.9 %.
const SMALL_PCT: usize = 5;

#[derive(Debug, Default)]
pub struct S3Fifo {
    ghost: Ghost,
}

const SMALL: Segment = Segment::Hot;
const MAIN: Segment = Segment::Cold;

impl Eviction for S3Fifo {
    fn place(&mut self, _: &Segments, hash: KeyHash, replaced: Option<Segment>) -> Segment {
        if self.ghost.take(hash) || replaced == Some(MAIN) {
            MAIN
        } else {
            SMALL
        }
    }

    fn victim(&mut self, segments: &mut Segments, sight: &Sight<'_>) -> Option<ChunkHandle> {
        let items = sight.items;
        for _ in 0..LOOKS {
            let (small, main) = (segments.list(SMALL).count, segments.list(MAIN).count);
            let from = if small * 100 > (small + main) * SMALL_PCT {
                SMALL
            } else {
                MAIN
            };
            let Some(tail) = segments.tail(from) else {
                break;
            };
            let uses = items.header(tail).uses();
            if uses == 0 || (sight.is_dead)(tail) {
                return Some(tail);
            }
            if from == SMALL {
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
        if from == SMALL {
            self.ghost.hold(room);
            self.ghost.insert(hash);
        }
    }

    fn is_worth_moving(&self, state: State) -> bool {
        // Who was read in the small queue has shown it, though the count began anew since.
        state.uses() > 0 || state.segment() == MAIN
    }

    fn bytes(&self) -> usize {
        self.ghost.bytes()
    }

    fn save(&self) -> Vec<u8> {
        self.ghost.save()
    }

    fn restore(&mut self, bytes: &[u8]) {
        self.ghost.restore(bytes);
    }

    fn tidy(&mut self, segments: &mut Segments, items: &Items, _: Balance) -> bool {
        bring_home(segments, items, &[SMALL, MAIN], MAIN)
    }
}
