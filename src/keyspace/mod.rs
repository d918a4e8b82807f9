//! What goes on among the keys, watched by each worker for itself and put together when somebody asks.
//!
//! ```text
//!  worker: a request is done --(Observer::wants)--> counts down          one in 128 --> tables: hot keys, prefixes
//!                                                  hash ends so                     --> ring to the watcher
//!          a turn is done --(turn_done)--> counts down                    one in 128 --> histograms by command group
//!                                          was it slow?                             --> ring of slow requests
//!  watcher thread, once a second --(Keyspace::tick)--> hot list, hot now, what-if      read by whoever reports
//! ```
//!
//! Ks1. No worker waits for anybody: where it shares a table with the watcher it only tries the lock, and a request that
//!      finds it taken is not looked at.
//! Ks2. An [`Observer`] has one worker that writes to it.
//!
//! The room is a leaf: it has heard of keys, hashes and bytes, and of nothing that stores or serves them.

pub mod by_prefix;
pub mod hot_keys;
pub mod latency;
pub mod misses;
mod observer;
mod prefixes;
mod sampler;
pub mod slow;
mod space_saving;
#[cfg(test)]
pub(crate) mod testing;
mod turns;
mod turns_left;
pub mod whatif;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use by_prefix::{ByPrefix, Prefix, Walked};
use hot_keys::{HotKeys, HotList, HotNow, Merge};
use latency::{GROUPS, Group, Histogram, Times};
use slow::Slow;
use whatif::{Expected, Kind, Measured, Ring, TIMES, WhatIf};

use crate::sys::TickMeter;

pub use observer::{Asked, Ended, Observer, Outcome, Wanted};
pub use prefixes::Prefixes;
pub use turns::SlowTurn;

/// What all workers see together.
#[derive(Debug)]
pub struct Keyspace {
    workers: Box<[CachePadded<Observer>]>,
    /// Which keys are hot now, for whoever has a key's hash.
    pub hot_now: HotNow,
    hot: Mutex<Arc<HotList>>,
    walked: Mutex<Arc<Walked>>,
    what_if: Mutex<WhatIf>,
    /// Bytes that it took at the last tick.
    what_if_bytes: AtomicU64,
    /// What was counted before the last reset, by group and then of waiting.
    before: Mutex<Vec<Times>>,
    meter: Mutex<TickMeter>,
}

/// What the watcher tells at each tick.
#[derive(Debug, Clone, Copy)]
pub struct Tick {
    /// The server's second.
    pub now_s: u32,
    /// Reads and hits since the last tick.
    pub measured: Measured,
    /// Bytes of items in the cache when it is full.
    pub full_bytes: u64,
    /// How the cache decides who gives way.
    pub kind: Kind,
}

impl Keyspace {
    /// Observers for so many workers, that cut prefixes at `delimiter`.
    pub fn new(workers: usize, delimiter: u8) -> Self {
        // Before the observers: they go by the ticks that it has measured.
        let meter = TickMeter::default();
        let observer = |index| CachePadded::new(Observer::new(index, delimiter));
        Keyspace {
            meter: Mutex::new(meter),
            workers: (0..workers).map(observer).collect(),
            hot_now: HotNow::default(),
            hot: Mutex::default(),
            walked: Mutex::default(),
            what_if: Mutex::default(),
            what_if_bytes: AtomicU64::new(0),
            before: Mutex::new(vec![Times::default(); GROUPS + 1]),
        }
    }

    /// The observer of worker `index`, for it alone to write.
    pub fn observer(&self, index: usize) -> &Observer {
        &self.workers[index]
    }

    /// Takes what the workers follow; several times a second, by one thread.
    pub fn drain(&self) {
        let mut what_if = self.what_if.lock();
        let mut lost = false;
        for worker in &self.workers {
            let note = |hash, deed, bytes| what_if.note(hash, deed, bytes);
            lost |= worker.ring.drain(note);
        }
        if lost {
            what_if.follow_fewer();
        }
        for worker in &self.workers {
            worker.follow_mask.store(what_if.one_in() - 1, Relaxed);
        }
    }

    /// Puts the workers' tables together; once a second, by the same thread.
    pub fn tick(&self, tick: Tick) {
        self.drain();
        self.meter.lock().measure();
        let mut merge = Merge::default();
        for worker in &self.workers {
            worker.turns.adjust();
            merge.take(&mut worker.close.lock().hot, tick.now_s);
        }
        let list = merge.finish();
        self.hot_now.publish(&list);
        *self.hot.lock() = Arc::new(list);
        let mut what_if = self.what_if.lock();
        what_if.fade(whatif::FADE_A_SECOND);
        what_if.measure(tick.measured);
        what_if.shape(tick.full_bytes, tick.kind);
        self.what_if_bytes.store(what_if.bytes() as u64, Relaxed);
    }

    /// Bytes of memory that all of it takes.
    pub fn bytes(&self) -> u64 {
        let worker = size_of::<Observer>()
            + Ring::BYTES
            + (GROUPS + 1) * Histogram::BYTES
            + HotKeys::BYTES
            + ByPrefix::BYTES;
        (self.workers.len() * worker) as u64 + self.what_if_bytes.load(Relaxed)
    }

    /// The hottest keys of the last second.
    pub fn hot(&self) -> Arc<HotList> {
        self.hot.lock().clone()
    }

    /// What is done by prefix, and what the last walk found.
    pub fn prefixes(&self) -> Vec<Prefix> {
        let walked = self.walked();
        let copy = |worker: &CachePadded<Observer>| worker.close.lock().prefixes.clone();
        let tables: Vec<ByPrefix> = self.workers.iter().map(copy).collect();
        by_prefix::merge(&tables, &walked)
    }

    /// The last complete walk.
    pub fn walked(&self) -> Arc<Walked> {
        self.walked.lock().clone()
    }

    /// Shows what a walk has found, now that it is complete.
    pub fn show_walk(&self, walked: Walked) {
        *self.walked.lock() = Arc::new(walked);
    }

    /// The latest slow requests of all workers, the newest last.
    pub fn slow(&self) -> Vec<Slow> {
        let mut all = Vec::new();
        for worker in &self.workers {
            all.extend(worker.close.lock().slow.iter().cloned());
        }
        all.sort_by_key(|slow| slow.at_s);
        all
    }

    /// How long the requests of a group took, since the start or the last reset; of one turn in 128, which stands for all.
    pub fn latency(&self, group: Group) -> Times {
        self.latency_ever(group)
            .since(&self.before.lock()[group as usize])
    }

    /// How long requests that had come waited for their turn: of one turn in 128.
    pub fn wait(&self) -> Times {
        self.wait_ever().since(&self.before.lock()[GROUPS])
    }

    fn latency_ever(&self, group: Group) -> Times {
        let workers = self.workers.iter();
        Histogram::sum(workers.map(|worker| &worker.turns.latency[group as usize]))
    }

    fn wait_ever(&self) -> Times {
        Histogram::sum(self.workers.iter().map(|worker| &worker.turns.wait))
    }

    /// Expected hit ratios with other amounts of memory; see [`WhatIf::expect`].
    pub fn expect(&self) -> Option<[Expected; TIMES.len()]> {
        self.what_if.lock().expect()
    }

    /// Forgets times, prefixes, hot keys and slow requests (`stats reset`).
    pub fn reset(&self) {
        let mut ever: Vec<Times> = Group::ALL.map(|group| self.latency_ever(group)).into();
        ever.push(self.wait_ever());
        *self.before.lock() = ever;
        for worker in &self.workers {
            let mut close = worker.close.lock();
            close.hot.clear();
            close.prefixes.clear();
            close.slow.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::misses::Miss;
    use super::*;

    fn note(observer: &Observer, key: &str, outcome: Outcome) {
        let asked = Asked {
            group: Group::Get,
            hash: space_saving::hash_name(key.as_bytes()),
            key: key.as_bytes(),
        };
        if observer.wants(asked.hash) == Wanted::Look {
            let bytes = 100;
            observer.look(asked, Ended { outcome, bytes }, 5);
        }
    }

    fn tick(now_s: u32) -> Tick {
        Tick {
            now_s,
            measured: Measured::default(),
            full_bytes: 1 << 20,
            kind: Kind::S3Fifo,
        }
    }

    #[test]
    fn few_requests_are_counted_exactly() {
        let keyspace = Keyspace::new(2, b':');
        for n in 0..100 {
            let observer = keyspace.observer(n % 2);
            note(observer, "user:1", Outcome::Hit);
            note(observer, "user:2", Outcome::Miss(Miss::Expired));
            note(observer, "plain", Outcome::Stored);
        }
        keyspace.tick(tick(6));
        let hot = keyspace.hot();
        assert_eq!(hot.reads[0].count, 100);
        assert_eq!(hot.writes[0].key, b"plain");
        let prefixes = keyspace.prefixes();
        assert_eq!(prefixes.len(), 1);
        let counts = prefixes[0].counts;
        assert_eq!((counts.reads, counts.hits), (200, 100));
        assert_eq!(counts.misses[Miss::Expired as usize], 100);
        keyspace.reset();
        assert!(keyspace.prefixes().is_empty());
        assert_eq!(keyspace.latency(Group::Get).count(), 0);
    }
}
