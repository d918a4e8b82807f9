//! [`Cache`]: what the store is made of, and what the whole of it is asked for. What is done to one key is done through an
//! `Entry` (`entry`); where memory comes from is told in `memory`.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use slab_alloc::{CLASSES_MAX, ChunkHandle, ClassId, ClassStats, Config, SlabAllocator};

use super::at::At;
use super::class_mask::ClassMask;
use super::eviction::Policy;
use super::flush::FlushMark;
use super::item::{AllocError, Header, ItemSpec, Items, NewItem, PinnedValue, Spare};
use super::lru::ClassLru;
use super::memory::{Lodging, PageMoves, Sizing};
use super::memory_file::MemoryFile;
use super::segments::{LruCounters, Segment};
use super::table::{KeyHash, Slot, StripeGuard, Table, TableShape};
use super::tuning::Tuning;
use super::uniques::Stores;
use crate::clock::{Moment, RelTime};
use crate::events::Events;
use crate::keyspace::misses::{Departed, Gone};
use crate::knobs::Knobs;
use crate::packing::Unpacker;

/// For so many bytes of the memory limit there is one note of an item that is gone. A note has three bytes, so that all of
/// them take a 256th of it.
const MEMORY_A_NOTE: usize = 820;

/// Of a page that is full so much is items, in percent: the rest is what they are smaller than their chunks.
const ITEMS_PERCENT: u64 = 93;

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
    /// The knobs as they are at the start.
    pub knobs: Knobs,
}

impl CacheConfig {
    /// The eviction policy in force from the start.
    pub(super) fn policy(&self) -> Policy {
        let tuning = Tuning::default();
        tuning.set_all(&self.knobs);
        tuning.policy()
    }

    /// Stripes of the table, as a power of two. 256 a thread: two threads that meet in one are rare, and the locks stay in the
    /// second-level cache.
    pub(super) fn stripe_bits(&self) -> u32 {
        (self.threads.next_power_of_two().ilog2() + 8).min(14)
    }

    /// Buckets to start with, as a power of two.
    pub(super) fn buckets_log2(&self) -> u32 {
        self.hash_power.saturating_sub(2)
    }
}

/// What a cache is put together from.
pub(super) struct Parts {
    pub items: Items,
    pub table: Table,
    /// Of the table's hash, if it is for other processes as well.
    pub seeds: [u64; 4],
    /// By class; empty if nothing is in them.
    pub lrus: Vec<ClassLru>,
    pub flush: FlushMark,
    pub stores: Stores,
    pub memory_file: Option<MemoryFile>,
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
    pub(super) sizing: Mutex<Sizing>,
    pub(super) lodging: Lodging,
    /// How many pages have gone to classes when a store is to make the next step of `sizing`.
    pub(super) sizing_due: AtomicUsize,
    /// Written by stores, so that it must not lie beside what every read looks at.
    pub(super) stores: CachePadded<Stores>,
    limit_bytes: AtomicUsize,
    /// The knobs.
    pub tuning: Tuning,
    /// Counts of the whole store.
    pub counters: CacheCounters,
    /// What happens to items, for whoever listens.
    pub(super) events: Events,
    /// What became of items that are gone.
    pub(super) departed: Departed,
    /// Classes a client asked to be crawled (`lru_crawler crawl`).
    pub(super) crawl_wanted: Mutex<ClassMask>,
    /// The file that all of it lies in, if it does.
    pub(super) memory_file: Option<MemoryFile>,
    pub(super) seeds: [u64; 4],
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

impl Lookup {
    /// What to note of an item that was found so and is unlinked.
    pub(super) fn gone(self) -> Gone {
        match self {
            Lookup::Expired => Gone::Expired,
            Lookup::Flushed => Gone::Flushed,
            Lookup::Found | Lookup::Missing => Gone::Evicted,
        }
    }
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
        let table = Table::new(
            config.stripe_bits(),
            config.buckets_log2(),
            config.hash_expand,
            config.slabs.limit_bytes,
        )?;
        let parts = Parts {
            items: Items::new(slabs, config.use_cas, config.item_bytes_max),
            table,
            seeds: [0; 4],
            lrus: Vec::new(),
            flush: FlushMark::default(),
            stores: Stores::default(),
            memory_file: None,
        };
        Ok(Cache::of(parts, config))
    }

    /// The cache of these parts.
    pub(super) fn of(parts: Parts, config: &CacheConfig) -> Self {
        let mut lrus = parts.lrus;
        lrus.resize_with(CLASSES_MAX, ClassLru::default);
        let tuning = Tuning::default();
        tuning.set_all(&config.knobs);
        let padded = |lru| CachePadded::new(Mutex::new(lru));
        let notes = config.slabs.limit_bytes / MEMORY_A_NOTE;
        let departed = match parts.memory_file {
            // It may be that of a server before, whose clients wait. The maintainer sees to it.
            Some(_) => Departed::later(notes),
            None => Departed::new(notes),
        };
        Cache {
            items: parts.items,
            table: parts.table,
            lrus: lrus.into_iter().map(padded).collect(),
            flush: parts.flush,
            moves: PageMoves::default(),
            sizing: Mutex::default(),
            lodging: Lodging::default(),
            sizing_due: AtomicUsize::new(0),
            stores: CachePadded::new(parts.stores),
            limit_bytes: AtomicUsize::new(config.slabs.limit_bytes),
            tuning,
            counters: CacheCounters::default(),
            // One more than workers, for keys over HTTP.
            events: Events::new(config.threads + 1),
            departed,
            crawl_wanted: Mutex::default(),
            memory_file: parts.memory_file,
            seeds: parts.seeds,
        }
    }

    /// The same with another flush mark.
    pub(super) fn with_flush(self, flush: FlushMark) -> Self {
        Cache { flush, ..self }
    }

    /// Where the items lie, if that is a file.
    pub fn memory_file(&self) -> Option<&MemoryFile> {
        self.memory_file.as_ref()
    }

    /// Notes in the memory file, if there is one, what the clocks say.
    pub fn note_time(&self, moment: &Moment) {
        if let Some(memory_file) = &self.memory_file {
            memory_file.note_time(moment, &self.stores);
        }
    }

    /// Leaves the memory file, if there is one, so that the next process can go on with it. To be called when no other thread
    /// uses the cache any more.
    pub fn close(&self, moment: &Moment) -> io::Result<()> {
        match &self.memory_file {
            Some(memory_file) => memory_file.close(self, moment, true),
            None => Ok(()),
        }
    }

    /// The same for a process that takes the file from this one's hands: nobody can change it in between.
    pub fn hand_over(&self, moment: &Moment) -> io::Result<()> {
        match &self.memory_file {
            Some(memory_file) => memory_file.close(self, moment, false),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn note_flush(&self) {
        if let Some(memory_file) = &self.memory_file {
            memory_file.note_flush(self.flush.words());
        }
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
    pub fn create(&self, spec: &ItemSpec<'_>, at: At) -> Result<NewItem<'_>, AllocError> {
        let created = self.items.create(spec, self.alloc_for(spec, at));
        self.count_failure(spec, created)
    }

    /// As [`Cache::create`], of the chunks in `spare` first.
    pub(super) fn create_from<'c>(
        &'c self,
        spare: &mut Spare<'c>,
        spec: &ItemSpec<'_>,
        at: At,
    ) -> Result<NewItem<'c>, AllocError> {
        let created = spare.create(spec, self.alloc_for(spec, at));
        self.count_failure(spec, created)
    }

    fn alloc_for(&self, spec: &ItemSpec<'_>, at: At) -> impl FnMut(ClassId) -> Option<ChunkHandle> {
        // For what can never fit, everybody would be evicted in vain.
        let fits = spec.value_len as usize <= self.limit_bytes();
        move |class| {
            if fits {
                self.alloc_chunk(class, at)
            } else {
                None
            }
        }
    }

    /// A new item of which only the first chunk is there yet, for a value that comes in pieces.
    pub fn begin(&self, spec: &ItemSpec<'_>, at: At) -> Result<NewItem<'_>, AllocError> {
        let begun = self.items.begin(spec, |class| self.alloc_chunk(class, at));
        self.count_failure(spec, begun)
    }

    /// Adds the next chunk to such an item; false if it has all.
    pub fn extend(&self, item: &mut NewItem<'_>, at: At) -> Result<bool, AllocError> {
        item.extend(|class| self.alloc_chunk(class, at))
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

    /// An item that is on its way into the cache, of which another process has written down what it knew
    /// ([`NewItem::pack`]). None where that cannot be.
    pub fn unpack_new(&self, from: &mut Unpacker<'_>) -> Option<NewItem<'_>> {
        NewItem::unpack(&self.items, from)
    }

    /// The same of a value that is on its way to a client ([`PinnedValue::pack`]).
    pub fn unpack_pinned(&self, from: &mut Unpacker<'_>) -> Option<PinnedValue<'_>> {
        PinnedValue::unpack(&self.items, from)
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

    /// Ends every item stored before now.
    pub fn flush_now(&self, at: At) {
        let flush = || {
            let generations_used_up = self.flush.flush_now(at.now);
            self.note_flush();
            generations_used_up
        };
        if self.events.flush(at.by, 0, flush) {
            self.unlink_all();
        }
    }

    /// Ends, when `when` comes, every item not accessed from then on.
    pub fn flush_at(&self, when: RelTime, at: At) {
        let flush = || {
            let had_come = self.flush.flush_at(when, at.now);
            self.note_flush();
            had_come
        };
        if self.events.flush(at.by, when.0, flush) {
            // The one before, of which the maintainer may not have told yet.
            self.events.flush_came(at.by);
        }
    }

    /// What happens to items.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// When a delayed flush comes due that is still ahead.
    pub fn flush_due(&self, now: RelTime) -> Option<RelTime> {
        self.flush.due(now)
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

    /// Bytes of items when the memory is full: those there are, and of the pages that no class has the part that items get.
    pub fn bytes_when_full(&self, now: RelTime) -> u64 {
        let (mut requested, mut pages) = (0, 0);
        for report in self.class_reports_from(0, now) {
            requested += report.mem_requested;
            pages += report.slabs.total_pages;
        }
        let free = self.limit_bytes().saturating_sub(pages * self.page_bytes()) as u64;
        requested + free / 100 * ITEMS_PERCENT
    }

    /// Forgets what the classes counted (`stats reset`).
    pub fn reset_counters(&self) {
        for class in self.items.slabs().classes() {
            let mut lru = self.lru(class);
            lru.segments.counters = LruCounters::default();
        }
        self.counters.malloc_fails.store(0, Relaxed);
        self.counters.lru_crawler_starts.store(0, Relaxed);
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

    /// Bytes of pages beyond the limit that classes took because they had none.
    pub fn bytes_beyond_limit(&self) -> usize {
        let slabs = self.items.slabs();
        slabs.beyond_limit() * slabs.page_bytes()
    }

    /// Bytes that the notes of why items went take.
    pub fn departed_bytes(&self) -> usize {
        self.departed.bytes()
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
                assert!(self.items.header(handle).state().is_linked_head(), "I2");
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
