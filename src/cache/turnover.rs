//! How long a class keeps what is not asked for: the time in which its lists go round once.
//!
//! ```text
//!  steps:   s0 .... s1 .... s2 .... s3 ... now        a mark every eighth of a round: (steps, stores to the whole cache)
//!                    |<---- a round: as many steps as items ---->|
//! ```
//!
//! A step is an item that comes to a list's head, new or because it was asked for. An item that is not asked for goes
//! from head to tail while the class makes as many steps as it has items. So a class whose items are asked for often
//! goes round faster than its evictions tell, and one that nobody steps in any more grows older with every store to
//! the others, no faster and no slower.
//!
//! Tu1. Marks are in order of steps and of stores.
//!
//! Costs: a counter a step; a mark, of which there are a few, every eighth of a round.

use std::collections::VecDeque;

/// Marks in a round: what the time of a round is exact to.
const MARKS: u64 = 8;
/// Marks kept: more than a round of them, since classes grow and shrink.
const MARKS_MAX: usize = 16;

#[derive(Debug, Clone, Copy)]
struct Mark {
    steps: u64,
    stores: u64,
}

#[derive(Debug, Default)]
pub struct Turnover {
    steps: u64,
    marks: VecDeque<Mark>,
}

impl Turnover {
    /// All of it as words, to go on with it elsewhere.
    pub fn words(&self) -> Vec<u64> {
        let marks = self.marks.iter().flat_map(|mark| [mark.steps, mark.stores]);
        std::iter::once(self.steps).chain(marks).collect()
    }

    /// Goes on with what was left like this, and with what was counted since. Marks out of order are forgotten (Tu1).
    pub fn take_up(&mut self, words: &[u64]) {
        let Some((&steps, marks)) = words.split_first() else {
            return;
        };
        let mut before: VecDeque<Mark> = VecDeque::new();
        for pair in marks.chunks_exact(2).take(MARKS_MAX) {
            let (mark, last) = (
                Mark {
                    steps: pair[0],
                    stores: pair[1],
                },
                before.back(),
            );
            if mark.steps <= steps
                && last.is_none_or(|last| last.steps <= mark.steps && last.stores <= mark.stores)
            {
                before.push_back(mark);
            }
        }
        let last_stores = before.back().map_or(0, |last| last.stores);
        let since = self.marks.iter().filter(|mark| mark.stores >= last_stores);
        before.extend(since.map(|mark| Mark {
            steps: steps.saturating_add(mark.steps),
            stores: mark.stores,
        }));
        while before.len() > MARKS_MAX {
            before.pop_front();
        }
        self.steps = self.steps.saturating_add(steps);
        self.marks = before;
    }

    /// Counts so many steps of a class of `items`, after so many `stores` to the whole cache.
    pub fn step(&mut self, steps: u64, items: usize, stores: u64) {
        self.steps += steps;
        let apart = items as u64 / MARKS;
        if self
            .marks
            .back()
            .is_none_or(|last| self.steps - last.steps > apart)
        {
            if self.marks.len() == MARKS_MAX {
                self.marks.pop_front();
            }
            let steps = self.steps;
            self.marks.push_back(Mark { steps, stores });
        }
    }

    /// The stores to the whole cache during the latest round of a class of `items`.
    pub fn round(&self, items: usize, stores: u64) -> u64 {
        let wanted = self.steps.saturating_sub(items as u64);
        // The latest mark before the round, else the first there is: what it lacks is taken to have gone as fast.
        let before = self.marks.iter().rev().find(|mark| mark.steps <= wanted);
        let Some(mark) = before.or(self.marks.front()) else {
            return 0;
        };
        let steps = (self.steps - mark.steps).max(1);
        let passed = u128::from(stores.saturating_sub(mark.stores)) * items as u128;
        u64::try_from(passed / u128::from(steps)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_takes_as_many_steps_as_items() {
        let mut turnover = Turnover::default();
        assert_eq!(turnover.round(100, 5), 0);
        // One step every ten stores, two of three of them for an item that stays.
        for n in 0..1000u64 {
            turnover.step(if n % 3 == 0 { 1 } else { 2 }, 100, n * 10);
        }
        let round = turnover.round(100, 10_000);
        assert!((500..750).contains(&round), "{round}");
        // Of fewer items than before, and of more than the marks tell of.
        assert!((200..400).contains(&turnover.round(50, 10_000)));
        assert!((5000..7000).contains(&turnover.round(1000, 10_000)));
    }

    #[test]
    fn who_stands_still_grows_older_with_the_others_stores() {
        let mut turnover = Turnover::default();
        (0..1000).for_each(|n| turnover.step(1, 100, n));
        let before = turnover.round(100, 1000);
        let after = turnover.round(100, 6000);
        assert!((4500..5500).contains(&(after - before)), "{before} {after}");
        (0..300).for_each(|n| turnover.step(1, 100, 6000 + n));
        assert!(turnover.round(100, 6300) < 150, "back to where it was");
    }
}
