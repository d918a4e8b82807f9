//! Counters: each worker thread writes its own, `stats` adds them up when it is asked.
//!
//! Ct1. A [`ThreadStats`] has one writer, so counting is a plain load and store, no locked instruction.
//! Ct2. `stats reset` changes no counter of a worker: it remembers the sums, and they are subtracted from then on.

use std::ops::{AddAssign, Sub};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;
use slab_alloc::CLASSES_MAX;

use crate::keyspace::misses::{MISSES, Miss};

/// One counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; only the owning thread may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds 1; only the owning thread may call it.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// The present value, from any thread.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Declares a block of counters and the plain numbers they are read into.
macro_rules! counters {
    ($(#[$doc:meta])* $live:ident, $sum:ident { $($name:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[allow(missing_docs, reason = "each counter is the `stats` key of its name")]
        pub struct $live { $(pub $name: Counter),* }

        /// The counters' values at one moment.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each number is the `stats` key of its name")]
        pub struct $sum { $(pub $name: u64),* }

        impl $live {
            /// Reads every counter.
            pub fn read(&self) -> $sum {
                $sum { $($name: self.$name.get()),* }
            }
        }

        impl AddAssign for $sum {
            fn add_assign(&mut self, other: Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }
        }

        impl Sub for $sum {
            type Output = Self;
            fn sub(self, base: Self) -> Self {
                $sum { $($name: self.$name.wrapping_sub(base.$name)),* }
            }
        }
    };
}

counters! {
    /// What a worker counts for the whole server.
    GeneralCounters, GeneralSums {
        cmd_get, cmd_flush, cmd_touch, cmd_meta, get_hits, get_misses, get_expired, get_flushed, touch_hits,
        missed_never_seen, missed_evicted, missed_expired, missed_deleted, missed_flushed,
        touch_misses, delete_misses, incr_misses, decr_misses, cas_misses, store_too_large, store_no_memory,
        auth_cmds, auth_errors, bytes_read, bytes_written, conn_yields, idle_kicks, blocks_timed_out, blocks_given_way, readers_given_way, read_buf_oom, response_obj_oom,
    }
}

counters! {
    /// What a worker counts for each slab class.
    ClassCounters, ClassSums {
        get_hits, cmd_set, touch_hits, delete_hits, incr_hits, decr_hits, cas_hits, cas_badval,
        hits_to_hot, hits_to_warm, hits_to_cold, hits_to_temp,
    }
}

impl GeneralSums {
    /// Reads that missed, by why, in the order of [`Miss::ALL`].
    pub fn misses(&self) -> [u64; MISSES] {
        [
            self.missed_never_seen,
            self.missed_evicted,
            self.missed_expired,
            self.missed_deleted,
            self.missed_flushed,
        ]
    }
}

impl GeneralCounters {
    /// Counts a read that missed.
    #[inline]
    pub fn count_miss(&self, miss: Miss) {
        match miss {
            Miss::NeverSeen => &self.missed_never_seen,
            Miss::Evicted => &self.missed_evicted,
            Miss::Expired => &self.missed_expired,
            Miss::Deleted => &self.missed_deleted,
            Miss::Flushed => &self.missed_flushed,
        }
        .inc();
    }
}

/// One thread's counters.
#[derive(Debug)]
pub struct ThreadStats {
    /// For the whole server.
    pub general: GeneralCounters,
    /// By slab class; `set` misses of every class count under class 0, which holds no items.
    pub classes: [ClassCounters; CLASSES_MAX],
}

impl Default for ThreadStats {
    fn default() -> Self {
        ThreadStats {
            general: GeneralCounters::default(),
            classes: std::array::from_fn(|_| ClassCounters::default()),
        }
    }
}

/// The sums over all threads.
#[derive(Debug, Clone, Copy)]
pub struct Sums {
    /// For the whole server.
    pub general: GeneralSums,
    /// By slab class.
    pub classes: [ClassSums; CLASSES_MAX],
}

impl Default for Sums {
    fn default() -> Self {
        Sums {
            general: GeneralSums::default(),
            classes: [ClassSums::default(); CLASSES_MAX],
        }
    }
}

impl Sums {
    /// All classes added up.
    pub fn over_classes(&self) -> ClassSums {
        let mut total = ClassSums::default();
        for class in &self.classes {
            total += *class;
        }
        total
    }
}

/// Declares counts that any thread changes, the plain numbers they are read into, and what `stats reset` does to each:
/// `reset` those that count events, `kept` those that tell how many there are now.
macro_rules! shared_counts {
    ($(#[$doc:meta])* $live:ident, $read:ident { $($(#[$name_doc:meta])* $name:ident: $at_reset:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[allow(missing_docs, reason = "each count is the `stats` key of its name")]
        pub struct $live { $($(#[$name_doc])* pub $name: std::sync::atomic::AtomicU64),* }

        /// The counts at one moment.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each number is the `stats` key of its name")]
        pub struct $read { $($(#[$name_doc])* pub $name: u64),* }

        impl $live {
            /// Reads every count.
            pub fn read(&self) -> $read {
                let relaxed = std::sync::atomic::Ordering::Relaxed;
                $read { $($name: self.$name.load(relaxed)),* }
            }

            /// Starts counting events from 0 again.
            pub fn reset(&self) {
                $($crate::stats::shared_counts!(@$at_reset self.$name);)*
            }
        }
    };
    (@reset $count:expr) => { $count.store(0, std::sync::atomic::Ordering::Relaxed) };
    (@kept $count:expr) => {};
}

pub(crate) use shared_counts;

shared_counts! {
    /// What the connections with TLS count, whichever thread serves them: at most once each.
    TlsCounters, TlsNumbers {
        ssl_new_sessions: reset,
        ssl_handshake_errors: reset,
        ssl_proto_errors: reset,
    }
}

/// Every thread's counters.
#[derive(Debug)]
pub struct Stats {
    threads: Box<[CachePadded<ThreadStats>]>,
    base: Mutex<Sums>,
}

impl Stats {
    /// Counters for `threads` threads.
    pub fn new(threads: usize) -> Self {
        Stats {
            threads: (0..threads).map(|_| CachePadded::default()).collect(),
            base: Mutex::default(),
        }
    }

    /// The counters of thread `index`, for that thread alone to write.
    pub fn thread(&self, index: usize) -> &ThreadStats {
        &self.threads[index]
    }

    /// The index of the thread whose counters these are.
    pub fn thread_of(&self, counters: &ThreadStats) -> usize {
        let is_it = |thread: &CachePadded<ThreadStats>| std::ptr::eq(&**thread, counters);
        let index = self.threads.iter().position(is_it);
        index.expect("counters come from `thread`")
    }

    fn raw(&self) -> Sums {
        let mut sums = Sums::default();
        for thread in &self.threads {
            sums.general += thread.general.read();
            for (sum, class) in sums.classes.iter_mut().zip(&thread.classes) {
                *sum += class.read();
            }
        }
        sums
    }

    /// The sums since the start or the last reset.
    pub fn read(&self) -> Sums {
        let mut sums = self.raw();
        let base = self.base.lock();
        sums.general = sums.general - base.general;
        for (sum, base) in sums.classes.iter_mut().zip(&base.classes) {
            *sum = *sum - *base;
        }
        sums
    }

    /// Starts counting from 0 again (`stats reset`).
    pub fn reset(&self) {
        let raw = self.raw();
        *self.base.lock() = raw;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_added_up_and_a_reset_subtracts() {
        let stats = Stats::new(2);
        stats.thread(0).general.cmd_get.add(3);
        stats.thread(1).general.cmd_get.inc();
        stats.thread(1).classes[4].get_hits.add(5);
        assert_eq!(stats.read().general.cmd_get, 4);
        assert_eq!(stats.read().over_classes().get_hits, 5);
        stats.reset();
        stats.thread(0).general.cmd_get.inc();
        assert_eq!(stats.read().general.cmd_get, 1);
        assert_eq!(stats.read().classes[4].get_hits, 0);
    }
}
