//! [`Cache`] and [`Entry`]: all that the rest of the server sees of the store.
//!
//! An [`Entry`] is one key with its stripe locked. Everything a command does to a key, it does through one entry, so each
//! command is atomic, and an item is only ever seen whole.
//!
//! E1. An entry never shows an expired or flushed item: it unlinks it and says why there is none.
//! E2. There is one way into the table and the LRU ([`Entry::put`]) and one way out: `Cache::unlink`, or
//!     `Cache::unlink_from_tail` for who comes from the LRU and holds its lock.
//! E3. Nothing lets an entry's stripe go and takes it again: what a verb has read holds until it drops the entry. A verb
//!     that lacks memory for what it makes runs anew on another entry (`update`).
//! E4. Only an item whose value is written to the last byte gets in.

use std::io;
use std::ops::Deref;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};

use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use slab_alloc::{CLASSES_MAX, ChunkHandle, ClassId, ClassStats, Config, SlabAllocator};

use super::crawler::ClassMask;
use super::eviction::Policy;
use super::flush::FlushMark;
use super::item::{
    AllocError, CasSource, Header, ItemSpec, Items, NewItem, PinnedValue, Spare, state,
};
use super::lru::{Balance, ClassLru, LruCounters, Newcomer, Segment};
use super::page_moves::PageMoves;
use super::table::{KeyHash, Probe, Slot, StripeGuard, Table, TableShape};
use crate::clock::RelTime;

/// Of an item to be read this much is fetched ahead, in bytes: from there on the processor sees by itself where a copy goes.
pub(super) const PREFETCH_BYTES_MAX: usize = 1024;

/// What a cache is built from.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// The arena: memory limit and classes.
    pub slabs: Config,
    /// Items carry CAS uniques (off with `-C`).
    pub use_cas: bool,
    /// The largest item with header and key, in bytes (`-I`).
    pub item_bytes_max: usize,
    /// The table starts with about 2 to this many items' room.
    pub hash_power: u32,
    /// The table grows.
    pub hash_expand: bool,
    /// Worker threads, which decide the number of stripes.
    pub threads: usize,
}

/// Knobs that commands turn while the server runs.
#[derive(Debug)]
#[allow(missing_docs, reason = "each is the option or command of its name")]
pub struct Tuning {
    /// Off with `-M`.
    pub may_evict: AtomicBool,
    /// Off with `lru mode flat`: then a policy of several segments gives way to a flat LRU.
    pub segmented: AtomicBool,
    /// A [`Policy`], as its number.
    pub eviction: AtomicU8,
    pub hot_lru_pct: AtomicU32,
    pub warm_lru_pct: AtomicU32,
    /// An item stays in HOT no longer than this part of COLD's age; in thousandths.
    pub hot_max_factor_milli: AtomicU32,
    /// The same for WARM.
    pub warm_max_factor_milli: AtomicU32,
    /// Items that live no longer than this go to TEMP; seconds, below 0: none do.
    pub temporary_ttl_s: AtomicI32,
    pub slab_reassign: AtomicBool,
    /// 0 off, 1 slow, 2 eager.
    pub slab_automove: AtomicU32,
    pub slab_automove_ratio_milli: AtomicU32,
    pub slab_automove_freeratio_milli: AtomicU32,
    pub slab_automove_window: AtomicU32,
    pub lru_maintainer: AtomicBool,
    pub lru_crawler: AtomicBool,
    pub lru_crawler_sleep_us: AtomicU32,
    pub lru_crawler_tocrawl: AtomicU32,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            may_evict: AtomicBool::new(true),
            segmented: AtomicBool::new(true),
            eviction: AtomicU8::new(Policy::default() as u8),
            hot_lru_pct: AtomicU32::new(20),
            warm_lru_pct: AtomicU32::new(40),
            hot_max_factor_milli: AtomicU32::new(200),
            warm_max_factor_milli: AtomicU32::new(2000),
            temporary_ttl_s: AtomicI32::new(-1),
            slab_reassign: AtomicBool::new(true),
            slab_automove: AtomicU32::new(1),
            slab_automove_ratio_milli: AtomicU32::new(800),
            slab_automove_freeratio_milli: AtomicU32::new(10),
            slab_automove_window: AtomicU32::new(10),
            lru_maintainer: AtomicBool::new(true),
            lru_crawler: AtomicBool::new(true),
            lru_crawler_sleep_us: AtomicU32::new(100),
            lru_crawler_tocrawl: AtomicU32::new(0),
        }
    }
}

impl Tuning {
    /// The eviction policy in force.
    #[inline]
    pub fn policy(&self) -> Policy {
        let policy = Policy::ALL[usize::from(self.eviction.load(Relaxed)) % Policy::ALL.len()];
        if policy.is_segmented() && !self.segmented.load(Relaxed) {
            return Policy::Lru;
        }
        policy
    }

    /// True if an item that ends then goes to TEMP.
    fn is_temporary(&self, expires_at: RelTime, now: RelTime) -> bool {
        let ttl_s = self.temporary_ttl_s.load(Relaxed);
        let short = |ttl_s| expires_at != RelTime::NEVER && expires_at.since(now) <= ttl_s;
        u32::try_from(ttl_s).is_ok_and(short) && self.policy().is_segmented()
    }

    /// How the segments are to be kept when an item is stored.
    #[inline]
    pub(super) fn balance(&self) -> Balance<'static> {
        Balance {
            hot_pct: self.hot_lru_pct.load(Relaxed) as usize,
            warm_pct: self.warm_lru_pct.load(Relaxed) as usize,
            in_background: false,
            too_old: &|_, _, _| false,
        }
    }
}

/// Counts that are not of one class.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each is the `stats` key of its name")]
pub struct CacheCounters {
    pub malloc_fails: AtomicU64,
    pub lru_crawler_starts: AtomicU64,
    pub lru_crawler_running: AtomicBool,
    pub lru_maintainer_juggles: AtomicU64,
}

/// The store.
#[derive(Debug)]
pub struct Cache {
    pub(super) items: Items,
    pub(super) table: Table,
    pub(super) lrus: Box<[CachePadded<Mutex<ClassLru>>]>,
    pub(super) flush: FlushMark,
    pub(super) moves: PageMoves,
    /// Written by every store, so that it must not lie beside what every read looks at.
    pub(super) cas: CachePadded<CasSource>,
    limit_bytes: AtomicUsize,
    /// The knobs.
    pub tuning: Tuning,
    /// Counts of the whole store.
    pub counters: CacheCounters,
    /// Classes a client asked to be crawled (`lru_crawler crawl`).
    pub(super) crawl_wanted: Mutex<ClassMask>,
}

/// What an entry found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// A live item.
    Found,
    /// No item.
    Missing,
    /// There was one, but its time had run out.
    Expired,
    /// There was one, older than a `flush_all`.
    Flushed,
}

/// One class as `stats items` and `stats slabs` show it.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "named as the `stats` keys")]
pub struct ClassReport {
    pub class: ClassId,
    pub slabs: ClassStats,
    /// Items by segment.
    pub counts: [usize; 4],
    /// Seconds since the last access of each segment's tail.
    pub ages_s: [u32; 4],
    pub mem_requested: u64,
    pub lru: LruCounters,
}

impl Cache {
    /// An empty cache; errors are the operating system's refusal of memory.
    pub fn new(config: &CacheConfig) -> io::Result<Self> {
        let slabs = SlabAllocator::new(&config.slabs)?;
        // 256 stripes a thread: two threads that meet in one are rare, and the locks stay in the second-level cache.
        let stripe_bits = (config.threads.next_power_of_two().ilog2() + 8).min(14);
        let buckets_log2 = config.hash_power.saturating_sub(2);
        Ok(Cache {
            items: Items::new(slabs, config.use_cas, config.item_bytes_max),
            table: Table::new(
                stripe_bits,
                buckets_log2,
                config.hash_expand,
                config.slabs.limit_bytes,
            )?,
            lrus: (0..CLASSES_MAX).map(|_| CachePadded::default()).collect(),
            flush: FlushMark::default(),
            moves: PageMoves::default(),
            cas: CachePadded::default(),
            limit_bytes: AtomicUsize::new(config.slabs.limit_bytes),
            tuning: Tuning::default(),
            counters: CacheCounters::default(),
            crawl_wanted: Mutex::default(),
        })
    }

    /// Begins to look for a key, by hashing it: once a command, for everything below.
    #[inline]
    pub fn probe(&self, key: &[u8]) -> Probe {
        Probe::new(self.table.hash(key))
    }

    /// First step of fetching ahead: the bucket.
    #[inline]
    pub fn prefetch_bucket(&self, probe: &mut Probe) {
        self.table.prefetch_bucket(probe);
    }

    /// Second: the item, once the bucket has come.
    #[inline]
    pub fn prefetch_item(&self, probe: &mut Probe) {
        if let Some(handle) = self.table.look(probe) {
            self.items.slabs().prefetch(handle, PREFETCH_BYTES_MAX);
        }
    }

    /// Third: what did not lie in the bucket, once what lies behind it has come.
    #[inline]
    pub fn prefetch_behind(&self, probe: &Probe) {
        if let Some(handle) = self.table.look_behind(probe) {
            self.items.slabs().prefetch(handle, PREFETCH_BYTES_MAX);
        }
    }

    /// For a request that may take the item out: the items beside it in its LRU list, once it has come itself.
    #[inline]
    pub fn prefetch_neighbours(&self, probe: &Probe) {
        if let Some(seen) = probe.seen() {
            self.items.prefetch_neighbours(seen);
        }
    }

    /// Locks the key's stripe and looks the key up. `probe` is the key's.
    #[inline]
    pub fn entry(&self, key: &[u8], probe: Probe, now: RelTime) -> Entry<'_> {
        let hash = probe.hash;
        let guard = self.table.lock(hash);
        let is_it = |handle| self.items.key(handle) == key;
        let place = guard.find_seen(&probe, is_it);
        let place = place.or_else(|| guard.find(hash, is_it));
        let found = place.map(|(slot, handle)| Found::new(&self.items, Some(slot), handle));
        let lookup = found.map_or(Lookup::Missing, |found| self.life(found.header, now));
        let is_dead = matches!(lookup, Lookup::Expired | Lookup::Flushed);
        // Looked at before it is buried.
        let died_unfetched =
            is_dead && found.is_some_and(|found| found.header.state() & state::FETCHED == 0);
        Entry {
            cache: self,
            guard: if is_dead {
                self.bury(guard, hash, place)
            } else {
                guard
            },
            hash,
            now,
            found: found.filter(|_| !is_dead),
            lookup,
            died_unfetched,
        }
    }

    /// Unlinks a dead item that was found.
    #[cold]
    fn bury<'c>(
        &'c self,
        mut guard: StripeGuard<'c>,
        hash: KeyHash,
        place: Option<(Slot, ChunkHandle)>,
    ) -> StripeGuard<'c> {
        if let Some((slot, handle)) = place {
            self.unlink(&mut guard, hash, slot, handle);
        }
        guard
    }

    /// Whether an item is alive, and if not, why; the caller holds its stripe or LRU lock.
    #[inline]
    pub(super) fn life(&self, header: &Header, now: RelTime) -> Lookup {
        let expires_at = header.expires_at();
        if expires_at != RelTime::NEVER && expires_at <= now {
            Lookup::Expired
        } else if self.flush.covers(header.state(), header.accessed_at(), now) {
            Lookup::Flushed
        } else {
            Lookup::Found
        }
    }

    /// A new item whose value is yet to be written. Makes room if there is none: by evicting, or by moving a page.
    ///
    /// Best called while no [`Entry`] is open: items of a locked stripe can be neither evicted nor moved, and a page
    /// of small items holds some of every stripe.
    pub fn create(&self, spec: &ItemSpec<'_>, now: RelTime) -> Result<NewItem<'_>, AllocError> {
        let created = self.items.create(spec, self.alloc_for(spec, now));
        self.count_failure(spec, created)
    }

    /// As [`Cache::create`], of the chunks in `spare` first.
    pub(super) fn create_from<'c>(
        &'c self,
        spare: &mut Spare<'c>,
        spec: &ItemSpec<'_>,
        now: RelTime,
    ) -> Result<NewItem<'c>, AllocError> {
        let created = spare.create(spec, self.alloc_for(spec, now));
        self.count_failure(spec, created)
    }

    fn alloc_for(
        &self,
        spec: &ItemSpec<'_>,
        now: RelTime,
    ) -> impl FnMut(ClassId) -> Option<ChunkHandle> {
        // For what can never fit, everybody would be evicted in vain.
        let fits = spec.value_len as usize <= self.limit_bytes();
        move |class| {
            if fits {
                self.alloc_chunk(class, now)
            } else {
                None
            }
        }
    }

    /// A new item of which only the first chunk is there yet, for a value that comes in pieces.
    pub fn begin(&self, spec: &ItemSpec<'_>, now: RelTime) -> Result<NewItem<'_>, AllocError> {
        let begun = self.items.begin(spec, |class| self.alloc_chunk(class, now));
        self.count_failure(spec, begun)
    }

    /// Adds the next chunk to such an item; false if it has all.
    pub fn extend(&self, item: &mut NewItem<'_>, now: RelTime) -> Result<bool, AllocError> {
        item.extend(|class| self.alloc_chunk(class, now))
    }

    fn count_failure<'c>(
        &self,
        spec: &ItemSpec<'_>,
        made: Result<NewItem<'c>, AllocError>,
    ) -> Result<NewItem<'c>, AllocError> {
        if let Err(AllocError::OutOfMemory) = made
            && let Ok(class) = self.items.class_for(spec)
        {
            self.lru(class).segments.counters.outofmemory += 1;
        }
        made
    }

    /// The size such an item has, in bytes with header and key.
    pub fn item_bytes(&self, spec: &ItemSpec<'_>) -> usize {
        self.items.item_bytes(spec)
    }

    /// The largest chunk, in bytes.
    pub fn chunk_bytes_max(&self) -> usize {
        self.items.slabs().chunk_bytes(self.items.slabs().largest())
    }

    /// The largest item, in bytes with header and key.
    pub fn item_bytes_max(&self) -> usize {
        self.items.item_bytes_max()
    }

    /// A CAS unique that was never given out before; 0 with `-C`. Called once a store: the count is also the clock of
    /// stores that `reclaim` compares classes by.
    #[inline]
    pub fn next_cas(&self) -> u64 {
        let cas = self.cas.next();
        if self.items.use_cas() { cas } else { 0 }
    }

    /// Ends every item stored before now.
    pub fn flush_now(&self, now: RelTime) {
        if self.flush.flush_now(now) {
            self.unlink_all();
        }
    }

    /// Ends, when `when` comes, every item not accessed from then on.
    pub fn flush_at(&self, when: RelTime, now: RelTime) {
        self.flush.flush_at(when, now);
    }

    fn unlink_all(&self) {
        for stripe in 0..self.table.stripes() {
            let mut guard = self.table.lock_stripe(stripe);
            for (hash, handle) in guard.entries() {
                if let Some((slot, _)) = guard.find(hash, |at| at == handle) {
                    self.unlink(&mut guard, hash, slot, handle);
                }
            }
        }
    }

    /// The LRU of a class, locked.
    #[inline]
    pub(super) fn lru(&self, class: ClassId) -> MutexGuard<'_, ClassLru> {
        self.lrus[class.index()].lock()
    }

    /// The class of an item that is linked or was just taken out of the table.
    #[inline]
    pub(super) fn class_of(&self, handle: ChunkHandle) -> ClassId {
        self.items
            .header(handle)
            .class()
            .expect("an item has a class")
    }

    /// Takes an item out of table and LRU, and drops the table's hold.
    pub(super) fn unlink(
        &self,
        guard: &mut StripeGuard<'_>,
        hash: KeyHash,
        slot: Slot,
        handle: ChunkHandle,
    ) {
        guard.remove(hash, slot);
        self.lru(self.class_of(handle)).unlink(&self.items, handle);
        self.items.release(handle);
    }

    // ---- what stats and admin commands ask ------------------------------------------------------------------------

    /// Table size.
    pub fn table_shape(&self) -> TableShape {
        self.table.shape()
    }

    /// Every class that has pages or has ever held an item.
    pub fn class_reports(&self, now: RelTime) -> Vec<ClassReport> {
        self.class_reports_from(0, now).collect()
    }

    /// The same from the class of index `first` on, each looked at when it is taken.
    pub fn class_reports_from(
        &self,
        first: usize,
        now: RelTime,
    ) -> impl Iterator<Item = ClassReport> + '_ {
        let classes = self.items.slabs().classes();
        classes
            .filter(move |class| class.index() >= first)
            .map(move |class| self.class_report(class, now))
            .filter(|report| report.slabs.total_pages > 0 || report.lru.total_items > 0)
    }

    fn class_report(&self, class: ClassId, now: RelTime) -> ClassReport {
        let slabs = self.items.slabs().class_stats(class);
        let lru = self.lru(class);
        let age = |segment| {
            let tail = lru.segments.tail(segment);
            tail.map_or(0, |tail| now.since(self.items.header(tail).accessed_at()))
        };
        ClassReport {
            class,
            slabs,
            counts: Segment::ALL.map(|segment| lru.segments.list(segment).count),
            ages_s: Segment::ALL.map(age),
            mem_requested: lru.requested_bytes,
            lru: lru.segments.counters,
        }
    }

    /// Forgets what the classes counted (`stats reset`).
    pub fn reset_counters(&self) {
        for class in self.items.slabs().classes() {
            let mut lru = self.lru(class);
            lru.segments.counters = LruCounters::default();
        }
        self.counters.malloc_fails.store(0, Relaxed);
        self.moves.reset();
    }

    /// True if the class exists.
    pub fn has_class(&self, class: u8) -> bool {
        self.items
            .slabs()
            .classes()
            .any(|known| known.get() == class)
    }

    /// Bytes of item memory that were ever written to, and so are resident.
    pub fn arena_bytes(&self) -> usize {
        self.items.slabs().arena_bytes_touched()
    }

    /// Bytes that the eviction policy keeps beside the items.
    pub fn policy_bytes(&self) -> usize {
        let classes = self.items.slabs().classes();
        classes.map(|class| self.lru(class).policy_bytes()).sum()
    }

    /// Free pages: touched before, now of no class.
    pub fn pool_pages(&self) -> usize {
        self.items.slabs().pool_pages()
    }

    /// The size of a slab page, in bytes.
    pub fn page_bytes(&self) -> usize {
        self.items.slabs().page_bytes()
    }

    /// Bytes the operator granted: to the byte, though items have whole pages of them.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes.load(Relaxed)
    }

    /// Asks for huge pages behind table and arena (`-L`): a lookup in millions of items then seldom waits for an address.
    /// But who touches one first waits until the kernel has zeroed 2 MB.
    pub fn advise_huge(&self) -> io::Result<()> {
        self.table.advise_huge()?;
        self.items.slabs().advise_huge()
    }

    /// Keeps the arena out of swap (`-k`).
    pub fn lock_memory(&self) -> io::Result<()> {
        self.items.slabs().lock_memory()
    }

    /// Changes the memory limit; the maintainer drains what is now too much. False, and no change, if it is more than was
    /// reserved at the start.
    pub fn set_limit_bytes(&self, bytes: usize) -> bool {
        let slabs = self.items.slabs();
        let before = slabs.limit_bytes();
        if slabs.set_limit(bytes) + slabs.page_bytes() <= bytes {
            slabs.set_limit(before);
            return false;
        }
        self.limit_bytes.store(bytes, Relaxed);
        true
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
}

/// One key, its stripe locked from the moment it is opened until it is dropped.
#[derive(Debug)]
pub struct Entry<'c> {
    pub(super) cache: &'c Cache,
    guard: StripeGuard<'c>,
    pub(super) hash: KeyHash,
    pub(super) now: RelTime,
    found: Option<Found<'c>>,
    pub(super) lookup: Lookup,
    /// The dead item that was found had never been read.
    pub(super) died_unfetched: bool,
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
        self.found.map(|found| {
            ItemView(ItemHead {
                items,
                handle: found.handle,
                header: found.header,
            })
        })
    }

    #[inline]
    fn handle(&self) -> ChunkHandle {
        self.found
            .expect("only called on an entry with an item")
            .handle
    }

    #[inline]
    fn header(&self) -> &'c Header {
        let found = self.found.as_ref();
        found.expect("only called on an entry with an item").header
    }

    /// Notes a read: the item's time and its place in the LRU (later, from these bits). Panics without an item.
    #[inline]
    pub fn bump(&self) {
        self.header().count_use();
        self.note_access();
    }

    /// Notes a use that is no read: the value was changed in its place. Panics without an item.
    #[inline]
    pub fn bump_written(&self) {
        self.header().count_write();
        self.note_access();
    }

    /// Notes that the item was named, though not read. Panics without an item.
    #[inline]
    pub fn note_access(&self) {
        let header = self.header();
        if header.accessed_at() != self.now {
            header.set_accessed_at(self.now);
        }
    }

    /// Gives the item another end. Panics without an item.
    pub fn touch(&mut self, expires_at: RelTime) {
        let (cache, handle) = (self.cache, self.handle());
        let set_end = || cache.items.header(handle).set_expires_at(expires_at);
        if cache.tuning.policy() == Policy::Ttl {
            let mut lru = cache.lru(cache.class_of(handle));
            lru.touch(&cache.items, handle, set_end);
        } else {
            set_end();
        }
    }

    /// Gives the item another CAS unique. Panics without an item.
    pub fn set_cas(&mut self, cas: u64) {
        self.cache.items.set_cas(self.handle(), cas);
    }

    /// Marks the item stale, and its lease as free (`I`). Panics without an item.
    pub fn mark_stale(&mut self) {
        let header = self.header();
        header.clear_bits(state::WIN_SENT);
        header.set_bits(state::STALE);
    }

    /// Notes that somebody holds the lease. Panics without an item.
    pub fn mark_win_sent(&mut self) {
        self.header().set_bits(state::WIN_SENT);
    }

    /// Holds on to a value that is large ([`ItemView::is_large`]). Panics without an item.
    pub fn pin(&self) -> PinnedValue<'c> {
        self.cache.items.pin(self.handle())
    }

    /// Overwrites the value by one of the same length, of an item that is not large. Panics without an item.
    pub fn overwrite(&mut self, value: &[u8]) {
        self.cache.items.overwrite_value(self.handle(), value);
    }

    /// Puts a new item in the place of the present one, or of none. Panics if its value is not written to the last byte:
    /// what lies behind would be another item's.
    pub fn put(&mut self, new: NewItem<'c>, cas: u64) {
        let cache = self.cache;
        let items = &cache.items;
        let handle = new.into_handle();
        items.header(handle).set_accessed_at(self.now);
        items.set_cas(handle, cas);
        items.header(handle).set_bits(cache.flush.generation_bits());
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
        self.found = Some(Found::new(items, slot, handle));
        let class = cache.class_of(handle);
        let old = old.map(|found| found.handle);
        let newcomer = Newcomer {
            handle,
            hash: self.hash,
            replaced: old.map(|old| Segment::of(items.header(old).state())),
            arrives: old.is_none_or(|old| cache.class_of(old) != class),
            is_temporary: cache
                .tuning
                .is_temporary(items.header(handle).expires_at(), self.now),
        };
        {
            let mut lru = cache.lru(class);
            lru.follow(items, cache.tuning.policy());
            if let Some(old) = old
                && cache.class_of(old) == class
            {
                lru.unlink(items, old);
            }
            lru.link(items, newcomer, cache.cas.last());
            // Once: it takes the place of the dead only if nobody has put an item there since.
            if old.is_none() && matches!(self.lookup, Lookup::Expired | Lookup::Flushed) {
                lru.segments.counters.count_reclaimed(self.died_unfetched);
            }
            lru.tidy(items, cache.tuning.balance());
        }
        if let Some(old) = old {
            let old_class = cache.class_of(old);
            if old_class != class {
                cache.lru(old_class).unlink(items, old);
            }
            items.release(old);
        }
    }

    /// Takes the item out, if there is one.
    pub fn remove(&mut self) {
        if let Some(found) = self.found.take() {
            let slot = self.slot(found);
            self.cache
                .unlink(&mut self.guard, self.hash, slot, found.handle);
        }
    }

    fn slot(&self, found: Found<'c>) -> Slot {
        let find = || self.guard.find(self.hash, |at| at == found.handle);
        found
            .slot
            .or_else(|| find().map(|(slot, _)| slot))
            .expect("an entry's item is in the table")
    }
}

/// A live item, all of it: only an [`Entry`] shows it, which has its stripe locked.
#[derive(Debug, Clone, Copy)]
pub struct ItemView<'e>(ItemHead<'e>);

impl<'e> Deref for ItemView<'e> {
    type Target = ItemHead<'e>;

    #[inline]
    fn deref(&self) -> &ItemHead<'e> {
        &self.0
    }
}

impl<'e> ItemView<'e> {
    /// The value, unless it is large.
    #[inline(always)]
    pub fn value(&self) -> Option<&'e [u8]> {
        self.items.small_value(self.handle, self.header)
    }

    /// The value's pieces in order.
    pub fn value_pieces(&self) -> impl Iterator<Item = &'e [u8]> {
        self.items.value_pieces(self.handle)
    }
}

/// A live item but for its value: what can be read with its stripe locked, or with its LRU.
#[derive(Debug, Clone, Copy)]
pub struct ItemHead<'e> {
    items: &'e Items,
    handle: ChunkHandle,
    header: &'e Header,
}

impl<'e> ItemHead<'e> {
    /// The caller holds the LRU of a linked item for as long as it holds the view.
    #[inline]
    pub(super) fn new(items: &'e Items, handle: ChunkHandle) -> Self {
        let header = items.header(handle);
        ItemHead {
            items,
            handle,
            header,
        }
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &'e [u8] {
        self.items.key(self.handle)
    }

    /// True if the client that stored it sent the key in base64.
    pub fn key_binary(&self) -> bool {
        self.header.state() & state::KEY_BINARY != 0
    }

    /// Bytes of the value.
    #[inline]
    pub fn value_len(&self) -> usize {
        self.header.value_len()
    }

    /// True if the value is sent from where it lies ([`Entry::pin`]) and may be in pieces.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.header.state() & state::LARGE != 0
    }

    /// The client flags.
    #[inline]
    pub fn client_flags(&self) -> u32 {
        self.items.client_flags(self.handle)
    }

    /// The CAS unique, 0 with `-C`.
    #[inline]
    pub fn cas(&self) -> u64 {
        self.items.cas(self.handle)
    }

    /// When the item ends.
    #[inline]
    pub fn expires_at(&self) -> RelTime {
        self.header.expires_at()
    }

    /// The second of the last access.
    #[inline]
    pub fn accessed_at(&self) -> RelTime {
        self.header.accessed_at()
    }

    /// True if it was read since it was stored.
    pub fn is_fetched(&self) -> bool {
        self.header.state() & state::FETCHED != 0
    }

    /// True if it was marked stale.
    #[inline]
    pub fn is_stale(&self) -> bool {
        self.header.state() & state::STALE != 0
    }

    /// True if somebody holds the lease.
    #[inline]
    pub fn is_win_sent(&self) -> bool {
        self.header.state() & state::WIN_SENT != 0
    }

    /// The slab class.
    #[inline]
    pub fn class(&self) -> ClassId {
        self.header.class().expect("an item has a class")
    }

    /// The LRU segment it is in.
    #[inline]
    pub fn segment(&self) -> Segment {
        Segment::of(self.header.state())
    }

    /// Bytes the item asked for.
    pub fn item_bytes(&self) -> usize {
        self.items.requested_bytes(self.handle)
    }
}

#[cfg(test)]
impl Cache {
    /// Checks that table, LRUs and allocator agree.
    pub(crate) fn check_invariants(&self) {
        let mut linked = 0;
        for stripe in 0..self.table.stripes() {
            let guard = self.table.lock_stripe(stripe);
            guard.check_invariants();
            for (hash, handle) in guard.entries() {
                assert_eq!(self.table.hash(self.items.key(handle)), hash);
                assert!(self.items.header(handle).state() & state::LINKED != 0, "I2");
                linked += 1;
            }
        }
        let mut listed = 0;
        for class in self.items.slabs().classes() {
            let lru = self.lru(class);
            lru.check_invariants(&self.items);
            listed += lru.segments.count();
        }
        assert_eq!(linked, listed, "I2: table and LRU hold the same items");
    }
}
