//! What happens to items, and what is asked of the server, told by who does it to who listens.
//!
//! ```text
//!  entry (its stripe is locked) --tell--> log     records with their values --> a ring in a file, or before the replies leave to one
//!                                    |--> feed    what, why, key, CAS unique --> ring of the last megabytes --> readers
//!  verb, connection --show--------------> sights  lines of `watch`, as long as there is room for them ------> watchers
//! ```
//!
//! A leaf: who tells knows nothing of who listens, but whether somebody does.
//!
//! Ev1. Nobody listens: an event costs one relaxed load.
//! Ev2. What an entry changes is told while its key's stripe is locked, before its reply can leave: in each key's order.
//! Ev3. A flush is told and done with all rings held: a store that it ends is told before, one that outlives it afterwards.
//!     Whoever begins to listen does so with all rings held too: it is told of a flush, or was there after it.
//! Ev4. Who begins to listen is told of all that happens to a key after the next request about it: the change and the look
//!     at who listens are both made under the key's stripe.

mod feed;
mod hash;
mod rings;
mod sights;
#[cfg(test)]
mod simulation;
mod subscription;
mod watch;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::Thread;

use crossbeam::utils::CachePadded;
pub use feed::{Feed, FeedReport};
pub use hash::key_hash;
pub use rings::{Drained, RingId};
pub use sights::{Closed, FetchEnd, Shown, Sights, StoreEnd};
pub use snapshot_file::{Marks, Meta};
use snapshot_file::{Pieces, push};
pub use subscription::Subscription;
pub use watch::{Places, Refusal, SightFilter, Taken, Watch, parse};

use crate::sys::RingWriter;
use rings::{Held, Lies, Rings};

/// Who listens, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audience(u32);

impl Audience {
    /// The log that is written to a file.
    pub const LOG: Audience = Audience(1);
    /// Readers of the feed.
    pub const FEED: Audience = Audience(1 << 1);
    /// Watchers of reads, and of what else looks a key up.
    pub const FETCHERS: Audience = Audience(1 << 2);
    /// Watchers of stores.
    pub const MUTATIONS: Audience = Audience(1 << 3);
    /// Watchers of deletes.
    pub const DELETIONS: Audience = Audience(1 << 4);
    /// Watchers of items that give way.
    pub const EVICTIONS: Audience = Audience(1 << 5);
    /// Watchers of connections.
    pub const CONNEVENTS: Audience = Audience(1 << 6);
    /// Watchers of what the server does by itself.
    pub const SYSEVENTS: Audience = Audience(1 << 7);
    /// Watchers of request lines.
    pub const RAWCMDS: Audience = Audience(1 << 8);
    /// Watchers of the proxy's requests.
    pub const PROXYREQS: Audience = Audience(1 << 9);
    /// Watchers of the proxy's errors.
    pub const PROXYEVENTS: Audience = Audience(1 << 10);
    /// Watchers of what routes of the proxy say.
    pub const PROXYUSER: Audience = Audience(1 << 11);
    /// Whoever is told what happens to items.
    pub const OF_ITEMS: Audience = Audience(0b11);

    /// True if nobody listens.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True if one of these is there.
    #[inline]
    pub fn has(self, any: Audience) -> bool {
        self.0 & any.0 != 0
    }

    /// Both.
    #[must_use]
    pub fn with(self, other: Audience) -> Audience {
        Audience(self.0 | other.0)
    }
}

/// What an item's change comes from: what the server was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is the command of that name")]
pub enum Cause {
    /// Nothing that a client asked for.
    #[default]
    Upkeep,
    Get,
    Gat,
    Touch,
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    Cas,
    Incr,
    Decr,
    Delete,
    /// `mg`, which can make an item that is missing.
    Mg,
    /// `md` that marks an item as stale, or leaves a tombstone.
    Md,
    FlushAll,
    /// A request over HTTP.
    Http,
}

impl Cause {
    const NAMES: [&'static str; 17] = [
        "upkeep",
        "get",
        "gat",
        "touch",
        "set",
        "add",
        "replace",
        "append",
        "prepend",
        "cas",
        "incr",
        "decr",
        "delete",
        "mg",
        "md",
        "flush_all",
        "http",
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        Cause::NAMES[self as usize]
    }

    fn name_of(number: u8) -> &'static str {
        Cause::NAMES
            .get(usize::from(number))
            .copied()
            .unwrap_or("upkeep")
    }
}

/// Who does something to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct By {
    /// Where its thread tells of it.
    pub ring: RingId,
    /// Where the client says that the change comes from (meta flag `L`); 0 is here.
    pub origin: u16,
    /// What it is doing.
    pub cause: Cause,
}

/// What becomes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum What {
    /// It was stored, or its value changed.
    Set,
    /// Somebody asked for it to go, whether it was there or not.
    Delete,
    /// All but its value may have changed.
    Touch,
    /// Its time had run out.
    Expire,
    /// It gave way to others.
    Evict,
    /// All items are gone.
    Flush,
}

impl What {
    const NAMES: [&'static str; 6] = ["set", "delete", "touch", "expire", "evict", "flush"];

    fn name_of(number: u8) -> &'static str {
        What::NAMES
            .get(usize::from(number))
            .copied()
            .unwrap_or("flush")
    }
}

/// All who may listen.
#[derive(Debug)]
pub struct Events {
    audience: CachePadded<AtomicU32>,
    log: Rings,
    /// Threads that have told the log something since they last settled which a process that is killed would take with it.
    unsettled: Box<[CachePadded<AtomicBool>]>,
    /// Who moves on what lies in the log's rings.
    mover: OnceLock<Thread>,
    /// What happens to items, for readers who must not miss anything.
    pub feed: Feed,
    /// What is shown to watchers.
    pub sights: Sights,
    /// Places for those who watch.
    pub places: Places,
}

impl Events {
    /// For so many threads, and all others together.
    pub fn new(threads: usize) -> Self {
        Events {
            audience: CachePadded::default(),
            log: Rings::new(threads),
            unsettled: (0..=threads).map(|_| CachePadded::default()).collect(),
            mover: OnceLock::new(),
            feed: Feed::new(threads),
            sights: Sights::new(threads),
            places: Places::default(),
        }
    }

    /// Who listens (Ev1).
    #[inline]
    pub fn audience(&self) -> Audience {
        Audience(self.audience.load(Relaxed))
    }

    /// Lets these listen from now on, or no more.
    pub fn listen(&self, who: Audience, is_there: bool) {
        let _nobody_flushes = (self.log.hold(), self.feed.hold());
        if is_there {
            self.audience.fetch_or(who.0, Relaxed);
        } else {
            self.audience.fetch_and(!who.0, Relaxed);
        }
    }

    /// Begins to record the feed.
    pub fn begin_feed(&self) {
        self.feed.record(true);
        self.listen(Audience::FEED, true);
    }

    /// Records it no more.
    pub fn end_feed(&self) {
        self.listen(Audience::FEED, false);
        self.feed.record(false);
    }

    /// Has these kinds of sights shown, and no others.
    pub fn show_only(&self, kinds: Audience) {
        self.listen(kinds, true);
        self.listen(Audience(!(Audience::OF_ITEMS.0 | kinds.0)), false);
    }

    // ---- who tells; the caller has the key's stripe locked --------------------------------------------------------

    /// Tells the log, if it listens, that an item was stored, or that its value changed. `record` gives all of it.
    #[cold]
    pub fn log_stored<'p, P: Pieces<'p>>(
        &self,
        ring: RingId,
        key: &[u8],
        record: impl FnOnce() -> (Meta, u32, P),
    ) {
        self.to_log(ring, |out| {
            let (meta, len, value) = record();
            push::item(out, key, &meta, len, value);
        });
    }

    /// Tells the log that all but the value of an item may have changed.
    #[cold]
    pub fn log_touched(&self, ring: RingId, key: &[u8], meta: impl FnOnce() -> Meta) {
        self.to_log(ring, |out| push::touch(out, key, &meta()));
    }

    /// An item was deleted that had this CAS unique.
    #[cold]
    pub fn deleted(&self, by: By, key: &[u8], cas: u64) {
        self.to_log(by.ring, |out| push::delete(out, key, cas));
        self.to_feed(by, What::Delete, key, cas);
    }

    /// Something that is of no interest to the log: an item is gone that nobody deleted, or was not there when somebody did.
    #[cold]
    pub fn gone(&self, by: By, what: What, key: &[u8], cas: u64) {
        self.to_feed(by, what, key, cas);
    }

    /// Tells the feed, if somebody reads it, what has become of an item that has this CAS unique now.
    #[inline(always)]
    pub fn to_feed(&self, by: By, what: What, key: &[u8], cas: u64) {
        if self.audience().has(Audience::FEED) {
            self.feed.tell(by, what, key, cas);
        }
    }

    #[inline]
    fn to_log(&self, ring: RingId, write: impl FnOnce(&mut Vec<u8>)) {
        if self.audience().has(Audience::LOG) {
            self.lies(ring, self.log.tell(ring, write));
        }
    }

    #[inline]
    fn lies(&self, ring: RingId, lies: Lies) {
        match lies {
            Lies::File => {}
            Lies::Memory(_) => self.unsettled(ring).store(true, Relaxed),
            Lies::FullFile => {
                if let Some(mover) = self.mover.get() {
                    mover.unpark();
                }
            }
        }
    }

    /// Does a flush and tells of it: all items are gone that were not asked for from `at` on, or 0 for now (Ev3).
    pub fn flush<R>(&self, by: By, at: u32, flush: impl FnOnce() -> R) -> R {
        let mut held: (Held<'_>, Held<'_>) = (self.log.hold(), self.feed.hold());
        let flushed = flush();
        if self.audience().has(Audience::LOG) {
            let lies = held.0.tell(by.ring, |out| push::flush(out, at));
            self.lies(by.ring, lies);
        }
        // Of one that is ahead the feed is told when its time has come.
        if at == 0 && self.audience().has(Audience::FEED) {
            Feed::tell_flush(&mut held.1, by);
        }
        flushed
    }

    /// Tells the feed of a delayed flush whose time has come.
    pub fn flush_came(&self, by: By) {
        if self.audience().has(Audience::FEED) {
            Feed::tell_flush(&mut self.feed.hold(), by);
        }
    }

    // ---- the log --------------------------------------------------------------------------------------------------

    fn unsettled(&self, ring: RingId) -> &AtomicBool {
        &self.unsettled[ring.index(self.unsettled.len())]
    }

    /// True if the ring's thread has told the log something since it last asked: what listens has to be done with it before
    /// that thread's replies leave.
    #[inline]
    pub fn is_unsettled(&self, ring: RingId) -> bool {
        self.unsettled(ring).load(Relaxed) && self.settles(ring)
    }

    #[cold]
    fn settles(&self, ring: RingId) -> bool {
        self.unsettled(ring).swap(false, Relaxed)
    }

    /// Takes what the log was told, in each key's order. False if that is nothing. What is told afterwards is numbered from behind
    /// `renumber`, if that is given.
    pub fn drain_log(&self, drained: &mut Drained, renumber: Option<u64>) -> bool {
        self.log.drain(drained, renumber)
    }

    /// Has what the log is told from now on written to rings in a file, one for each thread and a common one, or kept in memory
    /// until it is drained if there are none; and numbered from behind `last`.
    pub fn log_to(&self, rings: Vec<RingWriter>, last: u64) {
        self.log.hold().write_to(rings, last);
    }

    /// How many rings the log has.
    pub fn log_rings(&self) -> usize {
        self.log.count()
    }

    /// Has the calling thread unparked when a ring of the log is to be drained soon.
    pub fn moves_log(&self) {
        // One thread does, as long as there are these events.
        let _ = self.mover.set(std::thread::current());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_told_the_log_something_settles_once() {
        let events = Events::new(2);
        let by = By::default();
        events.deleted(by, b"a", 1);
        assert!(!events.is_unsettled(by.ring), "nobody listens");
        events.listen(Audience::LOG, true);
        events.deleted(by, b"a", 1);
        assert!(!events.is_unsettled(RingId(1)), "another ring");
        assert!(events.is_unsettled(by.ring));
        assert!(!events.is_unsettled(by.ring));
        assert!(events.drain_log(&mut Drained::default(), None));
    }

    #[test]
    fn each_is_told_what_it_listens_for() {
        let events = Events::new(1);
        let by = By::default();
        let mut drained = Drained::default();
        events.listen(Audience::FEED, true);
        events.deleted(by, b"a", 1);
        events.gone(by, What::Evict, b"a", 1);
        events.flush(by, 0, || ());
        events.flush(by, 77, || ());
        assert!(!events.drain_log(&mut drained, None));
        assert_eq!(events.feed.collect(), 3);
        events.listen(Audience::FEED, false);
        events.listen(Audience::LOG, true);
        events.flush(by, 77, || ());
        events.gone(by, What::Expire, b"a", 1);
        assert_eq!(events.feed.collect(), 3);
        assert!(events.drain_log(&mut drained, None));
        let (record, rest) = snapshot_file::split_long(drained.records());
        assert!(
            !record.bytes.is_empty() && rest.is_empty(),
            "the flush alone"
        );
    }
}
