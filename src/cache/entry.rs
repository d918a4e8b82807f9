//! [`Entry`]: one key with its stripe locked. Everything a command does to a key, it does through one entry, so each
//! command is atomic, and an item is only ever seen whole.
//!
//! E1. An entry never shows an expired or flushed item: it unlinks it and says why there is none.
//! E2. There is one way into the table and the LRU ([`Entry::put`]) and one way out: `Cache::unlink`, or
//!     `Cache::unlink_from_tail` for who comes from the LRU and holds its lock.
//! E3. Nothing lets an entry's stripe go and takes it again: what a verb has read holds until it drops the entry. A verb
//!     that lacks memory for what it makes runs anew on another entry (`update`).
//! E4. Only an item whose value is written to the last byte gets in.
//! E5. What an entry has changed is told (`events`) before its stripe is let go, once, as the item is by then.

use std::cell::Cell;
use std::ops::Deref;

use slab_alloc::{ChunkHandle, ClassId};

use super::at::At;
use super::eviction::Policy;
use super::item::{Header, Items, NewItem, PinnedValue, State};
use super::lru::Newcomer;
use super::store::{Cache, Lookup};
use super::table::{KeyHash, Slot, Sought, StripeGuard};
use super::view::{ItemHead, ItemView};
use crate::clock::RelTime;
use crate::events::{Audience, What};
use crate::keyspace::misses::{Gone, Miss};

/// One key, its stripe locked from the moment it is opened until it is dropped.
#[derive(Debug)]
pub struct Entry<'c> {
    pub(super) cache: &'c Cache,
    guard: StripeGuard<'c>,
    pub(super) hash: KeyHash,
    pub(super) at: At,
    found: Option<Found<'c>>,
    pub(super) lookup: Lookup,
    /// The dead item that was found had never been read.
    pub(super) died_unfetched: bool,
    /// What was done to the item, to be told when the entry is dropped: once, and as the item is then.
    change: Cell<Change>,
}

/// What an entry has done to its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Nothing,
    /// All but its value may have changed.
    Touched,
    Stored,
}

impl Cache {
    /// Locks the key's stripe and looks the key up. Inlined, as half of what an entry tells is asked for at once.
    #[inline(always)]
    pub fn entry(&self, sought: Sought<'_>, at: At) -> Entry<'_> {
        let Sought { key, probe } = sought;
        let hash = probe.hash;
        debug_assert_eq!(hash, self.table.hash(key), "another key's probe");
        let guard = self.table.lock(hash);
        let is_it = |handle| self.items.key(handle) == key;
        let found_at = match guard.find_seen(&probe, is_it) {
            Some(found_at) => Some(found_at),
            None => guard.find(hash, is_it),
        };
        let found = found_at.map(|(slot, handle)| Found::new(&self.items, Some(slot), handle));
        let lookup = found.map_or(Lookup::Missing, |found| self.life(found.header, at.now));
        let is_dead = matches!(lookup, Lookup::Expired | Lookup::Flushed);
        // Looked at before it is unlinked.
        let died_unfetched =
            is_dead && found.is_some_and(|found| !found.header.state().is_fetched());
        Entry {
            cache: self,
            guard: if is_dead {
                self.unlink_dead(guard, hash, found_at, lookup, at)
            } else {
                guard
            },
            hash,
            at,
            found: found.filter(|_| !is_dead),
            lookup,
            died_unfetched,
            change: Cell::new(Change::Nothing),
        }
    }

    /// Why a key is not there that was looked up like this: of one that was not even dead, the notes tell.
    #[inline]
    pub fn why_missing(&self, hash: KeyHash, lookup: Lookup) -> Miss {
        match lookup {
            Lookup::Expired => Miss::Expired,
            Lookup::Flushed => Miss::Flushed,
            Lookup::Missing | Lookup::Found => self.departed.why(hash.0),
        }
    }

    /// Unlinks a dead item that was found.
    #[cold]
    fn unlink_dead<'c>(
        &'c self,
        mut guard: StripeGuard<'c>,
        hash: KeyHash,
        found_at: Option<(Slot, ChunkHandle)>,
        lookup: Lookup,
        at: At,
    ) -> StripeGuard<'c> {
        if let Some((slot, handle)) = found_at {
            self.departed.note(hash.0, lookup.gone());
            self.tell_gone(handle, lookup.gone(), at);
            self.unlink(&mut guard, hash, slot, handle);
        }
        guard
    }
}

impl<'c> Entry<'c> {
    /// What was found when the entry was opened.
    #[inline]
    pub fn lookup(&self) -> Lookup {
        self.lookup
    }

    /// The live item.
    #[inline]
    pub fn item(&self) -> Option<ItemView<'_>> {
        let items = &self.cache.items;
        self.found
            .map(|found| ItemView(ItemHead::of(items, found.handle, found.header)))
    }

    /// Why there is no item.
    #[inline]
    pub fn why_missing(&self) -> Miss {
        self.cache.why_missing(self.hash, self.lookup)
    }

    /// The live item, and all that can be done to it.
    #[inline]
    pub fn found(&mut self) -> Option<Hit<'_, 'c>> {
        let found = self.found?;
        Some(Hit::new(self, found))
    }

    /// Puts a new item in the place of the present one, or of none, and gives it; with this CAS unique, or the next. Panics if its value is not written to
    /// the last byte: what lies behind would be another item's.
    pub fn put(&mut self, new: NewItem<'c>, cas: Option<u64>) -> Hit<'_, 'c> {
        let cache = self.cache;
        let items = &cache.items;
        let handle = new.into_handle();
        let header = items.header(handle);
        header.set_accessed_at(self.at.now);
        items.set_cas(handle, self.unique(cas, header.value_len()));
        header.set_bits(cache.flush.generation_bits());
        let old = self.found;
        let slot = match old {
            Some(found) => {
                let slot = self.slot(found);
                self.guard.replace(slot, handle);
                Some(slot)
            }
            None => {
                self.guard.insert(self.hash, handle);
                None
            }
        };
        let found = Found {
            slot,
            handle,
            header,
        };
        self.found = Some(found);
        let class = found.class();
        // With the class that its LRU is.
        let old = old.map(|old| (old, old.class()));
        let newcomer = Newcomer {
            handle,
            hash: self.hash,
            replaced: old.map(|(old, _)| old.header.state().segment()),
            arrives: old.is_none_or(|(_, old_class)| old_class != class),
            is_temporary: cache.tuning.is_temporary(header.expires_at(), self.at.now),
        };
        {
            let mut lru = cache.lru(class);
            lru.follow(items, cache.tuning.policy());
            if let Some((old, old_class)) = old
                && old_class == class
            {
                lru.unlink(items, old.handle);
            }
            lru.link(items, newcomer, cache.stores.clock());
            // Once: it takes the place of the dead only if nobody has put an item there since.
            if old.is_none() && matches!(self.lookup, Lookup::Expired | Lookup::Flushed) {
                lru.segments.counters.count_reclaimed(self.died_unfetched);
            }
            lru.tidy(items, cache.tuning.balance());
        }
        if let Some((old, old_class)) = old {
            if old_class != class {
                cache.lru(old_class).unlink(items, old.handle);
            }
            items.release(old.handle);
        }
        self.changed(Change::Stored);
        Hit::new(self, found)
    }

    /// Takes the item of `key`, which is the entry's, out. Where there is none, that it was to go is told all the same: others
    /// may have it still.
    pub fn remove_key(&mut self, key: &[u8]) {
        let events = &self.cache.events;
        if self.found.is_none() && events.audience().has(Audience::FEED) {
            events.gone(self.at.by, What::Delete, key, 0);
        }
        self.remove();
    }

    /// Takes the item out, if there is one.
    pub fn remove(&mut self) {
        if let Some(found) = self.found.take() {
            if self.cache.events.audience().has(Audience::OF_ITEMS) {
                self.tell_deleted(found);
            }
            self.change.set(Change::Nothing);
            let slot = self.slot(found);
            self.cache.departed.note(self.hash.0, Gone::Deleted);
            self.cache
                .unlink(&mut self.guard, self.hash, slot, found.handle);
        }
    }

    /// The CAS unique that was given, or else the next of the key's stripe.
    #[inline]
    fn unique(&self, given: Option<u64>, value_len: usize) -> u64 {
        given.unwrap_or_else(|| self.cache.stores.count(&self.guard, value_len))
    }

    #[inline]
    fn changed(&self, change: Change) {
        if self.change.get() < change {
            self.change.set(change);
        }
    }

    #[cold]
    fn tell_deleted(&self, found: Found<'_>) {
        let (items, handle) = (&self.cache.items, found.handle);
        let events = &self.cache.events;
        events.deleted(self.at.by, items.key(handle), items.cas(handle));
    }

    /// Tells what the item has become.
    #[cold]
    fn tell_changed(&self) {
        let (Some(found), cache) = (self.found, self.cache) else {
            return;
        };
        let (events, by) = (&cache.events, self.at.by);
        let (key, cas) = cache.items.key_and_cas(found.handle, found.header);
        let header = found.header;
        if cache
            .flush
            .covers(header.state(), header.accessed_at(), self.at.now)
        {
            // Between the change and here (Ev3).
            return events.deleted(by, key, cas);
        }
        let change = self.change.get();
        if events.audience().has(Audience::LOG) {
            self.log_changed(found, change, key);
        }
        let what = match change {
            Change::Stored => What::Set,
            Change::Touched | Change::Nothing => What::Touch,
        };
        events.to_feed(by, what, key, cas);
    }

    #[cold]
    fn log_changed(&self, found: Found<'_>, change: Change, key: &[u8]) {
        let item = ItemHead::of(&self.cache.items, found.handle, found.header);
        let (events, ring) = (&self.cache.events, self.at.by.ring);
        if change == Change::Stored {
            let view = ItemView(item);
            events.log_stored(ring, key, || {
                (view.meta(), view.value_len() as u32, view.value_pieces())
            });
        } else {
            events.log_touched(ring, key, || item.meta());
        }
    }

    #[inline]
    fn slot(&self, found: Found<'c>) -> Slot {
        found.slot.unwrap_or_else(|| self.find_slot(found.handle))
    }

    /// Where an item is by now that was inserted here.
    #[cold]
    fn find_slot(&self, handle: ChunkHandle) -> Slot {
        let found = self.guard.find(self.hash, |at| at == handle);
        let (slot, _) = found.expect("an entry's item is in the table");
        slot
    }
}

impl Drop for Entry<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.change.get() != Change::Nothing
            && self.cache.events.audience().has(Audience::OF_ITEMS)
        {
            self.tell_changed();
        }
    }
}

/// The live item of an entry, which nobody else changes, reads or frees as long as it is held: the entry has the key's
/// stripe locked.
#[derive(Debug)]
pub struct Hit<'e, 'c> {
    entry: &'e Entry<'c>,
    head: ItemHead<'e>,
}

impl<'e> Deref for Hit<'e, '_> {
    type Target = ItemHead<'e>;

    #[inline]
    fn deref(&self) -> &ItemHead<'e> {
        &self.head
    }
}

impl<'e, 'c> Hit<'e, 'c> {
    #[inline]
    fn new(entry: &'e mut Entry<'c>, found: Found<'c>) -> Self {
        let entry = &*entry;
        let head = ItemHead::of(&entry.cache.items, found.handle, found.header);
        Hit { entry, head }
    }

    /// The value, unless it is large.
    #[inline(always)]
    pub fn value(&self) -> Option<&[u8]> {
        ItemView(self.head).value()
    }

    /// The value's pieces in order.
    pub fn value_pieces(&self) -> impl Iterator<Item = &[u8]> {
        let items = &self.entry.cache.items;
        items.value_pieces(self.head.handle())
    }

    /// Notes a read: the item's time and its place in the LRU (later, from these bits).
    #[inline]
    pub fn bump(&self) {
        self.head.header().count_use();
        self.note_access();
    }

    /// Notes a use that is no read: the value was changed in its place.
    #[inline]
    pub fn bump_written(&self) {
        self.head.header().count_write();
        self.note_access();
    }

    /// Notes that the item was named, though not read.
    #[inline]
    pub fn note_access(&self) {
        let (header, now) = (self.head.header(), self.entry.at.now);
        if header.accessed_at() != now {
            header.set_accessed_at(now);
        }
    }

    /// Gives the item another end.
    pub fn touch(&self, expires_at: RelTime) {
        let (cache, handle) = (self.entry.cache, self.head.handle());
        let set_end = || self.head.header().set_expires_at(expires_at);
        if cache.tuning.policy() == Policy::Ttl {
            let mut lru = cache.lru(cache.class_of(handle));
            lru.touch(&cache.items, handle, set_end);
        } else {
            set_end();
        }
        self.entry.changed(Change::Touched);
    }

    /// Gives the item this CAS unique, or the next; nothing happens with `-C`.
    pub fn set_cas(&self, cas: Option<u64>) {
        let cas = self.entry.unique(cas, 0);
        self.entry.cache.items.set_cas(self.head.handle(), cas);
        self.entry.changed(Change::Touched);
    }

    /// Marks the item stale, and its lease as free (`I`).
    pub fn mark_stale(&self) {
        let header = self.head.header();
        header.clear_bits(State::WIN_SENT);
        header.set_bits(State::STALE);
        self.entry.changed(Change::Touched);
    }

    /// Notes that a client holds the lease.
    pub fn mark_win_sent(&self) {
        self.head.header().set_bits(State::WIN_SENT);
    }

    /// Holds on to a large value ([`ItemHead::is_large`]) beyond the entry. Panics if it is not large: such an item
    /// counts no references.
    pub fn pin(&self) -> PinnedValue<'c> {
        self.entry.cache.items.pin(self.head.handle())
    }

    /// Overwrites the value, of an item that is not large, by one of the same length, and gives it this CAS unique, or the
    /// next. Panics if it is large, or of another length.
    pub fn overwrite(&mut self, value: &[u8], cas: Option<u64>) {
        let cas = self.entry.unique(cas, value.len());
        let (cache, handle) = (self.entry.cache, self.head.handle());
        let write = || {
            cache.items.overwrite_value(handle, value);
            cache.items.set_cas(handle, cas);
        };
        match &cache.memory_file {
            None => write(),
            Some(file) => file.write_in_place(self.entry.guard.number(), handle, write),
        }
        self.entry.changed(Change::Stored);
    }
}

#[derive(Debug, Clone, Copy)]
struct Found<'c> {
    /// None after an insert: the split that may follow moves slots.
    slot: Option<Slot>,
    handle: ChunkHandle,
    header: &'c Header,
}

impl<'c> Found<'c> {
    #[inline]
    fn new(items: &'c Items, slot: Option<Slot>, handle: ChunkHandle) -> Self {
        let header = items.header(handle);
        Found {
            slot,
            handle,
            header,
        }
    }

    #[inline]
    fn class(&self) -> ClassId {
        self.header.class().expect("an item has a class")
    }
}
