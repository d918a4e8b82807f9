//! lfu: who was asked for more often stays (W-TinyLFU: Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache
//! Admission Policy", 2017).
//!
//! ```text
//!   store --> HOT (window) --> duel: the window's tail against COLD's tail, by their estimated requests
//!                                winner --> COLD (probation)      loser --> evicted
//!             COLD tail read --> WARM (protected)                 WARM above its share --> COLD
//! ```
//!
//! Requests are estimated by a [`Sketch`], which ages. Reads are not counted when they happen, since they take no lock:
//! an item counts its own, up to three, and they are poured into the sketch when its tail is looked at.
//!
//! Costs: 8 to 16 bytes an item for the sketch, beside the item memory.

use slab_alloc::ChunkHandle;

use super::super::item::{Items, State};
use super::super::segments::{Balance, Segment, Segments};
use super::super::table::KeyHash;
use super::sketch::Sketch;
use super::{Eviction, LOOKS, Sight};

/// The window's share of a class's items, in percent. The paper starts from 1; on orm-busy (docs/eviction.md) 1, 5 and 20 %
/// miss 0.325, 0.237 and 0.201 of the requests, and elsewhere 20 % costs 2 % of the misses at most.
const WINDOW_PCT: usize = 20;
/// The protected segment's share of all but the window, in percent.
const PROTECTED_PCT: usize = 80;

#[derive(Debug, Default)]
pub struct Lfu {
    sketch: Sketch,
}

impl Lfu {
    /// Counts the reads of an item since it was last looked at, and gives their number.
    fn pour(&mut self, sight: &Sight<'_>, handle: ChunkHandle) -> u16 {
        let reads = sight.items.header(handle).uses();
        if reads > 0 {
            self.sketch.add((sight.hash)(handle), reads);
            sight.items.header(handle).set_uses(0);
        }
        reads
    }
}

impl Eviction for Lfu {
    fn place(&mut self, segments: &Segments, hash: KeyHash, _: Option<Segment>) -> Segment {
        self.sketch.hold(segments.count());
        self.sketch.add(hash, 1);
        Segment::Hot
    }

    fn victim(&mut self, segments: &mut Segments, sight: &Sight<'_>) -> Option<ChunkHandle> {
        let items = sight.items;
        for _ in 0..LOOKS {
            let [window, protected, probation] = [Segment::Hot, Segment::Warm, Segment::Cold]
                .map(|segment| segments.list(segment).count);
            let main = protected + probation;
            if protected * 100 > main * PROTECTED_PCT
                && let Some(tail) = segments.tail(Segment::Warm)
            {
                let to = if self.pour(sight, tail) > 0 {
                    Segment::Warm
                } else {
                    Segment::Cold
                };
                segments.counters.moves_within_lru += u64::from(to == Segment::Warm);
                segments.counters.moves_to_cold += u64::from(to == Segment::Cold);
                segments.shift(items, tail, to);
                continue;
            }
            let candidate = segments.tail(Segment::Hot);
            if let Some(tail) = candidate
                && self.pour(sight, tail) > 0
            {
                segments.counters.moves_within_lru += 1;
                segments.shift(items, tail, Segment::Hot);
                continue;
            }
            let over = window * 100 > (window + main) * WINDOW_PCT;
            let Some(victim) = segments.tail(Segment::Cold) else {
                break;
            };
            if (sight.is_dead)(victim) {
                return Some(victim);
            }
            if self.pour(sight, victim) > 0 {
                segments.counters.moves_to_warm += 1;
                segments.shift(items, victim, Segment::Warm);
                continue;
            }
            let Some(candidate) = candidate.filter(|_| over) else {
                return Some(victim);
            };
            let estimate = |handle| self.sketch.estimate((sight.hash)(handle));
            if (sight.is_dead)(candidate) || estimate(candidate) <= estimate(victim) {
                return Some(candidate);
            }
            segments.counters.moves_to_cold += 1;
            segments.shift(items, candidate, Segment::Cold);
            return Some(victim);
        }
        segments.oldest()
    }

    fn tidy(&mut self, segments: &mut Segments, items: &Items, _: Balance) -> bool {
        // While nobody has to go, the window overflows into probation without a duel.
        let window = segments.list(Segment::Hot).count;
        let share = segments.count() * WINDOW_PCT / 100;
        let Some(tail) = segments.tail(Segment::Hot).filter(|_| window > share + 2) else {
            return false;
        };
        segments.counters.moves_to_cold += 1;
        segments.shift(items, tail, Segment::Cold);
        true
    }

    fn bytes(&self) -> usize {
        self.sketch.bytes()
    }

    fn save(&self) -> Vec<u8> {
        self.sketch.save()
    }

    fn restore(&mut self, bytes: &[u8]) {
        self.sketch.restore(bytes);
    }

    fn is_worth_moving(&self, state: State) -> bool {
        state.uses() > 0 || state.segment() == Segment::Warm
    }
}
