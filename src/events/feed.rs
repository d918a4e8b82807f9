//! The feed: what happens to items, for readers who must know when they have missed something.
//!
//! ```text
//!  worker --tell--> its ring --+--collect: all rings, in order--> history: | block | block | block | <-- next
//!  worker --tell--> its ring --+                                  oldest blocks are dropped          reader: a place in it
//! ```
//!
//! Fd1. Events are numbered from 1 on in the order of the history, without holes. A number is never given again: not to another
//!     event of this process, and other processes have another epoch.
//! Fd2. What was told before a collect began is in the history when it ends.
//! Fd3. A reader gets the events that follow the one it saw last, or is told that some of them are gone.
//! Fd4. What happens while nobody records gets no number, but one number is left out for it: so whoever comes back with one
//!     from before is told that it has missed something.
//! Fd5. Who tells waits for nobody but for copies of memory: a ring that has become long is collected by who tells.
//!
//! Costs: 16 bytes and the key in the ring, and again in the history; a block at each collect.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::rings::{Drained, Held, Rings};
use super::{By, What};

/// Bytes of events that a thread may be ahead; then it collects them itself.
const AHEAD_BYTES_MAX: usize = 64 << 10;
/// What a block costs besides its events, in bytes.
const BLOCK_BYTES: usize = 64;
/// Bytes of an event before its key.
const HEAD: usize = 16;
/// Bytes of the history, if nothing else is said.
const HISTORY_BYTES: usize = 16 << 20;

/// An event as it lies in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event<'b> {
    pub what: u8,
    pub cause: u8,
    pub origin: u16,
    pub cas: u64,
    pub key: &'b [u8],
}

impl<'b> Event<'b> {
    #[inline(always)]
    fn write(by: By, what: What, key: &[u8], cas: u64, out: &mut Vec<u8>) {
        // Keys have 250 bytes at most. As two words: bytes put into an array one by one are read back as words.
        let first = u64::from(what as u8)
            | u64::from(by.cause as u8) << 8
            | (key.len() as u64 & 0xff) << 16
            | u64::from(by.origin) << 32;
        let head = u128::from(first) | u128::from(cas) << 64;
        out.extend_from_slice(&head.to_le_bytes());
        out.extend_from_slice(key);
    }

    /// The event that `bytes` begin with, and what lies behind it.
    #[inline]
    pub(super) fn split(bytes: &'b [u8]) -> Option<(Event<'b>, &'b [u8])> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let (key, rest) = rest.split_at_checked(usize::from(head[2]))?;
        let event = Event {
            what: head[0],
            cause: head[1],
            origin: u16::from_le_bytes([head[4], head[5]]),
            cas: u64::from_le_bytes(std::array::from_fn(|at| head[8 + at])),
            key,
        };
        Some((event, rest))
    }
}

/// Events that were collected together.
#[derive(Debug)]
pub(super) struct Block {
    /// The number of the first.
    first: u64,
    /// How many there are.
    count: u64,
    bytes: Box<[u8]>,
}

/// What is still known.
#[derive(Debug, Default)]
struct History {
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
    /// The number of the last event.
    last: u64,
    is_recording: bool,
    drained: Drained,
    gaps: u64,
}

/// What is known of the feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedReport {
    /// The number of the last event.
    pub last: u64,
    /// Bytes of the events that are still known.
    pub history_bytes: usize,
    /// How often a reader was told that it has missed something.
    pub gaps: u64,
}

/// The feed.
#[derive(Debug)]
pub struct Feed {
    rings: Rings,
    history: Mutex<History>,
    history_bytes_max: AtomicUsize,
    epoch: u64,
}

/// Where a reader is.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// The number of the last event that it has seen.
    pub last: u64,
    /// The rest of the block that it is in.
    block: Option<(Arc<Block>, usize)>,
}

/// What a reader finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// There is something to read in its block.
    More,
    /// It has read all.
    End,
    /// What follows its place is gone. It stands behind the last event now.
    Gap,
}

impl Place {
    /// Goes on behind event `last`.
    pub(super) fn behind(last: u64) -> Self {
        Place { last, block: None }
    }

    /// Reads the events of its block, as long as `take` wants more.
    #[inline]
    pub(super) fn read(&mut self, mut take: impl FnMut(u64, &Event<'_>) -> bool) {
        let Some((block, mut at)) = self.block.take() else {
            return;
        };
        while let Some((event, rest)) = Event::split(&block.bytes[at..]) {
            self.last += 1;
            at = block.bytes.len() - rest.len();
            if !take(self.last, &event) {
                break;
            }
        }
        if at < block.bytes.len() {
            self.block = Some((block, at));
        }
    }
}

impl Feed {
    pub(super) fn new(threads: usize) -> Self {
        // What nobody can tell beforehand, and never comes twice.
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        hasher.write_u128(since_1970.map_or(0, |since| since.as_nanos()));
        Feed {
            rings: Rings::new(threads),
            history: Mutex::default(),
            history_bytes_max: AtomicUsize::new(HISTORY_BYTES),
            epoch: hasher.finish(),
        }
    }

    /// Lets the history have so many bytes.
    pub fn keep(&self, history_bytes_max: usize) {
        self.history_bytes_max.store(history_bytes_max, Relaxed);
    }

    /// Tells this process's numbers from those of others.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    #[inline(always)]
    pub(super) fn tell(&self, by: By, what: What, key: &[u8], cas: u64) {
        let ahead = self
            .rings
            .keep(by.ring, |out| Event::write(by, what, key, cas, out));
        if ahead > AHEAD_BYTES_MAX {
            self.collect();
        }
    }

    pub(super) fn tell_flush(held: &mut Held<'_>, by: By) {
        held.tell(by.ring, |out| Event::write(by, What::Flush, b"", 0, out));
    }

    pub(super) fn hold(&self) -> Held<'_> {
        self.rings.hold()
    }

    /// Takes all that was told into the history (Fd2); gives the number of the last event.
    pub fn collect(&self) -> u64 {
        self.history.lock().collect(self)
    }

    /// Begins to record, or stops and forgets (Fd4).
    pub(super) fn record(&self, is_recording: bool) {
        let mut history = self.history.lock();
        history.collect(self);
        if history.is_recording && !is_recording {
            history.blocks.clear();
            history.bytes = 0;
            history.last += 1;
        }
        history.is_recording = is_recording;
    }

    /// Whether events of this epoch behind `last` are all there still.
    pub(super) fn has_all_since(&self, epoch: u64, last: u64) -> bool {
        epoch == self.epoch && self.history.lock().has_all_since(last)
    }

    /// Looks for what follows a reader's place (Fd3).
    pub(super) fn look(&self, place: &mut Place) -> Look {
        if place.block.is_some() {
            return Look::More;
        }
        let mut history = self.history.lock();
        if place.last == history.last {
            return Look::End;
        }
        if !history.has_all_since(place.last) {
            history.gaps += 1;
            place.last = history.last;
            return Look::Gap;
        }
        let wanted = place.last + 1;
        let nth = history
            .blocks
            .partition_point(|block| block.first + block.count <= wanted);
        let Some(block) = history.blocks.get(nth) else {
            return Look::End;
        };
        let mut at = 0;
        for _ in block.first..wanted {
            if let Some((_, rest)) = Event::split(&block.bytes[at..]) {
                at = block.bytes.len() - rest.len();
            }
        }
        place.block = Some((block.clone(), at));
        Look::More
    }

    /// What is known of it.
    pub fn report(&self) -> FeedReport {
        let history = self.history.lock();
        FeedReport {
            last: history.last,
            history_bytes: history.bytes,
            gaps: history.gaps,
        }
    }

    /// Counts a reader that came back too late.
    pub(super) fn count_gap(&self) {
        self.history.lock().gaps += 1;
    }
}

impl History {
    fn collect(&mut self, feed: &Feed) -> u64 {
        if feed.rings.drain(&mut self.drained, None) {
            let block = Block {
                first: self.last + 1,
                count: self.drained.count() as u64,
                bytes: self.drained.records().into(),
            };
            self.drained.shrink();
            self.last += block.count;
            self.bytes += block.bytes.len() + BLOCK_BYTES;
            self.blocks.push_back(Arc::new(block));
            // The last one stays, for readers who have seen all before it.
            while self.bytes > feed.history_bytes_max.load(Relaxed)
                && self.blocks.len() > 1
                && let Some(oldest) = self.blocks.pop_front()
            {
                self.bytes -= oldest.bytes.len() + BLOCK_BYTES;
            }
        }
        self.last
    }

    fn has_all_since(&self, last: u64) -> bool {
        let oldest = self
            .blocks
            .front()
            .map_or(self.last + 1, |block| block.first);
        (oldest - 1..=self.last).contains(&last)
    }
}
