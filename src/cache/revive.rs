//! How a cache goes on with the items of a process before it, from its memory file.
//!
//! ```text
//!             found                                    how                what it costs
//!  attach     clean, of the same layout                records --> Cache  nothing an item
//!  walk       of a process that did not end well       \  each page: sound items --> table, and a list with their ages
//!  import     of another layout, clean or not          /  then the lists, sorted --> LRU
//! ```
//!
//! Walk and import are the same but for one thing: an item that was found stays where it is, or is stored anew in another
//! file, whose predecessor gives its pages back as it goes. Threads share the pages.
//!
//! Rv1. Nothing of the file is believed but what its sums cover; of a walk's items, nothing but what `Items::is_sound` has
//!      seen.
//! Rv2. Of two items of one key the newer is kept: a process that was killed while it replaced one may leave both.
//! Rv3. Until all is done the file says OPEN, so that a process that ends meanwhile leaves what can be walked again.
//! Rv4. The new file of an import takes the older one's name when all is in it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use slab_alloc::{CLASSES_MAX, ChunkHandle, ClassId, PageId, Places, Sizes, SlabAllocator, image};

use super::eviction::Policy;
use super::flush::FlushMark;
use super::item::{ItemSpec, Items, Segment};
use super::lru::ClassLru;
use super::memory_file::layout::{Geometry, State};
use super::memory_file::{self, Dropped, Found, Head, How, MemoryFile, Place, Restart};
use super::segments::{List, Segments};
use super::store::{Cache, CacheConfig, Parts};
use super::table::{KeyHash, Probe, Table};
use super::uniques::Stores;
use crate::clock::{Moment, RelTime};

/// A new file has room for so many times the memory limit: as far the limit can grow in place.
const REACH: usize = 4;
/// The least such room, in bytes.
const REACH_BYTES_MIN: usize = 256 << 20;
/// What a file system must have free beside the memory limit, as a part of it: for the table.
const TABLE_PART: usize = 8;
/// The largest CAS unique is known as of the last tick. So much larger ones may have been given out since: a million stores
/// to one stripe of as many as there may be.
const CAS_SINCE_TICK: u64 = 1 << 36;
/// Times beyond this, in milliseconds, no server has come to: they are damage.
const NOW_MS_MAX: u64 = (u32::MAX / 2) as u64 * 1000;
/// The same for CAS uniques.
const CAS_MAX: u64 = 1 << 62;
/// Pages that a thread takes at a time.
const PAGES_A_TURN: usize = 8;
/// Items whose buckets are on their way while the first of them is put in.
const AHEAD: usize = 16;

/// A cache that came up, and how.
#[derive(Debug)]
pub struct Opened {
    /// The cache.
    pub cache: Cache,
    /// How it came by its items.
    pub restart: Restart,
    /// What its clock says now, in milliseconds; none if it began without items.
    pub now_ms: Option<u64>,
}

impl Cache {
    /// A cache in the file at `path`, with the items that are there. The error is why the server cannot start: the file is
    /// somebody else's, or there is no space for it. A file that cannot be gone on with is begun anew, and
    /// [`Restart::reason`] says why.
    pub fn open(config: &CacheConfig, path: &Path, boot_id: u64) -> Result<Opened, String> {
        let file = image::open(path).map_err(|error| format!("-e {}: {error}", path.display()))?;
        Self::open_in(config, Place::Named(path), file, boot_id)
    }

    /// A cache in a file without a name, which can be handed to another process.
    pub fn unnamed(config: &CacheConfig) -> io::Result<Cache> {
        let cache = begin(config, Place::Unnamed, image::unnamed()?)?;
        cache.memory_file().map(MemoryFile::open).transpose()?;
        Ok(cache)
    }

    /// As [`Cache::open`], in a file that is open.
    pub fn open_in(
        config: &CacheConfig,
        place: Place<'_>,
        file: File,
        boot_id: u64,
    ) -> Result<Opened, String> {
        let told = |error: io::Error| format!("{place}: {error}");
        let begun = Instant::now();
        let found = Head::find(&file).map_err(told)?;
        let reason = match found {
            Found::Foreign => {
                return Err(format!(
                    "{place}: there is something else in it, which stays as it is: name another file, or remove this one"
                ));
            }
            Found::Nothing => "the file is new".to_owned(),
            Found::Unusable(reason) => reason,
            Found::Head(head) => {
                let reviver = Reviver::new(config, place, *head, boot_id, begun);
                match reviver.revive(file.try_clone().map_err(told)?)? {
                    Ok(opened) => return Ok(opened),
                    Err(reason) => reason,
                }
            }
        };
        file.set_len(0).map_err(told)?;
        check_space(&file, config, place)?;
        let cache = begin(config, place, file).map_err(told)?;
        let opened = cache.memory_file.as_ref().map(MemoryFile::open);
        opened.transpose().map_err(told)?;
        let mut restart = Restart::cold(reason);
        restart.steps.push(("begin", begun.elapsed()));
        Ok(Opened {
            cache,
            restart,
            now_ms: None,
        })
    }
}

impl Cache {
    /// Why a cache of this configuration cannot go on where its items are, in a file of another process; none if it can.
    pub fn cannot_take_over(config: &CacheConfig, file: &File) -> Option<String> {
        let head = match Head::find(file) {
            Ok(Found::Head(head)) => head,
            Ok(Found::Unusable(reason)) => return Some(reason),
            Ok(_) => return Some("there are no items in it".to_owned()),
            Err(error) => return Some(error.to_string()),
        };
        other_layout(config, &head)
    }

    /// Goes on with a cache that another process, or this one, has just left by [`Cache::hand_over`]. The error is why not; the
    /// file is then as it was but for its page lists, which whoever goes on makes anew.
    pub fn take_over(
        config: &CacheConfig,
        place: Place<'_>,
        file: File,
        boot_id: u64,
    ) -> Result<Opened, String> {
        let begun = Instant::now();
        let head = match Head::find(&file) {
            Ok(Found::Head(head)) => *head,
            Ok(Found::Unusable(reason)) => return Err(reason),
            Ok(_) => return Err("there are no items in it".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        if let Some(reason) = other_layout(config, &head) {
            return Err(reason);
        }
        if head.state() != State::Clean || !head.has_records() {
            return Err("it was not left in order".to_owned());
        }
        let mut reviver = Reviver::new(config, place, head, boot_id, begun);
        let told = |error: io::Error| error.to_string();
        let memory_file = MemoryFile::map(place, file, reviver.head.geometry).map_err(told)?;
        let parts = reviver.attach(&memory_file)?;
        let cache = reviver.attached(parts, memory_file).map_err(told)?;
        Ok(Opened {
            cache,
            restart: reviver.restart,
            now_ms: Some(reviver.now_ms),
        })
    }
}

/// Why items of a file cannot stay where they are; none if they can.
fn other_layout(config: &CacheConfig, head: &Head) -> Option<String> {
    let (cut, slabs) = (&head.geometry.slabs, &config.slabs);
    if slabs.limit_bytes > cut.bytes_max() {
        let most = cut.bytes_max() >> 20;
        return Some(format!(
            "-m is beyond the {most} MB that the file was laid out for"
        ));
    }
    match slabs.sizes.chunk_sizes(cut.granule, cut.page_bytes) {
        Ok(sizes) if sizes == head.sizes => None,
        _ => Some("the chunk sizes are others".to_owned()),
    }
}

/// Whether the file system has what the limit may take.
fn check_space(file: &File, config: &CacheConfig, place: Place<'_>) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    if place == Place::Unnamed {
        return Ok(());
    }
    let limit = config.slabs.limit_bytes as u64;
    let wanted = limit + limit / TABLE_PART as u64 + layout_bytes();
    let taken = file.metadata().map_or(0, |found| found.blocks() * 512);
    match image::space_left(file) {
        Some(left) if left + taken < wanted => Err(format!(
            "{place}: its file system has {} MB left, and -m {} needs {} MB with the table: lower -m, or make room",
            (left + taken) >> 20,
            limit >> 20,
            wanted.div_ceil(1 << 20)
        )),
        _ => Ok(()),
    }
}

fn layout_bytes() -> u64 {
    super::memory_file::layout::HEAD_BYTES as u64
}

/// A cache without items in an empty file.
fn begin(config: &CacheConfig, place: Place<'_>, file: File) -> io::Result<Cache> {
    let slabs = &config.slabs;
    let page_bytes = slabs.page_bytes;
    let cut = match place {
        Place::Named(_) => {
            let bytes_max = (slabs.limit_bytes * REACH).max(REACH_BYTES_MIN);
            Places::for_items(page_bytes, bytes_max)
        }
        Place::Unnamed => Places::for_reach(page_bytes, slabs.limit_bytes),
    };
    let sizes = slabs.sizes.chunk_sizes(cut.granule, page_bytes)?;
    // The classes decide how small an item can be.
    let geometry = Geometry::for_items(cut, sizes[0]);
    let memory_file = MemoryFile::map(place, file, geometry)?;
    memory_file.begin(&sizes);
    let seeds = KeyHash::seeds();
    let image = memory_file.image();
    let slabs = SlabAllocator::create(image, &geometry.slabs, &slabs.sizes, slabs.limit_bytes)?;
    let table = Table::create(
        image,
        &geometry.table,
        seeds,
        config.stripe_bits(),
        config.buckets_log2(),
        config.hash_expand,
        config.slabs.limit_bytes,
    )?;
    let items = Items::new(slabs, config.use_cas, config.item_bytes_max);
    let parts = Parts {
        items,
        table,
        seeds,
        lrus: Vec::new(),
        flush: FlushMark::default(),
        stores: Stores::default(),
        memory_file: Some(memory_file),
    };
    Ok(Cache::of(parts, config))
}

/// Whoever brings a found file back to life.
struct Reviver<'a> {
    config: &'a CacheConfig,
    place: Place<'a>,
    head: Head,
    boot_id: u64,
    restart: Restart,
    now_ms: u64,
    step_begun: Instant,
}

impl<'a> Reviver<'a> {
    fn new(
        config: &'a CacheConfig,
        place: Place<'a>,
        head: Head,
        boot_id: u64,
        begun: Instant,
    ) -> Self {
        let last = head.last_moment();
        let down_ms = Moment::read(0, boot_id).since_ms(&last);
        let restart = Restart {
            down_ms,
            ..Restart::cold("")
        };
        Reviver {
            config,
            place,
            now_ms: last.now_ms.saturating_add(down_ms),
            head,
            boot_id,
            restart,
            step_begun: begun,
        }
    }

    fn step_done(&mut self, step: &'static str) {
        let took = self.step_begun.elapsed();
        self.restart.steps.push((step, took));
        self.step_begun = Instant::now();
    }

    /// The inner error is why the file has to be begun anew, the outer one why the server cannot start.
    fn revive(mut self, file: File) -> Result<Result<Opened, String>, String> {
        let state = self.head.state();
        if state == State::Empty {
            return Ok(Err("nothing was in it yet".to_owned()));
        }
        if state == State::Clean && !self.head.has_records() {
            // Nobody knows what was flushed, nor which uniques are new.
            return Ok(Err("its records are damaged".to_owned()));
        }
        if self.now_ms >= NOW_MS_MAX || self.head.cas() >= CAS_MAX {
            return Ok(Err("its clock or its count of stores is damaged".to_owned()));
        }
        let is_same_boot = self.boot_id != 0 && self.head.last_moment().boot_id == self.boot_id;
        if state == State::Open && !is_same_boot {
            // What a disk has of the last seconds before a power cut, nobody knows.
            return Ok(Err(
                "the machine was started anew while a server had the file".to_owned(),
            ));
        }
        check_space(&file, self.config, self.place)?;
        let revived = match other_layout(self.config, &self.head) {
            Some(reason) => self.import(file, reason),
            None => self.take_up(file),
        };
        let told = |error| format!("it cannot be gone on with: {error}");
        Ok(revived.map_err(told).map(|cache| Opened {
            cache,
            restart: self.restart,
            now_ms: Some(self.now_ms),
        }))
    }

    /// Goes on with items that stay where they are.
    fn take_up(&mut self, file: File) -> io::Result<Cache> {
        let memory_file = MemoryFile::map(self.place, file, self.head.geometry)?;
        let reason = match self.head.state() {
            State::Clean => match self.attach(&memory_file) {
                Ok(parts) => return self.attached(parts, memory_file),
                Err(reason) => reason,
            },
            _ => "the server before did not end well".to_owned(),
        };
        self.walk(memory_file, reason)
    }

    // ---- attach ---------------------------------------------------------------------------------------------------

    /// What the records say, or why they cannot be followed.
    fn attach(&self, memory_file: &MemoryFile) -> Result<Parts, String> {
        let (head, config) = (&self.head, self.config);
        let (image, geometry) = (memory_file.image(), &head.geometry);
        let told = |error: io::Error| format!("its records say {error}");
        let record = head
            .table()
            .ok_or("its records say a table that cannot be")?;
        let (seeds, slabs) = (head.seeds(), &config.slabs);
        let table = Table::resume(
            image,
            &geometry.table,
            seeds,
            &record,
            config.hash_expand,
            slabs.limit_bytes,
        )
        .map_err(told)?;
        if table.hash_probe() != head.hash_probe() {
            return Err("keys have other hashes on this machine or in this version".to_owned());
        }
        let (summed, states_sum, table_sum) = head.sums();
        if summed && memory_file::table_sum(&table) != table_sum {
            return Err("its table was changed while no server had it".to_owned());
        }
        let (places, sizes) = (&geometry.slabs, &slabs.sizes);
        let slabs = SlabAllocator::resume(image, places, sizes, slabs.limit_bytes, states_sum)
            .map_err(told)?;
        for class in slabs.classes() {
            slabs.set_open(class, head.class(class).is_open);
        }
        let items = Items::new(slabs, config.use_cas, config.item_bytes_max);
        if summed {
            let changed = memory_file.changed_pages(&items).len();
            if changed > 0 {
                return Err(format!(
                    "{changed} of its pages were changed while no server had it"
                ));
            }
        }
        let lru = |index: usize| {
            let record = ClassId::new(index as u8)
                .filter(|class| class.index() <= head.sizes.len())
                .map(|class| head.class(class))
                .unwrap_or_default();
            let segments = Segments::resume(record.lists);
            ClassLru::resume(&items, segments, record.requested_bytes, config.policy())
        };
        let lrus = (0..CLASSES_MAX).map(lru).collect();
        Ok(Parts {
            items,
            table,
            seeds,
            lrus,
            flush: FlushMark::resume(head.flush()),
            stores: Stores::resume(head.stores()),
            memory_file: None,
        })
    }

    fn attached(&mut self, parts: Parts, memory_file: MemoryFile) -> io::Result<Cache> {
        let (policy, learned) = self.head.learned();
        if policy == self.config.policy() as u64 && learned > 0 {
            memory_file.has_learned(learned);
        }
        memory_file.open()?;
        let memory_file = Some(memory_file);
        let cache = Cache::of(
            Parts {
                memory_file,
                ..parts
            },
            self.config,
        );
        cache.pass_cas(self.head.cas());
        self.restart.how = How::Attached;
        self.restart.kept = cache.table_shape().items as u64;
        self.step_done("attach");
        Ok(cache)
    }

    // ---- walk and import ------------------------------------------------------------------------------------------

    /// Looks through the items where they are.
    fn walk(&mut self, memory_file: MemoryFile, reason: String) -> io::Result<Cache> {
        let place = self.place;
        log::warn!("{place}: {reason}: its items are looked through");
        let (config, geometry) = (self.config, self.head.geometry);
        let (image, limit_bytes) = (memory_file.image(), config.slabs.limit_bytes);
        let unfinished = memory_file.write_marks();
        memory_file.open()?;
        let slabs =
            SlabAllocator::salvage(image, &geometry.slabs, &config.slabs.sizes, limit_bytes)?;
        let chunks = |page| slabs.page_chunks(page).size_hint().0;
        let items_max: usize = slabs.page_ids().map(chunks).sum();
        Table::clear(image, &geometry.table)?;
        let seeds = KeyHash::seeds();
        let table = Table::create(
            image,
            &geometry.table,
            seeds,
            config.stripe_bits(),
            (items_max / 6).max(1).ilog2().max(config.buckets_log2()),
            config.hash_expand,
            limit_bytes,
        )?;
        let items = Items::new(slabs, config.use_cas, config.item_bytes_max);
        self.drop_changed_pages(&memory_file, &items);
        let parts = Parts {
            items,
            table,
            seeds,
            lrus: Vec::new(),
            flush: FlushMark::resume(self.head.flush()),
            stores: Stores::resume(self.head.stores()),
            memory_file: Some(memory_file),
        };
        let cache = Cache::of(parts, config);
        cache.pass_cas(self.head.cas() + CAS_SINCE_TICK);
        self.restart.how = How::Walked;
        self.restart.reason = reason;
        self.step_done("map");
        self.look_through(&cache, None, unfinished);
        Ok(cache)
    }

    /// Stores the items anew in a file of the layout that is wanted, which takes the name of the old one.
    fn import(&mut self, file: File, reason: String) -> io::Result<Cache> {
        let place = self.place;
        log::warn!("{place}: {reason}: its items are stored anew");
        let old_file = MemoryFile::map(self.place, file, self.head.geometry)?;
        let unfinished = old_file.write_marks();
        old_file.open()?;
        let sizes = Sizes::Exact(self.head.sizes.clone());
        let old = SlabAllocator::salvage(old_file.image(), &self.head.geometry.slabs, &sizes, 0)?;
        let old = Items::new(old, self.config.use_cas, usize::MAX);
        self.drop_changed_pages(&old_file, &old);
        let new_path = match place {
            Place::Named(path) => {
                let mut new_path = path.as_os_str().to_owned();
                new_path.push(".new");
                Some((PathBuf::from(new_path), path))
            }
            Place::Unnamed => None,
        };
        let new_file = match &new_path {
            Some((new_path, _)) => image::open(new_path)?,
            None => image::unnamed()?,
        };
        new_file.set_len(0)?;
        let cache = begin(self.config, place, new_file)?;
        let cas = self.head.cas();
        let cas = match self.head.state() {
            State::Clean => cas,
            _ => cas + CAS_SINCE_TICK,
        };
        cache.pass_cas(cas);
        let cache = cache.with_flush(FlushMark::resume(self.head.flush()));
        self.restart.how = How::Imported;
        self.restart.reason = reason;
        self.step_done("map");
        self.look_through(&cache, Some(&old), unfinished);
        if let Some(memory_file) = &cache.memory_file {
            memory_file.open()?;
        }
        if let Some((new_path, path)) = new_path {
            std::fs::rename(new_path, path)?;
        }
        Ok(cache)
    }

    /// Takes the pages away that are not as their sums say, if they have such.
    fn drop_changed_pages(&mut self, memory_file: &MemoryFile, items: &Items) {
        // Whoever opens a file takes its sums away. So who has damaged the mark that it is clean is seen as well.
        if !self.head.sums().0 {
            return;
        }
        for page in memory_file.changed_pages(items) {
            let used = u64::from(items.slabs().page_used(page));
            self.restart.dropped[Dropped::Damaged as usize] += used;
            items.give_page_back(page);
        }
    }

    /// Brings the items of all pages into `cache`: those that lie in it, or those of `old`.
    fn look_through(&mut self, cache: &Cache, old: Option<&Items>, unfinished: Vec<u32>) {
        let source = old.unwrap_or(&cache.items);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let walk = Walk {
            cache,
            source,
            is_import: old.is_some(),
            unfinished,
            now: RelTime((self.now_ms / 1000) as u32),
            cas_base: self.head.cas().saturating_sub(1 << 31),
            pages: source.slabs().page_ids().collect(),
            next: AtomicUsize::new(0),
            left: Vec::new(),
            older: Mutex::default(),
        };
        let walk = Walk {
            left: walk.pages.iter().map(|_| AtomicI32::new(UNSEEN)).collect(),
            ..walk
        };
        let shares = on_threads(threads, || walk.look_through());
        self.step_done(if walk.is_import { "import" } else { "walk" });
        if !walk.is_import {
            walk.next.store(0, Relaxed);
            on_threads(threads, || walk.settle());
            self.step_done("settle");
        }
        let mut cas_max = 0;
        for share in &shares {
            cas_max = cas_max.max(share.cas_max);
            for (all, own) in self.restart.dropped.iter_mut().zip(share.dropped) {
                *all += own;
            }
        }
        cache.pass_cas(cas_max);
        self.restart.kept = walk.link(shares, threads, self.config.policy());
        self.step_done("order");
    }
}

/// Runs the same on so many threads, and gives what each of them gives.
fn on_threads<R: Send>(threads: usize, work: impl Fn() -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(&work)).collect();
        let mut results = vec![work()];
        results.extend(others.into_iter().map(|other| match other.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
        results
    })
}

/// An item that was found, and how old it is: the second of its last access, and in it the order of the stores.
type Aged = (u64, ChunkHandle);

/// What one thread has found.
struct Share {
    /// Items by class and segment.
    lists: Vec<Vec<Aged>>,
    dropped: [u64; Dropped::ALL.len()],
    cas_max: u64,
}

/// A way through all pages, for several threads at a time.
struct Walk<'w> {
    cache: &'w Cache,
    /// Where the items lie: in the cache, or in an older file.
    source: &'w Items,
    is_import: bool,
    /// Items that were being changed where they lie.
    unfinished: Vec<u32>,
    now: RelTime,
    /// Uniques are counted from here, so that 32 bits tell them apart.
    cas_base: u64,
    pages: Vec<PageId>,
    next: AtomicUsize,
    /// For an import: of each page the continuations that are not read yet, or [`UNSEEN`] before the page was looked at, less
    /// those that were read already.
    left: Vec<AtomicI32>,
    /// Items that were found, and for which a newer one of the same key was found later.
    older: Mutex<Vec<ChunkHandle>>,
}

/// See [`Walk::left`].
const UNSEEN: i32 = 1 << 30;

impl Walk<'_> {
    /// The next pages that no thread has taken, by their position.
    fn turn(&self) -> Option<std::ops::Range<usize>> {
        let first = self.next.fetch_add(PAGES_A_TURN, Relaxed);
        let end = (first + PAGES_A_TURN).min(self.pages.len());
        (first < end).then_some(first..end)
    }

    fn look_through(&self) -> Share {
        let mut share = Share {
            lists: (0..CLASSES_MAX * Segment::ALL.len())
                .map(|_| Vec::new())
                .collect(),
            dropped: [0; Dropped::ALL.len()],
            cas_max: 0,
        };
        while let Some(turn) = self.turn() {
            for nth in turn {
                self.look_through_page(nth, &mut share);
            }
        }
        for list in &mut share.lists {
            list.sort_unstable();
        }
        share
    }

    fn look_through_page(&self, nth: usize, share: &mut Share) {
        let (page, slabs) = (self.pages[nth], self.source.slabs());
        let Some(class) = slabs.page_class(page) else {
            return;
        };
        let mut ahead: Vec<(ChunkHandle, Probe)> = Vec::with_capacity(AHEAD);
        let mut continuations = 0;
        for chunk in slabs.page_chunks(page) {
            if !self.source.claims_item(chunk) {
                continuations += i32::from(self.source.is_continuation(chunk));
                continue;
            }
            if let Some(why) = self.why_not(chunk, class) {
                share.dropped[why as usize] += 1;
                self.source.disown(chunk, why != Dropped::Damaged);
                continue;
            }
            let mut probe = Probe::new(self.cache.table.hash(self.source.key(chunk)));
            self.cache.table.prefetch_bucket(&mut probe);
            ahead.push((chunk, probe));
            if ahead.len() == AHEAD {
                self.keep_all(&mut ahead, share);
            }
        }
        self.keep_all(&mut ahead, share);
        if self.is_import {
            self.count_left(page, continuations - UNSEEN);
        }
    }

    /// Why what claims to be an item is not kept; none if it is.
    fn why_not(&self, chunk: ChunkHandle, class: ClassId) -> Option<Dropped> {
        if !self.source.is_sound(chunk, class) {
            return Some(Dropped::Damaged);
        }
        if self.unfinished.contains(&chunk.to_raw()) {
            return Some(Dropped::Unfinished);
        }
        let expires_at = self.source.header(chunk).expires_at();
        (expires_at != RelTime::NEVER && expires_at <= self.now).then_some(Dropped::Expired)
    }

    fn keep_all(&self, ahead: &mut Vec<(ChunkHandle, Probe)>, share: &mut Share) {
        for (chunk, probe) in ahead.drain(..) {
            let kept = if self.is_import {
                let stored = self.store_anew(chunk);
                self.source.chunks(chunk).skip(1).for_each(|part| {
                    self.count_left(self.source.slabs().page_of(part), -1);
                });
                self.source.disown(chunk, true);
                stored
            } else {
                Some(chunk)
            };
            match kept {
                Some(kept) => self.put(kept, probe.hash(), share),
                None => share.dropped[Dropped::NoMemory as usize] += 1,
            }
        }
    }

    /// A copy of an item of the older file.
    fn store_anew(&self, chunk: ChunkHandle) -> Option<ChunkHandle> {
        let (items, header) = (&self.cache.items, self.source.header(chunk));
        let spec = ItemSpec {
            key: self.source.key(chunk),
            key_binary: self.source.is_key_binary(chunk),
            client_flags: self.source.client_flags(chunk),
            expires_at: header.expires_at(),
            value_len: header.value_len() as u32,
        };
        let slabs = items.slabs();
        let mut new = items.create(&spec, |class| slabs.alloc(class)).ok()?;
        for piece in self.source.value_pieces(chunk) {
            new.write(piece);
        }
        let new = new.into_handle();
        items.follow_old(new, self.source, chunk);
        Some(new)
    }

    /// Puts an item into the table, and notes it for its list, unless there is a newer one of its key (Rv2).
    fn put(&self, handle: ChunkHandle, hash: KeyHash, share: &mut Share) {
        let items = &self.cache.items;
        let newness = |handle| (items.cas(handle), items.header(handle).accessed_at());
        let mut guard = self.cache.table.lock(hash);
        match guard.find(hash, |other| items.key(other) == items.key(handle)) {
            None => guard.insert(hash, handle),
            Some((_, other)) if newness(other) >= newness(handle) => {
                share.dropped[Dropped::Older as usize] += 1;
                return self.drop_item(handle);
            }
            Some((slot, other)) => {
                guard.replace(slot, handle);
                share.dropped[Dropped::Older as usize] += 1;
                self.older.lock().push(other);
                if !self.is_import {
                    self.source.disown(other, true);
                }
            }
        }
        drop(guard);
        let header = items.header(handle);
        let cas = items.cas(handle);
        // Beyond, it is damage.
        let cas = if cas < CAS_MAX { cas } else { 0 };
        share.cas_max = share.cas_max.max(cas);
        let order = cas.saturating_sub(self.cas_base).min(u64::from(u32::MAX));
        let age = u64::from(header.accessed_at().0) << 32 | order;
        let segment = header.state().segment() as usize;
        let class = self.cache.class_of(handle).index();
        share.lists[class * Segment::ALL.len() + segment].push((age, handle));
    }

    fn drop_item(&self, handle: ChunkHandle) {
        if self.is_import {
            self.cache.items.release(handle);
        } else {
            self.source.disown(handle, true);
        }
    }

    /// Counts continuations of a page; gives the page back when it has been looked at and none is left.
    fn count_left(&self, page: PageId, change: i32) {
        let left = &self.left[page.get() as usize - 1];
        if left.fetch_add(change, Relaxed) + change == 0 {
            self.source.give_page_back(page);
        }
    }

    fn settle(&self) {
        while let Some(turn) = self.turn() {
            for nth in turn {
                self.source.settle(self.pages[nth]);
            }
        }
    }

    /// Makes the LRU of each class from the lists of all threads; gives how many items there are.
    fn link(&self, mut shares: Vec<Share>, threads: usize, policy: Policy) -> u64 {
        let items = &self.cache.items;
        let mut older = std::mem::take(&mut *self.older.lock());
        older.sort_unstable();
        let mut kept = 0;
        for class in items.slabs().classes() {
            let mut lists = [List::default(); 4];
            let mut requested_bytes = 0;
            for segment in Segment::ALL {
                let at = class.index() * Segment::ALL.len() + segment as usize;
                let mut all: Vec<Aged> = Vec::new();
                for share in &mut shares {
                    all.append(&mut share.lists[at]);
                }
                if !older.is_empty() {
                    all.retain(|(_, handle)| older.binary_search(handle).is_err());
                }
                // Runs that are in order already, one a thread.
                all.sort();
                requested_bytes += self.link_list(&all, threads);
                lists[segment as usize] = List {
                    head: all.last().map(|&(_, handle)| handle),
                    tail: all.first().map(|&(_, handle)| handle),
                    count: all.len(),
                };
                kept += all.len() as u64;
            }
            if requested_bytes > 0 {
                let segments = Segments::resume(lists);
                *self.cache.lru(class) = ClassLru::resume(items, segments, requested_bytes, policy);
            }
        }
        if self.is_import {
            // Not before: another item would get the handle, and be taken for this one.
            older.into_iter().for_each(|handle| items.release(handle));
        }
        kept
    }

    /// Links the items of one list, the oldest first; gives the bytes that they asked for.
    fn link_list(&self, all: &[Aged], threads: usize) -> u64 {
        let part = all.len().div_ceil(threads).max(4096);
        let parts = AtomicUsize::new(0);
        let work = || {
            let mut requested = 0;
            loop {
                let first = parts.fetch_add(1, Relaxed) * part;
                if first >= all.len() {
                    return requested;
                }
                for at in first..(first + part).min(all.len()) {
                    requested += self.link_item(all, at);
                }
            }
        };
        if all.len() <= part {
            return work();
        }
        on_threads(threads, work).into_iter().sum()
    }

    fn link_item(&self, all: &[Aged], at: usize) -> u64 {
        let items = &self.cache.items;
        if let Some(&(_, later)) = all.get(at + AHEAD) {
            items.slabs().prefetch(later, 1);
        }
        let neighbour = |at: usize| all.get(at).map(|&(_, handle)| handle);
        let handle = all[at].1;
        let header = items.header(handle);
        header.set_next(at.checked_sub(1).and_then(neighbour));
        header.set_prev(neighbour(at + 1));
        items.mark_linked(handle);
        items.requested_bytes(handle) as u64
    }
}
