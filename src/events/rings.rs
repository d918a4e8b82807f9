//! What threads tell, in buffers of their own, taken out in order.
//!
//! ```text
//!  thread --tell--> its ring: records, of each a ticket and its length --drain: all rings, by ticket--> whoever listens
//!               \-> where there is room, its ring in a file (`sys::RingWriter`), which outlives the process --^
//! ```
//!
//! Ri1. A record gets its ticket and its place in the ring under the ring's lock. Of two that are told one after the other,
//!     as under a key's stripe, the later has the larger ticket, and is in its ring only when the earlier one is in its own.
//! Ri2. A drain holds all rings at once: with a record it takes all earlier ones of its key. So what drains give, one after
//!     the other, is in each key's order.
//! Ri3. Who holds all rings tells before all that is told afterwards, and behind all that was told before.
//! Ri4. Tickets have no gap: a drain takes all from the one behind the last drain's to the last that was given. Once something waits
//!     in memory, what the thread tells next waits behind it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use snapshot_file::{RingEvent, event_head};

use crate::sys::{RingReader, RingWriter, Told as Written};

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
    /// Where records go first, if there is a file for them.
    ring: Option<RingWriter>,
}

/// Where what was told has come to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lies {
    /// In memory, with so many bytes: the next drain takes it.
    Memory(usize),
    /// In the ring's file.
    File,
    /// There too, and a drain should come soon.
    FullFile,
}

impl Told {
    /// Keeps a record in memory, as the one that has the next ticket; gives the bytes that lie there then.
    #[inline(always)]
    fn keep(&mut self, ticket: &AtomicU64, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let before = self.records.len();
        write(&mut self.records);
        let len = (self.records.len() - before) as u32;
        self.index.push((ticket.fetch_add(1, Relaxed) + 1, len));
        self.records.len()
    }

    #[inline]
    fn tell(&mut self, ticket: &AtomicU64, write: impl FnOnce(&mut Vec<u8>)) -> Lies {
        let before = self.records.len();
        write(&mut self.records);
        let ticket = ticket.fetch_add(1, Relaxed) + 1;
        let record = &self.records[before..];
        if let Some(ring) = self.ring.as_mut().filter(|_| before == 0) {
            let written = ring.tell(&event_head(ticket, record), record);
            if written != Written::Full {
                self.records.clear();
                return match written {
                    Written::HalfFull => Lies::FullFile,
                    _ => Lies::File,
                };
            }
        }
        self.index.push((ticket, record.len() as u32));
        Lies::Memory(self.records.len())
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
    pub(super) fn tell(&mut self, ring: RingId, write: impl FnOnce(&mut Vec<u8>)) -> Lies {
        let index = ring.index(self.rings.len());
        self.rings[index].tell(self.ticket, write)
    }

    /// Lets what is told from now on go to these rings, one for each, or stay in memory if there are none; the next ticket is the one
    /// behind `last`.
    pub(super) fn write_to(&mut self, mut writers: Vec<RingWriter>, last: u64) {
        writers.reverse();
        for ring in &mut self.rings {
            ring.ring = writers.pop();
        }
        self.ticket.store(last, Relaxed);
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

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.rings.len()
    }

    /// Has a record written to a ring.
    #[inline]
    pub(super) fn tell(&self, ring: RingId, write: impl FnOnce(&mut Vec<u8>)) -> Lies {
        self.rings[ring.index(self.rings.len())]
            .lock()
            .tell(&self.ticket, write)
    }

    /// The same of rings that have no file; gives the bytes that lie in memory then.
    #[inline(always)]
    pub(super) fn keep(&self, ring: RingId, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.rings[ring.index(self.rings.len())]
            .lock()
            .keep(&self.ticket, write)
    }

    /// Holds all rings: nobody tells anything meanwhile.
    pub(super) fn hold(&self) -> Held<'_> {
        Held {
            rings: self.rings.iter().map(|ring| ring.lock()).collect(),
            ticket: &self.ticket,
        }
    }

    /// Takes the records of all rings into `drained`, in order (Ri2). False if there are none. What is told afterwards gets tickets
    /// behind `renumber`, if that is given.
    pub(super) fn drain(&self, drained: &mut Drained, renumber: Option<u64>) -> bool {
        let mut all = self.hold().rings;
        drained.last = self.ticket.load(Relaxed);
        if let Some(last) = renumber {
            self.ticket.store(last, Relaxed);
        }
        drained.taken.resize_with(all.len(), Told::default);
        for (taken, told) in drained.taken.iter_mut().zip(&mut all) {
            taken.records.clear();
            taken.index.clear();
            if !told.index.is_empty() {
                std::mem::swap(&mut taken.records, &mut told.records);
                std::mem::swap(&mut taken.index, &mut told.index);
            }
        }
        drained.readers.iter_mut().for_each(RingReader::look);
        drop(all);
        drained.merge()
    }
}

/// What a drain has taken. Kept from drain to drain, for its memory.
#[derive(Debug, Default)]
pub struct Drained {
    taken: Vec<Told>,
    /// The rings' ends in a file.
    readers: Vec<RingReader>,
    merged: Vec<u8>,
    /// The ring whose records are all there are.
    only: Option<usize>,
    /// The last ticket that was given.
    last: u64,
}

/// What is left of what one thread has told: in memory, of each record its ticket and length, and the records; or in its file.
enum Rest<'t> {
    InMemory(std::slice::Iter<'t, (u64, u32)>, &'t [u8]),
    InFile(&'t [u8]),
}

impl<'t> Rest<'t> {
    /// The ticket of the next record.
    #[inline]
    fn ticket(&self) -> Option<u64> {
        match self {
            Rest::InMemory(index, _) => index.as_slice().first().map(|&(ticket, _)| ticket),
            Rest::InFile(bytes) => RingEvent::split(bytes).map(|(event, _)| event.number),
        }
    }

    #[inline]
    fn next(&mut self) -> Option<&'t [u8]> {
        match self {
            Rest::InMemory(index, records) => {
                let &(_, len) = index.next()?;
                let (record, rest) = records.split_at(len as usize);
                *records = rest;
                Some(record)
            }
            Rest::InFile(bytes) => {
                let (event, rest) = RingEvent::split(bytes)?;
                *bytes = rest;
                Some(event.record)
            }
        }
    }
}

impl Drained {
    /// One that takes what lies in files too.
    pub fn of(readers: Vec<RingReader>) -> Self {
        Drained {
            readers,
            ..Drained::default()
        }
    }

    /// False if there is nothing.
    fn merge(&mut self) -> bool {
        self.merged.clear();
        self.only = None;
        let in_memory = self.taken.iter().enumerate();
        let mut in_memory = in_memory.filter(|(_, told)| !told.index.is_empty());
        let mut rest: Vec<Rest<'_>> = Vec::new();
        for part in self.readers.iter().flat_map(RingReader::bytes) {
            rest.push(Rest::InFile(part));
        }
        rest.retain(|rest| rest.ticket().is_some());
        if rest.is_empty() {
            self.only = in_memory.next().map(|(ring, _)| ring);
            if in_memory.next().is_none() {
                return self.only.is_some();
            }
            self.only = None;
        }
        for told in self.taken.iter().filter(|told| !told.index.is_empty()) {
            rest.push(Rest::InMemory(told.index.iter(), &told.records));
        }
        // Of each thread a run is taken up to where another one goes on.
        loop {
            let (mut first, mut ticket, mut end) = (0, u64::MAX, u64::MAX);
            for (nth, next) in rest.iter().enumerate() {
                let next = next.ticket().unwrap_or(u64::MAX);
                if next < ticket {
                    (first, ticket, end) = (nth, next, ticket);
                } else {
                    end = end.min(next);
                }
            }
            if ticket == u64::MAX {
                return true;
            }
            let run = &mut rest[first];
            while run.ticket().is_some_and(|ticket| ticket < end)
                && let Some(record) = run.next()
            {
                self.merged.extend_from_slice(record);
            }
        }
    }

    /// How many records there are in memory.
    pub(super) fn count(&self) -> usize {
        self.taken.iter().map(|told| told.index.len()).sum()
    }

    /// The last ticket that was given when it was filled.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The records.
    pub fn records(&self) -> &[u8] {
        match self.only {
            Some(ring) => &self.taken[ring].records,
            None => &self.merged,
        }
    }

    /// Is done with the records: gives their room in files back, and memory that large values took.
    pub fn done(&mut self) {
        self.readers.iter_mut().for_each(RingReader::done);
        self.shrink();
    }

    /// Gives back memory that large values took.
    pub fn shrink(&mut self) {
        for told in &mut self.taken {
            told.records.clear();
            told.records.shrink_to(KEPT_BYTES);
        }
        self.merged.clear();
        // What comes from files is about as much each time.
        self.merged
            .shrink_to(KEPT_BYTES << (2 * u8::from(!self.readers.is_empty())));
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
        assert!(!rings.drain(&mut drained, None) && drained.records().is_empty());
        let tell = |ring: u64, n: u64| {
            rings.tell(RingId(ring as u16), |out| out.extend(n.to_le_bytes()));
        };
        (0..100).for_each(|n| tell(n * 7 % 3, n));
        assert!(rings.drain(&mut drained, None));
        assert_eq!(
            (numbers(&drained), drained.count()),
            ((0..100).collect(), 100)
        );
        tell(1, 7);
        assert!(rings.drain(&mut drained, None));
        assert_eq!(numbers(&drained), [7]);
        drained.shrink();
        assert!(!rings.drain(&mut drained, None) && drained.records().is_empty());
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
                rings.drain(&mut drained, None);
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
