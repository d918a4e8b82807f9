//! What threads tell, in buffers of their own, taken out in order.
//!
//! ```text
//!  thread --tell--> its ring: records, of each a ticket and its length --drain: all rings, by ticket--> whoever listens
//! ```
//!
//! Ri1. A record gets its ticket and its place in the ring under the ring's lock. Of two that are told one after the other,
//!     as under a key's stripe, the later has the larger ticket, and is in its ring only when the earlier one is in its own.
//! Ri2. A drain holds all rings at once: with a record it takes all earlier ones of its key. So what drains give, one after
//!     the other, is in each key's order.
//! Ri3. Who holds all rings tells before all that is told afterwards, and behind all that was told before.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

/// Room that an emptied ring keeps, in bytes.
const KEPT_BYTES: usize = 256 << 10;

/// The ring of a thread, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingId(pub u16);

impl RingId {
    /// That of threads that have none of their own.
    pub const COMMON: RingId = RingId(u16::MAX);

    /// Its place among so many.
    pub(super) fn index(self, rings: usize) -> usize {
        usize::from(self.0).min(rings - 1)
    }
}

/// A ring for each thread.
#[derive(Debug)]
pub(super) struct Rings {
    rings: Box<[CachePadded<Mutex<Told>>]>,
    ticket: CachePadded<AtomicU64>,
}

/// Records, one behind the other.
#[derive(Debug, Default)]
struct Told {
    records: Vec<u8>,
    /// Of each its ticket and its length.
    index: Vec<(u64, u32)>,
}

impl Told {
    #[inline]
    fn tell(&mut self, ticket: &AtomicU64, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let before = self.records.len();
        write(&mut self.records);
        let len = (self.records.len() - before) as u32;
        self.index.push((ticket.fetch_add(1, Relaxed), len));
        self.records.len()
    }
}

/// All rings, held.
#[derive(Debug)]
pub(super) struct Held<'r> {
    rings: Vec<MutexGuard<'r, Told>>,
    ticket: &'r AtomicU64,
}

impl Held<'_> {
    /// Tells something (Ri3).
    pub(super) fn tell(&mut self, ring: RingId, write: impl FnOnce(&mut Vec<u8>)) {
        let index = ring.index(self.rings.len());
        self.rings[index].tell(self.ticket, write);
    }
}

impl Rings {
    /// One for each of so many threads, and a common one.
    pub(super) fn new(threads: usize) -> Self {
        Rings {
            rings: (0..=threads).map(|_| CachePadded::default()).collect(),
            ticket: CachePadded::default(),
        }
    }

    /// Has a record written to a ring; gives the bytes that lie in it then.
    #[inline]
    pub(super) fn tell(&self, ring: RingId, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.rings[ring.index(self.rings.len())]
            .lock()
            .tell(&self.ticket, write)
    }

    /// Holds all rings: nobody tells anything meanwhile.
    pub(super) fn hold(&self) -> Held<'_> {
        Held {
            rings: self.rings.iter().map(|ring| ring.lock()).collect(),
            ticket: &self.ticket,
        }
    }

    /// Takes the records of all rings into `drained`, in order (Ri2). False if there are none.
    pub(super) fn drain(&self, drained: &mut Drained) -> bool {
        let mut all = self.hold().rings;
        drained.taken.resize_with(all.len(), Told::default);
        let mut rings = 0;
        for (taken, told) in drained.taken.iter_mut().zip(&mut all) {
            taken.records.clear();
            taken.index.clear();
            if !told.index.is_empty() {
                std::mem::swap(taken, &mut **told);
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

    /// How many records there are.
    pub(super) fn count(&self) -> usize {
        self.taken.iter().map(|told| told.index.len()).sum()
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

    fn numbers(drained: &Drained) -> Vec<u64> {
        let number = |record: &[u8]| u64::from_le_bytes(record.try_into().unwrap());
        drained.records().chunks_exact(8).map(number).collect()
    }

    #[test]
    fn what_several_rings_tell_comes_in_the_order_it_was_told() {
        let (rings, mut drained) = (Rings::new(3), Drained::default());
        assert!(!rings.drain(&mut drained) && drained.records().is_empty());
        let tell = |ring: u64, n: u64| {
            rings.tell(RingId(ring as u16), |out| out.extend(n.to_le_bytes()));
        };
        (0..100).for_each(|n| tell(n * 7 % 3, n));
        assert!(rings.drain(&mut drained));
        assert_eq!(
            (numbers(&drained), drained.count()),
            ((0..100).collect(), 100)
        );
        tell(1, 7);
        assert!(rings.drain(&mut drained));
        assert_eq!(numbers(&drained), [7]);
        drained.shrink();
        assert!(!rings.drain(&mut drained) && drained.records().is_empty());
    }

    /// Ri1 and Ri2: threads that take turns at a lock, as at a key's stripe.
    #[test]
    fn drains_keep_the_order_of_each_key() {
        let rings = Rings::new(4);
        let stripes: Vec<Mutex<u64>> = (0..3).map(|_| Mutex::default()).collect();
        const EACH: u64 = 20_000;
        let (done, mut seen) = (AtomicU64::new(0), vec![0u64; 3]);
        std::thread::scope(|scope| {
            for thread in 0..3u16 {
                let (rings, stripes, done) = (&rings, &stripes, &done);
                scope.spawn(move || {
                    for n in 0..EACH {
                        let stripe = (n * 5 + u64::from(thread)) as usize % 3;
                        let mut count = stripes[stripe].lock();
                        *count += 1;
                        let record = *count << 8 | stripe as u64;
                        rings.tell(RingId(thread), |out| out.extend(record.to_le_bytes()));
                    }
                    done.fetch_add(1, SeqCst);
                });
            }
            let mut drained = Drained::default();
            loop {
                let last = done.load(SeqCst) == 3;
                rings.drain(&mut drained);
                for record in numbers(&drained) {
                    let key = (record & 0xff) as usize;
                    assert_eq!(record >> 8, seen[key] + 1, "key {key}");
                    seen[key] = record >> 8;
                }
                if last {
                    break;
                }
            }
        });
        assert_eq!(seen.iter().sum::<u64>(), 3 * EACH);
    }
}
