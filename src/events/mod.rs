//! What happens to items, told to whoever listens: to the log, now.
//!
//! ```text
//!  entry (its stripe is locked) --tell--> ring of its worker: records and tickets --drain: all rings, by ticket--> reader
//!                                                                                    ^ before the worker's replies leave: is_unsettled
//! ```
//!
//! A leaf: who tells knows nothing of who listens.
//!
//! Ev1. Nobody listens: an event costs one relaxed load.
//! Ev2. An event gets its ticket and its place in the ring under the ring's lock, while its key's stripe is locked. So of two
//!     events of a key the later has the larger ticket, and is in its ring only when the earlier one is in its own.
//! Ev3. A drain holds all rings at once: with an event it takes all earlier ones of its key. So what drains give, one after
//!     the other, is in each key's order.
//! Ev4. A flush is told and done with all rings held: a store that it ends has a smaller ticket, one that outlives it a
//!     larger one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
pub use snapshot_file::{Marks, Meta};
use snapshot_file::{Pieces, push};

/// Room that an emptied ring keeps, in bytes.
const KEPT_BYTES: usize = 256 << 10;

/// The ring of a thread, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingId(pub u16);

impl RingId {
    /// That of threads that have none of their own.
    pub const COMMON: RingId = RingId(u16::MAX);
}

/// All rings.
#[derive(Debug)]
pub struct Events {
    is_heard: AtomicBool,
    rings: Box<[CachePadded<Ring>]>,
    ticket: CachePadded<AtomicU64>,
}

/// What one thread has told.
#[derive(Debug, Default)]
struct Ring {
    told: Mutex<Told>,
    /// Its thread has told something since it last settled.
    is_unsettled: AtomicBool,
}

/// Records, one behind the other.
#[derive(Debug, Default)]
struct Told {
    records: Vec<u8>,
    /// Of each its ticket and its length.
    index: Vec<(u64, u32)>,
}

/// A ring that is being told something.
#[derive(Debug)]
pub struct Teller<'r> {
    told: &'r mut Told,
    ticket: &'r AtomicU64,
}

impl Teller<'_> {
    fn told(&mut self, before: usize) {
        let ticket = self.ticket.fetch_add(1, Relaxed);
        let len = (self.told.records.len() - before) as u32;
        self.told.index.push((ticket, len));
    }

    /// An item was stored, or its value changed.
    pub fn stored<'p>(&mut self, key: &[u8], meta: &Meta, len: u32, value: impl Pieces<'p>) {
        let before = self.told.records.len();
        push::item(&mut self.told.records, key, meta, len, value);
        self.told(before);
    }

    /// An item was deleted that had this CAS unique.
    pub fn deleted(&mut self, key: &[u8], cas: u64) {
        let before = self.told.records.len();
        push::delete(&mut self.told.records, key, cas);
        self.told(before);
    }

    /// All but the value of an item has changed.
    pub fn touched(&mut self, key: &[u8], meta: &Meta) {
        let before = self.told.records.len();
        push::touch(&mut self.told.records, key, meta);
        self.told(before);
    }

    fn flushed(&mut self, at: u32) {
        let before = self.told.records.len();
        push::flush(&mut self.told.records, at);
        self.told(before);
    }
}

impl Events {
    /// With a ring for each of so many threads, and a common one.
    pub fn new(threads: usize) -> Self {
        Events {
            is_heard: AtomicBool::new(false),
            rings: (0..=threads).map(|_| CachePadded::default()).collect(),
            ticket: CachePadded::default(),
        }
    }

    /// True if somebody listens.
    #[inline]
    pub fn is_heard(&self) -> bool {
        self.is_heard.load(Relaxed)
    }

    /// Somebody listens from now on, or nobody any more.
    pub fn listen(&self, is_heard: bool) {
        self.is_heard.store(is_heard, Relaxed);
    }

    fn ring(&self, ring: RingId) -> &Ring {
        &self.rings[usize::from(ring.0).min(self.rings.len() - 1)]
    }

    /// Tells something on a ring; the caller has the key's stripe locked.
    #[cold]
    pub fn tell(&self, ring: RingId, tell: impl FnOnce(&mut Teller<'_>)) {
        let ring = self.ring(ring);
        let mut told = ring.told.lock();
        tell(&mut Teller {
            told: &mut told,
            ticket: &self.ticket,
        });
        ring.is_unsettled.store(true, Relaxed);
    }

    /// Does a flush and tells of it: all items are gone that were not asked for from `at` on, or 0 for now.
    pub fn flush<R>(&self, ring: RingId, at: u32, flush: impl FnOnce() -> R) -> R {
        if !self.is_heard() {
            return flush();
        }
        let mut all = self.hold_all();
        let flushed = flush();
        let own = usize::from(ring.0).min(all.len() - 1);
        Teller {
            told: &mut all[own],
            ticket: &self.ticket,
        }
        .flushed(at);
        self.rings[own].is_unsettled.store(true, Relaxed);
        flushed
    }

    fn hold_all(&self) -> Vec<MutexGuard<'_, Told>> {
        self.rings.iter().map(|ring| ring.told.lock()).collect()
    }

    /// True if the ring's thread has told something since it last asked: what listens has to be done with it before that
    /// thread's replies leave.
    #[inline]
    pub fn is_unsettled(&self, ring: RingId) -> bool {
        self.ring(ring).is_unsettled.load(Relaxed) && self.settles(ring)
    }

    #[cold]
    fn settles(&self, ring: RingId) -> bool {
        self.ring(ring).is_unsettled.swap(false, Relaxed)
    }

    /// Takes the records of all rings into `drained`, in order (Ev3). False if there are none.
    pub fn drain(&self, drained: &mut Drained) -> bool {
        let mut all = self.hold_all();
        drained.taken.resize_with(all.len(), Told::default);
        let mut rings = 0;
        for (taken, told) in drained.taken.iter_mut().zip(&mut all) {
            taken.records.clear();
            taken.index.clear();
            if !told.index.is_empty() {
                std::mem::swap(taken, told);
                rings += 1;
            }
        }
        drop(all);
        drained.merge(rings);
        rings > 0
    }
}

/// What a drain has taken. Kept from drain to drain, for its memory.
#[derive(Debug, Default)]
pub struct Drained {
    taken: Vec<Told>,
    merged: Vec<u8>,
    /// The ring whose records are all there are.
    only: Option<usize>,
}

/// What is left of a ring: of each record its ticket and length, and the records.
type Rest<'t> = (std::slice::Iter<'t, (u64, u32)>, &'t [u8]);

impl Drained {
    fn merge(&mut self, rings: usize) {
        self.merged.clear();
        self.only = None;
        match rings {
            0 => {}
            1 => self.only = self.taken.iter().position(|told| !told.index.is_empty()),
            _ => {
                let mut next: Vec<Rest<'_>> = self
                    .taken
                    .iter()
                    .map(|told| (told.index.iter(), &told.records[..]))
                    .collect();
                let ticket =
                    |(index, _): &Rest<'_>| index.as_slice().first().map(|&(ticket, _)| ticket);
                while let Some((index, records)) = next
                    .iter_mut()
                    .filter(|told| ticket(told).is_some())
                    .min_by_key(|told| ticket(told))
                {
                    let Some(&(_, len)) = index.next() else { break };
                    let (record, rest) = records.split_at(len as usize);
                    self.merged.extend_from_slice(record);
                    *records = rest;
                }
            }
        }
    }

    /// The records.
    pub fn records(&self) -> &[u8] {
        match self.only {
            Some(ring) => &self.taken[ring].records,
            None => &self.merged,
        }
    }

    /// Gives back memory that large values took.
    pub fn shrink(&mut self) {
        for told in &mut self.taken {
            told.records.clear();
            told.records.shrink_to(KEPT_BYTES);
        }
        self.merged.clear();
        self.merged.shrink_to(KEPT_BYTES);
        self.only = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::SeqCst;

    fn keys(drained: &Drained) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        let mut rest = drained.records();
        while !rest.is_empty() {
            let (record, behind) = snapshot_file::split_long(rest);
            let key_len = usize::from(record.bytes[1]);
            let from = snapshot_file::RECORD_BYTES;
            keys.push(record.bytes[from..from + key_len].to_vec());
            rest = behind;
        }
        keys
    }

    #[test]
    fn what_several_rings_tell_comes_in_the_order_it_was_told() {
        let events = Events::new(3);
        let mut drained = Drained::default();
        assert!(!events.drain(&mut drained) && drained.records().is_empty());
        for n in 0..100u16 {
            let ring = RingId(n * 7 % 3);
            events.tell(ring, |teller| teller.deleted(&n.to_be_bytes(), 1));
        }
        assert!(events.drain(&mut drained));
        let expected: Vec<Vec<u8>> = (0..100u16).map(|n| n.to_be_bytes().to_vec()).collect();
        assert_eq!(keys(&drained), expected);
        events.tell(RingId(1), |teller| teller.deleted(b"one", 1));
        assert!(events.drain(&mut drained));
        assert_eq!(keys(&drained), [b"one"]);
        drained.shrink();
        assert!(!events.drain(&mut drained) && drained.records().is_empty());
    }

    #[test]
    fn who_has_told_something_settles_once() {
        let events = Events::new(2);
        assert!(!events.is_unsettled(RingId(0)));
        events.tell(RingId(0), |teller| teller.deleted(b"a", 1));
        assert!(!events.is_unsettled(RingId(1)), "another ring");
        assert!(events.is_unsettled(RingId(0)));
        assert!(!events.is_unsettled(RingId(0)));
    }

    /// Ev2 and Ev3: threads that take turns at a lock, as at a key's stripe.
    #[test]
    fn drains_keep_the_order_of_each_key() {
        let events = Events::new(4);
        events.listen(true);
        let stripes: Vec<Mutex<u64>> = (0..3).map(|_| Mutex::default()).collect();
        const EACH: u64 = 20_000;
        let (done, mut seen) = (AtomicU64::new(0), vec![0u64; 3]);
        std::thread::scope(|scope| {
            for thread in 0..3u16 {
                let (events, stripes, done) = (&events, &stripes, &done);
                scope.spawn(move || {
                    for n in 0..EACH {
                        let stripe = (n * 5 + u64::from(thread)) as usize % 3;
                        let mut count = stripes[stripe].lock();
                        *count += 1;
                        let key = [stripe as u8];
                        events.tell(RingId(thread), |teller| teller.deleted(&key, *count));
                    }
                    done.fetch_add(1, SeqCst);
                });
            }
            let mut drained = Drained::default();
            loop {
                let last = done.load(SeqCst) == 3;
                events.drain(&mut drained);
                let mut rest = drained.records();
                while !rest.is_empty() {
                    let (record, behind) = snapshot_file::split_long(rest);
                    let key = usize::from(record.bytes[snapshot_file::RECORD_BYTES]);
                    let cas = u64::from_le_bytes(record.bytes[16..24].try_into().unwrap());
                    assert_eq!(cas, seen[key] + 1, "key {key}");
                    seen[key] = cas;
                    rest = behind;
                }
                if last {
                    break;
                }
            }
        });
        assert_eq!(seen.iter().sum::<u64>(), 3 * EACH);
    }
}
