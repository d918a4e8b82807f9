//! The places of the dumps that run at the same time.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Dumps that run at the same time. memcached has one; four are enough to copy a cache and look at another at once.
pub const DUMP_PLACES: usize = 4;

/// The places of the dumps that run.
#[derive(Debug, Default)]
pub struct DumpPlaces(AtomicUsize);

impl DumpPlaces {
    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// A place, if one is free.
    pub fn take(&self) -> Option<DumpPlace<'_>> {
        let one_more = |taken: usize| (taken < DUMP_PLACES).then_some(taken + 1);
        let taken = self.0.fetch_update(Relaxed, Relaxed, one_more);
        taken.ok().map(|_| DumpPlace(&self.0))
    }
}

/// One of them, given back when it is dropped.
#[derive(Debug)]
pub struct DumpPlace<'c>(&'c AtomicUsize);

impl Drop for DumpPlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
