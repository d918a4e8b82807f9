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
}

impl OverflowBuckets {
    /// Room for so many.
    pub fn new(capacity: usize) -> io::Result<Self> {
        Ok(OverflowBuckets {
            buckets: Reserved::new(capacity)?,
            free: Mutex::new(Free {
                head: 0,
                used_mark: 1,
                in_use: 0,
            }),
        })
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
        index
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
