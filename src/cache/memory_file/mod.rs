//! The memory of a cache as a file, from which the next process goes on (`-e`).
//!
//! ```text
//!  superblock | records of classes | of stripes | write marks | page states | buckets | overflow buckets | arena | learned
//!  `- layout.rs: what lies where                                                          pages, chunks, items -'
//!
//!  start:  nothing there ------------------> new                 other chunk sizes, too small for -m --> import ([`revive`])
//!          clean, and all as it was left --> attach              a process that did not end well ------> walk   ([`revive`])
//!  stop:   the records, their sum, then the mark that all is clean
//! ```
//!
//! Mf1. The file says OPEN while a process serves from it, and CLEAN only when nobody can change it any more: a process that
//!      ends in any other way leaves it OPEN.
//! Mf2. What must be true after a crash is written when it happens: the flush mark, and the item that is being changed where
//!      it lies. What may be a tick old (the clock, the largest CAS unique) is written with each tick.
//! Mf3. All else is in the records, which are written once, at the end, and read once, at the start.
//! Mf4. A file that was left clean has sums: over records and page states, and where that takes no noticeable time, over each
//!      page and the table. What does not match them is not served.
//!
//! [`revive`]: super::revive

pub mod layout;
mod report;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::Release};
use std::{fmt, io};

use parking_lot::Mutex;
use slab_alloc::{ChunkHandle, ClassId, Image, PageId, Reserved, Space, sum_of_words};

use self::layout::{
    CLASS_RECORDS, CLASS_WORDS, FORMAT, Geometry, HEAD_BYTES, MAGIC, STRIPE_RECORDS, STRIPES,
    SUPERBLOCK_WORDS, State, Sum, WRITE_MARKS, layout_hash, word,
};
pub use self::report::{Dropped, How, Restart};
use super::eviction::Policy;
use super::item::Items;
use super::segments::{List, Segment};
use super::store::Cache;
use super::table::{OverflowRecord, Table, TableRecord};
use super::uniques::Stores;
use crate::clock::Moment;

/// Bytes of what policies have learned that are read at a time.
const LEARNED_AT_A_TIME: usize = 4 << 20;
/// Bytes of pages that get sums, which are compared before anything is served. Of more, page states and records alone have
/// sums: on two busy cores, without optimisation, 207 MB took 88 to 123 ms, and a start is to take 50.
const SUMMED_BYTES_MAX: usize = 64 << 20;

/// Where the memory of a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'p> {
    /// In the file of this name.
    Named(&'p Path),
    /// In a file without a name, which one process hands to the next.
    Unnamed,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Named(path) => write!(f, "-e {}", path.display()),
            Place::Unnamed => f.write_str("the memory that was handed over"),
        }
    }
}

/// The file that a cache lies in.
pub struct MemoryFile {
    /// None of one without a name.
    path: Option<PathBuf>,
    image: Image,
    words: Reserved<AtomicU64>,
    /// A sum for each page, if [`word::SUMMED`] says so.
    sums: Reserved<AtomicU64>,
    geometry: Geometry,
    /// What of the policies' learning is not taken up yet.
    unread: Mutex<Option<Unread>>,
}

struct Unread {
    at: u64,
    end: u64,
}

/// The head of a memory file, read and found to be one.
pub struct Head {
    words: Vec<u64>,
    /// Where everything lies.
    pub geometry: Geometry,
    /// The chunk sizes of the classes, from class 1 on.
    pub sizes: Vec<usize>,
}

/// What is found in a file that is to become a memory file.
pub enum Found {
    /// Nothing: it is new.
    Nothing,
    /// It is not ours.
    Foreign,
    /// It is ours, and cannot be used, for this reason.
    Unusable(String),
    /// A memory file.
    Head(Box<Head>),
}

/// What a record says of a class.
#[derive(Debug, Clone, Default)]
pub struct ClassRecord {
    /// Its lists, by segment.
    pub lists: [List; 4],
    /// Bytes that its items asked for.
    pub requested_bytes: u64,
    /// Whether items may go there.
    pub is_open: bool,
}

impl Head {
    /// Looks at what is in a file.
    pub fn find(file: &File) -> io::Result<Found> {
        let len = file.metadata()?.len();
        let mut bytes = vec![0; WRITE_MARKS * 8];
        let there = bytes.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        file.read_exact_at(&mut bytes[..there], 0)?;
        if bytes[..SUPERBLOCK_WORDS * 8].iter().all(|&byte| byte == 0) {
            // Room that somebody has made, or what was left by who began to make it.
            return Ok(Found::Nothing);
        }
        let number = |bytes: &[u8]| u64::from_ne_bytes(*bytes.first_chunk().expect("eight"));
        let words: Vec<u64> = bytes.chunks_exact(8).map(number).collect();
        if words[word::MAGIC] != MAGIC {
            return Ok(Found::Foreign);
        }
        Ok(match Self::check(words, len) {
            Ok(head) => Found::Head(Box::new(head)),
            Err(reason) => Found::Unusable(reason),
        })
    }

    fn check(words: Vec<u64>, len: u64) -> Result<Self, String> {
        let format = words[word::FORMAT];
        if format != FORMAT {
            return Err(format!(
                "it has format {format}, and this version knows {FORMAT}"
            ));
        }
        if words[word::LAYOUT] != layout_hash() {
            return Err("items lie otherwise in memory in the version that made it".to_owned());
        }
        let damaged = || "its first bytes are damaged".to_owned();
        if words[word::GEOMETRY_SUM] != geometry_sum(&words) {
            return Err(damaged());
        }
        let geometry = Geometry::read(&words).ok_or_else(damaged)?;
        let classes = usize::try_from(words[word::CLASSES]).map_err(|_| damaged())?;
        if classes == 0 || classes >= layout::CLASSES {
            return Err(damaged());
        }
        if len < geometry.len as u64 {
            let whole = geometry.len;
            return Err(format!("it was cut: {len} of {whole} bytes are left"));
        }
        let size = |class| words[CLASS_RECORDS + class * CLASS_WORDS] as u32 as usize;
        Ok(Head {
            geometry,
            sizes: (1..=classes).map(size).collect(),
            words,
        })
    }

    /// Whether a process has left it as the records say.
    pub fn state(&self) -> State {
        State::of(self.words[word::STATE])
    }

    /// When the process that had it looked at the clocks for the last time.
    pub fn last_moment(&self) -> Moment {
        Moment {
            now_ms: self.words[word::NOW_MS],
            unix_ms: self.words[word::UNIX_MS],
            boot_ms: self.words[word::BOOT_MS],
            boot_id: self.words[word::BOOT_ID],
        }
    }

    /// The largest CAS unique, as of that moment.
    pub fn cas(&self) -> u64 {
        self.words[word::CAS]
    }

    /// The clock of stores, as of that moment.
    pub fn stores(&self) -> u64 {
        self.words[word::STORES]
    }

    /// The flush mark.
    pub fn flush(&self) -> [u64; 3] {
        [word::FLUSH, word::FLUSH_DUE, word::FLUSHES_IN_A_ROW].map(|at| self.words[at])
    }

    /// Whether the records are whole.
    pub fn has_records(&self) -> bool {
        self.words[word::RECORDS_SUM] == records_sum(&self.words)
    }

    /// The seeds of the hash.
    pub fn seeds(&self) -> [u64; 4] {
        std::array::from_fn(|n| self.words[word::SEEDS + n])
    }

    /// What the hash of the process before made of the key that all know.
    pub fn hash_probe(&self) -> u64 {
        self.words[word::HASH_PROBE]
    }

    /// What it says of the table; none if that cannot be.
    pub fn table(&self) -> Option<TableRecord> {
        let stripe_bits = u32::try_from(self.words[word::STRIPE_BITS]).ok()?;
        let stripes = 1usize.checked_shl(stripe_bits).filter(|&n| n <= STRIPES)?;
        let halves = |word: u64| (word as u32, (word >> 32) as u32);
        let (head, used_mark) = halves(self.words[word::OVERFLOW_LIST]);
        let records = &self.words[STRIPE_RECORDS..STRIPE_RECORDS + stripes];
        Some(TableRecord {
            stripes: records.iter().map(|&word| halves(word)).collect(),
            overflow: OverflowRecord {
                head,
                used_mark,
                in_use: self.words[word::OVERFLOW_IN_USE] as u32,
            },
        })
    }

    /// What it says of a class.
    pub fn class(&self, class: ClassId) -> ClassRecord {
        let at = CLASS_RECORDS + class.index() * CLASS_WORDS;
        let words = &self.words[at..at + CLASS_WORDS];
        let handle = |raw: u64| ChunkHandle::from_raw(raw as u32);
        let list = |segment: Segment| {
            let at = 1 + 2 * segment as usize;
            List {
                head: handle(words[at]),
                tail: handle(words[at] >> 32),
                count: words[at + 1] as usize,
            }
        };
        ClassRecord {
            lists: Segment::ALL.map(list),
            requested_bytes: words[9],
            is_open: words[0] >> 32 != 0,
        }
    }

    /// Whether pages and table have sums; the sum of the page states, and of the table.
    pub fn sums(&self) -> (bool, u64, u64) {
        let [summed, states, table] =
            [word::SUMMED, word::STATES_SUM, word::TABLE_SUM].map(|at| self.words[at]);
        (summed == 1, states, table)
    }

    /// The policy in force, and the bytes that it has left behind the arena.
    pub fn learned(&self) -> (u64, u64) {
        (self.words[word::POLICY], self.words[word::POLICY_BYTES])
    }
}

/// The sum of the words that say where everything lies, and of the chunk sizes.
fn geometry_sum(words: &[u64]) -> u64 {
    let sizes = words[CLASS_RECORDS..STRIPE_RECORDS].chunks_exact(CLASS_WORDS);
    let sizes = sizes.map(|record| u64::from(record[0] as u32));
    Sum::of(words[..word::GEOMETRY_SUM].iter().copied().chain(sizes)).0
}

/// The sum of all that is written at the end.
fn records_sum(words: &[u64]) -> u64 {
    let live = &words[word::STATE + 1..word::RECORDS_SUM];
    let records = &words[SUPERBLOCK_WORDS..WRITE_MARKS];
    Sum::of(live.iter().chain(records).copied()).0
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryFile({:?})", self.path)
    }
}

impl MemoryFile {
    /// Maps a file that has everything where `geometry` says.
    pub fn map(place: Place<'_>, file: File, geometry: Geometry) -> io::Result<Self> {
        let (path, space) = match place {
            Place::Named(path) => (Some(path.to_owned()), Space::Allocated),
            Place::Unnamed => (None, Space::Touched),
        };
        let image = Image::map(file, geometry.len, space)?;
        image.back(0..HEAD_BYTES)?;
        let sums = Reserved::in_image(&image, geometry.sums, geometry.slabs.pages);
        image.back(geometry.sums..geometry.sums + 8 * geometry.slabs.pages)?;
        let words = Reserved::in_image(&image, 0, HEAD_BYTES / 8);
        Ok(MemoryFile {
            path,
            image,
            words,
            sums,
            geometry,
            unread: Mutex::new(None),
        })
    }

    /// Writes the superblock of a new file, in which nothing is yet.
    pub fn begin(&self, sizes: &[usize]) {
        let mut words = vec![0; STRIPE_RECORDS];
        words[word::MAGIC] = MAGIC;
        words[word::FORMAT] = FORMAT;
        words[word::LAYOUT] = layout_hash();
        words[word::CLASSES] = sizes.len() as u64;
        self.geometry.write(&mut words);
        for (nth, &size) in sizes.iter().enumerate() {
            words[CLASS_RECORDS + (nth + 1) * CLASS_WORDS] = size as u64;
        }
        words[word::GEOMETRY_SUM] = geometry_sum(&words);
        for (at, &word) in words.iter().enumerate() {
            self.set(at, word);
        }
    }

    /// Its name, if it has one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Its bytes.
    pub fn image(&self) -> &Image {
        &self.image
    }

    fn set(&self, at: usize, word: u64) {
        self.words[at].store(word, Relaxed);
    }

    /// Says that a process serves from it (Mf1).
    pub fn open(&self) -> io::Result<()> {
        for mark in WRITE_MARKS..WRITE_MARKS + STRIPES {
            // Reading does not make a line of zeros dirty.
            if self.words[mark].load(Relaxed) != 0 {
                self.set(mark, 0);
            }
        }
        self.set(word::SUMMED, 0);
        self.words[word::STATE].store(State::Open as u64, Release);
        // Where the file is on a disk, a power cut must not leave an older word there.
        self.image.file().sync_data()
    }

    /// Forgets what was left behind the arena.
    fn drop_learned(&self) {
        let _ = self.image.file().set_len(self.geometry.len as u64);
    }

    // ---- while it serves ------------------------------------------------------------------------------------------

    /// Notes what the clocks say, that of stores too, and the largest CAS unique (Mf2).
    pub fn note_time(&self, moment: &Moment, stores: &Stores) {
        self.set(word::NOW_MS, moment.now_ms);
        self.set(word::UNIX_MS, moment.unix_ms);
        self.set(word::BOOT_MS, moment.boot_ms);
        self.set(word::BOOT_ID, moment.boot_id);
        self.set(word::CAS, stores.highest());
        self.set(word::STORES, stores.clock());
    }

    /// Notes the flush mark (Mf2).
    pub fn note_flush(&self, [mark, due, in_a_row]: [u64; 3]) {
        self.set(word::FLUSH, mark);
        self.set(word::FLUSH_DUE, due);
        self.set(word::FLUSHES_IN_A_ROW, in_a_row);
    }

    /// Changes an item where it lies, under the lock of its stripe, with a mark that this is going on (Mf2).
    pub fn write_in_place<R>(
        &self,
        stripe: usize,
        handle: ChunkHandle,
        write: impl FnOnce() -> R,
    ) -> R {
        let mark = &self.words[WRITE_MARKS + stripe];
        mark.store(u64::from(handle.to_raw()), Relaxed);
        // A process that is killed has done all that comes before in the order of the program: only the compiler must keep it.
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        let done = write();
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        mark.store(0, Relaxed);
        done
    }

    /// The items that were being changed where they lie.
    pub fn write_marks(&self) -> Vec<u32> {
        let marks = (WRITE_MARKS..WRITE_MARKS + STRIPES).map(|at| self.words[at].load(Relaxed));
        marks
            .filter(|&mark| mark != 0)
            .map(|mark| mark as u32)
            .collect()
    }

    // ---- the end and the next start -------------------------------------------------------------------------------

    /// Writes the records of `cache`, which lies here and which nobody uses any more, and the mark that all is clean (Mf1).
    /// With sums, if nobody keeps the file meanwhile (Mf4).
    pub fn close(&self, cache: &Cache, moment: &Moment, with_sums: bool) -> io::Result<()> {
        self.note_time(moment, &cache.stores);
        self.note_flush(cache.flush.words());
        if self.image.is_patched() {
            // The file lacks a part of the table. The next process makes another one.
            return Ok(());
        }
        for (n, seed) in cache.seeds.into_iter().enumerate() {
            self.set(word::SEEDS + n, seed);
        }
        self.set(word::HASH_PROBE, cache.table.hash_probe());
        let table = cache.table.record();
        self.set(word::STRIPE_BITS, u64::from(table.stripes.len().ilog2()));
        let overflow = table.overflow;
        let list = u64::from(overflow.used_mark) << 32 | u64::from(overflow.head);
        self.set(word::OVERFLOW_LIST, list);
        self.set(word::OVERFLOW_IN_USE, u64::from(overflow.in_use));
        for (at, &(items, shape)) in table.stripes.iter().enumerate() {
            self.set(
                STRIPE_RECORDS + at,
                u64::from(shape) << 32 | u64::from(items),
            );
        }
        self.write_classes(cache);
        self.set(word::POLICY, cache.tuning.policy() as u64);
        self.set(word::STATES_SUM, cache.items.slabs().states_sum());
        self.write_sums(cache, with_sums);
        self.drop_learned();
        // Without it the policies learn anew.
        let learned = self.write_learned(cache).unwrap_or(0);
        self.set(word::POLICY_BYTES, learned);
        let words: Vec<u64> = (0..WRITE_MARKS)
            .map(|at| self.words[at].load(Relaxed))
            .collect();
        self.set(word::RECORDS_SUM, records_sum(&words));
        self.image.file().sync_data()?;
        self.words[word::STATE].store(State::Clean as u64, Release);
        self.image.file().sync_data()
    }

    /// Writes the sums of the pages and of the table, unless there is too much of it.
    fn write_sums(&self, cache: &Cache, wanted: bool) {
        let slabs = cache.items.slabs();
        let summed = wanted && slabs.pages_total() * slabs.page_bytes() <= SUMMED_BYTES_MAX;
        self.set(word::SUMMED, u64::from(summed));
        if summed {
            let pages: Vec<PageId> = slabs.page_ids().collect();
            in_parts(pages.len(), |nth| {
                self.sums[pages[nth].get() as usize]
                    .store(cache.items.page_sum(pages[nth]), Relaxed);
            });
            self.set(word::TABLE_SUM, table_sum(&cache.table));
        }
    }

    /// The pages that are not as their sums say.
    pub fn changed_pages(&self, items: &Items) -> Vec<PageId> {
        let changed = Mutex::new(Vec::new());
        let pages: Vec<PageId> = items.slabs().page_ids().collect();
        in_parts(pages.len(), |nth| {
            let page = pages[nth];
            if items.page_sum(page) != self.sums[page.get() as usize].load(Relaxed) {
                changed.lock().push(page);
            }
        });
        changed.into_inner()
    }

    fn write_classes(&self, cache: &Cache) {
        let slabs = cache.items.slabs();
        for class in slabs.classes() {
            let at = CLASS_RECORDS + class.index() * CLASS_WORDS;
            let lru = cache.lru(class);
            let open = u64::from(slabs.is_open(class));
            self.set(at, open << 32 | slabs.chunk_bytes(class) as u64);
            for segment in Segment::ALL {
                let list = lru.segments.list(segment);
                let raw =
                    |handle: Option<ChunkHandle>| u64::from(handle.map_or(0, ChunkHandle::to_raw));
                let at = at + 1 + 2 * segment as usize;
                self.set(at, raw(list.tail) << 32 | raw(list.head));
                self.set(at + 1, list.count as u64);
            }
            self.set(at + 9, lru.requested_bytes);
        }
    }

    /// Writes what the policies have learned behind the arena; gives how many bytes that is.
    ///
    /// ```text
    ///  | class, words of turnover, bytes learned | turnover | learned, filled up to words | sum |   of each class
    /// ```
    fn write_learned(&self, cache: &Cache) -> io::Result<u64> {
        let begin = self.geometry.len as u64;
        let mut at = begin;
        for class in cache.items.slabs().classes() {
            let (policy, mut learned, turnover) = cache.lru(class).learned();
            if learned.is_empty() && turnover.len() <= 1 {
                continue;
            }
            let head = [
                u64::from(class.get()) << 8 | policy as u64,
                turnover.len() as u64,
                learned.len() as u64,
            ];
            learned.resize(learned.len().next_multiple_of(8), 0);
            let words = head.into_iter().chain(turnover);
            let mut bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
            bytes.append(&mut learned);
            let sum = sum_of_bytes(&bytes);
            bytes.extend(sum.to_ne_bytes());
            self.image.file().write_all_at(&bytes, at)?;
            at += bytes.len() as u64;
        }
        Ok(at - begin)
    }

    /// Has what the policies have learned taken up step by step, if they are the same: so many bytes of it.
    pub fn has_learned(&self, bytes: u64) {
        let at = self.geometry.len as u64;
        let end = at.saturating_add(bytes);
        *self.unread.lock() = Some(Unread { at, end });
    }

    /// A part of that, in the background.
    pub fn take_up_learned(&self, cache: &Cache) {
        let mut unread = self.unread.lock();
        let Some(left) = &mut *unread else { return };
        let mut read = 0;
        while read < LEARNED_AT_A_TIME {
            match self.take_up_class(cache, left) {
                Ok(Some(bytes)) => read += bytes,
                Ok(None) | Err(_) => {
                    *unread = None;
                    self.drop_learned();
                    return;
                }
            }
        }
    }

    fn take_up_class(&self, cache: &Cache, left: &mut Unread) -> io::Result<Option<usize>> {
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let mut head = [0; 24];
        if left.end - left.at < head.len() as u64 {
            return Ok(None);
        }
        self.image.file().read_exact_at(&mut head, left.at)?;
        let word = |bytes: &[u8], n: usize| {
            u64::from_ne_bytes(*bytes[n * 8..].first_chunk().expect("eight"))
        };
        let (turnover, learned) = (word(&head, 1), word(&head, 2));
        let rest = turnover
            .checked_mul(8)
            .zip(learned.checked_next_multiple_of(8))
            .and_then(|(turnover, learned)| turnover.checked_add(learned)?.checked_add(8))
            .filter(|&rest| rest <= left.end - left.at - head.len() as u64)
            .ok_or_else(damaged)?;
        let mut bytes = head.to_vec();
        bytes.resize(head.len() + rest as usize, 0);
        self.image.file().read_exact_at(&mut bytes, left.at)?;
        left.at += bytes.len() as u64;
        let (bytes, sum) = bytes.split_at(bytes.len() - 8);
        let class = ClassId::new((word(bytes, 0) >> 8) as u8);
        let policy = Policy::ALL.get(bytes[0] as usize);
        let class = class.filter(|&class| cache.has_class(class.get()));
        let (Some(class), Some(&policy), true) =
            (class, policy, sum_of_bytes(bytes) == word(sum, 0))
        else {
            return Err(damaged());
        };
        let (turnover_bytes, learned_bytes) = bytes[24..].split_at(turnover as usize * 8);
        let turnover: Vec<u64> = turnover_bytes
            .chunks_exact(8)
            .map(|bytes| word(bytes, 0))
            .collect();
        let mut lru = cache.lru(class);
        lru.take_up(policy, &learned_bytes[..learned as usize], &turnover);
        Ok(Some(bytes.len()))
    }
}

/// The sum of all of the table.
pub fn table_sum(table: &Table) -> u64 {
    let sums: Vec<AtomicU64> = (0..table.sum_parts()).map(|_| AtomicU64::new(0)).collect();
    in_parts(sums.len(), |part| {
        sums[part].store(table.part_sum(part), Relaxed);
    });
    sum_of_words(sums.into_iter().map(AtomicU64::into_inner))
}

/// Does so many parts of a work on all processors.
fn in_parts(count: usize, part: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let nth = next.fetch_add(1, Relaxed);
            if nth >= count {
                return;
            }
            part(nth);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            scope.spawn(work);
        }
        work();
    });
}

fn sum_of_bytes(bytes: &[u8]) -> u64 {
    let word = |bytes: &[u8]| u64::from_ne_bytes(*bytes.first_chunk().expect("eight"));
    Sum::of(bytes.chunks_exact(8).map(word)).0
}
