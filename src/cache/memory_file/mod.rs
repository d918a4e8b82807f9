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

mod close;
mod head;
pub mod layout;
mod learned;
mod report;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::Release};
use std::{fmt, io};

use parking_lot::Mutex;
use slab_alloc::{ChunkHandle, Image, PageId, Reserved, Space, sum_of_words};

use self::head::geometry_sum;
pub use self::head::{Found, Head};
use self::layout::{
    CLASS_RECORDS, CLASS_WORDS, FORMAT, Geometry, HEAD_BYTES, MAGIC, STRIPE_RECORDS, STRIPES,
    State, WRITE_MARKS, layout_hash, word,
};
pub use self::report::{Dropped, How, Restart};
use super::item::Items;
use super::table::Table;
use super::uniques::Stores;
use crate::clock::Moment;

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

/// What the policies have learned and is not taken up yet.
struct Unread {
    at: u64,
    end: u64,
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
