//! Events from a worker to the watcher.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Events a worker may be ahead of the watcher, who comes ten times a second.
const RING: usize = 8192;

/// What became of a key that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Deed {
    /// It was read and was there.
    Hit,
    /// It was read and was not there, for want of memory or because it never was.
    Miss,
    /// It was read and would not have been there in any memory: it had expired, or was deleted or flushed.
    Gone,
    /// It was stored.
    Store,
    /// It was deleted.
    Delete,
}

impl Deed {
    const ALL: [Deed; 5] = [Deed::Hit, Deed::Miss, Deed::Gone, Deed::Store, Deed::Delete];
}

/// Events from one worker to the watcher. One that is not taken in time is overwritten.
#[derive(Debug)]
pub struct Ring {
    words: Box<[AtomicU64; RING]>,
    /// Events ever written, by the worker.
    written: AtomicU64,
    /// Events ever taken, by the watcher.
    taken: AtomicU64,
}

const BYTES_BITS: u32 = 28;

impl Default for Ring {
    fn default() -> Self {
        let words: Box<[AtomicU64]> = (0..RING).map(|_| AtomicU64::new(0)).collect();
        Ring {
            words: words.try_into().expect("there are so many"),
            written: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        }
    }
}

impl Ring {
    /// Bytes of memory that a ring takes.
    pub const BYTES: usize = RING * size_of::<AtomicU64>();

    /// Writes an event; only the owning worker may.
    #[inline(always)]
    pub fn push(&self, hash: u32, deed: Deed, bytes: u32) {
        let bytes = bytes.min((1 << BYTES_BITS) - 1);
        let word = u64::from(hash) << 32 | u64::from((deed as u32) << BYTES_BITS | bytes);
        let written = self.written.load(Relaxed);
        self.words[written as usize % RING].store(word, Relaxed);
        self.written.store(written + 1, Release);
    }

    /// Takes all events; only one thread may. True if some were lost since the last time.
    pub fn drain(&self, mut event: impl FnMut(u32, Deed, u32)) -> bool {
        let mut taken = self.taken.load(Relaxed);
        let mut lost = false;
        loop {
            let written = self.written.load(Acquire);
            // Those before were overwritten; the next to be may be half-way through.
            let least = written.saturating_sub(RING as u64 - 1);
            lost |= taken < least;
            taken = taken.max(least);
            if taken == written {
                break;
            }
            // A word that is overwritten at this moment is a newer event, which then counts twice.
            let word = self.words[taken as usize % RING].load(Relaxed);
            let deed = Deed::ALL[(word >> BYTES_BITS) as usize & 7];
            event(
                (word >> 32) as u32,
                deed,
                word as u32 & ((1 << BYTES_BITS) - 1),
            );
            taken += 1;
        }
        self.taken.store(taken, Relaxed);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_and_are_lost_when_nobody_takes_them() {
        let ring = Ring::default();
        for n in 0..RING as u32 + 10 {
            ring.push(n, Deed::ALL[n as usize % 5], n * 7);
        }
        let mut taken = Vec::new();
        let lost = ring.drain(|hash, deed, bytes| taken.push((hash, deed, bytes)));
        assert!(lost);
        assert_eq!(taken.len(), RING - 1);
        for (n, &(hash, deed, bytes)) in (11..).zip(&taken) {
            assert_eq!((hash, bytes), (n as u32, n as u32 * 7));
            assert_eq!(deed, Deed::ALL[n % 5]);
        }
        ring.push(5, Deed::Hit, u32::MAX);
        assert!(!ring.drain(|_, _, bytes| assert_eq!(bytes, (1 << BYTES_BITS) - 1)));
    }
}
