//! `flush_all`: every item stored before a moment is gone, without touching any of them.
//!
//! F1. An immediate flush in second `t` ends the items last accessed before `t`, and of those accessed in `t` the ones
//!     of an older generation: so a store later in the same second lives.
//! F2. A delayed flush ends, once its second has come, the items last accessed before it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::item::State;
use crate::clock::RelTime;

/// Generations that two bits of the state word tell apart.
pub const GENERATIONS: u16 = 4;

/// The moment before which everything is flushed.
#[derive(Debug, Default)]
pub struct FlushMark {
    /// `second << 8 | generation` of the last immediate flush.
    mark: AtomicU64,
    /// The second of the delayed flush, 0 if there is none.
    due: AtomicU32,
    /// Immediate flushes in the second of the mark.
    in_a_row: Mutex<u16>,
}

impl FlushMark {
    /// The mark as words, to go on with it elsewhere: mark, delayed flush, flushes in a row.
    pub fn words(&self) -> [u64; 3] {
        let in_a_row = self.in_a_row.lock();
        let due = u64::from(self.due.load(Relaxed));
        [self.mark.load(Relaxed), due, u64::from(*in_a_row)]
    }

    /// Goes on with a mark that was left like this.
    pub fn resume([mark, due, in_a_row]: [u64; 3]) -> Self {
        FlushMark {
            mark: AtomicU64::new(mark),
            due: AtomicU32::new(due as u32),
            in_a_row: Mutex::new(in_a_row as u16),
        }
    }

    /// The generation new items are stored in, as state bits.
    #[inline]
    pub fn generation_bits(&self) -> State {
        State::of_generation((self.mark.load(Relaxed) & 0xff) as u16)
    }

    /// True if an item with this state word and last access has been flushed.
    #[inline]
    pub fn covers(&self, state: State, accessed_at: RelTime, now: RelTime) -> bool {
        let mark = self.mark.load(Relaxed);
        let second = (mark >> 8) as u32;
        let due = self.due.load(Relaxed);
        accessed_at.0 < second
            || (accessed_at.0 == second && (mark & 0xff) as u16 != state.generation())
            || (due != 0 && now.0 >= due && accessed_at.0 < due)
    }

    /// Flushes everything stored so far. True if the generations of this second are used up: the caller then has to
    /// unlink all items itself.
    #[must_use]
    pub fn flush_now(&self, now: RelTime) -> bool {
        let mut in_a_row = self.in_a_row.lock();
        let mark = self.mark.load(Relaxed);
        *in_a_row = if (mark >> 8) as u32 == now.0 {
            *in_a_row + 1
        } else {
            1
        };
        let generation = ((mark & 0xff) + 1) % u64::from(GENERATIONS);
        self.mark.store(u64::from(now.0) << 8 | generation, Relaxed);
        self.due.store(0, Relaxed);
        *in_a_row >= GENERATIONS
    }

    /// When a delayed flush comes due that is still ahead.
    pub fn due(&self, now: RelTime) -> Option<RelTime> {
        let due = RelTime(self.due.load(Relaxed));
        (due > now).then_some(due)
    }

    /// The second of the last delayed flush that has come due, if there is one.
    pub fn came_due(&self, now: RelTime) -> Option<RelTime> {
        let due = RelTime(self.due.load(Relaxed));
        (due.0 != 0 && due <= now).then_some(due)
    }

    /// Flushes at `when` what is older by then; a later call replaces one that has not come due. True if one had.
    pub fn flush_at(&self, when: RelTime, now: RelTime) -> bool {
        let _alone = self.in_a_row.lock();
        let due = self.due.load(Relaxed);
        let had_come = due != 0 && now.0 >= due;
        if had_come {
            // What has come due stays so: the mark takes it over, in the present generation.
            let generation = self.mark.load(Relaxed) & 0xff;
            self.mark.store(u64::from(due) << 8 | generation, Relaxed);
        }
        self.due.store(when.0, Relaxed);
        had_come
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_later_in_the_second_of_the_flush_lives() {
        let mark = FlushMark::default();
        let before = mark.generation_bits();
        assert!(!mark.covers(before, RelTime(5), RelTime(5)));
        assert!(!mark.flush_now(RelTime(5)));
        assert!(mark.covers(before, RelTime(5), RelTime(5)));
        assert!(mark.covers(before, RelTime(4), RelTime(5)));
        let after = mark.generation_bits();
        assert!(!mark.covers(after, RelTime(5), RelTime(5)));
        assert!(!mark.covers(after, RelTime(5), RelTime(9)));
    }

    #[test]
    fn the_caller_learns_when_generations_run_out() {
        let mark = FlushMark::default();
        let full: Vec<bool> = (0..4).map(|_| mark.flush_now(RelTime(7))).collect();
        assert_eq!(full, [false, false, false, true]);
        assert!(!mark.flush_now(RelTime(8)));
    }

    #[test]
    fn a_delayed_flush_waits_for_its_second() {
        let mark = FlushMark::default();
        let bits = mark.generation_bits();
        assert!(!mark.flush_at(RelTime(20), RelTime(10)));
        assert_eq!(mark.came_due(RelTime(19)), None);
        assert_eq!(mark.came_due(RelTime(20)), Some(RelTime(20)));
        assert!(!mark.covers(bits, RelTime(10), RelTime(19)));
        assert!(mark.covers(bits, RelTime(10), RelTime(20)));
        assert!(!mark.covers(bits, RelTime(20), RelTime(20)));
        assert!(mark.flush_at(RelTime(40), RelTime(30)));
        assert!(mark.covers(bits, RelTime(10), RelTime(30)));
        assert!(!mark.covers(bits, RelTime(25), RelTime(30)));
        assert!(mark.covers(bits, RelTime(25), RelTime(40)));
    }
}
