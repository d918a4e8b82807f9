//! The overflow buckets, shared by all stripes: taken when a chain grows beyond its bucket, given back when it shrinks.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::{Mutex, MutexGuard};
use slab_alloc::Reserved;

use super::block::{Block, Overflow};

/// All overflow buckets. Their numbers begin at 1, since index 0 means none.
#[derive(Debug)]
pub struct OverflowBuckets {
    buckets: Reserved<Overflow>,
    free: Mutex<Free>,
}

/// Those not in use: a list through their first word, and the mark above which none was ever used.
#[derive(Debug)]
struct Free {
    head: u32,
    used_mark: u32,
    in_use: u32,
    /// Those below have memory (only counted where that has to be asked for).
    backed: u32,
}

/// Buckets that get memory at a time: 1 MB of them.
const BACKED_AT_A_TIME: u32 = (1 << 20) / size_of::<Overflow>() as u32;

/// What must be known of them beside their content, to go on with them in another process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OverflowRecord {
    /// The first that is free, 0 for none.
    pub head: u32,
    /// The first that was never used.
    pub used_mark: u32,
    /// How many are in chains.
    pub in_use: u32,
}

impl OverflowBuckets {
    /// Room for so many.
    pub fn new(capacity: usize) -> io::Result<Self> {
        let none = OverflowRecord {
            used_mark: 1,
            ..OverflowRecord::default()
        };
        Ok(Self::of(Reserved::new(capacity)?, none))
    }

    /// Those in `buckets`, which lie in a file and were left like this.
    pub fn of(buckets: Reserved<Overflow>, record: OverflowRecord) -> Self {
        let free = Free {
            head: record.head,
            used_mark: record.used_mark,
            in_use: record.in_use,
            backed: record.used_mark,
        };
        OverflowBuckets {
            buckets,
            free: Mutex::new(free),
        }
    }

    /// What is to be known of them to go on with them.
    pub fn record(&self) -> OverflowRecord {
        let free = self.free();
        OverflowRecord {
            head: free.head,
            used_mark: free.used_mark,
            in_use: free.in_use,
        }
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock()
    }

    /// The one of that index.
    pub fn get(&self, index: u32) -> Block<'_> {
        Block(self.buckets.get(index as usize))
    }

    /// Asks the processor for it.
    #[inline]
    pub fn prefetch(&self, index: u32) {
        self.buckets.prefetch(index as usize);
    }

    /// The index of one without slots in use.
    pub fn take(&self) -> u32 {
        let mut free = self.free();
        free.in_use += 1;
        if free.head != 0 {
            let head = free.head;
            free.head = self.buckets.get(head as usize)[0].swap(0, Relaxed) as u32;
            return head;
        }
        let index = free.used_mark;
        free.used_mark += 1;
        if self.buckets.wants_backing() && free.used_mark > free.backed {
            self.back(&mut free);
        }
        let words = self.buckets.get(index as usize);
        words.iter().for_each(|word| word.store(0, Relaxed));
        index
    }

    /// Gets memory for more of them.
    #[cold]
    fn back(&self, free: &mut Free) {
        // At the beginning from 0 on.
        let from = if free.backed <= 1 { 0 } else { free.backed };
        let to = free.used_mark + BACKED_AT_A_TIME;
        let backed = self.buckets.back(from as usize..to as usize);
        backed.expect("where the file has no space, the process has memory");
        free.backed = to;
    }

    /// Takes back one that is empty and in no chain.
    pub fn give(&self, index: u32) {
        let mut free = self.free();
        free.in_use -= 1;
        let words = self.buckets.get(index as usize);
        words[0].store(u64::from(free.head), Relaxed);
        words[1].store(0, Relaxed);
        free.head = index;
    }

    /// How many are in use, and how many ever were.
    pub fn counts(&self) -> (usize, usize) {
        let free = self.free();
        (free.in_use as usize, free.used_mark as usize - 1)
    }
}
