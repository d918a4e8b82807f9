//! Why a key is not there: what became of the items that were unlinked lately.
//!
//! ```text
//!  hash --(upper bits)--> line: | 20 tags of 16 bits | 20 reasons | next |   one cache line, filled in a circle
//! ```
//!
//! Who unlinks an item and who misses one hold its stripe, so that a line is read and written by one thread at a time; if
//! two stripes share a line, one of two notes made at once may be lost.
//!
//! Mi1. The latest note of a key decides. A key that was stored and unlinked again has a newer note than before.
//! Mi2. Another key is taken for a noted one in 20 of 65,536 cases.
//!
//! Costs: 3.2 bytes a note; a note or a question touches one line.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering::Relaxed};

/// Notes of a line.
const NOTES: usize = 20;

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Gone {
    /// It gave way to others.
    Evicted = 1,
    /// Its time ran out.
    Expired,
    /// It was deleted, or its replacement was refused.
    Deleted,
    /// It was flushed.
    Flushed,
}

/// Why a read missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Miss {
    /// No note of it: never stored, or gone long ago.
    NeverSeen,
    /// See [`Gone::Evicted`].
    Evicted,
    /// See [`Gone::Expired`].
    Expired,
    /// See [`Gone::Deleted`].
    Deleted,
    /// See [`Gone::Flushed`].
    Flushed,
}

/// How many kinds of [`Miss`] there are.
pub const MISSES: usize = 5;

impl Miss {
    /// All kinds, in order.
    pub const ALL: [Miss; MISSES] = [
        Miss::NeverSeen,
        Miss::Evicted,
        Miss::Expired,
        Miss::Deleted,
        Miss::Flushed,
    ];

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Miss::NeverSeen => "never_seen",
            Miss::Evicted => "evicted",
            Miss::Expired => "expired",
            Miss::Deleted => "deleted",
            Miss::Flushed => "flushed",
        }
    }

    fn from_note(reason: u8) -> Self {
        match reason {
            1 => Miss::Evicted,
            2 => Miss::Expired,
            3 => Miss::Deleted,
            4 => Miss::Flushed,
            _ => Miss::NeverSeen,
        }
    }
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line {
    tags: [AtomicU16; NOTES],
    /// 0: there is no note.
    reasons: [AtomicU8; NOTES],
    next: AtomicU8,
}

const _: () = assert!(size_of::<Line>() == 64);

/// The notes of all stripes.
#[derive(Debug)]
pub struct Departed {
    count: usize,
    lines: OnceLock<Box<[Line]>>,
}

impl Departed {
    /// Room for about so many notes.
    pub fn new(notes: usize) -> Self {
        let departed = Self::later(notes);
        departed.prepare();
        departed
    }

    /// The same, but nothing is noted before [`Departed::prepare`]: for a start that nobody should wait for.
    pub fn later(notes: usize) -> Self {
        Departed {
            count: notes.div_ceil(NOTES).max(1),
            lines: OnceLock::new(),
        }
    }

    /// Gets the memory for the notes, if they have none: some milliseconds for each gigabyte of items.
    pub fn prepare(&self) {
        let lines = || (0..self.count).map(|_| Line::default()).collect();
        self.lines.get_or_init(lines);
    }

    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        self.lines.get().map_or(0, |lines| size_of_val(&lines[..]))
    }

    #[inline]
    fn line(&self, hash: u32) -> Option<&Line> {
        let lines = self.lines.get()?;
        let index = (u64::from(hash) * lines.len() as u64) >> 32;
        Some(&lines[index as usize])
    }

    /// Notes what became of an item whose key has this hash.
    #[inline]
    pub fn note(&self, hash: u32, gone: Gone) {
        let Some(line) = self.line(hash) else {
            return;
        };
        let next = usize::from(line.next.load(Relaxed));
        line.tags[next].store(hash as u16, Relaxed);
        line.reasons[next].store(gone as u8, Relaxed);
        let after = if next + 1 == NOTES { 0 } else { next + 1 };
        line.next.store(after as u8, Relaxed);
    }

    /// Why a key is not there.
    #[inline]
    pub fn why(&self, hash: u32) -> Miss {
        let Some(line) = self.line(hash) else {
            return Miss::NeverSeen;
        };
        let tag = hash as u16;
        let next = usize::from(line.next.load(Relaxed));
        // From the newest to the oldest.
        let newest_first = (0..next).rev().chain((next..NOTES).rev());
        for at in newest_first {
            if line.tags[at].load(Relaxed) == tag {
                return Miss::from_note(line.reasons[at].load(Relaxed));
            }
        }
        Miss::NeverSeen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::testing::Rng;

    #[test]
    fn the_latest_note_decides() {
        let departed = Departed::new(100);
        assert_eq!(departed.why(0), Miss::NeverSeen, "tag 0 is no note");
        departed.note(7, Gone::Deleted);
        assert_eq!(departed.why(7), Miss::Deleted);
        departed.note(7, Gone::Evicted);
        assert_eq!(departed.why(7), Miss::Evicted);
        for n in 0..19u32 {
            departed.note(100 + n, Gone::Expired);
        }
        assert_eq!(departed.why(7), Miss::Evicted);
        departed.note(200, Gone::Flushed);
        departed.note(201, Gone::Flushed);
        assert_eq!(departed.why(7), Miss::NeverSeen, "too long ago");
        assert_eq!(departed.why(200), Miss::Flushed);
    }

    #[test]
    fn most_of_the_latest_are_known_and_strangers_are_not() {
        let departed = Departed::new(100_000);
        let mut rng = Rng::new(4);
        let gone = [Gone::Evicted, Gone::Expired, Gone::Deleted, Gone::Flushed];
        let notes: Vec<(u32, Gone)> = (0..300_000)
            .map(|_| (rng.next() as u32, gone[rng.below(4)]))
            .collect();
        notes
            .iter()
            .for_each(|&(hash, gone)| departed.note(hash, gone));
        let right = |&&(hash, gone): &&(u32, Gone)| departed.why(hash) as u8 == gone as u8;
        let known = notes[250_000..].iter().filter(right).count();
        assert!(known > 49_900, "of the latest half of its room {known}");
        let strangers = 100_000;
        let taken = (0..strangers)
            .filter(|_| departed.why(rng.next() as u32) != Miss::NeverSeen)
            .count();
        assert!(taken < 60, "{taken}");
        assert!(departed.bytes() < 330_000);
    }
}
