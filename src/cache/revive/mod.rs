//! How a cache goes on with the items of a process before it, from its memory file.
//!
//! ```text
//!             found                                    how                what it costs
//!  attach     clean, of the same layout                records --> Cache  nothing an item
//!  walk       of a process that did not end well       \  each page: sound items --> table, and a list with their ages
//!  import     of another layout, clean or not          /  then the lists, sorted --> LRU
//! ```
//!
//! walk.rs looks through items where they are, import.rs stores them anew.
//!
//! Walk and import are the same but for one thing: an item that was found stays where it is, or is stored anew in another
//! file, whose predecessor gives its pages back as it goes. Threads share the pages.
//!
//! Rv1. Nothing of the file is believed but what its sums cover; of a walk's items, nothing but what `Items::is_sound` has
//!      seen.
//! Rv2. Of two items of one key the newer is kept: a process that was killed while it replaced one may leave both.
//! Rv3. Until all is done the file says OPEN, so that a process that ends meanwhile leaves what can be walked again.
//! Rv4. The new file of an import takes the older one's name when all is in it.

mod import;
mod walk;

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Instant;

use slab_alloc::{CLASSES_MAX, ClassId, Places, SlabAllocator, image};

use super::flush::FlushMark;
use super::item::Items;
use super::lru::ClassLru;
use super::memory_file::layout::{Geometry, State};
use super::memory_file::{self, Found, Head, How, MemoryFile, Place, Restart};
use super::segments::Segments;
use super::store::{Cache, CacheConfig, Parts};
use super::table::{KeyHash, Table};
use super::uniques::Stores;
use crate::clock::Moment;

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
        match head_of(file) {
            Ok(head) => other_layout(config, &head),
            Err(reason) => Some(reason),
        }
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
        let head = head_of(&file)?;
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

/// The head of a file that has items in it; or why it has none.
fn head_of(file: &File) -> Result<Head, String> {
    match Head::find(file) {
        Ok(Found::Head(head)) => Ok(*head),
        Ok(Found::Unusable(reason)) => Err(reason),
        Ok(_) => Err("there are no items in it".to_owned()),
        Err(error) => Err(error.to_string()),
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
    let cache = Cache::of(parts, config);
    // Nobody waits for what is not there: why keys are gone is known from the first one on.
    cache.departed.prepare();
    Ok(cache)
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
}
